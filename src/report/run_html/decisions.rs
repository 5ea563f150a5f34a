//! What a run decided as it went: freezes by what was measured, and freezes taken back.

use crate::report::human::plural;
use crate::report::page::escape;
use crate::runner::{RunEvent, Timed};
use std::fmt::Write;

/// The most lines.
const MOST: usize = 400;

/// Appends the section, where there was anything to decide.
pub(super) fn section(body: &mut String, events: &[Timed]) {
    let decisions: Vec<String> = events.iter().filter_map(|timed| told(&timed.event)).collect();
    if decisions.is_empty() {
        return;
    }
    body.push_str("<h2>Decisions</h2><ol>");
    for decision in decisions.iter().take(MOST) {
        let _ = write!(body, "<li>{}</li>", escape(decision));
    }
    body.push_str("</ol>");
    if decisions.len() > MOST {
        let _ = write!(body, "<p class=\"dim\">{} more are not shown.</p>", decisions.len() - MOST);
    }
}

fn told(event: &RunEvent) -> Option<String> {
    match event {
        RunEvent::Decision { epoch, step, frozen, frozen_units } => Some(format!(
            "After step {step}, from epoch {epoch} on: {} and {} frozen.",
            plural(*frozen_units as u64, "unit"),
            plural(*frozen as u64, "tensor")
        )),
        RunEvent::Rollback { epoch, to_epoch, to_step, metric, before, after, delay } => {
            let after = after.map_or_else(|| "no finite number".into(), |after| format!("{after:.4}"));
            Some(format!(
                "Rollback after epoch {epoch}: eval {metric} went from {before:.4} to {after}. Back to epoch {to_epoch}, \
                 step {to_step}; freezes come {} later in all.",
                plural(*delay as u64, "epoch")
            ))
        }
        _ => None,
    }
}
