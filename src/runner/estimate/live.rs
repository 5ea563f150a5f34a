//! The values that live at the peak of a graph.
//!
//! ONNX Runtime plans where values lie before it runs: an operator that only renames ([`RENAME`]) gives the memory that it
//! reads, one that works in place ([`IN_PLACE`]) takes it over where nobody else reads it, and a value of the same shape
//! takes the memory of one that nobody reads any more. Memory that is taken over is not given back between. What the
//! caller gives (inputs, outputs that are bound) and constants are not counted here.

use super::order::order;
use crate::graph::{Fact, Graph, INTERNAL_DOMAIN, Node, ValueId};
use std::collections::{HashMap, HashSet};

/// Operators whose output is the memory of their first input.
const RENAME: [&str; 5] = ["Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"];
/// Operators that may write where they read.
const IN_PLACE: [&str; 15] = [
    "Cast",
    "Clip",
    "Elu",
    "HardSigmoid",
    "LeakyRelu",
    "Relu",
    "ScatterElements",
    "Selu",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "Tanh",
    "ThresholdedRelu",
    "LogSoftmax",
];
/// Allocations are multiples of so many bytes.
const UNIT: u64 = 256;

/// The largest sum of bytes that live at the same time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Peak {
    pub bytes: u64,
    /// What lives then, with its bytes.
    pub live: Vec<(ValueId, u64)>,
    /// Values of which no size is known.
    pub unknown: usize,
}

/// Memory that values take one after the other.
struct Place {
    /// The first value.
    value: ValueId,
    bytes: u64,
    /// Readers that are still to come.
    readers: usize,
    first: usize,
    last: usize,
}

/// Returns the peak of a graph of which every size is known, where the outputs of these names are given memory.
pub(super) fn peak(graph: &Graph, bound: &HashSet<&str>) -> Peak {
    let order = order(graph);
    let readers = readers(graph);
    let count = |id: ValueId| readers.get(&id).copied().unwrap_or(0);
    let mut places: Vec<Place> = Vec::new();
    let mut at: HashMap<ValueId, usize> = HashMap::new();
    let mut free: HashMap<(usize, Vec<usize>), Vec<usize>> = HashMap::new();
    let mut unknown = 0;
    // What lies in memory that the caller gave, and views of it.
    let given = graph.inputs().iter().copied().chain(graph.initializers().map(|(id, ..)| id));
    let mut given: HashSet<ValueId> = given.collect();
    for (now, index) in order.iter().enumerate() {
        let node = &graph.nodes()[*index];
        for (position, output) in node.outputs.iter().enumerate() {
            let Some(output) = *output else { continue };
            if bound.contains(graph.value_name(output)) {
                given.insert(output);
                continue;
            }
            let renamed = position == 0 && is(node, &RENAME);
            let first = node.input(0);
            let from = first.and_then(|input| at.get(&input).copied());
            if renamed && first.is_some_and(|first| given.contains(&first)) {
                given.insert(output);
                continue;
            }
            if let Some(place) = from.filter(|_| renamed) {
                places[place].readers += count(output);
                at.insert(output, place);
                continue;
            }
            let Some((shape, bytes)) = size(fact_of(graph, node, position, output)) else {
                unknown += 1;
                continue;
            };
            let same = |place: &usize| {
                places[*place].readers == 1
                    && first.is_some_and(|first| size(graph.fact(first)) == Some((shape.clone(), bytes)))
            };
            let over = from.filter(|_| position == 0 && is(node, &IN_PLACE)).filter(same);
            let key = (graph.fact(output).dtype.map_or(0, |dtype| dtype.size()), shape.clone());
            let reused = over.or_else(|| if shape.is_empty() { None } else { free.get_mut(&key).and_then(Vec::pop) });
            let place = reused.unwrap_or_else(|| {
                places.push(Place { value: output, bytes, readers: 0, first: now, last: now });
                places.len() - 1
            });
            places[place].readers += count(output);
            at.insert(output, place);
        }
        let captured = node.captured().filter_map(|name| graph.find(name));
        let read = node.inputs.iter().flatten().copied().chain(captured);
        // A value that nobody reads has done with its own node.
        let unread = node.outputs.iter().flatten().copied().filter(|output| count(*output) == 0);
        for (value, reads) in read.map(|id| (id, 1)).chain(unread.map(|id| (id, 0))) {
            let Some(place) = at.get(&value).copied() else { continue };
            let held = &mut places[place];
            held.readers = held.readers.saturating_sub(reads);
            held.last = now;
            if held.readers == 0
                && let Some((shape, _)) = size(graph.fact(held.value))
            {
                let dtype = graph.fact(held.value).dtype.map_or(0, |dtype| dtype.size());
                free.entry((dtype, shape)).or_default().push(place);
            }
        }
    }
    for place in places.iter_mut().filter(|place| place.readers > 0) {
        // An output of the graph that nobody gave memory for.
        place.last = order.len();
    }
    Peak { unknown, ..highest(&places, order.len()) }
}

fn highest(places: &[Place], steps: usize) -> Peak {
    let mut changes = vec![(0_u64, 0_u64); steps + 2];
    for place in places {
        changes[place.first].0 += place.bytes;
        changes[place.last + 1].1 += place.bytes;
    }
    let (mut live, mut best) = (0, (0, 0));
    for (now, (more, less)) in changes.iter().enumerate() {
        live = live + more - less;
        if live > best.0 {
            best = (live, now);
        }
    }
    let lives = |place: &&Place| (place.first..=place.last).contains(&best.1);
    let live = places.iter().filter(lives).map(|place| (place.value, place.bytes)).collect();
    Peak { bytes: best.0, live, unknown: 0 }
}

/// Returns how often each value is read, once more where it is an output of the graph.
fn readers(graph: &Graph) -> HashMap<ValueId, usize> {
    let mut readers: HashMap<ValueId, usize> = HashMap::new();
    for node in graph.nodes() {
        let captured = node.captured().filter_map(|name| graph.find(name));
        for input in node.inputs.iter().flatten().copied().chain(captured) {
            *readers.entry(input).or_default() += 1;
        }
    }
    for output in graph.outputs() {
        *readers.entry(*output).or_default() += 1;
    }
    readers
}

/// Returns the fact of an output; of a statistic of a batch that has none, that of the scale of its channels.
fn fact_of<'g>(graph: &'g Graph, node: &Node, position: usize, output: ValueId) -> &'g Fact {
    let normalizes = node.op.domain == INTERNAL_DOMAIN && node.op.name == "BatchNormalization";
    let like = node.input(1).filter(|_| normalizes && position > 0 && graph.fact(output).sizes().is_none());
    graph.fact(like.unwrap_or(output))
}

fn is(node: &Node, names: &[&str]) -> bool {
    node.op.domain.is_empty() && names.contains(&node.op.name.as_str())
}

/// Returns the shape and the bytes that are allocated for a value.
fn size(fact: &Fact) -> Option<(Vec<usize>, u64)> {
    let shape = fact.sizes()?;
    let bytes = super::bytes(fact.dtype?, &shape);
    Some((shape, bytes.div_ceil(UNIT) * UNIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attributes, Builder, DType};

    const BYTES: u64 = 4 * 1024;

    fn made(build: impl Fn(&mut Builder, ValueId) -> ValueId) -> Peak {
        let mut b = Builder::new("live");
        let x = b.input("x", Fact::fixed(DType::F32, &[32, 32]));
        let y = build(&mut b, x);
        b.rename(y, "y");
        b.mark_output(y);
        peak(&b.finish(), &HashSet::from(["y"]))
    }

    #[test]
    fn what_lives_at_the_same_time_is_counted() {
        // Two values of a chain live at a time, and the third takes the memory of the first.
        let chain = made(|b, x| ["Exp", "Neg", "Exp", "Neg", "Exp"].iter().fold(x, |x, op| b.unary(op, x)));
        assert_eq!((chain.bytes, chain.live.len(), chain.unknown), (2 * BYTES, 2, 0));
        // In place there is one.
        let placed = made(|b, x| {
            let first = b.unary("Exp", x);
            let last = ["Relu", "Tanh", "Sigmoid"].iter().fold(first, |x, op| b.unary(op, x));
            b.unary("Exp", last)
        });
        assert_eq!(placed.bytes, BYTES);
        // What is read again later stays where it is.
        let kept = made(|b, x| {
            let first = b.unary("Exp", x);
            let second = b.unary("Relu", first);
            let third = b.unary("Relu", second);
            b.add(first, third)
        });
        assert_eq!(kept.bytes, 2 * BYTES);
    }

    #[test]
    fn a_view_is_no_memory_of_its_own() {
        let viewed = made(|b, x| {
            let first = b.unary("Exp", x);
            let flat = b.reshape(first, &[-1]);
            let square = b.reshape(flat, &[32, 32]);
            b.unary("Exp", square)
        });
        assert_eq!(viewed.bytes, BYTES);
        // One of an input neither.
        let input = made(|b, x| {
            let flat = b.reshape(x, &[-1]);
            let square = b.reshape(flat, &[32, 32]);
            b.op("MatMul", &[square, square], Attributes::none())
        });
        assert_eq!(input.bytes, 0);
    }

    #[test]
    fn an_output_without_memory_lives_to_the_end() {
        let mut b = Builder::new("live");
        let x = b.input("x", Fact::fixed(DType::F32, &[32, 32]));
        let side = b.unary("Exp", x);
        let y = ["Neg", "Exp", "Neg"].iter().fold(side, |x, op| b.unary(op, x));
        for (value, name) in [(side, "side"), (y, "y")] {
            b.rename(value, name);
            b.mark_output(value);
        }
        let graph = b.finish();
        assert_eq!(peak(&graph, &HashSet::from(["y"])).bytes, 3 * BYTES);
        assert_eq!(peak(&graph, &HashSet::from(["y", "side"])).bytes, 2 * BYTES);
    }
}
