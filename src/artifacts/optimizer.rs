//! Which optimizer the files train with.

use super::Checkpoint;
use crate::graph::{Model, Node};
use crate::optim::{OptimizerKind, OptimizerSpec};

/// What the runtime takes as learning rate until it is given one.
const DEFAULT_LR: f64 = 1e-3;

/// Returns the optimizer of an optimizer model; `None` for one that this program does not have.
pub(super) fn find(model: &Model, checkpoint: &Checkpoint, notes: &mut Vec<String>) -> Option<OptimizerSpec> {
    let nodes = || model.graph.nodes().iter().filter(|node| node.op.domain == "com.microsoft");
    let node = nodes().find(|node| node.op.name.starts_with("AdamW") || node.op.name.starts_with("SGD"));
    let Some(node) = node else {
        notes.push("the optimizer model holds neither AdamWOptimizer nor SGDOptimizerV2".into());
        return None;
    };
    let rate = checkpoint.optimizer.first().map(|group| group.initial_lr);
    let kind = if node.op.name.starts_with("AdamW") { OptimizerKind::AdamW } else { OptimizerKind::Sgd };
    let mut spec = OptimizerSpec::new(kind);
    spec.lr = Some(rate.filter(|rate| rate.is_finite() && *rate > 0.0).map_or(DEFAULT_LR, decimal));
    if kind == OptimizerKind::AdamW {
        // The defaults are those of the operator's schema.
        spec.betas = Some([number(node, "alpha", 0.9)?, number(node, "beta", 0.999)?]);
        spec.eps = Some(number(node, "epsilon", 1e-8)?);
        spec.weight_decay = Some(number(node, "weight_decay", 1e-2)?);
        if node.attributes.int("adam_mode", 0) == Ok(1) {
            let text = "the optimizer model's AdamW adds epsilon before the bias correction and decays after the step, \
                        this program's as PyTorch's does";
            notes.push(text.into());
        }
        if node.attributes.int("correct_bias", 1) == Ok(0) {
            notes.push(
                "the optimizer model's AdamW does not correct the bias of its moments, this program's does".into(),
            );
        }
    }
    let clip = nodes().find(|node| node.op.name == "InplaceClipGradNorm");
    spec.clip_norm = clip.and_then(|node| node.attributes.float("max_norm", 1.0).ok());
    Some(spec)
}

fn number(node: &Node, name: &str, default: f32) -> Option<f64> {
    node.attributes.float(name, default).ok().map(decimal)
}

/// Returns the shortest decimal that a float32 stands for, as somebody wrote it.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// Returns an optimizer's options as text.
pub(super) fn describe(spec: &OptimizerSpec) -> String {
    let mut options = Vec::new();
    options.extend(spec.betas.map(|[first, second]| format!("betas {first} and {second}")));
    options.extend(spec.eps.map(|value| format!("eps {value:e}")));
    options.extend(spec.weight_decay.map(|value| format!("weight_decay {value}")));
    options.extend(spec.clip_norm.map(|value| format!("clip_norm {value}")));
    if options.is_empty() { spec.kind.name().to_string() } else { format!("{} ({})", spec.kind, options.join(", ")) }
}
