"""Events as rows and columns."""

import pytest

import freeze_plan

LINES = """\
{"event":"start","time":0.0,"version":"0.1.0","epochs":2}
{"event":"step","time":0.1,"epoch":1,"step":1,"loss":2.5,"lr":0.1,"seconds":0.01}
{"event":"step","time":0.2,"epoch":1,"step":2,"loss":2.25,"lr":0.1,"seconds":0.01,"scale":2.0}
{"event":"epoch","time":0.3,"epoch":1,"train_loss":2.375,"metrics":{"accuracy":0.5}}
{"event":"step","time":0.4,"epo"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "events.jsonl").write_text(LINES, encoding="utf-8")
    return tmp_path


def test_a_folder_and_its_file_are_read(run):
    events = freeze_plan.events(run)
    assert events == freeze_plan.events(run / "events.jsonl") == freeze_plan.events(str(run))
    assert len(events) == 4, "a line that is not whole is left out"
    assert events.kinds() == ("start", "step", "epoch")
    assert [event["loss"] for event in events.of("step")] == [2.5, 2.25]


def test_events_of_a_kind_are_columns(run):
    table = freeze_plan.events(run).table("step")
    assert table == {
        "time": [0.1, 0.2],
        "epoch": [1, 1],
        "step": [1, 2],
        "loss": [2.5, 2.25],
        "lr": [0.1, 0.1],
        "seconds": [0.01, 0.01],
        "scale": [None, 2.0],
    }
    assert table.rows == 2
    assert freeze_plan.events(run).table("epoch")["metrics.accuracy"] == [0.5]


def test_a_kind_that_there_is_none_of_is_told(run):
    with pytest.raises(freeze_plan.Error, match="'stop'.*start, step, epoch"):
        freeze_plan.events(run).table("stop")


def test_what_is_no_run_is_told(tmp_path):
    with pytest.raises(freeze_plan.Error, match="cannot read"):
        freeze_plan.events(tmp_path)
    (tmp_path / "events.jsonl").write_text('{"event":"start"}\n{"time":1}\n')
    with pytest.raises(freeze_plan.Error, match="line 2"):
        freeze_plan.events(tmp_path)


def test_a_line_may_end_within_a_character(run):
    file = run / "events.jsonl"
    file.write_bytes(file.read_bytes() + "ö".encode()[:1])
    assert len(freeze_plan.events(run)) == 4
    file.write_bytes(b"")
    assert freeze_plan.events(run) == []


def test_a_table_is_what_polars_takes(run):
    polars = pytest.importorskip("polars", reason="polars is not installed")
    table = freeze_plan.events(run).table("step")
    assert polars.DataFrame(table, strict=False).to_dict(as_series=False) == table


def test_a_table_becomes_a_data_frame(run):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = freeze_plan.events(run).to_pandas("step")
    assert isinstance(frame, pandas.DataFrame) and list(frame["loss"]) == [2.5, 2.25]
