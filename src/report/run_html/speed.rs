//! What a run took beside what was predicted: time of the epochs, steps, samples, waiting, memory.

use super::curves::{Numbered, by_epoch, by_step, line, plot};
use super::log::Epoch;
use super::numbers::{Form, seconds, share};
use super::plot::{From, Line, Plot};
use super::record::RunRecord;
use crate::plan::StepSeconds;
use crate::report::page::escape;
use crate::runner::{Ceiling, RunEvent};
use std::fmt::Write;

/// Appends the section.
pub(super) fn section(page: &mut String, runs: &[Numbered<'_>]) {
    let mut plots = Vec::new();
    let about = "steps with their data, without evaluation and phase changes";
    plots.push(match runs {
        [(_, run)] => {
            let mut lines = vec![line(0, "measured", run, |epoch| Some(epoch.seconds))];
            lines.extend(predicted(run));
            Plot { from: From::Zero, ..plot("Time of an epoch", about, Form::Seconds, lines) }
        }
        _ => by_epoch("Time of an epoch", about, Form::Seconds, From::Zero, runs, |epoch| Some(epoch.seconds)),
    });
    let memory = |epoch: &Epoch| (epoch.peak_bytes > 0).then_some(epoch.peak_bytes as f64);
    let wait = |epoch: &Epoch| Some(epoch.wait / epoch.seconds).filter(|share| share.is_finite());
    plots.push(by_epoch("Throughput", "training samples a second", Form::Plain, From::Zero, runs, |e| {
        Some(e.samples_per_second)
    }));
    plots.push(by_step("Time of a step", "without making the batch", Form::Seconds, From::Wide, runs, |step| {
        step.seconds
    }));
    plots.push(by_epoch("Waiting for data", "share of an epoch's time", Form::Percent, From::Zero, runs, wait));
    plots.push(by_epoch("Peak memory", "resident memory of the process so far", Form::Bytes, From::Zero, runs, memory));
    if plots.iter().all(|plot| !plot.has_values()) {
        return;
    }
    page.push_str("<section>\n<h2>Time and memory</h2>\n");
    if let [(_, run)] = runs {
        told(page, run);
    }
    page.push_str("<div class=\"charts\">\n");
    plots.iter().for_each(|plot| plot.draw(page));
    page.push_str("</div>\n</section>\n");
}

/// Returns the curves of the predicted seconds of each epoch: as the frozen sets were, and with nothing frozen.
fn predicted(run: &RunRecord) -> Vec<Line> {
    let mut lines = Vec::new();
    let Some(per_epoch) = run.steps_per_epoch() else { return lines };
    let done: Vec<usize> = run.log.epochs.iter().map(|epoch| epoch.epoch).collect();
    let pieces = pieces(run, per_epoch);
    let seconds = |epoch: usize| {
        let (from, to) = (epoch.saturating_sub(1).saturating_mul(per_epoch), epoch.saturating_mul(per_epoch));
        let shared = |piece: &Piece| piece.to.min(to).saturating_sub(piece.from.max(from));
        let from = pieces.partition_point(|piece| piece.to <= from);
        let within = || pieces.iter().skip(from).take_while(|piece| piece.from < to);
        let steps: usize = within().map(shared).sum();
        let seconds: f64 = within().map(|piece| shared(piece) as f64 * piece.predicted).sum();
        (steps == per_epoch).then_some((epoch as f64, seconds))
    };
    let points: Vec<(f64, f64)> = done.iter().filter_map(|epoch| seconds(*epoch)).collect();
    if !points.is_empty() {
        lines.push(Line::new(1, "predicted", points));
    }
    let all = run.length().map_or(0, |(_, steps)| steps);
    if let Some(ceiling) = ceiling(run).filter(|_| all > 0) {
        let without = ceiling.seconds_without * per_epoch as f64 / all as f64;
        lines.push(Line::new(
            2,
            "predicted with nothing frozen",
            done.iter().map(|epoch| (*epoch as f64, without)).collect(),
        ));
    }
    lines
}

/// Steps with one frozen set, by their numbers from 0.
struct Piece {
    from: usize,
    to: usize,
    /// Seconds of a step.
    predicted: f64,
}

/// Returns the phases with a prediction in their order, each up to the place where the run went back.
fn pieces(run: &RunRecord, per_epoch: usize) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for row in &run.log.phases {
        let Some(speed) = row.speed else { continue };
        let from = row.epoch.saturating_sub(1).saturating_mul(per_epoch).saturating_add(row.after);
        pieces.retain_mut(|before| {
            before.to = before.to.min(from);
            before.from < before.to
        });
        pieces.push(Piece { from, to: from.saturating_add(speed.steps), predicted: speed.predicted });
    }
    pieces
}

fn ceiling(run: &RunRecord) -> Option<&Ceiling> {
    run.log.events.iter().rev().find_map(|event| match event {
        RunEvent::Ceiling(ceiling) => Some(ceiling),
        _ => None,
    })
}

/// What was measured before the first step, and what became of the prediction.
fn told(page: &mut String, run: &RunRecord) {
    let gain_of_run = run.log.events.iter().rev().find_map(|event| match event {
        RunEvent::Gain { predicted, predicted_steps, steps, gain: measured, .. } => {
            Some([[*predicted_steps, *steps], [*predicted, *measured]])
        }
        _ => None,
    });
    if let Some([in_steps, in_all]) = gain_of_run {
        page.push_str(
            "<table class=\"small\">\n<thead><tr><th scope=\"col\">saved by freezing</th><th scope=\"col\">predicted</th>\
             <th scope=\"col\">measured</th></tr></thead>\n<tbody>\n",
        );
        for (name, [predicted, measured]) in [("by the steps", in_steps), ("less the phase changes", in_all)] {
            let _ = writeln!(
                page,
                "<tr><th scope=\"row\">{name}</th><td>{}</td><td>{}</td></tr>",
                share(predicted),
                share(measured)
            );
        }
        page.push_str("</tbody>\n</table>\n");
    }
    let Some(ceiling) = ceiling(run) else { return };
    page.push_str("<p>Before the first step:</p>\n<ul class=\"notes\">\n");
    for sentence in ceiling.sentences() {
        let _ = writeln!(page, "<li>{}</li>", escape(&sentence));
    }
    page.push_str("</ul>\n");
    parts(page, &ceiling.parts);
}

/// Where the seconds of a step go, as one bar.
fn parts(page: &mut String, parts: &StepSeconds) {
    let StepSeconds { data, forward, backward, update, rest } = *parts;
    let named = [
        ("data", "o", data),
        ("forward", "f", forward),
        ("backward", "w", backward),
        ("update", "a", update),
        ("rest", "h0", rest),
    ];
    let total = parts.total();
    if total <= 0.0 || !total.is_finite() {
        return;
    }
    page.push_str("<div class=\"parts\" aria-hidden=\"true\">");
    for (_, class, part) in named {
        let _ = write!(page, "<i class=\"{class}\" style=\"flex:{:.4}\"></i>", part.max(0.0) / total);
    }
    page.push_str("</div>\n<div class=\"legend\">");
    for (name, class, part) in named {
        let _ =
            write!(page, "<span><i class=\"{class}\"></i>{name} {} ({})</span>", seconds(part), share(part / total));
    }
    page.push_str("</div>\n");
}
