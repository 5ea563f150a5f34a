//! Runs as one self-contained HTML page: nothing fetched, readable without its script.

mod classes;
mod curves;
mod decisions;
mod frozen;
mod log;
mod numbers;
mod observations;
mod phases;
mod plot;
mod record;
mod scale;
mod series;
mod several;
mod speed;
mod summary;
mod tables;
#[cfg(test)]
mod tests;

pub use log::RunLog;
pub use record::RunRecord;

use super::compare::OWN_STYLE as COMPARE_STYLE;
use super::page::escape;
use super::plan_html::{SCRIPT as PLAN_SCRIPT, STYLE as PLAN_STYLE};
use std::fmt::Write;

const STYLE: &str = include_str!("run_html/page.css");
const SCRIPT: &str = include_str!("run_html/page.js");

/// Returns the page of a run: how far it is and what it came to, its curves, what was frozen when, time and memory
/// beside what was predicted, environment and settings. Of several runs, returns the page that compares them.
pub fn run_html(runs: &[RunRecord]) -> String {
    let mut page = match runs {
        [run] => single(run),
        runs => several::page(runs),
    };
    page.push_str(
        "<footer class=\"dim\">\n<p>Metrics are those of the eval data. Times are by the clock of the machine that ran; flops are \
         counted on the graph.</p>\n</footer>\n</main>\n",
    );
    let tree = if runs.len() == 1 { PLAN_SCRIPT } else { "" };
    let _ = write!(page, "<script>{tree}{SCRIPT}</script>\n</body>\n</html>\n");
    page
}

fn single(run: &RunRecord) -> String {
    let model = run.model().unwrap_or_else(|| run.label.clone());
    let mut page = opened(&escape(&format!("Run of {model}")));
    let _ = write!(
        page,
        "<header>\n<p class=\"kicker\">Training run</p>\n<h1>{}</h1>\n<p class=\"dim\">{}</p>\n</header>\n",
        escape(&model),
        escape(&run.label)
    );
    summary::section(&mut page, run);
    curves::section(&mut page, &[(0, run)]);
    frozen::section(&mut page, run);
    speed::section(&mut page, &[(0, run)]);
    phases::section(&mut page, &run.log);
    decisions::section(&mut page, &run.log.events);
    observations::section(&mut page, run.plan.as_ref(), &run.log.events);
    classes::section(&mut page, run);
    tables::epochs(&mut page, run);
    tables::checkpoints(&mut page, run);
    tables::setting(&mut page, run);
    page
}

/// Returns the start of a page. `title` is escaped already.
fn opened(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>{title}</title>\n<style>{PLAN_STYLE}{COMPARE_STYLE}{STYLE}</style>\n</head>\n<body>\n<main>\n"
    )
}
