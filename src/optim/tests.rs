//! Options, names and errors, and the steps of PyTorch.

use super::*;

fn parameter(name: &str) -> (String, Fact) {
    (name.to_string(), Fact::fixed(DType::F32, &[2]))
}

#[test]
fn job_text_round_trips_and_refuses_unknown_options() {
    let text = r#"{"kind":"sgd","lr":0.1,"momentum":0.9,"weight_decay":0.0005}"#;
    let spec: OptimizerSpec = serde_json::from_str(text).unwrap();
    let expected = OptimizerSpec {
        lr: 0.1,
        momentum: Some(0.9),
        weight_decay: Some(5e-4),
        ..OptimizerSpec::new(OptimizerKind::Sgd)
    };
    assert_eq!(spec, expected);
    assert_eq!(serde_json::to_string(&spec).unwrap(), text);
    for text in [r#"{"kind":"sgd","dampening":0.1}"#, r#"{"lr":0.1}"#, r#"{"kind":"lion"}"#] {
        assert!(serde_json::from_str::<OptimizerSpec>(text).is_err(), "{text}");
    }
    for kind in OptimizerKind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        assert_eq!(OptimizerKind::from_name(kind.name()), Some(kind));
    }
}

#[test]
fn wrong_options_are_named() {
    let cases = [
        (r#"{"kind":"adam","momentum":0.9}"#, "the optimizer adam has no option momentum"),
        (r#"{"kind":"adamw","nesterov":true}"#, "the optimizer adamw has no option nesterov"),
        (r#"{"kind":"sgd","betas":[0.9,0.99]}"#, "the optimizer sgd has no option betas"),
        (r#"{"kind":"sgd","eps":1e-8}"#, "the optimizer sgd has no option eps"),
        (r#"{"kind":"sgd","lr":-1}"#, "the optimizer sgd needs lr of at least 0, found -1"),
        (r#"{"kind":"adam","betas":[0.9,1]}"#, "the optimizer adam needs betas in [0, 1), found [0.9, 1.0]"),
        (r#"{"kind":"adam","clip_norm":0}"#, "the optimizer adam needs clip_norm above 0, found 0"),
        (r#"{"kind":"sgd","nesterov":true}"#, "the optimizer sgd needs momentum above 0 for nesterov"),
    ];
    for (text, expected) in cases {
        let spec: OptimizerSpec = serde_json::from_str(text).unwrap();
        assert_eq!(spec.graph(&[parameter("w")]).unwrap_err().to_string(), expected);
    }
}

#[test]
fn inputs_and_outputs_have_the_names_of_the_contract() {
    let cases = [
        (r#"{"kind":"sgd"}"#, "lr w w.grad", "w.next"),
        (r#"{"kind":"sgd","momentum":0.9}"#, "lr w w.grad w.momentum", "w.next w.momentum.next"),
        (
            r#"{"kind":"adamw","clip_norm":1}"#,
            "lr w w.grad w.exp_avg w.exp_avg_sq w.step",
            "w.next w.exp_avg.next w.exp_avg_sq.next w.step.next",
        ),
    ];
    for (text, inputs, outputs) in cases {
        let spec: OptimizerSpec = serde_json::from_str(text).unwrap();
        let graph = spec.graph(&[parameter("w")]).unwrap();
        let names = |ids: &[ValueId]| ids.iter().map(|id| graph.value_name(*id)).collect::<Vec<_>>().join(" ");
        assert_eq!(names(graph.inputs()), inputs);
        assert_eq!(names(graph.outputs()), outputs);
        for (input, output) in graph
            .inputs()
            .iter()
            .filter(|id| graph.value_name(**id) != "lr" && !graph.value_name(**id).ends_with(".grad"))
            .zip(graph.outputs())
        {
            assert_eq!(graph.fact(*input), graph.fact(*output), "{}", graph.value_name(*output));
        }
    }
    let nothing = OptimizerSpec { clip_norm: Some(1.0), ..OptimizerSpec::new(OptimizerKind::Adam) }.graph(&[]).unwrap();
    assert!(nothing.nodes().is_empty() && nothing.outputs().is_empty());
}

#[test]
fn parameters_that_cannot_be_updated_are_named() {
    let spec = OptimizerSpec { momentum: Some(0.9), ..OptimizerSpec::new(OptimizerKind::Sgd) };
    let half = [("w".to_string(), Fact::fixed(DType::F16, &[2]))];
    let cases = [
        (spec.graph(&half), "parameter \"w\" is float16[2], an optimizer updates float32 or float64"),
        (
            spec.graph(&[parameter("w"), parameter("w.momentum")]),
            "parameter \"w\" and parameter \"w.momentum\" both need the name \"w.momentum\" in the optimizer graph",
        ),
        (
            spec.graph(&[parameter("lr")]),
            "the learning rate and parameter \"lr\" both need the name \"lr\" in the optimizer graph",
        ),
    ];
    for (result, expected) in cases {
        assert_eq!(result.unwrap_err().to_string(), expected);
    }
}

#[test]
fn every_file_is_a_kind() {
    let mut files: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/optim"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().replace(".rs", ""))
        .filter(|name| !["clip", "mod", "testing", "tests"].contains(&name.as_str()))
        .collect();
    files.sort();
    let mut kinds = OptimizerKind::ALL.map(OptimizerKind::name);
    kinds.sort_unstable();
    assert_eq!(files, kinds);
}

#[cfg(feature = "runner")]
mod engines {
    use crate::graph::Tensor;
    use crate::optim::testing::{advance, compare, model, start};
    use crate::optim::{OptimizerKind, OptimizerSpec};
    use crate::runner::{Engine, testing};
    use serde_json::Value;

    fn floats(value: &Value) -> Vec<f64> {
        match value.as_array() {
            Some(values) => values.iter().map(|number| number.as_f64().unwrap()).collect(),
            None => vec![value.as_f64().unwrap()],
        }
    }

    fn narrow(shape: &[usize], values: &Value) -> Tensor {
        Tensor::from_vec(shape, floats(values).into_iter().map(|value| value as f32).collect())
    }

    fn spec(entry: &Value) -> OptimizerSpec {
        let options = &entry["options"];
        let betas = options["betas"].as_array().map(|betas| [betas[0].as_f64().unwrap(), betas[1].as_f64().unwrap()]);
        OptimizerSpec {
            momentum: options["momentum"].as_f64(),
            nesterov: options["nesterov"].as_bool(),
            weight_decay: options["weight_decay"].as_f64(),
            betas,
            eps: options["eps"].as_f64(),
            clip_norm: entry["max_norm"].as_f64().map(|limit| limit as f32),
            ..OptimizerSpec::new(OptimizerKind::from_name(entry["optimizer"].as_str().unwrap()).unwrap())
        }
    }

    /// Checks `fixtures/goldens/optimizers.json`, written by `make.py` beside it.
    #[test]
    fn goldens() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/goldens/optimizers.json");
        let entries: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        assert!(entries.len() > 10, "{} cases", entries.len());
        let mut failures = Vec::new();
        for mut engine in testing::engines() {
            entries.iter().for_each(|entry| failures.extend(golden(engine.as_mut(), entry)));
        }
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }

    fn golden(engine: &mut dyn Engine, entry: &Value) -> Vec<String> {
        let mut failures = Vec::new();
        let name = format!("{} {} [{}]", entry["optimizer"], entry["name"], engine.info().name);
        let spec = spec(entry);
        let shapes: Vec<Vec<usize>> = entry["p"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["shape"].as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect())
            .collect();
        let parameters: Vec<Tensor> =
            shapes.iter().enumerate().map(|(index, shape)| narrow(shape, &entry["p"][index]["values"])).collect();
        let model = model(&spec, &parameters);
        let mut values = start(&spec, &parameters);
        for (step, lr) in floats(&entry["lr"]).into_iter().enumerate() {
            let grads: Vec<Tensor> =
                shapes.iter().enumerate().map(|(index, shape)| narrow(shape, &entry["grads"][step][index])).collect();
            advance(engine, &model, &mut values, lr, &grads);
            for index in 0..shapes.len() {
                let expected = floats(&entry["after"][step][index]);
                failures.extend(
                    compare(&values, &format!("p{index}"), &expected).map(|text| format!("{name} step {step} {text}")),
                );
            }
        }
        for index in 0..shapes.len() {
            for slot in spec.slots() {
                let expected = floats(&entry["slots"][index][slot.name]);
                failures.extend(
                    compare(&values, &format!("p{index}.{}", slot.name), &expected)
                        .map(|text| format!("{name} {text}")),
                );
            }
        }
        failures
    }

    /// The correction `1 - beta^t` keeps its digits in float32 in both dtypes.
    #[test]
    fn float64_parameters() {
        for kind in OptimizerKind::ALL {
            let spec = OptimizerSpec { clip_norm: Some(1.0), weight_decay: Some(0.1), ..OptimizerSpec::new(kind) };
            let wide = [Tensor::from_vec(&[3], vec![0.5, -0.25, 2.0])];
            let narrow = [Tensor::from_vec(&[3], vec![0.5f32, -0.25, 2.0])];
            for mut engine in testing::engines() {
                let mut results = Vec::new();
                for parameters in [&wide, &narrow] {
                    let mut values = start(&spec, parameters);
                    let model = model(&spec, parameters);
                    advance(engine.as_mut(), &model, &mut values, 0.1, parameters);
                    advance(engine.as_mut(), &model, &mut values, 0.1, parameters);
                    results.push(values);
                }
                let expected = results[0]["p0"].to_f64s().unwrap();
                assert_eq!(compare(&results[1], "p0", &expected), None, "{kind} {}", engine.info().name);
            }
        }
    }
}
