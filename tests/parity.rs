//! Whole runs against PyTorch with Composer's freezing: the loss of every step, what freezes
//! when, and where every parameter ends.

use crate::engines::{engines, fixture, golden};
use freeze_plan::data::{self, BatchOptions, Batches, Dataset, LastBatch, Sampler, Wanted};
use freeze_plan::graph::Tensor;
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::onnx::read;
use freeze_plan::optim::OptimizerSpec;
use freeze_plan::plan::{FreezePlan, segments};
use freeze_plan::planner::Analysis;
use freeze_plan::runner::{Engine, Operators, Run, RunEvent, Schedule, Setup};
use freeze_plan::training::{Objective, Own, Prepared, names, prepare, target_fact};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

const TOLERANCE: f64 = 1e-4;
/// Of where state ends, where Adam trains with our operators, whose gradients are within 4e-6 of the portable ones. After the
/// first step all elements agree to 2e-7 but three whose gradient is rounding and nothing else, as large as Adam's `eps`;
/// they, and values that a Relu lets pass or not, part the two runs further.
const SIGNS: f64 = 5e-3;
/// Of where state ends, where SGD trains with our operators: the losses of the first steps agree to 1e-7, that of the
/// twentieth to 1e-5, as roundings grow.
const GROWN: f64 = 1e-3;

fn plan(prepared: &Prepared, golden: &serde_json::Value) -> FreezePlan {
    let tree = freeze_plan::modules::recover(&prepared.model);
    let unit = freeze_plan::modules::UnitKind::Composer;
    let units = freeze_plan::modules::units(&tree, unit);
    let leaves: Vec<&str> = units.iter().map(|unit| unit.path.as_str()).collect();
    let expected: Vec<&str> = golden["leaves"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
    assert_eq!(leaves, expected, "the units are Composer's leaves in its order");
    let plan = crate::plans::linear(
        &units,
        golden["epochs_count"].as_u64().unwrap() as usize,
        golden["freeze_start"].as_f64().unwrap(),
        golden["freeze_level"].as_f64().unwrap(),
    );
    for (epoch, expected) in plan.epochs.iter().zip(golden["epochs"].as_array().unwrap()) {
        let mut frozen: Vec<&str> = epoch.frozen.iter().map(String::as_str).collect();
        let mut names: Vec<&str> = expected["frozen"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
        frozen.sort_unstable();
        names.sort_unstable();
        assert_eq!(frozen, names, "epoch {}", epoch.epoch);
        assert_eq!(epoch.fraction, expected["fraction"].as_f64().unwrap(), "epoch {}", epoch.epoch);
    }
    plan
}

fn sum_abs(tensor: &Tensor) -> f64 {
    tensor.to_f64s().unwrap().iter().map(|value| value.abs()).sum()
}

fn values(run: &Run<'_>, engine: &dyn Engine) -> BTreeMap<String, Tensor> {
    let mut all = run.state.read_values(engine).unwrap();
    for (name, buffer) in run.state.slots() {
        all.insert(name.to_string(), engine.read(buffer).unwrap());
    }
    all
}

fn check(name: &str, engine: &mut dyn Engine, operators: Operators, ends: f64) {
    let golden = golden(&format!("parity/{name}.json"));
    let file = read(&fixture("parity").join(golden["model"].as_str().unwrap())).unwrap();
    let prepared = prepare(&Analysis::of(&file.model)).unwrap();
    let plan = plan(&prepared, &golden);
    let loss = LossSpec::new(LossKind::CrossEntropy);
    let mut options = serde_json::json!({"kind": golden["optimizer"], "lr": golden["lr"]});
    for key in ["momentum", "weight_decay", "betas", "eps"] {
        if !golden[key].is_null() {
            options[key] = golden[key].clone();
        }
    }
    let optimizer: OptimizerSpec = serde_json::from_value(options).unwrap();
    let dataset =
        Dataset::open(&fixture("parity").join(golden["data"].as_str().unwrap()), &Default::default(), None).unwrap();
    let input = prepared.model.graph.find("x").unwrap();
    let wanted = |column: &str, input: &str, fact| Wanted { column: column.into(), input: input.into(), fact };
    let wanted = [
        wanted("images", "x", prepared.model.graph.fact(input).clone()),
        wanted("labels", names::TARGET, target_fact(&prepared, &loss, None).unwrap()),
    ];
    let size = golden["batch"].as_u64().unwrap() as usize;
    let options = BatchOptions { size, seed: 0, sampler: Sampler::Sequential, last_batch: LastBatch::Keep };
    let batches = Batches::new(data::check(&dataset, &wanted).unwrap(), options).unwrap();
    let setup = Setup {
        prepared: &prepared,
        freezing: freeze_plan::runner::Freezing::of(&plan),
        objective: Objective::Own(Own { loss: &loss, output: None, optimizer: &optimizer }),
        schedule: &Schedule::default(),
        evaluation: &Default::default(),
        train: &batches,
        eval: Some(&batches),
        loading: None,
        checkpoints: None,
        resume: None,
        seed: 0,
        recompute: &freeze_plan::training::Recompute::None,
        log_every: 1,
        accumulate: 1,
        nonfinite: Default::default(),
        ema: None,
        operators,
        computing: Default::default(),
    };
    let mut losses = Vec::new();
    let mut report = |event: RunEvent| {
        if let RunEvent::Step { loss, .. } = event {
            losses.push(loss);
        }
    };
    let stop = AtomicBool::new(false);
    let mut run = Run::new(engine, &setup, &mut report).unwrap();
    for segment in segments(&plan) {
        let before = values(&run, engine);
        run.segment(engine, &segment, &mut report, &stop).unwrap();
        let after = values(&run, engine);
        for frozen in &segment.frozen {
            assert!(before[frozen] == after[frozen], "{name}: {frozen} moved while frozen");
            assert!(!after.keys().any(|key| key.starts_with(&format!("{frozen}."))), "{name}: {frozen} has slots");
        }
    }
    let expected: Vec<f64> = golden["losses"].as_array().unwrap().iter().map(|l| l.as_f64().unwrap()).collect();
    assert_eq!(losses.len(), expected.len());
    let worst = losses.iter().zip(&expected).map(|(a, b)| (a - b).abs() / b.abs()).fold(0f64, f64::max);
    eprintln!("{name} on {}: losses within {worst:.1e} of PyTorch", engine.info().name);
    for (step, (found, expected)) in losses.iter().zip(&expected).enumerate() {
        let off = (found - expected).abs() / expected.abs();
        assert!(off < TOLERANCE, "{name}: the loss of step {} is {found}, PyTorch has {expected}", step + 1);
    }
    let end = values(&run, engine);
    let mut total = 0.0;
    for (parameter, expected) in golden["sum_abs"].as_object().unwrap() {
        total += sum_abs(&end[parameter]);
        let expected = expected.as_f64().unwrap();
        let off = (sum_abs(&end[parameter]) - expected).abs() / (expected + 0.1);
        assert!(off < ends, "{name}: sum|{parameter}| is off by {off:.1e}");
    }
    let expected = golden["total_sum_abs"].as_f64().unwrap();
    eprintln!("{name}: sum|P| within {:.1e}", (total - expected).abs() / expected);
    assert!((total - expected).abs() / expected < TOLERANCE, "{name}: sum|P| is {total}, PyTorch has {expected}");
    for (statistic, expected) in golden["running_sum_abs"].as_object().unwrap() {
        let expected = expected.as_f64().unwrap();
        let off = (sum_abs(&end[statistic]) - expected).abs() / expected;
        assert!(off < ends, "{name}: sum|{statistic}| is off by {off:.1e}");
    }
    let eval = run.evaluate(engine).unwrap()["loss"];
    let expected = golden["eval_loss"].as_f64().unwrap();
    assert!((eval - expected).abs() / expected < TOLERANCE, "{name}: eval loss {eval}, PyTorch has {expected}");
}

#[test]
fn digits_on_every_engine() {
    for mut engine in engines() {
        for operators in [Operators::Own, Operators::Standard] {
            check("digits", engine.as_mut(), operators, TOLERANCE);
        }
    }
}

#[test]
fn resnet8_with_sgd() {
    for (operators, ends) in [(Operators::Own, GROWN), (Operators::Standard, TOLERANCE)] {
        check("resnet8", &mut crate::engines::onnxruntime(), operators, ends);
    }
}

#[test]
fn resnet8_with_adamw() {
    for (operators, ends) in [(Operators::Own, SIGNS), (Operators::Standard, TOLERANCE)] {
        check("resnet8_adamw", &mut crate::engines::onnxruntime(), operators, ends);
    }
}
