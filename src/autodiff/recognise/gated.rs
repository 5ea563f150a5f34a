//! Products of a value with a function of it, `factor * x * gate(x)`, in any order of factors.

use super::view::View;
use crate::graph::{Node, ValueId};

/// Deepest nesting of products that is followed.
const DEEPEST: usize = 3;

/// A product of two values and a number.
pub struct Gated {
    /// The value.
    pub x: ValueId,
    /// What it is multiplied with.
    pub gate: ValueId,
    /// The product of the numbers.
    pub factor: f64,
}

/// Returns the ways in which the result of `node` is a product of two values, of which the second
/// is made by a node for which `is_gate` holds.
pub fn gated(view: &View<'_>, node: &Node, is_gate: impl Fn(&Node) -> bool) -> Vec<Gated> {
    let mut values = Vec::new();
    factors(view, node, DEEPEST, &mut values);
    let mut found = Vec::new();
    let made = |value: ValueId| view.graph.producer(value).map(|id| view.graph.node(id));
    for gate in values.iter().copied().filter(|value| made(*value).is_some_and(&is_gate)) {
        for x in values.iter().copied().filter(|value| *value != gate) {
            if let Some((factor, 1, 1)) = of_node(view, node, x, gate, DEEPEST) {
                found.push(Gated { x, gate, factor });
            }
        }
    }
    found
}

/// Collects the values that the result of a node is a product of, products included.
fn factors(view: &View<'_>, node: &Node, depth: usize, values: &mut Vec<ValueId>) {
    if depth == 0 || !(node.op.is("Mul") || node.op.is("Div")) {
        return;
    }
    let count = if node.op.is("Mul") { 2 } else { 1 };
    for value in (0..count).filter_map(|index| view.input(node, index)) {
        if values.contains(&value) || view.number(value).is_some() {
            continue;
        }
        values.push(value);
        if let Some(id) = view.graph.producer(value) {
            factors(view, view.graph.node(id), depth - 1, values);
        }
    }
}

/// Returns the number in a product and how often `x` and `gate` are in it.
fn of_node(view: &View<'_>, node: &Node, x: ValueId, gate: ValueId, depth: usize) -> Option<(f64, u32, u32)> {
    let [a, b] = view.pair(node)?;
    let (number, xs, gates) = of_value(view, a, x, gate, depth)?;
    if node.op.is("Mul") {
        let (other, more, further) = of_value(view, b, x, gate, depth)?;
        return Some((number * other, xs + more, gates + further));
    }
    let divisor = view.number(b).filter(|divisor| node.op.is("Div") && *divisor != 0.0)?;
    Some((number / divisor, xs, gates))
}

fn of_value(view: &View<'_>, value: ValueId, x: ValueId, gate: ValueId, depth: usize) -> Option<(f64, u32, u32)> {
    if value == x {
        return Some((1.0, 1, 0));
    }
    if value == gate {
        return Some((1.0, 0, 1));
    }
    if let Some(number) = view.number(value) {
        return Some((number, 0, 0));
    }
    let node = view.graph.node(view.graph.producer(value).filter(|_| depth > 0)?);
    of_node(view, node, x, gate, depth - 1).filter(|_| node.op.domain.is_empty())
}
