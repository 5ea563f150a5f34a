//! The graphs of control flow, run again and differentiated.
//!
//! The backward form of a node with a subgraph is a node with another subgraph, which holds the
//! forward nodes once more and their gradients behind them.

use super::{AutodiffError, Ctx, RuleError, Rules, active_values, pull_back};
use crate::graph::{Builder, Fact, Graph, Node, Origin, Subgraph, Tensor, ValueId, prune};
use std::collections::{HashMap, HashSet};

/// Most elements of a captured constant that a backward graph gets as its own, so that rules know it.
const SMALL: usize = 1024;

/// A subgraph's nodes in a graph of their own.
pub(super) struct Inside {
    pub b: Builder,
    /// The values that the node gives, by position.
    pub inputs: Vec<ValueId>,
    /// What the subgraph returns, by position.
    pub outputs: Vec<ValueId>,
    scope: String,
    opset: i64,
    rules: Rules,
}

impl Inside {
    /// Copies a subgraph of the node. `facts` are those of the values that the node gives; captured
    /// values among `wanted` stay captured, others that are small constants become constants.
    ///
    /// # Errors
    /// A node in it draws random numbers, which it would not draw again.
    pub fn of(ctx: &mut Ctx<'_>, body: &Subgraph, facts: &[Fact], wanted: &[&str]) -> Result<Inside, RuleError> {
        refuse_random(&body.graph)?;
        let scope = ctx.b.unique("inside");
        let mut b = Builder::new(&scope);
        b.reserve(ctx.b.graph().values().map(|(_, value)| value.name.clone()));
        b.enter(Origin::Backward(ctx.node().name.clone()), &scope);
        let inner = &body.graph;
        let mut map: HashMap<ValueId, ValueId> = HashMap::new();
        let nested: HashSet<&str> = inner.nodes().iter().flat_map(Node::captured).collect();
        for (id, fact) in body.formal_inputs().iter().zip(facts) {
            let fact = fact.or(inner.fact(*id));
            let input = b.input(inner.value_name(*id), fact);
            map.insert(*id, input);
            apart(&mut b, ctx, &nested, input);
        }
        let inputs: Vec<ValueId> = body.formal_inputs().iter().filter_map(|id| map.get(id).copied()).collect();
        for id in &inner.inputs()[inputs.len()..] {
            let name = inner.value_name(*id);
            let outer = ctx.b.graph().find(name);
            let constant = outer.and_then(|id| ctx.b.graph().constant(id)).filter(|tensor| tensor.len() <= SMALL);
            let own = constant.filter(|_| !wanted.contains(&name) && !nested.contains(name));
            let value = match own {
                Some(tensor) => b.constant("captured", tensor),
                None => b.input(name, outer.map_or_else(Fact::default, |id| ctx.b.fact(id).clone())),
            };
            map.insert(*id, value);
        }
        for (id, ..) in inner.initializers() {
            let value = b.copy_value(inner, id);
            map.insert(id, value);
            apart(&mut b, ctx, &nested, value);
        }
        for node in inner.nodes() {
            let given: Vec<Option<ValueId>> = node.inputs.iter().map(|id| map.get(&(*id)?).copied()).collect();
            let made = b.copy_inferred(inner, node, &given);
            made.iter().flatten().for_each(|id| apart(&mut b, ctx, &nested, *id));
            map.extend(node.outputs.iter().zip(made).filter_map(|(old, new)| Some(((*old)?, new?))));
        }
        let outputs = inner.outputs().iter().map(|id| map[id]).collect();
        Ok(Inside { b, inputs, outputs, scope, opset: ctx.opset(), rules: ctx.rules().clone() })
    }

    /// Adds a value that the node will give, named after a part.
    pub fn input(&mut self, part: &str, fact: Fact) -> ValueId {
        self.enter();
        let name = self.b.unique(part);
        self.b.input(&name, fact)
    }

    /// Returns an outer value.
    pub fn captured(&mut self, ctx: &Ctx<'_>, value: ValueId) -> ValueId {
        let name = ctx.name(value);
        match self.b.graph().find(&name) {
            Some(known) => known,
            None => self.b.input(&name, ctx.b.fact(value).clone()),
        }
    }

    /// Returns which of the values depend on some of `on`.
    pub fn depending(&self, values: &[ValueId], on: &[ValueId]) -> Vec<bool> {
        let active = active_values(&self.rules, &self.b, self.opset, on);
        values.iter().map(|value| active.contains_key(value)).collect()
    }

    /// Appends the gradients of `wrt` where those of some values are given.
    ///
    /// # Errors
    /// Those of a node in the subgraph.
    pub fn pull_back(
        &mut self,
        seeds: &[(ValueId, ValueId)],
        wrt: &[ValueId],
    ) -> Result<Vec<Option<ValueId>>, RuleError> {
        let inside = |error: AutodiffError| RuleError::Inside(Box::new(error));
        let grads = pull_back(&self.rules, &mut self.b, self.opset, seeds, wrt, &self.scope).map_err(inside)?;
        self.enter();
        Ok(grads)
    }

    /// Returns the subgraph that gives `outputs`, and which of `given` it reads. The first `always`
    /// of them are inputs in any case, the others where they are read or `keep` says so.
    pub fn finish(mut self, given: &[ValueId], always: usize, outputs: &[ValueId]) -> (Subgraph, Vec<bool>) {
        self.enter();
        let mut results: Vec<ValueId> = Vec::new();
        for output in outputs {
            let graph = self.b.graph();
            let read = graph.nodes().iter().any(|node| node.inputs.contains(&Some(*output)));
            let fresh = graph.producer(*output).is_some() && !results.contains(output) && !read;
            results.push(if fresh { *output } else { self.b.unary("Identity", *output) });
        }
        let mut graph = self.b.finish();
        graph.outputs = results;
        let pruned = prune(&graph);
        let used = used(&pruned);
        let reads = |id: &ValueId| used.contains(graph.value_name(*id));
        let kept: Vec<bool> = given.iter().enumerate().map(|(index, id)| index < always || reads(id)).collect();
        let formal: Vec<ValueId> = given.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(id, _)| *id).collect();
        let captured: Vec<ValueId> =
            graph.inputs.iter().filter(|id| !given.contains(id) && reads(id)).copied().collect();
        let captures = captured.iter().map(|id| graph.value_name(*id).to_string()).collect();
        graph.inputs = formal.into_iter().chain(captured).collect();
        (Subgraph { graph: prune(&graph), captures }, kept)
    }

    fn enter(&mut self) {
        let origin = Origin::Backward(self.scope.clone());
        let scope = self.scope.clone();
        self.b.enter(origin, &scope);
    }
}

/// Gives a value of a subgraph another name where a value around it has the same. The forward node may come before that
/// value, the backward one comes behind it and would define it again.
fn apart(b: &mut Builder, ctx: &Ctx<'_>, nested: &HashSet<&str>, value: ValueId) {
    let name = b.graph().value_name(value).to_string();
    if ctx.b.graph().find(&name).is_some() && !nested.contains(name.as_str()) {
        let own = b.unique(&name);
        b.rename(value, &own);
    }
}

fn used(graph: &Graph) -> HashSet<String> {
    let read = graph.nodes().iter().flat_map(|node| {
        let inputs = node.inputs.iter().flatten().map(|id| graph.value_name(*id).to_string());
        inputs.chain(node.captured().map(ToString::to_string))
    });
    read.chain(graph.outputs().iter().map(|id| graph.value_name(*id).to_string())).collect()
}

fn refuse_random(graph: &Graph) -> Result<(), RuleError> {
    for node in graph.nodes() {
        let drops = || node.input(2).is_some_and(|flag| !is_false(graph.constant(flag)));
        let random = match node.op.name.as_str() {
            "RandomNormal" | "RandomNormalLike" | "RandomUniform" | "RandomUniformLike" | "Bernoulli"
            | "Multinomial" => true,
            "Dropout" => drops(),
            _ => false,
        };
        if random && node.op.domain.is_empty() {
            let reason = format!("node \"{}\" in it ({}) would draw other numbers when run again", node.name, node.op);
            return Err(RuleError::Unsupported(reason));
        }
        for (_, value) in node.attributes.iter() {
            if let crate::graph::Attribute::Graph(inner) = value {
                refuse_random(&inner.graph)?;
            }
        }
    }
    Ok(())
}

fn is_false(flag: Option<Tensor>) -> bool {
    flag.and_then(|tensor| tensor.to_f64s()).is_some_and(|values| values == [0.0])
}
