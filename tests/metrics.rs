//! Metrics, schedules that follow them and early stopping, in whole runs.

use crate::cli::{digits_job, fails, freeze_plan, path, text};
use crate::engines::{engines, fixture, onnxruntime};
use crate::runs::{Job, Ran, guard, in_order};
use freeze_plan::error::ErrorKind;
use freeze_plan::graph::{Attributes, Builder, DType, Fact, Model, Tensor};
use freeze_plan::losses::LossKind;
use freeze_plan::metrics::Metric;
use freeze_plan::plan::PlanOptions;
use freeze_plan::runner::{EarlyStopping, Evaluation, RunEvent, Schedule, best, lr_at, stops};
use std::collections::BTreeMap;

fn metrics(names: &[&str]) -> Vec<Metric> {
    names.iter().map(|name| Metric::parse(name).unwrap()).collect()
}

fn mlp(batch: usize, lr: f64) -> Job {
    let optimizer = serde_json::json!({"kind": "sgd", "lr": lr, "momentum": 0.9});
    Job::of("freezing/mlp.onnx", "freezing/mlp.npz", ["x", "labels"], in_order(batch), optimizer)
}

/// What an epoch reported.
struct Epoch {
    metrics: BTreeMap<String, f64>,
    per_class: BTreeMap<String, Vec<Option<f64>>>,
    confusion: Vec<Vec<u64>>,
    undefined: BTreeMap<String, String>,
}

fn epochs(ran: &Ran) -> Vec<Epoch> {
    let epoch = |event: &RunEvent| match event.clone() {
        RunEvent::Epoch { metrics, per_class, confusion, undefined, .. } => {
            Some(Epoch { metrics, per_class, confusion, undefined })
        }
        _ => None,
    };
    ran.events.iter().filter_map(epoch).collect()
}

fn rates(ran: &Ran) -> Vec<f64> {
    let rate = |event: &RunEvent| match event {
        RunEvent::Step { lr, .. } => *lr,
        _ => None,
    };
    ran.events.iter().filter_map(rate).collect()
}

#[test]
fn metrics_are_the_same_in_batches_of_any_size() {
    let wanted = ["accuracy", "top-2", "f1-macro", "f1-micro", "roc-auc", "perplexity", "confusion", "per-class"];
    let evaluation = Evaluation { metrics: Some(metrics(&wanted)), ..Evaluation::default() };
    for mut engine in engines() {
        let mut of = |batch| {
            // The rate is too low to change a weight.
            let job = Job { evaluation: evaluation.clone(), epochs: 1, ..mlp(batch, 1e-30) };
            epochs(&job.run(engine.as_mut())).remove(0)
        };
        let (whole, small) = (of(64), of(7));
        assert_eq!(whole.metrics.len(), 7, "{:?}", whole.metrics);
        assert!(whole.undefined.is_empty() && small.undefined.is_empty());
        for (name, expected) in &whole.metrics {
            assert!((small.metrics[name] - expected).abs() < 1e-5, "{name}: {} and {expected}", small.metrics[name]);
        }
        assert_eq!((&small.confusion, &small.per_class), (&whole.confusion, &whole.per_class));
        assert!((whole.metrics["perplexity"] - whole.metrics["loss"].exp()).abs() < 1e-5);
        let (right, all) = (0..whole.confusion.len()).fold((0, 0), |(right, all), class| {
            (right + whole.confusion[class][class], all + whole.confusion[class].iter().sum::<u64>())
        });
        assert_eq!(all as usize, mlp(7, 1e-30).train.rows());
        assert!((right as f64 / all as f64 - whole.metrics["accuracy"]).abs() < 1e-12);
    }
}

#[test]
fn errors_of_numbers_are_those_of_the_loss() {
    let x = Tensor::from_vec(&[8, 2], (0..16).map(|value| (value * value % 7) as f32 / 7.0).collect());
    let target = Tensor::from_vec(&[8, 1], (0..8).map(|value| (value * value % 5) as f32 / 5.0).collect());
    for (loss, metric) in [(LossKind::Mse, "mse"), (LossKind::L1, "mae")] {
        let mut job = Job::on(&linear(1), loss, vec![("x", x.clone()), ("target", target.clone())], 4);
        job.evaluation.metrics = Some(metrics(&["mae", "mse", "rmse", "r2"]));
        for mut engine in engines() {
            let found = epochs(&job.run(engine.as_mut())).remove(1).metrics;
            assert_eq!(found.keys().collect::<Vec<_>>(), ["loss", "mae", "mse", "r2", "rmse"]);
            assert!((found[metric] - found["loss"]).abs() < 1e-6, "{found:?}");
            let targets = target.to_f64s().unwrap();
            let mean = targets.iter().sum::<f64>() / 8.0;
            let spread: f64 = targets.iter().map(|target| (target - mean).powi(2)).sum();
            assert!((found["r2"] - (1.0 - 8.0 * found["mse"] / spread)).abs() < 1e-9, "{found:?}");
            assert!((found["rmse"].powi(2) - found["mse"]).abs() < 1e-12, "{found:?}");
        }
    }
}

#[test]
fn a_run_evaluates_every_few_epochs_and_stops_where_a_metric_stays() {
    let early = EarlyStopping { metric: Metric::loss(), patience: 2, min_delta: 10.0 };
    let evaluation = Evaluation {
        every: 2,
        best: Some(Metric::parse("f1_macro").unwrap()),
        early_stopping: Some(early.clone()),
        ..Evaluation::default()
    };
    let job = Job { evaluation, epochs: 9, ..mlp(16, 0.1) };
    for mut engine in engines() {
        let ran = job.run(engine.as_mut());
        let found = epochs(&ran);
        let evaluated: Vec<bool> = found.iter().map(|epoch| !epoch.metrics.is_empty()).collect();
        assert_eq!(evaluated, [false, true, false, true, false, true]);
        // What is watched is evaluated beside what is by default.
        assert_eq!(found[1].metrics.keys().collect::<Vec<_>>(), ["accuracy", "f1_macro", "loss"]);
        let outcome = ran.outcome();
        assert!(!outcome.stopped && outcome.metrics == found[5].metrics);
        let value = found[1].metrics["loss"];
        let expected = RunEvent::EarlyStop {
            epoch: 6,
            metric: "loss".into(),
            best_epoch: Some(2),
            best: Some(value),
            evaluations: 2,
        };
        assert_eq!(ran.count(|event| *event == expected), 1);
        assert!(matches!(ran.events.last(), Some(RunEvent::End { status, .. }) if status == "done"));
        let stall = stops(&outcome.history, &early).unwrap();
        assert_eq!((stall.best, stall.evaluations), (Some((2, value)), 2));
        let of = |name: &str| found.iter().map(|epoch| epoch.metrics.get(name).copied()).collect::<Vec<_>>();
        for (name, sign) in [("f1_macro", 1.0), ("loss", -1.0)] {
            let (epoch, value) = best(&outcome.history, &Metric::parse(name).unwrap()).unwrap();
            assert_eq!(of(name)[epoch - 1], Some(value), "{name}");
            assert!(of(name).iter().flatten().all(|other| sign * other <= sign * value), "{name}");
        }
    }
}

#[test]
fn a_run_that_stops_early_is_the_run_up_to_there() {
    let early = EarlyStopping { metric: Metric::parse("train-loss").unwrap(), patience: 3, min_delta: 10.0 };
    let evaluation = Evaluation { early_stopping: Some(early), ..Evaluation::default() };
    // Without eval data: what is watched is told by the training steps.
    let stopped = Job { evaluation, epochs: 6, eval: false, ..mlp(16, 0.05) }.run(&mut onnxruntime());
    let whole = Job { epochs: 4, eval: false, ..mlp(16, 0.05) }.run(&mut onnxruntime());
    assert_eq!(stopped.losses(), whole.losses());
    assert_eq!(stopped.outcome().values, whole.outcome().values);
    assert_eq!(stopped.outcome().slots, whole.outcome().slots);
    // In the last epoch there is nothing to stop.
    let early = EarlyStopping { metric: Metric::loss(), patience: 1, min_delta: 10.0 };
    let evaluation = Evaluation { early_stopping: Some(early), ..Evaluation::default() };
    let ran = Job { evaluation, epochs: 2, ..mlp(16, 0.05) }.run(&mut onnxruntime());
    assert_eq!((epochs(&ran).len(), ran.count(|event| matches!(event, RunEvent::EarlyStop { .. }))), (2, 0));
}

#[test]
fn the_rate_follows_the_metric_of_a_plateau() {
    let kinds = [
        (serde_json::json!({"kind": "plateau", "patience": 0, "threshold": 5.0, "threshold_mode": "abs"}), true),
        (
            serde_json::json!({"kind": "plateau", "patience": 1, "metric": "accuracy", "threshold": 0.5, "warmup_steps": 7}),
            true,
        ),
        (serde_json::json!({"kind": "plateau", "patience": 1, "metric": "train_loss", "threshold": 0.9}), false),
    ];
    for (kind, eval) in kinds {
        let schedule: Schedule = serde_json::from_value(kind.clone()).unwrap();
        let job = Job { schedule: schedule.clone(), epochs: 5, eval, ..mlp(16, 0.1) };
        let ran = job.run(&mut onnxruntime());
        let (each, found) = (job.steps_per_epoch() as u64, rates(&ran));
        let history = &ran.outcome().history.epochs;
        let expected: Vec<f64> =
            (0..5 * each).map(|step| lr_at(&schedule, 0.1, step, 5 * each, each, history)).collect();
        assert_eq!(found, expected, "{kind}");
        let (most, last) = (found.iter().copied().fold(0.0, f64::max), found[found.len() - 1]);
        assert!(most == 0.1 && last < 0.011, "{kind}: the rate falls: {found:?}");
    }
}

/// A rollback takes back what the epochs measured, and the rates with it. The guard is never content, so that every
/// epoch with a freeze is trained again without it.
#[test]
fn a_plateau_goes_back_with_the_run_and_a_guard_has_what_it_watches() {
    let mut job = mlp(16, 0.1);
    let schedule = serde_json::json!({"kind": "plateau", "metric": "train_loss", "patience": 0, "threshold": 0.99});
    job.schedule = serde_json::from_value(schedule).unwrap();
    let rollback = guard("f1_macro", -2.0, 1);
    job.options = PlanOptions { rollback, ..PlanOptions::of("steps") }
        .with("steps", serde_json::json!([{"epoch": 2, "frozen": ["fc1"]}]));
    job.epochs = 4;
    job.evaluation.every = 3;
    let ran = job.run(&mut onnxruntime());
    let rolled = |event: &RunEvent| match event {
        RunEvent::Rollback { epoch, metric, after, .. } => Some((*epoch, metric.clone(), after.is_some())),
        _ => None,
    };
    let rollbacks: Vec<_> = ran.events.iter().filter_map(rolled).collect();
    assert_eq!(rollbacks, [2, 3, 4].map(|epoch| (epoch, "f1_macro".to_string(), true)));
    let evaluated: Vec<bool> = ran.outcome().history.epochs.iter().map(|epoch| epoch.evaluated).collect();
    assert_eq!(evaluated, [false, false, true, true]);
    let each = job.steps_per_epoch();
    for (step, rate) in ran.steps().into_iter().zip(rates(&ran)) {
        let expected = [0.1, 0.1, 0.01, 0.001][(step - 1) / each];
        assert!((rate - expected).abs() < 1e-12, "step {step}: {rate}, expected {expected}");
    }
    assert_eq!(ran.steps().len(), 7 * each);
}

/// A model of one weight matrix.
fn linear(outputs: usize) -> Model {
    let mut b = Builder::new("linear");
    let x = b.input("x", Fact::fixed(DType::F32, &[4, 2]));
    let weights = (0..2 * outputs).map(|value| value as f32 / 10.0 - 0.2).collect();
    let w = b.initializer("w", Tensor::from_vec(&[2, outputs], weights));
    let y = b.op("MatMul", &[x, w], Attributes::none());
    b.output(y, "y");
    Model { graph: b.finish(), opsets: [(String::new(), 17)].into(), ir_version: 8, ..Model::default() }
}

#[test]
fn what_is_not_defined_is_said_once_and_is_not_in_the_metrics() {
    let x = Tensor::from_vec(&[8, 2], (0..16).map(|value| value as f32 / 16.0).collect());
    let cases = [
        (LossKind::CrossEntropy, 2, Tensor::from_vec(&[8], vec![1i64; 8]), "roc_auc", "no class that some targets are"),
        (LossKind::Mse, 1, Tensor::from_vec(&[8, 1], vec![0.5f32; 8]), "r2", "the targets do not vary"),
    ];
    for (loss, outputs, target, metric, reason) in cases {
        let mut job = Job::on(&linear(outputs), loss, vec![("x", x.clone()), ("target", target)], 4);
        job.evaluation.metrics = Some(metrics(&[metric]));
        job.epochs = 3;
        let ran = job.run(&mut onnxruntime());
        for epoch in epochs(&ran) {
            assert!(epoch.undefined[metric].contains(reason), "{:?}", epoch.undefined);
            assert_eq!(epoch.metrics.keys().collect::<Vec<_>>(), ["loss"]);
        }
        let said = |event: &RunEvent| matches!(event, RunEvent::Warning { message } if message.contains(reason));
        assert_eq!(ran.count(said), 1);
    }
}

#[test]
fn what_cannot_be_taken_or_watched_is_refused_before_the_first_step() {
    let watching = |metric: &str| Evaluation { best: Some(Metric::parse(metric).unwrap()), ..Evaluation::default() };
    let asking = |metric: &str| Evaluation { metrics: Some(metrics(&[metric])), ..Evaluation::default() };
    let cases = [
        (asking("mae"), true, "the metric mae needs numbers to be met, found scores of"),
        (watching("r2"), true, "the metric r2 needs numbers to be met"),
        (asking("top-500"), true, "the metric top_500 needs scores of at least 500 classes"),
        (watching("accuracy"), false, "the run watches \"accuracy\": the job has no data.eval"),
        (watching("confusion"), true, "the run watches \"confusion\": expected a metric of one number"),
    ];
    for (evaluation, eval, expected) in cases {
        let ran = Job { evaluation, eval, ..mlp(16, 0.1) }.run(&mut onnxruntime());
        assert_eq!(ran.steps().len(), 0, "{expected}");
        let error = ran.result.unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
        assert_eq!(error.kind(), ErrorKind::Usage);
    }
    let mut job = mlp(16, 0.1);
    job.options.rollback = guard("r2", 0.1, 1);
    let error = job.run(&mut onnxruntime()).result.unwrap_err().to_string();
    assert!(error.starts_with("the metric r2 needs numbers"), "{error}");
}

/// The sections of a job with every new key.
const SECTIONS: &str = r#"
[schedule]
kind = "plateau"
metric = "f1-macro"
factor = 0.5
patience = 0
threshold = 0.9
threshold_mode = "abs"
cooldown = 1
lr_min = 1e-4
warmup_steps = 10
[eval]
metrics = ["accuracy", "top-3", "f1_macro", "f1-micro", "roc_auc", "perplexity", "confusion", "per-class"]
every = 2
best = "f1_macro"
early_stopping = { metric = "roc-auc", patience = 2, min_delta = 0.5 }
"#;

#[test]
fn digits_with_every_key_of_the_evaluation() {
    let folder = tempfile::tempdir().unwrap();
    let job = digits_job(folder.path(), |text| text.replace("[schedule]\nkind = \"cosine\"\n", SECTIONS));
    let output = freeze_plan(&["train", path(&job), "--set", "run.epochs=9"]);
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let line = stderr.lines().find(|line| line.starts_with("stopping early after epoch 6: roc_auc did not get better"));
    assert!(line.is_some_and(|line| line.contains("in 2 evaluations since epoch 2 (")), "{stderr}");
    let run = folder.path().join("runs/first");
    let events: Vec<serde_json::Value> = std::fs::read_to_string(run.join("events.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
    assert_eq!(of("epoch").len(), 6);
    assert_eq!(of("early_stop")[0]["metric"], "roc_auc");
    assert_eq!(of("end")[0]["status"], "done");
    assert_eq!(of("proof")[0]["to_epoch"], 6, "what was frozen where the run stopped is proved");
    let last = of("epoch")[5];
    let expected = ["accuracy", "f1_macro", "f1_micro", "loss", "perplexity", "roc_auc", "top_3"];
    assert_eq!(last["metrics"].as_object().unwrap().keys().collect::<Vec<_>>(), expected);
    assert!(of("epoch")[4]["metrics"].as_object().unwrap().is_empty() && of("epoch")[4].get("confusion").is_none());
    check_digits(&run.join("model.onnx"), last);
    let steps = of("step");
    let rate = |index: usize| steps[index]["lr"].as_f64().unwrap();
    assert!((rate(0) - 0.1).abs() < 1e-12, "the warm-up is over at the first step that is logged: {}", rate(0));
    assert!((rate(steps.len() - 1) - 0.05).abs() < 1e-12, "the rate fell once: {}", rate(steps.len() - 1));
    let written = std::fs::read_to_string(run.join("job.toml")).unwrap();
    let again = freeze_plan::runner::Job::parse(std::path::Path::new("/job.toml"), &written, &[]).unwrap();
    assert_eq!(again.eval.metrics.unwrap().len(), 8);
    assert_eq!(again.eval.early_stopping.unwrap().min_delta, 0.5);
}

/// Counts again what the metrics say of the trained model, from its plain inference.
fn check_digits(model: &std::path::Path, epoch: &serde_json::Value) {
    let data = freeze_plan::data::Dataset::open(&fixture("digits/eval.npz"), &Default::default(), None).unwrap();
    let model = freeze_plan::onnx::read(model).unwrap().model;
    let feeds = [("x", &data.values("images").unwrap())];
    let logits =
        freeze_plan::runner::evaluate(&mut onnxruntime(), &model, &feeds).unwrap().remove(0).to_f64s().unwrap();
    let labels = data.values("labels").unwrap().to_ints().unwrap();
    let mut confusion = [[0u64; 10]; 10];
    let mut third = 0;
    for (label, scores) in labels.iter().zip(logits.chunks(10)) {
        let mut order: Vec<usize> = (0..10).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        confusion[*label as usize][order[0]] += 1;
        third += usize::from(order[..3].contains(&(*label as usize)));
    }
    let near = |found: &serde_json::Value, expected: f64| (found.as_f64().unwrap() - expected).abs() < 1e-9;
    let metrics = &epoch["metrics"];
    assert_eq!(epoch["confusion"], serde_json::to_value(confusion).unwrap());
    assert!(near(&metrics["top_3"], third as f64 / labels.len() as f64));
    let right: u64 = (0..10).map(|class| confusion[class][class]).sum();
    assert!(near(&metrics["accuracy"], right as f64 / labels.len() as f64));
    let mut mean = 0.0;
    for class in 0..10 {
        let (own, there) = (confusion[class][class], confusion[class].iter().sum::<u64>());
        let predicted: u64 = confusion.iter().map(|row| row[class]).sum();
        let f1 = 2.0 * own as f64 / (there + predicted) as f64;
        assert!(near(&epoch["per_class"]["f1"][class], f1), "{class}");
        assert!(near(&epoch["per_class"]["recall"][class], own as f64 / there as f64), "{class}");
        mean += f1 / 10.0;
    }
    assert!(near(&metrics["f1_macro"], mean));
}

#[test]
fn wrong_keys_of_the_evaluation_are_refused_before_the_folder_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let job = digits_job(folder.path(), |text| text);
    let cases = [
        ("eval.metrics=[\"acuracy\"]", "unknown metric \"acuracy\", did you mean \"accuracy\"?"),
        (
            "eval.metrics=[\"mae\"]",
            "the metric mae needs numbers to be met, found scores of 10 classes (cross-entropy)",
        ),
        ("eval.metrics=[\"top-11\"]", "the metric top_11 needs scores of at least 11 classes"),
        ("eval.evry=2", "unknown key `evry` in [eval]"),
        ("eval.every=0", "key `eval.every` given with --set: expected 1 or more, found 0"),
        ("eval.best=confusion", "expected a metric of one number, found \"confusion\""),
        ("eval.early_stopping={metric=\"loss\"}", "missing key `patience` in [eval.early_stopping]"),
        ("schedule.kind=cosin", "unknown value \"cosin\", did you mean \"cosine\"?"),
        ("schedule={kind=\"multistep\",milestones=[3,2]}", "expected each to be more than the one before, found 3, 2"),
        ("schedule={kind=\"plateau\",metric=\"r2\"}", "the metric r2 needs numbers"),
        ("schedule.per=epochs", "unknown value \"epochs\", did you mean \"epoch\"?"),
    ];
    for (setting, expected) in cases {
        let line = fails(&["train", path(&job), "--no-plan", "--set", setting], 2);
        assert!(line.contains(expected), "{setting}: {line}");
        assert!(!folder.path().join("runs/first").exists(), "{setting}: nothing is written");
    }
}
