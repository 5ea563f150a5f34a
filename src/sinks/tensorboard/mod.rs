//! TensorBoard: the scalars of a run as event files.
//!
//! | tag | step | value |
//! |---|---|---|
//! | `train/loss`, `train/lr` | the step | of the step |
//! | `train/epoch_loss`, `eval/METRIC` | last step of the epoch | of the epoch |
//! | `epoch/seconds`, `epoch/samples_per_second`, `epoch/peak_bytes`, `epoch/device_peak_bytes` | last step of the epoch | of the epoch |
//! | `freeze/units`, `freeze/step_cost` | first step of a phase, last of an epoch | frozen units; predicted cost of a step relative to nothing frozen |
//!
//! A run that resumes writes another file, later by its name. Where steps come again, after a resume or a rollback, a
//! `SessionLog` `START` at the first of them makes TensorBoard drop what it knew of that step and those after it.

#[rustfmt::skip]
#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod proto;
mod record;

use super::Sink;
use crate::runner::{RunEvent, Timed};
use prost::Message;
use proto::event::What;
use proto::session_log::SessionStatus;
use proto::summary::Value;
use proto::summary::value::Value as Content;
use proto::summary_metadata::PluginData;
use proto::{Event, SessionLog, Summary, SummaryMetadata, Tensor, TensorShape, tensor_shape};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const PREFIX: &str = "events.out.tfevents.";
/// The type of strings in a tensor.
const STRINGS: i32 = 7;

/// Writes an event file.
pub struct TensorBoard {
    path: PathBuf,
    file: File,
    every: usize,
    steps_per_epoch: usize,
    /// Steps done over the run.
    step: usize,
    /// Whether a `START` stands before the scalars.
    started: bool,
    /// First step of the phase, its frozen units and predicted step cost.
    phase: Option<(usize, usize, f64)>,
}

impl TensorBoard {
    /// Starts an event file in a folder, which is made where there is none; of the steps only every `every`-th is
    /// written. Event files of earlier runs are removed, unless this run goes on with theirs (`resumes`).
    ///
    /// # Errors
    /// The folder or the file cannot be written.
    pub fn create(folder: &Path, resumes: bool, every: usize) -> io::Result<TensorBoard> {
        fs::create_dir_all(folder)?;
        let mut latest = 0;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            if resumes {
                latest = latest.max(rest.split('.').next().and_then(|second| second.parse().ok()).unwrap_or(0));
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        let seconds = u64::max(now() as u64, latest + 1);
        // Readers take the files in the order of their names.
        let path = folder.join(format!("{PREFIX}{seconds:010}.freeze-plan.{}", std::process::id()));
        let file = File::create(&path)?;
        let mut board =
            TensorBoard { path, file, every: every.max(1), steps_per_epoch: 0, step: 0, started: false, phase: None };
        board.write(0, What::FileVersion("brain.Event:2".into()))?;
        Ok(board)
    }

    /// Writes a text, which TensorBoard shows as Markdown.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn text(&mut self, tag: &str, text: &str) -> io::Result<()> {
        let tensor = Tensor {
            dtype: STRINGS,
            tensor_shape: Some(TensorShape { dim: vec![tensor_shape::Dim { size: 1 }] }),
            string_val: vec![text.as_bytes().to_vec()],
        };
        let metadata = SummaryMetadata { plugin_data: Some(PluginData { plugin_name: "text".into() }) };
        let value = Value { tag: tag.into(), value: Some(Content::Tensor(tensor)), metadata: Some(metadata) };
        self.write(0, What::Summary(Summary { value: vec![value] }))
    }

    fn scalars(&mut self, step: usize, scalars: &[(&str, f64)]) -> io::Result<()> {
        if !self.started {
            self.started = true;
            self.write(step, What::SessionLog(SessionLog { status: SessionStatus::Start.into() }))?;
        }
        let value = |(tag, value): &(&str, f64)| Value {
            tag: (*tag).into(),
            value: Some(Content::SimpleValue(*value as f32)),
            metadata: None,
        };
        self.write(step, What::Summary(Summary { value: scalars.iter().map(value).collect() }))
    }

    fn write(&mut self, step: usize, what: What) -> io::Result<()> {
        let event = Event { wall_time: now(), step: i64::try_from(step).unwrap_or(i64::MAX), what: Some(what) };
        self.file.write_all(&record::record(&event.encode_to_vec()))
    }

    /// Returns what is frozen, at the first step of a phase and at a later one.
    fn frozen(&self, at_first: bool) -> Vec<(&'static str, f64)> {
        let phase = self.phase.iter().filter(|(first, ..)| at_first || *first != self.step);
        phase.flat_map(|(_, units, cost)| [("freeze/units", *units as f64), ("freeze/step_cost", *cost)]).collect()
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

impl Sink for TensorBoard {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn take(&mut self, event: &Timed) -> io::Result<()> {
        match &event.event {
            RunEvent::Start { steps, epochs, .. } => self.steps_per_epoch = steps / (*epochs).max(1),
            RunEvent::Phase { epoch, after, frozen_units, predicted_step_cost, .. } => {
                self.step = epoch.saturating_sub(1) * self.steps_per_epoch + after;
                self.phase = Some((self.step + 1, *frozen_units, *predicted_step_cost));
                self.scalars(self.step + 1, &self.frozen(true))?;
            }
            RunEvent::Step { step, loss, lr, .. } => {
                self.step = *step;
                if step % self.every == 0 {
                    let lr = lr.map(|lr| ("train/lr", lr));
                    let scalars: Vec<(&str, f64)> = [("train/loss", *loss)].into_iter().chain(lr).collect();
                    self.scalars(*step, &scalars)?;
                }
            }
            RunEvent::Epoch {
                epoch,
                train_loss,
                metrics,
                seconds,
                samples_per_second,
                peak_bytes,
                device_peak_bytes,
                ..
            } => {
                self.step = epoch * self.steps_per_epoch;
                let metrics: Vec<(String, f64)> =
                    metrics.iter().map(|(name, value)| (format!("eval/{name}"), *value)).collect();
                let mut scalars = vec![
                    ("train/epoch_loss", *train_loss),
                    ("epoch/seconds", *seconds),
                    ("epoch/samples_per_second", *samples_per_second),
                ];
                scalars.extend((*peak_bytes > 0).then_some(("epoch/peak_bytes", *peak_bytes as f64)));
                scalars.extend(device_peak_bytes.map(|bytes| ("epoch/device_peak_bytes", bytes as f64)));
                scalars.extend(metrics.iter().map(|(tag, value)| (tag.as_str(), *value)));
                scalars.extend(self.frozen(false));
                self.scalars(self.step, &scalars)?;
            }
            RunEvent::Resume { step, .. } => self.step = *step,
            RunEvent::Rollback { to_step, .. } => {
                self.step = *to_step;
                self.started = false;
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
