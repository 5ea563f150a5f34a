//! The head of a run's page: how far it is, what it came to, and what a reader must know.

use super::numbers::{Form, number, seconds, share, size};
use super::record::{RunRecord, State};
use crate::report::human::{grouped, plural};
use crate::report::page::escape;
use std::fmt::Write;

/// The most notes.
const MOST: usize = 60;

/// Appends the head.
pub(super) fn section(page: &mut String, run: &RunRecord) {
    let class = match run.state() {
        State::Failed(_) => "verdict no",
        State::Done => "verdict",
        _ => "verdict open",
    };
    let _ = writeln!(page, "<p class=\"{class}\">{}</p>", escape(&told(run)));
    page.push_str("<dl class=\"figures\">\n");
    for (name, value, note) in figures(run) {
        let _ = writeln!(
            page,
            "<div><dt>{}</dt><dd>{}</dd><dd class=\"dim\">{}</dd></div>",
            escape(&name),
            escape(&value),
            escape(&note)
        );
    }
    page.push_str("</dl>\n");
    let notes = notes(run);
    if !notes.is_empty() {
        page.push_str("<section>\n<h2>Warnings and notes</h2>\n<ul class=\"notes\">\n");
        for note in notes.iter().take(MOST) {
            let _ = writeln!(page, "<li>{}</li>", escape(note));
        }
        page.push_str("</ul>\n");
        if notes.len() > MOST {
            let _ = writeln!(page, "<p class=\"dim\">{} more are not shown.</p>", notes.len() - MOST);
        }
        page.push_str("</section>\n");
    }
}

/// Returns the state of a run in a few words.
pub(super) fn state(run: &RunRecord) -> String {
    match run.state() {
        State::Done => "done".into(),
        State::Stopped => "stopped".into(),
        State::Failed(_) => "failed".into(),
        State::Open => "no end recorded".into(),
        State::Other(status) => status,
    }
}

/// Returns how far a run is, in sentences.
fn told(run: &RunRecord) -> String {
    let step = run.log.last_step();
    let of = |all: Option<usize>| all.map_or(String::new(), |all| format!(" of {}", grouped(all as u64)));
    let (epochs, steps) = run.length().unzip();
    let place = match (step, run.log.epochs.last()) {
        (0, None) => "before its first logged step".to_string(),
        (step, None) => format!("after step {}{}, in its first epoch", grouped(step as u64), of(steps)),
        (0, Some(last)) => format!("after epoch {}{}", last.epoch, of(epochs)),
        (step, Some(last)) => {
            let step = format!("step {}{}", grouped(step as u64), of(steps));
            format!("after epoch {}{} (last logged: {step})", last.epoch, of(epochs))
        }
    };
    let took = seconds(run.log.seconds());
    let mut text = match run.state() {
        State::Done if run.log.early.is_some() => format!("Done early {place}, in {took}."),
        State::Done => match (epochs, steps) {
            (Some(epochs), Some(steps)) => {
                format!("Done: {} with {} in {took}.", plural(epochs as u64, "epoch"), plural(steps as u64, "step"))
            }
            _ => format!("Done in {took}."),
        },
        State::Stopped => format!("Stopped as asked {place}, at work for {took}."),
        State::Failed(error) => format!("Failed {place}, at work for {took}: {error}."),
        State::Open => format!(
            "No end is recorded: the run is still going, or it was ended from outside. What is recorded ends {place}, \
             after {took} at work."
        ),
        State::Other(status) => format!("Ended as \"{status}\" {place}, at work for {took}."),
    };
    if let Some(stop) = &run.log.early {
        let since = stop.best_epoch.map_or(String::new(), |best| format!(" after epoch {best}"));
        let _ = write!(text, " It ended after epoch {} because {} did not get better{since}.", stop.epoch, stop.metric);
    }
    if let Some((measured, predicted)) = run.gain() {
        let what = match measured < 0.0 {
            true => format!("Freezing made the steps take {} longer", share(-measured)),
            false => format!("Freezing saved {} of the time of the steps", share(measured)),
        };
        let expected = match predicted < 0.0 {
            true => format!("{} more", share(-predicted)),
            false => format!("{} saved", share(predicted)),
        };
        let _ = write!(text, " {what}, phase changes included; predicted were {expected}.");
    }
    match run.log.resumes.as_slice() {
        [] => {}
        [(epoch, step)] => {
            let _ = write!(text, " It went on from a checkpoint once, at step {step} in epoch {epoch}.");
        }
        [.., (epoch, step)] => {
            let count = run.log.resumes.len();
            let _ = write!(text, " It went on from a checkpoint {count} times, last at step {step} in epoch {epoch}.");
        }
    }
    text
}

/// Returns the numbers that a person looks for first: name, value, note.
fn figures(run: &RunRecord) -> Vec<(String, String, String)> {
    let mut figures = Vec::new();
    let mut figure = |name: String, value: String, note: String| figures.push((name, value, note));
    let metric = run.main_metric();
    let names = metric.iter().map(String::as_str).chain(["loss"]).collect::<Vec<_>>();
    for (index, name) in names.iter().enumerate().filter(|(index, name)| *index == 0 || Some(*name) != names.first()) {
        let form = Form::of_metric(name);
        if let Some((epoch, best)) = run.best(name) {
            let last = run.last(name).map_or(String::new(), |last| format!(", last {}", form.show(last)));
            figure(format!("best eval {name}"), form.show(best), format!("epoch {epoch}{last}"));
        } else if let (0, Some(last)) = (index, run.last(name)) {
            figure(format!("eval {name}"), form.show(last), String::new());
        }
    }
    if let (None, Some(last)) = (metric, run.log.epochs.last()) {
        figure("training loss".into(), number(last.train_loss), format!("epoch {}", last.epoch));
    }
    let took: f64 = run.log.epochs.iter().map(|epoch| epoch.seconds).filter(|seconds| seconds.is_finite()).sum();
    let note = if took > 0.0 { format!("of it in steps {}", seconds(took)) } else { String::new() };
    figure("time".into(), seconds(run.log.seconds()), note);
    if let Some(rate) = run.samples_per_second() {
        figure("samples per second".into(), grouped(rate.round() as u64), "mean over the epochs".into());
    }
    if let Some(waiting) = run.waiting() {
        figure("waiting for data".into(), share(waiting), "of the time of the steps".into());
    }
    if let Some((frozen, units)) = run.frozen() {
        let of = units.map_or(String::new(), |units| format!("of {}, in the last phase", grouped(units as u64)));
        figure("units frozen".into(), grouped(frozen as u64), of);
    }
    if let Some(peak) = run.peak_bytes() {
        figure("peak memory".into(), size(peak), "resident, whole process".into());
    }
    if let Some(peak) = run.device_peak_bytes() {
        figure("peak device memory".into(), size(peak), "held by the engine".into());
    }
    if let Some(bytes) = run.estimated_bytes() {
        figure("memory, estimated".into(), size(bytes), "largest phase, without program and data".into());
    }
    figures
}

/// Returns warnings of the run and what could not be read.
pub(super) fn notes(run: &RunRecord) -> Vec<String> {
    let log = &run.log;
    let times = |count: usize| if count > 1 { format!(" ({count} times)") } else { String::new() };
    let mut notes: Vec<String> = log.warnings.iter().map(|(text, count)| format!("{text}{}", times(*count))).collect();
    if log.more_warnings > 0 {
        notes.push(format!("{} more", plural(log.more_warnings as u64, "warning")));
    }
    notes.extend(log.undefined.iter().map(|(name, reason)| format!("eval {name} is not defined: {reason}")));
    let undone: usize = log.undone.iter().map(Vec::len).sum();
    if undone > 0 {
        let steps = plural(undone as u64, "logged step");
        notes.push(format!("the run went back behind {steps}: they are pale in the curves and count for nothing else"));
    }
    notes.extend(run.problems.iter().cloned());
    notes
}
