//! An optimizer and a schedule that models like this one are usually trained with.

use crate::graph::Graph;
use crate::optim::{OptimizerKind, OptimizerSpec};

/// An optimizer, with the reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The optimizer.
    pub spec: OptimizerSpec,
    /// Why this one.
    pub why: &'static str,
    /// Steps over which the rate rises, at most.
    pub warmup_steps: usize,
}

/// Returns the optimizer for a model.
pub fn choice(graph: &Graph) -> Choice {
    let has = |names: &[&str]| graph.nodes().iter().any(|node| names.contains(&node.op.name.as_str()));
    let last = graph.outputs().first().and_then(|id| graph.producer(*id));
    let attends = graph.node_ids().any(|(id, node)| node.op.is("Softmax") && Some(id) != last);
    let normalizes = has(&[
        "LayerNormalization",
        "SkipLayerNormalization",
        "EmbedLayerNormalization",
        "SimplifiedLayerNormalization",
        "SkipSimplifiedLayerNormalization",
        "RMSNormalization",
        "Attention",
        "MultiHeadAttention",
        "GroupQueryAttention",
    ]);
    if attends || normalizes {
        let spec = OptimizerSpec {
            lr: Some(3e-4),
            weight_decay: Some(0.01),
            clip_norm: Some(1.0),
            ..OptimizerSpec::new(OptimizerKind::AdamW)
        };
        let why = "Usual for a transformer; 1e-5 to 5e-5 for weights that are trained already";
        return Choice { spec, why, warmup_steps: 100 };
    }
    if has(&["Conv", "FusedConv", "BatchNormalization"]) {
        let spec = OptimizerSpec {
            lr: Some(0.02),
            momentum: Some(0.9),
            weight_decay: Some(5e-4),
            ..OptimizerSpec::new(OptimizerKind::Sgd)
        };
        return Choice { spec, why: "Usual for a convolutional network; up to 0.1 for fresh weights", warmup_steps: 0 };
    }
    let spec = OptimizerSpec { lr: Some(1e-3), weight_decay: Some(0.01), ..OptimizerSpec::new(OptimizerKind::AdamW) };
    Choice { spec, why: "A safe choice for most models", warmup_steps: 0 }
}
