//! A recurrent layer whose batch comes first (layout 1) becomes one whose steps come first, between
//! transpositions: ONNX Runtime has no other on CPU.

use crate::graph::{Builder, Fact, Graph, Node, Replaced, ValueId};

/// Returns true for a recurrent layer of layout 1.
pub(super) fn is_batch_first(node: &Node) -> bool {
    let recurrent = node.op.domain.is_empty() && matches!(node.op.name.as_str(), "LSTM" | "GRU" | "RNN");
    recurrent && node.attributes.int("layout", 0) == Ok(1)
}

/// Appends the layer with layout 0. X and the states are `[B, T, I]` and `[B, directions, H]`, Y is `[B, T, directions, H]`.
pub(super) fn steps_first(b: &mut Builder, graph: &Graph, node: &Node, inputs: &[Option<ValueId>]) -> Replaced {
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
