//! The phases of a run: what was frozen, that it stayed, and what a step took beside what was predicted.

use crate::report::human::plural;
use crate::runner::{RunEvent, Timed};
use std::fmt::Write;

/// The most rows of the table.
const MOST: usize = 400;

#[derive(Default)]
struct Row {
    epoch: usize,
    after: usize,
    frozen: usize,
    units: usize,
    prepare: f64,
    predicted: f64,
    /// Seconds of the steps that were logged.
    steps: Vec<f64>,
    /// That nothing frozen changed, or that the phase was taken back.
    proof: Option<String>,
}

impl Row {
    fn mean(&self) -> Option<f64> {
        (!self.steps.is_empty()).then(|| self.steps.iter().sum::<f64>() / self.steps.len() as f64)
    }

    fn median(&self) -> Option<f64> {
        let mut sorted = self.steps.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }

    fn start(&self) -> String {
        match self.after {
            0 => self.epoch.to_string(),
            after => format!("{}, step {}", self.epoch, after + 1),
        }
    }
}

/// Appends the section.
pub(super) fn section(body: &mut String, events: &[Timed]) {
    let rows = rows(events);
    body.push_str(
        "<h2>Phases</h2><div class=\"wide\"><table><tr><th>from epoch</th><th>units / tensors</th><th>ready (s)</th><th>steps</th>\
         <th>mean (ms)</th><th>median</th><th>measured</th><th>predicted</th><th class=\"left\">unchanged</th></tr>",
    );
    let first = rows.iter().find_map(|row| Some((row.mean()?, row.predicted)));
    let milliseconds = |seconds: Option<f64>| seconds.map_or("-".into(), |seconds| format!("{:.2}", seconds * 1e3));
    let relative = |value: Option<f64>, first: Option<f64>| match value.zip(first) {
        Some((value, first)) if first > 0.0 => format!("{:.0} %", value / first * 100.0),
        _ => "-".into(),
    };
    for row in rows.iter().take(MOST) {
        let _ = write!(
            body,
            "<tr><td>{}</td><td>{} / {}</td><td>{:.2}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td class=\"left\">{}</td></tr>",
            row.start(),
            row.units,
            row.frozen,
            row.prepare,
            row.steps.len(),
            milliseconds(row.mean()),
            milliseconds(row.median()),
            relative(row.mean(), first.map(|first| first.0)),
            relative(Some(row.predicted), first.map(|first| first.1)),
            row.proof.as_deref().unwrap_or("-"),
        );
    }
    body.push_str("</table></div>");
    if rows.len() > MOST {
        let _ = write!(body, "<p class=\"dim\">{} more phases are not shown.</p>", rows.len() - MOST);
    }
    body.push_str(
        "<p class=\"dim\">Units / tensors: frozen. Steps, mean and median: of the steps that were logged, how many is the job's \
         <code>run.log_every</code>. Measured and predicted: a step's mean seconds and flops relative to the first phase \
         with logged steps; flops leave out loss, optimizer and data. Unchanged: what was proved to be bit for bit what \
         it was, with the start of the proof's SHA-256.</p>",
    );
}

fn rows(events: &[Timed]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for timed in events {
        match &timed.event {
            RunEvent::Phase { epoch, after, frozen, frozen_units, seconds, predicted_step_cost, .. } => {
                rows.push(Row {
                    epoch: *epoch,
                    after: *after,
                    frozen: *frozen,
                    units: *frozen_units,
                    prepare: *seconds,
                    predicted: *predicted_step_cost,
                    ..Row::default()
                })
            }
            RunEvent::Step { seconds, .. } => {
                if let Some(row) = rows.last_mut() {
                    row.steps.push(*seconds);
                }
            }
            RunEvent::Proof { from_epoch, parameters, statistics, sha256, .. } => {
                // A phase is proved where it ends, before the next one begins.
                if let Some(row) = rows.last_mut().filter(|row| row.epoch == *from_epoch) {
                    row.proof = proof(*parameters, *statistics, sha256);
                }
            }
            RunEvent::Rollback { .. } => {
                if let Some(row) = rows.last_mut() {
                    row.proof = Some("taken back".into());
                }
            }
            _ => {}
        }
    }
    rows
}

/// Returns what was proved; nothing where nothing was frozen.
fn proof(parameters: usize, statistics: usize, sha256: &str) -> Option<String> {
    let parts = [(parameters, "tensor"), (statistics, "statistic")];
    let parts = parts.into_iter().filter(|part| part.0 > 0).map(|(count, what)| plural(count as u64, what));
    let parts: Vec<String> = parts.collect();
    let hash: String = sha256.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    (!parts.is_empty()).then(|| format!("{} ({hash})", parts.join(", ")))
}
