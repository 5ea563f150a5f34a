//! The optimizer model.
//!
//! `AdamWOptimizer` in mode 0 is PyTorch's AdamW and so ours, `SGDOptimizerV2` is `p = p - lr g`, `InplaceClipGradNorm`
//! scales all gradients by `min(1, max_norm / (norm + 1e-6))`. SGD reads first moments that it does not use, because the
//! runtime feeds them.

use super::ClassicError;
use super::graphs::DOMAIN;
use crate::graph::{Attributes, Builder, DType, Fact, Model, OpId};
use crate::onnx::to_bytes_with_sequences;
use crate::optim::{OptimizerKind, OptimizerSpec};

const KNOWN: &str = "AdamW, and SGD without momentum and weight decay, both with clipping by norm";

/// Returns how many moments the optimizer keeps for each parameter in a checkpoint.
pub(super) fn moments(spec: &OptimizerSpec) -> usize {
    if is_adam(spec) { 2 } else { 1 }
}

pub(super) fn is_adam(spec: &OptimizerSpec) -> bool {
    spec.kind != OptimizerKind::Sgd
}

/// Checks that an optimizer can be held.
///
/// # Errors
/// Names what cannot.
pub fn check_optimizer(spec: &OptimizerSpec) -> Result<(), ClassicError> {
    let adam = match spec.kind {
        OptimizerKind::AdamW => true,
        OptimizerKind::Adam => spec.weight_decay() == 0.0 || spec.decoupled_weight_decay == Some(true),
        _ => false,
    };
    let refused = [
        (!adam && spec.kind == OptimizerKind::Adam, "adam with weight decay in the gradient".to_string()),
        (
            !adam && !matches!(spec.kind, OptimizerKind::Adam | OptimizerKind::Sgd),
            format!("the optimizer {}", spec.kind),
        ),
        (spec.kind == OptimizerKind::Sgd && spec.momentum() != 0.0, "sgd with momentum".into()),
        (spec.kind == OptimizerKind::Sgd && spec.weight_decay() != 0.0, "sgd with weight decay".into()),
        (spec.amsgrad(), "amsgrad".into()),
        (spec.clip_value.is_some(), "clipping by value".into()),
        (spec.decay_1d == Some(false) && spec.weight_decay() != 0.0, "weight decay of some parameters only".into()),
        (!spec.groups.is_empty(), "groups of parameters".into()),
    ];
    match refused.into_iter().find(|(refuse, _)| *refuse) {
        Some((_, what)) => Err(ClassicError::Optimizer { what, known: KNOWN }),
        None => Ok(()),
    }
}

/// Returns `optimizer_model.onnx`, the same for all frozen sets.
///
/// # Errors
/// The optimizer cannot be held.
pub fn optimizer(spec: &OptimizerSpec, like: &Model) -> Result<Vec<u8>, ClassicError> {
    check_optimizer(spec)?;
    let mut b = Builder::new("optimizer");
    let lr = b.input("learning_rate", Fact::fixed(DType::F32, &[1]));
    let step = b.input("step", Fact::fixed(DType::I64, &[1]));
    let names = ["params", "gradients", "first_order_moments", "second_order_moments"];
    let names = &names[..2 + moments(spec)];
    let tensors = Fact { dtype: Some(DType::F32), shape: None };
    let sequences: Vec<_> = names.iter().map(|name| b.input(name, tensors.clone())).collect();
    let mut gradients = sequences[1];
    let mut of = names.to_vec();
    if let Some(limit) = spec.clip_norm {
        let op = OpId { domain: DOMAIN.into(), name: "InplaceClipGradNorm".into() };
        gradients = b.ops(&op, &[Some(gradients)], Attributes::none().with("max_norm", limit), 1)[0];
        b.rename(gradients, "clipped_gradients");
        of.push("clipped_gradients");
    }
    let (op, inputs, attributes) = if is_adam(spec) {
        let [alpha, beta] = spec.betas();
        let attributes = Attributes::none()
            .with("adam_mode", 0)
            .with("alpha", alpha as f32)
            .with("beta", beta as f32)
            .with("correct_bias", 1)
            .with("epsilon", spec.eps() as f32)
            .with("weight_decay", spec.weight_decay() as f32);
        ("AdamWOptimizer", vec![lr, step, sequences[0], gradients, sequences[2], sequences[3]], attributes)
    } else {
        ("SGDOptimizerV2", vec![lr, sequences[0], gradients], Attributes::none())
    };
    let op = OpId { domain: DOMAIN.into(), name: op.into() };
    let inputs: Vec<_> = inputs.into_iter().map(Some).collect();
    let updated = b.ops(&op, &inputs, attributes, 1)[0];
    b.rename(updated, "update_flag");
    // The runtime's own shape inference says [1] of one operator and [] of the other.
    b.refine(updated, &Fact { dtype: Some(DType::Bool), shape: None });
    b.mark_output(updated);
    let opsets = [(String::new(), like.opset()), (DOMAIN.to_string(), 1)].into();
    let (ir_version, producer) = (like.ir_version, like.producer.clone());
    let model = Model { graph: b.finish(), opsets, ir_version, producer, ..Model::default() };
    Ok(to_bytes_with_sequences(&model, &of))
}
