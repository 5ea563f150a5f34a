//! Replaces the operators that exist only for autodiff by standard ones that engines run.
//!
//! `ai.freeze-plan.BatchNormalization(X, scale, B) -> Y, mean, var, centered, inv_std` normalizes
//! by the batch's own statistics. It is one node until the gradients are built, so that its
//! gradient is the short formula, and becomes reductions and products here.
//!
//! A recurrent layer whose batch comes first (layout 1) becomes one whose steps come first, between
//! transpositions: ONNX Runtime has no other on CPU.

use crate::graph::{Attributes, Builder, Fact, Graph, INTERNAL_DOMAIN, Node, OpId, Replaced, ValueId, rebuild};

/// Returns the internal operator of training-form batch normalization.
///
/// Inputs `X [N, C, D..]`, `scale [C]`, `B [C]`; attribute `epsilon`; outputs `Y` like X,
/// `mean [C]` and biased `var [C]` of the batch, `centered = X - mean` like X and
/// `inv_std = 1 / sqrt(var + epsilon)` as `[1, C, 1..]`.
pub fn batch_norm_op() -> OpId {
    OpId { domain: INTERNAL_DOMAIN.into(), name: "BatchNormalization".into() }
}

/// Returns the graph with every such operator replaced.
pub fn lower(graph: &Graph) -> Graph {
    if !graph.nodes().iter().any(|node| node.op.domain == INTERNAL_DOMAIN || is_batch_first(node)) {
        return graph.clone();
    }
    rebuild(graph, |b, node, inputs| {
        if is_batch_first(node) {
            return Some(steps_first(b, graph, node, inputs));
        }
        (node.op == batch_norm_op()).then(|| batch_norm(b, graph, node, inputs))
    })
}

fn is_batch_first(node: &Node) -> bool {
    let recurrent = node.op.domain.is_empty() && matches!(node.op.name.as_str(), "LSTM" | "GRU" | "RNN");
    recurrent && node.attributes.int("layout", 0) == Ok(1)
}

/// X and the states are `[B, T, I]` and `[B, directions, H]`, Y is `[B, T, directions, H]`.
fn steps_first(b: &mut Builder, graph: &Graph, node: &Node, inputs: &[Option<ValueId>]) -> Replaced {
    b.enter(node.origin.clone(), &node.name);
    let turned = |(index, input): (usize, &Option<ValueId>)| {
        let turns = matches!(index, 0 | 5 | 6);
        input.map(|value| if turns { b.transpose(value, &[1, 0, 2]) } else { value })
    };
    let inputs: Vec<Option<ValueId>> = inputs.iter().enumerate().map(turned).collect();
    let mut attributes = node.attributes.clone();
    attributes.remove("layout");
    let outputs: Vec<Option<ValueId>> = node
        .outputs
        .iter()
        .map(|output| {
            output.map(|id| {
                let name = b.unique(&node.op.name);
                b.declare(&name, Fact { dtype: graph.fact(id).dtype, shape: None })
            })
        })
        .collect();
    b.push_node(Node { inputs, outputs: outputs.clone(), attributes, ..node.clone() });
    let back = |(index, (old, new)): (usize, (&Option<ValueId>, Option<ValueId>))| {
        let (old, new) = ((*old)?, new?);
        let turned = b.transpose(new, if index == 0 { &[2, 0, 1, 3] } else { &[1, 0, 2] });
        b.refine(turned, graph.fact(old));
        b.rename(turned, graph.value_name(old));
        Some(turned)
    };
    node.outputs.iter().zip(outputs).enumerate().map(back).collect()
}

fn batch_norm(b: &mut Builder, graph: &Graph, node: &Node, inputs: &[Option<ValueId>]) -> Replaced {
    let [Some(x), Some(scale), Some(bias)] = inputs else {
        unreachable!("invariant: made with three inputs by the training passes");
    };
    b.enter(node.origin.clone(), &node.name);
    let rank = b.fact(*x).rank().unwrap_or(4) as i64;
    let over: Vec<i64> = (0..rank).filter(|axis| *axis != 1).collect();
    let mut channel = vec![1; rank as usize];
    channel[1] = -1;
    let mean = b.reduce("ReduceMean", *x, &over, true);
    let centered = b.sub(*x, mean);
    let square = b.mul(centered, centered);
    let var = b.reduce("ReduceMean", square, &over, true);
    let epsilon = f64::from(node.attributes.float("epsilon", 1e-5).unwrap_or(1e-5));
    let shifted = b.shift(var, epsilon);
    let std = b.unary("Sqrt", shifted);
    let inv_std = b.unary("Reciprocal", std);
    let scale = b.reshape(*scale, &channel);
    let bias = b.reshape(*bias, &channel);
    let factor = b.mul(scale, inv_std);
    let product = b.mul(centered, factor);
    let y = b.add(product, bias);
    let mut outputs = Vec::new();
    for (index, old) in node.outputs.iter().enumerate() {
        outputs.push(old.map(|old| {
            let new = match index {
                0 => y,
                1 => b.reshape(mean, &[-1]),
                2 => b.reshape(var, &[-1]),
                3 => centered,
                _ => inv_std,
            };
            b.refine(new, graph.fact(old));
            b.rename(new, graph.value_name(old));
            new
        }));
    }
    outputs
}

/// Appends the internal batch normalization and returns `Y, mean, var, centered, inv_std`.
pub fn batch_norm_node(b: &mut Builder, x: ValueId, scale: ValueId, bias: ValueId, epsilon: f32) -> [ValueId; 5] {
    let attributes = Attributes::none().with("epsilon", epsilon);
    let outputs = b.ops(&batch_norm_op(), &[Some(x), Some(scale), Some(bias)], attributes, 5);
    let (like, channel) = (b.fact(x).clone(), b.fact(scale).clone());
    for (index, fact) in [&like, &channel, &channel, &like].into_iter().enumerate() {
        b.refine(outputs[index], fact);
    }
    outputs.try_into().expect("invariant: five outputs were asked for")
}
