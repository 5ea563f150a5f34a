//! What differs between two plans, and between the jobs that they are of.

#[cfg(feature = "cli")]
mod table;
#[cfg(all(test, feature = "cli"))]
mod tests;

#[cfg(feature = "cli")]
pub use table::diff_table;

use crate::plan::{EpochPlan, FreezePlan};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What the field `format` of a difference as JSON says.
pub const DIFF_FORMAT: &str = "freeze-plan-diff/1";

/// One of two plans.
#[derive(Clone, Debug)]
pub struct Side {
    /// What it is called.
    pub label: String,
    /// The plan.
    pub plan: FreezePlan,
    /// The settings of its run by key, where it is of one.
    pub settings: Option<BTreeMap<String, String>>,
}

/// What differs between two plans. Only what differs is listed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlanDiff {
    /// [`DIFF_FORMAT`].
    pub format: &'static str,
    /// What the first plan is called.
    pub a: String,
    /// What the second plan is called.
    pub b: String,
    /// Whether plans and settings are the same.
    pub same: bool,
    /// Fields of the model's identity.
    pub model: Vec<Changed>,
    /// The policy's name and settings.
    pub policy: Vec<Changed>,
    /// What costs are counted for.
    pub assumed: Vec<Changed>,
    /// Paths of units with their parameters, where a side has no such unit, has it elsewhere or with other parameters.
    pub units: Vec<Changed>,
    /// Numbers of the plans as a whole, and of their epochs.
    pub summary: Vec<Changed>,
    /// When parameters freeze.
    pub freezes: Vec<Freezes>,
    /// Epochs in which something is predicted otherwise or learning rates differ.
    pub epochs: Vec<Stretch>,
    /// Keys of the jobs.
    pub job: Vec<Changed>,
}

/// A field with two values.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Changed {
    /// Its name.
    pub name: String,
    /// Its value in the first plan; null where it has none.
    pub a: Value,
    /// Its value in the second plan; null where it has none.
    pub b: Value,
}

/// When parameters of a unit freeze, where that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Freezes {
    /// Path of the unit; null for running statistics and outputs of Dropout nodes.
    pub unit: Option<String>,
    /// Names.
    pub names: Vec<String>,
    /// Whether these are all parameters of the unit.
    pub whole: bool,
    /// The epochs in which the first plan freezes them, such as `3-5, 8-10`; `3+20` is epoch 3 after 20 steps. Empty for
    /// never.
    pub a: String,
    /// The same in the second plan.
    pub b: String,
    /// What the second plan does: freeze them `earlier`, `later`, `never`, or `too` where the first never does; `otherwise`
    /// where they first freeze at the same time.
    pub change: &'static str,
}

/// Epochs in a row that differ in the same way.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stretch {
    /// First epoch, from 1.
    pub from_epoch: usize,
    /// Last epoch.
    pub to_epoch: usize,
    /// The first plan; null where it has no such epoch.
    pub a: Option<StretchSide>,
    /// The second plan; null where it has no such epoch.
    pub b: Option<StretchSide>,
    /// Parameters whose learning rate has another factor.
    pub other_rates: usize,
}

/// What a plan says of an epoch, at its start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StretchSide {
    /// Units of which every parameter is frozen.
    pub frozen_units: usize,
    /// Mean over the epoch of the flops of a step relative to one with nothing frozen.
    pub step_cost: f64,
    /// Bytes of gradients and optimizer slots.
    pub state_bytes: u64,
    /// Bytes that the forward pass makes and the backward pass reads.
    pub activation_bytes: u64,
}

/// Compares two plans.
pub fn plan_diff(a: &Side, b: &Side) -> PlanDiff {
    let (first, second) = (&a.plan, &b.plan);
    let length = |plan: &FreezePlan| Value::from(plan.epochs.len());
    let mut summary = changed(&first.summary, &second.summary);
    summary.extend(changed(&first.last, &second.last).into_iter().filter(|row| row.name != "frozen").map(|row| {
        let name = format!("final.{}", row.name);
        Changed { name, ..row }
    }));
    if first.epochs.len() != second.epochs.len() {
        summary.insert(0, Changed { name: "epochs".into(), a: length(first), b: length(second) });
    }
    let job = match (&a.settings, &b.settings) {
        (Some(a), Some(b)) => changed(a, b),
        _ => Vec::new(),
    };
    PlanDiff {
        format: DIFF_FORMAT,
        a: a.label.clone(),
        b: b.label.clone(),
        same: first == second && job.is_empty(),
        model: changed(&first.model, &second.model),
        policy: changed(&first.policy, &second.policy),
        assumed: changed(&first.assumed, &second.assumed),
        units: units(first, second),
        summary,
        freezes: freezes(first, second),
        epochs: epochs(first, second),
        job,
    }
}

/// Returns the fields that differ; of fields of fields only those.
fn changed(a: &impl Serialize, b: &impl Serialize) -> Vec<Changed> {
    let fields = |value: Value| {
        let mut fields = Vec::new();
        flatten(String::new(), value, &mut fields);
        fields
    };
    let value = |plain: serde_json::Result<Value>| plain.expect("invariant: plain data with string keys");
    let [a, b] = [fields(value(serde_json::to_value(a))), fields(value(serde_json::to_value(b)))];
    let of = |fields: &[(String, Value)]| fields.iter().cloned().collect::<HashMap<String, Value>>();
    let (in_a, in_b) = (of(&a), of(&b));
    let names =
        a.iter().map(|field| &field.0).chain(b.iter().map(|field| &field.0).filter(|name| !in_a.contains_key(*name)));
    names
        .filter(|name| in_a.get(*name) != in_b.get(*name))
        .map(|name| {
            let get = |fields: &HashMap<String, Value>| fields.get(name).cloned().unwrap_or_default();
            Changed { name: name.clone(), a: get(&in_a), b: get(&in_b) }
        })
        .collect()
}

fn flatten(path: String, value: Value, out: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(object) => object.into_iter().for_each(|(key, value)| {
            let path = if path.is_empty() { key } else { format!("{path}.{key}") };
            flatten(path, value, out);
        }),
        value => out.push((path, value)),
    }
}

fn units(a: &FreezePlan, b: &FreezePlan) -> Vec<Changed> {
    let of = |plan: &FreezePlan| -> Vec<(String, Value)> {
        let entry = |unit: &crate::plan::PlannedUnit| {
            let flops = unit.flops.total();
            let class = unit.class.as_str();
            let value = serde_json::json!({
                "index": unit.index, "class": class, "parameters": unit.parameters, "elements": unit.elements, "flops": flops,
            });
            (unit.path.clone(), value)
        };
        plan.units.iter().map(entry).collect()
    };
    let (a, b) = (of(a), of(b));
    let map = |units: &[(String, Value)]| units.iter().cloned().collect::<HashMap<_, _>>();
    let (in_a, in_b) = (map(&a), map(&b));
    let only_b = b.iter().map(|unit| &unit.0).filter(|path| !in_a.contains_key(*path));
    a.iter()
        .map(|unit| &unit.0)
        .chain(only_b)
        .filter(|path| in_a.get(*path) != in_b.get(*path))
        .map(|path| {
            let get = |units: &HashMap<String, Value>| units.get(path).cloned().unwrap_or_default();
            Changed { name: path.clone(), a: get(&in_a), b: get(&in_b) }
        })
        .collect()
}

/// Where a name is frozen: from a point on, up to another one.
#[derive(Clone, Debug, PartialEq)]
struct Frozen {
    from: (usize, usize),
    to: (usize, usize),
}

/// Returns the stretches in which each name is frozen. A point is an epoch and the steps of it that come before.
fn frozen(plan: &FreezePlan) -> HashMap<&str, Vec<Frozen>> {
    let mut frozen: HashMap<&str, Vec<Frozen>> = HashMap::new();
    let stretches: Vec<&EpochPlan> = plan.epochs.iter().flat_map(EpochPlan::stretches).collect();
    let end = (plan.epochs.len() + 1, 0);
    for (position, stretch) in stretches.iter().enumerate() {
        let from = (stretch.epoch, stretch.after);
        let to = stretches.get(position + 1).map_or(end, |next| (next.epoch, next.after));
        for name in stretch.held() {
            let known = frozen.entry(name).or_default();
            match known.last_mut().filter(|last| last.to == from) {
                Some(last) => last.to = to,
                None => known.push(Frozen { from, to }),
            }
        }
    }
    frozen
}

fn shown(stretches: &[Frozen]) -> String {
    let one = |Frozen { from, to }: &Frozen| {
        let start = if from.1 == 0 { from.0.to_string() } else { format!("{}+{}", from.0, from.1) };
        let end = if to.1 == 0 { (to.0 - 1).to_string() } else { format!("{}+{}", to.0, to.1) };
        if start == end { start } else { format!("{start}-{end}") }
    };
    stretches.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn freezes(a: &FreezePlan, b: &FreezePlan) -> Vec<Freezes> {
    let (in_a, in_b) = (frozen(a), frozen(b));
    let none: Vec<Frozen> = Vec::new();
    let [a_of, b_of] = [&in_a, &in_b].map(|frozen| |name: &str| frozen.get(name).unwrap_or(&none));
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut rows: Vec<Freezes> = Vec::new();
    let mut add = |unit: Option<&str>, names: &mut dyn Iterator<Item = &str>| {
        let names: Vec<&str> = names.collect();
        let first_row = rows.len();
        for name in &names {
            let (before, after) = (a_of(name), b_of(name));
            if before == after {
                continue;
            }
            let (a, b) = (shown(before), shown(after));
            let alike = rows.iter_mut().skip(first_row).find(|row| row.a == a && row.b == b);
            match alike {
                Some(row) => row.names.push((*name).into()),
                None => rows.push(Freezes {
                    unit: unit.map(String::from),
                    names: vec![(*name).into()],
                    whole: false,
                    change: change(before, after),
                    a,
                    b,
                }),
            }
        }
        rows.iter_mut().skip(first_row).for_each(|row| row.whole = row.names.len() == names.len());
    };
    for unit in a.units.iter().chain(&b.units) {
        let mut names = unit.parameters.iter().map(String::as_str).filter(|name| seen.insert(name));
        add(Some(&unit.path), &mut names);
    }
    let mut others: Vec<&str> = in_a.keys().chain(in_b.keys()).copied().filter(|name| !seen.contains(name)).collect();
    others.sort_unstable();
    others.dedup();
    add(None, &mut others.into_iter());
    rows
}

fn change(a: &[Frozen], b: &[Frozen]) -> &'static str {
    let first = |stretches: &[Frozen]| stretches.first().map(|stretch| stretch.from);
    match (first(a), first(b)) {
        (Some(_), None) => "never",
        (None, Some(_)) => "too",
        (Some(a), Some(b)) if b < a => "earlier",
        (Some(a), Some(b)) if b > a => "later",
        _ => "otherwise",
    }
}

fn epochs(a: &FreezePlan, b: &FreezePlan) -> Vec<Stretch> {
    let side = |plan: &FreezePlan, entry: &EpochPlan| StretchSide {
        frozen_units: entry.frozen_units,
        step_cost: entry.mean(plan.assumed.steps_per_epoch, |predicted| predicted.step_cost),
        state_bytes: entry.predicted.state_bytes,
        activation_bytes: entry.predicted.activation_bytes,
    };
    let mut rows: Vec<Stretch> = Vec::new();
    for index in 0..a.epochs.len().max(b.epochs.len()) {
        let (before, after) = (a.epochs.get(index), b.epochs.get(index));
        let rates = |entry: &EpochPlan| -> Vec<BTreeMap<String, f64>> {
            entry.stretches().map(|stretch| stretch.lr_scale.clone()).collect()
        };
        let predicted = |entry: &EpochPlan| -> Vec<_> {
            entry.stretches().map(|stretch| (stretch.after, stretch.frozen_units, stretch.predicted)).collect()
        };
        if before.map(rates) == after.map(rates) && before.map(predicted) == after.map(predicted) {
            continue;
        }
        let (of_a, of_b) = (before.map(|entry| side(a, entry)), after.map(|entry| side(b, entry)));
        let other_rates = match (before, after) {
            (Some(before), Some(after)) => {
                let names: BTreeSet<&String> = before.lr_scale.keys().chain(after.lr_scale.keys()).collect();
                let factor = |entry: &EpochPlan, name: &str| entry.lr_scale.get(name).copied().unwrap_or(1.0);
                names.into_iter().filter(|name| factor(before, name) != factor(after, name)).count()
            }
            _ => 0,
        };
        let alike =
            |row: &&mut Stretch| row.to_epoch == index && (row.a, row.b, row.other_rates) == (of_a, of_b, other_rates);
        match rows.last_mut().filter(alike) {
            Some(row) => row.to_epoch = index + 1,
            None => rows.push(Stretch { from_epoch: index + 1, to_epoch: index + 1, a: of_a, b: of_b, other_rates }),
        }
    }
    rows
}
