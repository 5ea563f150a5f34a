//! `events.jsonl` of a run, as it happened to be written: by this version or another, cut short, taken up again.

use super::phases::{self, Row};
use crate::runner::{RunEvent, Timed};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::BufRead;

/// The most different warnings that are kept.
const MOST: usize = 100;

/// Seconds that no run takes.
const LONGEST: f64 = 1e12;

/// What happened in a run.
///
/// Where a run goes back, because a freeze is taken back or because it goes on from a checkpoint, the steps and epochs
/// after that place are set apart: they are no part of what the run came to.
#[derive(Clone, Debug, Default)]
pub struct RunLog {
    /// The last event `start`.
    pub(super) start: Option<RunEvent>,
    /// Logged steps with growing numbers.
    pub(super) steps: Vec<Step>,
    /// Steps that the run went back behind.
    pub(super) undone: Vec<Vec<Step>>,
    /// Epochs with growing numbers; only the last one that tells of classes has them.
    pub(super) epochs: Vec<Epoch>,
    /// Epochs that the run went back behind.
    pub(super) undone_epochs: Vec<Epoch>,
    pub(super) phases: Vec<Row>,
    /// Events `observation`, `decision`, `rollback`, `ceiling`, `gain` and others that are told as they are.
    pub(super) events: Vec<RunEvent>,
    pub(super) checkpoints: Vec<Checkpoint>,
    /// Different warnings and how often they came.
    pub(super) warnings: Vec<(String, usize)>,
    /// Warnings that are not kept.
    pub(super) more_warnings: usize,
    /// Where it went on from a checkpoint: epoch and steps that were done.
    pub(super) resumes: Vec<(usize, usize)>,
    /// That the run ended before its last epoch because a metric does not get better.
    pub(super) early: Option<EarlyStop>,
    /// Metrics that are not defined for the eval data, with the reasons.
    pub(super) undefined: BTreeMap<String, String>,
    pub(super) end: Option<End>,
    /// Events of kinds that are not known here, and how often they came.
    pub(super) unknown: BTreeMap<String, usize>,
    /// Numbers of the lines that are no events, from 1.
    pub(super) unreadable: Vec<usize>,
    /// The last line has no end: it was cut short, or is being written.
    pub(super) cut: bool,
    /// Lines that are events.
    pub(super) lines: usize,
    clock: Clock,
}

/// A logged step; what was not logged is not a number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) step: usize,
    /// Position of its phase among all phases.
    pub(super) phase: Option<usize>,
    pub(super) loss: f64,
    pub(super) lr: f64,
    pub(super) seconds: f64,
    pub(super) wait: f64,
}

/// A finished epoch; what was not logged is not a number.
#[derive(Clone, Debug)]
pub(super) struct Epoch {
    pub(super) epoch: usize,
    /// Seconds that the run had been at work.
    pub(super) time: f64,
    pub(super) train_loss: f64,
    pub(super) metrics: BTreeMap<String, f64>,
    pub(super) seconds: f64,
    pub(super) samples_per_second: f64,
    pub(super) peak_bytes: u64,
    pub(super) device_peak_bytes: Option<u64>,
    pub(super) wait: f64,
    /// By name a value for each class.
    pub(super) per_class: BTreeMap<String, Vec<Option<f64>>>,
    /// Samples by class, a row for each, and by predicted class.
    pub(super) confusion: Vec<Vec<f64>>,
}

impl Epoch {
    /// Returns true where it tells of classes.
    pub(super) fn has_classes(&self) -> bool {
        !self.per_class.is_empty() || !self.confusion.is_empty()
    }
}

/// A checkpoint that was written.
#[derive(Clone, Debug)]
pub(super) struct Checkpoint {
    pub(super) epoch: usize,
    pub(super) step: usize,
    pub(super) path: String,
}

/// The end of a run.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct End {
    pub(super) status: String,
    pub(super) error: Option<String>,
    #[serde(default)]
    pub(super) metrics: BTreeMap<String, Option<f64>>,
}

/// A run that ended before its last epoch.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct EarlyStop {
    pub(super) epoch: usize,
    pub(super) metric: String,
    pub(super) best_epoch: Option<usize>,
}

/// The seconds that a run was at work: those of an event count from the start of the program that wrote it.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    before: f64,
    last: f64,
}

impl Clock {
    fn at(&mut self, time: Option<f64>) -> f64 {
        if let Some(time) = time.filter(|time| (0.0..LONGEST).contains(time)) {
            if time < self.last {
                self.before += self.last;
            }
            self.last = time;
        }
        self.before + self.last
    }
}

#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    time: Option<f64>,
}

#[derive(Deserialize)]
struct StepLine {
    step: usize,
    loss: Option<f64>,
    lr: Option<f64>,
    seconds: Option<f64>,
    wait_seconds: Option<f64>,
}

#[derive(Deserialize)]
struct EpochLine {
    epoch: usize,
    train_loss: Option<f64>,
    #[serde(default)]
    metrics: BTreeMap<String, Option<f64>>,
    seconds: Option<f64>,
    samples_per_second: Option<f64>,
    peak_bytes: Option<u64>,
    device_peak_bytes: Option<u64>,
    wait_seconds: Option<f64>,
    #[serde(default)]
    per_class: serde_json::Value,
    #[serde(default)]
    confusion: serde_json::Value,
    #[serde(default)]
    undefined: serde_json::Value,
}

#[derive(Deserialize)]
struct ResumeLine {
    #[serde(default)]
    epoch: usize,
    #[serde(default)]
    step: usize,
}

impl RunLog {
    /// Reads the lines of `events.jsonl`. What is no event is noted and left out.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn read(mut lines: impl BufRead) -> std::io::Result<RunLog> {
        let (mut log, mut line, mut number) = (RunLog::default(), Vec::new(), 0);
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line)? == 0 {
                return Ok(log);
            }
            number += 1;
            let whole = line.ends_with(b"\n");
            let text = String::from_utf8_lossy(&line);
            if text.trim().is_empty() || log.add(text.trim()) {
                continue;
            }
            // A line that was cut short may have the next event behind it.
            let second = text.rfind("{\"event\"").filter(|start| *start > 0);
            if !second.is_some_and(|start| text.get(start..).is_some_and(|text| log.add(text.trim()))) && !whole {
                log.cut = true;
            } else {
                log.unreadable.push(number);
            }
        }
    }

    /// Returns the number of lines that are events.
    pub fn len(&self) -> usize {
        self.lines
    }

    /// Returns true where no line is an event.
    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// Returns what could not be read, in sentences.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.cut {
            problems.push("the last line of events.jsonl is cut short and left out".to_string());
        }
        match self.unreadable.as_slice() {
            [] => {}
            [line] => problems.push(format!("line {line} of events.jsonl is no event and left out")),
            [line, ..] => {
                let count = self.unreadable.len();
                problems.push(format!(
                    "{count} lines of events.jsonl are no events and left out, the first is line {line}"
                ));
            }
        }
        if !self.unknown.is_empty() {
            let count: usize = self.unknown.values().sum();
            let kinds: Vec<String> = self.unknown.keys().take(10).map(|kind| format!("\"{kind}\"")).collect();
            problems
                .push(format!("events of kinds that are not known here are left out: {count}, {}", kinds.join(", ")));
        }
        problems
    }

    /// Returns the number of the last step.
    pub(super) fn last_step(&self) -> usize {
        self.steps.last().map_or(0, |step| step.step)
    }

    /// Returns the seconds that the run was at work.
    pub(super) fn seconds(&self) -> f64 {
        self.clock.before + self.clock.last
    }

    /// Adds a line; returns false where it is no event.
    fn add(&mut self, line: &str) -> bool {
        let Ok(tag) = serde_json::from_str::<Tag<'_>>(line) else { return false };
        let time = self.clock.at(tag.time);
        let read = match tag.event.as_ref() {
            "step" => serde_json::from_str(line).map(|line| self.step(line)).is_ok(),
            "epoch" => serde_json::from_str(line).map(|line| self.epoch(line, time)).is_ok(),
            "resume" => serde_json::from_str(line).map(|line| self.resume(&line)).is_ok(),
            "early_stop" => serde_json::from_str(line).map(|stop| self.early = Some(stop)).is_ok(),
            "end" => serde_json::from_str(line).map(|end| self.end = Some(end)).is_ok(),
            _ => match serde_json::from_str::<Timed>(line) {
                Ok(timed) => {
                    self.event(timed.event);
                    true
                }
                Err(_) => {
                    *self.unknown.entry(tag.event.chars().take(40).collect()).or_default() += 1;
                    true
                }
            },
        };
        self.lines += usize::from(read);
        read
    }

    fn step(&mut self, line: StepLine) {
        self.end = None;
        self.back_to(line.step.saturating_sub(1));
        let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
        self.steps.push(Step {
            step: line.step,
            phase: self.phases.len().checked_sub(1),
            loss: number(line.loss),
            lr: number(line.lr),
            seconds: number(line.seconds),
            wait: number(line.wait_seconds),
        });
    }

    fn epoch(&mut self, line: EpochLine, time: f64) {
        self.end = None;
        self.epochs_before(line.epoch);
        let per_class: BTreeMap<_, _> = serde_json::from_value(line.per_class).unwrap_or_default();
        let confusion: Vec<_> = serde_json::from_value(line.confusion).unwrap_or_default();
        if !per_class.is_empty() || !confusion.is_empty() {
            let before = self.epochs.iter_mut().rev().find(|epoch| epoch.has_classes());
            before.into_iter().for_each(|epoch| (epoch.per_class, epoch.confusion) = Default::default());
        }
        if let Ok(undefined) = serde_json::from_value::<BTreeMap<String, String>>(line.undefined) {
            self.undefined.extend(undefined);
        }
        let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
        self.epochs.push(Epoch {
            epoch: line.epoch,
            time,
            train_loss: number(line.train_loss),
            metrics: line.metrics.into_iter().map(|(name, value)| (name, number(value))).collect(),
            seconds: number(line.seconds),
            samples_per_second: number(line.samples_per_second),
            peak_bytes: line.peak_bytes.unwrap_or(0),
            device_peak_bytes: line.device_peak_bytes,
            wait: number(line.wait_seconds),
            per_class,
            confusion,
        });
    }

    fn resume(&mut self, line: &ResumeLine) {
        (self.end, self.early) = (None, None);
        self.back_to(line.step);
        self.phases.iter_mut().for_each(|row| row.lost |= row.speed.is_none());
        self.resumes.push((line.epoch, line.step));
    }

    fn event(&mut self, event: RunEvent) {
        match event {
            RunEvent::Start { .. } => (self.start, self.end) = (Some(event), None),
            RunEvent::Warning { message } => self.warn(message),
            RunEvent::Checkpoint { epoch, step, path, .. } => self.checkpoints.push(Checkpoint { epoch, step, path }),
            RunEvent::Phase { .. } | RunEvent::Constants { .. } | RunEvent::Proof { .. } | RunEvent::Speed { .. } => {
                let last = self.last_step();
                phases::note(&mut self.phases, event, last);
            }
            RunEvent::Rollback { to_epoch, to_step, .. } => {
                self.back_to(to_step);
                self.epochs_before(to_epoch);
                if let Some(row) = self.phases.last_mut() {
                    row.undone = true;
                }
                self.events.push(event);
            }
            event => self.events.push(event),
        }
    }

    fn warn(&mut self, message: String) {
        if let Some((_, count)) = self.warnings.iter_mut().find(|(known, _)| *known == message) {
            *count += 1;
        } else if self.warnings.len() < MOST {
            self.warnings.push((message, 1));
        } else {
            self.more_warnings += 1;
        }
    }

    /// Sets the steps after one apart.
    fn back_to(&mut self, step: usize) {
        if self.last_step() > step {
            let tail = self.steps.split_off(self.steps.partition_point(|before| before.step <= step));
            self.undone.push(tail);
        }
    }

    /// Sets an epoch and those after it apart.
    fn epochs_before(&mut self, epoch: usize) {
        let from = self.epochs.partition_point(|before| before.epoch < epoch);
        self.undone_epochs.extend(self.epochs.drain(from..));
    }
}
