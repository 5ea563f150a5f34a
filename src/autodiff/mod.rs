//! Reverse-mode gradients as graph construction.
//!
//! [`gradients`] walks a graph backwards from a scalar and asks one [`Rule`] per
//! operator (`rules/`) for exactly those input gradients that somebody wants. What is frozen is
//! simply not asked for: reverse reachability decides, so there is no other notion of freezing
//! here. The result is ordinary nodes of the default domain.
//!
//! A caller's own rules come first where it passes some: [`GradientRule`], [`Rules`]; [`GradCheck`] tests them.
//!
//! Before that, [`decompose()`] takes operators without a rule apart and [`recognise()`] makes primitives
//! that are one operator one node; after it, [`simplify()`] leaves out expansions and [`lower`] replaces
//! the internal operators.
//!
//! What this module does not do: choose what is trained (`training`), or run anything.

pub mod coverage;
mod custom;
mod decompose;
mod gradcheck;
#[cfg(all(test, feature = "runner"))]
mod harness;
mod inside;
mod internal;
mod native;
mod recognise;
mod recurrent;
mod rule;
mod rules;
mod scan;
mod simplify;
mod steps;
#[cfg(all(test, feature = "runner"))]
mod testing;

pub use custom::{GradientRule, Rules};
#[doc(hidden)]
pub use decompose::{DECOMPOSITIONS, Decomposition, decompose, dependents, find_decomposition, is_newer, reads};
pub use gradcheck::{GradCheck, GradCheckError};
#[doc(hidden)]
pub use internal::{
    INTERNALS, Internal, batch_norm_node, batch_norm_op, gelu_node, gelu_op, lower, lower_to, rms_norm_node,
    rms_norm_op, safe_softmax_op, swish_node, swish_op,
};
#[doc(hidden)]
pub use native::{Form, NATIVE_RULES, NativeRule, own};
#[cfg(feature = "runner")]
pub(crate) use native::{is_image, is_rows};
#[doc(hidden)]
pub use recognise::{Group, patterns, recognise, recognise_but};
pub use rule::{Ctx, Inputs, Place, RuleError};
#[doc(hidden)]
pub use rule::{InputRule, Rule, Wanted};
#[cfg(feature = "runner")]
pub(crate) use rules::Window;
#[doc(hidden)]
pub use rules::{RULES, find};
#[doc(hidden)]
pub use simplify::simplify;

use crate::error::ErrorKind;
use crate::graph::{Attributes, Builder, DType, Graph, Node, NodeId, OpId, Origin, ValueId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How gradients are built.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// In which operators they are written.
    pub form: Form,
    /// Rules of the caller, which go before the built-in ones.
    pub rules: Rules,
}

/// A gradient that cannot be built.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum AutodiffError {
    #[error(
        "node \"{node}\": operator {op} at opset {opset} has no gradient rule, and a gradient must pass it to reach \"{reaches}\""
    )]
    NoRule { node: String, op: String, opset: i64, reaches: String },
    #[error("node \"{node}\": operator {op} has gradient rules for opsets {from} to {to}, the model has {opset}")]
    OpsetRange { node: String, op: String, opset: i64, from: i64, to: i64 },
    #[error("node \"{node}\": the gradient of {op} to input {input} is not implemented: {reason}")]
    NotImplemented { node: String, op: String, input: usize, reason: String },
    #[error("node \"{node}\": the gradient of {op} (opset {opset}) to input {input} cannot be built")]
    Rule { node: String, op: String, opset: i64, input: usize, source: RuleError },
    #[error("node \"{node}\": operator {op} cannot be expressed by operators that have gradient rules")]
    Decompose { node: String, op: String, source: RuleError },
    #[error("node \"{node}\": the gradient of {op} (opset {opset}) cannot be built")]
    Whole { node: String, op: String, opset: i64, source: RuleError },
    #[error("the loss \"{loss}\" must be a floating-point scalar, found {fact}")]
    NoScalar { loss: String, fact: String },
}

impl AutodiffError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            AutodiffError::NoScalar { .. } => ErrorKind::Internal,
            _ => ErrorKind::Unsupported,
        }
    }

    /// Returns true when a size is why that the model leaves open.
    pub fn is_open_size(&self) -> bool {
        match self {
            // Sequences of known length are taken apart.
            AutodiffError::NotImplemented { op, .. } => op.contains("Sequence"),
            AutodiffError::Rule { source, .. }
            | AutodiffError::Decompose { source, .. }
            | AutodiffError::Whole { source, .. } => match source {
                RuleError::NoShape { .. } | RuleError::Unknown(_) => true,
                RuleError::Inside(error) => error.is_open_size(),
                _ => false,
            },
            _ => false,
        }
    }

    /// Returns the name of the forward node at which it failed.
    pub fn node(&self) -> Option<&str> {
        match self {
            AutodiffError::NoRule { node, .. }
            | AutodiffError::OpsetRange { node, .. }
            | AutodiffError::NotImplemented { node, .. }
            | AutodiffError::Decompose { node, .. }
            | AutodiffError::Rule { node, .. }
            | AutodiffError::Whole { node, .. } => Some(node),
            AutodiffError::NoScalar { .. } => None,
        }
    }
}

/// Appends the gradients of the scalar `loss` with respect to each value of `wrt` and returns
/// them in that order; `None` where the loss does not depend on the value. A value that a node
/// computes may be among them.
///
/// Only nodes on a path from some `wrt` to the loss get a backward part.
///
/// # Errors
/// An operator on such a path has no rule, or its rule cannot be applied; the error names it.
pub fn gradients(
    builder: &mut Builder,
    opset: i64,
    loss: ValueId,
    wrt: &[ValueId],
) -> Result<Vec<Option<ValueId>>, AutodiffError> {
    gradients_of(&Manner::default(), builder, opset, (loss, None), wrt)
}

/// As [`gradients`], in this manner, and of a factor times the loss where one is given, a scalar of its dtype.
///
/// # Errors
/// As [`gradients`].
pub fn gradients_of(
    manner: &Manner,
    builder: &mut Builder,
    opset: i64,
    (loss, factor): (ValueId, Option<ValueId>),
    wrt: &[ValueId],
) -> Result<Vec<Option<ValueId>>, AutodiffError> {
    let fact = builder.fact(loss).clone();
    if fact.rank().is_some_and(|rank| rank != 0) || !fact.is_float() {
        let loss = builder.graph().value_name(loss).to_string();
        return Err(AutodiffError::NoScalar { loss, fact: fact.to_string() });
    }
    let active = active_values(&manner.rules, builder, opset, wrt);
    let mut seeds = Vec::new();
    check_path(&manner.rules, builder, opset, &active, &[loss])?;
    if active.contains_key(&loss) {
        builder.enter(Origin::Backward("loss".into()), "loss/grad");
        let seed = factor.unwrap_or_else(|| builder.like(loss, 1.0));
        seeds.push((loss, seed));
    }
    walk_back(manner, builder, opset, &active, &seeds, wrt, "grad")
}

/// As [`gradients_of`], from a value with the gradient that it has.
///
/// # Errors
/// As [`gradients`].
pub fn gradients_from(
    manner: &Manner,
    builder: &mut Builder,
    opset: i64,
    seed: (ValueId, ValueId),
    wrt: &[ValueId],
) -> Result<Vec<Option<ValueId>>, AutodiffError> {
    let active = active_values(&manner.rules, builder, opset, wrt);
    check_path(&manner.rules, builder, opset, &active, &[seed.0])?;
    walk_back(manner, builder, opset, &active, &[seed], wrt, "grad")
}

/// As [`gradients`], from several values with the gradient that each has.
pub(crate) fn pull_back(
    rules: &Rules,
    builder: &mut Builder,
    opset: i64,
    seeds: &[(ValueId, ValueId)],
    wrt: &[ValueId],
    scope: &str,
) -> Result<Vec<Option<ValueId>>, AutodiffError> {
    let active = active_values(rules, builder, opset, wrt);
    check_path(rules, builder, opset, &active, &seeds.iter().map(|(value, _)| *value).collect::<Vec<_>>())?;
    let manner = Manner { form: Form::Portable, rules: rules.clone() };
    walk_back(&manner, builder, opset, &active, seeds, wrt, scope)
}

fn check_path(
    rules: &Rules,
    builder: &Builder,
    opset: i64,
    active: &HashMap<ValueId, ValueId>,
    from: &[ValueId],
) -> Result<(), AutodiffError> {
    for id in nodes_on_path(builder, active, from) {
        rule_of(rules, builder, opset, builder.graph().node(id), active)?;
    }
    Ok(())
}

fn walk_back(
    manner: &Manner,
    builder: &mut Builder,
    opset: i64,
    active: &HashMap<ValueId, ValueId>,
    seeds: &[(ValueId, ValueId)],
    wrt: &[ValueId],
    scope: &str,
) -> Result<Vec<Option<ValueId>>, AutodiffError> {
    let mut pending: HashMap<ValueId, Vec<ValueId>> = HashMap::new();
    for (value, seed) in seeds.iter().filter(|(value, _)| active.contains_key(value)) {
        pending.entry(*value).or_default().push(*seed);
    }
    let path = nodes_on_path(builder, active, &seeds.iter().map(|(value, _)| *value).collect::<Vec<_>>());
    let ends: HashSet<ValueId> = wrt.iter().copied().collect();
    let mut wanted: HashMap<ValueId, ValueId> = HashMap::new();
    for id in path.into_iter().rev() {
        let node = builder.graph().node(id).clone();
        builder.enter(Origin::Backward(node.name.clone()), &format!("{}/grad", node.name));
        let mut grads = Vec::with_capacity(node.outputs.len());
        for output in &node.outputs {
            let grad = output.and_then(|output| settle(builder, &mut pending, output));
            wanted.extend(output.filter(|output| ends.contains(output)).zip(grad));
            grads.push(grad);
        }
        if grads.iter().all(Option::is_none) {
            continue;
        }
        backward(manner, builder, opset, (id, &node), grads, active, &mut pending)?;
    }
    builder.enter(Origin::Backward("parameters".into()), scope);
    for value in wrt {
        wanted.extend(settle(builder, &mut pending, *value).map(|grad| (*value, grad)));
    }
    Ok(wrt.iter().map(|value| wanted.get(value).copied()).collect())
}

/// Values that a gradient reaches some `wrt` from, each with one of those: through floating-point
/// values and quantized ones, and not through an input that has no gradient (the second one of
/// `CastLike`).
fn active_values(rules: &Rules, builder: &Builder, opset: i64, wrt: &[ValueId]) -> HashMap<ValueId, ValueId> {
    let graph = builder.graph();
    let mut active: HashMap<ValueId, ValueId> = wrt.iter().map(|value| (*value, *value)).collect();
    for node in graph.nodes() {
        let own = rules.find(&node.op, opset).ok().flatten();
        let rule = find(&node.op, opset).ok();
        let passes = |index: usize| match own {
            Some(own) => !own.is_constant(index),
            None => rule.is_none_or(|rule| !matches!(rule.inputs.at(index), Some(InputRule::Constant))),
        };
        let inputs = node.inputs.iter().enumerate().filter(|(index, _)| passes(*index));
        let source = inputs.filter_map(|(_, input)| *input).find_map(|input| active.get(&input)).copied();
        let captured = || node.captured().filter_map(|name| graph.find(name)).find_map(|id| active.get(&id).copied());
        let Some(source) = source.or_else(captured) else { continue };
        for output in node.outputs.iter().flatten() {
            let dtype = graph.fact(*output).dtype;
            let quantized = |input: &ValueId| {
                active.contains_key(input)
                    && is_quantized(graph, *input)
                    && (node.op.is("Cast") || graph.fact(*input).dtype == dtype)
            };
            let carries = || quantizes(node) || node.inputs.iter().flatten().any(quantized);
            if dtype.is_none_or(DType::is_float) || carries() {
                active.insert(*output, source);
            }
        }
    }
    active
}

/// Operators besides those that begin with `QLinear` whose integer outputs stand for floating-point
/// values, so that a gradient, which is floating-point, passes them or fails at them.
const QUANTIZING: &[&str] = &["ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QGemm", "QuantizeLinear"];

/// Operators whose rules take a quantized value as they take a floating-point one.
const MOVES: &[&str] = &[
    "Cast",
    "Concat",
    "DequantizeLinear",
    "Expand",
    "Flatten",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

fn quantizes(node: &Node) -> bool {
    QUANTIZING.contains(&node.op.name.as_str()) || node.op.name.starts_with("QLinear")
}

fn is_quantized(graph: &Graph, value: ValueId) -> bool {
    graph.fact(value).dtype.is_some_and(|dtype| !dtype.is_float() && dtype != DType::Bool)
}

fn nodes_on_path(builder: &Builder, active: &HashMap<ValueId, ValueId>, from: &[ValueId]) -> Vec<NodeId> {
    let graph = builder.graph();
    let mut needed: HashSet<ValueId> = from.iter().copied().collect();
    let mut path = Vec::new();
    for (id, node) in graph.node_ids().collect::<Vec<_>>().into_iter().rev() {
        let reaches_loss = node.outputs.iter().flatten().any(|output| needed.contains(output));
        let passes = |output: &ValueId| active.get(output).is_some_and(|source| source != output);
        if reaches_loss && node.outputs.iter().flatten().any(passes) {
            path.push(id);
            let captured = node.captured().filter_map(|name| graph.find(name));
            let read = node.inputs.iter().flatten().copied().chain(captured);
            needed.extend(read.filter(|value| active.contains_key(value)));
        }
    }
    path.reverse();
    path
}

fn settle(builder: &mut Builder, pending: &mut HashMap<ValueId, Vec<ValueId>>, value: ValueId) -> Option<ValueId> {
    let parts = pending.remove(&value)?;
    let total = match parts.as_slice() {
        [] => return None,
        [one] => *one,
        many => builder.op("Sum", many, Attributes::none()),
    };
    let fact = builder.fact(value).clone();
    builder.refine(total, &fact);
    Some(total)
}

/// The rule of a node.
enum Found<'a> {
    /// Of the caller.
    Own(&'a Arc<dyn GradientRule>),
    BuiltIn(&'static Rule),
}

/// Returns the rule of a node that a gradient must pass.
fn rule_of<'a>(
    rules: &'a Rules,
    builder: &Builder,
    opset: i64,
    node: &Node,
    active: &HashMap<ValueId, ValueId>,
) -> Result<Found<'a>, AutodiffError> {
    let (name, op) = (node.name.clone(), node.op.to_string());
    let own = rules.find(&node.op, opset);
    if let Ok(Some(rule)) = own {
        return Ok(Found::Own(rule));
    }
    find(&node.op, opset).map(Found::BuiltIn).map_err(|range| match range.or(own.err()) {
        Some((from, to)) => AutodiffError::OpsetRange { node: name, op, opset, from, to },
        None => {
            let captured = node.captured().filter_map(|name| builder.graph().find(name));
            let mut read = node.inputs.iter().flatten().copied().chain(captured);
            let source = read.find_map(|value| active.get(&value));
            let reaches = source.map_or(String::new(), |id| builder.graph().value_name(*id).to_string());
            AutodiffError::NoRule { node: name, op, opset, reaches }
        }
    })
}

fn backward(
    manner: &Manner,
    builder: &mut Builder,
    opset: i64,
    (id, node): (NodeId, &Node),
    grads: Vec<Option<ValueId>>,
    active: &HashMap<ValueId, ValueId>,
    pending: &mut HashMap<ValueId, Vec<ValueId>>,
) -> Result<(), AutodiffError> {
    let name = || node.name.clone();
    let op = || node.op.to_string();
    let rule = rule_of(&manner.rules, builder, opset, node, active)?;
    let mut ctx = Ctx::new(builder, opset, (id, node), grads).with_rules(&manner.rules);
    let rule = match rule {
        Found::Own(own) => return backward_own(own.as_ref(), &mut ctx, active, pending),
        Found::BuiltIn(rule) => rule,
    };
    let native = native::find(manner.form, &ctx);
    for (index, input) in node.inputs.iter().enumerate() {
        let Some(input) = input.filter(|input| active.contains_key(input)) else { continue };
        let native = native.and_then(|rule| rule.inputs.get(index).copied());
        let Some(rule) = native.or_else(|| rule.inputs.at(index)) else { continue };
        let moves = MOVES.contains(&node.op.name.as_str());
        let gradient = match rule {
            InputRule::Constant => continue,
            InputRule::Gradient(_) | InputRule::Each(_) if !moves && is_quantized(ctx.b.graph(), input) => {
                let reason = "it computes with quantized values".to_string();
                return Err(AutodiffError::NotImplemented { node: name(), op: op(), input: index, reason });
            }
            InputRule::Missing(reason) => {
                let reason = reason.to_string();
                return Err(AutodiffError::NotImplemented { node: name(), op: op(), input: index, reason });
            }
            InputRule::Gradient(build) => build(&mut ctx),
            InputRule::Each(build) => build(&mut ctx, index),
        };
        let gradient =
            gradient.map_err(|source| AutodiffError::Rule { node: name(), op: op(), opset, input: index, source })?;
        pending.entry(input).or_default().push(gradient);
    }
    let Inputs::Subgraphs(build) = rule.inputs else { return Ok(()) };
    let wanted = wanted(ctx.b, node, active);
    let gradients =
        build(&mut ctx, &wanted).map_err(|source| AutodiffError::Whole { node: name(), op: op(), opset, source })?;
    for (wanted, gradient) in wanted.iter().zip(gradients) {
        if let Some(gradient) = gradient {
            pending.entry(wanted.value).or_default().push(gradient);
        }
    }
    Ok(())
}

fn backward_own(
    rule: &dyn GradientRule,
    ctx: &mut Ctx<'_>,
    active: &HashMap<ValueId, ValueId>,
    pending: &mut HashMap<ValueId, Vec<ValueId>>,
) -> Result<(), AutodiffError> {
    let (node, opset) = (ctx.node(), ctx.opset());
    let (name, op) = (|| node.name.clone(), || node.op.to_string());
    let is_active = |name: &str| ctx.b.graph().find(name).is_some_and(|id| active.contains_key(&id));
    custom::check_captured(node, is_active).map_err(|source| AutodiffError::Whole {
        node: name(),
        op: op(),
        opset,
        source,
    })?;
    for (index, input) in node.inputs.iter().enumerate() {
        let Some(input) = input.filter(|input| active.contains_key(input) && !rule.is_constant(index)) else {
            continue;
        };
        let gradient = rule.gradient(ctx, index).and_then(|gradient| {
            custom::check_fact(ctx, input, gradient)?;
            Ok(gradient)
        });
        let fail = |source| AutodiffError::Rule { node: name(), op: op(), opset, input: index, source };
        pending.entry(input).or_default().push(gradient.map_err(fail)?);
    }
    Ok(())
}

/// Returns what a node with subgraphs reads and a gradient is wanted for.
fn wanted(builder: &Builder, node: &Node, active: &HashMap<ValueId, ValueId>) -> Vec<Wanted> {
    let inputs = node.inputs.iter().enumerate();
    let inputs = inputs.filter_map(|(index, input)| Some(Wanted { value: (*input)?, place: Place::Input(index) }));
    let names: std::collections::BTreeSet<&str> = node.captured().collect();
    let captured = names.into_iter().filter_map(|name| {
        Some(Wanted { value: builder.graph().find(name)?, place: Place::Captured(name.to_string()) })
    });
    inputs.chain(captured).filter(|wanted| active.contains_key(&wanted.value)).collect()
}

/// Returns true when a rule exists for the operator at this opset.
pub fn is_differentiable(op: &OpId, opset: i64) -> bool {
    find(op, opset).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Fact, check};

    /// `loss = sum(tanh(w x))`, differentiated with respect to what the letters say.
    #[test]
    fn a_value_that_a_node_computes_can_be_differentiated_by() {
        struct Case {
            wrt: &'static str,
            /// Matrix products of the backward part.
            products: usize,
        }
        let cases = [
            Case { wrt: "h", products: 0 },
            Case { wrt: "w", products: 1 },
            Case { wrt: "hw", products: 1 },
            Case { wrt: "whx", products: 2 },
            Case { wrt: "hh", products: 0 },
        ];
        for Case { wrt, products } in cases {
            let mut b = Builder::new("step");
            let w = b.input("w", Fact::fixed(DType::F32, &[2, 3]));
            let x = b.input("x", Fact::fixed(DType::F32, &[3, 4]));
            let h = b.op("MatMul", &[w, x], Attributes::none());
            let y = b.unary("Tanh", h);
            let loss = b.reduce("ReduceSum", y, &[0, 1], false);
            let ids: Vec<ValueId> = wrt
                .chars()
                .map(|letter| match letter {
                    'w' => w,
                    'x' => x,
                    _ => h,
                })
                .collect();
            let found = gradients(&mut b, 18, loss, &ids).unwrap();
            for (id, grad) in ids.iter().zip(&found) {
                let grad = grad.expect("the loss depends on it");
                assert_eq!(b.fact(grad).sizes(), b.fact(*id).sizes(), "{wrt}");
                b.mark_output(grad);
            }
            let graph = b.finish();
            check(&graph).unwrap();
            let count = graph.nodes().iter().filter(|node| node.op.is("MatMul") || node.op.is("Gemm")).count();
            assert_eq!(count, 1 + products, "{wrt}");
        }
    }
}
