//! The update of a parameter as one operator of our own, in place where the engine binds state so.
//!
//! `ai.freeze-plan.SgdStep(lr, p, grad, momentum?) -> p, momentum?` with attributes `momentum`, `nesterov` and
//! `weight_decay`; `ai.freeze-plan.AdamStep(lr, p, grad, exp_avg, exp_avg_sq, step, max_exp_avg_sq?) -> p, exp_avg,
//! exp_avg_sq, step, max_exp_avg_sq?` with `eps`, `weight_decay`, `decoupled`, and as `average` and `squares` beta,
//! `1 - beta` and `-ln(beta) / 2`. They compute what `sgd.rs`, `adam.rs` and `adamw.rs` append.

use super::{Next, OptimizerKind, OptimizerSpec, State};
use crate::graph::{Attribute, Attributes, Builder, DType, INTERNAL_DOMAIN, OpId, ValueId};

/// Appends the update; `None` where there is no operator for it.
pub(super) fn step(spec: &OptimizerSpec, b: &mut Builder, lr: ValueId, state: &State) -> Option<Next> {
    if b.dtype(state.value) != DType::F32 {
        return None;
    }
    match spec.kind {
        OptimizerKind::Sgd if spec.dampening() == 0.0 => Some(sgd(spec, b, lr, state)),
        OptimizerKind::Adam | OptimizerKind::AdamW => Some(adam(spec, b, lr, state)),
        _ => None,
    }
}

fn sgd(spec: &OptimizerSpec, b: &mut Builder, lr: ValueId, state: &State) -> Next {
    let attributes = Attributes::none()
        .with("momentum", spec.momentum() as f32)
        .with("nesterov", i64::from(spec.nesterov()))
        .with("weight_decay", spec.weight_decay() as f32);
    let inputs = [&[lr, state.value, state.grad], state.slots.as_slice()].concat();
    let mut outputs = own(b, "SgdStep", &inputs, attributes, &[&[state.value], state.slots.as_slice()].concat());
    Next { value: outputs.remove(0), slots: outputs }
}

fn adam(spec: &OptimizerSpec, b: &mut Builder, lr: ValueId, state: &State) -> Next {
    let &[average, squares, ref largest @ .., count] = state.slots.as_slice() else {
        unreachable!("invariant: made with the slots of Adam");
    };
    let decoupled = spec.kind == OptimizerKind::AdamW || spec.decoupled_weight_decay == Some(true);
    let numbers = |beta: f64| Attribute::Floats([beta, 1.0 - beta, -0.5 * beta.ln()].map(|n| n as f32).to_vec());
    let [beta1, beta2] = spec.betas();
    let attributes = Attributes::none()
        .with("average", numbers(beta1))
        .with("squares", numbers(beta2))
        .with("eps", spec.eps() as f32)
        .with("weight_decay", spec.weight_decay() as f32)
        .with("decoupled", i64::from(decoupled));
    let moved = [&[state.value, average, squares, count], largest].concat();
    let inputs = [&[lr, state.value, state.grad, average, squares, count], largest].concat();
    let outputs = own(b, "AdamStep", &inputs, attributes, &moved);
    let slots = [&outputs[1..3], &outputs[4..], &outputs[3..4]].concat();
    Next { value: outputs[0], slots }
}

/// Appends an operator of our own whose outputs are like `moved`.
fn own(b: &mut Builder, name: &str, inputs: &[ValueId], attributes: Attributes, moved: &[ValueId]) -> Vec<ValueId> {
    let op = OpId { domain: INTERNAL_DOMAIN.into(), name: name.into() };
    let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
    let outputs = b.ops(&op, &inputs, attributes, moved.len());
    for (output, like) in outputs.iter().zip(moved) {
        let fact = b.fact(*like).clone();
        b.refine(*output, &fact);
    }
    outputs
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::graph::{DType, Fact, Model, Tensor};
    use crate::optim::testing::wave;
    use crate::optim::{OptimizerKind, OptimizerSpec, Parameter};
    use crate::runner::{evaluate, testing};

    /// How far the two forms may be apart, relative to the largest number of an output.
    const NEAR: f64 = 5e-7;

    #[test]
    fn both_forms_compute_the_same() {
        let (sgd, adam) = (OptimizerSpec::new(OptimizerKind::Sgd), OptimizerSpec::new(OptimizerKind::Adam));
        let adamw = OptimizerSpec::new(OptimizerKind::AdamW);
        let cases = [
            OptimizerSpec { momentum: Some(0.0), ..sgd.clone() },
            OptimizerSpec { weight_decay: Some(0.1), ..sgd.clone() },
            OptimizerSpec {
                nesterov: Some(true),
                momentum: Some(0.9),
                weight_decay: Some(0.01),
                clip_norm: Some(0.5),
                ..sgd.clone()
            },
            adam.clone(),
            OptimizerSpec { weight_decay: Some(0.1), amsgrad: Some(true), ..adam.clone() },
            OptimizerSpec { decoupled_weight_decay: Some(true), weight_decay: Some(0.1), ..adam.clone() },
            adamw.clone(),
            OptimizerSpec { betas: Some([0.0, 0.5]), eps: Some(1e-3), amsgrad: Some(true), ..adamw.clone() },
        ];
        let shapes: [&[usize]; 3] = [&[3, 7], &[300, 150], &[1]];
        for spec in cases {
            let parameters: Vec<Parameter> = shapes
                .iter()
                .enumerate()
                .map(|(at, shape)| Parameter {
                    lr_scale: if at == 0 { 0.5 } else { 1.0 },
                    ..Parameter::new(&format!("p{at}"), Fact::fixed(DType::F32, shape))
                })
                .collect();
            let graphs = [false, true].map(|fused| spec.graph_of(&parameters, 0, fused).unwrap());
            let own = |node: &&crate::graph::Node| node.op.domain == crate::graph::INTERNAL_DOMAIN;
            assert_eq!(graphs[1].nodes().iter().filter(own).count(), shapes.len());
            let feeds: Vec<(String, Tensor)> = graphs[0]
                .inputs()
                .iter()
                .enumerate()
                .map(|(at, id)| {
                    let (name, fact) = (graphs[0].value_name(*id), graphs[0].fact(*id));
                    let tensor = wave(&fact.sizes().unwrap(), at);
                    let squares = || tensor.to_vec::<f32>().unwrap().iter().map(|x| x * x).collect::<Vec<_>>();
                    let tensor = match name {
                        "lr" => Tensor::scalar(0.05_f32),
                        name if name.ends_with("step") => Tensor::scalar(3.0_f32),
                        name if name.contains("_sq") => Tensor::from_vec(tensor.shape(), squares()),
                        _ => tensor,
                    };
                    (name.to_string(), tensor)
                })
                .collect();
            let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
            let names: Vec<Vec<String>> = graphs
                .iter()
                .map(|graph| graph.outputs().iter().map(|id| graph.value_name(*id).to_string()).collect())
                .collect();
            assert_eq!(names[0], names[1]);
            let [expected, found] = graphs.map(|graph| {
                let opsets = [(String::new(), 18), (crate::graph::INTERNAL_DOMAIN.to_string(), 1)].into();
                let model = Model { graph, opsets, ir_version: 8, ..Model::default() };
                evaluate(&mut testing::onnxruntime(), &model, &feeds).unwrap()
            });
            for ((name, expected), found) in names[0].iter().zip(&expected).zip(&found) {
                assert_eq!(expected.shape(), found.shape(), "{name}");
                let (expected, found) = (expected.to_f64s().unwrap(), found.to_f64s().unwrap());
                let size = expected.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
                let far = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(far <= NEAR * size, "{:?}: {name}: {far} of {size}", spec.kind);
            }
        }
    }
}
