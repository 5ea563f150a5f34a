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
        let target = spec.target_fact(std::slice::from_ref(&prediction)).unwrap().unwrap();
        assert_eq!(target.to_string(), expected, "{prediction}");
        assert_eq!(spec.classes(&prediction), classes, "{prediction}");
    }
}

#[test]
fn the_class_of_probabilities_is_the_first_of_the_greatest() {
    let soft = LossSpec { target_kind: TargetKind::Probabilities, ..LossSpec::default() };
    let target = soft.target_fact(&[fact(DType::F16, &[9, 5, 7])]).unwrap().unwrap();
    assert_eq!(target.to_string(), "float32[N,5,7]");
    let values = Tensor::from_vec(&[1, 3, 2], vec![0.2f32, 0.5, 0.6, 0.0, 0.2, 0.5]);
    assert_eq!(soft.indices(&values, 1), Tensor::from_vec(&[1, 2], vec![1i64, 0]));
    assert_eq!(soft.indices(&values, 2), Tensor::from_vec(&[1, 3], vec![1i64, 0, 1]));
    assert_eq!(LossSpec::default().indices(&values, 1), values);
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
        (r#"{"kind":"mse","margin":1}"#, &logits, "the loss mse has no option margin"),
        (r#"{"kind":"nll","label_smoothing":0.1}"#, &logits, "the loss nll has no option label_smoothing"),
        (r#"{"kind":"mse","outputs":["a"]}"#, &logits, "the loss mse has no option outputs"),
        (r#"{"kind":"output","target":"a"}"#, &logits, "the loss output has no option target"),
        (r#"{"kind":"mse","weight":-1}"#, &logits, "the loss mse needs weight of at least 0, found -1"),
        (r#"{"kind":"mse","terms":[{}]}"#, &logits, "the loss mse has no option terms"),
        (r#"{"kind":"smooth-l1","beta":-1}"#, &logits, "the loss smooth-l1 needs beta of at least 0, found -1"),
        (r#"{"label_smoothing":1.5}"#, &logits, "the loss cross-entropy needs label_smoothing in [0, 1], found 1.5"),
        (
            r#"{"target_kind":"probabilities","ignore_index":3}"#,
            &logits,
            "the loss cross-entropy needs ignore_index only with target_kind = \"indices\", found 3",
        ),
        (r#"{"kind":"nll","target_kind":"probabilities"}"#, &logits, "the loss nll has no option target_kind"),
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
            r#"{"class_weights":[1,2]}"#,
            &batch_classes,
            "the loss cross-entropy needs a prediction of a fixed number of classes, which class_weights are for, found float32[4,C] with the classes on axis 1",
        ),
    ];
    for (text, prediction, expected) in cases {
        let error = with(text).target_fact(std::slice::from_ref(prediction)).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
    let integer = LossSpec::new(LossKind::Mse).target_fact(&[fact(DType::I64, &[2])]).unwrap_err();
    assert_eq!(integer.to_string(), "the loss mse needs a prediction of a floating-point dtype, found int64[N]");
}

#[test]
fn wrong_sums_and_outputs_are_named() {
    let cases = [
        (r#"{"kind":"triplet","outputs":["a","b"]}"#, "the loss triplet needs 3 entries in outputs, found 2"),
        (r#"{"kind":"contrastive"}"#, "the loss contrastive needs 2 entries in outputs, found 0"),
        (r#"{"kind":"triplet","output":"a"}"#, "the loss triplet has no option output"),
        (
            r#"{"kind":"cosine-embedding","outputs":["a","b"],"margin":2}"#,
            "the loss cosine-embedding needs margin in [-1, 1], found 2",
        ),
        (r#"{"kind":"sum"}"#, "the loss sum needs 1 or more entries in terms, found 0"),
        (r#"{"kind":"sum","weight":2,"terms":[{}]}"#, "the loss sum has no option weight"),
        (r#"{"kind":"sum","terms":[{"kind":"mse","delta":2}]}"#, "the loss mse has no option delta"),
        (
            r#"{"kind":"sum","terms":[{"kind":"sum","terms":[{}]}]}"#,
            "the loss sum needs terms that are no sums, found a sum",
        ),
    ];
    for (text, expected) in cases {
        let spec: LossSpec = serde_json::from_str(text).unwrap();
        assert_eq!(spec.validate().unwrap_err().to_string(), expected, "{text}");
    }
    let names = Some(vec!["a".to_string(), "b".to_string()]);
    let spec = LossSpec { outputs: names, ..LossSpec::new(LossKind::Contrastive) };
    let error = spec.target_fact(&[fact(DType::F32, &[9, 5]), fact(DType::F32, &[9, 6])]).unwrap_err();
    let expected = "the loss contrastive needs predictions of one shape, found float32[N,5] and float32[N,6]";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_sum_is_judged_by_what_classifies() {
    let spec: LossSpec = serde_json::from_str(r#"{"kind":"sum","terms":[{"kind":"mse"},{"kind":"nll"}]}"#).unwrap();
    assert_eq!((spec.judged().kind, spec.terms().len()), (LossKind::Nll, 2));
    let single = LossSpec::new(LossKind::L1);
    assert_eq!((single.judged(), single.terms().len()), (&single, 1));
}

#[test]
fn wrong_targets_and_weights_are_named() {
    let build = |spec: &LossSpec, target: Fact| {
        let mut b = Builder::new("loss");
        let prediction = b.input("logits", fact(DType::F32, &[9, 5]));
        let target = b.input("labels", target);
        spec.build(&mut b, &[prediction], Some(target)).unwrap_err()
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
        .filter(|name| !["fused", "kind", "mod", "spec", "testing", "tests"].contains(&name.as_str()))
        .collect();
    files.sort();
    let mut kinds = LossKind::ALL.map(LossKind::name);
    kinds.sort_unstable();
    assert_eq!(files, kinds);
}

#[cfg(feature = "runner")]
mod goldens {
    use crate::graph::{DType, Fact, Tensor};
    use crate::losses::testing::{Case, check, prediction};
    use crate::losses::{LossKind, LossSpec};
    use serde_json::Value;

    /// Reads `fixtures/goldens/losses.json`, written by `make.py` beside it.
    fn cases() -> Vec<(Case, Vec<Vec<f64>>)> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/goldens/losses.json");
        let text = std::fs::read_to_string(file).unwrap();
        let entries: Vec<Value> = serde_json::from_str(&text).unwrap();
        entries.iter().map(case).collect()
    }

    fn case(entry: &Value) -> (Case, Vec<Vec<f64>>) {
        let mut options = entry["options"].clone();
        options["kind"] = entry["loss"].clone();
        if let Some(weight) = options.as_object_mut().unwrap().remove("weight") {
            options["class_weights"] = weight;
        }
        if !entry["class_axis"].is_null() {
            options["class_axis"] = entry["class_axis"].clone();
        }
        let several = entry["predictions"].as_array();
        if let Some(several) = several.filter(|several| several.len() > 1) {
            options["outputs"] = (0..several.len()).map(prediction).collect();
        }
        let spec: LossSpec = serde_json::from_value(options).unwrap();
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
        let target = Some(&entry["target"]).filter(|target| !target.is_null()).map(tensor);
        let predictions =
            several.map_or_else(|| vec![tensor(&entry["prediction"])], |all| all.iter().map(tensor).collect());
        let grads = entry["grads"]
            .as_array()
            .map_or_else(|| vec![floats(&entry["grad"])], |all| all.iter().map(floats).collect());
        (Case::expecting(&name, &spec, predictions, target, entry["value"].as_f64().unwrap()), grads)
    }

    #[test]
    fn values() {
        let cases: Vec<Case> = cases().into_iter().map(|(case, _)| case).collect();
        assert!(cases.len() > 50, "{} cases", cases.len());
        check(&cases);
    }

    /// The gradient of the loss with respect to the prediction is PyTorch's, on every engine.
    #[test]
    fn gradients() {
        let mut failures = Vec::new();
        let open = cases().into_iter().filter_map(|(case, grads)| {
            let fact = Fact::fixed(DType::F32, case.predictions[0].shape());
            let axis = case.spec.classes(&fact).filter(|_| case.spec.class_weights.is_none())?.0;
            (case.spec.kind == LossKind::CrossEntropy).then(|| (case.symbol(axis, "classes"), grads))
        });
        let open: Vec<_> = open.collect();
        assert!(open.len() > 3, "{} cases of an open number of classes", open.len());
        for (case, expected) in cases().into_iter().chain(open) {
            let (mut b, predictions, loss) = case.build();
            let grads = match crate::autodiff::gradients(&mut b, 18, loss, &predictions) {
                Ok(grads) => grads,
                Err(error) => {
                    failures.push(format!("{}: {error}", case.name));
                    continue;
                }
            };
            for (at, grad) in grads.into_iter().enumerate() {
                b.output(grad.unwrap(), &format!("{}.grad", prediction(at)));
            }
            let graph = crate::graph::prune(&b.finish());
            crate::graph::check(&graph).unwrap();
            let opsets = std::collections::BTreeMap::from([(String::new(), 18)]);
            let model = crate::graph::Model { graph, opsets, ir_version: 8, ..Default::default() };
            let feeds = case.feeds();
            let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), *tensor)).collect();
            for mut engine in crate::runner::testing::engines() {
                let outputs = crate::runner::evaluate(engine.as_mut(), &model, &feeds).unwrap();
                for ((at, expected), found) in expected.iter().enumerate().zip(&outputs[1..]) {
                    assert_eq!(found.shape(), case.predictions[at].shape(), "{}", case.name);
                    let found = found.to_f64s().unwrap();
                    let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
                    let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-6 * (0.1 + largest));
                    if !close {
                        let engine = &engine.info().name;
                        failures.push(format!("{} {at} [{engine}]: {found:?}, expected {expected:?}", case.name));
                    }
                }
            }
        }
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }
}
