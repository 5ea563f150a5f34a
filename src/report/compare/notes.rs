//! What a reader must know of compared plans beside their numbers.

use super::Compared;
use crate::plan::{FreezePlan, SHOWN_LATER};
use crate::report::human::{assumed, conduct, plural};
use std::collections::BTreeSet;

/// Returns what is not in the numbers, plan by plan; what several plans share comes once.
/// Each with the numbers of the plans, such as `1, 3`.
pub(super) fn notes(plans: &[Compared]) -> Vec<(String, String)> {
    let mut notes: Vec<(String, Vec<usize>)> = Vec::new();
    for (index, compared) in plans.iter().enumerate() {
        let later = compared.plan.summary.notes.iter().any(|note| note == SHOWN_LATER);
        let own = later.then(|| SHOWN_LATER.to_string()).into_iter();
        let own = own.chain(compared.caution()).chain(alive(compared)).chain(conduct(&compared.plan));
        for note in own.chain(differs(compared, plans)) {
            match notes.iter_mut().find(|(known, _)| *known == note) {
                Some((_, of)) => of.push(index + 1),
                None => notes.push((note, vec![index + 1])),
            }
        }
    }
    let list = |of: Vec<usize>| of.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    notes.into_iter().map(|(note, of)| (note, list(of))).collect()
}

/// Returns what keeps the backward pass of a plan alive.
fn alive(compared: &Compared) -> Option<String> {
    const MOST: usize = 3;
    let names = &compared.plan.summary.keeps_backward_alive;
    let more = if names.len() > MOST { format!(" and {} more", names.len() - MOST) } else { String::new() };
    let verb = if names.len() == 1 { "keeps" } else { "keep" };
    let shown: Vec<&str> = names.iter().take(MOST).map(String::as_str).collect();
    (!names.is_empty()).then(|| format!("{}{more} {verb} the backward pass alive below frozen parts", shown.join(", ")))
}

/// Returns what a plan is made for that the first one is not.
fn differs(compared: &Compared, plans: &[Compared]) -> Vec<String> {
    let Some(first) = plans.first().map(|compared| &compared.plan) else { return Vec::new() };
    let plan = &compared.plan;
    let kind = |plan: &FreezePlan| {
        let kind = plan.policy.settings.get("unit").and_then(|unit| unit.as_str());
        kind.map_or_else(|| "other".to_string(), String::from)
    };
    let mut notes = Vec::new();
    let kinds: BTreeSet<String> = plans.iter().map(|compared| kind(&compared.plan)).collect();
    if kinds.len() > 1 {
        notes.push(format!("units of kind {} ({})", kind(plan), plan.units.len()));
    }
    if plan.epochs.len() != first.epochs.len() {
        notes.push(format!("has {}, plan 1 has {}", plural(plan.epochs.len() as u64, "epoch"), first.epochs.len()));
    }
    if assumed(plan) != assumed(first) || plan.assumed.slots != first.assumed.slots {
        notes.push(format!("bytes are of {} and {} optimizer tensors a parameter", assumed(plan), plan.assumed.slots));
    }
    notes
}
