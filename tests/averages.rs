//! Averages of the parameters.

use crate::engines::{engines, golden};
use crate::numerics::{finished, rows, written};
use crate::runs::{ByStep, Job};
use freeze_plan::graph::{Attributes, Builder, Tensor};
use freeze_plan::losses::LossKind;
use freeze_plan::optim::OptimizerSpec;
use freeze_plan::runner::{Ema, Engine, RunEvent, UPDATES};
use freeze_plan::training::names;
use std::collections::BTreeMap;

/// Returns the model, the data and the freezing of the averages that PyTorch made.
fn averaged(golden: &serde_json::Value) -> Job {
    let floats = |value: &serde_json::Value| -> Vec<f32> {
        value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
    };
    let mut b = Builder::new("net");
    let x = b.input("x", rows(3));
    let mut ids = BTreeMap::new();
    for name in ["w1", "b1", "gamma", "beta", "mean", "var", "w2", "b2"] {
        let held = &golden["start"][name];
        let shape: Vec<usize> =
            held["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
        ids.insert(name, b.initializer(name, Tensor::from_vec(&shape, floats(&held["values"]))));
    }
    let gemm = || Attributes::none().with("transB", 1);
    let h = b.op("Gemm", &[x, ids["w1"], ids["b1"]], gemm());
    let inputs = [h, ids["gamma"], ids["beta"], ids["mean"], ids["var"]];
    let h = b.op("BatchNormalization", &inputs, Attributes::none());
    let h = b.unary("Relu", h);
    let y = b.op("Gemm", &[h, ids["w2"], ids["b2"]], gemm());
    b.output(y, "y");
    let all = |key: &str| golden[key].as_array().unwrap().iter().flat_map(floats).collect::<Vec<f32>>();
    let (x, y) = (all("x"), all("y"));
    let rows = x.len() / 3;
    let columns = vec![("x", Tensor::from_vec(&[rows, 3], x)), (names::TARGET, Tensor::from_vec(&[rows, 2], y))];
    let mut job = Job::on(&finished(b), LossKind::Mse, columns, 6);
    job.optimizer = serde_json::from_value::<OptimizerSpec>(serde_json::json!({
        "kind": "sgd", "lr": 0.1, "momentum": 0.9
    }))
    .unwrap();
    (job.epochs, job.eval) = (1, false);
    job
}

#[test]
fn averages_are_those_of_pytorch() {
    let golden = golden("ema/ema.json");
    let frozen_from = golden["frozen_from"].as_u64().unwrap() as usize;
    let mut failures = Vec::new();
    for mut engine in engines() {
        for case in golden["cases"].as_array().unwrap() {
            let mut job = averaged(&golden);
            let every = case["every"].as_u64().unwrap();
            job.ema = Some(Ema { decay: case["decay"].as_f64().unwrap(), every, ..Ema::default() });
            let units = job.basis(None).plan().unwrap().units.clone();
            let first = units.iter().position(|unit| unit.parameters.iter().any(|name| name == "w1")).unwrap();
            let policy = ByStep { frozen: vec![(frozen_from, vec![first])], scale: None };
            let ran = job.run_on(engine.as_mut(), Some(Box::new(policy)), &mut |_| {});
            let values = &ran.outcome().values;
            assert!(ran.count(|event| matches!(event, RunEvent::Phase { .. })) == 2, "it freezes");
            let mut check = |name: &str, expected: &serde_json::Value| {
                let found = values[name].to_f64s().unwrap();
                let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
                let far = found.iter().zip(&expected).any(|(a, b)| (a - b).abs() > 2e-6 * (0.1 + b.abs()));
                if far || found.len() != expected.len() {
                    let engine = &engine.info().name;
                    failures.push(format!("{engine} {} {name}: {found:?}, expected {expected:?}", case["decay"]));
                }
            };
            for (name, expected) in case["averages"].as_object().unwrap() {
                check(name, expected);
            }
            golden["statistics"].as_object().unwrap().iter().for_each(|(name, expected)| check(name, expected));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn what_never_moves_is_its_own_average() {
    for mut engine in engines() {
        let mut job = averaged(&golden("ema/ema.json"));
        job.ema = Some(Ema { decay: 0.7, warmup: true, ..Ema::default() });
        job.options.freeze = vec!["w1".into(), "b1".into()];
        let start = job.prepared.model.graph.clone();
        let ran = job.run(engine.as_mut());
        for name in ["w1", "b1"] {
            let before = start.value(start.find(name).unwrap()).initializer.clone().unwrap();
            assert!(ran.outcome().values[name] == before, "{name}");
        }
    }
}

#[test]
fn the_averaged_model_is_the_one_that_is_evaluated_and_returned() {
    for mut engine in engines() {
        let engine = engine.as_mut();
        let run = |engine: &mut dyn Engine, ema: Option<Ema>| {
            let mut job = averaged(&golden("ema/ema.json"));
            (job.ema, job.eval, job.epochs) = (ema, true, 2);
            job.run(engine)
        };
        let ema = Ema { decay: 0.9, ..Ema::default() };
        let plain = run(engine, None);
        let averaged = run(engine, Some(ema));
        let beside = run(engine, Some(Ema { evaluate: false, ..ema }));
        crate::runs::same_end(&plain, &beside);
        assert_eq!(plain.losses(), averaged.losses(), "averages do not act on the training");
        assert!(averaged.outcome().values["w2"] != plain.outcome().values["w2"]);
        assert!(averaged.outcome().values["mean"] == plain.outcome().values["mean"]);
        assert!(!averaged.outcome().values.contains_key(UPDATES));
        // The metrics are those of the values that are returned.
        let mut again = self::averaged(&golden("ema/ema.json"));
        again.eval = true;
        for (name, value) in &averaged.outcome().values {
            let graph = std::mem::take(&mut again.prepared.model.graph);
            again.prepared.model.graph = graph.with_initializer(name, value.clone());
        }
        again.optimizer.lr = Some(0.0);
        again.optimizer.momentum = None;
        again.options.batch_norm = serde_json::from_value(serde_json::json!("frozen")).unwrap();
        again.options.freeze = vec!["gamma".into(), "beta".into()];
        let again = again.run(engine);
        let (a, b) = (averaged.outcome().metrics["loss"], again.outcome().metrics["loss"]);
        assert!((a - b).abs() < 1e-6 * a, "{a} {b}");
        assert!(plain.outcome().metrics["loss"] != a);
    }
}

#[test]
fn a_job_asks_for_averages() {
    use crate::cli::{fails, freeze_plan, path, text};
    let folder = tempfile::tempdir().unwrap();
    let weights = |more: &str| {
        let file = written(folder.path(), &format!("{more}[run]\nepochs = 2\ndir = \"run\"\n"), false);
        let output = freeze_plan(&["train", path(&file), "--no-plan", "--overwrite"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let graph = freeze_plan::onnx::read(&folder.path().join("run/model.onnx")).unwrap().model.graph;
        let value = |name: &str| graph.value(graph.find(name).unwrap()).initializer.clone().unwrap();
        (value("first.weight"), value("norm.running_mean"))
    };
    let plain = weights("");
    let averaged = weights("[ema]\ndecay = 0.9\n");
    assert!(plain.0 != averaged.0 && plain.1 == averaged.1);
    assert!(weights("[ema]\ndecay = 0.9\nevaluate = false\n") == plain);
    // A decay of 0 is the model itself, up to the rounding of the sum.
    let last = weights("[ema]\ndecay = 0\n");
    assert!(crate::engines::deviation(&last.0, &plain.0) < 1e-6);
    let cases = [
        ("decay = 1.0", "key `ema.decay` at line 17: expected a number in [0, 1), found 1"),
        ("every = 0", "key `ema.every` at line 17: expected 1 or more, found 0"),
        ("decays = 0.9", "unknown key `decays` in [ema] at line 17, did you mean `decay`?"),
    ];
    for (text, expected) in cases {
        let file = written(folder.path(), &format!("[ema]\n{text}\n[run]\nepochs = 2\ndir = \"other\"\n"), false);
        let line = fails(&["train", path(&file), "--no-plan"], 2);
        assert!(line.contains(expected), "{line}");
    }
}
