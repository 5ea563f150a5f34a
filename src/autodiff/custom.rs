//! Gradient rules of the caller, beside the built-in ones.
//!
//! A [`Rules`] is a value that is passed on: to [`gradients_of`](super::gradients_of) in a [`Manner`](super::Manner), or
//! by whoever builds the graphs of a model. There is no list of the process that rules are added to.

use super::{Ctx, RuleError, find, find_decomposition, is_newer};
use crate::graph::{FUNCTION_PATH, Graph, Node, OpId, ValueId};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// The gradient of an operator, by the caller: of one that has no built-in rule, or in place of one that has.
///
/// The rule is asked wherever a gradient must pass a node of the operator and for nothing else: not for an input that
/// nobody wants a gradient of, and not where all before the node is frozen. Nodes of a loss count as those of the model
/// where the loss is written in such operators. It appends operators that the engine runs,
/// those of the default domain at opset 18 to 21 for graphs that any engine can run.
///
/// A model is brought to opset 18 to 21 before, and its ONNX functions are replaced by their bodies: a rule is asked for
/// the operators in a function, and not for the function. Of the standard
/// operators, `BatchNormalization`, `Dropout`, those that draw random numbers and what no opset up to 21 has take
/// another form before gradients are built: a rule for them is not asked. Where a node has a rule of the caller, it is
/// neither taken apart nor made one node with others. In the graphs of `If`, `Loop` and `Scan` rules hold as in the
/// main graph; a node that reads outer values in graphs of its own cannot have one.
///
/// [`GradCheck`](super::GradCheck) compares a rule with finite differences.
///
/// ```
/// use freeze_plan::autodiff::{Ctx, GradientRule, RuleError};
/// use freeze_plan::graph::ValueId;
///
/// /// `Y = X^-1` has the gradient `-Y^T dY Y^T`.
/// struct Inverse;
///
/// impl GradientRule for Inverse {
///     fn domain(&self) -> &str {
///         "com.microsoft"
///     }
///
///     fn op(&self) -> &str {
///         "Inverse"
///     }
///
///     fn gradient(&self, ctx: &mut Ctx<'_>, _input: usize) -> Result<ValueId, RuleError> {
///         let (dy, y) = (ctx.dy()?, ctx.y(0)?);
///         let yt = ctx.b.transpose(y, &[1, 0]);
///         let product = ctx.b.op("MatMul", &[yt, dy], Default::default());
///         let product = ctx.b.op("MatMul", &[product, yt], Default::default());
///         Ok(ctx.b.unary("Neg", product))
///     }
/// }
/// ```
pub trait GradientRule: Send + Sync {
    /// Returns the domain of the operator; the standard operators have the empty one.
    fn domain(&self) -> &str;

    /// Returns the operator's type.
    fn op(&self) -> &str;

    /// Returns the versions of the domain for which the rule is right; default all.
    fn opsets(&self) -> RangeInclusive<i64> {
        1..=i64::MAX
    }

    /// Returns a number to raise when the rule gives another gradient than before; default 0. A checkpoint holds it, and a
    /// run that was begun with another does not go on.
    fn version(&self) -> u64 {
        0
    }

    /// Returns true for an input that has no gradient: a shape, an index, a flag. Default none.
    fn is_constant(&self, _input: usize) -> bool {
        false
    }

    /// Appends the gradient of an input, which has the input's dtype and shape, and returns it.
    ///
    /// # Errors
    /// The gradient of this node cannot be built; [`RuleError::Unsupported`] takes a reason.
    fn gradient(&self, ctx: &mut Ctx<'_>, input: usize) -> Result<ValueId, RuleError>;
}

/// Gradient rules of the caller; by default none. A clone is cheap.
#[derive(Clone, Default)]
pub struct Rules {
    list: Vec<Arc<dyn GradientRule>>,
    versions: BTreeMap<String, i64>,
}

impl Rules {
    /// Returns no rules.
    pub fn new() -> Rules {
        Rules::default()
    }

    /// Returns the rules with one more, which goes before those that were there.
    pub fn with(self, rule: impl GradientRule + 'static) -> Rules {
        self.with_shared(Arc::new(rule))
    }

    /// As [`Rules::with`], for a rule that is shared.
    pub fn with_shared(mut self, rule: Arc<dyn GradientRule>) -> Rules {
        self.list.push(rule);
        self
    }

    /// Returns the rules for a model that imports these versions of domains. Of a domain that is not named, version 1
    /// is taken.
    pub fn at(mut self, opsets: &BTreeMap<String, i64>) -> Rules {
        self.versions = opsets.clone();
        self
    }

    /// Returns true when there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns true when a node of a model at this opset has a rule of the caller.
    pub fn holds(&self, op: &OpId, opset: i64) -> bool {
        matches!(self.find(op, opset), Ok(Some(_)))
    }

    /// Returns what a person should know: for which nodes of the graph and of graphs in it rules stand in for built-in
    /// ones, and which are not used.
    pub fn notes(&self, graph: &Graph, opset: i64) -> Vec<String> {
        self.list.iter().map(|rule| self.note(rule.as_ref(), graph, opset)).collect()
    }

    /// Returns the operators of a graph and of graphs in it that have a rule of the caller, with the rule's
    /// [version](GradientRule::version).
    #[cfg(feature = "runner")]
    pub(crate) fn in_force(&self, graph: &Graph, opset: i64) -> BTreeMap<String, u64> {
        let rule = |node: &&Node| self.find(&node.op, opset).ok().flatten().filter(|_| !is_replaced(&node.op));
        let used =
            graph.nodes_within().into_iter().filter_map(|node| Some((node.op.to_string(), rule(&node)?.version())));
        used.collect()
    }

    /// Returns the rule of an operator; `None` where there is none.
    ///
    /// # Errors
    /// There is none for the version, but for these.
    pub(super) fn find(&self, op: &OpId, opset: i64) -> Result<Option<&Arc<dyn GradientRule>>, (i64, i64)> {
        let version = self.version(&op.domain, opset);
        let mut range = None;
        for rule in self.list.iter().rev().filter(|rule| rule.domain() == op.domain && rule.op() == op.name) {
            let opsets = rule.opsets();
            if opsets.contains(&version) {
                return Ok(Some(rule));
            }
            range = Some((*opsets.start(), *opsets.end()));
        }
        range.map_or(Ok(None), Err)
    }

    fn version(&self, domain: &str, opset: i64) -> i64 {
        if domain.is_empty() { opset } else { self.versions.get(domain).copied().unwrap_or(1) }
    }

    fn note(&self, rule: &dyn GradientRule, graph: &Graph, opset: i64) -> String {
        let op = OpId { domain: rule.domain().into(), name: rule.op().into() };
        let version = self.version(&op.domain, opset);
        let nodes = graph.nodes_within().into_iter().filter(|node| node.op == op).count();
        if is_replaced(&op) {
            return format!("{op} takes another form before gradients are built: its own gradient rule is not used");
        }
        if graph.nodes_within().into_iter().any(|node| is_inside(node, &op)) {
            return format!(
                "{op} is a function of the model, whose body is differentiated: its own gradient rule is not used"
            );
        }
        if nodes == 0 {
            return format!("no node of the model or its loss is {op}: its own gradient rule is not used");
        }
        if !rule.opsets().contains(&version) {
            let (from, to) = (*rule.opsets().start(), *rule.opsets().end());
            return format!("the own gradient rule of {op} is for versions {from} to {to}, the model has {version}");
        }
        let built_in = find(&op, opset).is_ok() || find_decomposition(&op, version).is_some();
        let instead = if built_in { " in place of the built-in one" } else { "" };
        format!("{op} has an own gradient rule{instead} ({nodes} node{})", if nodes == 1 { "" } else { "s" })
    }
}

/// Returns true for a standard operator whose nodes become others before gradients are built.
fn is_replaced(op: &OpId) -> bool {
    is_newer(op) || op.is("BatchNormalization") || op.is_random()
}

/// Returns true for a node that comes from the body of a function.
fn is_inside(node: &Node, function: &OpId) -> bool {
    let calls = |path: &String| format!("{path}/").contains(&format!(":{}/", function.name));
    node.metadata.iter().any(|(key, path)| key == FUNCTION_PATH && calls(path))
}

impl FromIterator<Box<dyn GradientRule>> for Rules {
    fn from_iter<I: IntoIterator<Item = Box<dyn GradientRule>>>(rules: I) -> Rules {
        rules.into_iter().fold(Rules::new(), |rules, rule| rules.with_shared(Arc::from(rule)))
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |rule: &Arc<dyn GradientRule>| OpId { domain: rule.domain().into(), name: rule.op().into() };
        f.debug_list().entries(self.list.iter().map(|rule| name(rule).to_string())).finish()
    }
}

/// Refuses a gradient of the caller's that is not of the input's dtype and shape.
pub(super) fn check_fact(ctx: &Ctx<'_>, input: ValueId, gradient: ValueId) -> Result<(), RuleError> {
    let (of, found) = (ctx.b.fact(input), ctx.b.fact(gradient));
    let dtype = of.dtype.zip(found.dtype).is_none_or(|(of, found)| of == found);
    let shape = of.shape.as_ref().zip(found.shape.as_ref()).is_none_or(|(of, found)| {
        let differ =
            |(a, b): (&crate::graph::Dim, &crate::graph::Dim)| a.known().zip(b.known()).is_some_and(|(a, b)| a != b);
        of.len() == found.len() && !of.iter().zip(found).any(differ)
    });
    if dtype && shape {
        return Ok(());
    }
    Err(RuleError::Unsupported(format!("the own rule gives {found}, the input is {of}")))
}

/// Refuses a node whose graphs read a value that a gradient is wanted for: a rule of the caller's gives those of inputs.
pub(super) fn check_captured(node: &Node, active: impl Fn(&str) -> bool) -> Result<(), RuleError> {
    match node.captured().find(|name| active(name)) {
        Some(name) => Err(RuleError::Unsupported(format!(
            "an own rule gives the gradients of inputs, and a graph of the node reads \"{name}\""
        ))),
        None => Ok(()),
    }
}
