//! Training from a job, as small as the command line: what `freeze-plan train` does, for other programs.
//!
//! A [`Trainer`] is made from a [`Job`], whose files it opens, or from a job and data in memory. It plans, prepares the
//! graphs, trains on an engine, saves checkpoints and writes the run's folder; [`Trainer::start`] does it on a thread of
//! its own and gives the events one by one.
//!
//! What this module does not do: draw on a terminal, or catch signals.

mod attached;
mod changes;
mod engine;
mod error;
mod feeds;
#[doc(hidden)]
pub mod files;
mod folder;
mod initial;
mod job;
mod made_up;
#[doc(hidden)]
pub mod model;
mod prospects;
mod running;
#[doc(hidden)]
pub mod sizes;

pub use engine::{EngineOptions, engine};
pub use error::TrainerError;
pub use folder::Start;
pub use made_up::MadeUp;
pub use model::Note;
pub use running::Running;
pub use sizes::Sizes;

pub(crate) use attached::{attached_note, without_plan};

use crate::artifacts;
use crate::autodiff::Rules;
use crate::checkpoint::{Checkpoint, Latest, Store};
use crate::data::{Batches, Dataset};
use crate::error::ErrorKind;
use crate::facts::Probe;
use crate::losses::LossSpec;
use crate::onnx::LARGEST;
use crate::plan::{FreezePlan, Policy, Run};
use crate::planner::{Basis, Loaded, identify};
use crate::runner::job::{Export, InitSection, Weights};
use crate::runner::precision::Keep;
use crate::runner::{
    Checked, Checkpoints, Clock, Engine, Freezing, Gaps, Job, Outcome, RunEvent, Schedule, Setup, Timed, Timings,
    check_ceiling, measure, timings, train,
};
use crate::sinks::{JsonLines, Sink, Sinks, TensorBoard};
use crate::training::stage::Stage;
use crate::training::{Objective, Prepared, trained_edits};
use files::{write_file, write_model};
use folder::RunFolder;
use job::Fitted;
use model::{Planned, Wanted};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// What a trainer is made from beside its job.
#[derive(Default)]
pub struct Parts<'a> {
    /// The job file, as errors name it.
    pub file: PathBuf,
    /// Training data in place of the file that the job names.
    pub train: Option<Dataset>,
    /// Evaluation data in place of the file that the job names.
    pub eval: Option<Dataset>,
    /// A freezing policy of the caller in place of the one that the job names.
    pub policy: Option<Box<dyn Policy>>,
    /// Gradient rules of the caller, which go before the built-in ones; `note` is told which of them do.
    pub rules: Rules,
    /// Tells of the model's values what only a run can.
    pub probe: Option<&'a mut dyn Probe>,
    /// Takes what a person should know.
    pub note: Option<Note<'a>>,
}

/// A job that is ready to run.
pub struct Trainer {
    job: Job,
    loaded: Loaded,
    plan: FreezePlan,
    basis: Basis,
    prepared: Prepared,
    /// The same with the values that `[init]` gives it.
    started: Result<Prepared, TrainerError>,
    stage: Option<Stage>,
    loss: Option<LossSpec>,
    schedule: Schedule,
    train: Batches,
    eval: Option<Batches>,
    /// What the job keeps in float32.
    keep: Keep,
    /// Files that are read and must not be written.
    reads: Vec<PathBuf>,
}

/// What a run left.
#[derive(Clone, Debug)]
pub struct Trained {
    /// How it ended.
    pub outcome: Outcome,
    /// The trained model.
    pub model: PathBuf,
    /// The epoch whose weights it has, where that is not the last.
    pub best_epoch: Option<u64>,
    /// What a person should know of the model.
    pub notes: Vec<String>,
}

/// Reads a job file and then applies `sets`, each `section.key=value`. Where it has no section `[loss]` or `[optimizer]`
/// and its model are training artifacts, theirs are taken, and `note` is told.
///
/// # Errors
/// The file cannot be read, or the first thing that is wrong in it.
pub fn load_job(file: &Path, sets: &[String], note: Note<'_>) -> Result<Job, TrainerError> {
    let mut settings = Vec::new();
    if let Some(gaps) = Gaps::of(file, sets)?
        && let Some(files) = artifacts::find(&gaps.model).ok().flatten()
    {
        let found = artifacts::read(&files)?;
        let loss = found.loss.filter(|_| gaps.loss).and_then(|loss| toml::Value::try_from(&loss.spec).ok());
        let optimizer = found.optimizer.filter(|_| gaps.optimizer).and_then(|spec| toml::Value::try_from(&spec).ok());
        settings.extend(loss.map(|value| format!("loss={value}")));
        settings.extend(optimizer.map(|value| format!("optimizer={value}")));
        settings.iter().for_each(|setting| note(&format!("from the training artifacts: {setting}")));
    }
    settings.extend(sets.iter().cloned());
    Ok(Job::load(file, &settings)?)
}

impl Trainer {
    /// Opens the files of a job, plans it and builds its graphs once.
    ///
    /// # Errors
    /// Everything that can be refused before a run begins.
    pub fn new(job: Job) -> Result<Trainer, TrainerError> {
        Trainer::with(job, Parts::default())
    }

    /// As [`Trainer::new`], with parts that are given.
    ///
    /// # Errors
    /// As there.
    pub fn with(mut job: Job, parts: Parts<'_>) -> Result<Trainer, TrainerError> {
        let mut nobody = |_: &str| {};
        let note: Note<'_> = parts.note.unwrap_or(&mut nobody);
        let mut sizes = Sizes { batch: Some(job.data.batch), shapes: Vec::new() };
        let options = job.freeze.clone();
        let roles = (options.parameter.as_slice(), options.buffer.as_slice());
        let mut loaded = model::load(&job.model, &sizes, roles, parts.probe)?;
        let data = job::Data::of(&mut job, parts.train, parts.eval, note)?;
        sizes.shapes = data.shapes(&job, &loaded.analysis.model.graph);
        let sizes = sizes.that_fit(&loaded.analysis.model.graph);
        let epochs = usize::try_from(job.run.epochs).unwrap_or(usize::MAX);
        let length = Run { epochs, steps_per_epoch: data.steps(&job) };
        let loss = job.objective();
        let stage = job::stage(&parts.file, &job, &loss, &loaded, note)?;
        let schedule = job.schedule.clone().unwrap_or_default();
        if stage.is_none() {
            job.schedule = Some(schedule.clone());
        }
        let wanted = Wanted { options: &options, length, sizes: &sizes, policy: parts.policy };
        let planned = match (&stage, &job.optimizer) {
            (Some(staged), _) => staged.plan(&loaded, wanted)?,
            (None, Some(optimizer)) => {
                let slots = model::slots(&loaded, optimizer, note)?;
                model::plan(&loaded, wanted, slots)?
            }
            _ => unreachable!("invariant: without a stage the job has both sections"),
        };
        let Planned { mut plan, basis } = planned;
        identify(&mut plan, &loaded.file);
        let fit = |loaded: &Loaded| job::fit(&job, &loss, loaded, &plan, &data, &parts.rules);
        let fitted = sizes.fixed_where_needed(&mut loaded, "of the data", note, fit)?;
        let Fitted { prepared, stage, train, eval } = fitted;
        if !prepared.rules.is_empty() {
            let graph = job::objective(&job, &loss, stage.as_ref())?.eval(&prepared)?.graph;
            prepared.rules.notes(&graph, prepared.model.opset()).iter().for_each(|told| note(told));
        }
        attached_note(&loaded.file, &plan).iter().for_each(|told| note(told));
        let keep = Keep::of(&job.run.keep_float32, &prepared)?;
        job::objective(&job, &loss, stage.as_ref())?;
        let mut started = prepared.clone();
        let started = initial::initialize(&job, &mut started, stage.as_ref(), note).map(|()| started);
        let mut reads = vec![job.model.clone(), parts.file];
        reads.extend(data.files(&job));
        Ok(Trainer { job, loaded, plan, basis, prepared, started, stage, loss, schedule, train, eval, keep, reads })
    }

    /// Returns the job, with the schedule that it runs.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Returns the plan, as far as it can be told ahead.
    pub fn plan(&self) -> &FreezePlan {
        &self.plan
    }

    /// Returns true where there are eval data.
    pub fn evaluates(&self) -> bool {
        self.eval.is_some()
    }

    /// Refuses a folder that holds another run, or files that the run reads. Nothing is changed.
    ///
    /// # Errors
    /// As it says.
    pub fn check_folder(&self, start: Start) -> Result<(), TrainerError> {
        let weights = match self.job.init.as_ref().map(InitSection::weights) {
            Some(Weights::File(path)) => Some(path),
            _ => None,
        };
        RunFolder::check(&self.job.run.dir, &self.reads, weights.as_deref(), start)
    }

    /// Makes the first phase ready, runs a few steps and tells what the freezing can save, without training.
    ///
    /// # Errors
    /// A graph cannot be built or run.
    pub fn check(&self, engine: &mut dyn Engine, report: &mut dyn FnMut(RunEvent)) -> Result<Checked, TrainerError> {
        engine::not_on_the_cpu_instead(&self.job.run.device, engine)?;
        self.setup(None, None, |setup| Ok(check_ceiling(engine, setup, report)?))
    }

    /// Times a few phases and writes into a plan of the model what its steps are predicted to take, without training.
    ///
    /// # Errors
    /// A graph cannot be built or run.
    pub fn measure(&self, engine: &mut dyn Engine, plan: &mut FreezePlan, clock: Clock) -> Result<(), TrainerError> {
        self.setup(None, None, |setup| Ok(measure(engine, setup, plan, clock)?))
    }

    /// Times the phases of a plan of the model, `rounds` steps of each in turn, without training.
    ///
    /// # Errors
    /// A graph cannot be built or run.
    pub fn timings(
        &self,
        engine: &mut dyn Engine,
        plan: &FreezePlan,
        rounds: usize,
        clock: Clock,
    ) -> Result<Vec<Timings>, TrainerError> {
        self.setup(None, None, |setup| Ok(timings(engine, setup, plan, rounds, clock)?))
    }

    /// Trains, and writes the run's folder. `stop` ends the run after the step.
    ///
    /// # Errors
    /// The folder holds another run, or cannot be written; a run cannot go on; or as [`train`].
    pub fn run(
        &self,
        engine: &mut dyn Engine,
        start: Start,
        report: &mut dyn FnMut(RunEvent),
        stop: &AtomicBool,
    ) -> Result<Trained, TrainerError> {
        let mut sinks = Sinks::new();
        sinks.add(Callback(report));
        self.run_with(engine, start, sinks, stop)
    }

    /// As [`Trainer::run`], with sinks that take the events beside those of the folder.
    ///
    /// # Errors
    /// As there.
    pub fn run_with(
        &self,
        engine: &mut dyn Engine,
        start: Start,
        mut sinks: Sinks<'_>,
        stop: &AtomicBool,
    ) -> Result<Trained, TrainerError> {
        engine::not_on_the_cpu_instead(&self.job.run.device, engine)?;
        if start != Start::Resume {
            // Refused before the folder is touched.
            self.setup(None, None, |_| Ok(()))?;
        }
        self.check_folder(start)?;
        let folder = RunFolder::open(&self.job.run.dir, start)?;
        let store = Store::new(&folder.checkpoints(), self.keep());
        let resume = match start {
            Start::Resume => self.resumed(&folder, &store, &mut sinks)?,
            Start::New | Start::Over => None,
        };
        if resume.is_none() {
            write_file(&folder.path().join("plan.json"), self.plan.to_json().as_bytes())?;
        }
        let own = &self.plan.policy.name;
        let text = match *own == self.job.freeze.policy {
            true => self.job.resolved(),
            false => format!(
                "# The policy of this run, {own:?}, is that of the program that trained it, in place of freeze.policy.\n{}",
                self.job.resolved()
            ),
        };
        write_file(&folder.path().join("job.toml"), text.as_bytes())?;
        self.add_files(&folder, resume.as_ref(), &mut sinks)?;
        let resume = resume.map(|latest| latest.checkpoint);
        let checkpoints = Checkpoints {
            folder: folder.checkpoints(),
            every: self.job.checkpoint.every.and_then(|every| usize::try_from(every).ok()),
            keep: self.keep(),
        };
        let mut report = |event| sinks.take(event);
        let outcome =
            self.setup(Some(checkpoints), resume.as_ref(), |setup| Ok(train(engine, setup, &mut report, stop)?));
        drop(sinks);
        let outcome = outcome?;
        write_file(&folder.path().join("plan.json"), outcome.plan.to_json().as_bytes())?;
        self.write(&folder, &store, outcome)
    }

    fn keep(&self) -> usize {
        usize::try_from(self.job.checkpoint.keep).unwrap_or(usize::MAX)
    }

    /// Returns the checkpoint that the run goes on from; `None` where it had none yet.
    fn resumed(
        &self,
        folder: &RunFolder,
        store: &Store,
        sinks: &mut Sinks<'_>,
    ) -> Result<Option<Latest>, TrainerError> {
        store.remove_unfinished();
        let mut warn = |message: String| sinks.take(RunEvent::Warning { message });
        let Some(latest) = store.latest()? else {
            warn(format!("{} holds no checkpoint: the run begins", folder.path().display()));
            return Ok(None);
        };
        for error in &latest.damaged {
            let message = TrainerError::of(error.kind(), error);
            warn(format!("{message}; the run goes on from the checkpoint before it"));
        }
        let accepted = changes::check(folder.path(), self, &latest.checkpoint)?;
        accepted.into_iter().for_each(warn);
        Ok(Some(latest))
    }

    /// Adds the files of the run that take events.
    fn add_files(
        &self,
        folder: &RunFolder,
        resume: Option<&Latest>,
        sinks: &mut Sinks<'_>,
    ) -> Result<(), TrainerError> {
        let every = usize::try_from(self.job.run.log_every).unwrap_or(usize::MAX);
        let cannot = |path: &Path, error: std::io::Error| {
            TrainerError::new(ErrorKind::BadInput, format!("cannot write {}: {error}", path.display()))
        };
        let events = folder.path().join("events.jsonl");
        let lines = match resume {
            Some(Latest { checkpoint, path, .. }) => {
                let (seconds, told) =
                    folder::cut_log(&events, checkpoint.sequence).map_err(|error| cannot(&events, error))?;
                sinks.after(seconds);
                JsonLines::append(&events, every).and_then(|mut lines| {
                    if !told {
                        // The run was killed before it told of the checkpoint; the next resume looks for it.
                        lines.take(&Timed { event: saved(checkpoint, path), time: seconds })?;
                    }
                    Ok(lines)
                })
            }
            None => JsonLines::create(&events, every),
        };
        sinks.add(lines.map_err(|error| cannot(&events, error))?);
        if self.job.run.tensorboard {
            let path = folder.path().join("tensorboard");
            let mut board =
                TensorBoard::create(&path, resume.is_some(), every).map_err(|error| cannot(&path, error))?;
            if resume.is_none() {
                let text = format!("```\n{}```\n", self.job.resolved());
                board.text("job", &text).map_err(|error| cannot(&path, error))?;
            }
            sinks.add(board);
        }
        Ok(())
    }

    /// Writes the trained model.
    fn write(&self, folder: &RunFolder, store: &Store, outcome: Outcome) -> Result<Trained, TrainerError> {
        let path = folder.path().join("model.onnx");
        let mut notes = Vec::new();
        let mut values = outcome.values.clone();
        let mut best_epoch = None;
        if self.job.checkpoint.export == Export::Best
            && let Some(best) = store.best()
        {
            let best = crate::checkpoint::load(&best)?;
            best_epoch = Some(best.epoch);
            values = best.group("values");
            if self.job.ema.is_some_and(|ema| ema.evaluate) {
                let averages = best.group("averages");
                values.extend(averages.into_iter().filter(|(name, _)| name != crate::runner::UPDATES));
            }
        }
        let graph = &self.loaded.file.model.graph;
        let mut edits = trained_edits(graph, &values);
        notes.extend(without_plan(&self.loaded.file, &mut edits));
        if self.stage.is_some() {
            edits.training.extend(outcome.slots.clone());
        }
        if !edits.nodes.is_empty() {
            // Bindings of training information may name outputs of these nodes.
            let (form, why) = match self.loaded.file.training.is_empty() {
                true => ("are in inference form", ""),
                false => ("stay in training form", ", as its training information needs"),
            };
            notes.push(format!("BatchNormalization and Dropout of the trained model {form}{why}"));
            edits.nodes.retain(|_, _| self.loaded.file.training.is_empty());
        }
        write_model(&path, |data| self.loaded.file.rewrite_encoded(&edits, data, LARGEST))?;
        Ok(Trained { outcome, model: path, best_epoch, notes })
    }

    /// Returns what is minimized and how.
    fn objective(&self) -> Result<Objective<'_>, TrainerError> {
        job::objective(&self.job, &self.loss, self.stage.as_ref())
    }

    /// Calls `act` with the run that this is.
    fn setup<R>(
        &self,
        checkpoints: Option<Checkpoints>,
        resume: Option<&Checkpoint>,
        act: impl FnOnce(&Setup<'_>) -> Result<R, TrainerError>,
    ) -> Result<R, TrainerError> {
        let Trainer { job, plan, .. } = self;
        // A run that goes on has its values in the checkpoint.
        let prepared = if resume.is_some() { &self.prepared } else { self.started.as_ref().map_err(Clone::clone)? };
        let planner = self.basis.planner()?;
        let ceiling_steps = usize::try_from(job.run.ceiling_steps).unwrap_or(usize::MAX);
        let objective = self.objective()?;
        let caching = job.caching();
        let freezing = Freezing::with(plan, &planner, &job.freeze).checked_on(ceiling_steps).cached(caching.as_ref());
        let setup = Setup {
            eval: self.eval.as_ref(),
            evaluation: &job.eval,
            loading: job.data.loading(),
            checkpoints,
            resume,
            seed: job.run.seed,
            recompute: &job.run.recompute,
            accumulate: usize::try_from(job.run.accumulate).unwrap_or(usize::MAX),
            nonfinite: job.run.nonfinite(),
            ema: job.ema,
            operators: job.run.operators,
            computing: job.run.computing(self.keep.clone()),
            ..Setup::of(prepared, freezing, objective, &self.schedule, &self.train)
        };
        setup.check()?;
        act(&setup)
    }
}

/// Returns the event that tells of a checkpoint.
fn saved(checkpoint: &Checkpoint, path: &Path) -> RunEvent {
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    RunEvent::Checkpoint {
        epoch: number(checkpoint.epoch),
        step: number(checkpoint.step),
        path: path.display().to_string(),
        sequence: checkpoint.sequence,
    }
}

/// A sink that calls a function.
struct Callback<'a>(&'a mut dyn FnMut(RunEvent));

impl Sink for Callback<'_> {
    fn name(&self) -> String {
        "the caller".into()
    }

    fn take(&mut self, event: &Timed) -> std::io::Result<()> {
        (self.0)(event.event.clone());
        Ok(())
    }
}
