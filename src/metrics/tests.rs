//! Every metric against `fixtures/metrics/cases.json`, in batches of several sizes and dtypes, and what is refused.

use super::{Batch, METRICS, Metric, MetricError, Metrics, Results};
use crate::graph::{DType, Dim, Fact, Tensor};
use crate::losses::{LossKind, LossSpec};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Predictions with their targets.
struct Case {
    name: String,
    spec: LossSpec,
    prediction: Tensor,
    target: Tensor,
    rows: Option<Vec<bool>>,
    expected: Value,
}

fn cases() -> Vec<Case> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/metrics/cases.json");
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    cases.as_array().unwrap().iter().map(case).collect()
}

fn case(case: &Value) -> Case {
    let mut spec = case["options"].clone();
    spec["kind"] = case["loss"].clone();
    let rows = case["rows"].as_array().map(|rows| rows.iter().map(|row| row.as_bool().unwrap()).collect());
    Case {
        name: case["name"].as_str().unwrap().into(),
        spec: serde_json::from_value(spec).unwrap(),
        prediction: tensor(&case["prediction"]),
        target: tensor(&case["target"]),
        rows,
        expected: case.clone(),
    }
}

fn tensor(value: &Value) -> Tensor {
    let shape: Vec<usize> =
        value["shape"].as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap() as usize).collect();
    let values: Vec<f64> = value["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    match value["dtype"].as_str() {
        Some("int64") => Tensor::from_vec(&shape, values.into_iter().map(|value| value as i64).collect()),
        _ => Tensor::from_vec(&shape, values),
    }
}

fn rows(tensor: &Tensor, from: usize, to: usize) -> Tensor {
    let size = tensor.bytes().len() / tensor.shape()[0];
    let shape = [&[to - from], &tensor.shape()[1..]].concat();
    Tensor::new(tensor.dtype(), shape, tensor.bytes().slice(from * size..to * size)).unwrap()
}

fn narrow(tensor: &Tensor) -> Tensor {
    match tensor.dtype() {
        DType::F64 => {
            Tensor::from_vec(tensor.shape(), tensor.to_f64s().unwrap().into_iter().map(|v| v as f32).collect())
        }
        _ => Tensor::from_vec(tensor.shape(), tensor.to_ints().unwrap().into_iter().map(|v| v as i32).collect()),
    }
}

impl Case {
    /// Names of the metrics that the case has.
    fn metrics(&self) -> Vec<Metric> {
        let one = self.expected["expected"].as_object().unwrap().keys().map(String::as_str);
        let tables = ["per_class", "confusion"].into_iter().filter(|name| !self.expected[*name].is_null());
        one.chain(tables).map(|name| Metric::parse(name).unwrap()).collect()
    }

    fn results(&self, size: usize, convert: fn(&Tensor) -> Tensor) -> Results {
        let fact = Fact::fixed(self.prediction.dtype(), self.prediction.shape());
        let mut metrics = Metrics::new(&self.spec, false, Some(&fact), Some(&self.metrics()), &[]).unwrap();
        let count = self.prediction.shape()[0];
        for from in (0..count).step_by(size) {
            let to = (from + size).min(count);
            let (prediction, target) =
                (convert(&rows(&self.prediction, from, to)), convert(&rows(&self.target, from, to)));
            let batch = Batch {
                loss: 1.0,
                rows: to - from,
                prediction: Some(&prediction),
                target: Some(&target),
                counts: self.rows.as_ref().map(|rows| &rows[from..to]),
            };
            metrics.add(&batch).unwrap();
        }
        metrics.results()
    }
}

fn near(found: Option<f64>, expected: &Value, tolerance: f64) -> bool {
    match (found, expected.as_f64()) {
        (Some(found), Some(expected)) => (found - expected).abs() <= tolerance * expected.abs().max(1.0),
        (found, expected) => found.is_none() && expected.is_none(),
    }
}

#[test]
fn values_are_those_of_scikit_learn_however_rows_fall_into_batches() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for case in cases() {
        for (size, convert, tolerance) in [
            (1000, Tensor::clone as fn(&Tensor) -> Tensor, 1e-9),
            (1, Tensor::clone, 1e-9),
            (3, Tensor::clone, 1e-9),
            (2, narrow, 1e-5),
        ] {
            if tolerance > 1e-9 && case.name == "numbers far from zero" {
                continue;
            }
            let found = case.results(size, convert);
            let mut check = |name: &str, fine: bool, found: String, expected: &Value| {
                if !fine {
                    wrong.push(format!("{} in batches of {size}: {name} is {found}, expected {expected}", case.name));
                }
            };
            for (name, expected) in case.expected["expected"].as_object().unwrap() {
                let value = found.scalars.get(name).copied();
                check(name, near(value, expected, tolerance), format!("{value:?}"), expected);
                let told = found.undefined.contains_key(name) == expected.is_null();
                check(name, told, format!("{:?}", found.undefined), expected);
                seen.insert(name.split('_').next().unwrap().to_string());
            }
            let nothing = found.undefined.contains_key("loss");
            for (name, expected) in case.expected["per_class"].as_object().into_iter().flatten().filter(|_| !nothing) {
                let (values, expected) = (&found.per_class[name], expected.as_array().unwrap());
                let fine = values.len() == expected.len()
                    && values.iter().zip(expected).all(|(value, expected)| near(*value, expected, tolerance));
                check(name, fine, format!("{values:?}"), &Value::Array(expected.clone()));
            }
            if case.expected["confusion"].is_array() && !nothing {
                let counts = serde_json::to_value(&found.confusion).unwrap();
                check(
                    "confusion",
                    counts == case.expected["confusion"],
                    counts.to_string(),
                    &case.expected["confusion"],
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let expected = ["accuracy", "f1", "mae", "mse", "perplexity", "r2", "rmse", "roc", "top"].map(String::from);
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn what_is_not_defined_has_a_reason() {
    let found: BTreeMap<String, Results> =
        cases().into_iter().map(|case| (case.name.clone(), case.results(4, Tensor::clone))).collect();
    let cases = [
        ("all ignored", "accuracy", "no target counts"),
        ("all ignored", "confusion", "no target counts"),
        ("all ignored", "per_class", "no target counts"),
        ("all ignored", "loss", "no target counts"),
        ("one class in the targets", "roc_auc", "there is no class that some targets are and some are not"),
        ("only yes", "roc_auc", "there is no class that some targets are and some are not"),
        ("all targets the same", "r2", "the targets do not vary"),
        ("one row", "r2", "the targets do not vary"),
    ];
    for (case, metric, reason) in cases {
        assert_eq!(found[case].undefined.get(metric).map(String::as_str), Some(reason), "{case}: {metric}");
        assert!(!found[case].scalars.contains_key(metric), "{case}: {metric}");
    }
}

fn batch<'a>(loss: f64, prediction: &'a Tensor, target: &'a Tensor) -> Batch<'a> {
    let rows = prediction.shape()[0];
    Batch { loss, rows, prediction: Some(prediction), target: Some(target), counts: None }
}

#[test]
fn the_loss_weighs_batches_by_what_it_divides_by() {
    let spec = LossSpec {
        class_weights: Some(vec![1.0, 3.0]),
        ignore_index: Some(-1),
        ..LossSpec::new(LossKind::CrossEntropy)
    };
    let [three, one] = [3, 1].map(|rows| Tensor::from_vec(&[rows, 2], vec![0f32; 2 * rows]));
    let (first, second) = (Tensor::ints(&[0, 1, -1]), Tensor::ints(&[1]));
    let fact = Fact::fixed(DType::F32, &[3, 2]);
    let loss = |spec: &LossSpec, sum: bool| {
        let mut metrics = Metrics::new(spec, sum, Some(&fact), None, &[]).unwrap();
        metrics.add(&batch(1.0, &three, &first)).unwrap();
        metrics.add(&batch(2.0, &one, &second)).unwrap();
        if !sum {
            metrics.add(&batch(f64::NAN, &one, &Tensor::ints(&[-1]))).unwrap();
        }
        metrics.results().scalars["loss"]
    };
    // Weights 1 + 3 and 3.
    assert!((loss(&spec, false) - (4.0 + 6.0) / 7.0).abs() < 1e-12);
    let plain = LossSpec { class_weights: None, ..spec.clone() };
    assert!((loss(&plain, false) - (2.0 + 2.0) / 3.0).abs() < 1e-12);
    // Of a sum of losses the rows.
    assert!((loss(&spec, true) - (3.0 + 2.0) / 4.0).abs() < 1e-12);
    let numbers = LossSpec::new(LossKind::Mse);
    let mut metrics = Metrics::new(&numbers, false, None, None, &[]).unwrap();
    let counts = [true, false, true];
    metrics.add(&Batch { counts: Some(&counts), ..batch(1.0, &three, &three) }).unwrap();
    metrics.add(&batch(4.0, &one, &one)).unwrap();
    assert!((metrics.results().scalars["loss"] - 2.0).abs() < 1e-12);
    assert_eq!(
        metrics.add(&Batch { counts: Some(&counts[..2]), ..batch(1.0, &three, &three) }),
        Err(MetricError::Rows { rows: 3, found: 2 })
    );
}

#[test]
fn a_prediction_that_is_not_a_number_leaves_the_loss_alone() {
    let cases = [
        (LossKind::CrossEntropy, Tensor::ints(&[0, 1]), vec!["accuracy", "top_1", "roc_auc", "confusion", "per_class"]),
        (LossKind::BinaryCrossEntropy, Tensor::zeros(DType::F32, &[2, 2]), vec!["f1_macro"]),
        (LossKind::Mse, Tensor::zeros(DType::F32, &[2, 2]), vec!["mae", "r2"]),
    ];
    let prediction = Tensor::from_vec(&[2, 2], vec![0.5f32, 1.0, f32::NAN, 2.0]);
    for (kind, target, names) in cases {
        let wanted: Vec<Metric> = names.iter().map(|name| Metric::parse(name).unwrap()).collect();
        let fact = Fact::fixed(DType::F32, &[2, 2]);
        let mut metrics = Metrics::new(&LossSpec::new(kind), false, Some(&fact), Some(&wanted), &[]).unwrap();
        metrics.add(&batch(1.0, &prediction, &target)).unwrap();
        let found = metrics.results();
        assert_eq!(found.scalars, BTreeMap::from([("loss".to_string(), 1.0)]), "{kind}");
        assert!(names.iter().all(|name| found.undefined[*name] == "a prediction is not a number"), "{found:?}");
        assert!(found.per_class.is_empty() && found.confusion.is_empty());
    }
}

#[test]
fn what_does_not_fit_is_refused_with_what_it_needs_and_what_was_found() {
    let fixed = |shape: &[usize]| Some(Fact::fixed(DType::F32, shape));
    let open = |last: usize| Some(Fact::new(DType::F32, vec![Dim::Unknown, Dim::Known(last)]));
    let cases: [(LossKind, Option<Fact>, &str, &str); 9] = [
        (
            LossKind::Mse,
            fixed(&[8, 10]),
            "accuracy",
            "the metric accuracy needs scores of classes or labels, found numbers (mse)",
        ),
        (
            LossKind::CrossEntropy,
            open(3),
            "top-5",
            "the metric top_5 needs scores of at least 5 classes of which one is right, found scores of 3 classes \
             (cross-entropy)",
        ),
        (
            LossKind::CrossEntropy,
            fixed(&[8, 10]),
            "mae",
            "the metric mae needs numbers to be met, found scores of 10 classes (cross-entropy)",
        ),
        (
            LossKind::BinaryCrossEntropy,
            fixed(&[8, 3]),
            "confusion",
            "the metric confusion needs scores of at most 1000 classes of which one is right, or of one label, found \
             scores of 3 labels that may be there at once (binary-cross-entropy)",
        ),
        (
            LossKind::CrossEntropy,
            fixed(&[8, 1001]),
            "confusion",
            "the metric confusion needs scores of at most 1000 classes of which one is right, or of one label, found \
             scores of 1001 classes (cross-entropy)",
        ),
        (
            LossKind::BinaryCrossEntropy,
            fixed(&[8]),
            "perplexity",
            "the metric perplexity needs scores of classes of which one is right, found scores of 1 label that may be \
             there at once (binary-cross-entropy)",
        ),
        (
            LossKind::Triplet,
            fixed(&[8, 3]),
            "f1_macro",
            "the metric f1_macro needs scores of classes or labels, found the loss triplet, of which no prediction is \
             judged",
        ),
        (
            LossKind::Output,
            None,
            "r2",
            "the metric r2 needs numbers to be met, found a loss that the model computes itself",
        ),
        (
            LossKind::Mse,
            fixed(&[8, 10]),
            "train-loss",
            "the metric train_loss needs the training data, found numbers (mse)",
        ),
    ];
    for (kind, fact, metric, expected) in cases {
        let wanted = [Metric::parse(metric).unwrap()];
        let error = Metrics::new(&LossSpec::new(kind), false, fact.as_ref(), Some(&wanted), &[]).err().unwrap();
        assert_eq!(error.to_string(), expected);
        let by_default = Metrics::new(&LossSpec::new(kind), false, fact.as_ref(), None, &[]);
        assert!(by_default.is_ok(), "{kind}");
    }
}

#[test]
fn what_turns_out_not_to_fit_is_refused_when_it_is_met() {
    let open = Fact { dtype: Some(DType::F32), shape: None };
    let wanted = [Metric::parse("top-3").unwrap()];
    let metrics =
        |kind, wanted: &[Metric]| Metrics::new(&LossSpec::new(kind), false, Some(&open), Some(wanted), &[]).unwrap();
    let prediction = Tensor::from_vec(&[2, 2], vec![0f32; 4]);
    let error = metrics(LossKind::CrossEntropy, &wanted).add(&batch(1.0, &prediction, &Tensor::ints(&[0, 1])));
    assert!(error.unwrap_err().to_string().ends_with("found scores of 2 classes (cross-entropy)"));
    let accuracy = [Metric::accuracy()];
    let error = metrics(LossKind::CrossEntropy, &accuracy).add(&batch(1.0, &prediction, &Tensor::ints(&[0, 2])));
    assert_eq!(error, Err(MetricError::Label { label: 2, classes: 2 }));
    let error = metrics(LossKind::CrossEntropy, &accuracy).add(&batch(1.0, &prediction, &Tensor::ints(&[0, 1, 0])));
    let text = "found a prediction of float32[2,2] and a target of int64[3]";
    assert!(error.unwrap_err().to_string().ends_with(text));
    let mae = [Metric::parse("mae").unwrap()];
    let error = metrics(LossKind::Mse, &mae).add(&batch(1.0, &prediction, &Tensor::zeros(DType::F32, &[2])));
    assert!(error.unwrap_err().to_string().ends_with("a target of float32[2]"));
    // What nobody asked for is left out.
    let mut metrics = Metrics::new(&LossSpec::new(LossKind::CrossEntropy), false, Some(&open), None, &[]).unwrap();
    metrics.add(&batch(1.0, &prediction, &Tensor::ints(&[0, 1, 0]))).unwrap();
    assert_eq!(metrics.results().scalars.keys().collect::<Vec<_>>(), ["loss"]);
}

#[test]
fn every_metric_of_the_list_is_checked_against_the_file() {
    let cases = cases();
    for entry in METRICS.iter().filter(|entry| entry.name != "loss") {
        let there = |case: &Case| case.metrics().iter().any(|metric| std::ptr::eq(metric.entry(), *entry));
        assert!(cases.iter().any(there), "{}", entry.name);
    }
}
