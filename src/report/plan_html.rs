//! A plan as one self-contained HTML page: nothing fetched, readable without its script.

mod chart;
mod rows;
pub(super) mod tree;

use super::human::{
    Run, assumed, bytes, caches, conduct, ends, flops, full, grouped, held, percent, plural, policy, runs, saving,
    unit_name, whole_step,
};
use super::page::escape;
use crate::plan::{EpochPlan, FreezePlan, Predicted};
pub(super) use chart::axis;
use chart::{Chart, Layer};
use std::fmt::Write;

/// How pages of plans look.
pub(super) const STYLE: &str = include_str!("plan_html/page.css");
const WITHIN: &str = "the frozen set changes within epochs: the charts show means over the steps of an epoch, the modules \
                      each epoch as it ends";
/// Filters and opens the tree of modules, and shows the numbers of an epoch.
pub(super) const SCRIPT: &str = include_str!("plan_html/page.js");

/// Returns the page: what the plan saves, the cost and the memory of a step epoch by epoch, one row per
/// run of epochs with the same frozen set, and the module tree with what each unit costs and what
/// remains of its backward pass in each epoch.
pub fn plan_html(plan: &FreezePlan) -> String {
    let runs = runs(plan);
    let title = escape(&format!("Freeze plan of {}", plan.model.file));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    header(&mut page, plan);
    figures(&mut page, plan);
    let within = plan.epochs.iter().any(|epoch| !epoch.changes.is_empty());
    let drawn = within.then(|| WITHIN.to_string());
    let notes: Vec<String> = plan.summary.notes.iter().cloned().chain(conduct(plan)).chain(drawn).collect();
    if !notes.is_empty() {
        page.push_str("<ul class=\"notes\">\n");
        for note in &notes {
            let _ = writeln!(page, "<li>{}</li>", escape(note));
        }
        page.push_str("</ul>\n");
    }
    charts(&mut page, plan);
    epochs(&mut page, plan, &runs);
    tree::section(&mut page, plan, &ends(plan));
    footer(&mut page, plan);
    let _ = write!(page, "</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n");
    page
}

fn header(page: &mut String, plan: &FreezePlan) {
    let model = &plan.model;
    let exporter = if model.exporter.is_empty() { "an unnamed exporter" } else { &model.exporter };
    let _ = write!(
        page,
        "<header>\n<p class=\"kicker\">Freeze plan</p>\n<h1>{}</h1>\n<p class=\"dim\">{} in {} ({}), written by {}, \
         opset {}</p>\n<p class=\"dim\">Policy {}</p>\n</header>\n",
        escape(&model.file),
        plural(model.parameters, "parameter"),
        plural(plan.units.len() as u64, "unit"),
        bytes(model.bytes),
        escape(exporter),
        model.opset,
        escape(&policy(plan)),
    );
}

/// The verdict, and the numbers that a person looks for first.
fn figures(page: &mut String, plan: &FreezePlan) {
    let summary = &plan.summary;
    let class = if summary.pays || summary.verdict.is_empty() { "verdict" } else { "verdict no" };
    let _ = writeln!(page, "<p class=\"{class}\">{}</p>", escape(&saving(plan)));
    page.push_str("<dl class=\"figures\">\n");
    let mut figure = |name: &str, value: &str, note: &str| {
        let _ = writeln!(
            page,
            "<div><dt>{name}</dt><dd>{}</dd><dd class=\"dim\">{}</dd></div>",
            escape(value),
            escape(note)
        );
    };
    let partial = if summary.uncounted_nodes > 0 { "partial estimate, " } else { "" };
    let saved = |ratio: f64| percent((1.0 - ratio).max(0.0));
    figure("compute saved", &saved(summary.cost_ratio), &format!("{partial}at most {:.2}x", summary.ceiling));
    if caches(plan) {
        let note = format!("{partial}at most {:.2}x", summary.cached_ceiling);
        figure("with a cached prefix", &saved(summary.cached_cost_ratio), &note);
        let cut = plan.epochs.iter().map(|epoch| epoch.predicted.cut_bytes).max().unwrap_or(0);
        figure("cache, per sample", &bytes(cut), "the most in any epoch");
    }
    if let (Some(first), Some(last)) =
        (plan.epochs.first(), plan.epochs.last().map(|last| last.changes.last().unwrap_or(last)))
    {
        let all = |epoch: &EpochPlan| epoch.predicted.state_bytes.saturating_add(epoch.predicted.activation_bytes);
        let note = format!("of {} in epoch 1, beside the weights", bytes(all(first)));
        figure("memory in the last epoch", &bytes(all(last)), &note);
        let units = format!("of {} in the last epoch", grouped(plan.units.len() as u64));
        figure("units frozen", &grouped(last.frozen_units as u64), &units);
    }
    page.push_str("</dl>\n");
}

fn charts(page: &mut String, plan: &FreezePlan) {
    let counted = plan.epochs.iter().all(|epoch| epoch.predicted.forward_flops > 0);
    if plan.epochs.is_empty() || !counted {
        return;
    }
    let steps = plan.assumed.steps_per_epoch;
    let still = |a: &EpochPlan, b: &EpochPlan| a.changes.is_empty() && b.changes.is_empty() && held(a) == held(b);
    let runs: Vec<&[EpochPlan]> = plan.epochs.chunk_by(still).collect();
    let layer = |name, class, value: fn(&Predicted) -> u64| {
        let mean = |epoch: &EpochPlan| match epoch.changes.is_empty() {
            true => value(&epoch.predicted),
            false => epoch.mean(steps, |predicted| value(predicted) as f64) as u64,
        };
        Layer { name, class, values: runs.iter().map(|run| (run.len(), run.first().map_or(0, mean))).collect() }
    };
    let per_step = format!("per step at {}", escape(&assumed(plan)));
    let mut cost = Chart {
        title: "Compute",
        about: format!("flops {per_step}"),
        unit: flops,
        layers: vec![
            layer("forward", "f", |p| p.forward_flops),
            layer("input gradients", "x", |p| p.input_grad_flops),
            layer("weight gradients", "w", |p| p.weight_grad_flops),
        ],
        line: None,
    };
    if caches(plan) {
        let full = full(plan).map_or(0.0, |full| full.forward_flops.saturating_add(full.backward_flops) as f64);
        let points = plan.epochs.iter().map(|epoch| (epoch.mean(steps, |p| p.cached_step_cost) * full) as u64);
        cost.line = Some(("with a cache", points.collect())).filter(|_| full > 0.0);
    }
    let memory = Chart {
        title: "Memory",
        about: format!("bytes beside the weights, {per_step}"),
        unit: bytes,
        layers: vec![
            layer("kept for backward", "a", |p| p.activation_bytes),
            layer("gradients", "g", |p| p.gradient_bytes),
            layer("optimizer", "o", |p| p.slot_bytes),
        ],
        line: None,
    };
    page.push_str("<section>\n<h2>A step, epoch by epoch</h2>\n");
    if let Some((which, [flops, bytes])) = whole_step(plan) {
        let _ = writeln!(page, "<p class=\"dim\">A step {which}: {}; {}.</p>", escape(&flops), escape(&bytes));
    }
    page.push_str("<div class=\"charts\">\n");
    cost.draw(page, plan.epochs.len());
    memory.draw(page, plan.epochs.len());
    page.push_str("</div>\n<p class=\"readout dim\" aria-live=\"polite\" hidden></p>\n</section>\n");
}

fn epochs(page: &mut String, plan: &FreezePlan, runs: &[Run<'_>]) {
    let cached = caches(plan);
    page.push_str("<section>\n<details class=\"epochs\" open>\n<summary><h2>Epochs</h2></summary>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"epochs\">\n<table>\n<thead><tr>");
    let mut header = vec![
        "epochs",
        "frozen units",
        "freezes up to",
        "schedule",
        "step cost",
        "backward",
        "kept",
        "gradients",
        "optimizer",
    ];
    if cached {
        header.insert(5, "with cache");
    }
    for name in header {
        let class = if name == "freezes up to" { " class=\"path\"" } else { "" };
        let _ = write!(page, "<th scope=\"col\"{class}>{name}</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for run in runs {
        let (first, predicted) = (run.first(), &run.first().predicted);
        let _ = write!(page, "<tr data-from=\"{}\" data-to=\"{}\">", first.epoch, run.last().epoch);
        let _ = write!(page, "<th scope=\"row\">{}</th>", run.numbers());
        let _ = write!(page, "<td>{} of {}</td>", first.frozen_units, plan.units.len());
        let newly = run.newly.map_or("-".into(), |unit| unit_name(&unit.path));
        let _ = write!(page, "<td class=\"path\">{}</td><td>{}</td>", escape(&newly), run.fractions());
        let _ = write!(page, "<td>{}</td>", percent(predicted.step_cost));
        if cached {
            let _ = write!(page, "<td>{}</td>", percent(run.last().predicted.cached_step_cost));
        }
        for text in [
            flops(predicted.backward_flops),
            bytes(predicted.activation_bytes),
            bytes(predicted.gradient_bytes),
            bytes(predicted.slot_bytes),
        ] {
            let _ = write!(page, "<td>{text}</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n</div>\n</details>\n</section>\n");
}

fn footer(page: &mut String, plan: &FreezePlan) {
    let _ = write!(
        page,
        "<footer class=\"dim\">\n<p>Flops and bytes are counted on the graph {}; a multiply-add is two flops. Loss, \
         optimizer and data are not in them.</p>\n",
        escape(&format!("at {}", assumed(plan))),
    );
    if !plan.model.sha256.is_empty() {
        let _ = writeln!(page, "<p>sha256 {}</p>", escape(&plan.model.sha256));
    }
    page.push_str("</footer>\n");
}

#[cfg(test)]
pub(super) mod tests;
