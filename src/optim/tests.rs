//! Options, names and errors, and the steps of PyTorch.

use super::*;

fn parameter(name: &str) -> Parameter {
    Parameter::new(name, Fact::fixed(DType::F32, &[2]))
}

#[test]
fn job_text_round_trips_and_refuses_unknown_options() {
    let text = r#"{"kind":"sgd","lr":0.1,"momentum":0.9,"weight_decay":0.0005}"#;
    let spec: OptimizerSpec = serde_json::from_str(text).unwrap();
    let expected = OptimizerSpec {
        lr: Some(0.1),
        momentum: Some(0.9),
        weight_decay: Some(5e-4),
        ..OptimizerSpec::new(OptimizerKind::Sgd)
    };
    assert_eq!(spec, expected);
    assert_eq!(serde_json::to_string(&spec).unwrap(), text);
    for text in [r#"{"kind":"sgd","maximize":true}"#, r#"{"lr":0.1}"#, r#"{"kind":"lbfgs"}"#] {
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
        (r#"{"kind":"sgd","clip_value":-0.5}"#, "the optimizer sgd needs clip_value above 0, found -0.5"),
        (r#"{"kind":"muon","fallback":{"kind":"adamw","clip_value":1}}"#, "a fallback optimizer has no clip_value"),
        (r#"{"kind":"sgd","nesterov":true}"#, "the optimizer sgd needs momentum above 0 and no dampening for nesterov"),
        (r#"{"kind":"sgd","dampening":0.5}"#, "the optimizer sgd needs momentum above 0 for dampening"),
        (r#"{"kind":"lion","eps":1e-8}"#, "the optimizer lion has no option eps"),
        (
            r#"{"kind":"adamw","decoupled_weight_decay":true}"#,
            "the optimizer adamw has no option decoupled_weight_decay",
        ),
        (r#"{"kind":"rmsprop","alpha":1}"#, "the optimizer rmsprop needs alpha in [0, 1), found 1"),
        (r#"{"kind":"muon","ns_steps":100}"#, "the optimizer muon needs ns_steps from 1 to 99, found 100"),
        (r#"{"kind":"sgd","fallback":{"kind":"adamw"}}"#, "the optimizer sgd has no option fallback"),
        (
            r#"{"kind":"sgd","groups":[{"parameters":["w"],"fallback":true}]}"#,
            "the optimizer sgd has no option fallback",
        ),
        (
            r#"{"kind":"sgd","groups":[{"parameters":["w"],"lr_scale":-1}]}"#,
            "the optimizer sgd needs lr_scale of at least 0, found -1",
        ),
        (
            r#"{"kind":"sgd","groups":[{"parameters":[]}]}"#,
            "the optimizer sgd needs groups with at least one pattern in parameters each, found none",
        ),
        (r#"{"kind":"muon","fallback":{"kind":"adamw","clip_norm":1}}"#, "a fallback optimizer has no clip_norm"),
        (r#"{"kind":"muon","fallback":{"kind":"sgd","eps":1}}"#, "the optimizer sgd has no option eps"),
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
    assert!(spec.graph(&[parameter("lr_scale")]).is_ok());
    let varying = Parameter { element: Some(0), ..parameter("w") };
    let half = [Parameter::new("w", Fact::fixed(DType::F16, &[2]))];
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
        (
            spec.graph(&[parameter("lr_scale"), varying]),
            "the factors of the learning rate and parameter \"lr_scale\" both need the name \"lr_scale\" in the optimizer graph",
        ),
        (
            spec.graph(&[Parameter { lr_scale: f64::NAN, ..parameter("w") }]),
            "the learning rate of parameter \"w\" needs a factor of at least 0, found NaN",
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
        .filter(|name| !["clip", "fused", "kind", "mod", "rates", "spec", "testing", "tests"].contains(&name.as_str()))
        .collect();
    files.sort();
    let mut kinds = OptimizerKind::ALL.map(OptimizerKind::name);
    kinds.sort_unstable();
    assert_eq!(files, kinds);
}

#[cfg(feature = "runner")]
mod engines {
    use crate::graph::Tensor;
    use crate::graph::{DType, Fact};
    use crate::optim::testing::{Values, advance, advance_scaled, checked, compare, model, start, wave};
    use crate::optim::{OptimizerKind, OptimizerSpec, Parameter};
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
        let mut options = entry["options"].clone();
        options["kind"] = entry["optimizer"].clone();
        let spec: OptimizerSpec = serde_json::from_value(options).unwrap();
        let limit = |name: &str| entry[name].as_f64().map(|limit| limit as f32);
        OptimizerSpec { clip_value: limit("max_value"), clip_norm: limit("max_norm"), ..spec }
    }

    /// Checks `fixtures/goldens/optimizers.json`, written by `make.py` beside it.
    #[test]
    fn goldens() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/goldens/optimizers.json");
        let entries: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        assert!(entries.len() > 40, "{} cases", entries.len());
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
        let own = |(index, tensor): (usize, &Tensor)| Parameter {
            lr_scale: entry["fixed"][index].as_f64().unwrap_or(1.0),
            element: entry["element"][index].as_u64().map(|element| element as usize),
            ..Parameter::new(&format!("p{index}"), Fact::fixed(DType::F32, tensor.shape()))
        };
        let model = checked(&spec, &parameters.iter().enumerate().map(own).collect::<Vec<_>>());
        let mut values = start(&spec, &parameters);
        for (step, lr) in floats(&entry["lr"]).into_iter().enumerate() {
            let scales = if entry["scales"].is_null() { Vec::new() } else { floats(&entry["scales"][step]) };
            let grads: Vec<Tensor> =
                shapes.iter().enumerate().map(|(index, shape)| narrow(shape, &entry["grads"][step][index])).collect();
            advance_scaled(engine, &model, &mut values, (lr, &scales), &grads);
            for index in 0..shapes.len() {
                let expected = floats(&entry["after"][step][index]);
                failures.extend(
                    compare(&values, &format!("p{index}"), &expected).map(|text| format!("{name} step {step} {text}")),
                );
            }
        }
        for index in 0..shapes.len() {
            let own = Parameter::new("p", Fact::fixed(DType::F32, &shapes[index]));
            for slot in spec.slots_of(&own) {
                let held = &entry["slots"][index][slot.name];
                if held.is_null() && spec.kind == OptimizerKind::Sgd && slot.name == "step" {
                    continue; // PyTorch tells the first step by the absence of a buffer.
                }
                let expected = floats(held);
                failures.extend(
                    compare(&values, &format!("p{index}.{}", slot.name), &expected)
                        .map(|text| format!("{name} {text}")),
                );
            }
        }
        failures
    }

    /// Parameters of both dtypes move alike, at rates of their own. The correction `1 - beta^t` keeps
    /// its digits in float32.
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
                    let fact = Fact::fixed(parameters[0].dtype(), &[3]);
                    let own = Parameter { element: Some(1), lr_scale: 0.5, ..Parameter::new("p0", fact) };
                    let model = checked(&spec, &[own]);
                    advance_scaled(engine.as_mut(), &model, &mut values, (0.1, &[9.0, 1.5]), parameters);
                    advance_scaled(engine.as_mut(), &model, &mut values, (0.1, &[9.0, 0.5]), parameters);
                    results.push(values);
                }
                let expected = results[0]["p0"].to_f64s().unwrap();
                assert_eq!(compare(&results[1], "p0", &expected), None, "{kind} {}", engine.info().name);
            }
        }
    }

    /// A parameter that joins late has averages and a count of its own, so its steps are those that
    /// it would have made from the start.
    #[test]
    fn a_late_parameter_is_corrected_from_its_own_start() {
        let kinds = [
            r#"{"kind":"adam"}"#,
            r#"{"kind":"adam","decoupled_weight_decay":true,"weight_decay":0.1}"#,
            r#"{"kind":"adamw","amsgrad":true}"#,
            r#"{"kind":"sgd","momentum":0.9,"dampening":0.5}"#,
            r#"{"kind":"adagrad","lr_decay":0.5}"#,
            r#"{"kind":"rmsprop","centered":true,"momentum":0.9}"#,
            r#"{"kind":"lion"}"#,
            r#"{"kind":"muon"}"#,
        ];
        let specs: Vec<OptimizerSpec> = kinds.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        for kind in OptimizerKind::ALL {
            assert!(specs.iter().any(|spec| spec.kind == kind), "{kind}");
        }
        for (text, spec) in kinds.into_iter().zip(specs) {
            let parameters = [wave(&[2, 3], 1), wave(&[4], 2)];
            let (early, both) = (model(&spec, &parameters[..1]), model(&spec, &parameters));
            let grads = |step: usize| [wave(&[2, 3], 5 + step), wave(&[4], 9 + step)];
            for mut engine in testing::engines() {
                let mut late = start(&spec, &parameters);
                for step in 0..4 {
                    let held: Values = late.iter().filter(|value| value.0.starts_with("p1")).map(owned).collect();
                    advance(engine.as_mut(), &early, &mut late, 0.1, &grads(10 + step)[..1]);
                    assert!(held.iter().all(|(name, value)| late[name] == *value), "{text}");
                }
                let mut fresh = start(&spec, &parameters);
                for step in 0..3 {
                    advance(engine.as_mut(), &both, &mut late, 0.1, &grads(step));
                    advance(engine.as_mut(), &both, &mut fresh, 0.1, &grads(step));
                }
                let of = |values: &Values, name: &str| -> Values {
                    values.iter().filter(|value| value.0.starts_with(name)).map(owned).collect()
                };
                assert_eq!(of(&late, "p1"), of(&fresh, "p1"), "{text}");
                assert_ne!(of(&late, "p0"), of(&fresh, "p0"), "{text}");
            }
        }
    }

    /// Moments of zero after many steps of others: with a count of its own a step of Adam is the
    /// rate, with theirs it would be 3.16 times that.
    #[test]
    fn the_first_step_of_a_late_parameter_is_the_rate() {
        for kind in [OptimizerKind::Adam, OptimizerKind::AdamW] {
            let spec = OptimizerSpec { weight_decay: Some(0.0), ..OptimizerSpec::new(kind) };
            let parameters = [wave(&[2, 3], 1), wave(&[4], 2)];
            let (early, both) = (model(&spec, &parameters[..1]), model(&spec, &parameters));
            for mut engine in testing::engines() {
                let mut values = start(&spec, &parameters);
                values.insert("p0.step".into(), Tensor::scalar(1e6f32));
                advance(engine.as_mut(), &early, &mut values, 0.1, &[wave(&[2, 3], 5)]);
                advance(engine.as_mut(), &both, &mut values, 0.1, &[wave(&[2, 3], 6), wave(&[4], 9)]);
                let (before, grads) = (parameters[1].to_f64s().unwrap(), wave(&[4], 9).to_f64s().unwrap());
                let expected: Vec<f64> = before.iter().zip(grads).map(|(p, g)| p - 0.1 * g.signum()).collect();
                assert_eq!(compare(&values, "p1", &expected), None, "{kind} {}", engine.info().name);
                assert_eq!(values["p1.step"].to_f64s().unwrap(), [1.0]);
                assert_eq!(values["p0.step"].to_f64s().unwrap(), [1_000_002.0]);
            }
        }
    }

    /// A parameter that pauses goes on where it stopped, with the slots that it had.
    #[test]
    fn a_pause_leaves_no_trace_where_slots_are_kept() {
        for kind in OptimizerKind::ALL {
            let spec = OptimizerSpec::new(kind);
            let parameters = [wave(&[2, 3], 1), wave(&[4], 2)];
            let (one, both) = (model(&spec, &parameters[..1]), model(&spec, &parameters));
            let grads = |step: usize| [wave(&[2, 3], 5 + step), wave(&[4], 9 + step)];
            for mut engine in testing::engines() {
                let (mut paused, mut whole) = (start(&spec, &parameters), start(&spec, &parameters));
                for step in 0..4 {
                    advance(engine.as_mut(), &both, &mut paused, 0.1, &grads(step));
                    advance(engine.as_mut(), &both, &mut whole, 0.1, &grads(step));
                    for pause in 0..2 {
                        advance(engine.as_mut(), &one, &mut paused, 0.1, &grads(10 + step + pause)[..1]);
                    }
                }
                let of = |values: &Values, name: &str| -> Values {
                    values.iter().filter(|value| value.0.starts_with(name)).map(owned).collect()
                };
                assert_eq!(of(&paused, "p1"), of(&whole, "p1"), "{kind}");
                assert_ne!(of(&paused, "p0"), of(&whole, "p0"), "{kind}");
            }
        }
    }

    fn owned((name, value): (&String, &Tensor)) -> (String, Tensor) {
        (name.clone(), value.clone())
    }

    /// Runs two steps of parameters `p0` (a matrix) and `p1` (a vector).
    fn two_steps(engine: &mut dyn Engine, spec: &OptimizerSpec, own: &[Parameter; 2], lr: f64) -> Values {
        let parameters = [wave(&[2, 3], 1), wave(&[4], 2)];
        let graph = checked(spec, own);
        let mut values = Values::new();
        for (parameter, tensor) in own.iter().zip(&parameters) {
            values.insert(parameter.name.clone(), tensor.clone());
            for slot in spec.slots_of(parameter) {
                let (dtype, shape) = if slot.scalar { (DType::F32, &[][..]) } else { (tensor.dtype(), tensor.shape()) };
                let initial = Tensor::float_full(dtype, shape, slot.initial);
                values.insert(format!("{}.{}", parameter.name, slot.name), initial);
            }
        }
        for step in 0..2 {
            advance(engine, &graph, &mut values, lr, &[wave(&[2, 3], 5 + step), wave(&[4], 9 + step)]);
        }
        values
    }

    fn pair() -> [Parameter; 2] {
        let own = |name: &str, shape: &[usize]| Parameter::new(name, Fact::fixed(DType::F32, shape));
        [own("p0", &[2, 3]), own("p1", &[4])]
    }

    /// A parameter with a rate and a decay of its own moves as under an optimizer with these.
    #[test]
    fn settings_of_a_parameter_are_those_of_an_optimizer() {
        for kind in OptimizerKind::ALL {
            let spec = OptimizerSpec { weight_decay: Some(0.2), ..OptimizerSpec::new(kind) };
            let mut own = pair();
            own[1] = Parameter { lr_scale: 0.5, weight_decay: Some(0.05), ..own[1].clone() };
            let other = OptimizerSpec {
                weight_decay: Some(0.05),
                ..OptimizerSpec::new(if kind == OptimizerKind::Muon { OptimizerKind::AdamW } else { kind })
            };
            for mut engine in testing::engines() {
                let found = two_steps(engine.as_mut(), &spec, &own, 0.2);
                let plain = two_steps(engine.as_mut(), &spec, &pair(), 0.2);
                let expected = two_steps(engine.as_mut(), &other, &pair(), 0.1);
                assert_eq!(found["p0"], plain["p0"], "{kind}");
                assert_eq!(compare(&found, "p1", &expected["p1"].to_f64s().unwrap()), None, "{kind}");
                assert_ne!(found["p1"], plain["p1"], "{kind}");
            }
        }
    }

    #[test]
    fn vectors_without_decay() {
        let spec: OptimizerSpec =
            serde_json::from_str(r#"{"kind":"adamw","weight_decay":0.3,"decay_1d":false}"#).unwrap();
        let mut grouped = pair();
        grouped[1].weight_decay = Some(0.3);
        let all = OptimizerSpec { decay_1d: None, ..spec.clone() };
        let none = OptimizerSpec { weight_decay: Some(0.0), ..all.clone() };
        for mut engine in testing::engines() {
            let found = two_steps(engine.as_mut(), &spec, &pair(), 0.1);
            let (all, none) =
                (two_steps(engine.as_mut(), &all, &pair(), 0.1), two_steps(engine.as_mut(), &none, &pair(), 0.1));
            assert_eq!((&found["p0"], &found["p1"]), (&all["p0"], &none["p1"]));
            let found = two_steps(engine.as_mut(), &spec, &grouped, 0.1);
            assert_eq!(found["p1"], all["p1"], "a group decides");
        }
    }

    /// What Muon does not update has the slots, the rate and the steps of the fallback.
    #[test]
    fn muon_leaves_the_rest_to_its_fallback() {
        let text = r#"{"kind":"muon","lr":0.02,"fallback":{"kind":"sgd","lr":0.005,"momentum":0.9}}"#;
        let spec: OptimizerSpec = serde_json::from_str(text).unwrap();
        let sgd: OptimizerSpec = serde_json::from_str(r#"{"kind":"sgd","momentum":0.9}"#).unwrap();
        let mut matrix = pair();
        matrix[0].fallback = true;
        for mut engine in testing::engines() {
            let found = two_steps(engine.as_mut(), &spec, &pair(), 0.04);
            let expected = two_steps(engine.as_mut(), &sgd, &pair(), 0.01);
            assert_eq!(compare(&found, "p1", &expected["p1"].to_f64s().unwrap()), None);
            assert!(compare(&found, "p0", &expected["p0"].to_f64s().unwrap()).is_some());
            let found = two_steps(engine.as_mut(), &spec, &matrix, 0.04);
            assert_eq!(compare(&found, "p0", &expected["p0"].to_f64s().unwrap()), None);
        }
        let default = OptimizerSpec::new(OptimizerKind::Muon);
        let [matrix, vector] = pair();
        assert_eq!(default.slots_of(&vector), OptimizerSpec::new(OptimizerKind::AdamW).slots());
        assert_eq!(default.slots_of(&matrix), default.slots());
    }

    fn varying(dtype: DType, elements: [Option<usize>; 3]) -> Vec<Parameter> {
        let shapes: [&[usize]; 3] = [&[2, 3], &[4], &[3, 2]];
        let own = |(index, (shape, element)): (usize, (&[usize], Option<usize>))| Parameter {
            element,
            ..Parameter::new(&format!("p{index}"), Fact::fixed(dtype, shape))
        };
        shapes.into_iter().zip(elements).enumerate().map(own).collect()
    }

    #[test]
    fn parameters_share_an_element_and_only_those_that_read_one_have_the_input() {
        let spec = OptimizerSpec { weight_decay: Some(0.1), ..OptimizerSpec::new(OptimizerKind::AdamW) };
        let plain = checked(&spec, &varying(DType::F32, [None; 3])).graph;
        let found = spec.graph_with_scales(&varying(DType::F32, [None; 3]), 5).unwrap();
        assert_eq!(crate::graph::dump(&found), crate::graph::dump(&plain));
        assert_eq!(plain.find("lr_scale"), None);
        let graph = checked(&spec, &varying(DType::F32, [Some(2), None, Some(2)])).graph;
        assert_eq!(graph.fact(graph.find("lr_scale").unwrap()), &Fact::fixed(DType::F32, &[3]));
        assert_eq!(graph.nodes().iter().filter(|node| node.op.is("Gather")).count(), 1);
        assert_eq!(graph.nodes().len(), plain.nodes().len() + 2);
        let graph = spec.graph_with_scales(&varying(DType::F32, [Some(0), None, Some(1)]), 5).unwrap();
        assert_eq!(graph.fact(graph.find("lr_scale").unwrap()), &Fact::fixed(DType::F32, &[5]));
    }

    /// At rate 0 a parameter stays to the bit and its slots move as at any other rate.
    #[test]
    fn rate_zero() {
        for kind in OptimizerKind::ALL {
            let spec = OptimizerSpec { weight_decay: Some(0.1), ..OptimizerSpec::new(kind) };
            let spec = if kind == OptimizerKind::Sgd { OptimizerSpec { momentum: Some(0.9), ..spec } } else { spec };
            for dtype in [DType::F32, DType::F64] {
                let tensor = |shape: &[usize], seed: usize| match dtype {
                    DType::F32 => wave(shape, seed),
                    _ => Tensor::from_vec::<f64>(shape, wave(shape, seed).to_f64s().unwrap()),
                };
                let all = |seed: usize| [tensor(&[2, 3], seed), tensor(&[4], seed + 1), tensor(&[3, 2], seed + 2)];
                let mut own = varying(dtype, [Some(0), Some(0), Some(1)]);
                let moving = checked(&spec, &own);
                own.iter_mut().for_each(|own| own.element = None);
                own[2].lr_scale = 0.0;
                let fixed = checked(&spec, &own);
                for mut engine in testing::engines() {
                    // tract has no Gemm of float64 with beta.
                    if kind == OptimizerKind::Muon && dtype == DType::F64 && engine.info().name == "tract" {
                        continue;
                    }
                    let mut values = start(&spec, &all(1));
                    let mut constant = values.clone();
                    advance_scaled(engine.as_mut(), &moving, &mut values, (0.1, &[1.0, 0.0]), &all(7));
                    advance(engine.as_mut(), &fixed, &mut constant, 0.1, &all(7));
                    assert_eq!(values["p2"].bytes(), all(1)[2].bytes(), "{kind} {dtype}");
                    assert_eq!(values, constant, "{kind} {dtype}");
                    assert_ne!(values["p0"], all(1)[0], "{kind} {dtype}");
                    let mut whole = start(&spec, &all(1));
                    advance_scaled(engine.as_mut(), &moving, &mut whole, (0.1, &[1.0, 1.0]), &all(7));
                    assert_ne!(values["p2"], whole["p2"]);
                    whole.insert("p2".into(), values["p2"].clone());
                    assert_eq!(values, whole, "{kind} {dtype}: the slots do not see the rate");
                }
            }
        }
    }
}
