//! Leaves out expansions that the next operator makes by itself.
//!
//! The gradient of a mean or a sum is one number expanded over many elements. Where it then meets a
//! value of the full shape in an elementwise operator, that operator broadcasts: the expanded
//! tensor is never needed. Only nodes of the backward pass are changed.
//!
//! What this module does not do: fold arithmetic or merge equal nodes; engines do that.

use crate::graph::{Dim, Graph, Node, Origin, ValueId, broadcast, prune, rebuild};
use std::collections::HashMap;

/// Operators that broadcast all their inputs.
const BROADCASTING: [&str; 8] = ["Add", "Div", "Max", "Min", "Mul", "Sub", "Sum", "Where"];

/// Returns the graph without the expansions of the backward pass whose readers broadcast.
pub fn simplify(graph: &Graph) -> Graph {
    let backward = |node: &Node| matches!(node.origin, Origin::Backward(_));
    let expanded: HashMap<ValueId, ValueId> = graph
        .nodes()
        .iter()
        .filter(|node| node.op.is("Expand") && backward(node))
        .filter_map(|node| Some((node.output(0)?, node.input(0)?)))
        .collect();
    let mut changed: HashMap<&str, Vec<Option<ValueId>>> = HashMap::new();
    for node in graph.nodes().iter().filter(|node| backward(node) && node.op.domain.is_empty()) {
        if BROADCASTING.contains(&node.op.name.as_str()) {
            let inputs = without_expansions(graph, node, &expanded);
            if inputs != node.inputs {
                changed.insert(node.name.as_str(), inputs);
            }
        }
    }
    if changed.is_empty() {
        return graph.clone();
    }
    prune(&rebuild(graph, |b, node, _| {
        let inputs = changed.get(node.name.as_str()).filter(|_| backward(node))?;
        let inputs: Vec<Option<ValueId>> =
            inputs.iter().map(|input| b.graph().find(graph.value_name((*input)?))).collect();
        Some(b.copy_node(graph, node, &inputs))
    }))
}

/// Returns a node's inputs, each before its expansion where the result keeps its shape.
fn without_expansions(graph: &Graph, node: &Node, expanded: &HashMap<ValueId, ValueId>) -> Vec<Option<ValueId>> {
    let mut inputs = node.inputs.clone();
    let Some(shape) = node.output(0).and_then(|output| graph.fact(output).shape.clone()) else { return inputs };
    let exact = |dims: &[Dim]| dims.len() == shape.len() && dims.iter().zip(&shape).all(|(a, b)| a.same(b));
    for index in 0..inputs.len() {
        let Some(before) = inputs[index].and_then(|input| expanded.get(&input)) else { continue };
        let mut shorter = inputs.clone();
        shorter[index] = Some(*before);
        let shapes: Vec<Option<&[Dim]>> =
            shorter.iter().map(|input| input.and_then(|id| graph.fact(id).shape.as_deref())).collect();
        if broadcast(&shapes).is_some_and(|dims| exact(&dims)) {
            inputs = shorter;
        }
    }
    inputs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attributes, Builder, DType, Fact, check};

    /// `f(expand(a, like x), y)` with a `[batch, 1]` and x `[batch, 3]`.
    fn expansions(op: &str, y: &str, backward: bool) -> usize {
        let mut b = Builder::new("step");
        let fact = |size: usize| Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(size)]);
        let a = b.input("a", fact(1));
        let x = b.input("x", fact(3));
        let flag = b.input("flag", Fact::new(DType::Bool, vec![Dim::Symbol("batch".into()), Dim::Known(3)]));
        let origin = if backward { Origin::Backward("x".into()) } else { Origin::Forward };
        b.enter(origin, "x/grad");
        let wide = b.expand_like(a, x);
        let other = match y {
            "full" => x,
            "narrow" => a,
            _ => b.expand_like(a, x),
        };
        let result = match op {
            "Where" => b.select(flag, wide, other),
            "Concat" => b.op("Concat", &[wide, other], Attributes::none().with("axis", 0)),
            _ => b.op(op, &[wide, other], Attributes::none()),
        };
        let expected = b.fact(result).clone();
        b.mark_output(result);
        let graph = simplify(&b.finish());
        check(&graph).unwrap();
        assert_eq!(graph.fact(graph.outputs()[0]), &expected);
        graph.nodes().iter().filter(|node| node.op.is("Expand")).count()
    }

    #[test]
    fn an_expansion_stays_where_the_result_needs_it() {
        for (op, y, backward, left) in [
            ("Mul", "full", true, 0),
            ("Sum", "full", true, 0),
            ("Mul", "full", false, 1),
            ("Mul", "narrow", true, 1),
            ("Mul", "expanded", true, 1),
            ("Where", "narrow", true, 0),
            ("Concat", "full", true, 1),
        ] {
            assert_eq!(expansions(op, y, backward), left, "{op} with {y}, backward: {backward}");
        }
    }
}
