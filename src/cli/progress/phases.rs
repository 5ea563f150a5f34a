//! What freezes, told when a phase begins, and what that saved, told when its steps were measured.

use super::text::{count, percent, step_seconds};
use crate::plan::{EpochPlan, FreezePlan};
use crate::runner::RunEvent;
use std::collections::HashSet;

/// Units that a line names.
const MOST: usize = 3;

/// The phases of a run so far.
#[derive(Debug, Default)]
pub struct Phases {
    plan: Option<FreezePlan>,
    begun: Vec<Begun>,
    /// Median and predicted seconds of a step with nothing frozen.
    full: Option<(f64, f64)>,
}

#[derive(Clone, Debug)]
struct Begun {
    epoch: usize,
    after: usize,
    frozen: usize,
    frozen_units: usize,
    /// Paths of the frozen units, where the plan tells them.
    units: Option<Vec<String>>,
}

impl Phases {
    /// Names units as this plan does.
    pub fn plan(&mut self, plan: &FreezePlan) {
        self.plan = Some(plan.clone());
    }

    /// Returns the line of an event `Phase`.
    pub fn begins(&mut self, event: &RunEvent) -> Option<String> {
        let RunEvent::Phase {
            epoch,
            after,
            frozen,
            frozen_units,
            seconds,
            stall_seconds,
            predicted_step_cost,
            predicted_step_seconds,
            recomputed,
            ..
        } = event
        else {
            return None;
        };
        let units = self.plan.as_ref().and_then(|plan| frozen_at(plan, *epoch, *after, *frozen_units));
        let begun = Begun { epoch: *epoch, after: *after, frozen: *frozen, frozen_units: *frozen_units, units };
        let what = self.change(&begun);
        let when = if *after == 0 { String::new() } else { format!(" after {}", count(*after, "step")) };
        let cost = match frozen {
            0 => String::new(),
            _ => format!(", predicted step cost {}", percent(*predicted_step_cost)),
        };
        let cost = match predicted_step_seconds {
            Some(step) if *frozen == 0 => format!(", {} a step predicted", step_seconds(*step)),
            Some(step) => format!("{cost} ({})", step_seconds(*step)),
            None => cost,
        };
        let again = match recomputed.len() {
            0 => String::new(),
            modules => format!(", {} recomputed", count(modules, "module")),
        };
        let stall = match self.begun.is_empty() {
            true => String::new(),
            false => format!(", stall {}", step_seconds(*stall_seconds)),
        };
        self.begun.push(begun);
        Some(format!("epoch {epoch}{when}: {what}{cost}{again}, ready in {seconds:.2} s{stall}"))
    }

    /// Returns what changes with a phase, as text.
    fn change(&self, next: &Begun) -> String {
        let share = self.share(next);
        let nothing = Vec::new();
        let before = self.begun.last().map_or(Some(&nothing), |begun| begun.units.as_ref());
        let (Some(before), Some(now)) = (before, &next.units) else { return share };
        let newly: Vec<&String> = now.iter().filter(|unit| !before.contains(unit)).collect();
        let again: Vec<&String> = before.iter().filter(|unit| !now.contains(unit)).collect();
        let mut parts = Vec::new();
        parts.extend((!newly.is_empty()).then(|| format!("{} freeze{}", names(&newly), third(newly.len()))));
        parts.extend((!again.is_empty()).then(|| format!("{} train{} again", names(&again), third(again.len()))));
        if parts.is_empty() { share } else { format!("{} ({share})", parts.join(", ")) }
    }

    fn share(&self, phase: &Begun) -> String {
        match (phase.frozen, phase.frozen_units, &self.plan) {
            (0, ..) => "nothing frozen".into(),
            (tensors, 0, _) => format!("{} frozen", count(tensors, "tensor")),
            (_, units, Some(plan)) => format!("{units}/{} frozen", plan.units.len()),
            (_, units, None) => format!("{} frozen", count(units, "unit")),
        }
    }

    /// Returns the line of an event `Speed`, which ends in epoch `last` where no other phase begins.
    pub fn measured(&mut self, event: &RunEvent, last: usize) -> Option<String> {
        let RunEvent::Speed { epoch, after, predicted_seconds, median_seconds, .. } = event else { return None };
        let position = self.begun.iter().rposition(|begun| (begun.epoch, begun.after) == (*epoch, *after))?;
        let begun = self.begun.get(position)?;
        let last = self.begun.get(position + 1).map_or(last, |next| next.epoch - usize::from(next.after == 0));
        let epochs = if last > *epoch { format!("epochs {epoch}-{last}") } else { format!("epoch {epoch}") };
        let head = format!("{epochs}, {}: {} a step", self.share(begun), step_seconds(*median_seconds));
        if begun.frozen == 0 {
            self.full = Some((*median_seconds, *predicted_seconds));
            return Some(format!("{head}, predicted {}", step_seconds(*predicted_seconds)));
        }
        let Some((full, predicted_full)) = self.full.filter(|(full, predicted)| *full > 0.0 && *predicted > 0.0) else {
            return Some(format!("{head}, predicted {}", step_seconds(*predicted_seconds)));
        };
        let saved = 1.0 - median_seconds / full;
        let predicted = percent(1.0 - predicted_seconds / predicted_full);
        Some(match saved < 0.0 {
            true => format!("{head}, costs {} more (predicted to save {predicted})", percent(-saved)),
            false => format!("{head}, saves {} (predicted {predicted})", percent(saved)),
        })
    }
}

fn third(number: usize) -> &'static str {
    if number == 1 { "s" } else { "" }
}

fn names(units: &[&String]) -> String {
    let shown: Vec<&str> = units.iter().take(MOST).map(|unit| unit.as_str()).collect();
    match (units.len().saturating_sub(MOST), shown.split_last()) {
        (0, Some((last, rest))) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        (0, _) => shown.join(", "),
        (more, _) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Returns the paths of the units that a plan freezes at a point, where it freezes as many as the run does.
fn frozen_at(plan: &FreezePlan, epoch: usize, after: usize, count: usize) -> Option<Vec<String>> {
    let entry: &EpochPlan = plan.epochs.get(epoch.checked_sub(1)?)?.at(after);
    let frozen: HashSet<&String> = entry.frozen.iter().collect();
    let whole = plan.units.iter().filter(|unit| {
        let mut names = unit.parameters.iter().chain(&unit.shared).peekable();
        names.peek().is_some() && names.all(|name| frozen.contains(name))
    });
    let name = |path: &str| if path.is_empty() { "(model)".to_string() } else { path.to_string() };
    let units: Vec<String> = whole.map(|unit| name(&unit.path)).collect();
    (units.len() == count).then_some(units)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(epoch: usize, after: usize, frozen_units: usize, cost: f64) -> RunEvent {
        RunEvent::Phase {
            epoch,
            after,
            frozen: frozen_units,
            frozen_units,
            seconds: 0.25,
            stall_seconds: 0.0021,
            predicted_step_cost: cost,
            predicted_step_seconds: None,
            nodes: 1,
            recomputed: Vec::new(),
            prefix_nodes: 0,
            memory_estimate: None,
        }
    }

    fn speed(epoch: usize, after: usize, median_seconds: f64, predicted_seconds: f64) -> RunEvent {
        RunEvent::Speed {
            epoch,
            after,
            steps: 10,
            predicted_seconds,
            median_seconds,
            predicted_change_seconds: 0.0,
            change_seconds: 0.0,
        }
    }

    #[test]
    fn names_are_listed_up_to_three() {
        let all: Vec<String> = ["a", "b", "c", "d"].map(String::from).to_vec();
        let of = |count: usize| names(&all.iter().take(count).collect::<Vec<_>>());
        assert_eq!([of(1), of(2), of(3), of(4)], ["a", "a and b", "a, b and c", "a, b, c and 1 more"]);
    }

    #[test]
    fn a_freeze_says_what_it_is_predicted_to_save_and_then_what_it_saved() {
        let mut phases = Phases::default();
        let lines = [
            (phase(1, 0, 0, 1.0), "epoch 1: nothing frozen, ready in 0.25 s"),
            (
                phase(5, 3, 2, 0.75),
                "epoch 5 after 3 steps: 2 units frozen, predicted step cost 75 %, ready in 0.25 s, stall 2.10 ms",
            ),
        ];
        for (event, expected) in lines {
            assert_eq!(phases.begins(&event).unwrap(), expected);
        }
        let lines = [
            (speed(1, 0, 0.016, 0.02), "epochs 1-5, nothing frozen: 16.0 ms a step, predicted 20.0 ms"),
            (speed(5, 3, 0.0136, 0.015), "epochs 5-8, 2 units frozen: 13.6 ms a step, saves 15 % (predicted 25 %)"),
        ];
        for (event, expected) in lines {
            assert_eq!(phases.measured(&event, 8).unwrap(), expected);
        }
    }

    #[test]
    fn the_plan_names_what_freezes_and_what_trains_again() {
        use crate::plan::{PlanOptions, build, testing::chain};
        let steps = serde_json::json!([{"epoch": 2, "frozen": 4}, {"epoch": 3, "frozen": 1}]);
        let plan = build(&chain(6).inputs(4), &PlanOptions::of("steps").with("steps", steps)).unwrap();
        let mut phases = Phases::default();
        phases.plan(&plan);
        let lines = [phase(1, 0, 0, 1.0), phase(2, 0, 4, 0.5), phase(3, 0, 1, 0.9), phase(4, 0, 3, 0.9)];
        let lines: Vec<String> = lines.iter().map(|event| phases.begins(event).unwrap()).collect();
        let change = |line: &String| line.split(", predicted").next().unwrap().to_string();
        let expected = [
            "epoch 1: nothing frozen, ready in 0.25 s",
            "epoch 2: u0, u1, u2 and 1 more freeze (4/6 frozen)",
            "epoch 3: u1, u2 and u3 train again (1/6 frozen)",
            "epoch 4: 3/6 frozen",
        ];
        assert_eq!(lines.iter().map(change).collect::<Vec<_>>(), expected);
    }
}
