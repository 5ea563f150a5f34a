//! A `Scan` made here: small work for each step of a sequence.

use super::Ctx;
use crate::graph::{Attributes, Builder, Dim, Fact, OpId, Origin, Subgraph, ValueId};

/// What a `Scan` runs over.
pub(super) struct Over<'a> {
    /// Values before the first step.
    pub states: &'a [ValueId],
    /// Values whose first axis is the steps.
    pub items: &'a [ValueId],
    /// Values that every step reads.
    pub captured: &'a [ValueId],
    /// Goes from the last item to the first; outputs keep the items' order.
    pub reverse: bool,
}

/// The inputs of one step, in the order of [`Over`].
pub(super) struct Step {
    pub states: Vec<ValueId>,
    pub items: Vec<ValueId>,
    pub captured: Vec<ValueId>,
}

/// Appends a `Scan`. `body` appends one step and returns the next states and what the step gives;
/// returned are the last states, then what the steps gave, stacked along a new first axis.
pub(super) fn scan(
    ctx: &mut Ctx<'_>,
    over: &Over<'_>,
    body: impl FnOnce(&mut Builder, &Step) -> (Vec<ValueId>, Vec<ValueId>),
) -> Vec<ValueId> {
    let scope = ctx.b.unique("step");
    let mut inner = Builder::new(&scope);
    inner.enter(Origin::Backward(ctx.node().name.clone()), &scope);
    let slice = |fact: &Fact| Fact { dtype: fact.dtype, shape: fact.shape.as_ref().map(|dims| dims[1..].to_vec()) };
    let mut input = |part: &str, fact: Fact| {
        let name = inner.unique(part);
        inner.input(&name, fact)
    };
    let states: Vec<ValueId> = over.states.iter().map(|id| input("state", ctx.b.fact(*id).clone())).collect();
    let items: Vec<ValueId> = over.items.iter().map(|id| input("item", slice(ctx.b.fact(*id)))).collect();
    let outer: Vec<String> = over.captured.iter().map(|id| ctx.name(*id)).collect();
    let captured = over.captured.iter().zip(&outer).map(|(id, name)| inner.input(name, ctx.b.fact(*id).clone()));
    let step = Step { captured: captured.collect(), states, items };
    let (next, given) = body(&mut inner, &step);
    let (count, outputs) = (given.len(), next.len() + given.len());
    let kept = next.len();
    for (index, value) in next.into_iter().chain(given).enumerate() {
        // tract gives every reader of a stacked value the further axis.
        let read = || inner.graph().nodes().iter().any(|node| node.inputs.contains(&Some(value)));
        let fresh = inner.graph().producer(value).is_some() && !inner.graph().outputs().contains(&value);
        let value = if fresh && (index < kept || !read()) { value } else { inner.unary("Identity", value) };
        inner.mark_output(value);
    }
    let facts: Vec<Fact> = inner.graph().outputs().iter().map(|id| inner.fact(*id).clone()).collect();
    let body = Subgraph { graph: inner.finish(), captures: outer };
    let mut attributes = Attributes::none().with("body", body).with("num_scan_inputs", over.items.len() as i64);
    if over.reverse {
        attributes.set("scan_input_directions", vec![1; over.items.len()]);
        attributes.set("scan_output_directions", vec![1; count]);
    }
    let inputs: Vec<Option<ValueId>> = over.states.iter().chain(over.items).copied().map(Some).collect();
    let results = ctx.b.ops(&OpId::standard("Scan"), &inputs, attributes, outputs);
    let steps = over.items.first().and_then(|id| ctx.b.fact(*id).dim(0).cloned()).unwrap_or(Dim::Unknown);
    for (index, (result, fact)) in results.iter().zip(facts).enumerate() {
        let fact = match over.states.get(index) {
            Some(state) => ctx.b.fact(*state).clone(),
            None => Fact { shape: fact.shape.map(|dims| [&[steps.clone()], dims.as_slice()].concat()), ..fact },
        };
        ctx.b.refine(*result, &fact);
    }
    results
}
