//! The running statistics of a batch normalization, moved by one operator.
//!
//! `RunningStatistics(mean, var, running_mean, running_var, x) -> next_mean, next_var` computes
//! `next = running * keep + batch * add` of both, with the attributes `keep` and `add`; where `unbiased` is 1, the variance
//! of the batch is first that of a sample: `var * n / max(n - 1, 1)`, with `n` the elements of a channel of `x`.

use super::fuse::View;
use super::normalizes;
use crate::autodiff::own;
use crate::graph::{Attributes, Graph, Node, NodeId, ValueId};

/// Puts the operator in the place of what the training pass wrote.
pub(super) fn statistics(graph: &Graph, view: &View, nodes: &mut [Option<Node>]) {
    for (_, node) in graph.node_ids().filter(|(_, node)| normalizes(node)) {
        if let Some((moved, at, parts)) = moved(graph, view, node) {
            for part in parts {
                nodes[part.0] = None;
            }
            nodes[at.0] = Some(moved);
        }
    }
}

/// Returns the operator for a normalization, the last node that it is for, and all that it is for.
fn moved(graph: &Graph, view: &View, norm: &Node) -> Option<(Node, NodeId, Vec<NodeId>)> {
    let (x, mean, var) = (norm.input(0)?, norm.output(1)?, norm.output(2)?);
    let first = Moved::of(graph, view, mean)?;
    let (second, mut parts) = match Moved::of(graph, view, var) {
        Some(second) => (second, Vec::new()),
        None => {
            let (unbiased, parts) = unbiased(graph, view, x, var)?;
            (Moved::of(graph, view, unbiased)?, parts)
        }
    };
    let factors = [first.keep, first.add];
    if factors != [second.keep, second.add] {
        return None;
    }
    let attributes = Attributes::none()
        .with("keep", first.keep as f32)
        .with("add", first.add as f32)
        .with("unbiased", i64::from(!parts.is_empty()));
    let at = NodeId(first.at.0.max(second.at.0));
    let last = graph.node(at);
    let inputs = [mean, var, first.running, second.running, x].map(Some).to_vec();
    let outputs = [first.next, second.next].map(Some).to_vec();
    parts.extend(first.parts.into_iter().chain(second.parts));
    Some((Node { op: own("RunningStatistics"), inputs, outputs, attributes, ..last.clone() }, at, parts))
}

/// `next = running * keep + batch * add`, in nodes that nothing else reads.
struct Moved {
    running: ValueId,
    keep: f64,
    add: f64,
    next: ValueId,
    at: NodeId,
    parts: [NodeId; 3],
}

impl Moved {
    fn of(graph: &Graph, view: &View, batch: ValueId) -> Option<Moved> {
        view.readers[batch.0].iter().find_map(|reader| {
            let (by, add) = times(graph, *reader)?;
            let sum = view.only_reader(graph.node(*reader).output(0)?).filter(|_| by == batch)?;
            let node = graph.node(sum);
            let kept = node.inputs.first().copied().flatten().filter(|_| node.op.is("Add"))?;
            let product = graph.producer(kept)?;
            let (running, keep) = times(graph, product)?;
            let same = graph.fact(running).shape == graph.fact(batch).shape;
            let alone = view.only_reader(kept) == Some(sum) && product != *reader && same;
            let next = node.output(0).filter(|_| alone)?;
            Some(Moved { running, keep, add, next, at: sum, parts: [*reader, product, sum] })
        })
    }
}

/// Returns the factors of a product with a number.
fn times(graph: &Graph, id: NodeId) -> Option<(ValueId, f64)> {
    let node = graph.node(id);
    let number = number(graph, node.input(1)?).filter(|_| node.op.is("Mul"))?;
    Some((node.input(0)?, number))
}

fn number(graph: &Graph, value: ValueId) -> Option<f64> {
    match graph.constant(value)?.to_f64s()?.as_slice() {
        [one] => Some(*one),
        _ => None,
    }
}

/// Returns the variance of a sample, `var * (n / max(n - 1, 1))` with `n = size(x) / size(var)`, and its nodes.
fn unbiased(graph: &Graph, view: &View, x: ValueId, var: ValueId) -> Option<(ValueId, Vec<NodeId>)> {
    let produced = |value: ValueId, op: &str| {
        let id = graph.producer(value)?;
        graph.node(id).op.is(op).then_some(id)
    };
    let input = |id: NodeId, index: usize| graph.node(id).input(index);
    view.readers[var.0].iter().find_map(|product| {
        let node = graph.node(*product);
        let factor = node.input(1).filter(|_| node.op.is("Mul") && node.input(0) == Some(var))?;
        let ratio = produced(factor, "Div")?;
        let count = produced(input(ratio, 0)?, "Div")?;
        let most = produced(input(ratio, 1)?, "Max")?;
        let less = produced(input(most, 0)?, "Add")?;
        let casts = [produced(input(count, 0)?, "Cast")?, produced(input(count, 1)?, "Cast")?];
        let sizes = [produced(input(casts[0], 0)?, "Size")?, produced(input(casts[1], 0)?, "Size")?];
        let sized = [input(sizes[0], 0)?, input(sizes[1], 0)?] == [x, var];
        let numbers = number(graph, input(most, 1)?) == Some(1.0) && number(graph, input(less, 1)?) == Some(-1.0);
        let inner = [ratio, count, most, less, casts[0], casts[1], sizes[0], sizes[1]];
        let all: Vec<NodeId> = inner.into_iter().chain([*product]).collect();
        let used_here = |id: &NodeId| {
            let output = graph.node(*id).output(0)?;
            Some(!view.outputs.contains(&output) && view.readers[output.0].iter().all(|reader| all.contains(reader)))
        };
        let fits =
            sized && numbers && input(less, 0) == input(ratio, 0) && inner.iter().all(|id| used_here(id) == Some(true));
        Some((node.output(0)?, all)).filter(|(output, _)| fits && view.only_reader(*output).is_some())
    })
}
