//! The order in which ONNX Runtime runs the nodes of a graph.
//!
//! It goes back from the nodes that nobody reads, the last one first, and of the inputs of a node from the one whose
//! node stands last in the file; a node runs when all that it reads has run. So a node runs as late as it can.

use crate::graph::{Graph, ValueId};
use std::collections::HashMap;

/// Returns the positions of the nodes in the order in which they run.
pub(super) fn order(graph: &Graph) -> Vec<usize> {
    let before = before(graph);
    let mut is_read = vec![false; before.len()];
    before.iter().flatten().for_each(|maker| is_read[*maker] = true);
    let mut open: Vec<(usize, bool)> =
        is_read.iter().enumerate().filter(|(_, read)| !**read).map(|(index, _)| (index, false)).collect();
    let mut entered = vec![false; before.len()];
    let mut order = Vec::with_capacity(before.len());
    while let Some((index, leaves)) = open.pop() {
        if leaves {
            order.push(index);
        } else if !std::mem::replace(&mut entered[index], true) {
            open.push((index, true));
            open.extend(before[index].iter().filter(|maker| !entered[**maker]).map(|maker| (*maker, false)));
        }
    }
    order
}

/// Returns for each node the nodes that make what it reads, in the order of the file.
fn before(graph: &Graph) -> Vec<Vec<usize>> {
    let mut makers: HashMap<ValueId, usize> = HashMap::new();
    for (index, node) in graph.nodes().iter().enumerate() {
        makers.extend(node.outputs.iter().flatten().map(|output| (*output, index)));
    }
    let of = |node: &crate::graph::Node| {
        let captured = node.captured().filter_map(|name| graph.find(name));
        let mut found: Vec<usize> =
            node.inputs.iter().flatten().copied().chain(captured).filter_map(|id| makers.get(&id).copied()).collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    graph.nodes().iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::order;
    use crate::graph::{Builder, DType, Fact};

    #[test]
    fn what_nothing_waits_for_runs_last() {
        let mut b = Builder::new("order");
        let x = b.input("x", Fact::fixed(DType::F32, &[2]));
        let a = b.unary("Abs", x);
        let early = b.unary("Neg", a);
        let c = b.unary("Exp", a);
        let d = b.add(c, x);
        b.mark_output(early);
        b.mark_output(d);
        // From the last leaf: Abs, Exp, Add; then what is left.
        assert_eq!(order(&b.finish()), [0, 2, 3, 1]);
    }
}
