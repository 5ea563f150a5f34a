//! A run as one self-contained HTML page: no scripts, nothing loaded from elsewhere.

mod decisions;
mod observations;
mod phases;
#[cfg(test)]
mod tests;

use super::human::{conduct, policy};
use super::page::{escape, head};
use crate::plan::FreezePlan;
use crate::runner::{RunEvent, Timed};
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 56.0;

/// Returns the page of a run.
pub fn run_html(plan: &FreezePlan, events: &[Timed]) -> String {
    let mut body = head(&escape(&format!("Run of {}", plan.model.file)));
    let steps: Vec<(f64, f64)> = events
        .iter()
        .filter_map(|timed| match &timed.event {
            RunEvent::Step { step, loss, .. } => Some((*step as f64, *loss)),
            _ => None,
        })
        .collect();
    summary(&mut body, plan, events);
    if !steps.is_empty() {
        let _ = write!(body, "<h2>Training loss by step</h2>{}", curve(&steps, &phase_steps(events)));
    }
    let accuracy = per_epoch(events, "accuracy");
    if !accuracy.is_empty() {
        let _ = write!(body, "<h2>Eval accuracy by epoch</h2>{}", curve(&accuracy, &[]));
    }
    let eval = per_epoch(events, "loss");
    if !eval.is_empty() {
        let _ = write!(body, "<h2>Eval loss by epoch</h2>{}", curve(&eval, &[]));
    }
    phases::section(&mut body, events);
    decisions::section(&mut body, events);
    observations::section(&mut body, plan, events);
    epochs(&mut body, events);
    body.push_str("</html>\n");
    body
}

fn summary(body: &mut String, plan: &FreezePlan, events: &[Timed]) {
    body.push_str("<dl>");
    let mut row = |name: &str, value: String| {
        let _ = write!(body, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    };
    for timed in events {
        match &timed.event {
            RunEvent::Start { engine, engine_version, device, threads, parameters, epochs, steps, samples, .. } => {
                row("Run on", format!("{engine} {engine_version}, {device}, {threads} threads"));
                row("Parameters", parameters.to_string());
                row("Length", format!("{epochs} epochs, {steps} steps, {samples} samples"));
            }
            RunEvent::End { status, error, metrics, seconds } => {
                row("Status", status.clone());
                if let Some(error) = error {
                    row("Error", error.clone());
                }
                row("Seconds", format!("{seconds:.1}"));
                for (name, value) in metrics {
                    row(&format!("Eval {name}"), format!("{value:.4}"));
                }
            }
            RunEvent::Warning { message } => row("Warning", message.clone()),
            _ => {}
        }
    }
    let recomputed = events.iter().find_map(|timed| match &timed.event {
        RunEvent::Phase { recomputed, .. } if !recomputed.is_empty() => Some(recomputed.join(", ")),
        _ => None,
    });
    if let Some(modules) = recomputed {
        row("Recomputed modules", modules);
    }
    if !events.iter().any(|timed| matches!(timed.event, RunEvent::End { .. })) {
        row("Status", "did not end".into());
    }
    row("Policy", policy(plan));
    for sentence in conduct(plan) {
        row("Also", sentence);
    }
    row("Predicted cost of the run", format!("{:.1} % of an unfrozen one", plan.summary.cost_ratio * 100.0));
    body.push_str("</dl>");
}

fn per_epoch(events: &[Timed], metric: &str) -> Vec<(f64, f64)> {
    let value = |timed: &Timed| match &timed.event {
        RunEvent::Epoch { epoch, metrics, .. } => Some((*epoch as f64, *metrics.get(metric)?)),
        _ => None,
    };
    events.iter().filter_map(value).collect()
}

/// First step of every phase after the first, for the marks in the curve.
fn phase_steps(events: &[Timed]) -> Vec<f64> {
    let mut marks = Vec::new();
    let mut last = 0.0;
    for timed in events {
        match &timed.event {
            RunEvent::Step { step, .. } => last = *step as f64,
            RunEvent::Phase { .. } if last > 0.0 => marks.push(last),
            _ => {}
        }
    }
    marks
}

fn epochs(body: &mut String, events: &[Timed]) {
    body.push_str("<h2>Epochs</h2><div class=\"wide\"><table><tr><th>epoch</th><th>train loss</th><th>eval</th><th>seconds</th><th>samples/s</th><th>peak MB</th></tr>");
    for timed in events {
        if let RunEvent::Epoch { epoch, train_loss, metrics, seconds, samples_per_second, peak_bytes, .. } =
            &timed.event
        {
            let metrics: Vec<String> = metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
            let _ = write!(
                body,
                "<tr><td>{epoch}</td><td>{train_loss:.4}</td><td>{}</td><td>{seconds:.2}</td><td>{samples_per_second:.0}</td><td>{:.0}</td></tr>",
                escape(&metrics.join(", ")),
                *peak_bytes as f64 / 1e6,
            );
        }
    }
    body.push_str("</table></div>");
}

fn curve(points: &[(f64, f64)], marks: &[f64]) -> String {
    let (low, high) = points.iter().fold((f64::MAX, f64::MIN), |(low, high), (_, y)| (low.min(*y), high.max(*y)));
    // After a rollback steps come a second time.
    let (first, last) = points.iter().fold((f64::MAX, f64::MIN), |(low, high), (x, _)| (low.min(*x), high.max(*x)));
    let span = if high > low { high - low } else { 1.0 };
    let x = |value: f64| LEFT + (value - first) / (last - first).max(1e-9) * (WIDTH - LEFT - 10.0);
    let y = |value: f64| 10.0 + (high - value) / span * (HEIGHT - 40.0);
    let line: Vec<String> = points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
    for mark in marks {
        let _ = write!(
            svg,
            "<line class=\"mark\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"10\" y2=\"{1}\"/>",
            x(*mark),
            HEIGHT - 30.0
        );
    }
    let _ = write!(
        svg,
        "<polyline points=\"{}\"/><text x=\"4\" y=\"16\">{high:.4}</text><text x=\"4\" y=\"{}\">{low:.4}</text>\
         <text x=\"{LEFT}\" y=\"{2}\">{first}</text><text x=\"{3}\" y=\"{2}\" text-anchor=\"end\">{last}</text></svg>",
        line.join(" "),
        HEIGHT - 28.0,
        HEIGHT - 8.0,
        WIDTH - 10.0,
    );
    if !marks.is_empty() {
        svg.push_str("<p class=\"note\">Vertical lines: the frozen set changes.</p>");
    }
    svg
}
