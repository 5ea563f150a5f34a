//! What happened to a run on its way: freezes by what was measured, freezes taken back, steps that are not finite, and
//! whether what is frozen is kept.

use super::numbers::number;
use crate::report::human::plural;
use crate::report::page::escape;
use crate::runner::{RunEvent, what_is_kept, what_is_not_finite};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The most lines.
const MOST: usize = 400;

/// Operators that are named.
const SHOWN: usize = 8;

/// Appends the section, where there is anything to tell.
pub(super) fn section(page: &mut String, events: &[RunEvent]) {
    let lines: Vec<String> = events.iter().filter_map(told).collect();
    if lines.is_empty() {
        return;
    }
    page.push_str("<section>\n<h2>On the way</h2>\n<ol class=\"told\">\n");
    for line in lines.iter().take(MOST) {
        let _ = writeln!(page, "<li>{}</li>", escape(line));
    }
    page.push_str("</ol>\n");
    if lines.len() > MOST {
        let _ = writeln!(page, "<p class=\"dim\">{} more are not shown.</p>", lines.len() - MOST);
    }
    page.push_str("</section>\n");
}

fn told(event: &RunEvent) -> Option<String> {
    match event {
        RunEvent::Decision { epoch, step, frozen, frozen_units } => Some(format!(
            "After step {step}, from epoch {epoch} on: {} and {} frozen.",
            plural(*frozen_units as u64, "unit"),
            plural(*frozen as u64, "tensor")
        )),
        RunEvent::Rollback { epoch, to_epoch, to_step, metric, before, after, delay } => {
            let after = after.map_or_else(|| "no finite number".into(), number);
            Some(format!(
                "Rollback after epoch {epoch}: eval {metric} went from {} to {after}. Back to epoch {to_epoch}, step \
                 {to_step}; freezes come {} later in all.",
                number(*before),
                plural(*delay as u64, "epoch")
            ))
        }
        RunEvent::Cache { epoch, .. } => Some(format!("From epoch {epoch} on: {}.", what_is_kept(event)?)),
        RunEvent::Nonfinite { epoch, step, .. } => {
            Some(format!("Step {step}, in epoch {epoch}: {}.", what_is_not_finite(event)?))
        }
        RunEvent::Precision { epoch, low, float32, kept, casts } => {
            let all = |counts: &BTreeMap<String, usize>| counts.values().sum::<usize>() as u64;
            let kept = if *kept > 0 { format!(", {kept} of them kept by the job") } else { String::new() };
            Some(format!(
                "From epoch {epoch} on: {} of the train graph compute in the low dtype, {} in float32{kept} ({}), with {} \
                 between them.",
                plural(all(low), "node"),
                all(float32),
                most(float32),
                plural(*casts as u64, "cast")
            ))
        }
        RunEvent::LossScale { epoch, step, scale, overflow: true } => Some(format!(
            "Step {step}, in epoch {epoch}: a gradient left the range of float16. The step changed nothing; the scale of \
             the loss is {} from here on.",
            number(*scale)
        )),
        _ => None,
    }
}

/// Returns the operators with the most nodes.
fn most(counts: &BTreeMap<String, usize>) -> String {
    let mut sorted: Vec<(&String, &usize)> = counts.iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let named: Vec<String> = sorted.iter().take(SHOWN).map(|(operator, count)| format!("{operator} {count}")).collect();
    let more = if sorted.len() > SHOWN { ", .." } else { "" };
    format!("{}{more}", named.join(", "))
}
