//! A graph as patterns look at it.

use crate::graph::{Attribute, DType, Dim, Graph, Node, NodeId, ValueId};
use std::collections::HashSet;

/// Most nodes of a pattern.
const MOST_PARTS: usize = 24;
/// Deepest nesting of arithmetic that is followed.
const DEEPEST: usize = 8;
/// Largest deviation of a number from the one that a formula has, relative to it.
const TOLERANCE: f64 = 1e-5;

/// Coefficients of `1, x, x^2, x^3`.
pub type Polynomial = [f64; 4];

/// A graph with what patterns ask of it.
pub struct View<'a> {
    pub graph: &'a Graph,
    /// Version of the default domain's operators.
    pub opset: i64,
    variable: HashSet<ValueId>,
    readers: Vec<Vec<NodeId>>,
    /// Graph outputs and what subgraphs read.
    bound: HashSet<ValueId>,
}

impl<'a> View<'a> {
    pub fn new(graph: &'a Graph, opset: i64, variable: &HashSet<&str>) -> View<'a> {
        let captured = graph.nodes().iter().flat_map(|node| node.captured().filter_map(|name| graph.find(name)));
        View {
            graph,
            opset,
            variable: variable.iter().filter_map(|name| graph.find(name)).collect(),
            readers: graph.consumers(),
            bound: graph.outputs().iter().copied().chain(captured).collect(),
        }
    }

    /// Returns the value that this one is a mere copy of.
    pub fn through(&self, value: ValueId) -> ValueId {
        let mut value = value;
        while let Some(node) = self.graph.producer(value).map(|id| self.graph.node(id)) {
            let Some(input) = node.input(0) else { break };
            let same = |node: &Node| {
                let to = node.attributes.int("to", 0).ok().and_then(|code| i32::try_from(code).ok());
                to.map(DType::from_code) == self.graph.fact(input).dtype
            };
            if !(node.op.is("Identity") || node.op.is("Cast") && same(node)) {
                break;
            }
            value = input;
        }
        value
    }

    /// Returns the node of a standard operator that makes a value.
    pub fn made_by(&self, value: ValueId, op: &str) -> Option<&'a Node> {
        let node = self.graph.node(self.graph.producer(self.through(value))?);
        (node.op.is(op) && node.outputs.len() == 1).then_some(node)
    }

    /// Returns a node's input.
    pub fn input(&self, node: &Node, index: usize) -> Option<ValueId> {
        node.input(index).map(|value| self.through(value))
    }

    /// Returns the two inputs of an operator.
    pub fn pair(&self, node: &Node) -> Option<[ValueId; 2]> {
        Some([self.input(node, 0)?, self.input(node, 1)?])
    }

    /// Returns the two inputs of a commutative operator in both orders.
    pub fn orders(&self, node: &Node) -> Option<[[ValueId; 2]; 2]> {
        let [a, b] = self.pair(node)?;
        Some([[a, b], [b, a]])
    }

    /// Returns the number that a value always is, whatever its rank.
    pub fn number(&self, value: ValueId) -> Option<f64> {
        let value = self.through(value);
        let one = self.graph.fact(value).sizes().is_none_or(|sizes| sizes.iter().all(|size| *size == 1));
        if !one || self.variable.contains(&value) {
            return None;
        }
        match self.graph.constant(value)?.to_f64s()?.as_slice() {
            [number] => Some(*number),
            _ => None,
        }
    }

    /// Returns true when a value is always this number.
    pub fn is(&self, value: ValueId, number: f64) -> bool {
        self.number(value).is_some_and(|found| near(found, number))
    }

    /// Returns the dimensions of a value.
    pub fn dims(&self, value: ValueId) -> Option<&'a [Dim]> {
        self.graph.fact(value).shape.as_deref()
    }

    /// Returns true when a value has exactly these dimensions.
    pub fn has_dims(&self, value: ValueId, dims: &[Dim]) -> bool {
        self.dims(value)
            .is_some_and(|found| found.len() == dims.len() && found.iter().zip(dims).all(|(a, b)| a.same(b)))
    }

    /// Returns the first of the trailing axes that a reduction keeps with size 1, and its operand.
    pub fn trailing(&self, node: &Node) -> Option<(ValueId, usize)> {
        let x = self.input(node, 0)?;
        let rank = self.dims(x)?.len();
        if node.attributes.int("keepdims", 1) != Ok(1) {
            return None;
        }
        let axes = match node.attributes.ints("axes").ok()? {
            Some(axes) => axes,
            None => self.graph.constant(node.input(1)?)?.to_ints()?,
        };
        let mut axes: Vec<i64> = axes.iter().map(|axis| if *axis < 0 { axis + rank as i64 } else { *axis }).collect();
        axes.sort_unstable();
        let first = usize::try_from(*axes.first()?).ok()?;
        axes.into_iter().eq(first as i64..rank as i64).then_some((x, first))
    }

    /// Returns the operand of a square: `Pow(x, 2)` or `Mul(x, x)`.
    pub fn square(&self, value: ValueId) -> Option<ValueId> {
        if let Some([x, power]) = self.made_by(value, "Pow").and_then(|node| self.pair(node)) {
            return self.is(power, 2.0).then_some(x);
        }
        let [a, b] = self.pair(self.made_by(value, "Mul")?)?;
        (a == b).then_some(a)
    }

    /// Returns `(x, z, epsilon)` of a node that gives `x / sqrt(z + epsilon)`.
    pub fn over_root(&self, node: &Node) -> Option<(ValueId, ValueId, f64)> {
        if node.op.is("Div") {
            let [x, root] = self.pair(node)?;
            let (z, epsilon) = self.root(root)?;
            return Some((x, z, epsilon));
        }
        let orders = if node.op.is("Mul") { self.orders(node)? } else { return None };
        orders.into_iter().find_map(|[x, inverse]| {
            let (z, epsilon) = self.inverse_root(inverse)?;
            Some((x, z, epsilon))
        })
    }

    /// `sqrt(z + epsilon)`
    fn root(&self, value: ValueId) -> Option<(ValueId, f64)> {
        if let Some(node) = self.made_by(value, "Sqrt") {
            return self.shifted(self.input(node, 0)?);
        }
        let [shifted, power] = self.pair(self.made_by(value, "Pow")?)?;
        if self.is(power, 0.5) { self.shifted(shifted) } else { None }
    }

    /// `1 / sqrt(z + epsilon)`
    fn inverse_root(&self, value: ValueId) -> Option<(ValueId, f64)> {
        if let Some(node) = self.made_by(value, "Reciprocal") {
            return self.root(self.input(node, 0)?);
        }
        if let Some([one, root]) = self.made_by(value, "Div").and_then(|node| self.pair(node)) {
            return if self.is(one, 1.0) { self.root(root) } else { None };
        }
        let [shifted, power] = self.pair(self.made_by(value, "Pow")?)?;
        if self.is(power, -0.5) { self.shifted(shifted) } else { None }
    }

    /// `z + epsilon`, with an epsilon that is above 0 and small.
    fn shifted(&self, value: ValueId) -> Option<(ValueId, f64)> {
        let orders = self.orders(self.made_by(value, "Add")?)?;
        let (z, epsilon) = orders.into_iter().find_map(|[z, number]| Some((z, self.number(number)?)))?;
        (epsilon > 0.0 && epsilon < 1.0).then_some((z, epsilon))
    }

    /// Returns the polynomial in `x` that a value is, of degree 3 at most.
    pub fn polynomial(&self, value: ValueId, x: ValueId) -> Option<Polynomial> {
        self.expand(self.through(value), x, DEEPEST)
    }

    fn expand(&self, value: ValueId, x: ValueId, depth: usize) -> Option<Polynomial> {
        if value == x {
            return Some([0.0, 1.0, 0.0, 0.0]);
        }
        if let Some(number) = self.number(value) {
            return Some([number, 0.0, 0.0, 0.0]);
        }
        let node = self.graph.node(self.graph.producer(value)?);
        if depth == 0 || !node.op.domain.is_empty() {
            return None;
        }
        let part = |index: usize| self.expand(self.input(node, index)?, x, depth - 1);
        match node.op.name.as_str() {
            "Add" => Some(sum(part(0)?, part(1)?, 1.0)),
            "Sub" => Some(sum(part(0)?, part(1)?, -1.0)),
            "Neg" => Some(part(0)?.map(|factor| -factor)),
            "Mul" => product(part(0)?, part(1)?),
            "Div" => {
                let divisor = self.number(self.input(node, 1)?).filter(|divisor| *divisor != 0.0)?;
                Some(part(0)?.map(|factor| factor / divisor))
            }
            "Pow" => {
                let (base, power) = (part(0)?, self.number(self.input(node, 1)?)?);
                match power {
                    2.0 => product(base, base),
                    3.0 => product(base, product(base, base)?),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Returns the nodes between `inputs` and the result of `root`; `None` where something else
    /// reads what is between, or where a node depends on more than `inputs` and constants.
    pub fn parts(&self, root: NodeId, inputs: &[ValueId]) -> Option<HashSet<NodeId>> {
        let mut parts = HashSet::from([root]);
        let mut stack = vec![root];
        while let Some(id) = stack.pop() {
            for input in self.graph.node(id).inputs.iter().flatten() {
                let fixed = || !self.variable.contains(input) && self.graph.constant(*input).is_some();
                if inputs.contains(&self.through(*input)) || fixed() {
                    continue;
                }
                let maker = self.graph.producer(*input)?;
                if parts.insert(maker) {
                    stack.push(maker);
                }
            }
            if parts.len() > MOST_PARTS {
                return None;
            }
        }
        let private = |id: &NodeId| {
            self.graph.node(*id).outputs.iter().flatten().all(|output| {
                !self.bound.contains(output) && self.readers[output.0].iter().all(|reader| parts.contains(reader))
            })
        };
        let plain = |id: &NodeId| {
            let values = self.graph.node(*id).attributes.iter();
            !values.into_iter().any(|(_, value)| matches!(value, Attribute::Graph(_) | Attribute::Opaque { .. }))
        };
        let whole = parts.iter().all(|id| plain(id) && (*id == root || private(id)));
        whole.then_some(parts)
    }
}

/// Returns true for numbers that differ by rounding only.
pub fn near(found: f64, number: f64) -> bool {
    (found - number).abs() <= TOLERANCE * number.abs()
}

/// Returns true for polynomials whose coefficients differ by rounding only.
pub fn alike(found: Polynomial, expected: Polynomial) -> bool {
    found.iter().zip(expected).all(|(a, b)| near(*a, b))
}

fn sum(a: Polynomial, b: Polynomial, sign: f64) -> Polynomial {
    std::array::from_fn(|power| a[power] + sign * b[power])
}

fn product(a: Polynomial, b: Polynomial) -> Option<Polynomial> {
    let mut result = [0.0; 4];
    for (i, left) in a.iter().enumerate() {
        for (j, right) in b.iter().enumerate().filter(|(_, right)| *left != 0.0 && **right != 0.0) {
            *result.get_mut(i + j)? += left * right;
        }
    }
    Some(result)
}
