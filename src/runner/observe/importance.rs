//! What a trial step does to the loss: `-sum(gradient * update)` of each unit, the gradient taken after the update.
//!
//! In the trial all trains but what is frozen in all epochs. It is a step on the next batch of the run, with the
//! learning rate of the next step (the base rate where that is zero) and the slots as they are; what has none starts
//! with fresh ones. Parameters, statistics and slots are then put back bit for bit.

use super::floats;
use crate::plan::Point;
use crate::runner::engine::Engine;
use crate::runner::phase::{Phase, Share};
use crate::runner::run::Run;
use crate::runner::schedule::lr_at;
use crate::runner::state::Snapshot;
use crate::runner::train::RunError;
use crate::training::{TrainStep, names};
use std::collections::HashMap;

/// Returns the importance of each unit.
///
/// # Errors
/// The graph of the trial cannot be built or run.
pub(super) fn importance(engine: &mut dyn Engine, run: &mut Run<'_>) -> Result<Vec<Option<f64>>, RunError> {
    let setup = run.setup;
    let Some(planner) = setup.freezing.planner else { return Ok(Vec::new()) };
    let frozen = planner.frozen_throughout();
    let mut step = setup.objective.build(
        &run.prepared,
        frozen.iter().map(String::as_str).collect(),
        true,
        Default::default(),
        setup.seed,
    )?;
    if engine.info().recomputes {
        step.recompute(&run.prepared, setup.recompute)?;
    }
    for slot in &mut step.slots {
        slot.initial = run.initial.get(&slot.name).unwrap_or(&slot.initial).clone();
    }
    let before = run.state.snapshot(engine)?;
    run.state.set_slots(engine, &step.slots, true)?;
    let mut phase = Phase::new(engine, &step, &run.state)?;
    let found = trial(engine, run, &step, &mut phase, &before);
    phase.close(engine);
    run.state.restore(engine, &before)?;
    let found = found?;
    let of_unit = |unit: &crate::modules::Unit| {
        let mut values = unit.parameters.iter().filter_map(|name| found.get(name)).peekable();
        values.peek()?;
        Some(values.sum())
    };
    Ok(planner.units().iter().map(of_unit).collect())
}

/// Returns the importance of each parameter that has a gradient.
fn trial(
    engine: &mut dyn Engine,
    run: &Run<'_>,
    step: &TrainStep,
    phase: &mut Phase,
    before: &Snapshot,
) -> Result<HashMap<String, f64>, RunError> {
    let setup = run.setup;
    let Point { epoch, after } = run.place.at;
    let index = (after * setup.accumulate.max(1)).min(setup.train.len().saturating_sub(1));
    let batch = setup.train.batch(epoch as u64, index)?;
    let number = (epoch - 1) * setup.train.len() + index + 1;
    let (steps, epochs) = (setup.steps_per_epoch() as u64, run.plan.epochs.len() as u64);
    let lr = setup.objective.lr().map(|base| {
        let started = run.place.started as u64;
        let next = lr_at(setup.schedule, base, started, steps * epochs, steps, &run.history.epochs);
        if next > 0.0 { next } else { base }
    });
    phase.backward(engine, number, &batch, Share::WHOLE)?;
    phase.update(engine, lr, None)?;
    phase.backward(engine, number, &batch, Share::WHOLE)?;
    let mut found = HashMap::new();
    for name in &step.trained {
        let port = names::grad(name);
        let Some((_, buffer)) = phase.passed().iter().find(|(own, _)| *own == port) else { continue };
        let Some(old) = before.values.get(name) else { continue };
        let (gradient, old) = (floats(&engine.read(*buffer)?), floats(old));
        let now = floats(&engine.read(run.state.value(name))?);
        let product =
            |((gradient, now), old): ((&f32, &f32), &f32)| -f64::from(*gradient) * (f64::from(*now) - f64::from(*old));
        found.insert(name.clone(), gradient.iter().zip(&now).zip(&old).map(product).sum());
    }
    Ok(found)
}
