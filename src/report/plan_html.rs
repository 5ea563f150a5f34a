//! A plan as one self-contained HTML page: no script, nothing fetched.

use super::human::{Run, bytes, flops, freezes, plural, policy, runs, saving, short, unit_name};
use super::page::{escape, head};
use crate::plan::{FreezePlan, PlannedUnit};
use std::collections::HashSet;

/// Returns the page: the model, what the plan saves, a grid of units by epochs, one row per run of
/// epochs with the same frozen set, and one row per unit.
pub fn plan_html(plan: &FreezePlan) -> String {
    let runs = runs(plan);
    let title = escape(&format!("Freeze plan of {}", plan.model.file));
    let mut page = head(&title);
    let facts = format!(
        "opset {}, written by {}; {}, {} ({})",
        plan.model.opset,
        if plan.model.exporter.is_empty() { "an unnamed exporter" } else { &plan.model.exporter },
        plural(plan.units.len() as u64, "unit"),
        plural(plan.model.parameters, "parameter"),
        bytes(plan.model.bytes),
    );
    page +=
        &format!("<p class=\"dim\">{}</p>\n<p class=\"dim\">Policy {}</p>\n", escape(&facts), escape(&policy(plan)));
    page += &format!("<p><b>{}</b></p>\n", escape(&saving(plan)));
    for note in &plan.summary.notes {
        page += &format!("<p class=\"note\">{}</p>\n", escape(note));
    }
    page += "<h2>Units by epochs</h2>\n<p class=\"dim\">\
             <span class=\"key\" style=\"background:var(--train);margin-left:0\"></span>trains\
             <span class=\"key\" style=\"background:var(--frozen)\"></span>frozen\
             <span class=\"key\" style=\"background:var(--part)\"></span>frozen in part</p>\n";
    page += &chart(plan, &runs);
    page += "<h2>Epochs</h2>\n";
    page += &epochs_table(plan, &runs);
    page += "<h2>Units</h2>\n";
    page += &units_table(plan, &runs);
    page += "</html>\n";
    page
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cell {
    Trains,
    Part,
    Frozen,
}

fn cell(unit: &PlannedUnit, run: &HashSet<&str>) -> Cell {
    match unit.parameters.iter().filter(|name| run.contains(name.as_str())).count() {
        0 => Cell::Trains,
        count if count == unit.parameters.len() => Cell::Frozen,
        _ => Cell::Part,
    }
}

fn chart(plan: &FreezePlan, runs: &[Run<'_>]) -> String {
    const LEFT: f64 = 230.0;
    const WIDTH: f64 = 690.0;
    const TOP: f64 = 18.0;
    let (units, epochs) = (plan.units.len(), plan.epochs.len());
    if units == 0 || epochs == 0 {
        return String::new();
    }
    let row = (520.0 / units as f64).clamp(4.0, 18.0);
    let column = WIDTH / epochs as f64;
    let height = row * units as f64;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {} {:.0}\" role=\"img\" aria-label=\"units by epochs\">\n\
         <rect class=\"train\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{WIDTH}\" height=\"{height:.1}\"/>\n",
        LEFT + WIDTH + 10.0,
        TOP + height + 6.0
    );
    let every = epochs.div_ceil(20);
    for epoch in (1..=epochs).filter(|epoch| (epoch - 1) % every == 0) {
        let x = LEFT + (epoch as f64 - 0.5) * column;
        svg += &format!("<text x=\"{x:.1}\" y=\"12\" text-anchor=\"middle\">{epoch}</text>\n");
    }
    let sets: Vec<_> =
        runs.iter().map(|run| run.first().frozen.iter().map(String::as_str).collect::<HashSet<_>>()).collect();
    let label_every = (12.0 / row).ceil() as usize;
    for (index, unit) in plan.units.iter().enumerate() {
        let y = TOP + index as f64 * row;
        if index % label_every == 0 {
            let baseline = y + row.min(18.0) / 2.0 + 4.0;
            let label = escape(&shortened(&unit_name(&unit.path)));
            svg += &format!("<text x=\"{}\" y=\"{baseline:.1}\" text-anchor=\"end\">{label}</text>\n", LEFT - 6.0);
        }
        let cells: Vec<(Cell, &Run<'_>)> = runs.iter().zip(&sets).map(|(run, set)| (cell(unit, set), run)).collect();
        for group in cells.chunk_by(|a, b| a.0 == b.0) {
            let [(kind, first), ..] = group else { continue };
            let class = match kind {
                Cell::Trains => continue,
                Cell::Part => "part",
                Cell::Frozen => "frozen",
            };
            let from = first.first().epoch;
            let count: usize = group.iter().map(|(_, run)| run.epochs.len()).sum();
            svg += &format!(
                "<rect class=\"{class}\" x=\"{:.2}\" y=\"{y:.2}\" width=\"{:.2}\" height=\"{:.2}\"><title>{}: epochs {from} to {}</title></rect>\n",
                LEFT + (from - 1) as f64 * column,
                count as f64 * column,
                row,
                escape(&unit_name(&unit.path)),
                from + count - 1
            );
        }
    }
    for line in (1..units).filter(|_| row >= 8.0) {
        let y = TOP + line as f64 * row;
        svg += &format!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\n", LEFT + WIDTH);
    }
    for line in (1..epochs).filter(|_| column >= 8.0) {
        let x = LEFT + line as f64 * column;
        svg += &format!("<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\n", TOP + height);
    }
    svg + "</svg>\n"
}

/// Returns the end of a path that fits beside the chart.
fn shortened(path: &str) -> String {
    const MOST: usize = 36;
    let length = path.chars().count();
    if length <= MOST { path.into() } else { format!("..{}", path.chars().skip(length - MOST + 2).collect::<String>()) }
}

fn epochs_table(plan: &FreezePlan, runs: &[Run<'_>]) -> String {
    let mut rows = Vec::new();
    for run in runs {
        let first = run.first();
        rows.push(vec![
            run.numbers(),
            format!("{} of {}", first.frozen_units, plan.units.len()),
            run.newly.map_or("-".into(), |unit| unit_name(&unit.path)),
            run.fractions(),
            format!("{:.1} %", 100.0 * first.predicted.step_cost),
            flops(first.predicted.backward_flops),
            bytes(first.predicted.state_bytes),
        ]);
    }
    let header =
        ["Epochs", "Frozen units", "Freezes up to", "Fraction", "Step cost", "Backward", "Gradients, optimizer"];
    table(&header, &rows, &["", "", "path"])
}

fn units_table(plan: &FreezePlan, runs: &[Run<'_>]) -> String {
    let mut rows = Vec::new();
    for (unit, freezes) in plan.units.iter().zip(freezes(plan, runs)) {
        rows.push(vec![
            unit.index.to_string(),
            unit_name(&unit.path),
            unit.class.clone(),
            short(unit.elements),
            flops(unit.flops.forward),
            flops(unit.flops.input_grad),
            flops(unit.flops.weight_grad),
            freezes,
        ]);
    }
    let header = ["Unit", "Path", "Class", "Elements", "Forward", "Input grad", "Weight grad", "Freezes"];
    table(&header, &rows, &["", "path", "left"])
}

/// Returns a table whose columns have `classes`, the later ones none.
fn table(header: &[&str], rows: &[Vec<String>], classes: &[&str]) -> String {
    let mut html = String::from("<div class=\"wide\"><table>\n<tr>");
    let class = |column: usize| match classes.get(column) {
        None | Some(&"") => String::new(),
        Some(class) => format!(" class=\"{class}\""),
    };
    for (column, name) in header.iter().enumerate() {
        html += &format!("<th{}>{name}</th>", class(column));
    }
    html += "</tr>\n";
    for row in rows {
        html += "<tr>";
        for (column, text) in row.iter().enumerate() {
            html += &format!("<td{}>{}</td>", class(column), escape(text));
        }
        html += "</tr>\n";
    }
    html + "</table></div>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{chain, six_units};
    use crate::plan::{PlanOptions, build};

    #[test]
    fn the_page_is_self_contained_and_escaped() {
        let mut model = six_units();
        model.units[0].path = "<script>alert(\"&\")</script>".into();
        let plan = build(&model.inputs(10), &PlanOptions::default()).unwrap();
        let page = plan_html(&plan);
        for forbidden in ["<script", "http:", "https:", "src=", "href=", "url("] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        assert!(page.contains("&lt;script&gt;alert(&quot;&amp;&quot;)&lt;/script&gt;"));
        assert!(page.contains("<title>Freeze plan of small.onnx</title>"));
    }

    #[test]
    fn a_unit_has_one_bar_per_run_of_frozen_epochs() {
        let options = PlanOptions { keep: vec!["u1".into()], ..PlanOptions::default() };
        let page = plan_html(&build(&chain(6).inputs(10), &options).unwrap());
        assert_eq!(page.matches("<rect class=\"frozen\"").count(), 3);
        assert!(page.contains("<title>u0: epochs 8 to 10</title>"), "{page}");
        assert!(!page.contains("<title>u1:"));
    }

    #[test]
    fn a_model_without_units_has_a_page() {
        let page = plan_html(&build(&chain(0).inputs(1), &PlanOptions::default()).unwrap());
        assert!(page.contains("the model has no parameters that could be frozen") && !page.contains("<svg"));
    }
}
