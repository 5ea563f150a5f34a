use super::*;
use crate::plan::testing::{chain, six_units};
use crate::plan::{PlanOptions, build};
use crate::report::plan_html::tests::unbalanced;

const START: &str = r#"{"event":"start","version":"0.1.0","engine":"onnxruntime","engine_version":"1.32.0","device":"cpu","threads":2,"parameters":28410,"epochs":4,"steps":40,"samples":640,"time":0.1}"#;
const END: &str =
    r#"{"event":"end","status":"done","metrics":{"accuracy":0.97,"loss":0.125},"seconds":9.0,"time":9.0}"#;

/// Returns a run of a chain of three units over four epochs with these lines of events.
fn record(lines: &[impl AsRef<str>]) -> RunRecord {
    let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
    let log = RunLog::read(format!("{}\n", lines.join("\n")).as_bytes()).unwrap();
    let problems = log.problems();
    let plan = Some(build(&chain(3).inputs(4), &PlanOptions::default()).unwrap());
    RunRecord { label: "runs/first".into(), log, plan, problems, ..RunRecord::default() }
}

/// Returns a page that is well formed and fetches nothing.
fn page(runs: &[RunRecord]) -> String {
    let page = run_html(runs);
    assert_eq!(unbalanced(&page), None);
    for forbidden in ["http", "src=", "href=", "url(", "@import", "NaN", "inf%"] {
        let found = page.find(forbidden).and_then(|at| page.get(at.saturating_sub(300)..at + 20));
        assert_eq!(found, None, "{forbidden}");
    }
    page
}

fn page_of(lines: &[impl AsRef<str>]) -> String {
    page(&[record(lines)])
}

fn phase(epoch: usize, after: usize, frozen: usize, cost: f64) -> String {
    let before = epoch - 1;
    format!(
        r#"{{"event":"phase","epoch":{epoch},"after":{after},"frozen":{frozen},"frozen_units":{frozen},"seconds":0.5,"predicted_step_cost":{cost},"nodes":1,"time":{before}.5}}"#
    )
}

fn step(step: usize, loss: f64, seconds: f64) -> String {
    format!(r#"{{"event":"step","epoch":1,"step":{step},"loss":{loss},"lr":0.1,"seconds":{seconds}}}"#)
}

fn epoch(epoch: usize, accuracy: f64, more: &str) -> String {
    format!(
        r#"{{"event":"epoch","epoch":{epoch},"train_loss":0.5,"metrics":{{"accuracy":{accuracy},"loss":0.25}},"seconds":2.0,"samples_per_second":320,"peak_bytes":123000000{more},"time":{epoch}}}"#
    )
}

/// Returns the rows of the table under a heading, cells apart by `|`.
fn rows(page: &str, heading: &str) -> Vec<String> {
    let section = page.split("<section>").find(|section| section.contains(&format!("<h2>{heading}</h2>")));
    let section = section.unwrap_or_else(|| panic!("{heading} is not in the page"));
    let plain = |row: &str| {
        let mut text = String::new();
        for part in row.replace("</td>", "|").replace("</th>", "|").split('<') {
            text += part.split_once('>').map_or(part, |(_, text)| text);
        }
        text.trim().replace('\u{a0}', " ")
    };
    let body = section.split_once("<tbody>").unwrap().1.split_once("</tbody>").unwrap().0;
    body.lines().map(plain).filter(|row| !row.is_empty()).collect()
}

fn has(page: &str, texts: &[&str]) {
    let plain = page.replace('\u{a0}', " ");
    for text in texts {
        assert!(plain.contains(text), "{text} is not in the page");
    }
}

/// Returns the points of the curve of a chart as places in the drawing.
fn curve(page: &str, chart: &str) -> Vec<(f64, f64)> {
    let chart = page.split("<figure").find(|figure| figure.contains(&format!("<b>{chart}</b>"))).unwrap();
    let path = chart.split("data-n=").nth(1).unwrap().split("d=\"").nth(1).unwrap().split('"').next().unwrap();
    let numbers: Vec<f64> =
        path.split(['M', 'L', ' ']).filter(|text| !text.is_empty()).map(|text| text.parse().unwrap()).collect();
    numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect()
}

#[test]
fn a_whole_run_is_shown() {
    let lines = [
        START.to_string(),
        phase(1, 0, 0, 1.0),
        r#"{"event":"ceiling","measured_steps":3,"check_seconds":0.1,"step_seconds":0.2,"parts":{"data":0.01,"forward":0.05,"backward":0.12,"update":0.02,"rest":0.0},"share":0.7,"seconds_without":8.0,"seconds_with":6.0,"changes":1,"change_seconds":0.5,"gain":0.25,"steps_gain":0.3,"flops_gain":0.3,"time":0.6}"#.into(),
        r#"{"event":"warning","message":"the data is small","time":0.6}"#.into(),
        r#"{"event":"warning","message":"the data is small","time":0.6}"#.into(),
        step(10, 2.0, 0.2),
        epoch(1, 0.8, r#","wait_seconds":0.5"#),
        step(20, 0.5, 0.2),
        epoch(2, 0.98, r#","wait_seconds":0.1"#),
        r#"{"event":"checkpoint","epoch":2,"step":20,"path":"runs/first/checkpoints","time":2.1}"#.into(),
        epoch(3, 0.96, r#","wait_seconds":0.0,"device_peak_bytes":9500000000"#),
        phase(4, 0, 1, 0.5).replace(
            "\"nodes\"",
            r#""memory_estimate":{"weights":1,"frozen":0,"slots":0,"gradients":0,"activations":2500000000,"workspace":0,"other":0,"total":2500000001,"largest":[{"name":"x","bytes":9}]},"nodes""#,
        ),
        r#"{"event":"speed","epoch":1,"steps":30,"predicted_seconds":0.25,"median_seconds":0.2,"predicted_change_seconds":0.0,"change_seconds":0.0,"time":3.6}"#.into(),
        step(40, 0.25, 0.1),
        epoch(4, 0.97, r#","wait_seconds":0.2,"per_class":{"f1":[0.9,null],"recall":[0.8,0.75]},"confusion":[[9,1],[0,12]]"#),
        r#"{"event":"proof","from_epoch":4,"to_epoch":4,"parameters":2,"statistics":1,"sha256":"<b>0123456789abcdef","time":8}"#.into(),
        r#"{"event":"speed","epoch":4,"steps":10,"predicted_seconds":0.125,"median_seconds":0.1,"predicted_change_seconds":0.5,"change_seconds":0.75,"time":8}"#.into(),
        r#"{"event":"gain","predicted":0.25,"predicted_steps":0.3,"steps":0.35,"gain":0.275,"seconds_without":8.0,"seconds_with":6.0,"change_seconds":0.75,"time":8}"#.into(),
        END.to_string(),
    ];
    let mut run = record(&lines);
    run.settings =
        RunRecord::settings_of("model = \"m.onnx\"\n[run]\nepochs = 4\n[data.inputs]\nx = \"images\"").unwrap();
    let page = page(&[run]);
    let told = [
        "Done: 4 epochs with 40 steps in 9.00 s. Freezing saved 27.5 % of the time of the steps, phase changes included; \
         predicted were 25.0 % saved.",
        "<dt>best eval accuracy</dt><dd>98.00 %</dd><dd class=\"dim\">epoch 2, last 97.00 %</dd>",
        "<dt>best eval loss</dt><dd>0.2500</dd><dd class=\"dim\">epoch 1, last 0.1250</dd>",
        "<dt>waiting for data</dt><dd>10.0 %</dd>",
        "<dt>samples per second</dt><dd>320</dd>",
        "<dt>units frozen</dt><dd>1</dd><dd class=\"dim\">of 3, in the last phase</dd>",
        "<dt>peak memory</dt><dd>123 MB</dd>",
        "<dt>peak device memory</dt><dd>9.50 GB</dd>",
        "<dt>memory, estimated</dt><dd>2.50 GB</dd>",
        "<li>the data is small (2 times)</li>",
        "<b>Training loss</b>",
        "<b>Loss</b>",
        "<b>Eval accuracy</b>",
        "<b>Learning rate</b>",
        "<b>Time of an epoch</b>",
        "<b>Throughput</b>",
        "<b>Waiting for data</b>",
        "<b>Peak memory</b>",
        "backward 120 ms (60.0 %)",
        "data-n=\"predicted with nothing frozen\"",
        "1 written, the last one after step 20 of epoch 2.",
        "<dt>engine</dt><dd>onnxruntime 1.32.0</dd>",
        "<dt>model sha256</dt>",
        "data.inputs.x</th><td class=\"path\">&quot;images&quot;</td>",
        "<p class=\"dim\">From plan.json, as the run followed it.",
    ];
    has(&page, &told);
    assert!(!page.contains("followed open"), "all of the plan was reached");
    assert_eq!(
        rows(&page, "Time and memory"),
        ["by the steps|30.0 %|35.0 %|", "less the phase changes|25.0 %|27.5 %|"]
    );
    let phases = [
        "1|0 units, 0 tensors|2|200 ms|200 ms|250 ms|0 s|0 s|0 s|100 %|-|-|",
        "4|1 unit, 1 tensor|1|100 ms|100 ms|125 ms|750 ms|500 ms|0 s|50 %|2.50 GB|2 tensors, 1 statistic (b0123456789a)|",
    ];
    assert_eq!(rows(&page, "Phases"), phases);
    assert_eq!(rows(&page, "Classes")[..2], ["0|0.9000|0.8000|", "1|-|0.7500|"]);
    has(
        &page,
        &[
            "<h3>Confusion</h3>",
            "<td class=\"right\" style=\"--part:41%\">9</td><td class=\"wrong\" style=\"--part:12%\">1</td>",
        ],
    );
    assert_eq!(rows(&page, "Epochs")[3], "4|0.5000|0.2500|97.00 %|2.00 s|10.0 %|320.0|123 MB|");
    let predicted = page.split("data-n=\"predicted\"").nth(1).unwrap();
    // 10 steps of 0.25 s, later of 0.125 s, on a scale from 0 to 2.5 s.
    assert!(predicted.starts_with(" d=\"M0 0L3333 0 6667 0 10000 5000\""), "{}", &predicted[..60]);
}

#[test]
fn what_freezing_gained_is_told_in_both_directions() {
    struct Case {
        gain: f64,
        predicted: f64,
        text: &'static str,
    }
    let cases = [
        Case {
            gain: 0.25,
            predicted: -0.125,
            text: "saved 25.0 % of the time of the steps, phase changes included; predicted were 12.5 % more.",
        },
        Case {
            gain: -0.5,
            predicted: 0.125,
            text: "made the steps take 50.0 % longer, phase changes included; predicted were 12.5 % saved.",
        },
    ];
    for Case { gain, predicted, text } in cases {
        let line = format!(
            r#"{{"event":"gain","predicted":{predicted},"predicted_steps":0.3,"steps":0.3,"gain":{gain},"seconds_without":8.0,"seconds_with":6.0,"change_seconds":0.75,"time":8}}"#
        );
        has(&page_of(&[phase(1, 0, 0, 1.0), line, END.to_string()]), &[text]);
    }
}

#[test]
fn a_curve_stands_where_its_values_are() {
    let page = page_of(&[START.to_string(), step(10, 1.0, 0.1), step(20, 2.0, 0.1), step(30, 1.5, 0.1)]);
    assert_eq!(curve(&page, "Training loss"), [(0.0, 10000.0), (5000.0, 0.0), (10000.0, 5000.0)]);
    has(&page, &["Training loss by step: runs/first from 1.000 at step 10 to 1.500 at step 30"]);
}

#[test]
fn decisions_rollbacks_and_measurements_are_shown() {
    let page = page_of(&[
        phase(1, 0, 2, 0.5),
        phase(3, 4, 2, 0.5),
        step(40, 0.5, 0.1),
        step(41, 0.5, 0.1),
        r#"{"event":"observation","step":40,"signals":{"cka":[0.5,null,0.25]},"seconds":1.5,"time":1}"#.into(),
        r#"{"event":"decision","epoch":3,"step":40,"frozen":2,"frozen_units":1,"time":1}"#.into(),
        epoch(3, 0.5, ""),
        r#"{"event":"rollback","epoch":3,"to_epoch":3,"to_step":40,"metric":"accuracy","before":0.9,"delay":2,"time":1}"#.into(),
    ]);
    let stop = r#"{"event":"nonfinite","epoch":3,"step":41,"batch":7,"action":"skip","in_a_row":2,"cause":{"kind":"value","tensor":"<h>","module":"block","operator":"Exp","nans":0,"infinities":4,"elements":8},"seconds":0.1,"time":1}"#;
    let stopped = page_of(&[phase(1, 0, 0, 1.0), step(40, 0.5, 0.1), stop.into()]);
    let told = "<li>Step 41, in epoch 3: the loss is not finite, the step is skipped (2 in a row); &quot;&lt;h&gt;&quot; (Exp of \
                module block) is the first: infinite in 4 of 8 elements.</li>";
    has(&stopped, &[told]);
    let told = [
        "After step 40, from epoch 3 on: 1 unit and 2 tensors frozen.",
        "Rollback after epoch 3: eval accuracy went from 0.9000 to no finite number. Back to epoch 3, step 40; freezes \
         come 2 epochs later in all.",
        "They took 1.50 s in all",
        "the run went back behind 1 logged step",
    ];
    has(&page, &told);
    assert!(rows(&page, "Phases")[1].ends_with("|taken back|"), "{:?}", rows(&page, "Phases"));
    has(&page, &["From plan.json, which does not hold all that was decided on the way"]);
    assert_eq!(rows(&page, "Measurements"), ["40|2|0.2500|u2|0.5000|0.5000|u0|"]);
}

#[test]
fn what_a_run_went_back_behind_counts_for_nothing() {
    let lines = [
        START.to_string(),
        step(10, 1.0, 0.1),
        epoch(1, 0.7, ""),
        step(20, 0.5, 0.1),
        epoch(2, 0.99, ""),
        step(30, 0.1, 0.1),
        r#"{"event":"resume","epoch":2,"step":15,"time":0.5}"#.into(),
        step(20, 0.75, 0.1),
        epoch(2, 0.8, ""),
    ];
    let run = record(&lines);
    let steps = |steps: &[log::Step]| steps.iter().map(|step| (step.step, step.loss)).collect::<Vec<_>>();
    assert_eq!(steps(&run.log.steps), [(10, 1.0), (20, 0.75)]);
    assert_eq!(steps(&run.log.undone[0]), [(20, 0.5), (30, 0.1)]);
    assert_eq!((run.best("accuracy"), run.last("accuracy")), (Some((2, 0.8)), Some(0.8)));
    assert!([("perplexity", 2), ("f1_macro", 1)].iter().all(|(name, best)| {
        let lines = [epoch(1, 0.9, ""), epoch(2, 0.5, "")].map(|line| line.replace("accuracy", name));
        record(&lines).best(name).is_some_and(|found| found.0 == *best)
    }));
    let cut = record(&lines[..7]);
    assert_eq!(steps(&cut.log.steps), [(10, 1.0)], "it stands at step 15 before it logs another one");
    // Two seconds at work before it went on, and two after.
    assert_eq!(run.log.seconds(), 4.0);
    let page = page(&[run]);
    has(
        &page,
        &["It went on from a checkpoint once, at step 15 in epoch 2.", "class=\"l l0 undone\"", "2 (taken back)"],
    );
    let chart = page.split("<figure").find(|figure| figure.contains("<b>Training loss</b>")).unwrap();
    let xs: Vec<&str> =
        chart.split("undone\" d=\"M").nth(1).unwrap().split('"').next().unwrap().split(['L', ' ']).collect();
    assert_eq!([xs[0], xs[2], xs[4]], ["0", "5000", "10000"], "from the kept step before it to the last");
}

#[test]
fn every_state_of_a_run_has_a_page() {
    let end = |status: &str, error: &str| {
        format!(r#"{{"event":"end","status":"{status}"{error},"metrics":{{"accuracy":null}},"seconds":3,"time":3}}"#)
    };
    let begun = [START.to_string(), phase(1, 0, 0, 1.0), step(10, 1.0, 0.1), epoch(1, 0.5, ""), step(20, 0.5, 0.1)];
    let after = |line: String| [&begun[..], &[line]].concat();
    let failed = end("failed", r#","error":"epoch 2, step 21: the loss is NaN""#).replace("NaN", "not finite");
    let cases: [(Vec<String>, &str); 7] = [
        (
            vec![],
            "No end is recorded: the run is still going, or it was ended from outside. What is recorded ends before its \
                  first logged step, after 0 s at work.",
        ),
        (begun[..3].to_vec(), "ends after step 10 of 40, in its first epoch, after 500 ms at work."),
        (begun.to_vec(), "ends after epoch 1 of 4 (last logged: step 20 of 40), after 1.00 s at work."),
        (
            after(end("stopped", "")),
            "Stopped as asked after epoch 1 of 4 (last logged: step 20 of 40), at work for 3.00 s.",
        ),
        (
            after(failed),
            "<p class=\"verdict no\">Failed after epoch 1 of 4 (last logged: step 20 of 40), at work for \
                         3.00 s: epoch 2, step 21: the loss is not finite.</p>",
        ),
        (after(end("paused", "")), "Ended as \"paused\" after epoch 1 of 4".replace('"', "&quot;").leak()),
        (after(end("done", "")), "Done: 4 epochs with 40 steps in 3.00 s."),
    ];
    for (lines, told) in cases {
        let page = page_of(&lines);
        has(&page, &[told]);
        let share = match lines.len() {
            0 => "0.00%",
            3 => "25.00%",
            _ => "50.00%",
        };
        let open = format!("class=\"followed open\" style=\"--done:{share}\"");
        assert_eq!(page.contains(&open), !told.starts_with("Done"), "{told}");
        // The same with a second run beside it.
        super::tests::page(&[record(&lines), record(&begun)]);
    }
    let resumed = record(&[after(end("stopped", "")), vec![step(30, 0.25, 0.1)]].concat());
    assert_eq!(resumed.state(), record::State::Open);
}

#[test]
fn lines_that_cannot_be_read_are_told_and_left_out() {
    let lines = [
        START,
        r#"{"event":"later","what":1,"time":0.2}"#,
        "nonsense",
        r#"{"event":"step","epoch":1,"st{"event":"resume","epoch":1,"step":5}"#,
        &step(10, 1.0, 0.1),
        r#"{"event":"step","epoch":1,"step":20,"loss":null,"seconds":0.1,"time":1}"#,
        r#"{"event":"epoch","epoch":1,"metrics":{"accuracy":null},"per_class":7,"confusion":"none"}"#,
        r#"{"event":"step","epoch":1,"#,
    ];
    let log = RunLog::read(lines.join("\n").as_bytes()).unwrap();
    assert_eq!((log.len(), log.steps.len(), log.epochs.len(), log.resumes.as_slice()), (6, 2, 1, &[(1, 5)][..]));
    let problems = [
        "the last line of events.jsonl is cut short and left out",
        "2 lines of events.jsonl are no events and left out, the first is line 3",
        "events of kinds that are not known here are left out: 1, \"later\"",
    ];
    assert_eq!(log.problems(), problems);
    let page = page(&[RunRecord { label: "first".into(), problems: log.problems(), log, ..RunRecord::default() }]);
    has(&page, &["1 value of them not finite and left out.", "<li>2 lines of events.jsonl", "<h1>first</h1>"]);
    assert!(RunLog::read("".as_bytes()).unwrap().problems().is_empty());
}

#[test]
fn text_of_files_is_escaped() {
    let hostile = "<script>alert(\"&'\")</script>\u{1b}";
    let json = serde_json::to_string(hostile).unwrap();
    let lines: Vec<String> = [
        START.replace("\"onnxruntime\"", &json).replace("\"cpu\"", &json).replace("\"0.1.0\"", &json),
        phase(1, 0, 0, 1.0).replace("\"nodes\":1", &format!("\"nodes\":1,\"recomputed\":[{json}]")),
        format!(r#"{{"event":"warning","message":{json},"time":1}}"#),
        format!(r#"{{"event":{json},"time":1}}"#),
        step(10, 1.0, 0.1),
        epoch(1, 0.5, &format!(r#","per_class":{{{json}:[1]}}"#)).replace("\"accuracy\"", &json),
        r#"{"event":"rollback","epoch":1,"to_epoch":1,"to_step":10,"metric":HOSTILE,"before":1,"delay":1,"time":1}"#
            .replace("HOSTILE", &json),
        epoch(1, 0.5, &format!(r#","per_class":{{{json}:[1]}},"confusion":[[1,2]]"#)).replace("\"accuracy\"", &json),
        format!(
            r#"{{"event":"proof","from_epoch":1,"to_epoch":1,"parameters":1,"statistics":0,"sha256":{json},"time":1}}"#
        ),
        format!(r#"{{"event":"checkpoint","epoch":1,"step":10,"path":{json},"time":1}}"#),
        format!(r#"{{"event":"end","status":"failed","error":{json},"metrics":{{{json}:1}},"seconds":1,"time":1}}"#),
    ]
    .into();
    let mut model = six_units();
    (model.units[0].path, model.units[1].class, model.model.file) = (hostile.into(), hostile.into(), hostile.into());
    model.model.exporter = hostile.into();
    let mut run = record(&lines);
    run.plan = Some(build(&model.inputs(4), &PlanOptions::default()).unwrap());
    run.label = hostile.into();
    run.problems.push(hostile.into());
    run.settings = [(hostile.into(), hostile.into())].into();
    let other = RunRecord { settings: [(hostile.into(), "1".into())].into(), ..run.clone() };
    for runs in [vec![run.clone()], vec![run, other]] {
        let page = page(&runs);
        assert_eq!(page.matches("<script").count(), 1, "the page's own");
        assert!(!page.contains('\u{1b}'));
        assert!(page.matches("&lt;script&gt;alert(&quot;&amp;'&quot;)").count() > 8);
    }
}

#[test]
fn several_runs_are_compared() {
    let first =
        [START.to_string(), phase(1, 0, 0, 1.0), step(10, 1.0, 0.1), epoch(1, 0.5, ""), epoch(2, 0.75, ""), END.into()];
    let second =
        [START.replace("\"threads\":2", "\"threads\":8"), step(10, 3.0, 0.1), epoch(1, 0.9, "").replace("320", "640")];
    let mut runs = [record(&first), record(&second)];
    let settings = |data: &str, lr: f64| {
        let job = format!(
            "model = \"/data/models/m.onnx\"\n[data]\ntrain = \"{data}\"\n[optimizer]\nkind = \"sgd\"\nlr = {lr}\n[run]\ndir = \"{lr}\""
        );
        RunRecord::settings_of(&job).unwrap()
    };
    runs[0].settings = settings("/data/sets/one/train.npz", 0.1);
    runs[1].settings = settings("/data/jobs/../sets/two/train.npz", 0.01);
    runs[1].settings.insert("optimizer.momentum".into(), "0.9".into());
    runs[1].label = "runs/second".into();
    let page = page(&runs);
    let results = [
        "state|done|no end recorded|",
        "epochs|2 of 4|1 of 4|",
        "best eval accuracy|75.00 % (epoch 2)|90.00 % (epoch 1)|",
        "final eval accuracy|97.00 %|90.00 %|",
        "best eval loss|0.2500 (epoch 1)|0.2500 (epoch 1)|",
        "final eval loss|0.1250|0.2500|",
        "final training loss|0.5000|0.5000|",
        "total time|9.00 s|1.00 s|",
        "time of the epochs' steps|4.00 s|2.00 s|",
        "samples per second|320|640|",
        "units frozen in the last phase|0 of 3|-|",
        "peak memory|123 MB|123 MB|",
    ];
    assert_eq!(rows(&page, "What each came to"), results);
    let differences = [
        "data.train|\u{2026}/one/train.npz|\u{2026}/two/train.npz|",
        "optimizer.lr|0.1|0.01|",
        "optimizer.momentum|-|0.9|",
        "threads|2|8|",
    ];
    assert_eq!(rows(&page, "What differs in how they were made"), differences);
    for chart in ["Training loss", "Eval loss", "Eval accuracy", "Time of an epoch", "Frozen"] {
        let figure = page.split("<figure").find(|figure| figure.contains(&format!("<b>{chart}</b>"))).unwrap();
        assert!(figure.contains("data-n=\"runs/first\"") && figure.contains("data-n=\"runs/second\""), "{chart}");
    }
    // The first run came to the end, the second one to the first epoch.
    let frozen = page.split("<figure").find(|figure| figure.contains("<b>Frozen</b>")).unwrap();
    let points = |run: &str| {
        let path = frozen.split(&format!("data-n=\"{run}\" d=\"")).nth(1).unwrap().split('"').next().unwrap();
        path.split(['M', 'L', ' ']).filter(|text| !text.is_empty()).count() / 2
    };
    assert_eq!((points("runs/first"), points("runs/second")), (4, 1));
    let same = super::tests::page(&[record(&first), record(&first)]);
    has(
        &same,
        &[
            "Nothing that is recorded: job and environment are the same.",
            "<p class=\"dim\">Without settings: 2 runs.</p>",
        ],
    );
}

#[test]
fn a_long_run_has_a_page_that_can_be_sent() {
    let mut lines = vec![START.replace("\"epochs\":4,\"steps\":40", "\"epochs\":1000,\"steps\":20000")];
    for number in 1..=1000 {
        lines.push(phase(number, 0, number % 3, 0.5));
        for part in 1..=20 {
            let at = (number - 1) * 20 + part;
            lines.push(step(at, if at == 7777 { 99.0 } else { 1.0 + (at % 7) as f64 }, 0.1));
        }
        lines.push(epoch(number, 0.5, ""));
        lines.push(format!(r#"{{"event":"checkpoint","epoch":{number},"step":{},"path":"p","time":1}}"#, number * 20));
    }
    let mut run = record(&lines);
    run.plan = Some(build(&six_units().inputs(1000), &PlanOptions::default()).unwrap());
    let page = page(&[run.clone(), run.clone()]);
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    let page = super::tests::page(&[run]);
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    let told = [
        "20,000 points logged; the line is the mean of parts of equal length, each of about 67 points, the band reaches \
         from the lowest to the highest value in each.",
        "The frozen set changes 999 times; that is not drawn here.",
        "50 of 20,000 logged steps as a table",
        "600 more phases are not shown.",
        "1,000 written, the last one after step 20000 of epoch 1000.",
    ];
    has(&page, &told);
    // The one high loss is at the upper end of the scale.
    let figure = page.split("<figure").find(|figure| figure.contains("<b>Training loss</b>")).unwrap();
    let band = figure.split("class=\"band b0\" d=\"").nth(1).unwrap().split('"').next().unwrap();
    let highest = band.split(['M', 'L', ' ', 'Z']).filter_map(|text| text.parse::<f64>().ok()).skip(1).step_by(2);
    assert_eq!(highest.fold(f64::MAX, f64::min), 100.0, "99 on a scale to 100");
    assert_eq!(rows(&page, "Epochs").len(), 1000);
}

#[test]
fn epochs_without_evaluation_leave_no_gap() {
    let unevaluated = |epoch: usize| {
        format!(
            r#"{{"event":"epoch","epoch":{epoch},"train_loss":0.5,"metrics":{{}},"seconds":2.0,"samples_per_second":320,"peak_bytes":0,"undefined":{{"roc_auc":"one class is missing"}},"time":{epoch}}}"#
        )
    };
    let classes = r#","confusion":[[3,1],[0,4]]"#;
    let stop =
        r#"{"event":"early_stop","epoch":4,"metric":"accuracy","best_epoch":2,"best":0.9,"evaluations":1,"time":4}"#;
    let lines = [unevaluated(1), epoch(2, 0.9, classes), unevaluated(3), epoch(4, 0.5, ""), stop.into(), END.into()];
    let mut run = record(&lines);
    run.plan = Some(build(&chain(3).inputs(8), &PlanOptions::default()).unwrap());
    let page = page(&[run]);
    assert_eq!(curve(&page, "Eval accuracy"), [(0.0, 0.0), (10000.0, 10000.0)]);
    let told = [
        "Done early after epoch 4, in 9.00 s. It ended after epoch 4 because accuracy did not get better after epoch 2.",
        "<li>eval roc_auc is not defined: one class is missing</li>",
        "On the eval data after epoch 2.",
        "<div class=\"followed open\" style=\"--done:50.00%\">",
    ];
    has(&page, &told);
    assert_eq!(rows(&page, "Epochs")[0], "1|0.5000|-|-|2.00 s|320.0|-|");
}

#[test]
fn a_freeze_that_is_taken_back_is_not_predicted_twice() {
    let speed = |epoch: usize, steps: usize, predicted: f64| {
        format!(
            r#"{{"event":"speed","epoch":{epoch},"steps":{steps},"predicted_seconds":{predicted},"median_seconds":0.2,"predicted_change_seconds":0,"change_seconds":0,"time":9}}"#
        )
    };
    let rollback =
        r#"{"event":"rollback","epoch":3,"to_epoch":3,"to_step":20,"metric":"loss","before":1,"delay":1,"time":9}"#;
    let lines = [
        START.to_string(),
        phase(1, 0, 0, 1.0),
        epoch(1, 0.5, ""),
        epoch(2, 0.5, ""),
        phase(3, 0, 2, 0.5),
        speed(1, 20, 0.2),
        epoch(3, 0.5, ""),
        rollback.into(),
        phase(3, 0, 0, 1.0),
        speed(3, 10, 0.1),
        epoch(3, 0.5, ""),
        epoch(4, 0.5, ""),
        speed(3, 20, 0.2),
    ];
    let page = page_of(&lines);
    let predicted = page.split("data-n=\"predicted\" d=\"").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(predicted, "M0 0L3333 0 6667 0 10000 0", "four epochs of 2 s");
    let resume = r#"{"event":"resume","epoch":3,"step":25,"time":0.1}"#;
    let killed = record(&[
        phase(1, 0, 0, 1.0),
        phase(3, 0, 2, 0.5),
        speed(1, 20, 0.2),
        resume.into(),
        phase(3, 0, 2, 0.5),
        speed(3, 5, 0.1),
    ]);
    let timed: Vec<bool> = killed.log.phases.iter().map(|row| row.speed.is_some()).collect();
    assert_eq!(timed, [true, false, true], "the phase that the program ended in has no time");
}

#[test]
fn no_number_breaks_the_page() {
    let lines = [
        START.to_string(),
        phase(1, 3, 2, 0.5),
        step(10, 1.5, 0.1),
        r#"{"event":"ceiling","measured_steps":3,"check_seconds":0.1,"step_seconds":0.2,"parts":{"data":0.01,"forward":0.05,"backward":0.12,"update":0.02,"rest":0.5},"share":0.7,"seconds_without":8.5,"seconds_with":6.5,"changes":1,"change_seconds":0.5,"gain":0.25,"steps_gain":0.3,"flops_gain":0.3,"time":0.3}"#.into(),
        epoch(1, 0.5, r#","wait_seconds":0.5,"per_class":{"f1":[0.5,0.25]},"confusion":[[9,1],[3,12]]"#),
        r#"{"event":"speed","epoch":1,"after":3,"steps":20,"predicted_seconds":0.25,"median_seconds":0.2,"predicted_change_seconds":0.5,"change_seconds":0.5,"time":2}"#.into(),
        r#"{"event":"observation","step":40,"signals":{"cka":[0.5,null,0.25]},"seconds":1.5,"time":1}"#.into(),
        r#"{"event":"rollback","epoch":3,"to_epoch":3,"to_step":40,"metric":"accuracy","before":0.9,"after":0.5,"delay":2,"time":1}"#.into(),
        r#"{"event":"decision","epoch":3,"step":40,"frozen":2,"frozen_units":1,"time":1}"#.into(),
        r#"{"event":"resume","epoch":2,"step":15,"time":0.5}"#.into(),
        step(20, 0.5, 0.1),
        epoch(2, 0.5, ""),
        r#"{"event":"gain","predicted":0.25,"predicted_steps":0.3,"steps":0.35,"gain":0.275,"seconds_without":8.5,"seconds_with":6.5,"change_seconds":0.75,"time":8}"#.into(),
        r#"{"event":"end","status":"done","metrics":{"accuracy":0.97,"loss":0.125},"seconds":9.5,"time":9.5}"#.into(),
    ];
    let whole = ["0", "1", "2", "1000000", "18446744073709551615"];
    let real = ["0", "-0.0", "1e-320", "-1e300", "1e308", "0.1", "null", "1e15"];
    let mut state = 1u64;
    let mut draw = |count: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % count
    };
    for _ in 0..150 {
        let mut shaken = Vec::new();
        for line in &lines {
            // Values stand behind a colon, a comma or a bracket.
            let mut text = String::new();
            for (index, part) in line.split_inclusive([':', ',', '[']).enumerate() {
                let end = part.find([',', '}', ']']).unwrap_or(part.len());
                let (value, rest) = part.split_at(end);
                let number = index > 0 && value.parse::<f64>().is_ok() && draw(3) == 0;
                text += match (number, value.contains('.')) {
                    (false, _) => value,
                    (true, true) => real[draw(real.len())],
                    (true, false) => whole[draw(whole.len())],
                };
                text += rest;
            }
            shaken.push(text);
        }
        let run = record(&shaken);
        page(std::slice::from_ref(&run));
        page(&[run, record(&lines)]);
    }
}
