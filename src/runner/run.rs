//! A run in progress: epochs, steps, phases, and what each reports.

use super::Operators;
use super::cache::Cache;
use super::calibrate::Calibration;
use super::ema::Averager;
use super::engine::Engine;
use super::evaluator::Evaluator;
use super::event::RunEvent;
use super::guard::{Before, Guard};
use super::improvement::{Stall, stops};
use super::initial::initialized;
use super::nonfinite::Watch;
use super::observe::Observer;
use super::pace::Pace;
use super::phases::Phases;
use super::precision::{Computing, Scale};
use super::rates::UnitRates;
use super::state::State;
use super::steps::Flow;
use super::train::{RunError, Setup};
use crate::data::{Loader, Loading};
use crate::metrics::Results;
use crate::plan::{FreezePlan, History, Observation, Point, Segment, segments};
use crate::training::{Prepared, Recompute, names};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

/// A run in progress. [`train`](super::train) drives it; tests step through it to look at the state.
pub struct Run<'a> {
    pub(super) setup: &'a Setup<'a>,
    /// The model with its starting values.
    pub(super) prepared: Prepared,
    /// Starting values of slots that are not those of the step.
    pub(super) initial: BTreeMap<String, crate::graph::Tensor>,
    /// Parameters, statistics and slots.
    pub state: State,
    pub(super) evaluator: Evaluator,
    pub(super) loader: Loader,
    pub(super) eval_loader: Option<Loader>,
    /// The step after which the state was last evaluated, with what that gave.
    pub(super) evaluated: Option<(usize, Results)>,
    /// Metrics that are not defined and were said to be so.
    pub(super) undefined: BTreeSet<String>,
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
    /// Predicts the steps of phases, where some were timed.
    pub(super) calibration: Option<Calibration>,
    /// Whether single nodes are timed for that whatever it takes; otherwise where it takes a small part of the run.
    pub(super) calibrates: bool,
    /// Epochs by which freezes were put off.
    pub(super) delay: usize,
    /// Steps that the last checkpoint holds.
    pub(super) last_saved: Option<usize>,
    pub(super) watch: Watch,
    /// Whether the run stands within the steps of an epoch that one frozen set trains.
    pub(super) within: bool,
    pub(super) averager: Option<Averager>,
    /// What the frozen prefix makes, kept.
    pub(super) cache: Option<Cache>,
}

/// How far a run is, and sums since the start of the epoch and of the interval.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Place {
    pub at: Point,
    /// Steps done over the run.
    pub started: usize,
    pub loss: f64,
    pub samples: usize,
    pub seconds: f64,
    pub wait: f64,
    pub interval_loss: f64,
    pub interval_steps: usize,
    pub lr: f64,
    /// The scale of the loss, where it is scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
}

impl Place {
    /// Notes a step with overflow; returns true where a smaller scale of the loss may help, which is now taken.
    pub(super) fn shrink_scale(&mut self, computing: &Computing) -> bool {
        self.scale.as_mut().zip(computing.scale.as_ref()).is_some_and(|(scale, how)| scale.overflow(how))
    }

    /// Notes a step without overflow; returns true where the scale of the loss grows.
    pub(super) fn grow_scale(&mut self, computing: &Computing) -> bool {
        self.scale.as_mut().zip(computing.scale.as_ref()).is_some_and(|(scale, how)| scale.good(how))
    }

    /// Returns the event that tells of a change of the scale after a step.
    pub(super) fn scale_event(&self, epoch: usize, overflow: bool) -> Option<RunEvent> {
        let scale = f64::from(self.scale?.scale);
        Some(RunEvent::LossScale { epoch, step: self.started, scale, overflow })
    }
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
        let (mut prepared, initial) = initialized(engine, setup)?;
        prepared.form = setup.operators.form(engine.info().form);
        prepared.scaled = setup.computing.start().is_some();
        engine.compute_in(setup.computing.settings().as_ref())?;
        let eval = setup.objective.eval(&prepared)?;
        let info = engine.info().clone();
        report(RunEvent::Start {
            version: env!("CARGO_PKG_VERSION").into(),
            engine: info.name,
            engine_version: info.version,
            device: info.device,
            threads: info.threads,
            operators: Operators::of(prepared.form),
            vectors: freeze_plan_kernels::simd::Level::best().name().into(),
            precision: setup.computing.precision,
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
            scale: setup.computing.start(),
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
            calibration: None,
            calibrates: false,
            delay,
            last_saved: None,
            watch: Watch::default(),
            within: false,
            averager,
            cache: setup.freezing.cache.cloned().map(Cache::new),
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

    pub(super) fn results(&mut self, engine: &mut dyn Engine) -> Result<Results, RunError> {
        let Some(loader) = &self.eval_loader else { return Ok(Results::default()) };
        if let Some((_, results)) = self.evaluated.as_ref().filter(|(step, _)| *step == self.place.started) {
            return Ok(results.clone());
        }
        let compared = names::target(self.setup.objective.metrics().target.as_deref());
        let results = self.evaluator.run(engine, &self.state, loader, self.setup.metrics()?, &compared)?;
        self.evaluated = Some((self.place.started, results.clone()));
        Ok(results)
    }

    /// Evaluates the first batch of the eval data.
    pub(super) fn try_evaluation(&mut self, engine: &mut dyn Engine) -> Result<(), RunError> {
        let Some(batches) = self.setup.eval else { return Ok(()) };
        self.evaluator.batch(engine, &self.state, &batches.batch(0, 0)?)?;
        Ok(())
    }

    /// Returns why the run ends before its last epoch, where it does.
    pub(super) fn stall(&self) -> Option<Stall> {
        stops(&self.history, self.setup.evaluation.early_stopping.as_ref()?)
    }

    /// Forgets the last evaluation: the state is not what it was.
    pub(super) fn evaluated_is_stale(&mut self) {
        self.evaluated = None;
    }

    /// Returns true where the policy decides by what the run measures.
    pub(super) fn adapts(&self) -> bool {
        self.setup.freezing.planner.is_some_and(|planner| planner.policy().is_adaptive())
    }

    /// Returns true where the policy wants to be asked after the steps that are done.
    pub(super) fn observes(&self) -> bool {
        let planner = self.setup.freezing.planner.filter(|planner| planner.policy().is_adaptive());
        planner.is_some_and(|planner| planner.points().binary_search(&self.place.started).is_ok())
    }

    /// Adds what the interval that ends here measured to the history.
    pub(super) fn observe(
        &mut self,
        engine: &mut dyn Engine,
        report: &mut dyn FnMut(RunEvent),
    ) -> Result<(), RunError> {
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
    pub(super) fn replan(&mut self, report: &mut dyn FnMut(RunEvent)) -> Result<bool, RunError> {
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
