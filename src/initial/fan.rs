//! How operators read a parameter, and how many elements of their input one element of their output is made of.

use crate::graph::{Graph, Node, NodeId, ValueId};
use crate::modules::Unit;
use crate::training::Prepared;
use std::collections::HashSet;

/// Operators whose output holds the elements of their first input.
const VIEWS: [&str; 10] =
    ["Cast", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"];

/// One input of a node that reads a parameter, or a view of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    node: NodeId,
    /// Position of the input.
    pub input: usize,
    /// What is read: the parameter, or a view.
    read: ValueId,
}

/// A fan with the class of the operator.
pub(super) struct Fan {
    pub class: &'static str,
    pub fan: usize,
}

/// Looks at the readers of parameters.
pub(super) struct Reader<'a> {
    prepared: &'a Prepared,
    graph: &'a Graph,
    consumers: Vec<Vec<NodeId>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(prepared: &'a Prepared) -> Reader<'a> {
        let graph = &prepared.model.graph;
        Reader { prepared, graph, consumers: graph.consumers() }
    }

    /// Returns the shape of an initializer; none for a name that is none.
    pub(super) fn shape(&self, name: &str) -> Vec<usize> {
        let value = self.graph.find(name).map(|id| self.graph.value(id));
        value.and_then(|value| value.initializer.as_ref()).map(|tensor| tensor.shape().to_vec()).unwrap_or_default()
    }

    /// Returns true for the name of an initializer.
    pub(super) fn has(&self, name: &str) -> bool {
        self.graph.find(name).is_some_and(|id| self.graph.value(id).initializer.is_some())
    }

    pub(super) fn node(&self, used: &Used) -> &'a Node {
        self.graph.node(used.node)
    }

    pub(super) fn op(&self, used: &Used) -> &'a str {
        &self.node(used).op.name
    }

    /// Returns the other parameters of the unit that owns a parameter.
    pub(super) fn siblings(&self, name: &str) -> Vec<String> {
        let others = |unit: &'a Unit| unit.parameters.iter().filter(|own| *own != name).cloned();
        self.unit(name).into_iter().flat_map(others).collect()
    }

    /// Returns the class of the unit that owns a parameter.
    pub(super) fn class(&self, name: &str) -> Option<&'a str> {
        self.unit(name).map(|unit| unit.class.as_str())
    }

    fn unit(&self, name: &str) -> Option<&'a Unit> {
        self.prepared.units.iter().find(|unit| unit.parameters.iter().any(|own| own == name))
    }

    /// Returns the slots that read a parameter or a view of it.
    pub(super) fn uses(&self, name: &str) -> Vec<Used> {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        let mut open: Vec<ValueId> = self.graph.find(name).into_iter().collect();
        while let Some(value) = open.pop() {
            if !seen.insert(value) {
                continue;
            }
            for id in self.consumers.get(value.0).into_iter().flatten() {
                let node = self.graph.node(*id);
                for (input, _) in node.inputs.iter().enumerate().filter(|(_, read)| **read == Some(value)) {
                    let view = input == 0 && VIEWS.contains(&node.op.name.as_str()) || node.op.name == "Concat";
                    match view {
                        true => open.extend(node.outputs.iter().flatten()),
                        false => found.push(Used { node: *id, input, read: value }),
                    }
                }
            }
        }
        found.sort_by_key(|used| (used.node, used.input));
        found
    }

    /// Returns the fan of a use as a weight.
    pub(super) fn weight_fan(&self, used: &Used) -> Option<Fan> {
        let shape = self.graph.fact(used.read).sizes()?;
        self.fan_of(self.node(used), used.input, &shape)
    }

    /// Returns the fan of the weight that a use as a bias goes with: an input of the same node, or of the node whose
    /// result it is added to.
    pub(super) fn bias_fan(&self, used: &Used, name: &str) -> Option<Fan> {
        let node = self.node(used);
        match (node.op.name.as_str(), used.input) {
            ("Gemm" | "Conv" | "ConvTranspose" | "FusedConv" | "FusedGemm", 2) | ("DeformConv", 3) => {
                self.fan_at(node, 1)
            }
            ("Add", _) if self.shape(name).iter().filter(|size| **size != 1).count() <= 1 => {
                let other = node.inputs.iter().flatten().find(|id| **id != used.read)?;
                let made = self.through_views(*other)?;
                match made.op.name.as_str() {
                    "Conv" | "ConvTranspose" | "Gemm" => self.fan_at(made, 1),
                    "MatMul" | "Einsum" | "FusedMatMul" => (0..made.inputs.len())
                        .filter(|input| made.input(*input).is_some_and(|id| self.is_weight(id)))
                        .find_map(|input| self.fan_at(made, input)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn fan_at(&self, node: &Node, input: usize) -> Option<Fan> {
        let shape = self.graph.fact(node.input(input)?).sizes()?;
        self.fan_of(node, input, &shape)
    }

    fn fan_of(&self, node: &Node, input: usize, shape: &[usize]) -> Option<Fan> {
        let fan = |class, fan| Some(Fan { class, fan });
        let flag = |name: &str| node.attributes.int(name, 0).is_ok_and(|flag| flag != 0);
        let from_end = |back: usize| shape.len().checked_sub(back).and_then(|axis| shape.get(axis)).copied();
        match (node.op.name.as_str(), input) {
            ("Conv" | "FusedConv" | "DeformConv", 1) => fan("Conv", shape.get(1..)?.iter().product()),
            ("ConvTranspose", 1) => fan("ConvTranspose", shape.get(1..)?.iter().product()),
            ("Gemm" | "FusedGemm", 0) => fan("Linear", *shape.get(usize::from(!flag("transA")))?),
            ("Gemm" | "FusedGemm", 1) => fan("Linear", *shape.get(usize::from(flag("transB")))?),
            ("MatMul" | "FusedMatMul", 0 | 1) if shape.len() == 1 => fan("Linear", from_end(1)?),
            ("MatMul" | "FusedMatMul", 0) => fan("Linear", from_end(if flag("transA") { 2 } else { 1 })?),
            ("MatMul" | "FusedMatMul", 1) => fan("Linear", from_end(if flag("transB") { 1 } else { 2 })?),
            ("Einsum", _) => {
                let equation = node.attributes.text("equation", "").ok()?;
                let equation: String = equation.chars().filter(|letter| !letter.is_whitespace()).collect();
                let (terms, result) = equation.split_once("->")?;
                let term = terms.split(',').nth(input).filter(|term| !term.contains('.'))?;
                if term.chars().count() != shape.len() {
                    return None;
                }
                let summed = term.chars().zip(shape).filter(|(letter, _)| !result.contains(*letter));
                fan("Linear", summed.map(|(_, size)| *size).product())
            }
            _ => None,
        }
    }

    /// Returns the node that made a value, seen through views.
    fn through_views(&self, mut value: ValueId) -> Option<&'a Node> {
        loop {
            let node = self.graph.node(self.graph.producer(value)?);
            if !VIEWS.contains(&node.op.name.as_str()) {
                return Some(node);
            }
            value = node.input(0)?;
        }
    }

    /// Returns true for an initializer or a view of one.
    fn is_weight(&self, mut value: ValueId) -> bool {
        loop {
            if self.graph.value(value).initializer.is_some() {
                return true;
            }
            let Some(node) = self.graph.producer(value).map(|id| self.graph.node(id)) else { return false };
            match node.input(0).filter(|_| VIEWS.contains(&node.op.name.as_str())) {
                Some(before) => value = before,
                None => return false,
            }
        }
    }
}
