//! Numbers, names and runs of epochs as a person reads them.

use crate::plan::{EpochPlan, FreezePlan, PlannedUnit, Predicted};
#[cfg(feature = "cli")]
use crate::plan::{Measured, StepSeconds};
use std::collections::HashSet;

/// Returns `value` with three digits and a decimal prefix, such as `1.81 G`; below 1000 as it is.
pub(super) fn short(value: u64) -> String {
    const PREFIXES: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    if value < 1000 {
        return value.to_string();
    }
    let mut scaled = value as f64;
    let mut text = String::new();
    for prefix in PREFIXES {
        scaled /= 1000.0;
        text = format!("{} {prefix}", three_digits(scaled));
        if three_digits(scaled) != "1000" {
            break;
        }
    }
    text
}

fn three_digits(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else if value < 999.5 {
        format!("{value:.0}")
    } else {
        "1000".into()
    }
}

/// Returns flops with their unit, such as `1.81 GFLOP`.
pub(super) fn flops(value: u64) -> String {
    with_unit(value, "FLOP")
}

/// Returns bytes with their unit, such as `4.20 MB`; a kB is 1000 bytes.
pub(super) fn bytes(value: u64) -> String {
    with_unit(value, "B")
}

fn with_unit(value: u64, unit: &str) -> String {
    let text = short(value);
    if text.contains(' ') { format!("{text}{unit}") } else { format!("{text} {unit}") }
}

/// Returns a count with a comma between thousands.
pub(super) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns `text` without control characters: names come from a file and must not steer a terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Returns a unit's path for a person: the model itself has an empty one.
pub(super) fn unit_name(path: &str) -> String {
    if path.is_empty() { "(model)".into() } else { clean(path) }
}

/// Returns `1 unit` or `2 units`.
pub(super) fn plural(count: u64, word: &str) -> String {
    format!("{} {word}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// A run of steps with one frozen set.
pub(super) struct Run<'a> {
    /// Its entries in the plan, at least one.
    pub(super) stretches: Vec<&'a EpochPlan>,
    /// The last unit that is newly frozen as a whole.
    pub(super) newly: Option<&'a PlannedUnit>,
}

impl Run<'_> {
    /// Returns the epoch numbers, such as `3` or `3-6`, and of a run that starts within an epoch that and its first
    /// step, such as `6, step 13`.
    pub(super) fn numbers(&self) -> String {
        match self.first() {
            EpochPlan { epoch, after: 0, .. } => range(epoch.to_string(), self.last().epoch.to_string()),
            EpochPlan { epoch, after, .. } => format!("{epoch}, step {}", after + 1),
        }
    }

    /// Returns the schedule's values, such as `0.20` or `0.20-0.38`.
    pub(super) fn fractions(&self) -> String {
        range(format!("{:.2}", self.first().fraction), format!("{:.2}", self.last().fraction))
    }

    /// Returns the first entry.
    pub(super) fn first(&self) -> &EpochPlan {
        self.stretches.first().expect("invariant: chunk_by yields no empty run")
    }

    /// Returns the last entry.
    pub(super) fn last(&self) -> &EpochPlan {
        self.stretches.last().expect("invariant: chunk_by yields no empty run")
    }
}

fn range(first: String, last: String) -> String {
    if first == last { first } else { format!("{first}-{last}") }
}

/// Returns the runs of steps with one frozen set.
pub(super) fn runs(plan: &FreezePlan) -> Vec<Run<'_>> {
    alike(plan, plan.epochs.iter().flat_map(EpochPlan::stretches).collect())
}

/// Returns the runs of epochs that end with one frozen set, each epoch as it ends.
pub(super) fn ends(plan: &FreezePlan) -> Vec<Run<'_>> {
    alike(plan, plan.epochs.iter().map(|epoch| epoch.changes.last().unwrap_or(epoch)).collect())
}

fn alike<'a>(plan: &'a FreezePlan, stretches: Vec<&'a EpochPlan>) -> Vec<Run<'a>> {
    let mut before: HashSet<&str> = HashSet::new();
    let mut runs = Vec::new();
    for stretches in stretches.chunk_by(|a, b| held(a) == held(b)) {
        let frozen: HashSet<&str> =
            stretches.iter().take(1).flat_map(|e| e.frozen.iter().map(String::as_str)).collect();
        let is_new = |name: &String| frozen.contains(name.as_str()) && !before.contains(name.as_str());
        let whole = |unit: &PlannedUnit| unit.parameters.iter().all(|name| frozen.contains(name.as_str()));
        let newly = plan.units.iter().rfind(|unit| unit.parameters.iter().any(is_new) && whole(unit));
        runs.push(Run { stretches: stretches.to_vec(), newly });
        before = frozen;
    }
    runs
}

/// Returns all that an entry holds frozen.
pub(super) fn held(entry: &EpochPlan) -> [&Vec<String>; 3] {
    [&entry.frozen, &entry.statistics, &entry.dropout_off]
}

/// Returns when a unit freezes first: an epoch, `part` when never as a whole, or `never`.
#[cfg(feature = "cli")]
pub(super) fn freezes(plan: &FreezePlan, runs: &[Run<'_>]) -> Vec<String> {
    let mut first: Vec<Option<usize>> = vec![None; plan.units.len()];
    let mut part = vec![false; plan.units.len()];
    for run in runs {
        let frozen: HashSet<&str> = run.first().frozen.iter().map(String::as_str).collect();
        for (index, unit) in plan.units.iter().enumerate() {
            let count = unit.parameters.iter().filter(|name| frozen.contains(name.as_str())).count();
            part[index] |= count > 0;
            if count > 0 && count == unit.parameters.len() {
                first[index].get_or_insert(run.first().epoch);
            }
        }
    }
    let text = |(first, part): (Option<usize>, bool)| match first {
        Some(epoch) => epoch.to_string(),
        None if part => "part".into(),
        None => "never".into(),
    };
    first.into_iter().zip(part).map(text).collect()
}

/// Returns the knobs of the policy, such as `linear, freeze_start 0.5`.
pub(super) fn policy(plan: &FreezePlan) -> String {
    let mut parts = vec![plan.policy.name.clone()];
    for (name, value) in &plan.policy.settings {
        let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), String::from);
        let list = |values: &Vec<serde_json::Value>| values.iter().map(text).collect::<Vec<_>>().join(" ");
        let value = value.as_array().map_or_else(|| text(value), list);
        parts.push(format!("{name} {value}"));
    }
    clean(&parts.join(", "))
}

/// Returns what a plan does beside freezing parameters: statistics that stay, Dropout that passes its input on, rates
/// that differ.
pub(super) fn conduct(plan: &FreezePlan) -> Vec<String> {
    let stretches = || plan.epochs.iter().flat_map(EpochPlan::stretches);
    let most = |count: fn(&EpochPlan) -> usize| stretches().map(count).max().filter(|most| *most > 0);
    let mut sentences = Vec::new();
    if let Some(most) = most(|stretch| stretch.statistics.len()) {
        sentences.push(format!(
            "{} in frozen units {} and {} used in place of those of the batch",
            plural(most as u64, "running statistic"),
            if most == 1 { "stays" } else { "stay" },
            if most == 1 { "is" } else { "are" }
        ));
    }
    if let Some(most) = most(|stretch| stretch.dropout_off.len()) {
        sentences.push(format!("{} in frozen parts drop nothing", plural(most as u64, "Dropout output")));
    }
    let factors = || stretches().flat_map(|stretch| stretch.lr_scale.values().copied());
    if factors().next().is_some() {
        let (low, high) = factors().fold((1.0f64, 1.0f64), |(low, high), factor| (low.min(factor), high.max(factor)));
        sentences.push(format!("learning rates differ by parameter, by factors from {low:.3} to {high:.3}"));
    }
    sentences
}

/// Returns the sentences that say what the plan saves.
pub(super) fn saving(plan: &FreezePlan) -> String {
    let summary = &plan.summary;
    let verdict = if summary.verdict.is_empty() {
        let saving = 100.0 * (1.0 - summary.cost_ratio);
        format!("This schedule saves at most {saving:.1} % of the compute, a speedup of {:.2}x.", summary.ceiling)
    } else {
        clean(&summary.verdict)
    };
    let caution = if summary.pays { " Less where time goes to data, loss and optimizer." } else { "" };
    verdict + caution
}

/// Returns the sizes that costs are counted for, such as `batch 1` or `x 1x3x224x224`.
pub(super) fn assumed(plan: &FreezePlan) -> String {
    if plan.assumed.batch > 0 {
        return format!("batch {}", plan.assumed.batch);
    }
    let shape = |(name, sizes): (&String, &Vec<usize>)| {
        let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
        format!("{} {}", clean(name), sizes.join("x"))
    };
    let inputs: Vec<String> = plan.assumed.inputs.iter().map(shape).collect();
    if inputs.is_empty() { "the sizes of the file".into() } else { inputs.join(", ") }
}

/// Returns what a step costs, in flops and in bytes, and which one that is: with nothing frozen where
/// the plan has such an epoch, else that of the first epoch. `None` for a plan without these numbers.
pub(super) fn whole_step(plan: &FreezePlan) -> Option<(&'static str, [String; 2])> {
    let first = || plan.epochs.first().map(|epoch| &epoch.predicted).filter(|first| first.forward_flops > 0);
    let (which, full) = match full(plan) {
        Some(full) => ("with nothing frozen", full),
        None => ("in epoch 1", first()?),
    };
    let costs = [
        format!(
            "forward {}, input gradients {}, weight gradients {}",
            flops(full.forward_flops),
            flops(full.input_grad_flops),
            flops(full.weight_grad_flops)
        ),
        format!(
            "kept for backward {}, gradients {}, optimizer {}",
            bytes(full.activation_bytes),
            bytes(full.gradient_bytes),
            bytes(full.slot_bytes)
        ),
    ];
    Some((which, costs))
}

/// Returns the prediction of the first epoch in which nothing is frozen, where the plan has one with
/// all its numbers.
pub(super) fn full(plan: &FreezePlan) -> Option<&Predicted> {
    let epoch = plan.epochs.iter().find(|epoch| epoch.frozen.is_empty())?;
    (epoch.predicted.forward_flops > 0).then_some(&epoch.predicted)
}

/// Returns true when a cache of the frozen part saves something in an epoch.
pub(super) fn caches(plan: &FreezePlan) -> bool {
    plan.epochs.iter().any(|epoch| epoch.predicted.cached_step_cost < epoch.predicted.step_cost)
}

/// Returns seconds with their unit, such as `12.3 ms`.
#[cfg(feature = "cli")]
pub(super) fn seconds(seconds: f64) -> String {
    let (number, unit) = match seconds {
        seconds if seconds < 0.999_5e-3 => (seconds * 1e6, "us"),
        seconds if seconds < 0.999_5 => (seconds * 1e3, "ms"),
        seconds => (seconds, "s"),
    };
    format!("{} {unit}", if number > 0.0 { three_digits(number) } else { "0".into() })
}

/// Returns the parts of a step that take time.
#[cfg(feature = "cli")]
pub(super) fn parts(step: &StepSeconds) -> String {
    let StepSeconds { data, forward, backward, update, rest } = *step;
    let parts = [("forward", forward), ("backward", backward), ("update", update), ("data", data), ("rest", rest)];
    let shown = parts.into_iter().filter(|(name, part)| *name == "forward" || *part >= 0.01 * step.total());
    let shown: Vec<String> = shown.map(|(name, part)| format!("{name} {}", seconds(part))).collect();
    format!("{} a step: {}", seconds(step.total()), shown.join(", "))
}

/// Returns what seconds were measured on.
#[cfg(feature = "cli")]
pub(super) fn measured_on(measured: &Measured) -> String {
    format!("{}, {}", clean(&measured.engine), plural(measured.threads as u64, "thread"))
}

/// Returns what a plan saves of the time of its steps.
#[cfg(feature = "cli")]
pub(super) fn time_saved(measured: &Measured) -> String {
    let how = if measured.by_node { "" } else { ", told by flops: the engine does not time single nodes" };
    let saved = 100.0 * (1.0 - measured.cost_ratio);
    match saved < 0.0 {
        true => format!("Its steps take {:.1} % more time than with nothing frozen{how}.", -saved),
        false => format!("Of the time of the steps it saves {saved:.1} % here{how}."),
    }
}

/// Returns a share as a percentage, such as `87.1 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::chain;
    use crate::plan::{PlanOptions, build};

    #[test]
    fn numbers_have_three_digits() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1.00 k"),
            (9_994, "9.99 k"),
            (9_996, "10.0 k"),
            (99_960, "100 k"),
            (999_499, "999 k"),
            (999_500, "1.00 M"),
            (1_814_073_344, "1.81 G"),
            (u64::MAX, "18.4 E"),
        ];
        for (value, expected) in cases {
            assert_eq!(short(value), expected, "{value}");
        }
        assert_eq!(
            (flops(1_814_073_344), bytes(12), bytes(4_200_000)),
            ("1.81 GFLOP".into(), "12 B".into(), "4.20 MB".into())
        );
        assert_eq!((grouped(0), grouped(100), grouped(11_689_512)), ("0".into(), "100".into(), "11,689,512".into()));
    }

    #[test]
    fn a_run_within_an_epoch_says_from_which_step_on() {
        let model = chain(4);
        let mut inputs = model.inputs(4);
        inputs.steps_per_epoch = 10;
        let steps = serde_json::json!([{"epoch": 2, "step": 5, "frozen": 2}, {"epoch": 4, "frozen": 3}]);
        let plan = build(&inputs, &PlanOptions::of("steps").with("steps", steps)).unwrap();
        let numbers = |runs: Vec<Run<'_>>| runs.iter().map(Run::numbers).collect::<Vec<_>>();
        assert_eq!(numbers(runs(&plan)), ["1-2", "2, step 6", "4"]);
        assert_eq!(numbers(ends(&plan)), ["1", "2, step 6", "4"]);
        assert_eq!(freezes(&plan, &runs(&plan)), ["2", "2", "4", "never"]);
    }

    #[test]
    fn what_a_plan_does_beside_freezing_is_told() {
        let mut plan = build(&chain(4).inputs(4), &PlanOptions::of("none")).unwrap();
        assert!(conduct(&plan).is_empty());
        plan.epochs[1].statistics = vec!["bn.running_mean".into(), "bn.running_var".into()];
        plan.epochs[2].lr_scale.insert("u1.weight".into(), 0.25);
        let expected = [
            "2 running statistics in frozen units stay and are used in place of those of the batch",
            "learning rates differ by parameter, by factors from 0.250 to 1.000",
        ];
        assert_eq!(conduct(&plan), expected);
    }

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(clean("a\u{1b}[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
    }
}
