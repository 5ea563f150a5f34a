//! The units of a plan, in a terminal of 80 columns.

use super::human::{clean, freezes, runs, short, unit_name};
use super::plan_table::{middle, render};
use crate::plan::FreezePlan;

/// Returns the units as text of at most 80 columns: index, path, class, elements of the parameters,
/// flops of the forward pass and of the gradients for inputs and weights, and the first epoch in
/// which the unit is frozen (`part` if never as a whole, or `never`).
pub fn units_table(plan: &FreezePlan) -> String {
    const CLASS: usize = 14;
    let header = ["unit", "path", "class", "elements", "forward", "input", "weight", "freezes"];
    let mut rows = Vec::new();
    for (unit, freezes) in plan.units.iter().zip(freezes(plan, &runs(plan))) {
        rows.push(vec![
            unit.index.to_string(),
            unit_name(&unit.path),
            middle(&clean(&unit.class), CLASS),
            short(unit.elements),
            short(unit.flops.forward),
            short(unit.flops.input_grad),
            short(unit.flops.weight_grad),
            freezes,
        ]);
    }
    render(&header, rows, &[1], &[1, 2])
}
