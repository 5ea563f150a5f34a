//! A run in progress: epochs, steps, phases, and what each reports.

use super::ema::Averager;
use super::engine::Engine;
use super::evaluator::Evaluator;
use super::event::RunEvent;
use super::guard::{Before, Guard, Verdict};
use super::improvement::{Stall, best, stops};
use super::initial::initialized;
use super::memory::peak_bytes;
use super::nonfinite::{Bad, Kept, Watch, wrong};
use super::observe::Observer;
use super::pace::Pace;
use super::phase::Share;
use super::phases::Phases;
use super::rates::UnitRates;
use super::schedule::lr_at;
use super::state::State;
use super::train::{RunError, Setup};
use crate::data::{Loader, Loading};
use crate::metrics::Results;
use crate::plan::{EpochRecord, FreezePlan, History, Observation, Point, Segment, segments};
use crate::training::{Prepared, Recompute, names};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A run in progress. [`train`](super::train) drives it; tests step through it to look at the state.
pub struct Run<'a> {
    pub(super) setup: &'a Setup<'a>,
    /// The model with its starting values.
    pub(super) prepared: Prepared,
    /// Starting values of slots that are not those of the step.
    pub(super) initial: BTreeMap<String, crate::graph::Tensor>,
    /// Parameters, statistics and slots.
    pub state: State,
    evaluator: Evaluator,
    loader: Loader,
    eval_loader: Option<Loader>,
    /// The step after which the state was last evaluated, with what that gave.
    pub(super) evaluated: Option<(usize, Results)>,
    /// Metrics that are not defined and were said to be so.
    undefined: BTreeSet<String>,
    /// Where the run stands.
    pub(super) place: Place,
    /// The plan as far as it is known.
    pub(super) plan: FreezePlan,
    pub(super) segments: Vec<Segment>,
    /// What was measured.
    pub(super) history: History,
    pub(super) phases: Phases,
    pub(super) rates: UnitRates,
    pub(super) guard: Guard,
    pub(super) observer: Option<Observer>,
    /// What the steps take, where the ceiling was checked.
    pub(super) pace: Option<Pace>,
    /// Epochs by which freezes were put off.
    pub(super) delay: usize,
    /// Steps that the last checkpoint holds.
    pub(super) last_saved: Option<usize>,
    pub(super) watch: Watch,
    /// Whether the run stands within the steps of an epoch that one frozen set trains.
    pub(super) within: bool,
    averager: Option<Averager>,
}

/// How far a run is, and sums since the start of the epoch and of the interval.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Place {
    pub at: Point,
    /// Steps done over the run.
    pub started: usize,
    loss: f64,
    samples: usize,
    seconds: f64,
    wait: f64,
    interval_loss: f64,
    interval_steps: usize,
    lr: f64,
}

/// How the training of an epoch ended.
enum Flow {
    /// All its steps that belong to the segment are done.
    Done,
    /// It was asked to stop.
    Stopped,
    /// What comes next is another segment than it was.
    Replanned,
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
        setup.check()?;
        let plan = setup.freezing.plan.clone();
        let steps = setup.steps_per_epoch();
        let changes = plan.epochs.iter().any(|epoch| !epoch.changes.is_empty());
        if changes && plan.assumed.steps_per_epoch != steps {
            return Err(RunError::Steps { planned: plan.assumed.steps_per_epoch, found: steps });
        }
        let (prepared, initial) = initialized(engine, setup)?;
        let eval = setup.objective.eval(&prepared)?;
        let info = engine.info().clone();
        report(RunEvent::Start {
            version: env!("CARGO_PKG_VERSION").into(),
            engine: info.name,
            engine_version: info.version,
            device: info.device,
            threads: info.threads,
            parameters: plan.model.parameters,
            epochs: plan.epochs.len(),
            steps: steps * plan.epochs.len(),
            samples: setup.train.rows(),
        });
        if *setup.recompute != Recompute::None && !engine.info().recomputes {
            let message = format!("the engine {} keeps all activations: nothing is recomputed", engine.info().name);
            report(RunEvent::Warning { message });
        }
        let evaluator = Evaluator::new(engine, eval, setup.objective.prediction(&prepared)?)?;
        let evaluator = evaluator.averaged(setup.ema.is_some_and(|ema| ema.evaluate));
        let mut state = State::new(engine, &prepared)?;
        let averager = setup.ema.map(|ema| Averager::new(engine, ema, &prepared, &mut state)).transpose()?;
        let rates = UnitRates::new(setup, &prepared)?;
        let observer = Observer::new(engine, setup, &prepared, &state)?;
        let segments = segments(&plan);
        let phases = Phases::new(&segments);
        let place = Place {
            at: Point::START,
            started: 0,
            loss: 0.0,
            samples: 0,
            seconds: 0.0,
            wait: 0.0,
            interval_loss: 0.0,
            interval_steps: 0,
            lr: 0.0,
        };
        let load = |batches| Loader::new(batches, setup.loading.unwrap_or_else(|| Loading::suiting(batches)));
        let (loader, eval_loader) = (load(setup.train), setup.eval.map(load));
        let guard = Guard::new(setup.freezing.rollback);
        let (evaluated, history, delay) = (None, History::default(), 0);
        let mut run = Run {
            setup,
            prepared,
            initial,
            state,
            evaluator,
            loader,
            eval_loader,
            evaluated,
            undefined: BTreeSet::new(),
            place,
            plan,
            segments,
            history,
            phases,
            rates,
            guard,
            observer,
            pace: None,
            delay,
            last_saved: None,
            watch: Watch::default(),
            within: false,
            averager,
        };
        if let Some(checkpoint) = setup.resume {
            run.restore(engine, checkpoint)?;
            let (epoch, step) = (run.place.at.epoch, run.place.started);
            report(RunEvent::Resume { epoch, step, sequence: checkpoint.sequence });
        }
        if setup.freezing.rollback.is_some() {
            let metrics = run.evaluate(engine)?;
            run.guard.check(&metrics)?;
        }
        Ok(run)
    }

    /// Returns what comes next: the rest of the segment that the run stands in; `None` at the end, also where it is
    /// early.
    pub fn next_segment(&self) -> Option<Segment> {
        if self.stall().is_some() {
            return None;
        }
        let at = self.place.at;
        let next = self.segments.partition_point(|segment| segment.start() <= at);
        let segment = self.segments.get(next.checked_sub(1)?)?;
        let more = at.epoch <= segment.last_epoch;
        more.then(|| Segment { first_epoch: at.epoch, after: at.after, ..segment.clone() })
    }

    /// Makes the graphs of a segment ready and trains its steps; returns true when asked to stop. What the policy of a
    /// run decides on the way may end it earlier.
    ///
    /// # Errors
    /// See [`train`](super::train).
    pub fn segment(
        &mut self,
        engine: &mut dyn Engine,
        segment: &Segment,
        report: &mut dyn FnMut(RunEvent),
        stop: &AtomicBool,
    ) -> Result<bool, RunError> {
        self.place.at = segment.start();
        if self.guard.watches(&self.phases, segment) {
            let metrics = self.evaluate(engine)?;
            let before = Before {
                place: self.place.clone(),
                history: self.history.clone(),
                rates: self.rates.clone(),
                snapshot: self.state.snapshot(engine)?,
                memory: self.observer.as_ref().map(Observer::memory),
            };
            self.guard.arm(&metrics, before);
        }
        self.enter(engine, segment, report)?;
        for epoch in segment.first_epoch..=segment.last_epoch {
            let from = if epoch == segment.first_epoch { segment.after } else { 0 };
            let until = segment.until.filter(|_| epoch == segment.last_epoch);
            match self.epoch(engine, epoch, from, until, report, stop)? {
                Flow::Done => {}
                Flow::Stopped => return Ok(true),
                Flow::Replanned => return Ok(false),
            }
        }
        self.leave(engine, report)?;
        Ok(false)
    }

    /// Proves what is frozen and drops all sessions.
    ///
    /// # Errors
    /// A frozen value moved.
    pub fn finish(&mut self, engine: &mut dyn Engine, report: &mut dyn FnMut(RunEvent)) -> Result<(), RunError> {
        self.leave(engine, report)?;
        self.phases.clear(engine);
        if let Some(pace) = &mut self.pace {
            pace.close(report);
            pace.gain().into_iter().for_each(report);
        }
        Ok(())
    }

    /// Runs the model as trained so far over the eval data, once for each step it stands at.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn evaluate(&mut self, engine: &mut dyn Engine) -> Result<BTreeMap<String, f64>, RunError> {
        Ok(self.results(engine)?.scalars)
    }

    fn results(&mut self, engine: &mut dyn Engine) -> Result<Results, RunError> {
        let Some(loader) = &self.eval_loader else { return Ok(Results::default()) };
        if let Some((_, results)) = self.evaluated.as_ref().filter(|(step, _)| *step == self.place.started) {
            return Ok(results.clone());
        }
        let compared = names::target(self.setup.objective.metrics().target.as_deref());
        let results = self.evaluator.run(engine, &self.state, loader, self.setup.metrics()?, &compared)?;
        self.evaluated = Some((self.place.started, results.clone()));
        Ok(results)
    }

    /// Returns why the run ends before its last epoch, where it does.
    fn stall(&self) -> Option<Stall> {
        stops(&self.history, self.setup.evaluation.early_stopping.as_ref()?)
    }

    /// Forgets the last evaluation: the state is not what it was.
    pub(super) fn evaluated_is_stale(&mut self) {
        self.evaluated = None;
    }

    fn epoch(
        &mut self,
        engine: &mut dyn Engine,
        epoch: usize,
        from: usize,
        until: Option<usize>,
        report: &mut dyn FnMut(RunEvent),
        stop: &AtomicBool,
    ) -> Result<Flow, RunError> {
        if from == 0 {
            (self.place.loss, self.place.samples, self.place.seconds, self.place.wait) = (0.0, 0, 0.0, 0.0);
        }
        self.keep_start(engine)?;
        let count = self.setup.steps_per_epoch();
        let end = until.unwrap_or(count).min(count);
        for number in from..end {
            let clock = Instant::now();
            self.step(engine, epoch, number, report)?;
            let seconds = clock.elapsed().as_secs_f64();
            self.place.seconds += seconds;
            self.pace.iter_mut().for_each(|pace| pace.step(seconds));
            self.place.at = if number + 1 == count {
                Point { epoch: epoch + 1, after: 0 }
            } else {
                Point { epoch, after: number + 1 }
            };
            let stopped = stop.load(Ordering::Relaxed);
            let replanned = self.observes() && {
                self.observe(engine, report)?;
                number + 1 < count && self.replan(report)?
            };
            self.within = !replanned && number + 1 < end;
            if stopped && number + 1 < count {
                self.checkpoint(engine, epoch, false, true, report)?;
                return Ok(Flow::Stopped);
            }
            if number + 1 < count && self.saves_now() {
                self.checkpoint(engine, epoch, false, false, report)?;
            }
            if replanned {
                return Ok(Flow::Replanned);
            }
        }
        self.within = false;
        if end < count {
            return Ok(Flow::Done);
        }
        let flow = self.epoch_ends(engine, epoch, stop.load(Ordering::Relaxed), report)?;
        Ok(if stop.load(Ordering::Relaxed) { Flow::Stopped } else { flow })
    }

    /// Reports an epoch, and decides again.
    fn epoch_ends(
        &mut self,
        engine: &mut dyn Engine,
        epoch: usize,
        stops: bool,
        report: &mut dyn FnMut(RunEvent),
    ) -> Result<Flow, RunError> {
        let epochs = self.plan.epochs.len();
        let evaluated = self.setup.evaluation.is_due(epoch, epochs) || self.guard.is_armed();
        let results = if evaluated { self.results(engine)? } else { Results::default() };
        let Results { scalars, per_class, confusion, mut undefined } = results;
        let infinite = scalars.iter().filter(|(_, value)| !value.is_finite());
        undefined.extend(infinite.map(|(metric, _)| (metric.clone(), "it is not finite".to_string())));
        let metrics = finite(scalars);
        for (metric, reason) in &undefined {
            if self.undefined.insert(metric.clone()) {
                let message = format!("the eval metric {metric} is not defined after epoch {epoch}: {reason}");
                report(RunEvent::Warning { message });
            }
        }
        let Place { loss, samples, seconds, wait, .. } = self.place;
        let train_loss = loss / samples.max(1) as f64;
        let evaluated = evaluated && self.setup.eval.is_some();
        let mut record = EpochRecord { evaluated, ..EpochRecord::default() };
        record.metrics.extend(metrics.clone());
        record.metrics.insert("train_loss".into(), train_loss);
        self.history.epochs.push(record);
        report(RunEvent::Epoch {
            epoch,
            train_loss,
            metrics: metrics.clone(),
            per_class,
            confusion,
            undefined,
            seconds,
            samples_per_second: samples as f64 / seconds,
            wait_seconds: wait,
            peak_bytes: peak_bytes(),
        });
        if let Verdict::Back(armed) = self.guard.judge(&metrics) {
            self.delay += armed.delay;
            report(armed.event(epoch, &metrics, self.delay));
            self.phases.discard(engine);
            self.state.restore(engine, &armed.run.snapshot)?;
            let Before { place, history, rates, memory, .. } = armed.run;
            (self.place, self.history, self.rates) = (place, history, rates);
            self.evaluated = None;
            if let (Some(observer), Some(memory)) = (&mut self.observer, memory) {
                observer.restore(memory);
            }
            self.decide_again()?;
            self.checkpoint(engine, self.last_epoch(), false, stops, report)?;
            return Ok(Flow::Replanned);
        }
        if let Some(Stall { best, evaluations }) = self.stall().filter(|_| epoch < epochs) {
            let (best_epoch, best) = best.unzip();
            let metric = self.setup.evaluation.early_stopping.as_ref().map(|early| early.metric.name());
            report(RunEvent::EarlyStop { epoch, metric: metric.unwrap_or_default(), best_epoch, best, evaluations });
            self.checkpoint(engine, epoch, self.is_best(), stops, report)?;
            return Ok(Flow::Replanned);
        }
        let adaptive = self.setup.freezing.planner.is_some_and(|planner| planner.policy().is_adaptive());
        let replanned = adaptive && self.replan(report)?;
        let best = self.is_best();
        self.checkpoint(engine, epoch, best, stops, report)?;
        Ok(if replanned { Flow::Replanned } else { Flow::Done })
    }

    /// Trains one step: the batches of one update.
    fn step(
        &mut self,
        engine: &mut dyn Engine,
        epoch: usize,
        number: usize,
        report: &mut dyn FnMut(RunEvent),
    ) -> Result<(), RunError> {
        let setup = self.setup;
        let batches = setup.train.len();
        let first = number * setup.accumulate.max(1);
        let indices = first..(first + setup.accumulate.max(1)).min(batches);
        let (steps, epochs) = (setup.steps_per_epoch() as u64, self.plan.epochs.len() as u64);
        let at = self.place.started as u64;
        let lr = setup
            .objective
            .lr()
            .map(|base| lr_at(setup.schedule, base, at, steps * epochs, steps, &self.history.epochs));
        let scales =
            self.rates.scales(setup, &self.plan, &self.history, self.delay, self.place.at, self.place.started)?;
        self.place.started += 1;
        let rows: usize = indices.clone().map(|index| setup.train.rows_of(index)).sum();
        let last = self.observes();
        let Run { phases, state, observer, rates, loader, averager, watch, .. } = self;
        let phase = phases.current();
        let kept = Kept::of(engine, phase)?;
        let (mut loss, mut seconds, mut wait) = (0.0, 0.0, 0.0);
        for index in indices.clone() {
            let (batch, waited) = loader.take(epoch as u64, index);
            let batch = batch?;
            wait += waited;
            let weight = setup.train.rows_of(index) as f64 / rows.max(1) as f64;
            let share = Share { weight, first: index == indices.start };
            let clock = Instant::now();
            let own = phase.backward(engine, (epoch - 1) * batches + index + 1, &batch, share)?;
            seconds += clock.elapsed().as_secs_f64();
            if let Some(gradient) = wrong(engine, phase, own)? {
                let bad = Bad { index, of: indices, loss: own, gradient, lr, epoch };
                return self.nonfinite(engine, &bad, kept, report);
            }
            loss += own * weight;
        }
        let clock = Instant::now();
        if let Some(observer) = observer {
            observer.before_update(engine, phase, state, last.then_some(rates.current()))?;
        }
        let lr = phase.update(engine, lr, scales.as_ref())?;
        if let Some(observer) = observer {
            observer.after_update(engine, state)?;
        }
        watch.good();
        if let Some(averager) = averager {
            averager.step(engine, state, self.place.started)?;
        }
        seconds += clock.elapsed().as_secs_f64();
        let place = &mut self.place;
        place.loss += loss * rows as f64;
        place.samples += rows;
        place.wait += wait;
        place.interval_loss += loss;
        place.interval_steps += 1;
        place.lr = lr.unwrap_or(0.0);
        if place.started.is_multiple_of(setup.log_every.max(1)) {
            report(RunEvent::Step { epoch, step: place.started, loss, lr, seconds, wait_seconds: wait });
        }
        Ok(())
    }

    /// Returns true where the policy wants to be asked after the steps that are done.
    fn observes(&self) -> bool {
        let planner = self.setup.freezing.planner.filter(|planner| planner.policy().is_adaptive());
        planner.is_some_and(|planner| planner.points().binary_search(&self.place.started).is_ok())
    }

    /// Adds what the interval that ends here measured to the history.
    fn observe(&mut self, engine: &mut dyn Engine, report: &mut dyn FnMut(RunEvent)) -> Result<(), RunError> {
        let held = self.phases.held();
        let frozen = self.plan.units.iter().map(|unit| {
            let mut names = unit.parameters.iter().chain(&unit.shared).peekable();
            names.peek().is_some() && names.all(|name| held.contains(name))
        });
        let Place { started, lr, interval_loss, interval_steps, .. } = self.place;
        let loss = interval_loss / interval_steps.max(1) as f64;
        let mut observation = Observation::new(started, lr, loss, frozen.collect());
        (self.place.interval_loss, self.place.interval_steps) = (0.0, 0);
        let mut seconds = 0.0;
        if let Some(mut observer) = self.observer.take() {
            (observation.signals, seconds) = observer.measure(engine, self, &observation.frozen)?;
            self.observer = Some(observer);
        }
        report(RunEvent::Observation {
            seconds,
            step: started,
            signals: observation.signals.iter().map(|(signal, values)| (*signal, values.clone())).collect(),
        });
        self.history.observations.push(observation);
        Ok(())
    }

    /// Asks the policy again; returns true where what comes next changes.
    fn replan(&mut self, report: &mut dyn FnMut(RunEvent)) -> Result<bool, RunError> {
        let before = self.phases.held().clone();
        self.decide_again()?;
        let Some(next) = self.next_segment() else { return Ok(false) };
        let changes = before.len() != next.held().count() || next.held().any(|name| !before.contains(name));
        if changes {
            let entry = self.plan.epochs.get(next.first_epoch - 1).map(|epoch| epoch.at(next.after));
            report(RunEvent::Decision {
                epoch: next.first_epoch,
                step: self.place.started,
                frozen: next.frozen.len(),
                frozen_units: entry.map_or(0, |entry| entry.frozen_units),
            });
        }
        Ok(true)
    }

    /// Returns the epoch of the step that was done last, from 1; 0 before the first.
    pub(super) fn last_epoch(&self) -> usize {
        let Point { epoch, after } = self.place.at;
        if after == 0 { epoch - 1 } else { epoch }
    }

    /// Returns true where a checkpoint is due within an epoch.
    fn saves_now(&self) -> bool {
        let every = self.setup.checkpoints.as_ref().and_then(|checkpoints| checkpoints.every);
        every.is_some_and(|every| self.place.started.is_multiple_of(every.max(1)))
    }

    /// Returns true where the epoch that ended last is the best one so far.
    fn is_best(&self) -> bool {
        let found = self.setup.evaluation.chooses().and_then(|metric| best(&self.history, &metric));
        found.is_some_and(|(epoch, _)| epoch == self.history.epochs.len())
    }

    pub(super) fn decide_again(&mut self) -> Result<(), RunError> {
        if let Some(planner) = self.setup.freezing.planner {
            self.plan = planner.replan(&self.plan, self.place.at, &self.history, self.delay)?;
            self.segments = segments(&self.plan);
        }
        Ok(())
    }
}

impl Setup<'_> {
    /// Returns the steps of an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.train.len().div_ceil(self.accumulate.max(1))
    }
}

/// Leaves out what JSON cannot hold.
fn finite(metrics: BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    metrics.into_iter().filter(|(_, value)| value.is_finite()).collect()
}
