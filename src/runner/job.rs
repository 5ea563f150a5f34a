//! The job file: what to train, on what, and how. Its keys are documented with the fields below.
//!
//! Paths are relative to the folder of the job file, also those given with `--set`. A key that is
//! unknown, missing, of another type or out of its range is an error that names it and its line.

mod cache;
mod checkpoint;
mod data;
mod de;
mod init;
mod run;
mod targets;
mod tree;

pub use cache::{CACHE, CacheMode, CacheSection, Limit};
pub use checkpoint::{CheckpointSection, Export};
pub use data::{DataSection, SamplerKind};
pub use init::{InitSection, Weights};
pub use run::RunSection;
pub use targets::Targets;

use super::cache::Caching;
use super::device::Device;
use super::ema::Ema;
use super::evaluation::{Evaluation, unwatchable};
use super::schedule::Schedule;
use crate::error::ErrorKind;
use crate::losses::LossSpec;
use crate::optim::OptimizerSpec;
use crate::plan::{PlanError, PlanOptions, policies};
use crate::training::Dropout;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

const SECTIONS: [&str; 12] =
    ["data", "loss", "losses", "optimizer", "schedule", "eval", "freeze", "cache", "init", "ema", "checkpoint", "run"];

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The model to train.
    pub model: PathBuf,
    /// The model output that a loss reads which names none; the first by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Which training information of the model is run where the job has no `[loss]` and no
    /// `[optimizer]`, from 1; the first by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub stage: Option<usize>,
    /// What Dropout does while training: `"as-exported"` (default), `"on"`, or a ratio in [0, 1) for
    /// every Dropout of the model.
    #[serde(default)]
    pub dropout: Dropout,
    /// `[data]`.
    pub data: DataSection,
    /// `[loss]`; may be left out where the model carries training information.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossSpec>,
    /// `[[losses]]` in place of `[loss]`: their weighted sum is minimized.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<LossSpec>,
    /// `[optimizer]`; may be left out where the model carries training information.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerSpec>,
    /// `[schedule]`; a constant rate by default, or the rate of the model's training information.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// `[eval]`; the loss, and the accuracy of classes, after every epoch by default.
    #[serde(default)]
    pub eval: Evaluation,
    /// `[freeze]`; the defaults of the plan options where it is left out.
    #[serde(default)]
    pub freeze: PlanOptions,
    /// `[cache]`: what the frozen prefix makes of the samples, kept; off by default.
    #[serde(default)]
    pub cache: CacheSection,
    /// `[init]`; the weights of the model where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<InitSection>,
    /// `[ema]`: averages of the parameters; none where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<Ema>,
    /// `[checkpoint]`: how often the run is saved.
    #[serde(default)]
    pub checkpoint: CheckpointSection,
    /// `[run]`.
    pub run: RunSection,
}

/// Where a key was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this line of the job file, from 1.
    Line(usize),
    /// With `--set`.
    Set,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(line) => write!(f, "at line {line}"),
            Place::Set => f.write_str("given with --set"),
        }
    }
}

/// A job that cannot be run as written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum JobError {
    #[error("cannot read {}", .file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("--set {argument}: {reason}")]
    Set { argument: String, reason: String },
    #[error("{}: {reason}", .file.display())]
    Job { file: PathBuf, reason: Box<Reason> },
}

/// What is wrong in a job file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Reason {
    #[error("line {line}: {reason}")]
    Syntax { line: usize, reason: String },
    #[error("unknown key `{key}`{} {place}{}", in_section(.section), meant(.near, .known))]
    Unknown { key: String, section: String, place: Place, near: Option<String>, known: Vec<String> },
    #[error("{}", missing(.key, .section))]
    Missing { key: String, section: String },
    #[error("key `{key}` {place}: {reason}")]
    Value { key: String, place: Place, reason: String },
}

impl JobError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            JobError::Read { .. } => ErrorKind::BadInput,
            _ => ErrorKind::Usage,
        }
    }
}

fn in_section(section: &str) -> String {
    if section.is_empty() { String::new() } else { format!(" in [{section}]") }
}

fn meant(near: &Option<String>, known: &[String]) -> String {
    match near {
        Some(near) => format!(", did you mean `{near}`?"),
        None => format!(", known are {}", known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")),
    }
}

fn missing(key: &str, section: &str) -> String {
    if section.is_empty() && SECTIONS.contains(&key) {
        return format!("missing section [{key}]");
    }
    format!("missing key `{key}`{}", in_section(section))
}

/// The sections that a job file leaves to its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gaps {
    /// The model.
    pub model: PathBuf,
    /// `[loss]` is not in the file.
    pub loss: bool,
    /// `[optimizer]` is not in the file.
    pub optimizer: bool,
}

impl Gaps {
    /// Returns what a job file leaves to its model; `None` when it names no model or leaves
    /// nothing out.
    ///
    /// # Errors
    /// The file cannot be read, or it or one of `sets` is no TOML.
    pub fn of(file: &Path, sets: &[String]) -> Result<Option<Gaps>, JobError> {
        let text =
            std::fs::read_to_string(file).map_err(|source| JobError::Read { file: file.to_path_buf(), source })?;
        let mut root = tree::parse(file, &text)?;
        let absent = |section: &str| root.get(section).is_none();
        let (loss, optimizer) = (absent("loss") && absent("losses"), absent("optimizer"));
        for argument in sets {
            tree::set(&mut root, argument)?;
        }
        let Some(tree::Value::String(model)) = root.get("model").map(|node| &node.value) else { return Ok(None) };
        let model = folder_of(file).join(model);
        Ok((loss || optimizer).then_some(Gaps { model, loss, optimizer }))
    }
}

/// Returns the folder that the paths of a job file are relative to.
fn folder_of(file: &Path) -> PathBuf {
    std::path::absolute(file).ok().and_then(|file| file.parent().map(Path::to_path_buf)).unwrap_or_default()
}

impl Job {
    /// Reads a job file and then applies `sets`, each `section.key=value`. The paths of the result
    /// are absolute.
    ///
    /// # Errors
    /// The file cannot be read, or the first thing that is wrong in it or in `sets`.
    pub fn load(file: &Path, sets: &[String]) -> Result<Job, JobError> {
        let text =
            std::fs::read_to_string(file).map_err(|source| JobError::Read { file: file.to_path_buf(), source })?;
        Job::parse(file, &text, sets)
    }

    /// Reads the text of a job file; `file` is its name in errors and the start of its paths.
    ///
    /// # Errors
    /// The first thing that is wrong in it or in `sets`.
    pub fn parse(file: &Path, text: &str, sets: &[String]) -> Result<Job, JobError> {
        let mut root = tree::parse(file, text)?;
        for argument in sets {
            tree::set(&mut root, argument)?;
        }
        let fail = |reason| JobError::Job { file: file.to_path_buf(), reason: Box::new(reason) };
        let mut job: Job = de::deserialize(&root).map_err(fail)?;
        if let Some((key, reason)) = job.problem() {
            let path: Vec<String> = key.split('.').map(str::to_string).collect();
            let place = (0..path.len()).rev().find_map(|end| root.at(&path[..=end])).map(|node| node.place.clone());
            let place = place.unwrap_or(Place::Line(1));
            return Err(fail(Reason::Value { key: key.into(), place, reason }));
        }
        job.drop_settings_of_another_policy(&root);
        job.check_policy(&root).map_err(fail)?;
        job.resolve(&folder_of(file));
        Ok(job)
    }

    /// Returns a job with defaults for the rest; a loss and an optimizer are missing where the model carries none. Paths
    /// are those of this process.
    pub fn new(model: impl Into<PathBuf>, data: DataSection, run: RunSection) -> Job {
        Job {
            model: model.into(),
            output: None,
            stage: None,
            dropout: Dropout::default(),
            data,
            loss: None,
            losses: Vec::new(),
            optimizer: None,
            schedule: None,
            eval: Evaluation::default(),
            freeze: PlanOptions::default(),
            cache: CacheSection::default(),
            init: None,
            ema: None,
            checkpoint: CheckpointSection::default(),
            run,
        }
    }

    /// Returns how the run keeps what its frozen prefix makes; `None` where it does not.
    pub fn caching(&self) -> Option<Caching> {
        let CacheSection { mode, limit: Limit(limit), ref dir } = self.cache;
        let (stays, own) = (dir.is_some(), || self.run.dir.join(CACHE));
        (mode != CacheMode::Off).then(|| Caching { mode, limit, dir: dir.clone().unwrap_or_else(own), stays })
    }

    /// Returns what is minimized: the loss, or the sum of the losses.
    pub fn objective(&self) -> Option<LossSpec> {
        let sum = (!self.losses.is_empty()).then(|| LossSpec::sum(self.losses.clone()));
        self.loss.clone().or(sum)
    }

    /// Drops the settings that the file gives its policy where `--set` asks for another one, which has no such.
    fn drop_settings_of_another_policy(&mut self, root: &tree::Node) {
        let Some(freeze) = root.get("freeze") else { return };
        let asked = |key: &str| freeze.get(key).is_some_and(|node| node.place == Place::Set);
        let Some(entry) = policies::entry(&self.freeze.policy).filter(|_| asked("policy")) else { return };
        let has = |entry: &policies::Entry, name: &str| entry.knobs.iter().any(|knob| knob.name == name);
        let elsewhere = |name: &str| policies::POLICIES.iter().any(|entry| has(entry, name));
        self.freeze.knobs.retain(|name, _| asked(name) || has(entry, name) || !elsewhere(name));
    }

    /// Refuses a policy that there is none of, or a setting that it does not have or take.
    fn check_policy(&self, root: &tree::Node) -> Result<(), Reason> {
        let Err(error) = policies::find(&self.freeze) else { return Ok(()) };
        let place = |key: &str| {
            let node = root.get("freeze").and_then(|freeze| freeze.get(key));
            node.map_or(Place::Line(1), |node| node.place.clone())
        };
        let value = |key: &str, reason| Reason::Value { key: format!("freeze.{key}"), place: place(key), reason };
        Err(match error {
            PlanError::UnknownKnob { name, nearest: near, known, .. } => {
                Reason::Unknown { place: place(&name), key: name, section: "freeze".into(), near, known }
            }
            PlanError::Knob { name, found, expected } => value(name, format!("expected {expected}, found {found}")),
            PlanError::Decimals { argument, .. } => value(argument, error.to_string()),
            PlanError::Item { name, item, reason } => {
                let path = ["freeze".to_string(), name.to_string(), item.saturating_sub(1).to_string()];
                let place = root.at(&path).map_or_else(|| place(name), |node| node.place.clone());
                Reason::Value { key: format!("freeze.{name}"), place, reason: format!("entry {item}: {reason}") }
            }
            error => value("policy", error.to_string()),
        })
    }

    /// Returns the job file that means this job: every default written out, paths absolute.
    pub fn resolved(&self) -> String {
        let mut job = self.clone();
        if let Ok(policy) = policies::find(&self.freeze) {
            job.freeze.knobs.extend(policy.settings());
        }
        job.freeze.unit = Some(self.freeze.unit());
        toml::to_string(&job).expect("invariant: paths came from UTF-8 text, and keys are strings")
    }

    fn resolve(&mut self, base: &Path) {
        self.init.iter_mut().for_each(|init| init.resolve(base));
        self.cache.dir = self.cache.dir.take().map(|dir| base.join(dir).components().collect());
        self.data.resolve(base);
        for path in [&mut self.model, &mut self.run.dir] {
            // Collecting the components drops `.` and doubled separators.
            *path = base.join(&*path).components().collect();
        }
    }

    /// Returns the key and the reason of a value out of its range.
    fn problem(&self) -> Option<(&'static str, String)> {
        let zero = |key, number: u64| (number == 0).then(|| (key, "expected 1 or more, found 0".to_string()));
        let empty = |key, path: &Path| path.as_os_str().is_empty().then(|| (key, "is an empty path".to_string()));
        let device = self.run.device.parse::<Device>().err().map(|error| ("run.device", error.to_string()));
        let evaluated = self.data.eval.is_some();
        let schedule = self.schedule.as_ref().and_then(|schedule| {
            let metric = || unwatchable("schedule.metric", schedule.metric()?, evaluated);
            schedule.problem().or_else(metric)
        });
        let both = (self.loss.is_some() && !self.losses.is_empty())
            .then(|| ("losses", "stands beside [loss]: a job has one or the other".to_string()));
        empty("model", &self.model)
            .or(both)
            .or_else(|| Some(("data.train", self.data.train.problem()?.to_string())))
            .or_else(|| Some(("data.eval", self.data.eval.as_ref()?.problem()?.to_string())))
            .or_else(|| {
                self.data
                    .inputs
                    .is_empty()
                    .then(|| ("data.inputs", "expected a column for each model input".to_string()))
            })
            .or_else(|| zero("stage", self.stage? as u64))
            .or_else(|| zero("data.batch", self.data.batch as u64))
            .or_else(|| {
                let (key, reason) = self.freeze.problem()?;
                let keys = ["freeze.rollback.drop", "freeze.rollback.delay"];
                Some((keys.into_iter().find(|full| full.ends_with(key)).unwrap_or("freeze"), reason))
            })
            .or_else(|| self.data.problem())
            .or_else(|| self.cache.dir.as_ref().and_then(|dir| empty("cache.dir", dir)))
            .or_else(|| self.checkpoint.problem(self.eval.chooses().is_some()))
            .or(schedule)
            .or_else(|| self.eval.problem(evaluated))
            .or_else(|| zero("run.epochs", self.run.epochs))
            .or(device)
            .or_else(|| self.run.precision_problem())
            .or_else(|| empty("run.dir", &self.run.dir))
            .or_else(|| zero("run.threads", self.run.threads.map_or(1, |threads| threads as u64)))
            .or_else(|| zero("run.accumulate", self.run.accumulate))
            .or_else(|| zero("run.nonfinite_limit", self.run.nonfinite_limit))
            .or_else(|| self.init.as_ref().and_then(InitSection::problem))
            .or_else(|| self.ema.as_ref().and_then(Ema::problem))
            .or_else(|| zero("run.log_every", self.run.log_every))
            .or_else(|| self.loss.as_ref().and_then(|loss| Some(("loss", loss.validate().err()?.to_string()))))
            .or_else(|| {
                let error = self.losses.iter().find_map(|loss| loss.validate().err());
                error.map(|error| ("losses", error.to_string()))
            })
            .or_else(|| {
                let optimizer = self.optimizer.as_ref()?;
                Some(("optimizer", optimizer.validate().err()?.to_string()))
            })
    }
}

#[cfg(test)]
mod tests;
