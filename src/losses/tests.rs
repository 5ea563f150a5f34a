//! Options, facts and errors, and the values of PyTorch.

use super::*;

fn fact(dtype: DType, shape: &[usize]) -> Fact {
    let mut fact = Fact::fixed(dtype, shape);
    fact.shape.as_mut().unwrap()[0] = Dim::Symbol("N".into());
    fact
}

#[test]
fn job_text_round_trips_and_refuses_unknown_options() {
    let text = r#"{"kind":"cross-entropy","label_smoothing":0.5,"ignore_index":3}"#;
    let spec: LossSpec = serde_json::from_str(text).unwrap();
    assert_eq!(spec, LossSpec { label_smoothing: 0.5, ignore_index: Some(3), ..LossSpec::default() });
    let back = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<LossSpec>(&back).unwrap(), spec);
    let error = serde_json::from_str::<LossSpec>(r#"{"kind":"mse","reduction":"sum"}"#).unwrap_err();
    assert!(error.to_string().contains("unknown field `reduction`"), "{error}");
    for kind in LossKind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        assert_eq!(LossKind::from_name(kind.name()), Some(kind));
    }
}

#[test]
fn targets_and_classes_follow_the_prediction() {
    let entropy = LossSpec::default();
    let axis = |axis| LossSpec { class_axis: Some(axis), ..LossSpec::default() };
    let cases = [
        (entropy.clone(), fact(DType::F32, &[9, 5]), "int64[N]", Some((1, 5))),
        (entropy.clone(), fact(DType::F16, &[9, 7, 5]), "int64[N,7]", Some((2, 5))),
        (entropy.clone(), fact(DType::F32, &[9, 5, 7, 8]), "int64[N,7,8]", Some((1, 5))),
        (axis(1), fact(DType::F32, &[9, 5, 7]), "int64[N,7]", Some((1, 5))),
        (axis(-1), fact(DType::F32, &[9, 6, 7, 5]), "int64[N,6,7]", Some((3, 5))),
        (LossSpec::new(LossKind::Mse), fact(DType::F32, &[9, 5]), "float32[N,5]", None),
        (LossSpec::new(LossKind::L1), fact(DType::F64, &[9, 5]), "float64[N,5]", None),
        (LossSpec::new(LossKind::BinaryCrossEntropy), fact(DType::F16, &[9]), "float32[N]", None),
    ];
    for (spec, prediction, expected, classes) in cases {
        assert_eq!(spec.target_fact(&prediction).unwrap().to_string(), expected, "{prediction}");
        assert_eq!(spec.classes(&prediction), classes, "{prediction}");
    }
}

#[test]
fn wrong_options_are_named() {
    let with = |text: &str| -> LossSpec { serde_json::from_str(text).unwrap() };
    let (image, logits) = (fact(DType::F32, &[9, 5, 7, 8]), fact(DType::F32, &[9, 5]));
    let batch_classes = Fact::new(DType::F32, vec![Dim::Known(4), Dim::Symbol("C".into())]);
    let cases = [
        (r#"{"kind":"mse","label_smoothing":0.1}"#, &logits, "the loss mse has no option label_smoothing"),
        (r#"{"kind":"cross-entropy","delta":2}"#, &logits, "the loss cross-entropy has no option delta"),
        (r#"{"kind":"l1","class_axis":1}"#, &logits, "the loss l1 has no option class_axis"),
        (r#"{"kind":"huber","pos_weight":[1]}"#, &logits, "the loss huber has no option pos_weight"),
        (
            r#"{"kind":"binary-cross-entropy","ignore_index":1}"#,
            &logits,
            "the loss binary-cross-entropy has no option ignore_index",
        ),
        (r#"{"label_smoothing":1.5}"#, &logits, "the loss cross-entropy needs label_smoothing in [0, 1], found 1.5"),
        (r#"{"kind":"huber","delta":0}"#, &logits, "the loss huber needs delta above 0, found 0"),
        (
            r#"{"class_weights":[1,1,1,1,-1]}"#,
            &logits,
            "the loss cross-entropy needs class_weights of at least 0, found -1",
        ),
        (r#"{"class_weights":[1,2]}"#, &image, "the loss cross-entropy needs 5 entries in class_weights, found 2"),
        (
            r#"{"class_axis":4}"#,
            &image,
            "the loss cross-entropy needs class_axis in [-4, 3] for a prediction of float32[N,5,7,8], found 4",
        ),
        (
            "{}",
            &batch_classes,
            "the loss cross-entropy needs a prediction of a fixed number of classes, found float32[4,C] with the classes on axis 1",
        ),
    ];
    for (text, prediction, expected) in cases {
        assert_eq!(with(text).target_fact(prediction).unwrap_err().to_string(), expected, "{text}");
    }
    let integer = LossSpec::new(LossKind::Mse).target_fact(&fact(DType::I64, &[2])).unwrap_err();
    assert_eq!(integer.to_string(), "the loss mse needs a prediction of a floating-point dtype, found int64[N]");
}

#[test]
fn wrong_targets_and_weights_are_named() {
    let build = |spec: &LossSpec, target: Fact| {
        let mut b = Builder::new("loss");
        let prediction = b.input("logits", fact(DType::F32, &[9, 5]));
        let target = b.input("labels", target);
        spec.build(&mut b, prediction, target).unwrap_err()
    };
    let error = build(&LossSpec::default(), fact(DType::F32, &[9]));
    assert_eq!(error.kind(), ErrorKind::BadInput);
    assert_eq!(error.to_string(), "the loss cross-entropy needs the target \"labels\" as int64[N], found float32[N]");
    let error = build(&LossSpec::new(LossKind::Mse), fact(DType::F32, &[9, 1]));
    assert_eq!(error.to_string(), "the loss mse needs the target \"labels\" as float32[N,5], found float32[N,1]");
    let spec = LossSpec { pos_weight: Some(vec![1.0; 3]), ..LossSpec::new(LossKind::BinaryCrossEntropy) };
    let error = build(&spec, fact(DType::F32, &[9, 5]));
    assert_eq!(error.to_string(), "the loss binary-cross-entropy needs 1 or 5 entries in pos_weight, found 3");
}

#[test]
fn every_file_is_a_kind() {
    let mut files: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/losses"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().replace(".rs", "").replace('_', "-"))
        .filter(|name| !["mod", "testing", "tests"].contains(&name.as_str()))
        .collect();
    files.sort();
    let mut kinds = LossKind::ALL.map(LossKind::name);
    kinds.sort_unstable();
    assert_eq!(files, kinds);
}

#[cfg(feature = "runner")]
mod goldens {
    use crate::graph::Tensor;
    use crate::losses::testing::{Case, check};
    use crate::losses::{LossKind, LossSpec};
    use serde_json::Value;

    /// Reads `fixtures/goldens/losses.json`, written by `make.py` beside it.
    fn cases() -> Vec<(Case, Vec<f64>)> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/goldens/losses.json");
        let text = std::fs::read_to_string(file).unwrap();
        let entries: Vec<Value> = serde_json::from_str(&text).unwrap();
        entries.iter().map(case).collect()
    }

    fn case(entry: &Value) -> (Case, Vec<f64>) {
        let options = &entry["options"];
        let list = |value: &Value| {
            let number = |number: &Value| number.as_f64().unwrap() as f32;
            value.as_array().map(|values| values.iter().map(number).collect())
        };
        let spec = LossSpec {
            class_axis: entry["class_axis"].as_i64(),
            class_weights: list(&options["weight"]),
            ignore_index: options["ignore_index"].as_i64(),
            label_smoothing: options["label_smoothing"].as_f64().unwrap_or(0.0) as f32,
            delta: options["delta"].as_f64().unwrap_or(1.0) as f32,
            pos_weight: list(&options["pos_weight"]),
            ..LossSpec::new(LossKind::from_name(entry["loss"].as_str().unwrap()).unwrap())
        };
        let floats = |value: &Value| -> Vec<f64> {
            value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
        };
        let shape = |value: &Value| -> Vec<usize> {
            value["shape"].as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect()
        };
        let tensor = |value: &Value| match value["dtype"].as_str() {
            Some("int64") => {
                let indices = value["values"].as_array().unwrap().iter().map(|index| index.as_i64().unwrap());
                Tensor::from_vec(&shape(value), indices.collect())
            }
            _ => Tensor::from_vec(&shape(value), floats(&value["values"]).into_iter().map(|v| v as f32).collect()),
        };
        let name = format!("{} {}", spec.kind, entry["name"].as_str().unwrap());
        let (prediction, target) = (tensor(&entry["prediction"]), tensor(&entry["target"]));
        let value = entry["value"].as_f64().unwrap();
        (Case::expecting(&name, &spec, prediction, target, value), floats(&entry["grad"]))
    }

    #[test]
    fn values() {
        let cases: Vec<Case> = cases().into_iter().map(|(case, _)| case).collect();
        assert!(cases.len() > 20, "{} cases", cases.len());
        check(&cases);
    }

    /// The gradient of the loss with respect to the prediction is PyTorch's, on every engine.
    #[test]
    fn gradients() {
        let mut failures = Vec::new();
        for (case, expected) in cases() {
            let (mut b, prediction, loss) = case.build();
            let grad = match crate::autodiff::gradients(&mut b, 18, loss, &[prediction]) {
                Ok(grads) => grads[0].unwrap(),
                Err(error) => {
                    failures.push(format!("{}: {error}", case.name));
                    continue;
                }
            };
            b.output(grad, "prediction.grad");
            let graph = crate::graph::prune(&b.finish());
            crate::graph::check(&graph).unwrap();
            let opsets = std::collections::BTreeMap::from([(String::new(), 18)]);
            let model = crate::graph::Model { graph, opsets, ir_version: 8, ..Default::default() };
            for mut engine in crate::runner::testing::engines() {
                let outputs = crate::runner::evaluate(engine.as_mut(), &model, &case.feeds()).unwrap();
                assert_eq!(outputs[1].shape(), case.prediction.shape(), "{}", case.name);
                let found = outputs[1].to_f64s().unwrap();
                let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
                let close = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-6 * (0.1 + largest));
                if !close {
                    failures.push(format!("{} [{}]: {found:?}, expected {expected:?}", case.name, engine.info().name));
                }
            }
        }
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }
}
