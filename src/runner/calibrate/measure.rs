//! Times the anchors, and fills predictions into a plan.

use super::nodes::{NodeTimes, Told, keys};
use super::{Anchor, Calibration, Load, Ruler};
use crate::plan::{EpochPlan, FreezePlan, Measured, Segment, StepSeconds, segments};
use crate::runner::ceiling::{median, percent, ratio};
use crate::runner::clock::Clock;
use crate::runner::engine::{Engine, NodeTime};
use crate::runner::pace::Scale;
use crate::runner::phase::Phase;
use crate::runner::run::Run;
use crate::runner::sessions::train_graph;
use crate::runner::timing::{Samples, fastest, nothing};
use crate::runner::train::{RunError, Setup};
use crate::training::{Slot, TrainStep};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Instant;

/// Steps of a phase whose nodes are timed, the first of them not counted.
const NOTED: usize = 8;
/// Seconds after which no other such step runs, once there are a few.
const NOTED_SECONDS: f64 = 3.0;
/// Rounds before those that count.
const WARM_UP: usize = 2;
/// Rounds that count whatever they take.
const FEW: usize = 3;
/// A middle anchor has at least this fraction of the backward pass, and at most what that leaves.
const MIDDLE: f64 = 0.2;
/// The part of a prediction that may go by operator and size without a word.
const GUESSED: f64 = 0.05;

/// How long phases are timed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// The most rounds that count; each runs a step of each phase.
    pub rounds: usize,
    /// Seconds after which no other round begins, once there are a few.
    pub seconds: f64,
    /// Whether the sessions of all phases live at the same time, so that what else the machine does hits them alike.
    pub together: bool,
    /// What steps are timed by.
    pub clock: Clock,
}

impl Effort {
    /// What a person waits for who asks.
    pub(crate) const ASKED: Effort = Effort { rounds: 200, seconds: 8.0, together: true, clock: Clock::Wall };
    /// Seconds of each phase, of what goes before a run.
    pub(crate) const SECONDS: f64 = 0.5;
    /// What goes before a long run.
    pub(crate) const ASIDE: Effort =
        Effort { rounds: 100, seconds: Effort::SECONDS, together: false, clock: Clock::Wall };
}

/// Measured seconds of a step with what an entry of a plan freezes.
#[derive(Clone, Debug)]
pub struct Timings {
    /// Frozen units.
    pub frozen_units: usize,
    /// Flops of a step relative to nothing frozen.
    pub step_cost: f64,
    /// As the plan predicts them.
    pub predicted: Option<StepSeconds>,
    /// Fastest seconds of the train graph and of the update, without making batches.
    pub fastest: f64,
    /// Median of their sum.
    pub median: f64,
}

/// Times a few phases of a run and writes into the plan what the steps of all of them are predicted to take.
///
/// # Errors
/// A graph cannot be built or run.
pub fn measure(
    engine: &mut dyn Engine,
    setup: &Setup<'_>,
    plan: &mut FreezePlan,
    clock: Clock,
) -> Result<(), RunError> {
    let mut run = Run::new(engine, setup, &mut |_| {})?;
    let first = run.next_segment();
    measured(&mut run, engine, plan, clock).map_err(|error| run.explained(engine, error, first.as_ref()))
}

fn measured(run: &mut Run<'_>, engine: &mut dyn Engine, plan: &mut FreezePlan, clock: Clock) -> Result<(), RunError> {
    let calibration = run.calibrate(engine, plan, Effort { clock, ..Effort::ASKED })?;
    run.fill(engine, &calibration, plan)?;
    let memory = run.memory_of_phases(engine)?;
    plan.summary.notes.extend(memory.iter().map(|(epoch, memory)| memory.sentence(*epoch)));
    Ok(())
}

/// Times the phases of a plan, `rounds` steps of each in turn.
///
/// # Errors
/// As [`measure`].
pub fn timings(
    engine: &mut dyn Engine,
    setup: &Setup<'_>,
    plan: &FreezePlan,
    rounds: usize,
    clock: Clock,
) -> Result<Vec<Timings>, RunError> {
    let mut run = Run::new(engine, setup, &mut |_| {})?;
    let parts = segments(plan);
    let mut steps = Vec::with_capacity(parts.len());
    for part in &parts {
        steps.push(run.constant_step(engine, part)?);
    }
    let samples = run.timed(engine, &steps, Effort { rounds, seconds: f64::INFINITY, together: true, clock })?;
    let timings = parts.iter().zip(&samples).map(|(part, samples)| {
        let entry = plan.epochs[part.first_epoch - 1].at(part.after);
        let sums: Vec<f64> = samples.train.iter().zip(&samples.update).map(|(train, update)| train + update).collect();
        Timings {
            frozen_units: entry.frozen_units,
            step_cost: entry.predicted.step_cost,
            predicted: entry.predicted.seconds,
            fastest: fastest(&samples.train) + fastest(&samples.update),
            median: median(&sums),
        }
    });
    Ok(timings.collect())
}

impl Run<'_> {
    /// Times the anchors of a plan. What is open stays open, and everything is put back.
    pub(in crate::runner) fn calibrate(
        &mut self,
        engine: &mut dyn Engine,
        plan: &FreezePlan,
        effort: Effort,
    ) -> Result<Calibration, RunError> {
        let open: Vec<Slot> = self.phases.open_step().map(|(step, _)| step.slots.clone()).unwrap_or_default();
        let result = self.anchors(engine, plan, effort);
        self.state.set_slots(engine, &open, false)?;
        result
    }

    fn anchors(&mut self, engine: &mut dyn Engine, plan: &FreezePlan, effort: Effort) -> Result<Calibration, RunError> {
        let scale = Scale::of(plan, &self.prepared, &nothing());
        let (mut steps, mut flops) = (Vec::new(), Vec::new());
        match self.constant_step(engine, &nothing()) {
            Ok(step) => {
                steps.push(step);
                flops.push(scale.load(None));
            }
            // What every epoch freezes may have no gradient.
            Err(RunError::Training(_)) => {
                let stretches = plan.epochs.iter().flat_map(EpochPlan::stretches);
                if let Some(most) = stretches.max_by_key(|stretch| stretch.predicted.backward_flops) {
                    steps.push(self.constant_step(engine, &part(most))?);
                    flops.push(scale.load(Some(most)));
                }
            }
            Err(error) => return Err(error),
        }
        if let Some(entry) = middle(plan, scale.load(None).0) {
            steps.push(self.constant_step(engine, &part(entry))?);
            flops.push(scale.load(Some(entry)));
        }
        steps.push(self.constant_step(engine, &self.all_frozen())?);
        flops.push((0.0, 0.0));
        self.state.set_slots(engine, &slots(&steps), true)?;
        let mut times = NodeTimes::default();
        let mut noted = true;
        for step in &steps {
            noted = noted && self.note(engine, step, &mut times)?;
        }
        let samples = self.timed(engine, &steps, effort)?;
        let rows = self.setup.train.rows_of(0);
        let told: Vec<[Told; 2]> = steps.iter().map(|step| told(&times, step, rows)).collect();
        let noted = noted && told.iter().any(|[train, _]| train.seconds > 0.0);
        let beside = told
            .iter()
            .zip(&samples)
            .map(|([train, _], samples)| (fastest(&samples.train) - train.seconds).max(0.0) / train.nodes.max(1.0));
        let ruler = match noted {
            true => Ruler::Nodes { beside: median(&beside.collect::<Vec<_>>()), times },
            false => Ruler::Flops(scale),
        };
        let anchors: Vec<Anchor> = told
            .iter()
            .zip(flops)
            .zip(&samples)
            .map(|((told, flops), samples)| {
                let load = match &ruler {
                    Ruler::Nodes { beside, .. } => Load::of(told, *beside),
                    Ruler::Flops(_) => Load { train: flops.0, update: flops.1, guessed: 0.0 },
                };
                Anchor { load, train: fastest(&samples.train), update: fastest(&samples.update) }
            })
            .collect();
        let least = |part: fn(&Samples) -> &Vec<f64>| {
            samples.iter().map(|samples| fastest(part(samples))).fold(f64::INFINITY, f64::min)
        };
        let beside = (least(|samples| &samples.data), least(|samples| &samples.rest).max(0.0));
        Ok(Calibration::new(ruler, &anchors, beside, self.batches_of_a_step()))
    }

    /// Writes into a plan what its steps are predicted to take.
    pub(in crate::runner) fn fill(
        &self,
        engine: &dyn Engine,
        calibration: &Calibration,
        plan: &mut FreezePlan,
    ) -> Result<(), RunError> {
        let mut known: HashMap<BTreeSet<String>, (StepSeconds, f64)> = HashMap::new();
        let mut guessed = 0.0_f64;
        let mut tell = |entry: &EpochPlan| -> Result<StepSeconds, RunError> {
            let held: BTreeSet<String> = entry.held().map(String::from).collect();
            let (seconds, part) = match known.get(&held) {
                Some(found) => *found,
                None => {
                    let load = self.load(engine, calibration, entry)?;
                    *known.entry(held).or_insert((calibration.predict(&load), load.guessed))
                }
            };
            guessed = guessed.max(part);
            Ok(seconds)
        };
        for epoch in &mut plan.epochs {
            epoch.predicted.seconds = Some(tell(epoch)?);
            for change in &mut epoch.changes {
                change.predicted.seconds = Some(tell(change)?);
            }
        }
        let (steps, info) = (plan.assumed.steps_per_epoch, engine.info());
        let total = |epoch: &EpochPlan| epoch.mean(steps, |p| p.seconds.as_ref().map_or(0.0, StepSeconds::total));
        let mean = plan.epochs.iter().map(total).sum::<f64>() / plan.epochs.len().max(1) as f64;
        let nothing = calibration.most();
        plan.summary.measured = Some(Measured {
            engine: format!("{} {}", info.name, info.version),
            threads: info.threads,
            by_node: calibration.is_by_node(),
            nothing,
            cost_ratio: ratio(mean, nothing.total()),
        });
        if guessed >= GUESSED {
            plan.summary.notes.push(format!(
                "up to {} of the predicted seconds of a step are of nodes unlike all that were timed: these go by \
                 operator and size",
                percent(guessed)
            ));
        }
        Ok(())
    }

    /// Returns what is told of a phase.
    pub(in crate::runner) fn load(
        &self,
        engine: &dyn Engine,
        calibration: &Calibration,
        entry: &EpochPlan,
    ) -> Result<Load, RunError> {
        if !calibration.is_by_node() {
            return Ok(calibration.flops(entry));
        }
        let step = self.constant_step(engine, &part(entry))?;
        Ok(calibration.load(&step, self.setup.train.rows_of(0), entry))
    }

    /// Adds what the nodes of a step take; false where the engine does not note it.
    fn note(&mut self, engine: &mut dyn Engine, step: &TrainStep, times: &mut NodeTimes) -> Result<bool, RunError> {
        if !engine.note_nodes(true) {
            return Ok(false);
        }
        let phase = Phase::new(engine, step, &self.state);
        engine.note_nodes(false);
        let mut phase = phase?;
        let noted = self.noted(engine, &mut phase);
        phase.close(engine);
        let [train, update] = noted?;
        let rows = self.setup.train.rows_of(0);
        times.add(&train_graph(false, step).0, rows, &train);
        step.optimizer.iter().for_each(|optimizer| times.add(optimizer, rows, &update));
        Ok(true)
    }

    fn noted(&mut self, engine: &mut dyn Engine, phase: &mut Phase) -> Result<[Vec<NodeTime>; 2], RunError> {
        let clock = Instant::now();
        for number in 0..NOTED {
            self.sample(engine, phase, number, Clock::Wall)?;
            if number >= FEW && clock.elapsed().as_secs_f64() > NOTED_SECONDS {
                break;
            }
        }
        let mut times = phase.node_times(engine)?;
        for node in times.iter_mut().flatten() {
            // Memory is found in the first run.
            node.seconds.drain(..1.min(node.seconds.len().saturating_sub(1)));
        }
        Ok(times)
    }

    /// Runs steps of phases in turn.
    fn timed(
        &mut self,
        engine: &mut dyn Engine,
        steps: &[TrainStep],
        effort: Effort,
    ) -> Result<Vec<Samples>, RunError> {
        self.state.set_slots(engine, &slots(steps), true)?;
        let mut samples = Vec::with_capacity(steps.len());
        for group in steps.chunks(if effort.together { steps.len().max(1) } else { 1 }) {
            let mut phases = Vec::with_capacity(group.len());
            let result = self.rounds(engine, group, &mut phases, effort);
            phases.into_iter().for_each(|phase| phase.close(engine));
            samples.extend(result?);
        }
        for step in steps {
            self.put_back(engine, step)?;
        }
        Ok(samples)
    }

    fn rounds(
        &mut self,
        engine: &mut dyn Engine,
        steps: &[TrainStep],
        phases: &mut Vec<Phase>,
        effort: Effort,
    ) -> Result<Vec<Samples>, RunError> {
        for step in steps {
            phases.push(Phase::new(engine, step, &self.state)?);
        }
        let mut samples: Vec<Samples> = steps.iter().map(|_| Samples::default()).collect();
        let clock = Instant::now();
        for round in 0..effort.rounds.saturating_add(WARM_UP) {
            for (phase, samples) in phases.iter_mut().zip(&mut samples) {
                let sample = self.sample(engine, phase, round, effort.clock)?;
                if round >= WARM_UP {
                    samples.push(&sample);
                }
            }
            if round + 1 >= WARM_UP + FEW && clock.elapsed().as_secs_f64() > effort.seconds {
                break;
            }
        }
        Ok(samples)
    }
}

impl Calibration {
    /// Returns what is told of the step that is built for an entry of a plan.
    pub(in crate::runner) fn load(&self, step: &TrainStep, rows: usize, entry: &EpochPlan) -> Load {
        match &self.ruler {
            Ruler::Nodes { times, beside } => Load::of(&told(times, step, rows), *beside),
            Ruler::Flops(_) => self.flops(entry),
        }
    }

    fn flops(&self, entry: &EpochPlan) -> Load {
        let (train, update) = match &self.ruler {
            Ruler::Flops(scale) => scale.load(Some(entry)),
            Ruler::Nodes { .. } => (0.0, 0.0),
        };
        Load { train, update, guessed: 0.0 }
    }
}

impl Load {
    fn of([train, update]: &[Told; 2], beside: f64) -> Load {
        let guessed = ratio(train.guessed + update.guessed, train.seconds + update.seconds);
        let seconds = |told: &Told| told.seconds + beside * told.nodes;
        Load { train: seconds(train), update: seconds(update), guessed }
    }
}

/// Returns what the nodes of the train graph and of the update are predicted to take.
fn told(times: &NodeTimes, step: &TrainStep, rows: usize) -> [Told; 2] {
    let update = step.optimizer.as_ref().map(|optimizer| times.tell(&keys(optimizer, rows)));
    [times.tell(&keys(&train_graph(false, step).0, rows)), update.unwrap_or_default()]
}

/// Returns the slots of these steps, each once.
fn slots(steps: &[TrainStep]) -> Vec<Slot> {
    let mut seen = HashSet::new();
    steps.iter().flat_map(|step| &step.slots).filter(|slot| seen.insert(&slot.name)).cloned().collect()
}

/// Returns the segment of an entry.
fn part(entry: &EpochPlan) -> Segment {
    Segment {
        first_epoch: entry.epoch,
        after: entry.after,
        last_epoch: entry.epoch,
        until: None,
        frozen: entry.frozen.clone(),
        statistics: entry.statistics.clone(),
        dropout_off: entry.dropout_off.clone(),
    }
}

/// Returns the entry of a plan that is nearest to half of a backward pass of `whole` flops.
fn middle(plan: &FreezePlan, whole: f64) -> Option<&EpochPlan> {
    let off = |entry: &&EpochPlan| (ratio(entry.predicted.backward_flops as f64, whole) - 0.5).abs();
    let nearest = plan.epochs.iter().flat_map(EpochPlan::stretches).min_by(|a, b| off(a).total_cmp(&off(b)))?;
    (off(&nearest) <= 0.5 - MIDDLE).then_some(nearest)
}
