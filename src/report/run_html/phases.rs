//! The phases of a run: what was frozen, that it stayed, and what a step took beside what was predicted.

use super::log::RunLog;
use super::numbers::{seconds, size};
use super::series::median;
use crate::report::human::{grouped, plural};
use crate::runner::RunEvent;
use std::fmt::Write;

/// The most rows of the table.
const MOST: usize = 400;
/// How many phases back one may be that is timed.
const NEAR: usize = 3;

/// A phase.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) epoch: usize,
    pub(super) after: usize,
    /// The last logged step before it.
    pub(super) from_step: usize,
    frozen: usize,
    pub(super) units: usize,
    /// Seconds to make it ready.
    prepare: f64,
    /// Seconds that training waited for it.
    stall: f64,
    predicted: f64,
    /// Bytes that it was estimated to take.
    pub(super) memory: Option<u64>,
    pub(super) recomputed: Vec<String>,
    pub(super) speed: Option<Speed>,
    /// What was proved not to have changed.
    proof: Option<String>,
    /// The run went back behind it.
    pub(super) undone: bool,
    /// The program ended in it.
    pub(super) lost: bool,
}

/// What the steps of a phase took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speed {
    pub(super) steps: usize,
    /// Seconds of a step, with making the batch.
    pub(super) predicted: f64,
    pub(super) median: f64,
    /// Seconds of the change to this phase.
    pub(super) predicted_change: f64,
    pub(super) change: f64,
}

impl Row {
    fn start(&self) -> String {
        match self.after {
            0 => self.epoch.to_string(),
            after => format!("{}, step {}", self.epoch, after.saturating_add(1)),
        }
    }
}

/// Notes an event `phase`, `constants`, `proof` or `speed`; `last` is the last logged step.
pub(super) fn note(rows: &mut Vec<Row>, event: RunEvent, last: usize) {
    match event {
        RunEvent::Phase {
            epoch,
            after,
            frozen,
            frozen_units,
            seconds,
            stall_seconds,
            predicted_step_cost,
            recomputed,
            memory_estimate,
            ..
        } => {
            rows.push(Row {
                epoch,
                after,
                from_step: last,
                frozen,
                units: frozen_units,
                prepare: seconds,
                stall: stall_seconds,
                predicted: predicted_step_cost,
                memory: memory_estimate.map(|estimate| estimate.total),
                recomputed,
                ..Row::default()
            });
        }
        RunEvent::Constants { stall_seconds, .. } => {
            rows.last_mut().into_iter().for_each(|row| row.stall += stall_seconds);
        }
        // A phase is proved where it ends, before the next one begins.
        RunEvent::Proof { from_epoch, parameters, statistics, sha256, .. } => {
            if let Some(row) = rows.last_mut().filter(|row| row.epoch == from_epoch) {
                row.proof = proof(parameters, statistics, &sha256);
            }
        }
        // A phase is timed where the next one begins.
        RunEvent::Speed {
            epoch,
            after,
            steps,
            predicted_seconds: predicted,
            median_seconds: median,
            predicted_change_seconds: predicted_change,
            change_seconds: change,
        } => {
            let own = |row: &&mut Row| (row.epoch, row.after) == (epoch, after) && row.speed.is_none() && !row.lost;
            let from = rows.len().saturating_sub(NEAR);
            if let Some(row) = rows.iter_mut().skip(from).find(own) {
                row.speed = Some(Speed { steps, predicted, median, predicted_change, change });
            }
        }
        _ => {}
    }
}

/// Appends the section.
pub(super) fn section(page: &mut String, log: &RunLog) {
    if log.phases.is_empty() {
        return;
    }
    page.push_str(
        "<section>\n<h2>Phases</h2>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"phases\">\n<table>\n\
         <thead><tr><th scope=\"col\" rowspan=\"2\">from epoch</th><th scope=\"col\" rowspan=\"2\">frozen</th>\
         <th scope=\"col\" rowspan=\"2\">logged steps</th>\
         <th scope=\"colgroup\" colspan=\"3\" class=\"group\">a step</th><th scope=\"colgroup\" colspan=\"3\" \
         class=\"group\">the change to it</th><th scope=\"col\" rowspan=\"2\">flops</th>\
         <th scope=\"col\" rowspan=\"2\">memory, estimated</th><th scope=\"col\" rowspan=\"2\" \
         class=\"path\">proved unchanged</th></tr>\n<tr><th scope=\"col\">logged</th><th scope=\"col\">measured</th>\
         <th scope=\"col\">predicted</th><th scope=\"col\">measured</th><th scope=\"col\">predicted</th>\
         <th scope=\"col\">stall</th></tr></thead>\n<tbody>\n",
    );
    let mut logged: Vec<Vec<f64>> = vec![Vec::new(); log.phases.len()];
    for step in log.undone.iter().flatten().chain(&log.steps) {
        if let Some(own) = step.phase.and_then(|phase| logged.get_mut(phase)) {
            own.push(step.seconds);
        }
    }
    for (row, logged) in log.phases.iter().zip(logged).take(MOST) {
        let speed = |value: fn(Speed) -> f64| row.speed.map_or("-".into(), |speed| seconds(value(speed)));
        let _ = write!(page, "<tr><th scope=\"row\">{}</th>", row.start());
        for cell in [
            format!("{}, {}", plural(row.units as u64, "unit"), plural(row.frozen as u64, "tensor")),
            grouped(logged.len() as u64),
            median(logged).map_or("-".into(), seconds),
            speed(|speed| speed.median),
            speed(|speed| speed.predicted),
            row.speed.map_or_else(|| seconds(row.prepare), |speed| seconds(speed.change)),
            speed(|speed| speed.predicted_change),
            seconds(row.stall),
            format!("{:.0} %", 100.0 * row.predicted),
            row.memory.map_or("-".into(), size),
        ] {
            let _ = write!(page, "<td>{cell}</td>");
        }
        let proof = if row.undone { Some("taken back") } else { row.proof.as_deref() };
        let _ = writeln!(page, "<td class=\"path\">{}</td></tr>", proof.unwrap_or("-"));
    }
    page.push_str("</tbody>\n</table>\n</div>\n");
    if log.phases.len() > MOST {
        let _ = writeln!(page, "<p class=\"dim\">{} more phases are not shown.</p>", log.phases.len() - MOST);
    }
    page.push_str(
        "<p class=\"dim\">A step: medians, of the logged steps without making the batch, and of all steps with it. \
         The change: until its graphs are ready, with what its first two steps took beyond the others; \
         stall is what training waited for, without these. Flops: of a step, \
         relative to nothing frozen, without loss, optimizer and data. Proved: bit for bit what it was, with the start of \
         the proof's SHA-256.</p>\n</section>\n",
    );
}

/// Returns what was proved; nothing where nothing was frozen.
fn proof(parameters: usize, statistics: usize, sha256: &str) -> Option<String> {
    let parts = [(parameters, "tensor"), (statistics, "statistic")];
    let parts = parts.into_iter().filter(|part| part.0 > 0).map(|(count, what)| plural(count as u64, what));
    let parts: Vec<String> = parts.collect();
    let hash: String = sha256.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    (!parts.is_empty()).then(|| format!("{} ({hash})", parts.join(", ")))
}
