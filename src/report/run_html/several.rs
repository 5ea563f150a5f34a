//! Runs beside each other: what each came to, what differs in how they were made, their curves on top of each other.

use super::curves::{self, Numbered, by_epoch};
use super::frozen;
use super::log::Epoch;
use super::numbers::{Form, seconds, share, size};
use super::plot::{From, Line, Plot};
use super::record::RunRecord;
use super::summary::{notes, state};
use super::tables::environment;
use super::{opened, speed};
use crate::report::compare::sample;
use crate::report::human::{grouped, plural};
use crate::report::page::escape;
use std::collections::BTreeSet;
use std::fmt::Write;

/// The most metrics in the table.
const METRICS: usize = 12;
/// The most notes of a run.
const NOTES: usize = 20;

/// Returns the page.
pub(super) fn page(runs: &[RunRecord]) -> String {
    let title = escape(&format!("{} runs compared", runs.len()));
    let mut page = opened(&title);
    let models: BTreeSet<String> = runs.iter().filter_map(RunRecord::model).collect();
    let of = models.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let _ = write!(
        page,
        "<header>\n<p class=\"kicker\">Training runs</p>\n<h1>{title}</h1>\n<p class=\"dim\">{}</p>\n</header>\n<ol class=\"plans\">\n",
        escape(&of)
    );
    for (index, run) in runs.iter().enumerate() {
        let _ = write!(page, "<li><b>{}</b>", index + 1);
        sample(&mut page, index);
        let _ = writeln!(
            page,
            "<span>{} <span class=\"dim\">{}</span></span></li>",
            escape(&run.label),
            escape(&state(run))
        );
    }
    page.push_str("</ol>\n");
    let numbered: Vec<Numbered<'_>> = runs.iter().enumerate().collect();
    results(&mut page, &numbered);
    differences(&mut page, &numbered);
    curves::section(&mut page, &numbered);
    over_time(&mut page, &numbered);
    speed::section(&mut page, &numbered);
    pictures(&mut page, &numbered);
    told(&mut page, &numbered);
    page
}

/// A table with a column for each run.
fn table(page: &mut String, name: &str, runs: &[Numbered<'_>], rows: &[(String, Vec<String>)]) {
    let _ = write!(
        page,
        "<div class=\"wide all\" tabindex=\"0\" role=\"region\" aria-label=\"{name}\">\n<table class=\"runs\">\n<thead><tr><th \
         scope=\"col\" class=\"path\"></th>"
    );
    for (index, run) in runs {
        let _ = write!(page, "<th scope=\"col\"><b>{}</b> {}</th>", index + 1, broken(&run.label));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for (name, cells) in rows {
        let _ = write!(page, "<tr><th scope=\"row\" class=\"path\">{}</th>", broken(name));
        for cell in cells {
            let _ = write!(page, "<td>{}</td>", broken(cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n</div>\n");
}

/// Returns the values of a setting, as short as they can be: paths without the folders that they share.
fn values(cells: Vec<Option<String>>) -> Vec<String> {
    let plain = |cell: Option<String>| cell.map(|cell| without_quotes(&cell));
    let cells: Vec<Option<String>> = cells.into_iter().map(plain).collect();
    let paths: Vec<&str> = cells.iter().flatten().map(String::as_str).collect();
    let shared = if paths.iter().all(|path| path.starts_with('/')) { shared_folders(&paths) } else { 0 };
    let short = |cell: String| match cell.get(shared..).filter(|_| shared > 1) {
        Some(rest) => format!("\u{2026}/{rest}"),
        None => cell,
    };
    cells.into_iter().map(|cell| cell.map_or_else(|| "-".into(), short)).collect()
}

/// Returns a setting as text; a path without `..`.
fn without_quotes(cell: &str) -> String {
    let text = cell.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(cell);
    if !text.starts_with('/') {
        return text.to_string();
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/').skip(1) {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    format!("/{}", parts.join("/"))
}

/// Returns the length of the folders, with a final `/`, that all paths begin with.
fn shared_folders(paths: &[&str]) -> usize {
    let Some(first) = paths.first() else { return 0 };
    let ends = first.match_indices('/').map(|(at, _)| at + 1);
    ends.take_while(|end| paths.iter().all(|path| path.get(..*end) == first.get(..*end))).last().unwrap_or(0)
}

/// Returns text with places where a line may break.
fn broken(text: &str) -> String {
    escape(text).replace('/', "/<wbr>").replace('.', ".<wbr>").replace('_', "_<wbr>")
}

/// What each run came to.
fn results(page: &mut String, runs: &[Numbered<'_>]) {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut row = |name: &str, cell: &dyn Fn(&RunRecord) -> Option<String>| {
        let cells: Vec<Option<String>> = runs.iter().map(|(_, run)| cell(run)).collect();
        if cells.iter().any(Option::is_some) {
            rows.push((name.to_string(), cells.into_iter().map(|cell| cell.unwrap_or_else(|| "-".into())).collect()));
        }
    };
    row("state", &|run| Some(state(run)));
    row("epochs", &|run| {
        let last = run.log.epochs.last().map_or(0, |epoch| epoch.epoch);
        Some(run.length().map_or(last.to_string(), |(all, _)| format!("{last} of {all}")))
    });
    for name in curves::names(runs).iter().map(String::as_str).take(METRICS - 1).chain(["loss"]) {
        let form = Form::of_metric(name);
        row(&format!("best eval {name}"), &|run| {
            run.best(name).map(|(epoch, best)| format!("{} (epoch {epoch})", form.show(best)))
        });
        row(&format!("final eval {name}"), &|run| run.last(name).map(|last| form.show(last)));
    }
    row("final training loss", &|run| {
        let last = run.log.epochs.last().map(|epoch| epoch.train_loss).filter(|loss| !loss.is_nan())?;
        Some(Form::Plain.show(last))
    });
    row("total time", &|run| Some(seconds(run.log.seconds())));
    row("time of the epochs' steps", &|run| {
        let took: f64 = run.log.epochs.iter().map(|epoch| epoch.seconds).filter(|seconds| seconds.is_finite()).sum();
        (took > 0.0).then(|| seconds(took))
    });
    row("samples per second", &|run| Some(grouped(run.samples_per_second()?.round() as u64)));
    row("saved by freezing, measured", &|run| Some(share(run.gain()?.0)));
    row("saved by freezing, predicted", &|run| Some(share(run.gain()?.1)));
    row("units frozen in the last phase", &|run| {
        let (frozen, all) = run.frozen()?;
        Some(all.map_or(frozen.to_string(), |all| format!("{frozen} of {all}")))
    });
    row("waiting for data", &|run| Some(share(run.waiting()?)));
    row("peak memory", &|run| Some(size(run.peak_bytes()?)));
    row("peak device memory", &|run| Some(size(run.device_peak_bytes()?)));
    row("memory, estimated", &|run| Some(size(run.estimated_bytes()?)));
    page.push_str("<section>\n<h2>What each came to</h2>\n");
    table(page, "results", runs, &rows);
    page.push_str("</section>\n");
}

/// Settings and environment that are not the same in all runs.
fn differences(page: &mut String, runs: &[Numbered<'_>]) {
    let mut keys: BTreeSet<&str> = runs.iter().flat_map(|(_, run)| run.settings.keys().map(String::as_str)).collect();
    // It names the run.
    keys.remove("run.dir");
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    for key in keys {
        rows.push((key.to_string(), values(runs.iter().map(|(_, run)| run.settings.get(key).cloned()).collect())));
    }
    let environments: Vec<Vec<(&str, String)>> = runs.iter().map(|(_, run)| environment(run)).collect();
    let mut names: Vec<&str> = Vec::new();
    for name in environments.iter().flatten().map(|row| row.0) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        let cell = |rows: &Vec<(&str, String)>| {
            let value = rows.iter().find(|row| row.0 == name).map(|row| row.1.clone());
            let value = value.unwrap_or_else(|| "-".into());
            if name.ends_with("sha256") { value.chars().take(12).collect() } else { value }
        };
        rows.push((name.to_string(), environments.iter().map(cell).collect()));
    }
    rows.retain(|(_, cells)| cells.iter().any(|cell| Some(cell) != cells.first()));
    page.push_str("<section>\n<h2>What differs in how they were made</h2>\n");
    let without = runs.iter().filter(|(_, run)| run.settings.is_empty()).count();
    if rows.is_empty() {
        page.push_str("<p>Nothing that is recorded: job and environment are the same.</p>\n");
    } else {
        table(page, "differences", runs, &rows);
    }
    if without > 0 {
        let _ = writeln!(page, "<p class=\"dim\">Without settings: {}.</p>", plural(without as u64, "run"));
    }
    page.push_str("</section>\n");
}

/// Metrics over the time that the runs were at work.
fn over_time(page: &mut String, runs: &[Numbered<'_>]) {
    let mut names = curves::names(runs);
    names.truncate(METRICS - 1);
    names.insert(0, "loss".into());
    let plots = names.iter().map(|name| {
        let value = |epoch: &Epoch| (epoch.time, epoch.metrics.get(name.as_str()).copied().unwrap_or(f64::NAN));
        let line = |(look, run): &Numbered<'_>| {
            let mut points: Vec<(f64, f64)> = run.log.epochs.iter().map(value).collect();
            points.retain(|point| !point.1.is_nan());
            Line::new(*look, run.label.clone(), points)
        };
        Plot {
            title: format!("Eval {name}"),
            about: "by seconds at work".into(),
            over: "second",
            form: Form::of_metric(name),
            from: curves::scale_of(name),
            numbered: true,
            lines: runs.iter().map(line).collect(),
            marks: Vec::new(),
        }
    });
    let plots: Vec<Plot> = plots.filter(Plot::has_values).collect();
    if plots.is_empty() {
        return;
    }
    page.push_str("<section>\n<h2>Learning over time</h2>\n<div class=\"charts\">\n");
    plots.iter().for_each(|plot| plot.draw(page));
    page.push_str("</div>\n</section>\n");
}

/// What was frozen when.
fn pictures(page: &mut String, runs: &[Numbered<'_>]) {
    if runs.iter().all(|(_, run)| run.plan.is_none()) {
        return;
    }
    page.push_str(
        "<section>\n<h2>What was frozen when</h2>\n<p class=\"dim\">Units from the input side down, epochs from the left; \
         paler where a unit is frozen in a part of the epoch, grey where the run has not come to.</p>\n<div \
         class=\"charts\">\n",
    );
    let shares = |(look, run): &Numbered<'_>| {
        let points =
            frozen::shares(run).into_iter().enumerate().map(|(index, share)| ((index + 1) as f64, share)).collect();
        Line::new(*look, run.label.clone(), points)
    };
    let plot =
        by_epoch("Frozen", "share of the units, as far as the run came", Form::Percent, From::Zero, runs, |_| None);
    Plot { lines: runs.iter().map(shares).collect(), ..plot }.draw(page);
    page.push_str("</div>\n<div class=\"strips\">\n");
    for (index, run) in runs {
        frozen::picture(page, run, &format!("<b>{}</b> {}", index + 1, broken(&run.label)));
    }
    page.push_str("</div>\n</section>\n");
}

/// Warnings and notes of all runs.
fn told(page: &mut String, runs: &[Numbered<'_>]) {
    let told: Vec<(usize, Vec<String>)> = runs.iter().map(|(index, run)| (*index, notes(run))).collect();
    if told.iter().all(|(_, notes)| notes.is_empty()) {
        return;
    }
    page.push_str("<section>\n<h2>Warnings and notes</h2>\n<ul class=\"notes\">\n");
    for (index, notes) in told {
        for note in notes.iter().take(NOTES) {
            let _ = writeln!(page, "<li><span class=\"of\">{}</span> {}</li>", index + 1, escape(note));
        }
        if notes.len() > NOTES {
            let _ = writeln!(page, "<li><span class=\"of\">{}</span> {} more</li>", index + 1, notes.len() - NOTES);
        }
    }
    page.push_str("</ul>\n</section>\n");
}
