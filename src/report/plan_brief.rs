//! A plan in a few lines: what freezes when, and what it saves.

use super::human::{Run, clean, percent, plural, runs, saving, unit_name};
use crate::plan::FreezePlan;

/// Changes of the frozen set that are listed; of more, those in the middle are counted.
const MOST: usize = 6;

/// Returns the plan in a few lines, not wrapped: its length, its policy and when it freezes what, what it saves, and how
/// many notes there are.
pub fn plan_brief(plan: &FreezePlan) -> Vec<String> {
    let mut lines = vec![format!(
        "plan: {} over {}, {} of {}",
        clean(&plan.policy.name),
        plural(plan.epochs.len() as u64, "epoch"),
        plural(plan.units.len() as u64, "unit"),
        plural(plan.model.parameters, "parameter")
    )];
    let runs = runs(plan);
    let changes: Vec<&Run<'_>> =
        runs.iter().filter(|run| run.first().epoch > 1 || !run.first().frozen.is_empty()).collect();
    let shown = if changes.len() > MOST { MOST - 1 } else { changes.len() };
    let (head, tail) = (shown.div_ceil(2), shown / 2);
    for (index, run) in changes.iter().enumerate() {
        if index == head && shown < changes.len() {
            lines.push(format!("  .. {} ..", plural((changes.len() - shown) as u64, "more change")));
        }
        if index < head || index >= changes.len() - tail {
            lines.push(row(plan, run));
        }
    }
    if changes.is_empty() {
        lines.push("  nothing is frozen".into());
    }
    lines.push(saving(plan));
    lines
}

fn row(plan: &FreezePlan, run: &Run<'_>) -> String {
    let first = run.first();
    let up_to = run.newly.map(|unit| format!(", up to {}", unit_name(&unit.path))).unwrap_or_default();
    let numbers = run.numbers();
    let which = if numbers.contains('-') { "epochs" } else { "epoch" };
    format!(
        "  {which} {numbers}: {}/{} frozen{up_to}; a step costs {}",
        first.frozen_units,
        plan.units.len(),
        percent(first.predicted.step_cost)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::chain;
    use crate::plan::{PlanOptions, build};

    fn brief(epochs: usize, options: &PlanOptions) -> Vec<String> {
        plan_brief(&build(&chain(8).inputs(epochs), options).unwrap())
    }

    #[test]
    fn changes_are_listed_and_the_middle_of_many_is_counted() {
        let steps = |changes: std::ops::RangeInclusive<usize>| {
            let steps: Vec<_> = changes.map(|epoch| serde_json::json!({"epoch": 2 * epoch, "frozen": epoch})).collect();
            brief(20, &PlanOptions::of("steps").with("steps", steps))
        };
        let two = steps(3..=4);
        assert_eq!(two.len(), 4, "{two:?}");
        assert_eq!(two[0], "plan: steps over 20 epochs, 8 units of 8 parameters");
        assert!(two[1].starts_with("  epochs 6-7: 3/8 frozen, up to u2; a step costs "), "{two:?}");
        assert!(two[2].starts_with("  epochs 8-20: 4/8 frozen, up to u3; a step costs "), "{two:?}");
        assert!(two[3].starts_with("This schedule saves at most "), "{two:?}");
        let seven = steps(1..=7);
        let shown = |line: &String| line.split([':', ';']).next().unwrap_or_default().trim().to_string();
        let shown: Vec<String> = seven.iter().skip(1).take(6).map(shown).collect();
        let expected =
            ["epochs 2-3", "epochs 4-5", "epochs 6-7", ".. 2 more changes ..", "epochs 12-13", "epochs 14-20"];
        assert_eq!(shown, expected);
        assert_eq!(brief(4, &PlanOptions::of("none"))[1], "  nothing is frozen");
    }
}
