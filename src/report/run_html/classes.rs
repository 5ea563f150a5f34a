//! What a run came to class by class: values of each class, and which are taken for which.

use super::log::Epoch;
use super::numbers::{number, share};
use super::record::RunRecord;
use crate::report::human::{grouped, plural};
use crate::report::page::escape;
use std::fmt::Write;

/// The most classes in the table, those of which all pairs are shown, and pairs that are listed.
const CLASSES: usize = 200;
const MATRIX: usize = 30;
const PAIRS: usize = 20;
/// The most values of a class.
const VALUES: usize = 12;

/// Appends the section, where the last epoch tells of classes.
pub(super) fn section(page: &mut String, run: &RunRecord) {
    let Some(epoch) = run.log.epochs.iter().rev().find(|epoch| epoch.has_classes()) else { return };
    let _ = write!(
        page,
        "<section>\n<h2>Classes</h2>\n<p class=\"dim\">On the eval data after epoch {}.</p>\n",
        epoch.epoch
    );
    values(page, epoch);
    if !epoch.confusion.is_empty() {
        confusion(page, &epoch.confusion);
    }
    page.push_str("</section>\n");
}

fn values(page: &mut String, epoch: &Epoch) {
    let count = epoch.per_class.values().map(Vec::len).max().unwrap_or(0);
    if count == 0 {
        return;
    }
    page.push_str(
        "<div class=\"wide fit\" tabindex=\"0\" role=\"region\" aria-label=\"values of each class\">\n<table>\n<thead><tr>\
         <th scope=\"col\">class</th>",
    );
    for name in epoch.per_class.keys().take(VALUES) {
        let _ = write!(page, "<th scope=\"col\">{}</th>", escape(name));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for class in 0..count.min(CLASSES) {
        let _ = write!(page, "<tr><th scope=\"row\">{class}</th>");
        for values in epoch.per_class.values().take(VALUES) {
            let value = values.get(class).copied().flatten().map_or("-".into(), number);
            let _ = write!(page, "<td>{value}</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n</div>\n");
    if count > CLASSES {
        let _ =
            writeln!(page, "<p class=\"dim\">{} more classes are not shown.</p>", grouped((count - CLASSES) as u64));
    }
}

fn confusion(page: &mut String, rows: &[Vec<f64>]) {
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    if rows.len() <= MATRIX && width <= MATRIX {
        matrix(page, rows, width);
        return;
    }
    let mut pairs = Vec::new();
    for (class, row) in rows.iter().enumerate() {
        let all: f64 = row.iter().sum();
        let wrong = row.iter().enumerate().filter(|(taken, count)| *taken != class && **count > 0.0);
        pairs.extend(wrong.map(|(taken, count)| (class, taken, *count, count / all)));
    }
    let many = pairs.len();
    pairs.sort_by(|a, b| b.2.total_cmp(&a.2));
    let _ = write!(
        page,
        "<h3>Classes that are taken for others</h3>\n<p class=\"dim\">The {} most frequent of {}.</p>\n<div \
         class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"classes that are taken for others\">\n<table>\n<thead>\
         <tr><th scope=\"col\">class</th><th scope=\"col\">taken for</th><th scope=\"col\">samples</th><th scope=\"col\">of \
         the class</th></tr></thead>\n<tbody>\n",
        many.min(PAIRS),
        plural(many as u64, "pair")
    );
    for (class, taken, count, part) in pairs.into_iter().take(PAIRS) {
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\">{class}</th><td>{taken}</td><td>{}</td><td>{}</td></tr>",
            samples(count),
            share(part)
        );
    }
    page.push_str("</tbody>\n</table>\n</div>\n");
}

fn matrix(page: &mut String, rows: &[Vec<f64>], width: usize) {
    page.push_str(
        "<h3>Confusion</h3>\n<p class=\"dim\">Samples by class, a row each, and by predicted class. Shades: share of the \
         row.</p>\n<div class=\"wide all fit\" tabindex=\"0\" role=\"region\" aria-label=\"confusion matrix\">\n<table \
         class=\"matrix\">\n<thead><tr><th scope=\"col\">class</th>",
    );
    for class in 0..width {
        let _ = write!(page, "<th scope=\"col\">{class}</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for (class, row) in rows.iter().enumerate() {
        let _ = write!(page, "<tr><th scope=\"row\">{class}</th>");
        let all: f64 = row.iter().sum();
        for taken in 0..width {
            let count = row.get(taken).copied().unwrap_or(0.0);
            let part = if all > 0.0 { (count / all).clamp(0.0, 1.0) } else { 0.0 };
            let kind = if class == taken { "right" } else { "wrong" };
            let _ = match count == 0.0 {
                true => write!(page, "<td class=\"dim\">0</td>"),
                false => write!(
                    page,
                    "<td class=\"{kind}\" style=\"--part:{:.0}%\">{}</td>",
                    8.0 + 37.0 * part,
                    samples(count)
                ),
            };
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n</div>\n");
}

fn samples(count: f64) -> String {
    let whole = count.is_finite() && count.fract() == 0.0 && (0.0..1e15).contains(&count);
    if whole { grouped(count as u64) } else { number(count) }
}
