//! Epochs, checkpoints, environment and settings of a run.

use super::log::Epoch;
use super::numbers::{Form, number, seconds, share, size};
use super::record::RunRecord;
use super::series::spaced;
use crate::report::human::{assumed, conduct, grouped, plural, policy};
use crate::report::page::escape;
use crate::runner::{Operators, RunEvent};
use std::fmt::Write;

/// The most rows of epochs, columns of metrics, and checkpoints.
const ROWS: usize = 1000;
const METRICS: usize = 24;
const CHECKPOINTS: usize = 20;

/// Appends the epochs, newest last, with those that the run went back behind.
pub(super) fn epochs(page: &mut String, run: &RunRecord) {
    let epochs = &run.log.epochs;
    if epochs.is_empty() {
        return;
    }
    let names = run.metrics();
    let (open, all) = if epochs.len() <= 40 { (" open", " all") } else { ("", "") };
    let _ = write!(
        page,
        "<section>\n<details class=\"epochs\"{open}>\n<summary><h2>Epochs</h2></summary>\n<div class=\"wide{all}\" tabindex=\"0\" \
         role=\"region\" aria-label=\"epochs\">\n<table>\n<thead><tr><th scope=\"col\">epoch</th><th scope=\"col\">train \
         loss</th>"
    );
    for name in names.iter().take(METRICS) {
        let _ = write!(page, "<th scope=\"col\">eval {}</th>", escape(name));
    }
    let waits = epochs.iter().any(|epoch| epoch.wait.is_finite());
    let _ = write!(
        page,
        "<th scope=\"col\">took</th>{}<th scope=\"col\">samples/s</th><th scope=\"col\">peak memory</th></tr></thead>\n\
         <tbody>\n",
        if waits { "<th scope=\"col\">waiting</th>" } else { "" }
    );
    let shown = spaced(epochs.len(), ROWS);
    let left_out = epochs.len() - shown.len();
    for epoch in shown.into_iter().filter_map(|index| epochs.get(index)) {
        row(page, epoch, &names, waits, "");
    }
    for epoch in run.log.undone_epochs.iter().rev().take(CHECKPOINTS) {
        row(page, epoch, &names, waits, " (taken back)");
    }
    page.push_str("</tbody>\n</table>\n</div>\n</details>\n");
    if left_out > 0 {
        let _ =
            writeln!(page, "<p class=\"dim\">{} between these are not shown.</p>", plural(left_out as u64, "epoch"));
    }
    page.push_str("</section>\n");
}

fn row(page: &mut String, epoch: &Epoch, names: &[String], waits: bool, note: &str) {
    let value = |value: f64| if value.is_nan() { "-".into() } else { number(value) };
    let _ = write!(page, "<tr><th scope=\"row\">{}{note}</th><td>{}</td>", epoch.epoch, value(epoch.train_loss));
    for name in names.iter().take(METRICS) {
        let form = Form::of_metric(name);
        let text =
            epoch.metrics.get(name).filter(|value| !value.is_nan()).map_or("-".into(), |value| form.show(*value));
        let _ = write!(page, "<td>{text}</td>");
    }
    let _ = write!(page, "<td>{}</td>", seconds(epoch.seconds));
    if waits {
        let _ = write!(page, "<td>{}</td>", share(epoch.wait / epoch.seconds));
    }
    let _ = writeln!(
        page,
        "<td>{}</td><td>{}</td></tr>",
        if epoch.samples_per_second.is_finite() { number(epoch.samples_per_second) } else { "-".into() },
        if epoch.peak_bytes > 0 { size(epoch.peak_bytes) } else { "-".into() },
    );
}

/// Appends the checkpoints.
pub(super) fn checkpoints(page: &mut String, run: &RunRecord) {
    let all = &run.log.checkpoints;
    let Some(last) = all.last() else { return };
    let _ = write!(
        page,
        "<section>\n<h2>Checkpoints</h2>\n<p>{} written, the last one after step {} of epoch {}.</p>\n<details>\n<summary>The \
         last {}</summary>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"checkpoints\">\n<table>\n<thead><tr><th \
         scope=\"col\">epoch</th><th scope=\"col\">step</th><th scope=\"col\" class=\"path\">written to</th></tr></thead>\n<tbody>\n",
        grouped(all.len() as u64),
        last.step,
        last.epoch,
        all.len().min(CHECKPOINTS)
    );
    for checkpoint in all.iter().skip(all.len().saturating_sub(CHECKPOINTS)) {
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"path\">{}</td></tr>",
            checkpoint.epoch,
            checkpoint.step,
            escape(&checkpoint.path)
        );
    }
    page.push_str("</tbody>\n</table>\n</div>\n</details>\n</section>\n");
}

/// Returns where and on what a run was made, as names and values.
pub(super) fn environment(run: &RunRecord) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if let Some(RunEvent::Start {
        version,
        engine,
        engine_version,
        device,
        threads,
        operators,
        vectors,
        precision,
        parameters,
        samples,
        ..
    }) = &run.log.start
    {
        rows.push(("program", format!("freeze-plan {version}")));
        rows.push(("engine", format!("{engine} {engine_version}")));
        rows.push(("device", device.clone()));
        rows.push(("threads", threads.to_string()));
        rows.push((
            "operators",
            match operators {
                Operators::Own => format!("own, {vectors}"),
                Operators::Standard => "standard".into(),
            },
        ));
        rows.push(("precision", precision.to_string()));
        rows.push(("trained parameters", grouped(*parameters)));
        rows.push(("training samples", grouped(*samples as u64)));
    }
    if let Some(plan) = &run.plan {
        rows.push(("model file", plan.model.file.clone()));
        rows.push(("model sha256", plan.model.sha256.clone()));
        rows.push(("model written by", format!("{}, opset {}", plan.model.exporter, plan.model.opset)));
    }
    rows.retain(|row| !row.1.is_empty());
    rows
}

/// Appends environment and settings.
pub(super) fn setting(page: &mut String, run: &RunRecord) {
    page.push_str("<section>\n<h2>Environment and settings</h2>\n<dl class=\"facts\">\n");
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(page, "<dt>{name}</dt><dd>{}</dd>", escape(value));
    };
    for (name, value) in environment(run) {
        fact(name, &value);
    }
    if let Some(plan) = &run.plan {
        fact("policy", &policy(plan));
        conduct(plan).iter().for_each(|sentence| fact("also", sentence));
        let predicted = share(plan.summary.cost_ratio);
        fact("predicted cost", &format!("{predicted} of the flops of a run with nothing frozen, at {}", assumed(plan)));
    }
    let recomputed = run.log.phases.iter().find(|row| !row.recomputed.is_empty());
    if let Some(row) = recomputed {
        fact("recomputed modules", &row.recomputed.join(", "));
    }
    page.push_str("</dl>\n");
    if !run.settings.is_empty() {
        page.push_str(
            "<details>\n<summary>All settings of the job</summary>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" \
             aria-label=\"settings\">\n<table>\n<tbody>\n",
        );
        for (name, value) in &run.settings {
            let _ = writeln!(
                page,
                "<tr><th scope=\"row\" class=\"path\">{}</th><td class=\"path\">{}</td></tr>",
                escape(name),
                escape(value)
            );
        }
        page.push_str("</tbody>\n</table>\n</div>\n</details>\n");
    }
    page.push_str("</section>\n");
}
