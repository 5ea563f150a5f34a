//! The train loop: phases of epochs, steps, evaluation, and what each reports.

use super::engine::{Engine, EngineError};
use super::evaluator::Evaluator;
use super::event::RunEvent;
use super::initial::initialized;
use super::metrics::peak_bytes;
use super::phase::{Phase, Share};
use super::schedule::{Schedule, lr_at};
use super::state::State;
use crate::checkpoint::{self, Checkpoint, CheckpointError};
use crate::data::Batches;
use crate::error::ErrorKind;
use crate::graph::Tensor;
use crate::plan::{BatchNorm, FreezePlan, Segment, segments};
use crate::training::{Objective, Prepared, Rates, Recompute, TrainStep, TrainingError, statistics_of_frozen};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Everything a run needs.
pub struct Setup<'a> {
    /// The model.
    pub prepared: &'a Prepared,
    /// What is frozen when.
    pub plan: &'a FreezePlan,
    /// What BatchNormalization does in a frozen unit.
    pub batch_norm: BatchNorm,
    /// What is minimized, and how.
    pub objective: Objective<'a>,
    /// Learning rate over the run, where the objective has a base rate.
    pub schedule: &'a Schedule,
    /// Training data; its columns are the model's inputs and `target`.
    pub train: &'a Batches,
    /// Evaluation data.
    pub eval: Option<&'a Batches>,
    /// Folder for a checkpoint after each epoch.
    pub checkpoints: Option<PathBuf>,
    /// Seed of everything random but the order of rows.
    pub seed: u64,
    /// Which modules compute their activations a second time instead of keeping them.
    pub recompute: &'a Recompute,
    /// Steps from one `Step` event to the next.
    pub log_every: usize,
    /// Batches of one step, at least 1: their gradients are averaged. What is left at the end of an
    /// epoch is a step of fewer.
    pub accumulate: usize,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// True when it was asked to stop before its end.
    pub stopped: bool,
    /// Metrics of the trained model on the eval data.
    pub metrics: BTreeMap<String, f64>,
    /// Parameters and running statistics.
    pub values: BTreeMap<String, Tensor>,
    /// Slots of what trained last.
    pub slots: BTreeMap<String, Tensor>,
}

/// A run that failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RunError {
    #[error("the loss is {loss} in epoch {epoch}, step {step} {}", rate(.lr))]
    NotFinite { loss: f64, epoch: usize, step: usize, lr: Option<f64> },
    #[error("the starting value of \"{name}\" is {found}, expected {expected}")]
    Initial { name: String, expected: String, found: String },
    #[error("the eval loss of the trained model is {loss}")]
    EvalNotFinite { loss: f64 },
    #[error("frozen initializer \"{name}\" changed between epoch {from} and {to}")]
    Moved { name: String, from: usize, to: usize },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Training(#[from] TrainingError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

fn rate(lr: &Option<f64>) -> String {
    lr.map_or_else(String::new, |lr| format!(" (learning rate {lr})"))
}

impl RunError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RunError::NotFinite { .. } | RunError::EvalNotFinite { .. } | RunError::Moved { .. } => ErrorKind::Check,
            RunError::Initial { .. } => ErrorKind::BadInput,
            RunError::Engine(error) => error.kind(),
            RunError::Training(error) => error.kind(),
            RunError::Checkpoint(error) => error.kind(),
        }
    }
}

/// Leaves out what JSON cannot hold.
fn finite(metrics: BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    metrics.into_iter().filter(|(_, value)| value.is_finite()).collect()
}

/// The graphs of a phase.
struct Built {
    step: TrainStep,
    /// Values of what is frozen.
    held: Vec<(String, Tensor)>,
    /// Modules that are recomputed.
    recomputed: Vec<String>,
}

/// A run in progress. [`train`] drives it; tests step through it to look at the state.
pub struct Run<'a> {
    setup: &'a Setup<'a>,
    /// The model with its starting values.
    prepared: Prepared,
    /// Starting values of slots that are not those of the step.
    initial: BTreeMap<String, Tensor>,
    /// Parameters, statistics and slots.
    pub state: State,
    evaluator: Evaluator,
    /// The step after which the state was last evaluated, with what that gave.
    evaluated: Option<(usize, BTreeMap<String, f64>)>,
    started: usize,
}

/// Trains to the end of the plan, or until `stop` is set, which ends the run after the step.
///
/// # Errors
/// A graph cannot be built or run, the loss is not finite, a frozen value moved, or a checkpoint
/// cannot be written.
pub fn train(
    engine: &mut dyn Engine,
    setup: &Setup<'_>,
    report: &mut dyn FnMut(RunEvent),
    stop: &AtomicBool,
) -> Result<Outcome, RunError> {
    let clock = Instant::now();
    let result = whole(engine, setup, report, stop);
    let (status, error, metrics) = match &result {
        Ok(outcome) => (if outcome.stopped { "stopped" } else { "done" }, None, outcome.metrics.clone()),
        Err(error) => ("failed", Some(error.to_string()), BTreeMap::new()),
    };
    report(RunEvent::End { status: status.into(), error, metrics, seconds: clock.elapsed().as_secs_f64() });
    result
}

fn whole(
    engine: &mut dyn Engine,
    setup: &Setup<'_>,
    report: &mut dyn FnMut(RunEvent),
    stop: &AtomicBool,
) -> Result<Outcome, RunError> {
    let mut run = Run::new(engine, setup, report)?;
    let mut stopped = false;
    for segment in segments(setup.plan) {
        if run.segment(engine, &segment, report, stop)? {
            stopped = true;
            break;
        }
    }
    let metrics = run.evaluate(engine)?;
    if let Some(loss) = metrics.get("loss").filter(|loss| !loss.is_finite()) {
        return Err(RunError::EvalNotFinite { loss: *loss });
    }
    let values = run.state.read_values(engine)?;
    let slots = run.state.read_slots(engine)?;
    Ok(Outcome { stopped, metrics, values, slots })
}

impl<'a> Run<'a> {
    /// Uploads the model and reports the start.
    ///
    /// # Errors
    /// The data gives no batch, the loss does not fit, or the engine fails.
    pub fn new(
        engine: &mut dyn Engine,
        setup: &'a Setup<'a>,
        report: &mut dyn FnMut(RunEvent),
    ) -> Result<Run<'a>, RunError> {
        let steps = setup.train.len().div_ceil(setup.accumulate.max(1));
        let (prepared, initial) = initialized(engine, setup)?;
        let eval = setup.objective.eval(&prepared)?;
        let info = engine.info().clone();
        report(RunEvent::Start {
            version: env!("CARGO_PKG_VERSION").into(),
            engine: info.name,
            engine_version: info.version,
            device: info.device,
            threads: info.threads,
            parameters: setup.plan.model.parameters,
            epochs: setup.plan.epochs.len(),
            steps: steps * setup.plan.epochs.len(),
            samples: setup.train.rows(),
        });
        if *setup.recompute != Recompute::None && !engine.info().recomputes {
            let message = format!("the engine {} keeps all activations: nothing is recomputed", engine.info().name);
            report(RunEvent::Warning { message });
        }
        let evaluator = Evaluator::new(engine, eval, setup.objective.prediction(&prepared)?)?;
        let state = State::new(engine, &prepared)?;
        Ok(Run { setup, prepared, initial, state, evaluator, evaluated: None, started: 0 })
    }

    /// Builds the graphs of a segment and trains its epochs; returns true when asked to stop.
    ///
    /// # Errors
    /// See [`train`].
    pub fn segment(
        &mut self,
        engine: &mut dyn Engine,
        segment: &Segment,
        report: &mut dyn FnMut(RunEvent),
        stop: &AtomicBool,
    ) -> Result<bool, RunError> {
        let clock = Instant::now();
        let frozen: HashSet<&str> = segment.frozen.iter().map(String::as_str).collect();
        let Built { step, held, recomputed } = self.build(engine, frozen)?;
        self.state.set_slots(engine, &step.slots)?;
        let mut phase = Phase::new(engine, &step, &self.state)?;
        let epoch = &self.setup.plan.epochs[segment.first_epoch - 1];
        report(RunEvent::Phase {
            epoch: segment.first_epoch,
            frozen: segment.frozen.len(),
            frozen_units: epoch.frozen_units,
            seconds: clock.elapsed().as_secs_f64(),
            predicted_step_cost: epoch.predicted.step_cost,
            nodes: step.train.graph.nodes().len(),
            recomputed,
        });
        if step.trained.is_empty() {
            let message = format!("nothing trains from epoch {} on: every parameter is frozen", segment.first_epoch);
            report(RunEvent::Warning { message });
        }
        for name in &step.contract.unused {
            let message = format!("the loss does not depend on \"{name}\": it keeps its value");
            report(RunEvent::Warning { message });
        }
        let mut stopped = false;
        for epoch in segment.first_epoch..=segment.last_epoch {
            stopped = self.epoch(engine, &mut phase, epoch, report, stop)?;
            if stopped {
                break;
            }
        }
        phase.close(engine);
        for (name, before) in held {
            if engine.read(self.state.value(&name))? != before {
                return Err(RunError::Moved { name, from: segment.first_epoch, to: segment.last_epoch });
            }
        }
        Ok(stopped)
    }

    /// Runs the model as trained so far over the eval data, once for each step it stands at.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn evaluate(&mut self, engine: &mut dyn Engine) -> Result<BTreeMap<String, f64>, RunError> {
        let Some(batches) = self.setup.eval else { return Ok(BTreeMap::new()) };
        if let Some((_, metrics)) = self.evaluated.as_ref().filter(|(step, _)| *step == self.started) {
            return Ok(metrics.clone());
        }
        let objective = &self.setup.objective;
        let metrics = self.evaluator.run(engine, &self.state, batches, objective.metrics(), objective.is_sum())?;
        self.evaluated = Some((self.started, metrics.clone()));
        Ok(metrics)
    }

    /// Builds the graphs with the current values of what is frozen.
    fn build(&self, engine: &dyn Engine, frozen: HashSet<&str>) -> Result<Built, RunError> {
        let mut prepared = self.prepared.clone();
        let mut held = Vec::new();
        for (name, buffer) in self.state.values() {
            let trains = prepared.trainable().contains(&name) && !frozen.contains(name);
            if !trains {
                let tensor = engine.read(buffer)?;
                let graph = std::mem::take(&mut prepared.model.graph);
                prepared.model.graph = graph.with_initializer(name, tensor.clone());
                if frozen.contains(name) {
                    held.push((name.to_string(), tensor));
                }
            }
        }
        let objective = &self.setup.objective;
        let mut still = frozen.clone();
        if self.setup.batch_norm == BatchNorm::Frozen {
            still.extend(statistics_of_frozen(&prepared, &frozen));
        }
        let mut step = objective.build(&prepared, still, Rates::new(), self.setup.seed)?;
        let recomputed = match engine.info().recomputes {
            true => step.recompute(&prepared, self.setup.recompute)?,
            false => Vec::new(),
        };
        if self.setup.accumulate > 1 {
            step = objective.accumulating(step)?;
        }
        for slot in &mut step.slots {
            slot.initial = self.initial.get(&slot.name).unwrap_or(&slot.initial).clone();
        }
        Ok(Built { step, held, recomputed })
    }

    fn epoch(
        &mut self,
        engine: &mut dyn Engine,
        phase: &mut Phase,
        epoch: usize,
        report: &mut dyn FnMut(RunEvent),
        stop: &AtomicBool,
    ) -> Result<bool, RunError> {
        let setup = self.setup;
        let clock = Instant::now();
        let batches: Vec<usize> = (0..setup.train.len()).collect();
        let steps = batches.chunks(setup.accumulate.max(1));
        let (count, epochs) = (steps.len(), setup.plan.epochs.len());
        let (mut total, mut samples) = (0.0, 0);
        for indices in steps {
            let (at, total_steps) = (self.started as u64, (count * epochs) as u64);
            let lr = setup.objective.lr().map(|base| lr_at(setup.schedule, base, at, total_steps, count as u64));
            self.started += 1;
            let rows: usize = indices.iter().map(|index| setup.train.rows_of(*index)).sum();
            let (mut loss, mut seconds) = (0.0, 0.0);
            for index in indices {
                let batch = setup.train.batch(epoch as u64, *index);
                let weight = setup.train.rows_of(*index) as f64 / rows.max(1) as f64;
                let share = Share { weight, first: Some(index) == indices.first() };
                let step_clock = Instant::now();
                let own = phase.backward(engine, (epoch - 1) * batches.len() + index + 1, &batch, share)?;
                seconds += step_clock.elapsed().as_secs_f64();
                if !own.is_finite() {
                    return Err(RunError::NotFinite { loss: own, epoch, step: self.started, lr });
                }
                loss += own * weight;
            }
            let step_clock = Instant::now();
            let lr = phase.update(engine, lr)?;
            seconds += step_clock.elapsed().as_secs_f64();
            total += loss * rows as f64;
            samples += rows;
            if self.started.is_multiple_of(setup.log_every.max(1)) {
                report(RunEvent::Step { epoch, step: self.started, loss, lr, seconds });
            }
            if stop.load(Ordering::Relaxed) {
                self.checkpoint(engine, epoch, report)?;
                return Ok(true);
            }
        }
        let seconds = clock.elapsed().as_secs_f64();
        report(RunEvent::Epoch {
            epoch,
            train_loss: total / samples.max(1) as f64,
            metrics: finite(self.evaluate(engine)?),
            seconds,
            samples_per_second: samples as f64 / seconds,
            peak_bytes: peak_bytes(),
        });
        self.checkpoint(engine, epoch, report)?;
        Ok(false)
    }

    fn checkpoint(&self, engine: &dyn Engine, epoch: usize, report: &mut dyn FnMut(RunEvent)) -> Result<(), RunError> {
        let Some(folder) = &self.setup.checkpoints else { return Ok(()) };
        let mut tensors = self.state.read_values(engine)?;
        tensors.extend(self.state.read_slots(engine)?);
        let checkpoint = Checkpoint {
            epoch: epoch as u64,
            step: self.started as u64,
            plan_hash: crate::plan::sha256_hex(self.setup.plan.to_json().as_bytes()),
            tensors,
        };
        checkpoint::save(folder, &checkpoint)?;
        report(RunEvent::Checkpoint { epoch, step: self.started, path: folder.display().to_string() });
        Ok(())
    }
}
