//! Measures a few steps before the first one, and leaves the run as it was.
//!
//! The graphs and batches are those of the run. First a phase in which everything is frozen runs and is dropped, then
//! the first phase, which stays. The update runs with a learning rate of 0 where it reads one. Then every value and
//! slot that a graph wrote is written anew with what it starts from, so nothing is copied to be kept.

use super::calibrate::{Calibration, Effort};
use super::ceiling::{Ceiling, Measured, Prediction, Relative, Stretch, Why, ratio};
use super::clock::Clock;
use super::engine::Engine;
use super::event::RunEvent;
use super::pace::{Pace, Scale};
use super::phase::{Phase, Share};
use super::recipe::Form;
use super::run::Run;
use super::train::RunError;
use crate::graph::Tensor;
use crate::plan::{EpochPlan, Point, Segment, Speeds, StepSeconds, segments};
use crate::training::TrainStep;
use std::collections::BTreeSet;
use std::time::Instant;

/// Seconds after which no other step is measured.
const MOST_SECONDS: f64 = 2.0;
/// The fraction of the predicted run after which none is, once there are a few.
const MOST_OF_RUN: f64 = 0.01;
/// Steps that are measured if they fit into [`MOST_SECONDS`].
const FEW: usize = 3;
/// Steps that come before those that count.
const WARM_UP: usize = 2;
/// Sessions and steps of a calibration, at most.
const ANCHOR_SESSIONS: usize = 6;
const ANCHORS: f64 = 3.0;
const ANCHOR_STEPS: f64 = 45.0;

/// Seconds of the parts of single steps, in turn.
#[derive(Default)]
pub(super) struct Samples {
    pub data: Vec<f64>,
    pub train: Vec<f64>,
    pub update: Vec<f64>,
    pub rest: Vec<f64>,
    /// What the first step took beyond the fastest of the others.
    first: f64,
}

/// Seconds of the parts of a step.
pub(super) struct Sample {
    data: f64,
    train: f64,
    update: f64,
    pub total: f64,
}

impl Samples {
    pub(super) fn push(&mut self, sample: &Sample) {
        let Sample { data, train, update, total } = *sample;
        self.data.push(data);
        self.train.push(train);
        self.update.push(update);
        self.rest.push(total - data - train - update);
    }
}

impl Run<'_> {
    /// Makes the first phase ready and checks what the schedule can save; `None` where nothing is ever frozen, where
    /// it is switched off, or where the run has begun.
    ///
    /// # Errors
    /// A graph cannot be built or run.
    pub fn check_ceiling(
        &mut self,
        engine: &mut dyn Engine,
        report: &mut dyn FnMut(RunEvent),
    ) -> Result<Option<Ceiling>, RunError> {
        let wanted = self.setup.freezing.ceiling_steps;
        let freezes =
            self.adapts() || self.plan.epochs.iter().any(|epoch| epoch.stretches().any(|s| s.held().next().is_some()));
        if wanted == 0 || self.place.started > 0 || !freezes {
            return Ok(None);
        }
        let Some(first) = self.next_segment() else { return Ok(None) };
        let clock = Instant::now();
        let frozen = self.all_frozen();
        let step = self.build(engine, &held(&frozen), &Form::Constants)?.step;
        let mut phase = Phase::new(engine, &step, &self.state)?;
        let frozen_built = clock.elapsed().as_secs_f64();
        let forward = self.samples(engine, &mut phase, wanted);
        phase.close(engine);
        self.put_back(engine, &step)?;
        let forward = forward?;
        drop(step);
        let mut spent = clock.elapsed().as_secs_f64();
        let mut scale = Scale::of(&self.plan, &self.prepared, &first).cached(self.setup.freezing.cache.is_some());
        // What a small part of the backward pass takes tells little about the whole of it.
        let full = match scale.is_small() {
            true => {
                let clock = Instant::now();
                let full = self.full(engine, wanted)?;
                spent += clock.elapsed().as_secs_f64();
                scale.measure_nothing();
                Some(full)
            }
            false => None,
        };
        let clock = Instant::now();
        self.enter(engine, &first, report)?;
        let first_built = clock.elapsed().as_secs_f64();
        let (built, samples) = match full {
            Some(full) => full,
            None => {
                let clock = Instant::now();
                let samples = self.first_phase(engine, wanted)?;
                spent += clock.elapsed().as_secs_f64();
                (first_built, samples)
            }
        };
        let mut measured = self.measured(&forward, &samples, built, frozen_built);
        if self.foresees(engine) {
            measured.ahead = (built, frozen_built);
        }
        let clock = Instant::now();
        if self.is_worth_calibrating(&measured) {
            match self.calibrated(engine, &mut scale, &first) {
                Ok(calibration) => self.calibration = Some(calibration),
                Err(error) => {
                    let message =
                        format!("the predictions of the steps go by flops, single nodes were not timed: {error}");
                    report(RunEvent::Warning { message });
                }
            }
            spent += clock.elapsed().as_secs_f64();
        }
        self.history.speeds = self.speeds(&measured.step, &scale, &first);
        let ceiling = self.ceiling(&measured, &scale, samples.train.len(), spent);
        self.pace = Some(Pace::new(measured, scale));
        report(RunEvent::Ceiling(ceiling.clone()));
        Ok(Some(ceiling))
    }

    /// Returns true where timing single nodes and building the graphs of all phases is asked for, or takes a small part
    /// of the run.
    fn is_worth_calibrating(&self, measured: &Measured) -> bool {
        let steps = (self.setup.steps_per_epoch() * self.plan.epochs.len()) as f64;
        let phases = (self.segments.len() + ANCHOR_SESSIONS) as f64;
        let rounds = ANCHORS * Effort::SECONDS;
        let takes = phases * measured.first_phase + ANCHOR_STEPS * measured.step.total() + rounds;
        self.calibrates || takes < MOST_OF_RUN * steps * measured.step.total()
    }

    /// Times single nodes, and predicts all phases that are foreseen by them.
    fn calibrated(
        &mut self,
        engine: &mut dyn Engine,
        scale: &mut Scale,
        first: &Segment,
    ) -> Result<Calibration, RunError> {
        let plan = self.plan.clone();
        let effort = if self.calibrates { Effort::ASKED } else { Effort::ASIDE };
        let calibration = self.calibrate(engine, &plan, effort)?;
        let nothing = calibration.most();
        let reference = match scale.measures_nothing() {
            true => nothing,
            false => {
                let entry = plan.epochs[first.first_epoch - 1].at(first.after);
                calibration.predict(&self.load(engine, &calibration, entry)?)
            }
        };
        scale.tell(reference, &nothing);
        let bound = self.bound().map(|(_, entry)| entry);
        for entry in plan.epochs.iter().flat_map(EpochPlan::stretches).chain(&bound) {
            if !scale.knows(entry) {
                let seconds = calibration.predict(&self.load(engine, &calibration, entry)?);
                scale.learn(entry, &seconds);
            }
        }
        Ok(calibration)
    }

    /// Returns the measured seconds as a policy takes them.
    fn speeds(&self, step: &StepSeconds, scale: &Scale, first: &Segment) -> Option<Speeds> {
        let entry = self.plan.epochs.get(first.first_epoch.checked_sub(1)?)?.at(first.after);
        let per = |seconds: f64, count: f64| if count > 0.0 { seconds.max(0.0) / count } else { 0.0 };
        let (backward, elements) = scale.reference();
        let bytes = entry.predicted.gradient_bytes as f64 * scale.relative(entry).trained.recip();
        let bytes = if bytes.is_finite() { bytes } else { 4.0 * elements };
        Some(Speeds {
            fixed: step.data + step.forward + step.rest,
            backward: per(step.backward, backward),
            update: per(step.update, bytes),
        })
    }

    /// Builds and measures a step with nothing frozen; returns the seconds to build it, too.
    fn full(&mut self, engine: &mut dyn Engine, wanted: usize) -> Result<(f64, Samples), RunError> {
        let clock = Instant::now();
        let step = self.constant_step(engine, &nothing())?;
        self.state.set_slots(engine, &step.slots, false)?;
        let mut phase = Phase::new(engine, &step, &self.state)?;
        let built = clock.elapsed().as_secs_f64();
        let samples = self.samples(engine, &mut phase, wanted);
        phase.close(engine);
        self.put_back(engine, &step)?;
        self.state.set_slots(engine, &[], false)?;
        Ok((built, samples?))
    }

    /// Returns a segment in which no parameter trains, with the statistics and Dropouts of the segment that holds most.
    pub(super) fn all_frozen(&self) -> Segment {
        let most = segments(&self.plan).into_iter().max_by_key(|segment| segment.held().count());
        let frozen = self.prepared.trainable().into_iter().map(String::from).collect();
        let (statistics, dropout_off) = most.map(|most| (most.statistics, most.dropout_off)).unwrap_or_default();
        Segment { first_epoch: 1, after: 0, last_epoch: 1, until: None, frozen, statistics, dropout_off }
    }

    /// Makes the first phase ready and runs a step of it, which leaves everything as it was.
    ///
    /// # Errors
    /// A graph cannot be built or run.
    pub(super) fn try_step(
        &mut self,
        engine: &mut dyn Engine,
        report: &mut dyn FnMut(RunEvent),
    ) -> Result<(), RunError> {
        let Some(first) = self.next_segment() else { return Ok(()) };
        self.enter(engine, &first, report)?;
        self.first_phase(engine, 1)?;
        Ok(())
    }

    /// Measures the phase that is open.
    fn first_phase(&mut self, engine: &mut dyn Engine, wanted: usize) -> Result<Samples, RunError> {
        let Some(mut open) = self.phases.take() else { return Ok(Samples::default()) };
        let samples = self.samples(engine, &mut open.phase, wanted);
        self.put_back(engine, &open.step)?;
        self.phases.put(open);
        samples
    }

    /// Runs a few steps of a phase.
    fn samples(&mut self, engine: &mut dyn Engine, phase: &mut Phase, wanted: usize) -> Result<Samples, RunError> {
        let steps = (self.setup.steps_per_epoch() * self.plan.epochs.len()) as f64;
        let mut samples = Samples::default();
        let (mut spent, mut first) = (0.0, None);
        for number in 0..wanted.saturating_add(WARM_UP) {
            let sample = self.sample(engine, phase, number, Clock::Wall)?;
            let total = sample.total;
            spent += total;
            first.get_or_insert(total);
            let warm = number < WARM_UP && (number == 0 || spent < MOST_SECONDS / 4.0);
            if !warm {
                samples.push(&sample);
            }
            let count = samples.data.len();
            let enough = spent > MOST_OF_RUN * steps * total * 0.5 && count >= FEW;
            if count >= 1 && (spent > MOST_SECONDS / 2.0 || enough) {
                break;
            }
        }
        let usual: f64 = [&samples.data, &samples.train, &samples.update, &samples.rest]
            .map(|seconds| fastest(seconds))
            .iter()
            .sum();
        samples.first = (first.unwrap_or(0.0) - usual).max(0.0);
        Ok(samples)
    }

    /// Runs a step of a phase on a batch of full size, with a learning rate of 0.
    pub(super) fn sample(
        &mut self,
        engine: &mut dyn Engine,
        phase: &mut Phase,
        number: usize,
        clock: Clock,
    ) -> Result<Sample, RunError> {
        let setup = self.setup;
        let full = setup.train.rows_of(0);
        let batches = (0..setup.train.len()).filter(|index| setup.train.rows_of(*index) == full).count().max(1);
        let share = Share { weight: 1.0 / setup.accumulate.max(1) as f64, first: true };
        let whole = clock.now();
        let scales = self.rates.scales(setup, &self.plan, &self.history, 0, self.place.at, 0)?;
        let start = clock.now();
        let batch = setup.train.batch(1, number % batches)?;
        let data = start.elapsed();
        let start = clock.now();
        phase.backward(engine, number % batches + 1, &batch, share)?;
        let train = start.elapsed();
        let start = clock.now();
        phase.update(engine, setup.objective.lr().map(|_| 0.0), scales.as_ref())?;
        let update = start.elapsed();
        drop((batch, scales));
        Ok(Sample { data, train, update, total: whole.elapsed() })
    }

    /// Writes what the graphs of a step wrote anew.
    pub(super) fn put_back(&mut self, engine: &mut dyn Engine, step: &TrainStep) -> Result<(), RunError> {
        for slot in &step.slots {
            if let Some(buffer) = self.state.find(&slot.name) {
                engine.write(buffer, &slot.initial)?;
            }
        }
        let graph = &self.prepared.model.graph;
        for name in step.moving.iter().chain(&step.updated) {
            let initial: Option<&Tensor> = graph.find(name).and_then(|id| graph.value(id).initializer.as_ref());
            if let (Some(initial), Some(buffer)) = (initial, self.state.find(name)) {
                engine.write(buffer, initial)?;
            }
        }
        Ok(())
    }

    fn measured(&self, forward: &Samples, samples: &Samples, first_built: f64, frozen_built: f64) -> Measured {
        let batches = self.batches_of_a_step();
        let train = fastest(&samples.train);
        let only = fastest(&forward.train).min(train);
        let step = StepSeconds {
            data: batches * fastest(&samples.data),
            forward: batches * only,
            backward: batches * (train - only),
            update: fastest(&samples.update),
            rest: fastest(&samples.rest),
        };
        Measured {
            step,
            first_phase: first_built + samples.first,
            frozen_phase: frozen_built + forward.first,
            ahead: (0.0, 0.0),
        }
    }

    /// Builds the step of a segment with all that is frozen as constants.
    pub(super) fn constant_step(&self, engine: &dyn Engine, segment: &Segment) -> Result<TrainStep, RunError> {
        Ok(self.build(engine, &held(segment), &Form::Constants)?.step)
    }

    /// Returns the mean number of batches of full size in a step: the last batch of an epoch may be smaller.
    pub(super) fn batches_of_a_step(&self) -> f64 {
        let setup = self.setup;
        let batches = setup.train.rows() as f64 / setup.train.rows_of(0).max(1) as f64;
        batches / setup.steps_per_epoch().max(1) as f64
    }

    fn ceiling(&self, measured: &Measured, scale: &Scale, steps: usize, spent: f64) -> Ceiling {
        let bound = self.bound();
        let upper_bound = bound.is_some();
        let plan = &self.plan;
        let nothing = scale.nothing();
        let total = self.setup.steps_per_epoch() * plan.epochs.len();
        let (stretches, flops_gain, first_freeze) = match &bound {
            Some((from, entry)) => {
                let late = total.saturating_sub(*from);
                let start = plan.epochs.first().map_or(scale.first(), |epoch| scale.relative(epoch));
                let before = Stretch { steps: total - late, cost: start, builds: false };
                let after = Stretch { steps: late, cost: scale.relative(entry), builds: true };
                let saved = (1.0 - entry.predicted.step_cost) * ratio(late as f64, total as f64);
                (vec![before, after], saved, from / self.setup.steps_per_epoch().max(1) + 1)
            }
            None => {
                let first = plan.epochs.iter().find(|epoch| epoch.stretches().any(|s| !s.frozen.is_empty()));
                let stretches = scale.stretches(plan, self.setup.steps_per_epoch());
                (stretches, 1.0 - plan.summary.cost_ratio, first.map_or(1, |epoch| epoch.epoch))
            }
        };
        let prediction = measured.predict(nothing, &stretches);
        let full = measured.step.of(nothing);
        let saves = |stretch: &Stretch| ratio(full - measured.step.of(stretch.cost), full);
        let alive = if upper_bound { None } else { plan.summary.held_back() };
        let why = Why {
            prediction,
            step: measured.step,
            flops_gain,
            alive: alive.as_deref(),
            first_freeze: (first_freeze, plan.epochs.len()),
            best: stretches.iter().map(saves).fold(0.0, f64::max),
        };
        let Prediction { without, steps: with, changes, change_seconds } = prediction;
        Ceiling {
            measured_steps: steps,
            check_seconds: spent,
            step_seconds: measured.step.total(),
            parts: measured.step,
            share: measured.step.share(),
            seconds_without: without,
            seconds_with: with + change_seconds,
            changes,
            change_seconds,
            gain: prediction.gain(),
            steps_gain: prediction.steps_gain(),
            flops_gain,
            uncounted_nodes: plan.summary.uncounted_nodes,
            upper_bound,
            reason: why.reason(),
            alive,
        }
    }

    /// Returns, for a policy that decides by what is measured, the step of its first decision, and what all units but
    /// the last frozen would be.
    fn bound(&self) -> Option<(usize, EpochPlan)> {
        let planner = self.setup.freezing.planner.filter(|planner| planner.policy().is_adaptive())?;
        let epoch = self.setup.steps_per_epoch();
        let from = planner.points().first().copied().unwrap_or(epoch).min(epoch);
        Some((from, planner.most(Point::START)))
    }
}

fn held(segment: &Segment) -> BTreeSet<String> {
    segment.held().map(String::from).collect()
}

/// Returns a segment in which nothing is frozen.
pub(super) fn nothing() -> Segment {
    let (frozen, statistics, dropout_off) = Default::default();
    Segment { first_epoch: 1, after: 0, last_epoch: 1, until: None, frozen, statistics, dropout_off }
}

/// Returns the least of some seconds; 0 of nothing. Other processes only ever add to what a step takes, and to a long
/// one more than to a short one, so that a median of a few tells little on a busy machine.
pub(super) fn fastest(seconds: &[f64]) -> f64 {
    seconds.iter().copied().reduce(f64::min).unwrap_or(0.0)
}

impl Relative {
    /// Returns a cost relative to another; 1 where that is 0.
    pub(super) fn to(backward: (f64, f64), trained: (f64, f64)) -> Relative {
        let over = |(part, whole): (f64, f64)| if whole > 0.0 { part / whole } else { 1.0 };
        Relative { backward: over(backward), trained: over(trained), forward: 1.0 }
    }

    /// Returns the cost of a step that was predicted, relative to another.
    pub(super) fn of(step: &StepSeconds, first: &StepSeconds) -> Relative {
        Relative::to((step.backward, first.backward), (step.update, first.update))
    }
}
