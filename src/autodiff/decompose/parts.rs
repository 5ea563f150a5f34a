//! What a decomposition sees of the node that it replaces.

use crate::autodiff::RuleError;
use crate::graph::{Attributes, Builder, DType, Dim, Node, ValueId, lost};

/// A node to decompose, with the builder that its parts go into.
pub struct Parts<'a> {
    /// Appends nodes, named under the decomposed node.
    pub b: &'a mut Builder,
    node: &'a Node,
    inputs: &'a [Option<ValueId>],
}

impl<'a> Parts<'a> {
    pub(super) fn new(b: &'a mut Builder, node: &'a Node, inputs: &'a [Option<ValueId>]) -> Parts<'a> {
        Parts { b, node, inputs }
    }

    /// Returns input `index` in the builder, where it is present.
    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// Returns input `index`, which the operator requires.
    ///
    /// # Errors
    /// The node lacks it.
    pub fn x(&self, index: usize) -> Result<ValueId, RuleError> {
        self.input(index).ok_or_else(|| RuleError::Unsupported(format!("input {index} is missing")))
    }

    /// Returns true when the node has output `index`.
    pub fn has_output(&self, index: usize) -> bool {
        self.node.output(index).is_some()
    }

    /// Returns the node's attributes.
    pub fn attributes(&self) -> &'a Attributes {
        &self.node.attributes
    }

    /// Refuses inputs from `first` on: `what` says what they would be.
    ///
    /// # Errors
    /// One of them is present.
    pub fn refuse_inputs(&self, first: usize, what: &str) -> Result<(), RuleError> {
        match (first..self.inputs.len()).find(|index| self.input(*index).is_some()) {
            Some(index) => Err(RuleError::Unsupported(format!("input {index} is given, {what} is not supported"))),
            None => Ok(()),
        }
    }

    /// Appends the node itself, with `count` outputs: for an output that no gradient reaches.
    pub fn again(&mut self, count: usize) -> Vec<ValueId> {
        self.b.ops(&self.node.op, self.inputs, self.node.attributes.clone(), count)
    }

    /// Returns the dtype of a value.
    pub fn dtype(&self, value: ValueId) -> DType {
        self.b.dtype(value)
    }

    /// Returns the number of dimensions.
    ///
    /// # Errors
    /// It is unknown.
    pub fn rank(&self, value: ValueId) -> Result<usize, RuleError> {
        Ok(self.dims(value)?.len())
    }

    /// Returns the dimensions, some of which may be symbols.
    ///
    /// # Errors
    /// Not even their number is known.
    pub fn dims(&self, value: ValueId) -> Result<Vec<Dim>, RuleError> {
        let shape = self.b.fact(value).shape.clone();
        shape.ok_or_else(|| lost(self.b.graph(), value, "shape".into()).into())
    }

    /// Returns the integers of a constant input; `None` where the input is absent.
    ///
    /// # Errors
    /// The input is computed while the model runs.
    pub fn constant_ints(&self, index: usize) -> Result<Option<Vec<i64>>, RuleError> {
        let Some(value) = self.input(index) else { return Ok(None) };
        let ints = self.b.graph().constant(value).and_then(|tensor| tensor.to_ints());
        let name = self.b.graph().value_name(value).to_string();
        ints.map(Some).ok_or(RuleError::NotConstant { value: name })
    }
}
