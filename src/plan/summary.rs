//! What a plan is worth as a whole, in numbers and in sentences.

use super::StepCosts;
use super::freeze_plan::{FreezePlan, Segment, Summary, segments};
use std::collections::HashSet;

/// A plan that saves less than this fraction of the compute cannot pay.
const WORTH: f64 = 0.02;

/// A trainable parameter because of which the backward pass runs through a frozen part.
struct Alive {
    name: String,
    first_epoch: usize,
    last_epoch: usize,
}

/// Returns the summary of a plan whose other parts are complete.
pub(super) fn summary(plan: &FreezePlan, step_costs: &dyn StepCosts) -> Summary {
    let mean = |cost: fn(&super::Predicted) -> f64| {
        let steps = plan.assumed.steps_per_epoch;
        plan.epochs.iter().map(|epoch| epoch.mean(steps, cost)).sum::<f64>() / plan.epochs.len() as f64
    };
    let (cost_ratio, cached_cost_ratio) = (mean(|p| p.step_cost), mean(|p| p.cached_step_cost));
    let ceiling = |ratio: f64| 1.0 / ratio.max(f64::MIN_POSITIVE);
    let segments = segments(plan);
    let freezing: Vec<&Segment> = segments.iter().filter(|segment| !segment.frozen.is_empty()).collect();
    let alive = alive(&freezing, step_costs);
    let without = if alive.is_empty() { None } else { without_alive(plan, &freezing, step_costs) };
    let (counted, nodes) = step_costs.counted();
    let mut summary = Summary {
        cost_ratio,
        ceiling: ceiling(cost_ratio),
        cached_cost_ratio,
        cached_ceiling: ceiling(cached_cost_ratio),
        pays: 1.0 - cached_cost_ratio >= WORTH,
        verdict: String::new(),
        nodes,
        uncounted_nodes: nodes - counted,
        keeps_backward_alive: alive.iter().map(|alive| alive.name.clone()).collect(),
        without_alive: without.filter(|ratio| *ratio < cost_ratio),
        measured: None,
        notes: notes(plan, &segments, &freezing, &alive, step_costs),
    };
    let most_missing = 2 * summary.uncounted_nodes > nodes;
    let sentence = match (summary.pays, why_nothing(plan, &freezing)) {
        (true, _) => pays(&summary),
        (false, None) if most_missing => "What this schedule saves cannot be told.".to_string(),
        (false, Some(reason)) => format!("This schedule cannot pay: {reason}."),
        (false, None) => cannot_pay(plan, &freezing, &summary),
    };
    summary.verdict = match summary.uncounted_nodes {
        0 => sentence,
        1 => format!("A partial estimate, 1 of {nodes} nodes has no count. {sentence}"),
        missing => format!("A partial estimate, {missing} of {nodes} nodes have no count. {sentence}"),
    };
    summary
}

impl Summary {
    /// Returns the parameters, with their verb, because of which a freeze saves much less than it could: frozen as well,
    /// they would save half as much again, and at least 2 % more of the compute.
    pub fn held_back(&self) -> Option<String> {
        let (saved, could) = (1.0 - self.cost_ratio, 1.0 - self.without_alive?);
        (could - saved >= WORTH && could >= 1.5 * saved).then(|| self.alive())?
    }

    fn alive(&self) -> Option<String> {
        Some(match self.keeps_backward_alive.as_slice() {
            [] => return None,
            [one] => format!("parameter \"{one}\" keeps"),
            [one, two] => format!("parameters \"{one}\" and \"{two}\" keep"),
            [one, rest @ ..] => format!("parameter \"{one}\" and {} more keep", rest.len()),
        })
    }
}

fn percent(ratio: f64) -> String {
    let saving = 100.0 * (1.0 - ratio);
    format!("{:.1} %", if saving.abs() < 0.05 { 0.0 } else { saving })
}

fn pays(summary: &Summary) -> String {
    let plain = percent(summary.cost_ratio);
    let cached = percent(summary.cached_cost_ratio);
    if 1.0 - summary.cost_ratio < WORTH {
        return format!(
            "This schedule pays only with a cached prefix: that saves at most {cached} of the compute, a speedup of \
             {:.2}x; without one it saves {plain}.",
            summary.cached_ceiling
        );
    }
    let with_cache = if cached == plain {
        String::new()
    } else {
        format!("; with a cached prefix {cached}, {:.2}x", summary.cached_ceiling)
    };
    if let (Some(alive), Some(ratio)) = (summary.held_back(), summary.without_alive) {
        return format!(
            "This schedule cannot save more than {plain} of the compute, a speedup of {:.2}x{with_cache}, because {alive} \
             the backward pass alive; frozen as well, it would save {}.",
            summary.ceiling,
            percent(ratio)
        );
    }
    format!("This schedule saves at most {plain} of the compute, a speedup of {:.2}x{with_cache}.", summary.ceiling)
}

/// Returns why nothing is frozen in any epoch.
fn why_nothing(plan: &FreezePlan, freezing: &[&Segment]) -> Option<String> {
    let reason = if plan.units.iter().all(|unit| unit.parameters.is_empty()) {
        "the model has no parameters that could be frozen"
    } else if !freezing.is_empty() {
        return None;
    } else if !plan.last.frozen.is_empty() {
        "nothing is frozen, the first freeze comes after the last epoch"
    } else if plan.units.len() == 1 {
        "nothing is frozen, the model has a single unit"
    } else {
        "nothing is frozen in any epoch"
    };
    Some(reason.into())
}

fn cannot_pay(plan: &FreezePlan, freezing: &[&Segment], summary: &Summary) -> String {
    let head = format!("This schedule cannot pay: it saves {} of the compute, ", percent(summary.cached_cost_ratio));
    let without = summary.without_alive.filter(|ratio| 1.0 - ratio >= WORTH);
    if let (Some(alive), Some(ratio)) = (summary.alive(), without) {
        return format!(
            "{head}because {alive} the backward pass alive; frozen as well, it would save {}.",
            percent(ratio)
        );
    }
    let best = plan.epochs.iter().map(|epoch| epoch.predicted.cached_step_cost).fold(1.0, f64::min);
    let frozen_epochs = plan.epochs.iter().filter(|epoch| !epoch.frozen.is_empty()).count();
    if 1.0 - best >= WORTH && frozen_epochs < plan.epochs.len() {
        let first = freezing.first().map_or(0, |segment| segment.first_epoch);
        return format!("{head}because the first freeze comes in epoch {first} of {}.", plan.epochs.len());
    }
    match costliest(plan, freezing) {
        Some((path, share)) => format!(
            "{head}because {:.0} % of what the units cost is in \"{path}\", which is never frozen.",
            100.0 * share
        ),
        None => format!("{head}because what is frozen costs little."),
    }
}

/// Returns the cost of the plan, relative to nothing frozen, when the parameters that keep the backward pass alive are
/// frozen with the rest.
fn without_alive(plan: &FreezePlan, freezing: &[&Segment], step_costs: &dyn StepCosts) -> Option<f64> {
    let nothing = step_costs.cost(&HashSet::new()).total() as f64;
    let mut saved = 0.0;
    for segment in freezing {
        let frozen: HashSet<&str> = segment.held().collect();
        let alive = step_costs.keeps_backward_alive(&frozen);
        let all = frozen.iter().copied().chain(alive.iter().map(String::as_str)).collect();
        let epochs = segment.last_epoch - segment.first_epoch + 1;
        saved += epochs as f64 * (nothing - step_costs.cost(&all).total() as f64);
    }
    (nothing > 0.0).then(|| 1.0 - saved / (nothing * plan.epochs.len() as f64))
}

/// Returns the unit that is never frozen and costs most, with its share of the cost of all units, where
/// that is most of it.
fn costliest(plan: &FreezePlan, freezing: &[&Segment]) -> Option<(String, f64)> {
    let frozen: HashSet<&String> = freezing.iter().flat_map(|segment| &segment.frozen).collect();
    let total: f64 = plan.units.iter().map(|unit| unit.flops.total() as f64).sum();
    let trains = plan.units.iter().filter(|unit| !unit.parameters.iter().any(|name| frozen.contains(name)));
    let unit = trains.max_by_key(|unit| unit.flops.total())?;
    let share = unit.flops.total() as f64 / total;
    (share >= 0.5).then(|| (unit.path.clone(), share))
}

fn alive(freezing: &[&Segment], step_costs: &dyn StepCosts) -> Vec<Alive> {
    let mut alive: Vec<Alive> = Vec::new();
    for segment in freezing {
        for name in step_costs.keeps_backward_alive(&segment.held().collect()) {
            match alive.iter_mut().find(|known| known.name == name) {
                Some(known) => known.last_epoch = segment.last_epoch,
                None => {
                    let (first_epoch, last_epoch) = (segment.first_epoch, segment.last_epoch);
                    alive.push(Alive { name, first_epoch, last_epoch });
                }
            }
        }
    }
    alive
}

fn notes(
    plan: &FreezePlan,
    segments: &[Segment],
    freezing: &[&Segment],
    alive: &[Alive],
    step_costs: &dyn StepCosts,
) -> Vec<String> {
    const MOST: usize = 5;
    let mut notes = Vec::new();
    let parameters: usize = plan.units.iter().map(|unit| unit.parameters.len()).sum();
    if let Some(first) = segments.iter().find(|s| parameters > 0 && s.frozen.len() == parameters) {
        notes.push(format!("every parameter is frozen in epoch {}: nothing trains", first.first_epoch));
    }
    for Alive { name, first_epoch, last_epoch } in alive.iter().take(MOST) {
        let when = if first_epoch == last_epoch {
            format!("epoch {first_epoch}")
        } else {
            format!("epochs {first_epoch} to {last_epoch}")
        };
        notes.push(format!(
            "parameter \"{name}\" keeps the backward pass alive in {when}, so freezes that come after it in the \
             model save only weight gradients"
        ));
    }
    if alive.len() > MOST {
        let more = alive.len() - MOST;
        notes.push(if more == 1 { "so does 1 more parameter".into() } else { format!("so do {more} more parameters") });
    }
    let last = freezing.last().map(|segment| segment.held().collect());
    if let Some(reason) = last.and_then(|frozen| step_costs.ends_cache(&frozen)) {
        notes.push(format!("a cache of the frozen part ends at {reason}"));
    }
    notes.extend(step_costs.notes());
    notes
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Chain, chain};
    use super::super::{PlanOptions, build};

    struct Case {
        model: Chain,
        epochs: usize,
        options: PlanOptions,
        verdict: &'static str,
        notes: &'static [&'static str],
    }

    fn options(freeze: &[&str], keep: &[&str]) -> PlanOptions {
        let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
        PlanOptions { freeze: owned(freeze), keep: owned(keep), ..PlanOptions::default() }
    }

    fn late() -> PlanOptions {
        PlanOptions::default().with("freeze_start", 0.95).with("freeze_level", 0.5)
    }

    #[test]
    fn the_verdict_and_the_notes_say_what_a_person_should_know() {
        let mut costly_head = chain(3);
        costly_head.costs[2].flops.forward = 1000;
        let cases = [
            Case {
                model: chain(10),
                epochs: 10,
                options: PlanOptions::default(),
                verdict: "This schedule saves at most 11.0 % of the compute, a speedup of 1.12x; with a cached prefix \
                          14.1 %, 1.16x.",
                notes: &[],
            },
            Case {
                model: Chain { cached: false, ..chain(10) },
                epochs: 10,
                options: PlanOptions::default(),
                verdict: "This schedule saves at most 11.0 % of the compute, a speedup of 1.12x.",
                notes: &["a cache of the frozen part ends at \"bn\", which normalizes by the statistics of the batch"],
            },
            Case {
                model: chain(0),
                epochs: 2,
                options: PlanOptions::default(),
                verdict: "This schedule cannot pay: the model has no parameters that could be frozen.",
                notes: &[],
            },
            Case {
                model: chain(1),
                epochs: 2,
                options: PlanOptions::default(),
                verdict: "This schedule cannot pay: nothing is frozen, the model has a single unit.",
                notes: &[],
            },
            Case {
                model: chain(3),
                epochs: 2,
                options: PlanOptions { policy: "none".into(), ..PlanOptions::default() },
                verdict: "This schedule cannot pay: nothing is frozen in any epoch.",
                notes: &[],
            },
            Case {
                model: chain(3),
                epochs: 1,
                options: PlanOptions::default(),
                verdict: "This schedule cannot pay: nothing is frozen, the first freeze comes after the last epoch.",
                notes: &[],
            },
            Case {
                model: chain(20),
                epochs: 10,
                options: PlanOptions::default().with("freeze_level", 0.1),
                verdict: "This schedule cannot pay: it saves 0.8 % of the compute, because the first freeze comes in \
                          epoch 9 of 10.",
                notes: &[],
            },
            Case {
                model: chain(200),
                epochs: 3,
                options: PlanOptions { policy: "none".into(), ..options(&["u0"], &[]) },
                verdict: "This schedule cannot pay: it saves 0.4 % of the compute, because what is frozen costs little.",
                notes: &[],
            },
            Case {
                model: chain(20),
                epochs: 50,
                options: late(),
                verdict: "This schedule cannot pay: it saves 0.4 % of the compute, because the first freeze comes in \
                          epoch 49 of 50.",
                notes: &[],
            },
            Case {
                model: costly_head,
                epochs: 4,
                options: PlanOptions::default(),
                verdict: "This schedule cannot pay: it saves 0.0 % of the compute, because 99 % of what the units cost is in \
                          \"u2\", which is never frozen.",
                notes: &[],
            },
            Case {
                model: Chain { uncounted: 3, ..chain(10) },
                epochs: 10,
                options: PlanOptions::default(),
                verdict: "A partial estimate, 3 of 10 nodes have no count. This schedule saves at most 11.0 % of the \
                          compute, a speedup of 1.12x; with a cached prefix 14.1 %, 1.16x.",
                notes: &[],
            },
            Case {
                model: chain(2),
                epochs: 2,
                options: options(&["*"], &[]),
                verdict: "This schedule saves at most 60.0 % of the compute, a speedup of 2.50x; with a cached prefix \
                          80.0 %, 5.00x.",
                notes: &["every parameter is frozen in epoch 1: nothing trains"],
            },
            Case {
                model: Chain { alive: Some("u0.weight"), ..chain(4) },
                epochs: 10,
                options: options(&[], &["u0"]).with("freeze_start", 0.0),
                verdict: "This schedule cannot save more than 2.7 % of the compute, a speedup of 1.03x, because parameter \
                          \"u0.weight\" keeps the backward pass alive; frozen as well, it would save 10.9 %.",
                notes: &[
                    "parameter \"u0.weight\" keeps the backward pass alive in epochs 8 to 10, so freezes that come \
                     after it in the model save only weight gradients",
                ],
            },
            Case {
                model: Chain { alive: Some("u0.weight"), ..chain(60) },
                epochs: 10,
                options: PlanOptions { policy: "none".into(), ..options(&["u1", "u2", "u3"], &[]) },
                verdict: "This schedule cannot pay: it saves 1.7 % of the compute, because parameter \"u0.weight\" keeps \
                          the backward pass alive; frozen as well, it would save 4.5 %.",
                notes: &[
                    "parameter \"u0.weight\" keeps the backward pass alive in epochs 1 to 10, so freezes that come \
                     after it in the model save only weight gradients",
                ],
            },
        ];
        let mut failures = Vec::new();
        for Case { model, epochs, options, verdict, notes } in cases {
            let summary = build(&model.inputs(epochs), &options).unwrap().summary;
            let pays = !verdict.contains("cannot pay");
            if summary.verdict != verdict || summary.notes != notes || summary.pays != pays {
                failures.push(format!("{}\n  {:?}", summary.verdict, summary.notes));
            }
        }
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }
}
