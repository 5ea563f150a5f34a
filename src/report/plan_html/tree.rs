//! The module tree: what each unit costs, and what remains of its backward pass in each epoch.

use super::chart::axis;
use super::rows::{Cell, Row, freezes, rows};
use crate::plan::FreezePlan;
use crate::report::human::{Run, flops, full, percent, plural, short, unit_name};
use crate::report::page::escape;
use std::fmt::Write;

/// Shades of the heat map.
const SHADES: u32 = 6;
/// Lines that a page shows before somebody opens a module, and how many it may be when that would
/// leave only a few.
const OPEN: usize = 80;
const MOST_OPEN: usize = 400;
const FEW: usize = 10;

/// What lengths and shades are relative to.
struct Scale<'a> {
    runs: &'a [Run<'a>],
    epochs: usize,
    /// Flops of a step with nothing frozen.
    step: u64,
    unit: Most,
    /// By depth.
    modules: Vec<Most>,
    /// Rows deeper than this are closed.
    open: usize,
}

/// The largest values among rows of one kind.
#[derive(Clone, Copy, Default)]
struct Most {
    total: u64,
    backward: u64,
}

impl Most {
    fn of(self, row: &Row) -> Most {
        Most { total: self.total.max(row.flops.total()), backward: self.backward.max(row.backward()) }
    }
}

/// Appends the section.
pub(in crate::report) fn section(page: &mut String, plan: &FreezePlan, runs: &[Run<'_>]) {
    let mut rows = rows(plan, runs);
    if rows.is_empty() || plan.epochs.is_empty() {
        return;
    }
    rows.extend(rest(plan, runs, &rows));
    let (mut unit, mut modules) = (Most::default(), Vec::new());
    rows.iter().for_each(|row| measure(row, 0, &mut unit, &mut modules));
    let counted = full(plan).map(|full| full.forward_flops.saturating_add(full.backward_flops));
    let step = counted.unwrap_or_else(|| rows.iter().fold(0, |sum, row| row.flops.total().saturating_add(sum))).max(1);
    let mut open = (0..16).take_while(|depth| lines_to(&rows, *depth) <= OPEN).last().unwrap_or(0);
    if lines_to(&rows, open) < FEW && lines_to(&rows, open + 1) <= MOST_OPEN {
        open += 1;
    }
    let scale = Scale { runs, epochs: plan.epochs.len(), step, unit, modules, open };
    page.push_str(
        "<section>\n<h2>Modules and epochs</h2>\n<p class=\"dim\">Each row is a module: its share of a full step, and in \
         colour what remains of its backward pass from epoch to epoch. Bars and shades compare modules of one depth, and units.</p>\n<div class=\"legend\">",
    );
    page.push_str("<span><i class=\"f\"></i>forward</span><span><i class=\"x\"></i>input gradients</span><span><i class=\"w\"></i>weight gradients</span></div>\n<div class=\"legend\"><span>backward left: ");
    for shade in 1..=SHADES {
        let _ = write!(page, "<i class=\"h{shade}\"></i>");
    }
    page.push_str(
        " little to most</span><span><i class=\"h4 held\"></i>frozen, a gradient still passes</span><span><i class=\"h0\">\
         </i>trains at no cost</span><span><i class=\"ice\"></i>frozen, nothing left</span></div>\n\
         <p class=\"tools\" hidden><label>Filter <input type=\"search\" placeholder=\"part of a path or class\" \
         autocomplete=\"off\"></label> <button type=\"button\" data-open=\"1\">Open all</button> <button type=\"button\" \
         data-open=\"\">Close all</button> <span class=\"found dim\" aria-live=\"polite\"></span></p>\n<div class=\"tree\">\n\
         <div class=\"row head\" aria-hidden=\"true\"><span class=\"name\">module</span><span>cost</span><span class=\"num\">share</span>",
    );
    page.push_str("<span class=\"over\">");
    axis(page, scale.epochs, "axis");
    page.push_str("</span><span class=\"when\">freezes</span></div>\n");
    for row in &rows {
        draw(page, row, 0, &scale);
    }
    page.push_str("</div>\n</section>\n");
}

/// Returns what no unit holds: operators of modules without parameters.
fn rest(plan: &FreezePlan, runs: &[Run<'_>], rows: &[Row]) -> Option<Row> {
    let full = full(plan)?;
    let sum = |value: fn(&Row) -> u64| rows.iter().map(value).fold(0, u64::saturating_add);
    let flops = crate::cost::Flops {
        forward: full.forward_flops.saturating_sub(sum(|row| row.flops.forward)),
        input_grad: full.input_grad_flops.saturating_sub(sum(|row| row.flops.input_grad)),
        weight_grad: full.weight_grad_flops.saturating_sub(sum(|row| row.flops.weight_grad)),
    };
    if flops.total() == 0 {
        return None;
    }
    let left = |(index, run): (usize, &Run<'_>)| {
        let held = rows.iter().filter_map(|row| row.cells.get(index)).map(|cell| cell.left);
        let left = run.first().predicted.backward_flops.saturating_sub(held.fold(0, u64::saturating_add));
        Cell { left, frozen: 0, all: 0 }
    };
    let cells = runs.iter().enumerate().map(left).collect();
    Some(Row { name: "(operators without parameters)".into(), flops, cells, ..Row::default() })
}

fn measure(row: &Row, depth: usize, unit: &mut Most, modules: &mut Vec<Most>) {
    if row.children.is_empty() {
        *unit = unit.of(row);
        return;
    }
    if modules.len() <= depth {
        modules.resize(depth + 1, Most::default());
    }
    if let Some(most) = modules.get_mut(depth) {
        *most = most.of(row);
    }
    row.children.iter().for_each(|child| measure(child, depth + 1, unit, modules));
}

/// Returns the lines that show when modules down to a depth are open.
fn lines_to(rows: &[Row], depth: usize) -> usize {
    if depth == 0 {
        return rows.len();
    }
    rows.iter().map(|row| 1 + lines_to(&row.children, depth - 1)).sum()
}

fn draw(page: &mut String, row: &Row, depth: usize, scale: &Scale<'_>) {
    let group = !row.children.is_empty();
    let most = if group { scale.modules.get(depth).copied().unwrap_or_default() } else { scale.unit };
    if group {
        let open = if depth < scale.open { " open" } else { "" };
        let _ = write!(page, "<details{open}><summary class=\"row\" style=\"--d:{depth}\">");
    } else {
        let _ = write!(
            page,
            "<div class=\"row\" style=\"--d:{depth}\" data-p=\"{} {}\">",
            escape(&row.path),
            escape(&row.class)
        );
    }
    let about = if group { plural(row.units as u64, "unit") } else { row.class.clone() };
    let title = format!("{}: {} parameters", unit_name(&row.path), short(row.elements));
    let _ = write!(
        page,
        "<span class=\"name\" title=\"{}\"><b>{}</b> <small>{}</small></span>",
        escape(&title),
        escape(&row.name),
        escape(&about)
    );
    bar(page, row, most.total);
    let share = row.flops.total() as f64 / scale.step as f64;
    let _ = write!(page, "<span class=\"num\">{}</span>", percent(share));
    strip(page, row, most.backward, scale);
    let when = if row.units == 0 { String::new() } else { freezes(row, scale.runs) };
    let _ = write!(page, "<span class=\"when\">{when}</span>");
    page.push_str(if group { "</summary>\n" } else { "</div>\n" });
    row.children.iter().for_each(|child| draw(page, child, depth + 1, scale));
    if group {
        page.push_str("</details>\n");
    }
}

/// The three parts of the cost, as long as they are.
fn bar(page: &mut String, row: &Row, most: u64) {
    let parts = [("f", row.flops.forward), ("x", row.flops.input_grad), ("w", row.flops.weight_grad)];
    let _ = write!(
        page,
        "<span class=\"bar\" title=\"forward {}, input gradients {}, weight gradients {}\">",
        flops(row.flops.forward),
        flops(row.flops.input_grad),
        flops(row.flops.weight_grad)
    );
    for (class, part) in parts {
        let width = part as f64 / most.max(1) as f64 * 100.0;
        if width >= 0.05 {
            let _ = write!(page, "<i class=\"{class}\" style=\"width:{width:.1}%\"></i>");
        }
    }
    page.push_str("</span>");
}

/// What remains of the backward pass, epoch by epoch.
fn strip(page: &mut String, row: &Row, most: u64, scale: &Scale<'_>) {
    let group = !row.children.is_empty();
    let shown = |cell: &Cell| (shade(cell, most, group), if group { 0 } else { cell.left });
    let cells: Vec<(&Cell, &Run<'_>)> = row.cells.iter().zip(scale.runs).collect();
    let first = row.cells.first().map_or(0, |cell| cell.left);
    let last = row.cells.last().map_or(0, |cell| cell.left);
    let _ = write!(
        page,
        "<span class=\"strip\" role=\"img\" aria-label=\"backward {} in the first epoch, {} in the last\">",
        flops(first),
        flops(last)
    );
    for same in cells.chunk_by(|a, b| shown(a.0) == shown(b.0)) {
        let ([(cell, from), ..], [.., (_, to)]) = (same, same) else { continue };
        let count: usize = same.iter().map(|(_, run)| run.stretches.len()).sum();
        let (from, to) = (from.first().epoch, to.last().epoch);
        let epochs = if from == to { format!("epoch {from}") } else { format!("epochs {from}-{to}") };
        let class = shade(cell, most, group);
        let _ =
            write!(page, "<i class=\"{class}\" style=\"flex:{count}\" title=\"{epochs}: {}\"></i>", flops(cell.left));
    }
    page.push_str("</span>");
}

fn shade(cell: &Cell, most: u64, group: bool) -> String {
    let frozen = cell.all > 0 && cell.frozen == cell.all;
    if cell.left == 0 {
        return if frozen || cell.all == 0 { "ice" } else { "h0" }.into();
    }
    let share = (cell.left as f64 / most.max(1) as f64).sqrt();
    let shade = ((share * f64::from(SHADES)).ceil() as u32).clamp(1, SHADES);
    let held = frozen || !group && cell.frozen > 0;
    format!("h{shade}{}", if held { " held" } else { "" })
}
