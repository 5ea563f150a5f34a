"""Plans without PyTorch."""

import copy
import html
import importlib.metadata
import io
import json
import pickle
import re
import subprocess
import sys

import pytest

import freeze_plan


def test_epochs_and_names_are_iterated(digits):
    plan = freeze_plan.plan(digits, epochs=10, freeze_start=0.25)
    assert [epoch.epoch for epoch in plan] == list(range(1, 11))
    assert [epoch.frozen_units for epoch in plan][-1] == 10
    assert plan[9].frozen[:3] == ("conv1.weight", "bn1.weight", "bn1.bias")
    assert plan.frozen(1) == frozenset() and "conv1.weight" in plan.frozen(10)
    assert plan.epochs[9].predicted.step_cost < plan.epochs[0].predicted.step_cost == 1.0
    assert plan.units[0].path == "conv1" and plan.units[0].parameters == ("conv1.weight",)
    assert set(plan.parameters) >= {"fc.weight", "fc.bias"}
    assert plan.summary.pays and plan.summary.ceiling > 1 and "speedup" in str(plan.summary)
    assert plan.policy == "linear" and plan.settings["freeze_start"] == 0.25
    assert repr(plan) == "<Plan of 'model.onnx': linear, 10 epochs, 13 units, frozen 0, 0, 0, 0, 2, 4, 5, 7, 8, 10>"


def test_the_program_plans_the_same(digits, fixtures):
    file = fixtures / "cli" / "preview.json"
    plan = freeze_plan.plan(digits, epochs=3, freeze_start=0.2)
    assert plan.to_json() == file.read_text(encoding="utf-8")
    assert plan == freeze_plan.Plan.load(file)


def test_a_plan_is_saved_and_loaded(digits, tmp_path):
    plan = freeze_plan.plan(digits, epochs=4, policy="freezeout", steps_per_epoch=5, batch=8)
    assert any(epoch.changes for epoch in plan), "freezes within epochs"
    change = next(change for epoch in plan for change in epoch.changes)
    assert plan.frozen(change.epoch, change.after) == set(change.frozen)
    plan.save(tmp_path / "plan.json")
    assert freeze_plan.Plan.load(tmp_path / "plan.json") == plan == freeze_plan.Plan.load(tmp_path)
    assert freeze_plan.Plan.from_json(plan.to_json()) == plan == pickle.loads(pickle.dumps(plan))
    assert plan != freeze_plan.plan(digits, epochs=5)


def test_a_model_is_a_path_or_bytes(digits):
    class Proto:
        def SerializeToString(self):
            return digits.read_bytes()

    plan = freeze_plan.plan(digits, epochs=3)
    for model in (str(digits), digits.read_bytes(), memoryview(digits.read_bytes()), Proto()):
        assert freeze_plan.plan(model, 3) == plan


def test_a_model_is_a_file_or_what_the_exporter_returns(digits):
    class Proto:
        def SerializeToString(self):
            return digits.read_bytes()

    class Program:
        made = 0

        @property
        def model_proto(self):
            Program.made += 1
            return Proto()

    plan = freeze_plan.plan(digits, epochs=3)
    with open(digits, "rb") as file:
        assert freeze_plan.plan(file, 3) == plan
    assert freeze_plan.plan(io.BytesIO(digits.read_bytes()), 3) == plan
    assert freeze_plan.plan(Program(), 3) == plan and Program.made == 1
    assert freeze_plan.tree(Program()).children


def test_a_plan_is_shown(digits):
    plan = freeze_plan.plan(digits, epochs=5, policy="steps", steps="2:3,4:0", batch_norm="frozen")
    assert str(plan).splitlines()[:4] == [
        "model.onnx: steps, 5 epochs, 13 units",
        "  epoch 1: 0 units frozen, 0 parameters; a step costs 100.0%",
        f"  epoch 2 to 3: 3 units frozen, 4 parameters; a step costs {plan.at(2).predicted.step_cost:.1%}",
        "  epoch 4 to 5: 0 units frozen, 0 parameters; a step costs 100.0%",
    ]
    assert str(plan).splitlines()[4:] == str(plan.summary).splitlines()
    page = plan.to_html()
    assert page.startswith("<!doctype html>") and "block1.conv1" in page
    shown = plan._repr_html_()
    assert html.unescape(re.search('srcdoc="([^"]*)"', shown)[1]) == page


def test_a_plan_is_a_sequence(digits):
    plan = freeze_plan.plan(digits, epochs=5)
    assert len(plan) == 5 and plan[-1] is plan.epochs[4] and plan[1:3] == plan.epochs[1:3]
    assert copy.deepcopy(plan) == copy.copy(plan) == plan and hash(copy.deepcopy(plan)) == hash(plan)


def test_numbers_may_be_those_of_arrays(digits):
    class Scalar:
        def __init__(self, value):
            self.value = value

        def item(self):
            return self.value

    class Index(Scalar):
        def __index__(self):
            return self.value

    plan = freeze_plan.plan(digits, 4, freeze_start=0.25, batch=2)
    assert freeze_plan.plan(digits, Index(4), freeze_start=Scalar(0.25), batch=Index(2)) == plan
    assert plan.at(Index(4)) == plan.at(4)


def test_the_version_is_that_of_the_package():
    assert freeze_plan.__version__ == importlib.metadata.version("freeze-plan")


def test_the_license_is_in_the_package(fixtures):
    text = (fixtures.parent / "LICENSE").read_text(encoding="utf-8")
    packed = [file for file in importlib.metadata.files("freeze-plan") if file.name == "LICENSE"]
    assert [file.read_text(encoding="utf-8") for file in packed] == [text]


def test_options_reach_the_planner(digits):
    kept = freeze_plan.plan(digits, 4, freeze_start=0.0, keep=["bn*"], freeze=["block1.*"], batch_norm="frozen")
    assert all("block1.conv1.weight" in epoch.frozen and "bn1.weight" not in epoch.frozen for epoch in kept)
    assert "block1.bn1.running_mean" in kept[0].statistics
    assert len(freeze_plan.plan(digits, unit="block").units) == 7
    costs = [freeze_plan.plan(digits, 2, batch=n)[0].predicted.forward_flops for n in (1, 8)]
    assert costs[1] == 8 * costs[0]
    fed = freeze_plan.plan(digits, 2, shapes={next(iter(kept.data["assumed"]["inputs"])): [8, 1, 8, 8]})
    assert fed[0].predicted.forward_flops == costs[1]
    assert freeze_plan.plan(digits, 2, slots=2)[0].predicted.slot_bytes == 2 * kept.data["model"]["bytes"]


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda model: freeze_plan.plan("none.onnx"), "bad-input", "none.onnx"),
        (lambda model: freeze_plan.plan(b"abc"), "bad-input", "no ONNX model"),
        (lambda model: freeze_plan.plan(3), "usage", "type int"),
        (lambda model: freeze_plan.plan(model, -1), "usage", "epochs is -1"),
        (lambda model: freeze_plan.plan(model, 2.5), "usage", "epochs is 2.5"),
        (lambda model: freeze_plan.plan(model, True), "usage", "epochs is True"),
        (lambda model: freeze_plan.plan(model, 0), "usage", "epochs is 0"),
        (lambda model: freeze_plan.plan(model, batch=0), "usage", "found 0"),
        (lambda model: freeze_plan.plan(model, freeze_stat=0.5), "usage", "freeze_start"),
        (lambda model: freeze_plan.plan(model, freeze_start=2), "usage", "freeze_start"),
        (lambda model: freeze_plan.plan(model, freeze_start=float("nan")), "usage", "cannot be used"),
        (lambda model: freeze_plan.plan(model, policy="liner"), "usage", 'nearest: "linear"'),
        (lambda model: freeze_plan.plan(model, unit="leav"), "usage", "unit"),
        (lambda model: freeze_plan.plan(model, freeze="conv1"), "usage", "freeze=['conv1']"),
        (lambda model: freeze_plan.plan(model, freeze=["convv1"]), "usage", "convv1"),
        (lambda model: freeze_plan.plan(model, shapes={"y": [1]}), "usage", '"y"'),
        (lambda model: freeze_plan.plan(model, shapes={"x": "8a"}), "usage", "shapes['x'] is '8'"),
        (lambda model: freeze_plan.plan(model, shapes=[8]), "usage", "shapes is [8]"),
        (lambda model: freeze_plan.plan(model, keep=3), "usage", "keep is 3"),
        (lambda model: freeze_plan.plan(model, freeze_start=object()), "usage", "of type object"),
        (lambda model: freeze_plan.plan(io.StringIO("text")), "usage", "expected bytes"),
        (lambda model: freeze_plan.plan(model).at("1"), "usage", "epoch is '1'"),
        (lambda model: freeze_plan.plan(model).at(11), "usage", "expected 1 to 10"),
        (lambda model: freeze_plan.Plan.load("none.json"), "bad-input", "none.json"),
        (lambda model: freeze_plan.Plan.from_json("{}"), "bad-input", "format"),
        (lambda model: freeze_plan.tree("none.onnx"), "bad-input", "none.onnx"),
    ],
)
def test_an_error_says_what_is_wrong(digits, call, kind, said):
    with pytest.raises(freeze_plan.Error) as raised:
        call(digits)
    assert isinstance(raised.value, ValueError)
    assert raised.value.kind == kind and said in str(raised.value), str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_hint_is_part_of_the_error(digits):
    with pytest.raises(freeze_plan.Error) as raised:
        freeze_plan.plan(digits, freeze_stat=0.5)
    assert raised.value.hint and raised.value.hint in str(raised.value)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_the_tree_holds_every_parameter(digits):
    root = freeze_plan.tree(digits)
    names = [name for module in root.walk() for name in module.parameters]
    assert names == list(freeze_plan.plan(digits).parameters)
    paths = [module.path for module in root.walk()]
    assert paths[0] == "" and "block1.conv1" in paths
    assert "running_mean float32[16] 16 statistic" in str(root)


def test_policies_are_listed():
    policies = {policy.name: policy for policy in freeze_plan.policies()}
    assert "freeze_start" in policies["linear"].settings and "Composer" in policies["linear"].card


def test_nothing_else_is_imported():
    code = (
        "import sys, freeze_plan; freeze_plan.policies(); "
        "print([n for n in ('torch', 'composer', 'lightning', 'numpy', 'pandas') if n in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]", shown


def test_plan_data_is_the_file(digits):
    plan = freeze_plan.plan(digits, 3)
    assert json.loads(plan.to_json()) == plan.data


def test_the_typed_example_runs(digits):
    import typed

    assert typed.main(digits) == [0, 0, 6, 12]
