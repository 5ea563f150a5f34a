//! The progress bar of a run: loss, samples a second, time left.

use crate::runner::{OnNonfinite, RunEvent};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// Shows events on stderr; on a terminal with a bar, otherwise one line an epoch.
pub struct Progress {
    bar: ProgressBar,
    samples_per_step: f64,
    epochs: usize,
}

impl Progress {
    /// Returns a progress display that shows nothing yet.
    pub fn new() -> Progress {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
        Progress { bar, samples_per_step: 0.0, epochs: 0 }
    }

    /// Shows an event.
    pub fn show(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Start { engine, engine_version, device, threads, epochs, steps, samples, .. } => {
                self.line(&format!("{engine} {engine_version} on {device}, {}", count(*threads, "thread")));
                self.epochs = *epochs;
                self.samples_per_step = (samples * epochs) as f64 / (*steps).max(1) as f64;
                let style = ProgressStyle::with_template("{bar:16} {pos}/{len} {msg} {eta} left");
                self.bar.set_style(style.expect("invariant: the template is valid"));
                self.bar.set_length(*steps as u64);
                self.bar.enable_steady_tick(Duration::from_millis(500));
            }
            RunEvent::Phase {
                epoch, after, frozen, frozen_units, seconds, predicted_step_cost, recomputed, ..
            } => {
                let from = if *after == 0 { String::new() } else { format!(" after {}", count(*after, "step")) };
                let again = match recomputed.len() {
                    0 => String::new(),
                    modules => format!(", {} recomputed", count(modules, "module")),
                };
                self.line(&format!(
                    "epoch {epoch}{from}: {} ({}) frozen{again}, predicted step cost {:.1} % ({seconds:.2} s)",
                    count(*frozen_units, "unit"),
                    count(*frozen, "tensor"),
                    predicted_step_cost * 100.0
                ))
            }
            RunEvent::Step { epoch, step, loss, .. } => {
                self.bar.set_position(*step as u64);
                let rate = self.bar.per_sec() * self.samples_per_step;
                self.bar.set_message(format!("epoch {epoch}/{} loss {loss:.4} {rate:.0} samples/s", self.epochs));
            }
            RunEvent::Epoch { epoch, train_loss, metrics, seconds, samples_per_second, .. } => {
                let loss = metrics.get_key_value("loss").into_iter();
                let others = metrics.iter().filter(|(name, _)| *name != "loss");
                let mut metrics: Vec<String> = loss.chain(others).map(|(name, value)| metric(name, *value)).collect();
                metrics.iter_mut().skip(1).for_each(|text| *text = text.trim_start_matches("eval ").to_string());
                self.line(&format!(
                    "epoch {epoch:>3}/{}  loss {train_loss:.4}  {}  {seconds:.1} s  {samples_per_second:.0}/s",
                    self.epochs,
                    metrics.join("  ")
                ));
            }
            RunEvent::Warning { message } => self.line(&format!("warning: {message}")),
            RunEvent::Decision { epoch, step, frozen_units, .. } => {
                self.line(&format!("after step {step} (epoch {epoch}): {} frozen", count(*frozen_units, "unit")));
            }
            RunEvent::Rollback { epoch, to_epoch, metric: name, before, after, delay, .. } => {
                let after = after.map_or_else(|| "no number".into(), |after| format!("{after:.4}"));
                self.line(&format!(
                    "rollback after epoch {epoch}: eval {name} went from {before:.4} to {after}; back to epoch {to_epoch}, \
                     freezes come {} later",
                    count(*delay, "epoch")
                ));
            }
            RunEvent::EarlyStop { epoch, metric: name, best_epoch, best, evaluations } => {
                let since = match (best_epoch, best) {
                    (Some(epoch), Some(best)) => format!(" since epoch {epoch} ({best:.4})"),
                    _ => String::new(),
                };
                self.line(&format!(
                    "stopping early after epoch {epoch}: {name} did not get better in {}{since}",
                    count(usize::try_from(*evaluations).unwrap_or(usize::MAX), "evaluation")
                ));
            }
            RunEvent::Ceiling(ceiling) => {
                let mut sentences = ceiling.sentences();
                if let Some(reason) = sentences.last_mut().filter(|_| ceiling.reason.is_some()) {
                    reason.insert_str(0, "warning: ");
                }
                sentences.iter().for_each(|sentence| self.line(sentence));
            }
            RunEvent::Gain { predicted, steps, gain, .. } => self.line(&format!(
                "predicted to save {}; the steps saved {}, with phase changes {}",
                percent(*predicted),
                percent(*steps),
                percent(*gain)
            )),
            RunEvent::Resume { epoch, step, .. } => {
                self.bar.set_position(*step as u64);
                self.line(&format!("goes on in epoch {epoch}, after step {step}"));
            }
            RunEvent::Nonfinite { epoch, step, loss, gradient, action, in_a_row, cause, .. } => {
                let what = match (loss, gradient) {
                    (Some(_), Some(name)) => format!("the gradient \"{name}\""),
                    _ => "the loss".to_string(),
                };
                let follows = match action {
                    OnNonfinite::Stop => "the run stops",
                    OnNonfinite::Skip => "the step is skipped",
                    OnNonfinite::Rollback => "the state goes back to the start of the epoch",
                };
                let cause = cause.as_ref().map_or_else(String::new, |cause| format!("; {cause}"));
                let row = if *in_a_row > 1 { format!(" ({in_a_row} in a row)") } else { String::new() };
                self.line(&format!("epoch {epoch}, step {step}: {what} is not finite, {follows}{row}{cause}"));
            }
            RunEvent::Speed { .. } => {}
            RunEvent::Checkpoint { .. } | RunEvent::Proof { .. } | RunEvent::Observation { .. } => {}
            RunEvent::End { .. } => self.bar.finish_and_clear(),
        }
    }

    /// Prints a line above the bar.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn percent(fraction: f64) -> String {
    let percent = 100.0 * fraction;
    if percent.abs() < 10.0 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Returns a metric as text: fractions as percentages.
pub fn metric(name: &str, value: f64) -> String {
    match name {
        "accuracy" => format!("eval accuracy {:.2} %", value * 100.0),
        "loss" => format!("eval loss {value:.4}"),
        name => format!("eval {name} {value:.4}"),
    }
}
