//! What was frozen when: the modules of a run's plan over its epochs.

use super::record::{RunRecord, State};
use crate::plan::FreezePlan;
use crate::report::compare::{Numbers, strip};
use crate::report::human::{ends, plural};
use crate::report::plan_html::{axis, tree};
use std::fmt::Write;

/// The most bytes that a tree of modules may have on a page.
const MOST: usize = 2_000_000;

/// Appends the section, where the run has a plan.
pub(super) fn section(page: &mut String, run: &RunRecord) {
    let Some(plan) = &run.plan else { return };
    let share = reached(run, plan);
    let _ = writeln!(
        page,
        "<div class=\"followed{}\" style=\"--done:{:.2}%\">",
        if share < 1.0 { " open" } else { "" },
        100.0 * share
    );
    let mut tree = String::new();
    tree::section(&mut tree, plan, &ends(plan));
    if tree.len() <= MOST {
        page.push_str(&tree);
    } else {
        page.push_str(
            "<section>\n<h2>Modules and epochs</h2>\n<p class=\"dim\">Units from the input side down, epochs from the left; \
             paler where a unit is frozen in a part of the epoch.</p>\n<div class=\"strips one\">\n",
        );
        picture(page, run, "");
        page.push_str("</div>\n</section>\n");
    }
    let within = plan.epochs.iter().any(|epoch| !epoch.changes.is_empty());
    let mut notes = vec![source(run).to_string()];
    if share < 1.0 {
        notes.push("What the run has not reached is hatched grey and shows what was planned.".to_string());
    }
    if within {
        notes.push("The frozen set changes within epochs: each epoch is shown as it ends.".to_string());
    }
    let _ = writeln!(page, "<p class=\"dim\">{}</p>\n</div>", notes.join(" "));
}

/// Appends the plan of a run as a small picture, with a caption that is escaped already.
pub(super) fn picture(page: &mut String, run: &RunRecord, caption: &str) {
    let Some(plan) = &run.plan else { return };
    let _ = write!(
        page,
        "<figure><figcaption>{caption} <span class=\"dim\">{}</span></figcaption><div class=\"reach\" \
         style=\"--done:{:.2}%\">",
        plural(plan.units.len() as u64, "unit"),
        100.0 * reached(run, plan)
    );
    if strip::draw(page, plan) {
        page.push_str("</div>");
        axis(page, plan.epochs.len(), "axis");
    } else {
        page.push_str("<p class=\"dim\">changes too often to be drawn</p></div>");
    }
    page.push_str("</figure>\n");
}

/// Returns the share of the units that was frozen in each epoch that the run has come to.
pub(super) fn shares(run: &RunRecord) -> Vec<f64> {
    let Some(plan) = &run.plan else { return Vec::new() };
    let mut shares = Numbers::of(plan).shares;
    shares.truncate((reached(run, plan) * plan.epochs.len() as f64 - 1e-6).ceil() as usize);
    shares
}

/// Returns the fraction of the plan that the run has come to.
fn reached(run: &RunRecord, plan: &FreezePlan) -> f64 {
    if run.state() == State::Done && run.log.early.is_none() {
        return 1.0;
    }
    let epochs = run.log.epochs.last().map_or(0, |epoch| epoch.epoch) as f64;
    let steps = run.steps_per_epoch().map_or(0.0, |steps| run.log.last_step() as f64 / steps as f64);
    (epochs.max(steps) / plan.epochs.len().max(1) as f64).clamp(0.0, 1.0)
}

/// Returns where the plan comes from: the file is written again at the end, so that before that it may lack what was
/// decided on the way.
fn source(run: &RunRecord) -> &'static str {
    let planned = |epoch: usize, after: usize| {
        let epoch = run.plan.as_ref()?.epochs.get(epoch.checked_sub(1)?)?;
        Some(epoch.at(after).frozen_units)
    };
    let kept = || run.log.phases.iter().filter(|row| !row.undone);
    match kept().all(|row| planned(row.epoch, row.after) == Some(row.units)) {
        true => "From plan.json, as the run followed it.",
        false => {
            "From plan.json, which does not hold all that was decided on the way: the phases below tell what was frozen."
        }
    }
}
