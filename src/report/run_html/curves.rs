//! The curves of one run or of several: losses, metrics, learning rate, and what they took.

use super::log::{Epoch, Step};
use super::numbers::Form;
use super::plot::{From, Line, Plot};
use super::record::{RunRecord, less_is_better};
use crate::report::human::grouped;
use crate::report::page::escape;
use std::fmt::Write;

/// The most metrics that get a chart.
const MOST: usize = 24;

/// A run and the number of its look.
pub(super) type Numbered<'a> = (usize, &'a RunRecord);

/// Appends the section with losses, metrics and the learning rate.
pub(super) fn section(page: &mut String, runs: &[Numbered<'_>]) {
    let mut plots =
        vec![by_step("Training loss", "mean of the step's batches", Form::Plain, From::Wide, runs, |step| step.loss)];
    let train = |epoch: &Epoch| Some(epoch.train_loss);
    let eval = |epoch: &Epoch| epoch.metrics.get("loss").copied();
    match runs {
        [(_, run)] => {
            let mut lines = vec![line(0, "train", run, train), line(1, "eval", run, eval)];
            lines.retain(|line| line.points.iter().any(|point| point.1.is_finite()));
            let about = "train: mean over the epoch's samples as it trained";
            plots.push(Plot { from: From::Wide, ..plot("Loss", about, Form::Plain, lines) });
        }
        _ => {
            plots.push(by_epoch(
                "Training loss",
                "mean over the epoch's samples",
                Form::Plain,
                From::Wide,
                runs,
                train,
            ));
            plots.push(by_epoch("Eval loss", "after each epoch", Form::Plain, From::Wide, runs, eval));
        }
    }
    let names = names(runs);
    for name in names.iter().take(MOST) {
        let value = |epoch: &Epoch| epoch.metrics.get(name.as_str()).copied();
        plots.push(by_epoch(
            &format!("Eval {name}"),
            "after each epoch",
            Form::of_metric(name),
            From::Lowest,
            runs,
            value,
        ));
    }
    plots.push(by_step("Learning rate", "of the update", Form::Plain, From::Zero, runs, |step| step.lr));
    if plots.iter().all(|plot| !plot.has_values()) {
        return;
    }
    page.push_str("<section>\n<h2>Learning</h2>\n<div class=\"charts\">\n");
    plots.iter().for_each(|plot| plot.draw(page));
    page.push_str("</div>\n");
    if names.len() > MOST {
        let more = grouped((names.len() - MOST) as u64);
        let _ = writeln!(page, "<p class=\"dim\">{more} more metrics have no chart.</p>");
    }
    if let [(_, run)] = runs {
        steps(page, run);
    }
    page.push_str("</section>\n");
}

/// Returns where the scale of a metric begins.
pub(super) fn scale_of(metric: &str) -> From {
    if less_is_better(metric) { From::Wide } else { From::Lowest }
}

/// Returns the names of the metrics beside the loss.
pub(super) fn names(runs: &[Numbered<'_>]) -> Vec<String> {
    let mut names = Vec::new();
    for name in runs.iter().flat_map(|(_, run)| run.metrics()) {
        if name != "loss" && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Returns a chart of a number of each logged step.
pub(super) fn by_step(
    title: &str,
    about: &str,
    form: Form,
    from: From,
    runs: &[Numbered<'_>],
    value: impl Fn(&Step) -> f64,
) -> Plot {
    let point = |step: &Step| (step.step as f64, value(step));
    let line = |(look, run): &Numbered<'_>| Line {
        look: *look,
        name: run.label.clone(),
        points: told(run.log.steps.iter().map(point)),
        undone: run.log.undone.iter().map(|piece| told(piece.iter().map(point))).collect(),
    };
    let marks = match runs {
        [(_, run)] => {
            run.log.phases.iter().skip(1).map(|row| row.from_step as f64).filter(|step| *step > 0.0).collect()
        }
        _ => Vec::new(),
    };
    let lines = runs.iter().map(line).collect();
    Plot { title: title.into(), about: about.into(), over: "step", form, from, numbered: runs.len() > 1, lines, marks }
}

/// Returns a chart of a number of each epoch that has it.
pub(super) fn by_epoch(
    title: &str,
    about: &str,
    form: Form,
    from: From,
    runs: &[Numbered<'_>],
    value: impl Fn(&Epoch) -> Option<f64>,
) -> Plot {
    let lines = runs.iter().map(|(look, run)| line(*look, &run.label, run, &value)).collect();
    Plot { from, numbered: runs.len() > 1, ..plot(title, about, form, lines) }
}

/// Returns a chart over epochs.
pub(super) fn plot(title: &str, about: &str, form: Form, lines: Vec<Line>) -> Plot {
    Plot {
        title: title.into(),
        about: about.into(),
        over: "epoch",
        form,
        from: From::Lowest,
        numbered: false,
        lines,
        marks: Vec::new(),
    }
}

/// Returns a curve over the epochs of a run that have a value.
pub(super) fn line(look: usize, name: &str, run: &RunRecord, value: impl Fn(&Epoch) -> Option<f64>) -> Line {
    let point = |epoch: &Epoch| Some((epoch.epoch as f64, value(epoch)?));
    let mut undone: Vec<Vec<(f64, f64)>> = Vec::new();
    for piece in run.log.undone_epochs.chunk_by(|a, b| a.epoch < b.epoch) {
        undone.push(told(piece.iter().filter_map(point)));
    }
    Line { look, name: name.into(), points: told(run.log.epochs.iter().filter_map(point)), undone }
}

/// Returns the points; nothing where none has a value, as where it was not recorded.
fn told(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let points: Vec<(f64, f64)> = points.collect();
    if points.iter().all(|point| point.1.is_nan()) { Vec::new() } else { points }
}

/// The logged steps as a table, for those who do not see the curves.
fn steps(page: &mut String, run: &RunRecord) {
    const ROWS: usize = 50;
    let steps = &run.log.steps;
    if steps.is_empty() {
        return;
    }
    let shown = super::series::spaced(steps.len(), ROWS);
    let about = if shown.len() == steps.len() {
        format!("All {} logged steps", grouped(steps.len() as u64))
    } else {
        format!("{} of {} logged steps", shown.len(), grouped(steps.len() as u64))
    };
    let _ = write!(
        page,
        "<details>\n<summary>{about} as a table</summary>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" \
         aria-label=\"steps\">\n<table>\n<thead><tr><th scope=\"col\">step</th><th scope=\"col\">training loss</th>\
         <th scope=\"col\">learning rate</th><th scope=\"col\">took</th></tr></thead>\n<tbody>\n"
    );
    for step in shown.into_iter().filter_map(|index| steps.get(index)) {
        let lr = if step.lr.is_nan() { "-".into() } else { Form::Plain.show(step.lr) };
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
            step.step,
            escape(&Form::Plain.show(step.loss)),
            escape(&lr),
            super::numbers::seconds(step.seconds)
        );
    }
    page.push_str("</tbody>\n</table>\n</div>\n</details>\n");
}
