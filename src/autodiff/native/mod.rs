//! Gradients in operators of our own, for engines that have them.
//!
//! A rule in `rules/` writes a gradient in standard operators, which any engine runs and which files
//! hold. Where the engine has a faster operator for the same gradient, a rule here takes its place:
//! it appends one node of the domain `ai.freeze-plan`. The portable rule of the same operator is its
//! twin: both are compared on the cases of the rule, on every operator here.
//!
//! Images are `[N, C, H, W]` here as everywhere in a graph; the engine may turn them.
//!
//! What this module does not do: run anything, or know which engine has what.

mod average_pool;
mod batch_normalization;
mod clip;
mod conv;
mod fixed_normalization;
mod global_average_pool;
mod max_pool;
mod relu;

use super::rule::{Ctx, InputRule};
use crate::graph::{DType, Fact, INTERNAL_DOMAIN, Node, OpId};

/// In which operators a train graph is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Standard operators.
    #[default]
    Portable,
    /// Operators of our own where there are some.
    Native,
}

/// The gradient of one operator in operators of our own.
pub struct NativeRule {
    /// Domain of the forward operator, empty for the standard ones.
    pub domain: &'static str,
    /// Its type.
    pub op: &'static str,
    /// Returns true where the rule holds for a node; else the portable rule is taken.
    pub applies: fn(&Ctx<'_>) -> bool,
    /// The inputs by position, as a portable rule has them.
    pub inputs: &'static [InputRule],
}

/// Every rule.
pub static NATIVE_RULES: &[&NativeRule] = &[
    &average_pool::RULE,
    &batch_normalization::RULE,
    &clip::RULE,
    &conv::RULE,
    &fixed_normalization::RULE,
    &global_average_pool::RULE,
    &max_pool::RULE,
    &relu::RULE,
];

/// Returns the rule for a node in this form, where there is one that holds for it.
pub(super) fn find(form: Form, ctx: &Ctx<'_>) -> Option<&'static NativeRule> {
    let op = &ctx.node().op;
    let rule = NATIVE_RULES.iter().find(|rule| rule.domain == op.domain && rule.op == op.name)?;
    (form == Form::Native && (rule.applies)(ctx)).then_some(*rule)
}

/// Returns the operator of our own of this name.
pub fn own(name: &str) -> OpId {
    OpId { domain: INTERNAL_DOMAIN.into(), name: name.into() }
}

/// Returns true for a batch of float32 images whose sizes are fixed but for the batch.
pub(crate) fn is_image(fact: &Fact) -> bool {
    let fixed = |shape: &Vec<crate::graph::Dim>| shape.len() == 4 && shape.iter().skip(1).all(|d| d.known().is_some());
    fact.dtype == Some(DType::F32) && fact.shape.as_ref().is_some_and(fixed)
}

/// Returns true for a node whose operator is one of our own also where it has a portable form: batch normalization of
/// images.
pub(crate) fn stays(graph: &crate::graph::Graph, node: &Node, form: Form) -> bool {
    let image = |index: usize| node.input(index).is_some_and(|id| is_image(graph.fact(id)));
    form == Form::Native && node.op == super::batch_norm_op() && image(0)
}
