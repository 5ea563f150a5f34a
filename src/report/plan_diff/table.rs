//! A difference of plans in a terminal of 80 columns.

use super::{Changed, Freezes, PlanDiff, Stretch};
use crate::report::human::{bytes, clean, percent, plural, unit_name};
use crate::report::plan_table::{middle, render, wrap};
use serde_json::Value;
use std::fmt::Write as _;

/// The widest a value may be.
const VALUE: usize = 24;

/// Returns a difference as text of at most 80 columns: a table for each group of what differs.
pub fn diff_table(diff: &PlanDiff) -> String {
    let mut text = wrap(&format!("a: {}", clean(&diff.a))) + &wrap(&format!("b: {}", clean(&diff.b)));
    text.push('\n');
    if diff.same {
        return text + "nothing differs\n";
    }
    let start = text.len();
    let mut group = |title: &str, rows: &[Changed]| {
        if !rows.is_empty() {
            text += &fields(title, rows);
            text.push('\n');
        }
    };
    group("model", &diff.model);
    group("policy", &diff.policy);
    group("assumed", &diff.assumed);
    // Sentences say what the numbers do.
    let sentences = ["verdict", "notes"];
    let summary = diff.summary.iter().filter(|row| !sentences.contains(&row.name.as_str())).cloned();
    group("plan", &summary.collect::<Vec<_>>());
    group("job", &diff.job);
    if !diff.units.is_empty() {
        text += &units(&diff.units);
        text.push('\n');
    }
    if !diff.freezes.is_empty() {
        text += &freezes(&diff.freezes);
        text.push('\n');
    }
    if !diff.epochs.is_empty() {
        text += &epochs(&diff.epochs);
        text.push('\n');
    }
    if text.len() == start {
        text += "only sentences and costs of single units differ\n";
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

fn fields(title: &str, rows: &[Changed]) -> String {
    let value = |name: &str, value: &Value| {
        let text = match value {
            Value::Null => "-".into(),
            Value::String(text) => clean(text),
            Value::Number(number) if number.is_f64() => format!("{:.4}", number.as_f64().unwrap_or_default()),
            Value::Array(items) if items.len() > 3 => plural(items.len() as u64, "entry").replace("entrys", "entries"),
            value => clean(&value.to_string()),
        };
        match name {
            "sha256" => text.chars().take(12).collect(),
            _ => middle(&text, VALUE),
        }
    };
    let cells = |row: &Changed| vec![clean(&row.name), value(&row.name, &row.a), value(&row.name, &row.b)];
    render(&[title, "a", "b"], rows.iter().map(cells).collect(), &[0], &[0, 1, 2])
}

fn units(rows: &[Changed]) -> String {
    let what = |row: &Changed| match (&row.a, &row.b) {
        (Value::Null, _) => "only in b".to_string(),
        (_, Value::Null) => "only in a".to_string(),
        (a, b) => {
            let keys =
                ["index", "class", "parameters", "elements", "flops"].into_iter().filter(|key| a[*key] != b[*key]);
            format!("other {}", keys.collect::<Vec<_>>().join(", "))
        }
    };
    let mut merged: Vec<(String, String, usize)> = Vec::new();
    for row in rows {
        match merged.last_mut().filter(|last| last.1 == what(row)) {
            Some(last) => last.2 += 1,
            None => merged.push((unit_name(&row.name), what(row), 1)),
        }
    }
    let cells = |(path, what, count): (String, String, usize)| vec![path, more(count), what];
    render(&["units", "", ""], merged.into_iter().map(cells).collect(), &[0], &[0, 1, 2])
}

/// Returns how many stand behind the first of a row.
fn more(count: usize) -> String {
    if count > 1 { format!("and {} more", count - 1) } else { String::new() }
}

fn freezes(rows: &[Freezes]) -> String {
    let mut merged: Vec<(String, usize, &Freezes)> = Vec::new();
    for row in rows {
        let label = match (&row.unit, row.names.as_slice()) {
            (Some(unit), _) if row.whole => unit_name(unit),
            (_, [name, ..]) => clean(name),
            (_, []) => continue,
        };
        let count = if row.whole && row.unit.is_some() { 1 } else { row.names.len() };
        let alike = |last: &&mut (String, usize, &Freezes)| {
            row.whole
                && last.2.whole
                && (&last.2.a, &last.2.b) == (&row.a, &row.b)
                && last.2.unit.is_some() == row.unit.is_some()
        };
        match merged.last_mut().filter(alike) {
            Some(last) => last.1 += count,
            None => merged.push((label, count, row)),
        }
    }
    let epochs = |text: &str| if text.is_empty() { "never".to_string() } else { middle(text, 20) };
    let in_b = |row: &Freezes| match row.change {
        "too" => "only in b",
        "never" => "only in a",
        "earlier" => "b earlier",
        "later" => "b later",
        _ => "otherwise",
    };
    let cells = |(label, count, row): (String, usize, &Freezes)| {
        vec![label, more(count), epochs(&row.a), epochs(&row.b), in_b(row).to_string()]
    };
    render(&["frozen in epochs", "", "a", "b", ""], merged.into_iter().map(cells).collect(), &[0], &[0, 1, 2, 3, 4])
}

fn epochs(rows: &[Stretch]) -> String {
    let mut table = Vec::new();
    for row in rows {
        let mut epochs = row.from_epoch.to_string();
        if row.to_epoch > row.from_epoch {
            let _ = write!(epochs, "-{}", row.to_epoch);
        }
        let mut cells = vec![epochs];
        let sides = [row.a, row.b];
        let mut add = |cell: &dyn Fn(super::StretchSide) -> String| {
            cells.extend(sides.map(|side| side.map_or("-".into(), cell)));
        };
        add(&|side| side.frozen_units.to_string());
        add(&|side| percent(side.step_cost));
        add(&|side| bytes(side.activation_bytes));
        add(&|side| bytes(side.state_bytes));
        if rows.iter().any(|row| row.other_rates > 0) {
            cells.push(row.other_rates.to_string());
        }
        table.push(cells);
    }
    let mut header = vec!["epochs", "units a", "b", "cost a", "b", "kept a", "b", "state a", "b"];
    if rows.iter().any(|row| row.other_rates > 0) {
        header.push("rates");
    }
    render(&header, table, &[], &[])
}
