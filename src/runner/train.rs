//! A whole run: what it needs, what it gives, and how it fails.

use super::Operators;
use super::cache::Caching;
use super::ceiling::Ceiling;
use super::ema::{Ema, UPDATES};
use super::engine::{Engine, EngineError};
use super::estimate::MemoryEstimate;
use super::evaluation::{Evaluation, unwatchable};
use super::event::RunEvent;
use super::exhausted::Exhausted;
use super::nonfinite::{Cause, Nonfinite};
use super::precision::Computing;
use super::run::Run;
use super::schedule::Schedule;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::data::{Batches, DataError, Loading};
use crate::error::ErrorKind;
use crate::graph::Tensor;
use crate::metrics::{Metric, MetricError, Metrics};
use crate::plan::{FreezePlan, History, OnReturn, PlanError, PlanOptions, Planner, Point, PrefixMode, Rollback};
use crate::training::{Objective, Prepared, Recompute, TrainingError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// What is frozen when, and what goes with it.
#[derive(Clone, Copy)]
pub struct Freezing<'a> {
    /// What is frozen when; of a planner whose policy is adaptive, what can be told ahead.
    pub plan: &'a FreezePlan,
    /// Decides again as the run measures more, and gives the learning rates of single units; `None` follows the plan.
    pub planner: Option<&'a Planner<'a>>,
    /// What becomes of the slots of what trains again.
    pub on_return: OnReturn,
    /// Steps over which the rate of what trains again rises with [`OnReturn::WarmUp`].
    pub warm_up_steps: usize,
    /// When a freeze is taken back.
    pub rollback: Option<&'a Rollback>,
    /// Steps that are measured before the first one, to tell what the freezing can save; 0 for no such check.
    pub ceiling_steps: usize,
    /// Whether the frozen prefix runs as a session of its own.
    pub prefix: PrefixMode,
    /// How what the frozen prefix makes is kept; `None` keeps nothing.
    pub cache: Option<&'a Caching>,
}

impl<'a> Freezing<'a> {
    /// Returns the freezing of a plan as it is written.
    pub fn of(plan: &'a FreezePlan) -> Freezing<'a> {
        Freezing {
            plan,
            planner: None,
            on_return: OnReturn::Reset,
            warm_up_steps: 0,
            rollback: None,
            ceiling_steps: 0,
            prefix: PrefixMode::default(),
            cache: None,
        }
    }

    /// Returns the freezing of a plan that `planner` made with these options.
    pub fn with(plan: &'a FreezePlan, planner: &'a Planner<'a>, options: &'a PlanOptions) -> Freezing<'a> {
        Freezing {
            plan,
            planner: Some(planner),
            on_return: options.on_return,
            warm_up_steps: options.warm_up_steps,
            rollback: options.rollback.as_ref(),
            prefix: options.prefix,
            ..Freezing::of(plan)
        }
    }

    /// Returns the freezing with the check of what it can save, on so many steps.
    pub fn checked_on(self, ceiling_steps: usize) -> Freezing<'a> {
        Freezing { ceiling_steps, ..self }
    }

    /// Returns the freezing with a cache of what the frozen prefix makes.
    pub fn cached(self, cache: Option<&'a Caching>) -> Freezing<'a> {
        Freezing { cache, ..self }
    }
}

/// Everything a run needs.
pub struct Setup<'a> {
    /// The model.
    pub prepared: &'a Prepared,
    /// What is frozen when.
    pub freezing: Freezing<'a>,
    /// What is minimized, and how.
    pub objective: Objective<'a>,
    /// Learning rate over the run, where the objective has a base rate.
    pub schedule: &'a Schedule,
    /// Training data; its columns are the model's inputs and `target`.
    pub train: &'a Batches,
    /// Evaluation data.
    pub eval: Option<&'a Batches>,
    /// How far ahead batches are made; what suits the data by default.
    pub loading: Option<Loading>,
    /// Where and how often the run is saved; the last checkpoints are kept, and that of the best epoch.
    pub checkpoints: Option<Checkpoints>,
    /// Where the run goes on; at its start by default.
    pub resume: Option<&'a Checkpoint>,
    /// What is evaluated and when, and what watches it.
    pub evaluation: &'a Evaluation,
    /// Seed of everything random but the order of rows.
    pub seed: u64,
    /// Which modules compute their activations a second time instead of keeping them.
    pub recompute: &'a Recompute,
    /// Steps from one `Step` event to the next.
    pub log_every: usize,
    /// Batches of one step, at least 1: their gradients are averaged. What is left at the end of an
    /// epoch is a step of fewer.
    pub accumulate: usize,
    /// What becomes of a step whose loss or gradients are not finite.
    pub nonfinite: Nonfinite,
    /// Averages of the parameters.
    pub ema: Option<Ema>,
    /// Whose operators compute a step.
    pub operators: Operators,
    /// In which dtypes, and how the loss is scaled.
    pub computing: Computing,
}

/// Where and how often a run is saved, beside after each epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoints {
    /// The folder that holds all checkpoints of the run.
    pub folder: PathBuf,
    /// Steps from one checkpoint within an epoch to the next; `None` for none.
    pub every: Option<usize>,
    /// The last so many are kept, at least 1.
    pub keep: usize,
}

impl Checkpoints {
    /// Returns a checkpoint after each epoch, of which the last two are kept.
    pub fn after_epochs(folder: PathBuf) -> Checkpoints {
        Checkpoints { folder, every: None, keep: 2 }
    }
}

impl<'a> Setup<'a> {
    /// Returns the run of a plan with nothing beside it: no evaluation, no checkpoints, every step reported.
    pub fn of(
        prepared: &'a Prepared,
        freezing: Freezing<'a>,
        objective: Objective<'a>,
        schedule: &'a Schedule,
        train: &'a Batches,
    ) -> Setup<'a> {
        Setup {
            prepared,
            freezing,
            objective,
            schedule,
            train,
            eval: None,
            evaluation: &Evaluation::DEFAULT,
            loading: None,
            checkpoints: None,
            resume: None,
            seed: 0,
            recompute: &Recompute::None,
            log_every: 1,
            accumulate: 1,
            nonfinite: Nonfinite::default(),
            ema: None,
            operators: Operators::Own,
            computing: Computing::default(),
        }
    }
}

impl Setup<'_> {
    /// Returns the operators of the model and its loss that have a gradient rule of the caller, with its version.
    pub(super) fn rules(&self) -> Result<BTreeMap<String, u64>, TrainingError> {
        self.objective.rules(self.prepared)
    }

    /// Refuses what can be refused before a run begins.
    ///
    /// # Errors
    /// The policy is a schedule of rates by itself and the job has another, or gives rates to a training step that runs
    /// as it is written; or what watches a metric has no eval data, or a metric cannot be taken of the predictions.
    pub fn check(&self) -> Result<(), RunError> {
        let Freezing { planner, rollback, on_return, .. } = self.freezing;
        if let Some(planner) = planner.filter(|planner| planner.policy().anneals() && !self.schedule.is_constant()) {
            let problem = "leave out [schedule], or set anneal = false in [freeze]".into();
            return Err(RunError::Anneals { policy: planner.policy().name().into(), problem });
        }
        if let (Some(rollback), None) = (rollback, self.eval) {
            let known = "the job has no eval data".into();
            return Err(RunError::Metric { metric: rollback.metric.clone(), known });
        }
        self.metrics()?;
        for metric in self.evaluation.watched().chain(self.schedule.metric()) {
            if let Some((_, problem)) = unwatchable("", metric, self.eval.is_some()) {
                return Err(RunError::Unwatched { metric: metric.name(), problem });
            }
        }
        let scaled = match planner {
            Some(planner) => planner.lr_scale(Point::START, &History::default(), 0)?.is_some(),
            None => false,
        };
        if matches!(self.objective, Objective::Stage { .. }) && (scaled || on_return == OnReturn::WarmUp) {
            return Err(TrainingError::Rates.into());
        }
        Ok(())
    }
}

impl Setup<'_> {
    /// Returns the metrics of an evaluation, of nothing yet.
    ///
    /// # Errors
    /// One cannot be taken of the predictions.
    pub(super) fn metrics(&self) -> Result<Metrics, RunError> {
        let graph = &self.prepared.model.graph;
        let prediction = self.objective.prediction(self.prepared)?.and_then(|name| graph.find(name));
        let fact = prediction.map(|id| graph.fact(id));
        let rolled = self.freezing.rollback.and_then(|rollback| Metric::parse(&rollback.metric).ok());
        let watched = self.evaluation.watched().chain(self.schedule.metric()).chain(rolled);
        let watched: Vec<Metric> = watched.filter(|metric| !metric.is_of_training()).collect();
        let (loss, wanted) = (self.objective.metrics(), self.evaluation.metrics.as_deref());
        Ok(Metrics::new(loss, self.objective.is_sum(), fact, wanted, &watched)?)
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// True when it was asked to stop before its end.
    pub stopped: bool,
    /// Metrics of the trained model on the eval data.
    pub metrics: BTreeMap<String, f64>,
    /// Parameters and running statistics of the trained model: with averages that are evaluated, the averages.
    pub values: BTreeMap<String, Tensor>,
    /// Slots of what trained last.
    pub slots: BTreeMap<String, Tensor>,
    /// The plan as it was followed.
    pub plan: FreezePlan,
    /// What was measured.
    pub history: History,
}

/// A run that failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum RunError {
    #[error("{what} in epoch {epoch}, step {step}{}{}{}", rate(.lr), repeated(*.in_a_row), from(.cause.as_deref()))]
    NotFinite { what: String, epoch: usize, step: usize, lr: Option<f64>, cause: Option<Box<Cause>>, in_a_row: usize },
    #[error("the starting value of \"{name}\" is {found}, expected {expected}")]
    Initial { name: String, expected: String, found: String },
    #[error("the eval loss of the trained model is {loss}")]
    EvalNotFinite { loss: f64 },
    #[error(
        "frozen initializer \"{name}\" changed between epoch {from} and {to}: its sha256 was {before}, now {after}"
    )]
    Moved { name: String, from: usize, to: usize, before: String, after: String },
    #[error("the plan has {planned} steps in an epoch and acts within epochs, the data give {found}")]
    Steps { planned: usize, found: usize },
    #[error("the rollback watches \"{metric}\", which the eval data do not give: {known}")]
    Metric { metric: String, known: String },
    #[error("checkpoint {sequence} cannot be gone on from: {reason}")]
    Resume { sequence: u64, reason: String },
    #[error("the run watches \"{metric}\": {problem}")]
    Unwatched { metric: String, problem: String },
    #[error("the policy \"{policy}\" anneals the rate of each unit: {problem}")]
    Anneals { policy: String, problem: String },
    #[error("the policy \"{policy}\" needs the signal {signal}: {problem}")]
    Signal { policy: String, signal: String, problem: String },
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Metrics(#[from] MetricError),
    #[error(transparent)]
    OutOfMemory(Box<Exhausted>),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Training(#[from] TrainingError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

fn repeated(steps: usize) -> String {
    if steps > 1 { format!(", as in {steps} steps in a row") } else { String::new() }
}

fn from(cause: Option<&Cause>) -> String {
    cause.map_or_else(String::new, |cause| format!(": {cause}"))
}

fn rate(lr: &Option<f64>) -> String {
    lr.map_or_else(String::new, |lr| format!(" (learning rate {lr})"))
}

impl RunError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RunError::NotFinite { .. } | RunError::EvalNotFinite { .. } | RunError::Moved { .. } => ErrorKind::Check,
            RunError::Initial { .. } | RunError::Resume { .. } | RunError::OutOfMemory(_) => ErrorKind::BadInput,
            RunError::Metric { .. }
            | RunError::Unwatched { .. }
            | RunError::Steps { .. }
            | RunError::Anneals { .. } => ErrorKind::Usage,
            RunError::Signal { .. } => ErrorKind::Unsupported,
            RunError::Metrics(error) => error.kind(),
            RunError::Plan(error) => error.kind(),
            RunError::Engine(error) => error.kind(),
            RunError::Training(error) => error.kind(),
            RunError::Data(error) => error.kind(),
            RunError::Checkpoint(error) => error.kind(),
        }
    }
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
    let result = whole(engine, setup, report, stop).map_err(|error| match error {
        RunError::Engine(error) => error.recognised(&engine.info().device).into(),
        other => other,
    });
    let (status, error, metrics) = match &result {
        Ok(outcome) => (if outcome.stopped { "stopped" } else { "done" }, None, outcome.metrics.clone()),
        Err(error) => ("failed", Some(error.to_string()), BTreeMap::new()),
    };
    report(RunEvent::End { status: status.into(), error, metrics, seconds: clock.elapsed().as_secs_f64() });
    result
}

/// What was found before a run.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What the freezing can save; `None` where there is nothing to check.
    pub ceiling: Option<Ceiling>,
    /// The plan, with predicted seconds of its steps where some were measured.
    pub plan: FreezePlan,
    /// What phases are estimated to take of memory, each with its first epoch: all, or some of many.
    pub memory: Vec<(usize, MemoryEstimate)>,
}

/// Makes the first phase ready, runs a step and a batch of the eval data, and checks what the freezing can save, without
/// training.
///
/// # Errors
/// As [`train`], as far as it comes.
pub fn check_ceiling(
    engine: &mut dyn Engine,
    setup: &Setup<'_>,
    report: &mut dyn FnMut(RunEvent),
) -> Result<Checked, RunError> {
    let mut run = Run::new(engine, setup, report)?;
    run.calibrates = true;
    let first = run.next_segment();
    checked(&mut run, engine, report).map_err(|error| run.explained(engine, error, first.as_ref()))
}

fn checked(run: &mut Run<'_>, engine: &mut dyn Engine, report: &mut dyn FnMut(RunEvent)) -> Result<Checked, RunError> {
    let ceiling = run.check_ceiling(engine, report)?;
    if ceiling.is_none() {
        run.try_step(engine, report)?;
    }
    run.try_evaluation(engine)?;
    let mut plan = run.setup.freezing.plan.clone();
    if let Some(calibration) = run.calibration.take() {
        run.fill(engine, &calibration, &mut plan)?;
    }
    let memory = run.memory_of_phases(engine)?;
    Ok(Checked { ceiling, plan, memory })
}

fn whole(
    engine: &mut dyn Engine,
    setup: &Setup<'_>,
    report: &mut dyn FnMut(RunEvent),
    stop: &AtomicBool,
) -> Result<Outcome, RunError> {
    let mut run = Run::new(engine, setup, report)?;
    let first = run.next_segment();
    if let Err(error) = run.check_ceiling(engine, report) {
        return Err(run.explained(engine, error, first.as_ref()));
    }
    let stopped = loop {
        let Some(segment) = run.next_segment() else { break false };
        match run.segment(engine, &segment, report, stop) {
            Ok(true) => break run.next_segment().is_some(),
            Ok(false) => {}
            Err(error) => return Err(run.explained(engine, error, Some(&segment))),
        }
    };
    run.finish(engine, report)?;
    if !stopped {
        run.forget_kept(engine);
    }
    let metrics = run.evaluate(engine)?;
    if let Some(loss) = metrics.get("loss").filter(|loss| !loss.is_finite()) {
        return Err(RunError::EvalNotFinite { loss: *loss });
    }
    let mut values = run.state.read_values(engine)?;
    if setup.ema.is_some_and(|ema| ema.evaluate) {
        let averages = run.state.read_averages(engine)?;
        values.extend(averages.into_iter().filter(|(name, _)| name != UPDATES));
    }
    let slots = run.state.read_slots(engine)?;
    let Run { plan, history, .. } = run;
    Ok(Outcome { stopped, metrics, values, slots, plan, history })
}
