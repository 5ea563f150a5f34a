//! Gradients of several batches as those of one.
//!
//! The train graph of a step writes `P.grad`. Here it also reads what it wrote for the batch before,
//! as `P.grad.sum` from the same buffer, and writes
//! `P.grad = (accumulate.keep ? P.grad.sum : 0) + accumulate.weight P.grad`. With the weight of a
//! batch its rows over those of the update, and `keep` false for the first, the last `P.grad` is the
//! gradient of one batch of all rows, where the loss is a mean over rows.

use super::{TrainStep, TrainingError, check_in_place, names};
use crate::graph::{Builder, DType, Fact, Model, Origin, check};

/// Returns the step with a train graph that adds gradients up.
///
/// # Errors
/// A name is taken by the model.
pub(super) fn accumulating(step: TrainStep) -> Result<TrainStep, TrainingError> {
    if step.passed.is_empty() {
        return Ok(step);
    }
    let graph = &step.train.graph;
    let mut b = Builder::extend(graph.clone());
    let taken = |name: &str, meaning: &str| match graph.find(name) {
        Some(_) => Err(TrainingError::Collision { name: name.into(), meaning: meaning.into() }),
        None => Ok(()),
    };
    taken(names::WEIGHT, "the weight of a batch")?;
    taken(names::KEEP, "whether gradients are kept")?;
    let weight = b.input(names::WEIGHT, Fact::fixed(DType::F32, &[]));
    let keep = b.input(names::KEEP, Fact::fixed(DType::Bool, &[]));
    let mut pairs = Vec::with_capacity(step.passed.len());
    for (name, fact) in &step.passed {
        let sum = names::sum(name);
        taken(&sum, "a sum of gradients")?;
        let own = graph.find(name).expect("invariant: what is passed on is an output of the train graph");
        b.enter(Origin::Update(name.clone()), &format!("{name}/accumulate"));
        let batch = b.unique("batch");
        b.rename(own, &batch);
        let before = b.input(&sum, fact.clone());
        let (zero, dtype) = (b.like(before, 0.0), b.dtype(before));
        let kept = b.select(keep, before, zero);
        let share = if dtype == DType::F32 { weight } else { b.cast(weight, dtype) };
        let added = b.mul(own, share);
        let total = b.add(kept, added);
        b.refine(total, fact);
        b.rename(total, name);
        b.replace_output(own, total);
        pairs.push((sum, name.clone()));
    }
    let graph = b.finish();
    check(&graph).map_err(|source| TrainingError::Check { graph: "train", source })?;
    check_in_place(&graph, &pairs)?;
    Ok(TrainStep { train: Model { graph, ..step.train }, accumulates: true, ..step })
}
