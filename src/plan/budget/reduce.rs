//! The part of a problem that is open: free candidates that can fit, and what they need beyond what is
//! paid already.

use super::{Candidate, Item, Problem, State};
use crate::cost::Bits;
use std::collections::BTreeMap;

/// How far a sum of values may be off by rounding, as a share of the sum of all values.
const ROUNDING: f64 = 1e-12;

pub(super) struct Reduced {
    /// The position of each free candidate in the problem; they come from the output side.
    pub(super) original: Vec<usize>,
    /// What each is worth: more than 0.
    pub(super) values: Vec<f64>,
    /// What each needs alone.
    pub(super) own: Vec<u64>,
    /// What several need.
    pub(super) shared: Vec<Shared>,
    /// The positions in `shared` of what each needs.
    pub(super) needs: Vec<Bits>,
    /// What two sets of candidates need together.
    pub(super) joint: Vec<Joint>,
    /// What they may cost.
    pub(super) capacity: u64,
    /// How far a sum of values may be off by rounding.
    pub(super) slack: f64,
}

/// An item that several candidates need.
pub(super) struct Shared {
    pub(super) members: Bits,
    pub(super) cost: u64,
}

/// An item that is paid when one of `any` and one of `and` train; neither set holds the other.
pub(super) struct Joint {
    pub(super) any: Bits,
    pub(super) and: Bits,
    pub(super) cost: u64,
}

impl Reduced {
    /// Returns what is open; `None` when what trains in any case costs more than the limit.
    pub(super) fn of(problem: &Problem) -> Option<Reduced> {
        let Problem { candidates, items, base, limit } = problem;
        let forced = select(candidates, |one| one.state == State::Trains);
        let free = select(candidates, |one| one.state == State::Free && one.value.is_finite() && one.value > 0.0);
        let mut alone = vec![0u64; candidates.len()];
        let mut paid = *base;
        let mut open: Vec<(&Bits, Option<&Bits>, u64)> = Vec::new();
        for Item { cost, any, and } in items {
            let mut unmet = [Some(any), and.as_ref()].into_iter().flatten().filter(|set| !set.meets(&forced));
            match (unmet.next(), unmet.next()) {
                (None, _) => paid = paid.saturating_add(*cost),
                (Some(any), and) => {
                    open.push((any, and, *cost));
                    for position in any.iter().filter(|position| and.is_none_or(|and| and.contains(*position))) {
                        alone.get_mut(position).into_iter().for_each(|alone| *alone = alone.saturating_add(*cost));
                    }
                }
            }
        }
        let capacity = limit.checked_sub(paid)?;
        let original: Vec<usize> = free.iter().filter(|position| alone[*position] <= capacity).collect();
        let original: Vec<usize> = original.into_iter().rev().collect();
        let mut place = vec![None; candidates.len()];
        original.iter().enumerate().for_each(|(index, position)| place[*position] = Some(index));
        let count = original.len();
        let restrict = |set: &Bits| Bits::of(count, set.iter().filter_map(|position| place.get(position).copied()?));
        let mut plain: BTreeMap<Bits, u64> = BTreeMap::new();
        let mut pairs: BTreeMap<(Bits, Bits), u64> = BTreeMap::new();
        for (any, and, cost) in open.into_iter().filter(|(_, _, cost)| *cost > 0) {
            let any = restrict(any);
            let set = match and.map(restrict) {
                None => any,
                Some(and) if any.is_within(&and) => any,
                Some(and) if and.is_within(&any) => and,
                Some(and) => {
                    let pair = pairs.entry((any, and)).or_default();
                    *pair = pair.saturating_add(cost);
                    continue;
                }
            };
            let sum = plain.entry(set).or_default();
            *sum = sum.saturating_add(cost);
        }
        let mut own = vec![0u64; count];
        let mut shared = Vec::new();
        for (members, cost) in plain {
            match members.count() {
                0 => {}
                1 => members.iter().for_each(|only| own[only] = own[only].saturating_add(cost)),
                _ => shared.push(Shared { members, cost }),
            }
        }
        let mut needs = vec![Bits::none(shared.len()); count];
        for (index, item) in shared.iter().enumerate() {
            item.members.iter().for_each(|member| needs[member].insert(index));
        }
        let joint = pairs.into_iter().map(|((any, and), cost)| Joint { any, and, cost }).collect();
        let values = original.iter().filter_map(|position| candidates.get(*position)).map(|one| one.value);
        let values: Vec<f64> = values.collect();
        let slack = ROUNDING * values.iter().sum::<f64>();
        Some(Reduced { original, values, own, shared, needs, joint, capacity, slack })
    }

    /// Returns what the given shared items cost.
    pub(super) fn shared_cost(&self, items: &Bits) -> u64 {
        items.iter().fold(0, |sum, item| sum.saturating_add(self.shared[item].cost))
    }

    /// Returns the shared items that the given candidates need.
    pub(super) fn needed(&self, chosen: impl IntoIterator<Item = usize>) -> Bits {
        let mut needed = Bits::none(self.shared.len());
        chosen.into_iter().for_each(|candidate| needed.join(&self.needs[candidate]));
        needed
    }

    /// Returns what the given candidates cost.
    pub(super) fn cost(&self, chosen: &Bits) -> u64 {
        let own = chosen.iter().fold(0u64, |sum, candidate| sum.saturating_add(self.own[candidate]));
        let joint = self.joint.iter().filter(|item| item.any.meets(chosen) && item.and.meets(chosen));
        let joint = joint.fold(0u64, |sum, item| sum.saturating_add(item.cost));
        own.saturating_add(joint).saturating_add(self.shared_cost(&self.needed(chosen.iter())))
    }
}

fn select(candidates: &[Candidate], holds: impl Fn(&Candidate) -> bool) -> Bits {
    let positions = candidates.iter().enumerate().filter(|(_, one)| holds(one)).map(|(position, _)| position);
    Bits::of(candidates.len(), positions)
}
