//! The gradient of a body that runs step by step: of Scan and of Loop.

use super::inside::Inside;
use super::{Ctx, Place, RuleError, Wanted};
use crate::graph::{Attribute, Attributes, Builder, DType, Dim, Fact, OpId, Origin, Subgraph, ValueId};

/// A node that runs a body.
pub(super) struct Steps<'a> {
    pub body: &'a Subgraph,
    pub states: Vec<State>,
    pub items: Vec<Item>,
    pub stacks: Vec<Stack>,
    /// Inputs of the body that a step back has to be given, by position: states, counters.
    pub saved: Vec<Saved>,
}

/// A value that each step passes on to the next.
pub(super) struct State {
    /// Position among the body's inputs.
    pub input: usize,
    /// Position among the body's outputs.
    pub output: usize,
    /// Position of the first value among the node's inputs.
    pub outer: usize,
    /// Position of the last value among the node's outputs.
    pub result: usize,
}

/// A sequence of which each step gets one slice.
pub(super) struct Item {
    pub input: usize,
    pub outer: usize,
    pub axis: i64,
    pub reverse: bool,
}

/// A sequence to which each step gives one slice.
pub(super) struct Stack {
    pub output: usize,
    pub result: usize,
    pub axis: i64,
    pub reverse: bool,
}

/// An input of the body that the node stacks for the steps back.
pub(super) struct Saved {
    pub input: usize,
    /// Whether it says how many steps there were, and is stacked in any case.
    pub always: bool,
    /// What is known of it besides what is known of a state.
    pub fact: Fact,
}

/// One sequence that the backward Scan goes through.
struct Source {
    inner: ValueId,
    outer: Outer,
    axis: i64,
    reverse: bool,
}

#[derive(Clone, Copy)]
enum Outer {
    Value(ValueId),
    /// Stacked by the node, from this input of its body.
    Saved(usize),
}

impl Steps<'_> {
    /// Appends the backward Scan and returns the gradients of what is wanted.
    ///
    /// # Errors
    /// Those of an operator in the body.
    pub fn gradients(&self, ctx: &mut Ctx<'_>, wanted: &[Wanted]) -> Result<Vec<Option<ValueId>>, RuleError> {
        let names: Vec<&str> = wanted.iter().filter_map(|wanted| captured(wanted)).collect();
        let mut inside = Inside::of(ctx, self.body, &self.facts(ctx), &names)?;
        let carried = self.carried(&inside, wanted);
        let mut given = Vec::new();
        let mut starts = Vec::new();
        let mut seeds = Vec::new();
        for state in &carried {
            let (value, output) = (inside.inputs[state.input], inside.outputs[state.output]);
            let grad = inside.input("state.grad", inside.b.fact(value).clone());
            seeds.push((output, grad));
            given.push(grad);
            starts.push(self.last(ctx, state)?);
        }
        let mut sources = Vec::new();
        for stack in &self.stacks {
            let Some(grad) = ctx.grad(stack.result) else { continue };
            let slice = slice(ctx.b.fact(grad), stack.axis).or(inside.b.fact(inside.outputs[stack.output]));
            let item = inside.input("item.grad", slice);
            seeds.push((inside.outputs[stack.output], item));
            let outer = Outer::Value(grad);
            sources.push(Source { inner: item, outer, axis: stack.axis, reverse: stack.reverse });
        }
        for saved in &self.saved {
            let (inner, outer) = (inside.inputs[saved.input], Outer::Saved(saved.input));
            sources.push(Source { inner, outer, axis: 0, reverse: false });
        }
        for item in &self.items {
            let (inner, outer) = (inside.inputs[item.input], Outer::Value(ctx.x(item.outer)?));
            sources.push(Source { inner, outer, axis: item.axis, reverse: item.reverse });
        }
        let items: Vec<&Item> = self.items.iter().filter(|item| is_wanted(wanted, item.outer)).collect();
        let wrt: Vec<ValueId> = carried.iter().map(|state| inside.inputs[state.input]).collect();
        let wrt = wrt.into_iter().chain(items.iter().map(|item| inside.inputs[item.input]));
        let wrt: Vec<ValueId> = wrt.chain(names.iter().filter_map(|name| inside.b.graph().find(name))).collect();
        let grads = inside.pull_back(&seeds, &wrt)?;
        let mut grads = grads.into_iter();
        let mut outputs = Vec::new();
        for grad in &given {
            let next = grads.next().flatten();
            outputs.push(next.unwrap_or_else(|| zeros(&mut inside.b, *grad)));
        }
        let of_items: Vec<Option<ValueId>> = grads.by_ref().take(items.len()).collect();
        let mut summed = Vec::new();
        for (name, grad) in names.iter().zip(grads) {
            let (Some(grad), Some(outer)) = (grad, ctx.b.graph().find(name)) else { continue };
            let sum = inside.input("sum", ctx.b.fact(outer).clone());
            let next = inside.b.add(sum, grad);
            given.push(sum);
            outputs.push(next);
            starts.push(zeros(ctx.b, outer));
            summed.push(*name);
        }
        let always = given.len();
        let stacked: Vec<&&Item> =
            items.iter().zip(&of_items).filter(|(_, grad)| grad.is_some()).map(|(i, _)| i).collect();
        outputs.extend(of_items.iter().flatten());
        let counter = self.saved.iter().find(|saved| saved.always).map(|saved| inside.inputs[saved.input]);
        let counter = counter.or(self.items.first().map(|item| inside.inputs[item.input]));
        sources.sort_by_key(|source| Some(source.inner) != counter);
        given.extend(sources.iter().map(|source| source.inner));
        // The first sequence says how many steps there are.
        let (body, kept) = inside.finish(&given, always + 1, &outputs);
        let sources: Vec<Source> =
            sources.into_iter().zip(&kept[always..]).filter(|(_, kept)| **kept).map(|(s, _)| s).collect();
        let saved = self.save(ctx, &sources);
        let mut inputs: Vec<Option<ValueId>> = starts.into_iter().map(Some).collect();
        inputs.extend(sources.iter().map(|source| match source.outer {
            Outer::Value(value) => Some(value),
            Outer::Saved(input) => saved.iter().find(|(of, _)| *of == input).map(|(_, value)| *value),
        }));
        let flags = |flags: &mut dyn Iterator<Item = bool>| flags.map(|flag| i64::from(!flag)).collect::<Vec<i64>>();
        let attributes = Attributes::none()
            .with("body", body)
            .with("num_scan_inputs", sources.len() as i64)
            .with("scan_input_axes", sources.iter().map(|source| source.axis).collect::<Vec<i64>>())
            .with("scan_input_directions", flags(&mut sources.iter().map(|source| source.reverse)))
            .with("scan_output_axes", stacked.iter().map(|item| item.axis).collect::<Vec<i64>>())
            .with("scan_output_directions", flags(&mut stacked.iter().map(|item| item.reverse)));
        let results = ctx.b.ops(&OpId::standard("Scan"), &inputs, attributes, outputs.len());
        let place = |wanted: &Wanted| -> Option<usize> {
            match &wanted.place {
                Place::Input(index) => {
                    let state = carried.iter().position(|state| state.outer == *index);
                    let item = || stacked.iter().position(|item| item.outer == *index).map(|at| always + at);
                    state.or_else(item)
                }
                Place::Captured(name) => summed.iter().position(|of| of == name).map(|at| carried.len() + at),
            }
        };
        let gradient = |wanted: &Wanted| {
            let result = results[place(wanted)?];
            let fact = ctx.b.fact(wanted.value).clone();
            ctx.b.refine(result, &fact);
            Some(result)
        };
        Ok(wanted.iter().map(gradient).collect())
    }

    /// Facts of what the body is given.
    fn facts(&self, ctx: &Ctx<'_>) -> Vec<Fact> {
        let mut facts: Vec<Fact> = vec![Fact::default(); self.body.formal_inputs().len()];
        let outer = |index: usize| ctx.node().input(index).map_or_else(Fact::default, |id| ctx.b.fact(id).clone());
        for saved in &self.saved {
            facts[saved.input] = saved.fact.clone();
        }
        for state in &self.states {
            facts[state.input] = outer(state.outer);
        }
        for item in &self.items {
            facts[item.input] = slice(&outer(item.outer), item.axis);
        }
        facts
    }

    /// Returns the states that depend on something wanted, be it by way of earlier steps.
    fn carried(&self, inside: &Inside, wanted: &[Wanted]) -> Vec<&State> {
        let mut on: Vec<ValueId> = wanted
            .iter()
            .filter_map(|wanted| match &wanted.place {
                Place::Captured(name) => inside.b.graph().find(name),
                Place::Input(index) => {
                    let state = self.states.iter().find(|state| state.outer == *index).map(|state| state.input);
                    let item = || self.items.iter().find(|item| item.outer == *index).map(|item| item.input);
                    state.or_else(item).map(|input| inside.inputs[input])
                }
            })
            .collect();
        loop {
            let outputs: Vec<ValueId> = self.states.iter().map(|state| inside.outputs[state.output]).collect();
            let depends = inside.depending(&outputs, &on);
            let more = self.states.iter().zip(depends).find(|(state, depends)| {
                let input = inside.inputs[state.input];
                *depends && !on.contains(&input) && inside.b.fact(input).dtype.is_none_or(DType::is_float)
            });
            match more {
                Some((state, _)) => on.push(inside.inputs[state.input]),
                None => break,
            }
        }
        self.states.iter().filter(|state| on.contains(&inside.inputs[state.input])).collect()
    }

    /// Returns the gradient of a last state.
    fn last(&self, ctx: &mut Ctx<'_>, state: &State) -> Result<ValueId, RuleError> {
        match ctx.grad(state.result) {
            Some(grad) => Ok(grad),
            None => {
                let first = ctx.x(state.outer)?;
                Ok(zeros(ctx.b, first))
            }
        }
    }

    /// Makes the node stack what the sources need of its body's inputs, and returns the sequences.
    fn save(&self, ctx: &mut Ctx<'_>, sources: &[Source]) -> Vec<(usize, ValueId)> {
        let inputs: Vec<usize> = sources
            .iter()
            .filter_map(|source| if let Outer::Saved(input) = source.outer { Some(input) } else { None })
            .collect();
        if inputs.is_empty() {
            return Vec::new();
        }
        let scope = ctx.b.unique("saved");
        let count = self.body.graph.outputs().len();
        let mut inner = Builder::extend(self.body.graph.clone());
        inner.reserve(ctx.b.graph().values().map(|(_, value)| value.name.clone()));
        inner.enter(Origin::Forward, &scope);
        let facts = self.facts(ctx);
        let mut stacked = Vec::new();
        for input in &inputs {
            let copy = inner.unary("Identity", self.body.formal_inputs()[*input]);
            inner.mark_output(copy);
            let shape = facts[*input].shape.as_ref().map(|dims| [&[Dim::Unknown], dims.as_slice()].concat());
            stacked.push(Fact { dtype: facts[*input].dtype, shape });
        }
        let body = Subgraph { graph: inner.finish(), captures: self.body.captures.clone() };
        let mut attributes = ctx.attributes().clone();
        attributes.set("body", body);
        for (_, value) in attributes.iter_mut().filter(|(name, _)| name.starts_with("scan_output_")) {
            if let Attribute::Ints(values) = value {
                values.resize(values.len() + inputs.len(), 0);
            }
        }
        // Loop's body returns the condition first, which the node does not.
        let first = count - usize::from(ctx.node().op.is("Loop"));
        let values = ctx.b.extend_node(ctx.id(), attributes, first, &stacked);
        inputs.into_iter().zip(values).collect()
    }
}

fn captured(wanted: &Wanted) -> Option<&str> {
    match &wanted.place {
        Place::Captured(name) => Some(name),
        Place::Input(_) => None,
    }
}

fn is_wanted(wanted: &[Wanted], outer: usize) -> bool {
    wanted.iter().any(|wanted| wanted.place == Place::Input(outer))
}

/// Returns the fact of one slice of a sequence.
fn slice(fact: &Fact, axis: i64) -> Fact {
    let shape = fact.shape.as_ref().and_then(|dims| {
        let count = i64::try_from(dims.len()).ok()?;
        let axis =
            usize::try_from(if axis < 0 { axis + count } else { axis }).ok().filter(|axis| *axis < dims.len())?;
        Some(dims.iter().enumerate().filter(|(index, _)| *index != axis).map(|(_, dim)| dim.clone()).collect())
    });
    Fact { dtype: fact.dtype, shape }
}

fn zeros(b: &mut Builder, like: ValueId) -> ValueId {
    let zero = b.like(like, 0.0);
    b.expand_like(zero, like)
}
