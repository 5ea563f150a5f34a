//! What an adaptive policy saw: for each signal its range over the units, measurement by measurement.

use super::numbers::{number, seconds as time};
use crate::plan::{FreezePlan, Signal};
use crate::report::human::{plural, unit_name};
use crate::report::page::escape;
use crate::runner::RunEvent;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The most measurements of a signal that are shown; of more, the last ones.
const MOST: usize = 100;

/// After a number of steps, a value for each unit.
type Measurement<'a> = (usize, &'a Vec<Option<f64>>);

/// Appends the section, where anything was measured. Units are named by the plan, where there is one.
pub(super) fn section(page: &mut String, plan: Option<&FreezePlan>, events: &[RunEvent]) {
    let mut series: BTreeMap<Signal, Vec<Measurement<'_>>> = BTreeMap::new();
    let mut taken = 0.0;
    for event in events {
        if let RunEvent::Observation { step, signals, seconds } = event {
            taken += seconds;
            signals.iter().for_each(|(signal, values)| series.entry(*signal).or_default().push((*step, values)));
        }
    }
    if series.is_empty() && taken <= 0.0 {
        return;
    }
    let _ = write!(
        page,
        "<section>\n<h2>Measurements</h2>\n<p class=\"dim\">What the policy decided by. They took {} in all, beside the \
         steps.</p>\n",
        time(taken)
    );
    for (signal, rows) in series {
        let name = serde_json::to_value(signal).ok().and_then(|name| name.as_str().map(String::from));
        let name = escape(&name.unwrap_or_default());
        let _ = write!(
            page,
            "<details>\n<summary>{name}, {}</summary>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" \
             aria-label=\"{name}\">\n<table>\n<thead><tr><th scope=\"col\">after step</th><th scope=\"col\">units</th>\
             <th scope=\"col\">lowest</th><th scope=\"col\" class=\"path\">of</th><th scope=\"col\">median</th>\
             <th scope=\"col\">highest</th><th scope=\"col\" class=\"path\">of</th></tr></thead>\n<tbody>\n",
            plural(rows.len() as u64, "measurement")
        );
        let hidden = rows.len().saturating_sub(MOST);
        for (step, values) in rows.iter().skip(hidden) {
            row(page, plan, *step, values);
        }
        page.push_str("</tbody>\n</table>\n</div>\n");
        if hidden > 0 {
            let _ = writeln!(page, "<p class=\"dim\">{} before these.</p>", plural(hidden as u64, "measurement"));
        }
        page.push_str("</details>\n");
    }
    page.push_str("</section>\n");
}

fn row(page: &mut String, plan: Option<&FreezePlan>, step: usize, values: &[Option<f64>]) {
    let mut known: Vec<(f64, usize)> =
        values.iter().enumerate().filter_map(|(unit, value)| Some(((*value)?, unit))).collect();
    known.sort_by(|a, b| a.0.total_cmp(&b.0));
    let unit = |index: usize| {
        let unit = plan.and_then(|plan| plan.units.get(index));
        unit.map_or_else(|| format!("unit {}", index + 1), |unit| unit_name(&unit.path))
    };
    let _ = write!(page, "<tr><th scope=\"row\">{step}</th><td>{}</td>", known.len());
    let _ = match (known.first(), known.get(known.len() / 2), known.last()) {
        (Some(low), Some(middle), Some(high)) => writeln!(
            page,
            "<td>{}</td><td class=\"path\">{}</td><td>{}</td><td>{}</td><td class=\"path\">{}</td></tr>",
            number(low.0),
            escape(&unit(low.1)),
            number(middle.0),
            number(high.0),
            escape(&unit(high.1)),
        ),
        _ => writeln!(page, "<td colspan=\"5\"></td></tr>"),
    };
}
