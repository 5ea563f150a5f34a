//! The only way to make or change a graph.
//!
//! A builder appends nodes in evaluation order and keeps names unique and deterministic: the
//! current scope, a slash, the part. Facts of what it appends are inferred (`infer.rs`).

use super::{Attributes, DType, Dim, Fact, Graph, Node, NodeId, OpId, Origin, Tensor, Value, ValueId, infer};
use std::collections::HashSet;

/// Builds a graph; start from [`Builder::new`] or continue an existing graph with
/// [`Builder::extend`].
#[derive(Debug)]
pub struct Builder {
    graph: Graph,
    names: HashSet<String>,
    scope: String,
    origin: Origin,
}

impl Builder {
    /// Returns a builder of an empty graph.
    pub fn new(name: &str) -> Builder {
        Builder::extend(Graph { name: name.to_string(), ..Graph::default() })
    }

    /// Returns a builder that appends to a graph.
    pub fn extend(graph: Graph) -> Builder {
        let names = graph.values.iter().map(|value| value.name.clone());
        let names = names.chain(graph.nodes.iter().map(|node| node.name.clone())).collect();
        Builder { graph, names, scope: String::new(), origin: Origin::Forward }
    }

    /// Returns the graph as built so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Returns the finished graph.
    pub fn finish(self) -> Graph {
        self.graph
    }

    /// Sets what the following nodes are made for and the first part of their names.
    pub fn enter(&mut self, origin: Origin, scope: &str) {
        self.origin = origin;
        self.scope = scope.to_string();
    }

    /// Adds a graph input.
    pub fn input(&mut self, name: &str, fact: Fact) -> ValueId {
        let id = self.named_value(name, fact, None);
        self.graph.inputs.push(id);
        id
    }

    /// Adds an initializer under exactly this name.
    pub fn initializer(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let fact = Fact::fixed(tensor.dtype(), tensor.shape());
        self.named_value(name, fact, Some(tensor))
    }

    /// Adds a constant under a name made from the scope and `part`.
    pub fn constant(&mut self, part: &str, tensor: Tensor) -> ValueId {
        let name = self.unique(part);
        self.initializer(&name, tensor)
    }

    /// Adds an int64 constant of rank 1, as shapes and axes are.
    pub fn ints(&mut self, part: &str, values: &[i64]) -> ValueId {
        self.constant(part, Tensor::ints(values))
    }

    /// Adds a scalar constant of a floating-point (or integer) dtype.
    pub fn scalar(&mut self, dtype: DType, value: f64) -> ValueId {
        self.constant("const", Tensor::float_scalar(dtype, value))
    }

    /// Adds a value that a node pushed later will produce.
    pub(crate) fn declare(&mut self, name: &str, fact: Fact) -> ValueId {
        self.named_value(name, fact, None)
    }

    /// Makes a value a graph output under the name it has.
    pub fn mark_output(&mut self, value: ValueId) {
        self.graph.outputs.push(value);
    }

    /// Makes a value a graph output under exactly this name: the value is renamed where nothing
    /// else gave it its name, otherwise passed through `Identity`.
    pub fn output(&mut self, value: ValueId, name: &str) -> ValueId {
        if self.graph.value(value).name == name {
            self.graph.outputs.push(value);
            return value;
        }
        let made_here = self.graph.producer(value).is_some_and(|node| {
            !matches!(self.graph.node(node).origin, Origin::Forward) && !self.graph.outputs.contains(&value)
        });
        let id = if made_here && !self.graph.by_name.contains_key(name) {
            self.rename(value, name);
            value
        } else {
            let fact = self.graph.fact(value).clone();
            let id = self.named_value(name, fact, None);
            let node = format!("{name}/Identity");
            self.push(&node, OpId::standard("Identity"), &[Some(value)], Attributes::none(), vec![Some(id)]);
            id
        };
        self.graph.outputs.push(id);
        id
    }

    /// Makes a value the graph output in place of another.
    pub(crate) fn replace_output(&mut self, old: ValueId, new: ValueId) {
        for output in self.graph.outputs.iter_mut().filter(|output| **output == old) {
            *output = new;
        }
    }

    /// Appends a standard operator with one output.
    pub fn op(&mut self, op: &str, inputs: &[ValueId], attributes: Attributes) -> ValueId {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        self.ops(&OpId::standard(op), &inputs, attributes, 1)[0]
    }

    /// Appends an operator with optional inputs and `count` outputs.
    pub fn ops(&mut self, op: &OpId, inputs: &[Option<ValueId>], attributes: Attributes, count: usize) -> Vec<ValueId> {
        let name = self.unique(&op.name);
        let facts = infer::facts(&self.graph, op, inputs, &attributes, count);
        let outputs: Vec<ValueId> = facts
            .into_iter()
            .enumerate()
            .map(|(index, fact)| {
                let value = if index == 0 { format!("{name}:0") } else { format!("{name}:{index}") };
                self.named_value(&value, fact, None)
            })
            .collect();
        self.push(&name, op.clone(), inputs, attributes, outputs.iter().copied().map(Some).collect());
        outputs
    }

    /// Appends a copy of a node of another graph on mapped inputs, keeping its name, its output
    /// names and their facts.
    pub fn copy_node(&mut self, from: &Graph, node: &Node, inputs: &[Option<ValueId>]) -> Vec<Option<ValueId>> {
        let outputs: Vec<Option<ValueId>> =
            node.outputs.iter().map(|output| output.map(|id| self.copy_value(from, id))).collect();
        self.push_node(Node { inputs: inputs.to_vec(), outputs: outputs.clone(), ..node.clone() });
        outputs
    }

    /// Appends a copy of a node as [`Builder::copy_node`] does, with further outputs.
    pub fn copy_node_with(
        &mut self,
        from: &Graph,
        node: &Node,
        inputs: &[Option<ValueId>],
        more: &[(String, Fact)],
    ) -> Vec<Option<ValueId>> {
        let mut outputs: Vec<Option<ValueId>> =
            node.outputs.iter().map(|output| output.map(|id| self.copy_value(from, id))).collect();
        outputs.extend(more.iter().map(|(name, fact)| Some(self.named_value(name, fact.clone(), None))));
        self.push_node(Node { inputs: inputs.to_vec(), outputs: outputs.clone(), ..node.clone() });
        outputs
    }

    /// Appends a copy of a node as [`Builder::copy_node`] does, with what inference adds to the facts.
    pub fn copy_inferred(&mut self, from: &Graph, node: &Node, inputs: &[Option<ValueId>]) -> Vec<Option<ValueId>> {
        let outputs = self.copy_node(from, node, inputs);
        let facts = infer::facts(&self.graph, &node.op, inputs, &node.attributes, outputs.len());
        for (output, fact) in outputs.iter().zip(&facts) {
            if let Some(output) = output {
                self.refine(*output, fact);
            }
        }
        outputs
    }

    /// Gives a node other attributes and further outputs, which it puts behind position `count`.
    pub fn extend_node(&mut self, node: NodeId, attributes: Attributes, count: usize, facts: &[Fact]) -> Vec<ValueId> {
        self.graph.nodes[node.0].attributes = attributes;
        let more = facts.iter().enumerate().map(|(index, fact)| self.expose_output(node, count + index, fact.clone()));
        more.collect()
    }

    /// Declares output `index` of a node that leaves it out, and returns it; one that is there is
    /// returned as it is.
    pub fn expose_output(&mut self, node: NodeId, index: usize, fact: Fact) -> ValueId {
        if let Some(output) = self.graph.nodes[node.0].output(index) {
            return output;
        }
        let name = self.unique(&format!("output_{index}"));
        let value = self.named_value(&name, fact, None);
        let outputs = &mut self.graph.nodes[node.0].outputs;
        if outputs.len() <= index {
            outputs.resize(index + 1, None);
        }
        outputs[index] = Some(value);
        self.graph.producers.insert(value, node);
        value
    }

    /// Adds a value of another graph under its own name, with its fact and elements.
    pub fn copy_value(&mut self, from: &Graph, id: ValueId) -> ValueId {
        let value = from.value(id);
        self.named_value(&value.name, value.fact.clone(), value.initializer.clone())
    }

    /// Gives a value that a node of this builder made another, unused name.
    pub fn rename(&mut self, value: ValueId, name: &str) {
        assert!(!self.graph.by_name.contains_key(name), "value \"{name}\" exists already");
        let old = std::mem::replace(&mut self.graph.values[value.0].name, name.to_string());
        self.graph.by_name.remove(&old);
        self.graph.by_name.insert(name.to_string(), value);
        self.names.insert(name.to_string());
    }

    /// Replaces what is known of a value by something at least as exact.
    pub fn refine(&mut self, value: ValueId, fact: &Fact) {
        let merged = self.graph.values[value.0].fact.or(fact);
        self.graph.values[value.0].fact = merged;
    }

    /// Returns an unused name: scope, slash, part, and a number where it is taken.
    pub fn unique(&mut self, part: &str) -> String {
        let base = if self.scope.is_empty() { part.to_string() } else { format!("{}/{part}", self.scope) };
        let mut name = base.clone();
        let mut number = 1;
        while self.names.contains(&name) || self.names.contains(&format!("{name}:0")) {
            name = format!("{base}_{number}");
            number += 1;
        }
        self.names.insert(name.clone());
        name
    }

    /// Keeps names from being made by [`Builder::unique`]; values can still be added under them.
    pub(crate) fn reserve(&mut self, names: impl Iterator<Item = String>) {
        self.names.extend(names);
    }

    fn named_value(&mut self, name: &str, fact: Fact, initializer: Option<Tensor>) -> ValueId {
        assert!(!self.graph.by_name.contains_key(name), "value \"{name}\" exists already");
        let id = ValueId(self.graph.values.len());
        self.graph.values.push(Value { name: name.to_string(), fact, initializer });
        self.graph.by_name.insert(name.to_string(), id);
        self.names.insert(name.to_string());
        id
    }

    fn push(
        &mut self,
        name: &str,
        op: OpId,
        inputs: &[Option<ValueId>],
        attributes: Attributes,
        outputs: Vec<Option<ValueId>>,
    ) {
        let origin = self.origin.clone();
        let inputs = inputs.to_vec();
        let (name, overload, metadata) = (name.to_string(), String::new(), Vec::new());
        self.push_node(Node { name, op, overload, inputs, outputs, attributes, origin, metadata });
    }

    pub(crate) fn push_node(&mut self, node: Node) {
        let id = NodeId(self.graph.nodes.len());
        for output in node.outputs.iter().flatten() {
            self.graph.producers.insert(*output, id);
        }
        self.names.insert(node.name.clone());
        self.graph.nodes.push(node);
    }
}

/// Short forms for the operators that gradients, losses and optimizers are made of.
impl Builder {
    /// Returns the dtype of a value; float32 where unknown.
    pub fn dtype(&self, value: ValueId) -> DType {
        self.graph.fact(value).dtype.unwrap_or(DType::F32)
    }

    /// Returns what is known of a value.
    pub fn fact(&self, value: ValueId) -> &Fact {
        self.graph.fact(value)
    }

    /// Returns a constant like `value` in dtype, of rank 0.
    pub fn like(&mut self, value: ValueId, number: f64) -> ValueId {
        let dtype = self.dtype(value);
        self.scalar(dtype, number)
    }

    /// `a + b`
    pub fn add(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.op("Add", &[a, b], Attributes::none())
    }

    /// `a - b`
    pub fn sub(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.op("Sub", &[a, b], Attributes::none())
    }

    /// `a * b`
    pub fn mul(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.op("Mul", &[a, b], Attributes::none())
    }

    /// `a / b`
    pub fn div(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.op("Div", &[a, b], Attributes::none())
    }

    /// Any operator of one input without attributes.
    pub fn unary(&mut self, op: &str, a: ValueId) -> ValueId {
        self.op(op, &[a], Attributes::none())
    }

    /// `a * number`
    pub fn scale(&mut self, a: ValueId, number: f64) -> ValueId {
        let number = self.like(a, number);
        self.mul(a, number)
    }

    /// `a + number`
    pub fn shift(&mut self, a: ValueId, number: f64) -> ValueId {
        let number = self.like(a, number);
        self.add(a, number)
    }

    /// Comparison (`Less`, `Greater`, `Equal`, ..) with a number.
    pub fn compare(&mut self, op: &str, a: ValueId, number: f64) -> ValueId {
        let number = self.like(a, number);
        self.op(op, &[a, number], Attributes::none())
    }

    /// `condition ? a : b`
    pub fn select(&mut self, condition: ValueId, a: ValueId, b: ValueId) -> ValueId {
        self.op("Where", &[condition, a, b], Attributes::none())
    }

    /// Cast to a dtype.
    pub fn cast(&mut self, a: ValueId, to: DType) -> ValueId {
        self.op("Cast", &[a], Attributes::none().with("to", i64::from(to.code())))
    }

    /// Transposition by `perm`.
    pub fn transpose(&mut self, a: ValueId, perm: &[i64]) -> ValueId {
        self.op("Transpose", &[a], Attributes::none().with("perm", perm))
    }

    /// Reshape to fixed numbers (`-1` once for the rest, `0` keeps the dimension).
    pub fn reshape(&mut self, a: ValueId, shape: &[i64]) -> ValueId {
        let shape = self.ints("shape", shape);
        self.op("Reshape", &[a, shape], Attributes::none())
    }

    /// Reshape to the shape of another value, read while the model runs only where more than one
    /// dimension is not fixed.
    pub fn reshape_like(&mut self, a: ValueId, like: ValueId) -> ValueId {
        if self.fact(a).shape.is_some() && self.fact(a).shape == self.fact(like).shape {
            let exact = self.fact(a).shape.iter().flatten().all(|dim| *dim != Dim::Unknown);
            if exact {
                return a;
            }
        }
        let dims = self.fact(like).shape.clone().unwrap_or_default();
        let open = dims.iter().filter(|dim| dim.known().is_none()).count();
        let shape = if open == 1 && !dims.contains(&Dim::Known(0)) {
            let sizes: Vec<i64> = dims.iter().map(|dim| dim.known().map_or(-1, |size| size as i64)).collect();
            self.ints("shape", &sizes)
        } else {
            self.shape_of(like)
        };
        let zero = dims.contains(&Dim::Known(0));
        let attributes = if zero { Attributes::none().with("allowzero", 1) } else { Attributes::none() };
        let result = self.op("Reshape", &[a, shape], attributes);
        let fact = Fact { dtype: None, shape: self.fact(like).shape.clone() };
        self.graph.values[result.0].fact.shape = None;
        self.refine(result, &fact);
        result
    }

    /// The shape of a value as an int64 vector: a constant where it is fixed.
    pub fn shape_of(&mut self, value: ValueId) -> ValueId {
        match self.fact(value).sizes() {
            Some(sizes) => {
                let sizes: Vec<i64> = sizes.iter().map(|size| *size as i64).collect();
                self.ints("shape", &sizes)
            }
            None => self.unary("Shape", value),
        }
    }

    /// Broadcast to the shape of another value.
    pub fn expand_like(&mut self, a: ValueId, like: ValueId) -> ValueId {
        let shape = self.shape_of(like);
        let result = self.op("Expand", &[a, shape], Attributes::none());
        let fact = Fact { dtype: None, shape: self.fact(like).shape.clone() };
        self.graph.values[result.0].fact.shape = None;
        self.refine(result, &fact);
        result
    }

    /// Reduction (`ReduceSum`, `ReduceMean`, `ReduceMax`) over fixed axes, in the form that
    /// opset 18 and later of all reductions and `ReduceSum` from 13 share: axes as an input.
    pub fn reduce(&mut self, op: &str, a: ValueId, axes: &[i64], keepdims: bool) -> ValueId {
        let axes = self.ints("axes", axes);
        self.op(op, &[a, axes], Attributes::none().with("keepdims", i64::from(keepdims)))
    }

    /// Removes the given axes of size 1.
    pub fn squeeze(&mut self, a: ValueId, axes: &[i64]) -> ValueId {
        let axes = self.ints("axes", axes);
        self.op("Squeeze", &[a, axes], Attributes::none())
    }

    /// Inserts axes of size 1 at the given positions of the result.
    pub fn unsqueeze(&mut self, a: ValueId, axes: &[i64]) -> ValueId {
        let axes = self.ints("axes", axes);
        self.op("Unsqueeze", &[a, axes], Attributes::none())
    }
}
