//! Operators on rows and the masks of dropout, as operators of our own.
//!
//! `Gelu(x) -> y`, `Softmax(x) -> y` along the last axis and `LayerNormalization(x, scale, bias?) -> y, mean?,
//! inv_std?` over it are those of the standard. `Dropout(x, r, c) -> y` computes `0` where
//! `(r c mod 2^32) < least`, else `x factor`: what `training::random` writes in seven operators, forward and backward.
//! r and c are int64 and span x: r has 1 in the last axes, which are those of c.

use super::in_order;
use crate::autodiff::{is_rows, own};
use crate::graph::{Attributes, DType, Dim, Graph, Node, NodeId, ValueId, prune};

/// `2^32 - 1`
const MASK: i64 = 0xffff_ffff;

/// Returns the graph with these operators of our own.
pub(super) fn rows(graph: &Graph) -> Graph {
    let readers = graph.consumers();
    let mut nodes: Vec<Option<Node>> = graph.nodes().iter().cloned().map(Some).collect();
    for (id, node) in graph.node_ids() {
        if on_rows(graph, node) {
            nodes[id.0] = Some(Node { op: own(&node.op.name), ..node.clone() });
        } else if let Some(dropped) = dropped(graph, node) {
            drop(graph, &readers, id, &dropped, &mut nodes);
        }
    }
    prune(&super::rebuilt(graph, in_order(graph, nodes.into_iter().flatten().collect())))
}

/// Returns true for a graph in which [`rows`] has something to do.
pub(super) fn concerned(graph: &Graph) -> bool {
    graph.nodes().iter().any(|node| on_rows(graph, node) || dropped(graph, node).is_some())
}

/// Returns true for a standard operator along the last axis that ours replaces.
fn on_rows(graph: &Graph, node: &Node) -> bool {
    let Some(x) = node.input(0).map(|id| graph.fact(id)).filter(|_| node.op.domain.is_empty()) else { return false };
    let last = |default: i64| {
        let rank = x.rank().map(|rank| rank as i64);
        let axis = node.attributes.int("axis", default).ok();
        axis.zip(rank).is_some_and(|(axis, rank)| axis == -1 || axis + 1 == rank)
    };
    match node.op.name.as_str() {
        "Gelu" => x.dtype == Some(DType::F32),
        "Softmax" => is_rows(x) && last(-1),
        "LayerNormalization" => {
            let size = x.dim(-1).and_then(Dim::known);
            let parameter = |id: ValueId| graph.fact(id).sizes() == size.map(|size| vec![size]);
            let given = (1..3).filter_map(|index| node.input(index)).all(parameter);
            is_rows(x) && last(-1) && given && node.attributes.int("stash_type", 1) == Ok(1)
        }
        _ => false,
    }
}

/// A choice between 0 and a value by a mask of dropout.
struct Dropped {
    kept: ValueId,
    r: ValueId,
    c: ValueId,
    least: i64,
}

fn dropped(graph: &Graph, node: &Node) -> Option<Dropped> {
    let by = |id: ValueId, op: &str| graph.producer(id).map(|id| graph.node(id)).filter(|node| node.op.is(op));
    let number = |id: ValueId| match graph.constant(id)?.to_ints()?.as_slice() {
        [number] => Some(*number),
        _ => None,
    };
    if !node.op.is("Where") || scalar(graph, node.input(1)?) != Some(0.0) {
        return None;
    }
    let kept = node.input(2)?;
    let less = by(node.input(0)?, "Less")?;
    let least = number(less.input(1)?).filter(|least| (0..=MASK + 1).contains(least))?;
    let bits = by(less.input(0)?, "BitwiseAnd")?;
    let product = by(bits.input(0)?, "Mul").filter(|_| bits.input(1).and_then(number) == Some(MASK))?;
    let (r, c) = (product.input(0)?, product.input(1)?);
    let fact = graph.fact(kept);
    let integers = [r, c].iter().all(|id| graph.fact(*id).dtype == Some(DType::I64));
    (integers && fact.dtype == Some(DType::F32) && spans(graph, fact.rank()?, kept, r, c)).then_some(Dropped {
        kept,
        r,
        c,
        least,
    })
}

/// Returns true where the shapes of r and c are known to span that of a value.
fn spans(graph: &Graph, rank: usize, value: ValueId, r: ValueId, c: ValueId) -> bool {
    let shape = |id: ValueId| graph.fact(id).shape.as_deref();
    let (Some(value), Some(r), Some(c)) = (shape(value), shape(r), shape(c)) else { return false };
    if r.len() != rank || c.len() > rank {
        return false;
    }
    let (front, back) = value.split_at(rank - c.len());
    let equal = |a: &[Dim], b: &[Dim]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b));
    equal(front, &r[..front.len()]) && r[front.len()..].iter().all(|dim| dim.known() == Some(1)) && equal(back, c)
}

/// Returns the number of a constant of one float32.
fn scalar(graph: &Graph, id: ValueId) -> Option<f32> {
    let tensor = graph.constant(id).filter(|tensor| tensor.dtype() == DType::F32 && tensor.shape().is_empty())?;
    tensor.to_vec::<f32>().ok()?.first().copied()
}

/// Puts our operator in the place of a choice, with a factor before or after it.
fn drop(graph: &Graph, readers: &[Vec<NodeId>], id: NodeId, dropped: &Dropped, nodes: &mut [Option<Node>]) {
    let node = graph.node(id);
    let Some(output) = node.output(0) else { return };
    let alone = |value: ValueId| match readers[value.0].as_slice() {
        [one] if !graph.outputs().contains(&value) => Some(*one),
        _ => None,
    };
    let scaled = |id: NodeId| {
        let node = graph.node(id);
        let (a, b) = (node.input(0)?, node.input(1)?);
        let by = |value, factor| scalar(graph, factor).map(|factor| (value, factor));
        by(a, b).or_else(|| by(b, a)).filter(|_| node.op.is("Mul"))
    };
    let free = |id: &NodeId, nodes: &[Option<Node>]| nodes[id.0].as_ref().is_some_and(|node| node.op.is("Mul"));
    let (mut x, mut y, mut at, mut factor) = (dropped.kept, output, id, 1.0);
    let before = graph.producer(x).filter(|id| alone(x).is_some() && free(id, nodes));
    let after = alone(output).filter(|id| free(id, nodes));
    if let Some((mul, (value, by))) = before.and_then(|mul| Some((mul, scaled(mul)?))) {
        nodes[mul.0] = None;
        (x, factor) = (value, by);
    } else if let Some((mul, (_, by))) = after.and_then(|mul| Some((mul, scaled(mul)?)))
        && let Some(output) = graph.node(mul).output(0)
    {
        (y, at, factor) = (output, mul, by);
    }
    let attributes = Attributes::none().with("least", dropped.least).with("factor", factor);
    let inputs = [x, dropped.r, dropped.c].map(Some).to_vec();
    nodes[id.0] = None;
    nodes[at.0] = Some(Node { op: own("Dropout"), inputs, outputs: vec![Some(y)], attributes, ..node.clone() });
}
