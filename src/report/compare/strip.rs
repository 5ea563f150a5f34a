//! Which unit is frozen when, as a small picture: units from above, epochs from the left.

use crate::plan::FreezePlan;
use std::collections::HashSet;
use std::fmt::Write;

/// Shades of what is frozen in a part of an epoch.
const SHADES: usize = 4;
/// The most changes that a picture shows.
const MOST: usize = 20_000;

/// Appends the picture; returns false where it would have too many parts.
pub(in crate::report) fn draw(page: &mut String, plan: &FreezePlan) -> bool {
    let rows = rows(plan);
    let mut paths = vec![String::new(); SHADES];
    let mut parts = 0;
    for (unit, row) in rows.iter().enumerate() {
        let mut x = 0;
        for run in row.chunk_by(|a, b| a == b) {
            let shade = run.first().copied().unwrap_or(0);
            if let Some(path) = usize::from(shade).checked_sub(1).and_then(|shade| paths.get_mut(shade)) {
                let _ = write!(path, "M{x} {unit}h{}v1H{x}z", run.len());
                parts += 1;
            }
            x += run.len();
        }
        if parts > MOST {
            return false;
        }
    }
    let _ = write!(
        page,
        "<svg class=\"units\" viewBox=\"0 0 {} {}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"which of {} \
         units is frozen when\">",
        plan.epochs.len(),
        plan.units.len().max(1),
        plan.units.len()
    );
    for (shade, path) in paths.iter().enumerate().filter(|(_, path)| !path.is_empty()) {
        let _ = write!(page, "<path class=\"s{}\" d=\"{path}\"/>", shade + 1);
    }
    page.push_str("</svg>");
    true
}

/// Returns for each unit and epoch in how much of it all of the unit is frozen, from 0 to [`SHADES`]; only the whole
/// epoch is the last shade.
fn rows(plan: &FreezePlan) -> Vec<Vec<u8>> {
    let mut rows = vec![Vec::with_capacity(plan.epochs.len()); plan.units.len()];
    let mut before: Option<(&Vec<String>, Vec<bool>)> = None;
    for epoch in &plan.epochs {
        let mut held = vec![0.0; plan.units.len()];
        for (stretch, share) in epoch.shares(plan.assumed.steps_per_epoch) {
            if before.as_ref().is_none_or(|(names, _)| *names != &stretch.frozen) {
                before = Some((&stretch.frozen, whole(plan, &stretch.frozen)));
            }
            let frozen = before.iter().flat_map(|(_, frozen)| frozen);
            held.iter_mut().zip(frozen).filter(|(_, frozen)| **frozen).for_each(|(held, _)| *held += share);
        }
        rows.iter_mut().zip(held).for_each(|(row, held)| row.push(shade(held)));
    }
    rows
}

/// Returns of which units all is frozen.
fn whole(plan: &FreezePlan, names: &[String]) -> Vec<bool> {
    let names: HashSet<&str> = names.iter().map(String::as_str).collect();
    let whole = |unit: &crate::plan::PlannedUnit| {
        let mut held = unit.parameters.iter().chain(&unit.shared).peekable();
        held.peek().is_some() && held.all(|name| names.contains(name.as_str()))
    };
    plan.units.iter().map(whole).collect()
}

fn shade(held: f64) -> u8 {
    match held {
        held if held <= 1e-9 => 0,
        held if held >= 1.0 - 1e-9 => SHADES as u8,
        held => ((held * SHADES as f64).ceil() as u8).clamp(1, SHADES as u8 - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::chain;
    use crate::plan::{PlanOptions, build};

    #[test]
    fn a_unit_that_freezes_within_an_epoch_is_shaded_there() {
        let model = chain(4);
        let mut inputs = model.inputs(2);
        inputs.steps_per_epoch = 10;
        let mut plan = build(&inputs, &PlanOptions::of("steps").with("steps", "2:3")).unwrap();
        plan.assumed.steps_per_epoch = 10;
        let mut change = plan.epochs[1].clone();
        change.after = 6;
        change.frozen.truncate(1);
        plan.epochs[1].changes = vec![change];
        assert_eq!(rows(&plan), [[0, 4], [0, 3], [0, 3], [0, 0]]);
        let mut page = String::new();
        assert!(draw(&mut page, &plan));
        assert!(
            page.contains("<path class=\"s3\" d=\"M1 1h1v1H1zM1 2h1v1H1z\"/><path class=\"s4\" d=\"M1 0h1v1H1z\"/>"),
            "{page}"
        );
    }
}
