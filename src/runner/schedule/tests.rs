//! Every rate against `fixtures/schedules/cases.json`, and what is out of range.

use super::*;
use serde_json::{Value, json};

fn schedule(value: Value) -> Schedule {
    serde_json::from_value(value).unwrap_or_else(|error| panic!("{error}"))
}

fn numbers(value: &Value) -> Vec<Option<f64>> {
    value.as_array().unwrap().iter().map(Value::as_f64).collect()
}

/// Returns epochs that were judged by a metric.
fn records(metric: &Metric, values: &[Option<f64>]) -> Vec<EpochRecord> {
    let record = |value: &Option<f64>| {
        let mut record = EpochRecord { evaluated: true, ..EpochRecord::default() };
        record.metrics.extend(value.map(|value| (metric.name(), value)));
        record
    };
    values.iter().map(record).collect()
}

#[test]
fn every_rate_is_that_of_pytorch() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/schedules/cases.json");
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let (mut wrong, mut kinds) = (Vec::new(), std::collections::BTreeSet::new());
    for case in cases.as_array().unwrap() {
        let own = schedule(case["schedule"].clone());
        assert_eq!(own.problem(), None, "{}", case["name"]);
        kinds.insert(case["schedule"]["kind"].as_str().unwrap());
        let each = case["steps_per_epoch"].as_u64().unwrap();
        let (base, total) = (case["base"].as_f64().unwrap(), each * case["epochs"].as_u64().unwrap());
        let metrics = if case["metrics"].is_null() { Vec::new() } else { numbers(&case["metrics"]) };
        let epochs = own.metric().map_or_else(Vec::new, |metric| records(&metric, &metrics));
        assert_eq!(total as usize, case["rates"].as_array().unwrap().len());
        for (step, expected) in (0..).zip(numbers(&case["rates"])) {
            // The history of the whole run gives what that up to the step gave.
            let so_far = &epochs[..epochs.len().min((step / each) as usize)];
            for epochs in [so_far, &epochs] {
                let found = lr_at(&own, base, step, total, each, epochs);
                if (found - expected.unwrap()).abs() > 1e-12 {
                    wrong.push(format!("{} at {step}: {found}, expected {expected:?}", case["name"]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(kinds.len(), 9, "{kinds:?}");
}

#[test]
fn the_ends_of_a_run() {
    let cases = [
        // 10 epochs of 10 steps, base rate 0.5; beyond the end, and a warm-up longer than the run.
        (json!({"kind": "cosine", "lr_min": 0.1}), 100, 0.1),
        (json!({"kind": "cosine", "lr_min": 0.1}), 150, 0.1),
        (json!({"kind": "cosine", "warmup_steps": 1000}), 99, 0.05),
        (json!({"kind": "linear", "lr_min": 0.1}), 100, 0.1),
        (json!({"kind": "polynomial", "power": 0.5}), 120, 0.0),
        (json!({"kind": "one-cycle"}), 100, 0.5 / 25.0 / 1e4),
        (json!({"kind": "one-cycle"}), 29, 0.5),
        (json!({"kind": "one-cycle", "pct_start": 0.001}), 0, 0.5),
        (json!({"kind": "step", "step_epochs": 3}), 99, 0.0005),
        (json!({"kind": "plateau"}), 99, 0.5),
    ];
    for (own, step, expected) in cases {
        let found = lr_at(&schedule(own.clone()), 0.5, step, 100, 10, &[]);
        assert!((found - expected).abs() < 1e-12, "{own} at {step}: {found}, expected {expected}");
    }
    for kind in ["cosine", "linear", "polynomial", "one-cycle"] {
        for per in ["step", "epoch"] {
            let own = schedule(json!({"kind": kind, "per": per}));
            assert!((0..3).all(|step| lr_at(&own, 0.5, step, 1, 1, &[]).is_finite()), "{kind} per {per}");
            assert!(lr_at(&own, 0.5, 0, 0, 0, &[]).is_finite(), "{kind} per {per}");
        }
    }
}

#[test]
fn epochs_without_an_evaluation_do_not_count_for_a_plateau() {
    let own = schedule(json!({"kind": "plateau", "patience": 0}));
    let judged = records(&Metric::loss(), &[Some(1.0), Some(1.0), Some(0.5)]);
    let mut sparse: Vec<EpochRecord> = judged.into_iter().flat_map(|record| [EpochRecord::default(), record]).collect();
    for (record, train_loss) in sparse.iter_mut().zip([3.0, 2.0, 2.0, 1.0, 0.5, 0.4]) {
        record.metrics.insert("train_loss".into(), train_loss);
    }
    let rates: Vec<f64> = (0..7).map(|epoch| lr_at(&own, 1.0, epoch, 7, 1, &sparse)).collect();
    assert_eq!(rates, [1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.1]);
    let trained = schedule(json!({"kind": "plateau", "patience": 0, "metric": "train_loss"}));
    assert_eq!(lr_at(&trained, 1.0, 6, 7, 1, &sparse), 0.1);
}

#[test]
fn values_out_of_range_are_named() {
    let cases = [
        (json!({"kind": "cosine", "lr_min": -1.0}), "schedule.lr_min", "expected 0 or more, found -1"),
        (json!({"kind": "linear", "lr_min": -1.0}), "schedule.lr_min", "expected 0 or more"),
        (json!({"kind": "polynomial", "lr_min": -1.0}), "schedule.lr_min", "expected 0 or more"),
        (json!({"kind": "polynomial", "power": 0.0}), "schedule.power", "expected a power above 0, found 0"),
        (json!({"kind": "step", "step_size": 0}), "schedule.step_size", "expected 1 or more, found 0"),
        (json!({"kind": "step", "step_size": 1, "gamma": 0.0}), "schedule.gamma", "expected a factor above 0, found 0"),
        (json!({"kind": "exponential", "gamma": -0.5}), "schedule.gamma", "expected a factor above 0"),
        (json!({"kind": "multistep", "milestones": []}), "schedule.milestones", "expected at least one"),
        (json!({"kind": "multistep", "milestones": [0, 2]}), "schedule.milestones", "expected 1 or more, found 0"),
        (
            json!({"kind": "multistep", "milestones": [1, 5, 5]}),
            "schedule.milestones",
            "expected each to be more than the one before, found 5, 5",
        ),
        (json!({"kind": "multistep", "milestones": [1], "gamma": 0}), "schedule.gamma", "expected a factor above 0"),
        (json!({"kind": "one-cycle", "pct_start": 1}), "schedule.pct_start", "expected a fraction in (0, 1), found 1"),
        (
            json!({"kind": "one-cycle", "pct_start": 0.6, "three_phase": true}),
            "schedule.pct_start",
            "expected a fraction in (0, 0.5], found 0.6",
        ),
        (json!({"kind": "one-cycle", "div_factor": 0}), "schedule.div_factor", "expected a divisor above 0"),
        (json!({"kind": "one-cycle", "final_div_factor": -1}), "schedule.final_div_factor", "expected a divisor"),
        (json!({"kind": "plateau", "factor": 1.0}), "schedule.factor", "expected a factor in (0, 1), found 1"),
        (json!({"kind": "plateau", "threshold": -1}), "schedule.threshold", "expected 0 or more"),
        (json!({"kind": "plateau", "lr_min": -1}), "schedule.lr_min", "expected 0 or more"),
        (
            json!({"kind": "plateau", "metric": "confusion"}),
            "schedule.metric",
            "expected a metric of one number, found confusion",
        ),
    ];
    for (own, key, reason) in cases {
        let (found, told) = schedule(own.clone()).problem().unwrap_or_else(|| panic!("{own} is fine"));
        assert_eq!(found, key, "{own}");
        assert!(told.starts_with(reason), "{own}: {told}");
    }
    let infinite = Schedule::cosine(f64::NAN, 0);
    assert_eq!(infinite.problem().map(|problem| problem.0), Some("schedule.lr_min"));
}

#[test]
fn what_is_written_reads_the_same() {
    let kinds = [
        json!({"kind": "constant"}),
        json!({"kind": "step", "step_epochs": 2}),
        json!({"kind": "multistep", "milestones": [2, 4], "per": "step"}),
        json!({"kind": "cosine"}),
        json!({"kind": "one-cycle", "anneal": "linear"}),
        json!({"kind": "polynomial"}),
        json!({"kind": "exponential", "gamma": 0.5}),
        json!({"kind": "linear"}),
        json!({"kind": "plateau", "metric": "top-5"}),
    ];
    for value in kinds {
        let own = schedule(value);
        let text = toml::to_string(&own).unwrap();
        assert_eq!(toml::from_str::<Schedule>(&text).unwrap(), own, "{text}");
    }
}
