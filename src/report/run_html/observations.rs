//! What an adaptive policy saw: for each signal its range over the units, measurement by measurement.

use crate::plan::{FreezePlan, Signal};
use crate::report::human::{plural, unit_name};
use crate::report::page::escape;
use crate::runner::{RunEvent, Timed};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The most measurements of a signal that are shown; of more, the last ones.
const MOST: usize = 100;

/// After a number of steps, a value for each unit.
type Measurement<'a> = (usize, &'a Vec<Option<f64>>);

/// Appends the section, where anything was measured.
pub(super) fn section(body: &mut String, plan: &FreezePlan, events: &[Timed]) {
    let mut series: BTreeMap<Signal, Vec<Measurement<'_>>> = BTreeMap::new();
    let mut taken = 0.0;
    for timed in events {
        if let RunEvent::Observation { step, signals, seconds } = &timed.event {
            taken += seconds;
            signals.iter().for_each(|(signal, values)| series.entry(*signal).or_default().push((*step, values)));
        }
    }
    if taken > 0.0 {
        let _ = write!(body, "<h2>Measurements</h2><p>They took {taken:.2} s in all, beside the steps.</p>");
    }
    for (signal, rows) in series {
        let name = serde_json::to_value(signal).ok().and_then(|name| name.as_str().map(String::from));
        let _ = write!(
            body,
            "<h2>Measured: {}</h2><div class=\"wide\"><table><tr><th>after step</th><th>units</th><th>lowest</th>\
             <th class=\"left\">of</th><th>median</th><th>highest</th><th class=\"left\">of</th></tr>",
            escape(&name.unwrap_or_default())
        );
        let hidden = rows.len().saturating_sub(MOST);
        for (step, values) in rows.iter().skip(hidden) {
            row(body, plan, *step, values);
        }
        body.push_str("</table></div>");
        if hidden > 0 {
            let _ = write!(body, "<p class=\"dim\">{} before these.</p>", plural(hidden as u64, "measurement"));
        }
    }
}

fn row(body: &mut String, plan: &FreezePlan, step: usize, values: &[Option<f64>]) {
    let mut known: Vec<(f64, usize)> =
        values.iter().enumerate().filter_map(|(unit, value)| Some(((*value)?, unit))).collect();
    known.sort_by(|a, b| a.0.total_cmp(&b.0));
    let unit = |index: usize| plan.units.get(index).map_or(index.to_string(), |unit| unit_name(&unit.path));
    match (known.first(), known.get(known.len() / 2), known.last()) {
        (Some(low), Some(middle), Some(high)) => {
            let _ = write!(
                body,
                "<tr><td>{step}</td><td>{}</td><td>{}</td><td class=\"left\">{}</td><td>{}</td><td>{}</td>\
                 <td class=\"left\">{}</td></tr>",
                known.len(),
                number(low.0),
                escape(&unit(low.1)),
                number(middle.0),
                number(high.0),
                escape(&unit(high.1)),
            );
        }
        _ => {
            let _ = write!(body, "<tr><td>{step}</td><td>0</td><td colspan=\"5\"></td></tr>");
        }
    }
}

fn number(value: f64) -> String {
    if value == 0.0 || (1e-3..1e6).contains(&value.abs()) { format!("{value:.4}") } else { format!("{value:.3e}") }
}
