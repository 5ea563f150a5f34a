//! The job file: what to train, on what, and how. Its keys are documented with the fields below.
//!
//! Paths are relative to the folder of the job file, also those given with `--set`. A key that is
//! unknown, missing, of another type or out of its range is an error that names it and its line.

mod de;
mod targets;
mod tree;

pub use targets::Targets;

use super::schedule::Schedule;
use crate::data::LastBatch;
use crate::error::ErrorKind;
use crate::losses::LossSpec;
use crate::optim::OptimizerSpec;
use crate::plan::{PlanError, PlanOptions, policies};
use crate::training::{Dropout, Recompute};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

const SECTIONS: [&str; 7] = ["data", "loss", "losses", "optimizer", "schedule", "freeze", "run"];

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// `[freeze]`; the defaults of the plan options where it is left out.
    #[serde(default)]
    pub freeze: PlanOptions,
    /// `[run]`.
    pub run: RunSection,
}

/// Data and how they become batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// The file to train on.
    pub train: PathBuf,
    /// The file to evaluate on after each epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<PathBuf>,
    /// The column of each model input.
    pub inputs: BTreeMap<String, String>,
    /// The column that the loss compares with, or for losses that name their targets a table of
    /// columns. With training information, that of the input which the algorithm alone reads; may be
    /// left out where no loss has a target or `inputs` names all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Targets>,
    /// Rows in a batch, at least 1.
    pub batch: usize,
    /// Seed of the order of rows; 0 by default.
    #[serde(default)]
    pub seed: u64,
    /// Whether each epoch has its own order; true by default.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// What becomes of rows that do not fill a batch: `"keep"` (default) or `"drop"`.
    #[serde(default)]
    pub last_batch: LastBatch,
}

/// The run itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSection {
    /// Epochs, at least 1.
    pub epochs: u64,
    /// `"cpu"`.
    #[serde(default = "cpu")]
    pub device: String,
    /// The folder of the run.
    pub dir: PathBuf,
    /// Threads within one operator; all cores by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Modules whose activations are computed again in the backward pass: `"none"` (default), `"auto"`
    /// or a list of patterns.
    #[serde(default)]
    pub recompute: Recompute,
    /// Batches whose gradients are averaged for one step, at least 1; 1 by default.
    #[serde(default = "one")]
    pub accumulate: u64,
    /// Steps between two `step` events, at least 1; 10 by default.
    #[serde(default = "ten")]
    pub log_every: u64,
    /// Steps that are measured before the first one, to tell what the freezing can save; 5 by default, 0 for no such
    /// check.
    #[serde(default = "five")]
    pub ceiling_steps: u64,
    /// Seed of everything random but the order of rows; 0 by default.
    #[serde(default)]
    pub seed: u64,
}

fn five() -> u64 {
    5
}

fn yes() -> bool {
    true
}

fn cpu() -> String {
    "cpu".into()
}

fn one() -> u64 {
    1
}

fn ten() -> u64 {
    10
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
        let eval = self.data.eval.iter_mut();
        for path in [&mut self.model, &mut self.data.train, &mut self.run.dir].into_iter().chain(eval) {
            // Collecting the components drops `.` and doubled separators.
            *path = base.join(&*path).components().collect();
        }
    }

    /// Returns the key and the reason of a value out of its range.
    fn problem(&self) -> Option<(&'static str, String)> {
        let zero = |key, number: u64| (number == 0).then(|| (key, "expected 1 or more, found 0".to_string()));
        let empty = |key, path: &Path| path.as_os_str().is_empty().then(|| (key, "is an empty path".to_string()));
        let device = match self.run.device.as_str() {
            "cpu" => None,
            "cuda" => {
                Some(("run.device", "this version trains on the CPU: expected \"cpu\", found \"cuda\"".to_string()))
            }
            other => Some(("run.device", format!("expected \"cpu\", found \"{other}\""))),
        };
        let schedule = self.schedule.as_ref().and_then(Schedule::problem).map(|(key, reason)| {
            let keys = ["schedule.lr_min", "schedule.step_epochs", "schedule.gamma"];
            let key = keys.into_iter().find(|full| full.strip_prefix("schedule.") == Some(key));
            (key.unwrap_or("schedule"), reason)
        });
        let both = (self.loss.is_some() && !self.losses.is_empty())
            .then(|| ("losses", "stands beside [loss]: a job has one or the other".to_string()));
        empty("model", &self.model)
            .or(both)
            .or_else(|| empty("data.train", &self.data.train))
            .or_else(|| self.data.eval.as_ref().and_then(|eval| empty("data.eval", eval)))
            .or_else(|| {
                self.data
                    .inputs
                    .is_empty()
                    .then(|| ("data.inputs", "expected a column for each model input".to_string()))
            })
            .or_else(|| zero("data.batch", self.data.batch as u64))
            .or_else(|| {
                let (key, reason) = self.freeze.problem()?;
                let keys = ["freeze.rollback.drop", "freeze.rollback.delay"];
                Some((keys.into_iter().find(|full| full.ends_with(key)).unwrap_or("freeze"), reason))
            })
            .or(schedule)
            .or_else(|| zero("run.epochs", self.run.epochs))
            .or(device)
            .or_else(|| empty("run.dir", &self.run.dir))
            .or_else(|| zero("run.threads", self.run.threads.map_or(1, |threads| threads as u64)))
            .or_else(|| zero("run.accumulate", self.run.accumulate))
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
mod tests {
    use super::*;

    const DESIGN: &str = r#"model = "model.onnx"
[data]
train = "train.npz"
eval  = "eval.npz"
inputs = { x = "images" }
target = "labels"
batch = 64
seed = 0
[loss]
kind = "cross-entropy"
[optimizer]
kind = "sgd"
lr = 0.1
momentum = 0.9
weight_decay = 5e-4
[schedule]
kind = "cosine"
[freeze]
policy = "linear"
freeze_start = 0.5
freeze_level = 1.0
batch_norm = "train"
[run]
epochs = 10
device = "cpu"
dir = "runs/first"
"#;

    fn parse(text: &str, sets: &[&str]) -> Result<Job, String> {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_string()).collect();
        Job::parse(Path::new("/jobs/a/job.toml"), text, &sets).map_err(|error| error.to_string())
    }

    #[test]
    fn the_design_is_read_and_its_resolution_means_the_same() {
        let job = parse(DESIGN, &[]).unwrap();
        assert_eq!(job.model, Path::new("/jobs/a/model.onnx"));
        assert_eq!(job.data.eval.as_deref(), Some(Path::new("/jobs/a/eval.npz")));
        assert_eq!(job.data.inputs["x"], "images");
        assert!(job.data.shuffle && job.data.last_batch == LastBatch::Keep);
        assert_eq!(job.schedule, Some(Schedule::Cosine { lr_min: 0.0, warmup_steps: 0 }));
        assert_eq!((job.run.epochs, job.run.log_every, job.run.threads), (10, 10, None));
        assert_eq!(job.run.dir, Path::new("/jobs/a/runs/first"));
        let again = Job::parse(Path::new("/elsewhere/job.toml"), &job.resolved(), &[]).unwrap();
        let freeze = PlanOptions { unit: Some(job.freeze.unit()), ..job.freeze.clone() }.with("arithmetic", "composer");
        assert_eq!(again, Job { freeze, ..job });
    }

    #[test]
    fn another_policy_by_set_leaves_the_settings_of_the_first_behind() {
        let job = parse(DESIGN, &["freeze.policy=geometric", "freeze.alpha=0.25"]).unwrap();
        assert_eq!(job.freeze, PlanOptions::of("geometric").with("alpha", 0.25));
        let error = parse(DESIGN, &["freeze.policy=geometric", "freeze.freeze_level=1"]).unwrap_err();
        assert!(error.contains("unknown key `freeze_level` in [freeze] given with --set"), "{error}");
        let error = parse(&DESIGN.replace("\"linear\"", "\"geometric\""), &[]).unwrap_err();
        assert!(error.contains("unknown key `freeze_start` in [freeze] at line"), "{error}");
    }

    #[test]
    fn set_overrides_with_toml_values_and_bare_words() {
        let job = parse(
            DESIGN,
            &[
                "run.epochs=3",
                "data.last_batch=drop",
                "data.eval = ../other/eval.npz",
                "data.inputs.y=\"a = b\"",
                "schedule={ kind = \"step\", step_epochs = 2 }",
                "run.threads=2",
                "optimizer.lr=1e-3",
                "freeze.keep=[\"fc.*\", \"bn*\"]",
                "model=2024-01-01",
            ],
        )
        .unwrap();
        assert_eq!((job.run.epochs, job.run.threads, job.data.last_batch), (3, Some(2), LastBatch::Drop));
        assert_eq!(job.data.eval.as_deref(), Some(Path::new("/jobs/a/../other/eval.npz")));
        assert_eq!(job.data.inputs["y"], "a = b");
        assert_eq!(job.schedule, Some(Schedule::Step { step_epochs: 2, gamma: 0.1, warmup_steps: 0 }));
        assert_eq!(job.optimizer.unwrap().lr, Some(1e-3));
        assert_eq!(job.freeze.keep.len(), 2);
        assert_eq!(job.model, Path::new("/jobs/a/2024-01-01"));
    }

    #[test]
    fn what_frozen_units_do_is_a_word_or_a_table() {
        use crate::plan::{BatchNorm, FrozenDropout};
        let cases = [
            ("freeze.batch_norm=frozen", BatchNorm::Frozen),
            ("freeze.batch_norm={ affine = \"train\", statistics = \"frozen\" }", BatchNorm::AffineTrains),
            ("freeze.batch_norm={ affine = \"train\" }", BatchNorm::AllTrain),
        ];
        for (text, expected) in cases {
            let job = parse(DESIGN, &[text, "freeze.dropout=off"]).unwrap();
            assert_eq!((job.freeze.batch_norm, job.freeze.dropout), (expected, FrozenDropout::Off), "{text}");
            let again = Job::parse(Path::new("/elsewhere/job.toml"), &job.resolved(), &[]).unwrap();
            let freeze = PlanOptions { unit: Some(job.freeze.unit()), ..job.freeze.clone() };
            assert_eq!(again, Job { freeze: freeze.with("arithmetic", "composer"), ..job }, "{text}");
        }
        let cases = [
            (
                "freeze.batch_norm={ afine = \"train\" }",
                "unknown key `afine` in [freeze.batch_norm] given with --set, did you mean `affine`?",
            ),
            ("freeze.batch_norm=eval", "unknown value \"eval\", expected one of \"train\", \"frozen\""),
            (
                "freeze.batch_norm=1",
                "expected \"train\", \"frozen\" or a table of affine and statistics, found integer 1",
            ),
            ("freeze.dropout=on", "unknown value \"on\", did you mean \"off\"?"),
        ];
        for (text, expected) in cases {
            let error = parse(DESIGN, &[text]).unwrap_err();
            assert!(error.ends_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn errors_name_key_and_line() {
        struct Case {
            replace: (&'static str, &'static str),
            sets: &'static [&'static str],
            expected: &'static str,
        }
        const NONE: (&str, &str) = ("", "");
        let cases = [
            Case {
                replace: (
                    "policy = \"linear\"\nfreeze_start = 0.5\nfreeze_level = 1.0",
                    "policy = \"steps\"\nsteps = [\n{ epoch = 2, frozen = 4 },\n{ epoch = 3, frozn = 0.5 },\n]",
                ),
                sets: &[],
                expected: "key `freeze.steps` at line 22: entry 2: there is no key \"frozn\" (nearest: \"frozen\"), \
                           expected epoch, step, frozen",
            },
            Case {
                replace: ("batch = 64", "bacth = 64"),
                sets: &[],
                expected: "unknown key `bacth` in [data] at line 7, did you mean `batch`?",
            },
            Case {
                replace: ("seed = 0", "colour = 1"),
                sets: &[],
                expected: "unknown key `colour` in [data] at line 8, known are `train`, `eval`, `inputs`, `target`, \
                           `batch`, `seed`, `shuffle`, `last_batch`",
            },
            Case {
                replace: ("model =", "modle ="),
                sets: &[],
                expected: "unknown key `modle` at line 1, did you mean `model`?",
            },
            Case {
                replace: ("[freeze]", "[frezee]"),
                sets: &[],
                expected: "unknown key `frezee` at line 18, did you mean `freeze`?",
            },
            Case {
                replace: NONE,
                sets: &["run.epoch=3"],
                expected: "unknown key `epoch` in [run] given with --set, did you mean `epochs`?",
            },
            Case {
                replace: ("kind = \"cosine\"", "kind = \"cosine\"\nlr_mim = 0.1"),
                sets: &[],
                expected: "unknown key `lr_mim` in [schedule] at line 18, did you mean `lr_min`?",
            },
            Case { replace: ("train = \"train.npz\"", ""), sets: &[], expected: "missing key `train` in [data]" },
            Case { replace: ("model = \"model.onnx\"", ""), sets: &[], expected: "missing key `model`" },
            Case {
                replace: ("[run]", "[rum]"),
                sets: &[],
                expected: "unknown key `rum` at line 23, did you mean `run`?",
            },
            Case {
                replace: ("[run]\nepochs = 10\ndevice = \"cpu\"\ndir = \"runs/first\"", ""),
                sets: &[],
                expected: "missing section [run]",
            },
            Case { replace: NONE, sets: &["schedule={}"], expected: "missing key `kind` in [schedule]" },
            Case { replace: NONE, sets: &["schedule.kind=step"], expected: "missing key `step_epochs` in [schedule]" },
            Case {
                replace: ("epochs = 10", "epochs = \"ten\""),
                sets: &[],
                expected: "key `run.epochs` at line 24: expected a whole number of 0 or more, found string \"ten\"",
            },
            Case {
                replace: ("epochs = 10", "epochs = 10.0"),
                sets: &[],
                expected: "key `run.epochs` at line 24: expected a whole number of 0 or more, found number 10.0",
            },
            Case {
                replace: NONE,
                sets: &["data.batch=-4"],
                expected: "key `data.batch` given with --set: expected a whole number of 0 or more, found integer -4",
            },
            Case {
                replace: ("inputs = { x = \"images\" }", "inputs = { x = 3 }"),
                sets: &[],
                expected: "key `data.inputs.x` at line 5: expected a string, found integer 3",
            },
            Case {
                replace: ("inputs = { x = \"images\" }", "inputs = \"images\""),
                sets: &[],
                expected: "key `data.inputs` at line 5: expected a table, found string \"images\"",
            },
            Case {
                replace: ("inputs = { x = \"images\" }", "inputs = {}"),
                sets: &[],
                expected: "key `data.inputs` at line 5: expected a column for each model input",
            },
            Case {
                replace: ("model = \"model.onnx\"", "model = 2024-01-01"),
                sets: &[],
                expected: "key `model` at line 1: expected a string, found date or time",
            },
            Case {
                replace: ("[loss]\nkind = \"cross-entropy\"", ""),
                sets: &["loss=3"],
                expected: "key `loss` given with --set: expected a table, found integer 3",
            },
            Case {
                replace: NONE,
                sets: &["data.shuffle=yes"],
                expected: "key `data.shuffle` given with --set: expected true or false, found string \"yes\"",
            },
            Case {
                replace: NONE,
                sets: &["data.last_batch=dorp"],
                expected: "key `data.last_batch` given with --set: unknown value \"dorp\", did you mean \"drop\"?",
            },
            Case {
                replace: ("kind = \"cosine\"", "kind = \"cosines\""),
                sets: &[],
                expected: "key `schedule.kind` at line 17: unknown value \"cosines\", did you mean \"cosine\"?",
            },
            Case {
                replace: ("kind = \"cosine\"", "kind = \"cosine\"\nlr_min = \"small\""),
                sets: &[],
                expected: "key `schedule.lr_min` at line 18: expected a number, found string \"small\"",
            },
            Case {
                replace: ("kind = \"cosine\"", "kind = \"cosine\"\nlr_min = -1"),
                sets: &[],
                expected: "key `schedule.lr_min` at line 18: expected 0 or more, found -1",
            },
            Case {
                replace: ("device = \"cpu\"", "device = \"cuda\""),
                sets: &[],
                expected: "key `run.device` at line 25: this version trains on the CPU: expected \"cpu\", found \"cuda\"",
            },
            Case {
                replace: NONE,
                sets: &["run.epochs=0"],
                expected: "key `run.epochs` given with --set: expected 1 or more, found 0",
            },
            Case { replace: ("batch = 64", "batch = "), sets: &[], expected: "line 7: " },
            Case { replace: ("seed = 0", "batch = 3"), sets: &[], expected: "line 8: duplicate key" },
            Case { replace: ("seed = 0", "seed = 99999999999999999999"), sets: &[], expected: "line 8: " },
        ];
        for case in cases {
            let text = DESIGN.replacen(case.replace.0, case.replace.1, 1);
            let found = parse(&text, case.sets).expect_err(case.expected);
            let expected = format!("/jobs/a/job.toml: {}", case.expected);
            assert!(found == expected || case.expected.starts_with("line") && found.starts_with(&expected), "{found}");
        }
        for (set, expected) in [
            ("run.epochs", "--set run.epochs: expected KEY=VALUE"),
            ("=3", "--set =3: expected KEY=VALUE, with a key such as run.epochs"),
            ("model.name=3", "--set model.name=3: `model` is no section"),
        ] {
            assert_eq!(parse(DESIGN, &[set]).unwrap_err(), expected);
        }
    }
}
