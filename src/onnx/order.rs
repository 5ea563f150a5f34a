//! Brings the nodes of a file into evaluation order.

use super::proto;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// Returns the positions of the nodes in evaluation order, or none where the file has them in that
/// order. Values that no node of the graph makes do not count. `ready` says what is there before.
///
/// # Errors
/// The position of a node that waits for itself.
pub(super) fn of(nodes: &[proto::Node], ready: impl Fn(&str) -> bool) -> Result<Option<Vec<usize>>, usize> {
    let mut maker: HashMap<&str, usize> = HashMap::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        for output in node.output.iter().filter(|name| !name.is_empty() && !ready(name)) {
            maker.entry(output).or_insert(index);
        }
    }
    let captured: Vec<Vec<String>> =
        nodes.iter().map(|node| node.attribute.iter().flat_map(captures).collect()).collect();
    let needs = |index: usize| {
        let names = nodes[index].input.iter().chain(&captured[index]);
        names.filter_map(|name| maker.get(name.as_str()).copied())
    };
    if (0..nodes.len()).all(|index| needs(index).all(|before| before < index)) {
        return Ok(None);
    }
    let before: Vec<HashSet<usize>> = (0..nodes.len()).map(|index| needs(index).collect()).collect();
    let mut waits: Vec<usize> = before.iter().map(HashSet::len).collect();
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (index, before) in before.iter().enumerate() {
        before.iter().for_each(|node| readers[*node].push(index));
    }
    let mut open: BinaryHeap<Reverse<usize>> =
        (0..nodes.len()).filter(|index| waits[*index] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(index)) = open.pop() {
        order.push(index);
        for reader in &readers[index] {
            waits[*reader] -= 1;
            if waits[*reader] == 0 {
                open.push(Reverse(*reader));
            }
        }
    }
    match waits.iter().position(|count| *count > 0) {
        Some(index) => Err(index),
        None => Ok(Some(order)),
    }
}

/// Returns the names of outer values that the graphs of an attribute read.
pub(super) fn captures(attribute: &proto::Attribute) -> Vec<String> {
    let mut outer = Vec::new();
    for graph in attribute.g.iter().chain(&attribute.graphs) {
        let mut inner: HashSet<&str> = graph.input.iter().map(proto::ValueInfo::name).collect();
        inner.extend(graph.initializer.iter().map(proto::Tensor::name));
        inner.extend(graph.sparse_initializer.iter().map(super::sparse::name));
        inner.extend(graph.node.iter().flat_map(|node| node.output.iter().map(String::as_str)));
        let nested: Vec<String> = graph.node.iter().flat_map(|node| node.attribute.iter().flat_map(captures)).collect();
        let read = graph.node.iter().flat_map(|node| node.input.iter().cloned());
        let read = read.chain(nested).chain(graph.output.iter().map(|o| o.name().to_string()));
        outer.extend(read.filter(|name| !name.is_empty() && !inner.contains(name.as_str())));
    }
    outer.sort();
    outer.dedup();
    outer
}
