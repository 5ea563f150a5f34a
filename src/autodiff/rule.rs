//! What a gradient rule is, and what it sees.

use super::Rules;
use crate::graph::{AttrError, Attributes, Builder, DType, Dim, Fact, FactError, Node, NodeId, ValueId, lost};
use std::collections::HashMap;
use std::ops::RangeInclusive;

/// The gradient of one operator: one entry per input.
pub struct Rule {
    /// Domain, empty for the standard operators.
    pub domain: &'static str,
    /// Operator type.
    pub op: &'static str,
    /// Opsets of the model for which the rule is right and tested.
    pub opsets: RangeInclusive<i64>,
    /// The inputs by position.
    pub inputs: Inputs,
}

/// The inputs of a rule.
pub enum Inputs {
    /// One entry per position; a position past the end is constant.
    Fixed(&'static [InputRule]),
    /// The same for every position.
    Variadic(InputRule),
    /// An operator that runs graphs of its own: one function for all that is wanted, outer values
    /// that the graphs read among it. The function returns a gradient for each, or `None` where the
    /// outputs do not depend on it.
    Subgraphs(BuildAll),
}

/// A value that a node with subgraphs reads and that a gradient is wanted for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The value.
    pub value: ValueId,
    /// Where the node reads it.
    pub place: Place,
}

/// Where a node with subgraphs reads a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// As an input.
    Input(usize),
    /// In a subgraph, under this name.
    Captured(String),
}

/// Builds the gradient of one input.
pub type Build = fn(&mut Ctx<'_>) -> Result<ValueId, RuleError>;

/// Builds the gradients of everything that is wanted of a node with subgraphs.
pub type BuildAll = fn(&mut Ctx<'_>, &[Wanted]) -> Result<Vec<Option<ValueId>>, RuleError>;

/// What is known of the gradient of one input.
#[derive(Clone, Copy)]
pub enum InputRule {
    /// Differentiable: the function appends nodes and returns the gradient, which has the
    /// input's dtype and shape.
    Gradient(Build),
    /// As [`InputRule::Gradient`], with the input's position.
    Each(fn(&mut Ctx<'_>, usize) -> Result<ValueId, RuleError>),
    /// No gradient exists: a shape, an index, a flag.
    Constant,
    /// A gradient exists and is not implemented, with the reason.
    Missing(&'static str),
}

impl Inputs {
    /// Returns the entry of a position; `None` where one function is there for all.
    pub fn at(&self, index: usize) -> Option<InputRule> {
        match self {
            Inputs::Fixed(list) => Some(list.get(index).copied().unwrap_or(InputRule::Constant)),
            Inputs::Variadic(rule) => Some(*rule),
            Inputs::Subgraphs(_) => None,
        }
    }
}

/// A rule that cannot be applied to a node.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum RuleError {
    #[error(transparent)]
    Attribute(#[from] AttrError),
    #[error(transparent)]
    Unknown(#[from] FactError),
    #[error("the shape of \"{value}\" must be fixed in dimensions {dims}, found {found}")]
    NoShape { value: String, dims: String, found: String },
    #[error("input \"{value}\" must be fixed in the model")]
    NotConstant { value: String },
    #[error("{0}")]
    Unsupported(String),
    #[error("inside of it")]
    Inside(#[source] Box<super::AutodiffError>),
}

/// One node as a rule sees it, with the builder that its gradient goes into.
pub struct Ctx<'a> {
    /// Appends nodes, named under the forward node.
    pub b: &'a mut Builder,
    id: NodeId,
    opset: i64,
    node: &'a Node,
    grads: Vec<Option<ValueId>>,
    rules: Rules,
    memo: HashMap<&'static str, Vec<ValueId>>,
}

impl<'a> Ctx<'a> {
    pub(super) fn new(
        b: &'a mut Builder,
        opset: i64,
        (id, node): (NodeId, &'a Node),
        grads: Vec<Option<ValueId>>,
    ) -> Ctx<'a> {
        Ctx { b, id, opset, node, grads, rules: Rules::new(), memo: HashMap::new() }
    }

    pub(super) fn with_rules(self, rules: &Rules) -> Ctx<'a> {
        Ctx { rules: rules.clone(), ..self }
    }

    /// Returns the rules of the caller.
    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Returns the model's opset.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// Returns the forward node's id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Returns the forward node.
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// Returns the node's attributes.
    pub fn attributes(&self) -> &'a Attributes {
        &self.node.attributes
    }

    /// Returns input `index`, which the operator requires.
    ///
    /// # Errors
    /// The node lacks it.
    pub fn x(&self, index: usize) -> Result<ValueId, RuleError> {
        self.node.input(index).ok_or_else(|| RuleError::Unsupported(format!("input {index} is missing")))
    }

    /// Returns output `index`.
    ///
    /// # Errors
    /// The node lacks it.
    pub fn y(&self, index: usize) -> Result<ValueId, RuleError> {
        self.node.output(index).ok_or_else(|| RuleError::Unsupported(format!("output {index} is missing")))
    }

    /// Returns output `index`, which the operator can give; a node that leaves it out gets it,
    /// with this fact.
    pub fn exposed(&mut self, index: usize, fact: Fact) -> ValueId {
        self.b.expose_output(self.id, index, fact)
    }

    /// Returns the gradient of output `index`, where the loss depends on that output.
    pub fn grad(&self, index: usize) -> Option<ValueId> {
        self.grads.get(index).copied().flatten()
    }

    /// Returns the gradient of the first output: zeros where the loss does not depend on it.
    ///
    /// # Errors
    /// The node has no first output.
    pub fn dy(&mut self) -> Result<ValueId, RuleError> {
        if let Some(grad) = self.grad(0) {
            return Ok(grad);
        }
        let y = self.y(0)?;
        self.once("zeros", |ctx| {
            let zero = ctx.b.like(y, 0.0);
            Ok(ctx.b.expand_like(zero, y))
        })
    }

    /// Returns a value that several inputs' gradients share, building it the first time.
    ///
    /// # Errors
    /// Those of `build`.
    pub fn once(
        &mut self,
        key: &'static str,
        build: impl FnOnce(&mut Self) -> Result<ValueId, RuleError>,
    ) -> Result<ValueId, RuleError> {
        let values = self.once_each(key, |ctx| Ok(vec![build(ctx)?]))?;
        Ok(values[0])
    }

    /// As [`Ctx::once`], for several values.
    ///
    /// # Errors
    /// Those of `build`.
    pub fn once_each(
        &mut self,
        key: &'static str,
        build: impl FnOnce(&mut Self) -> Result<Vec<ValueId>, RuleError>,
    ) -> Result<Vec<ValueId>, RuleError> {
        if let Some(values) = self.memo.get(key) {
            return Ok(values.clone());
        }
        let values = build(self)?;
        self.memo.insert(key, values.clone());
        Ok(values)
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
        self.b.fact(value).rank().ok_or_else(|| self.unknown(value))
    }

    /// Returns the dimensions, some of which may be symbols.
    ///
    /// # Errors
    /// Not even their number is known.
    pub fn dims(&self, value: ValueId) -> Result<Vec<Dim>, RuleError> {
        self.b.fact(value).shape.clone().ok_or_else(|| self.unknown(value))
    }

    fn unknown(&self, value: ValueId) -> RuleError {
        lost(self.b.graph(), value, "shape".into()).into()
    }

    /// Returns the sizes from dimension `from` on.
    ///
    /// # Errors
    /// One of them is not fixed.
    pub fn sizes_from(&self, value: ValueId, from: usize) -> Result<Vec<usize>, RuleError> {
        let dims = self.dims(value)?;
        if let Some(axis) = dims.iter().skip(from).position(|dim| *dim == Dim::Unknown) {
            return Err(lost(self.b.graph(), value, format!("size of dimension {}", from + axis)).into());
        }
        dims.iter().skip(from).map(Dim::known).collect::<Option<Vec<_>>>().ok_or_else(|| RuleError::NoShape {
            value: self.name(value),
            dims: format!("{from} and up"),
            found: self.b.fact(value).to_string(),
        })
    }

    /// Returns the integers of a constant input; `None` where the input is absent.
    ///
    /// # Errors
    /// The input is computed while the model runs.
    pub fn constant_ints(&self, index: usize) -> Result<Option<Vec<i64>>, RuleError> {
        let Some(value) = self.node.input(index) else { return Ok(None) };
        let ints = self.b.graph().constant(value).and_then(|tensor| tensor.to_ints());
        ints.map(Some).ok_or_else(|| RuleError::NotConstant { value: self.name(value) })
    }

    /// Returns a value's name, for errors.
    pub fn name(&self, value: ValueId) -> String {
        self.b.graph().value_name(value).to_string()
    }
}

/// Returns an axis counted from the front.
///
/// # Errors
/// It lies outside the rank.
pub fn axis(axis: i64, rank: usize) -> Result<usize, RuleError> {
    let count = i64::try_from(rank).unwrap_or(i64::MAX);
    usize::try_from(if axis < 0 { axis + count } else { axis })
        .ok()
        .filter(|axis| *axis < rank)
        .ok_or_else(|| RuleError::Unsupported(format!("axis {axis} lies outside rank {rank}")))
}
