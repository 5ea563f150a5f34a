//! Graphs and sessions that are made on a thread of their own while others train.
//!
//! What becomes frozen at a phase change trains until then, so its values are not known ahead. Where the plan tells the
//! next phase, its graphs are made before the change in a form that has them as inputs ([`Form::Mixed`]) and what is
//! frozen already as constants; the change then only binds. Constants are what an engine folds and packs, so once the
//! values stand still, the graphs with all of them as constants are made in the same way, and take over after a number
//! of steps that the plan alone decides: the two forms differ in the last bits, and no clock may have a say in those.

use super::engine::{Engine, EngineError, Loader};
use super::phases::{Open, Phases};
use super::recipe::{Form, Graphs, Recipe};
use super::run::Run;
use super::sessions::LoadedSessions;
use super::train::RunError;
use crate::graph::Tensor;
use crate::plan::{EpochPlan, Segment};
use crate::training::{Objective, TrainingError};
use std::collections::{BTreeMap, BTreeSet};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

/// Steps before a change from which on the next phase is made ready, at least.
const LEAST_LEAD: usize = 32;
/// How many times as long before a change as the graphs of the phase that trains took to make.
const LEAD: f64 = 10.0;
/// Seconds in which a node of a train graph is built and loaded, with the other threads at work.
const NODE_SECONDS: f64 = 5e-4;
/// Flops in a second, with which the steps of a phase are counted that pass until its graphs are made.
const FLOPS: f64 = 5e10;
/// Bounds of these steps.
const UNTIL_CONSTANTS: std::ops::RangeInclusive<f64> = 4.0..=64.0;

/// Graphs and sessions of a phase.
pub(super) struct Made {
    pub(super) graphs: Graphs,
    pub(super) sessions: LoadedSessions,
    /// Seconds that they took.
    pub(super) seconds: f64,
}

/// A thread that makes graphs and sessions.
pub(super) struct Ahead {
    held: BTreeSet<String>,
    form: Form,
    thread: Option<JoinHandle<Result<Made, AheadError>>>,
}

/// Graphs that could not be made.
enum AheadError {
    Build(TrainingError),
    Load(EngineError),
}

impl From<AheadError> for RunError {
    fn from(error: AheadError) -> RunError {
        match error {
            AheadError::Build(error) => error.into(),
            AheadError::Load(error) => error.into(),
        }
    }
}

impl Ahead {
    /// Begins; `None` where the system gives no thread.
    fn start(recipe: Recipe, loader: Box<dyn Loader>) -> Option<Ahead> {
        let (held, form) = (recipe.held.clone(), recipe.form.clone());
        let make = move || {
            let clock = Instant::now();
            let graphs = recipe.build().map_err(AheadError::Build)?;
            drop(recipe);
            let sessions = LoadedSessions::load(loader.as_ref(), &graphs.step).map_err(AheadError::Load)?;
            Ok(Made { graphs, sessions, seconds: clock.elapsed().as_secs_f64() })
        };
        let thread = Builder::new().name("next phase".into()).spawn(make).ok()?;
        Some(Ahead { held, form, thread: Some(thread) })
    }

    /// Waits for what was made, where it is this.
    fn take(mut self, held: &BTreeSet<String>, form: &Form) -> Result<Option<Made>, RunError> {
        if (&self.held, &self.form) != (held, form) {
            return Ok(None);
        }
        let Some(thread) = self.thread.take() else { return Ok(None) };
        match thread.join() {
            Ok(made) => Ok(Some(made?)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Ahead {
    /// Waits: an engine must not end while a session is made.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What comes after the phase that trains, where the plan tells.
pub(super) struct Next {
    segment: Segment,
    /// Steps done over the run where it begins.
    at: usize,
}

impl Run<'_> {
    /// Returns what of `held` was not frozen in the phase before; `None` where graphs are not made beside the engine.
    pub(super) fn newly_frozen(&self, engine: &dyn Engine, held: &BTreeSet<String>) -> Option<BTreeSet<String>> {
        let before = self.phases.before().filter(|_| self.makes_beside(engine))?;
        Some(self.fresh(before, held))
    }

    fn fresh(&self, before: &BTreeSet<String>, held: &BTreeSet<String>) -> BTreeSet<String> {
        held.difference(before).filter(|name| self.state.find(name).is_some()).cloned().collect()
    }

    fn makes_beside(&self, engine: &dyn Engine) -> bool {
        matches!(self.setup.objective, Objective::Own(_)) && engine.loader().is_some()
    }

    /// Returns true where the next phase is known ahead and can be made beside the engine.
    pub(super) fn foresees(&self, engine: &dyn Engine) -> bool {
        !self.adapts() && self.makes_beside(engine)
    }

    /// Returns the next segment of another frozen set.
    pub(super) fn upcoming(&self, held: &BTreeSet<String>) -> Option<Next> {
        let later = self.segments.iter().filter(|segment| segment.start() > self.place.at);
        let differs = |segment: &&Segment| {
            let own: BTreeSet<&str> = segment.held().collect();
            !own.into_iter().eq(held.iter().map(String::as_str))
        };
        let segment = later.into_iter().find(differs)?;
        let steps = self.setup.steps_per_epoch();
        let at = |epoch: usize, after: usize| (epoch - 1) * steps + after;
        let left = at(segment.first_epoch, segment.after).saturating_sub(at(self.place.at.epoch, self.place.at.after));
        Some(Next { segment: segment.clone(), at: self.place.started + left })
    }

    /// Returns the steps done over the run at which the graphs with constants take over from those that a phase begins
    /// with; `None` where it is too short for that to pay.
    pub(super) fn constants_from(&self, entry: &EpochPlan, nodes: usize, held: &BTreeSet<String>) -> Option<usize> {
        let flops = entry.predicted.forward_flops as f64 + entry.predicted.backward_flops as f64;
        let seconds = (flops / FLOPS).max(1e-6 * nodes as f64).max(f64::MIN_POSITIVE);
        let wait = (NODE_SECONDS * nodes as f64 / seconds).ceil();
        let steps = wait.clamp(*UNTIL_CONSTANTS.start(), *UNTIL_CONSTANTS.end()) as usize;
        let end = match self.upcoming(held) {
            Some(next) => next.at,
            None => self.setup.steps_per_epoch() * self.plan.epochs.len(),
        };
        let from = self.place.started + steps;
        (from + steps <= end).then_some(from)
    }

    /// Begins to make the graphs that follow those that train, when it is time; `seconds` is what the last step took.
    pub(super) fn look_ahead(&mut self, engine: &dyn Engine, seconds: f64) -> Result<(), RunError> {
        let started = self.place.started;
        let Phases { open: Some(open), ahead: None, .. } = &self.phases else { return Ok(()) };
        let Open { next: Some(Next { segment, at }), constants_from: None, .. } = open else { return Ok(()) };
        let lead = ((LEAD * open.seconds / seconds.max(1e-9)) as usize).max(LEAST_LEAD);
        if at.saturating_sub(started) > lead {
            return Ok(());
        }
        let held: BTreeSet<String> = segment.held().map(String::from).collect();
        self.phases.current_open().next = None;
        if self.foresees(engine) { self.make_next(engine, held) } else { Ok(()) }
    }

    /// Begins to make the graphs of what an adaptive policy decided for the next step.
    pub(super) fn follow_decision(&mut self, engine: &dyn Engine) -> Result<(), RunError> {
        match self.next_segment().filter(|_| self.makes_beside(engine)) {
            Some(next) => self.make_next(engine, next.held().map(String::from).collect()),
            None => Ok(()),
        }
    }

    fn make_next(&mut self, engine: &dyn Engine, held: BTreeSet<String>) -> Result<(), RunError> {
        let Phases { open: Some(open), parked, recurring, .. } = &self.phases else { return Ok(()) };
        if open.held == held || parked.iter().any(|open| open.held == held) {
            return Ok(());
        }
        let form = Form::of(recurring.contains(&held), self.fresh(&open.held, &held));
        let stays: BTreeSet<String> = held.intersection(&open.held).cloned().collect();
        let mut values = match form {
            Form::Inputs => BTreeMap::new(),
            _ => self.constants(engine, &stays, &open.values)?,
        };
        values.retain(|name, _| stays.contains(name));
        self.phases.ahead = None;
        self.phases.ahead = self.start(engine, held, form, values);
        Ok(())
    }

    /// Begins to make graphs beside the engine.
    pub(super) fn start(
        &self,
        engine: &dyn Engine,
        held: BTreeSet<String>,
        form: Form,
        values: BTreeMap<String, Tensor>,
    ) -> Option<Ahead> {
        Ahead::start(self.recipe(engine, held, form, values)?, engine.loader()?)
    }

    /// Returns the graphs and sessions that were made ahead, where they are these.
    pub(super) fn made(&mut self, held: &BTreeSet<String>, form: &Form) -> Result<Option<Made>, RunError> {
        self.phases.ahead.take().map_or(Ok(None), |ahead| ahead.take(held, form))
    }
}
