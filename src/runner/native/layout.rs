//! Images channels-last: `[N, H, W, C]` instead of `[N, C, H, W]`.
//!
//! A value has one or both layouts. Operators of our own on images read and write the channels-last one; elementwise
//! operators and reductions take what there is; everything else reads the plain one. A Transpose stands where a layout
//! is read that nobody wrote.

use super::{is_own, window};
use crate::autodiff::{is_image, own};
use crate::graph::{Attribute, Attributes, Builder, Dim, Fact, Graph, Node, OpId, Origin, ValueId};
use std::collections::{HashMap, HashSet};

const TO_LAST: [i64; 4] = [0, 2, 3, 1];
const TO_PLAIN: [i64; 4] = [0, 3, 1, 2];

/// Standard operators that compute each element from the elements at the same place.
const ELEMENTWISE: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "Cast",
    "Clip",
    "Div",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Gelu",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pow",
    "Reciprocal",
    "Relu",
    "Selu",
    "Sigmoid",
    "Sign",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Sum",
    "Tanh",
    "Where",
];

/// Operators of our own on images: the positions of inputs and outputs that are images.
const IMAGES: &[(&str, &[usize], &[usize])] = &[
    ("AveragePoolGrad", &[0], &[0]),
    ("BatchNormalization", &[0, 3], &[0]),
    ("BatchNormalizationGrad", &[0, 1, 2, 3], &[0, 3]),
    ("ClipGrad", &[0, 1], &[0]),
    ("Conv", &[0], &[0]),
    ("ConvInputGrad", &[0], &[0]),
    ("ConvWeightGrad", &[0, 1], &[]),
    ("FixedNormalization", &[0, 5], &[0]),
    ("FixedNormalizationGrad", &[0, 1, 2, 3], &[0, 3]),
    ("GlobalAveragePoolGrad", &[0], &[0]),
    ("MaxPoolGrad", &[0, 1, 2], &[0]),
    ("ReluGrad", &[0, 1], &[0]),
    ("RunningStatistics", &[4], &[]),
];

/// Standard operators on images that have a channels-last form of ours.
const POOLS: &[&str] = &["AveragePool", "GlobalAveragePool", "MaxPool"];

/// Returns the graph with images channels-last where that avoids work.
pub(super) fn channels_last(graph: &Graph) -> Graph {
    let mut b = Builder::new(graph.name());
    b.reserve(graph.values().map(|(_, value)| value.name.clone()));
    let captured = graph.nodes().iter().flat_map(Node::captured).filter_map(|name| graph.find(name)).collect();
    let mut pass = Pass { graph, b, plain: HashMap::new(), last: HashMap::new(), captured };
    for id in graph.inputs() {
        let input = pass.b.input(graph.value_name(*id), graph.fact(*id).clone());
        pass.plain.insert(*id, input);
    }
    for (id, ..) in graph.initializers() {
        let value = pass.b.copy_value(graph, id);
        pass.plain.insert(id, value);
    }
    for node in graph.nodes() {
        pass.b.enter(node.origin.clone(), &node.name);
        pass.node(node);
    }
    pass.b.enter(Origin::Loss, "outputs");
    for output in graph.outputs() {
        let value = pass.plain(*output);
        pass.b.output(value, graph.value_name(*output));
    }
    pass.b.finish()
}

struct Pass<'g> {
    graph: &'g Graph,
    b: Builder,
    /// Values of the old graph in the new one, as they were.
    plain: HashMap<ValueId, ValueId>,
    /// The same channels-last.
    last: HashMap<ValueId, ValueId>,
    /// Values that subgraphs read by their names.
    captured: HashSet<ValueId>,
}

/// A fact with its dimensions in another order.
fn turned(fact: &Fact, order: [i64; 4]) -> Fact {
    let shape =
        fact.shape.as_ref().map(|shape| order.iter().filter_map(|at| shape.get(*at as usize).cloned()).collect());
    Fact { dtype: fact.dtype, shape }
}

impl Pass<'_> {
    fn plain(&mut self, id: ValueId) -> ValueId {
        if let Some(value) = self.plain.get(&id) {
            return *value;
        }
        let value = self.b.transpose(self.last[&id], &TO_PLAIN);
        self.b.refine(value, &self.graph.fact(id).clone());
        self.plain.insert(id, value);
        value
    }

    fn last(&mut self, id: ValueId) -> ValueId {
        if let Some(value) = self.last.get(&id) {
            return *value;
        }
        let value = self.b.transpose(self.plain[&id], &TO_LAST);
        self.b.refine(value, &turned(self.graph.fact(id), TO_LAST));
        self.last.insert(id, value);
        value
    }

    fn node(&mut self, node: &Node) {
        if let Some((_, inputs, outputs)) = IMAGES.iter().find(|(name, ..)| is_own(node, name)) {
            return self.image(node, node.op.clone(), node.attributes.clone(), inputs, outputs);
        }
        if let Some(attributes) = self.pool(node) {
            return self.image(node, own(&node.op.name), attributes, &[0], &[0]);
        }
        if self.passes(node) {
            let all: Vec<usize> = (0..node.inputs.len()).filter(|index| self.rank(node, *index) == Some(4)).collect();
            return self.image(node, node.op.clone(), node.attributes.clone(), &all, &[0]);
        }
        if let Some(attributes) = self.along(node) {
            let all: Vec<usize> = (0..node.inputs.len()).filter(|index| self.rank(node, *index) == Some(4)).collect();
            let outputs: Vec<usize> = (0..node.outputs.len()).collect();
            return self.image(node, node.op.clone(), attributes, &all, &outputs);
        }
        if self.reduction(node) || self.size(node) {
            return;
        }
        let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|input| input.map(|id| self.plain(id))).collect();
        let outputs = self.b.copy_node(self.graph, node, &inputs);
        self.plain.extend(node.outputs.iter().zip(outputs).filter_map(|(old, new)| Some(((*old)?, new?))));
    }

    fn rank(&self, node: &Node, index: usize) -> Option<usize> {
        self.graph.fact(node.input(index)?).rank()
    }

    /// Appends a node with some inputs and outputs channels-last.
    fn image(&mut self, node: &Node, op: OpId, attributes: Attributes, images: &[usize], results: &[usize]) {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for (index, input) in node.inputs.iter().enumerate() {
            inputs.push(input.map(|id| if images.contains(&index) { self.last(id) } else { self.plain(id) }));
        }
        let mut outputs = Vec::with_capacity(node.outputs.len());
        for (index, output) in node.outputs.iter().enumerate() {
            let image = results.contains(&index);
            outputs.push(output.map(|id| {
                let fact = self.graph.fact(id);
                let fact = if image { turned(fact, TO_LAST) } else { fact.clone() };
                let base = self.graph.value_name(id);
                let known = self.graph.outputs().contains(&id) || self.captured.contains(&id);
                let name = if image && known { self.b.unique("last") } else { base.to_string() };
                let value = self.b.declare(&name, fact);
                if image {
                    self.last.insert(id, value)
                } else {
                    self.plain.insert(id, value)
                };
                value
            }));
        }
        self.b.push_node(Node { op, inputs, outputs, attributes, ..node.clone() });
        let captured: Vec<ValueId> =
            node.outputs.iter().flatten().copied().filter(|id| self.captured.contains(id)).collect();
        for output in &captured {
            let value = self.plain(*output);
            self.b.rename(value, self.graph.value_name(*output));
        }
    }

    /// Returns the attributes of a pooling of images that are channels-last already.
    fn pool(&self, node: &Node) -> Option<Attributes> {
        let x = node.input(0)?;
        let fits = node.op.domain.is_empty() && POOLS.contains(&node.op.name.as_str()) && self.last.contains_key(&x);
        if !fits || !is_image(self.graph.fact(x)) || node.output(1).is_some() {
            return None;
        }
        if node.op.is("GlobalAveragePool") {
            return Some(Attributes::none());
        }
        let shape = self.graph.fact(node.output(0)?).shape.as_ref()?;
        let output: Vec<i64> = shape.iter().skip(2).map(|dim| Some(dim.known()? as i64)).collect::<Option<_>>()?;
        let window = window(self.graph, node, x, node.attributes.ints("kernel_shape").ok()??)?;
        let ceil = node.attributes.int("ceil_mode", 0).ok()?;
        let include = node.attributes.int("count_include_pad", 0).ok()?;
        let fits = ceil == 0 || node.op.is("MaxPool");
        fits.then(|| window.attributes().with("count_include_pad", include).with("output", output))
    }

    /// Returns true for an elementwise operator that can take an input channels-last.
    fn passes(&self, node: &Node) -> bool {
        if !node.op.domain.is_empty() || !ELEMENTWISE.contains(&node.op.name.as_str()) || node.outputs.len() != 1 {
            return false;
        }
        let inputs: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
        let fits = |id: &ValueId| match &self.graph.fact(*id).shape {
            Some(shape) => shape.len() == 4 || shape.iter().all(|dim| *dim == Dim::Known(1)),
            None => false,
        };
        let fresh = |id: &ValueId| self.last.contains_key(id) && !self.plain.contains_key(id);
        inputs.iter().all(fits) && inputs.iter().any(fresh)
    }

    /// Returns the attributes of a Concat or Split of images that are channels-last already, along their new axis.
    fn along(&self, node: &Node) -> Option<Attributes> {
        if !node.op.is("Concat") && !node.op.is("Split") {
            return None;
        }
        let images = if node.op.is("Concat") { node.inputs.as_slice() } else { node.inputs.get(..1)? };
        let known = |id: &Option<ValueId>| id.is_some_and(|id| self.graph.fact(id).rank() == Some(4));
        let fresh = |id: &Option<ValueId>| id.is_some_and(|id| self.last.contains_key(&id));
        if !images.iter().all(known) || !images.iter().any(fresh) {
            return None;
        }
        let axis = node.attributes.int("axis", 0).ok()?.rem_euclid(4);
        let to = TO_LAST.iter().position(|from| *from == axis)?;
        let mut attributes = node.attributes.clone();
        attributes.set("axis", Attribute::Int(to as i64));
        Some(attributes)
    }

    /// Appends the sizes of images that are channels-last alone.
    fn size(&mut self, node: &Node) -> bool {
        let Some((x, output)) = node.input(0).zip(node.output(0)) else { return false };
        let fresh = self.last.contains_key(&x) && !self.plain.contains_key(&x);
        if !fresh || !(node.op.is("Size") || node.op.is("Shape")) {
            return false;
        }
        let x = self.last(x);
        let mut value = self.b.unary(&node.op.name, x);
        if node.op.is("Shape") {
            let end = |name: &str, default: i64| {
                node.attributes.int(name, default).map_or(default, |at| {
                    usize::try_from(if at < 0 { at + 4 } else { at }.clamp(0, 4)).unwrap_or(0) as i64
                })
            };
            let kept: Vec<i64> = (end("start", 0)..end("end", 4)).map(|axis| TO_PLAIN[axis as usize]).collect();
            let kept = self.b.ints("axes", &kept);
            value = self.b.op("Gather", &[value, kept], Attributes::none().with("axis", 0));
        }
        self.b.refine(value, &self.graph.fact(output).clone());
        self.plain.insert(output, value);
        true
    }

    /// Appends a reduction of images that are channels-last already, along fixed axes.
    fn reduction(&mut self, node: &Node) -> bool {
        let reduces = ["ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare"];
        let Some(x) = node.input(0).filter(|_| node.op.domain.is_empty() && reduces.contains(&node.op.name.as_str()))
        else {
            return false;
        };
        let given = node.input(1).and_then(|axes| self.graph.constant(axes)?.to_ints());
        let axes = given.or_else(|| node.attributes.ints("axes").ok().flatten());
        let (Some(axes), Some(output)) = (axes, node.output(0)) else { return false };
        let keeps = node.attributes.int("keepdims", 1) == Ok(1);
        let fresh = self.last.contains_key(&x) && !self.plain.contains_key(&x);
        let axes: Vec<i64> = axes.iter().map(|axis| axis.rem_euclid(4)).collect();
        let space = axes.contains(&2) && axes.contains(&3);
        if !fresh || self.graph.fact(x).rank() != Some(4) || axes.is_empty() || !(keeps || space) {
            return false;
        }
        let to: Vec<i64> =
            axes.iter().filter_map(|axis| TO_LAST.iter().position(|from| from == axis)).map(|at| at as i64).collect();
        let x = self.last(x);
        let value = self.b.reduce(&node.op.name, x, &to, keeps);
        let fact = self.graph.fact(output);
        let fact = if keeps { turned(fact, TO_LAST) } else { fact.clone() };
        self.b.refine(value, &fact);
        if keeps {
            self.last.insert(output, value)
        } else {
            self.plain.insert(output, value)
        };
        true
    }
}
