//! Compared plans in a terminal of 80 columns.

use super::notes::notes;
use super::numbers::{Numbers, longest, resampled};
use super::{Compared, Known};
use crate::report::human::{assumed, bytes, caches, clean, percent, plural};
use crate::report::plan_table::{WIDTH, middle, render, wrap};

/// The widest a name may be beside its picture.
const LABEL: usize = 36;
/// Shares from none to all.
const LEVELS: [char; 9] = ['.', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Returns the plans as text of at most 80 columns: one row each with what it comes to, one row each with the frozen
/// share of its units over the epochs, and what a reader must know of them.
pub fn compare_table(plans: &[Compared]) -> String {
    let Some(first) = plans.first().map(|compared| &compared.plan) else { return String::new() };
    let mut text = wrap(&format!(
        "{}: {}, {} compared over {}",
        clean(&first.model.file),
        plural(first.model.parameters, "parameter"),
        plural(plans.len() as u64, "plan"),
        plural(longest(plans) as u64, "epoch"),
    ));
    text.push('\n');
    let numbers: Vec<Numbers> = plans.iter().map(|compared| Numbers::of(&compared.plan)).collect();
    let cached = plans.iter().any(|compared| caches(&compared.plan));
    text += &rows(plans, &numbers, cached);
    text.push('\n');
    text += &pictures(plans, &numbers);
    text.push('\n');
    for (note, of) in notes(plans) {
        text += &wrap(&words(&format!("{of}: {}", clean(&note))));
    }
    let with_cache = if cached { "; cached: the same with a cached prefix" } else { "" };
    text += &wrap(&format!(
        "frozen: units at the end. first: epoch of the first freeze, +N where N steps of it come before. saved: of the \
         flops of a run with nothing frozen{with_cache}. ceiling: the speedup if nothing else took time. kept, grad+opt: \
         the lowest bytes of a step at {}, for the backward pass and for gradients and optimizer slots.",
        assumed(first)
    ));
    text
}

fn rows(plans: &[Compared], numbers: &[Numbers], cached: bool) -> String {
    let mut header = vec!["#", "policy", "frozen", "first", "saved", "ceiling", "kept", "grad+opt"];
    if cached {
        header.insert(5, "cached");
    }
    let mut rows = Vec::new();
    for (index, (compared, numbers)) in plans.iter().zip(numbers).enumerate() {
        let unsure = matches!(compared.known, Known::Assuming(_));
        let mut row = vec![
            (index + 1).to_string(),
            clean(&compared.plan.policy.name),
            format!("{}{}", if unsure { "~" } else { "" }, numbers.frozen()),
            numbers.first(),
            percent(numbers.saved),
            format!("{:.2}x", numbers.ceiling),
            bytes(numbers.activation_bytes.0),
            bytes(numbers.state_bytes.0),
        ];
        if cached {
            row.insert(5, percent(numbers.saved_cached));
        }
        if compared.is_unknown() {
            row.iter_mut().skip(2).for_each(|cell| *cell = "?".into());
        }
        rows.push(row);
    }
    render(&header, rows, &[1], &[1])
}

fn pictures(plans: &[Compared], numbers: &[Numbers]) -> String {
    let epochs = longest(plans);
    let digits = plans.len().to_string().len();
    let label = plans.iter().map(|compared| compared.label.chars().count()).max().unwrap_or(0).min(LABEL);
    let room = WIDTH - digits - label - 4;
    let columns = epochs.min(room);
    let mut text = String::new();
    let per = match epochs.div_ceil(columns.max(1)) {
        0 | 1 => "one character an epoch".to_string(),
        _ => format!("{} epochs in {columns} characters", epochs),
    };
    text += &wrap(&format!("frozen share of the units, {per}, from . none to █ all:"));
    for (index, (compared, numbers)) in plans.iter().zip(numbers).enumerate() {
        let name = middle(&clean(&compared.label), label);
        let picture: String = match compared.is_unknown() {
            true => middle("decides by what the run measures", room),
            false => resampled(&numbers.shares, epochs, columns).into_iter().map(level).collect(),
        };
        text += format!("{:>digits$}  {name:label$}  {picture}", index + 1).trim_end();
        text.push('\n');
    }
    text
}

/// Returns the character of a share; only nothing is `.`, only all is full.
fn level(share: f64) -> char {
    let most = LEVELS.len() - 1;
    let index = match share {
        share if share <= 1e-9 => 0,
        share if share >= 1.0 - 1e-9 => most,
        share => ((share * most as f64).round() as usize).clamp(1, most - 1),
    };
    LEVELS.get(index).copied().unwrap_or('?')
}

/// Returns `text` with words that no line holds cut in the middle.
fn words(text: &str) -> String {
    text.split(' ').map(|word| middle(word, WIDTH - 10)).collect::<Vec<_>>().join(" ")
}
