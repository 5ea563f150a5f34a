//! Shared items that are nested: the program over the deepest candidate that trains.
//!
//! When of every two shared items one's candidates include the other's, a candidate needs the first
//! `l` of them, its *level*, and a selection needs as many as its deepest candidate. So for each level there
//! is a knapsack: of the candidates up to that level, by what each needs alone, in what the level's shared
//! items leave of the limit. They are solved in the order of their relaxations, as long as these are above
//! the best selection.
//!
//! An item of two sets fits in where one set is a single candidate and the other one is all that are
//! deeper: the candidate pays it unless it is among the deepest.

use super::knapsack::{Knapsack, Member};
use super::reduce::{Joint, Reduced};
use super::{Effort, Found};
use crate::cost::Bits;
use std::cmp::Reverse;

/// How many partial selections may be looked at in all knapsacks together.
const WORK: usize = 4_000_000;

/// The candidates by level.
pub(super) struct Chain {
    levels: Vec<usize>,
    /// What a candidate pays besides when a deeper one trains.
    joint: Vec<u64>,
    /// What the shared items of each level leave of the limit.
    rooms: Vec<u64>,
}

impl Chain {
    /// Returns the levels; `None` where the items are not nested.
    pub(super) fn of(reduced: &Reduced) -> Option<Chain> {
        let joint: Vec<(usize, &Bits, u64)> = reduced.joint.iter().map(single).collect::<Option<_>>()?;
        let mut sets: Vec<(&Bits, u64)> = reduced.shared.iter().map(|item| (&item.members, item.cost)).collect();
        sets.extend(joint.iter().map(|(_, deeper, _)| (*deeper, 0)));
        sets.sort_by_key(|(members, _)| Reverse((members.count(), *members)));
        sets.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            kept.1 = if same { kept.1.saturating_add(later.1) } else { kept.1 };
            same
        });
        if !sets.is_sorted_by(|outer, inner| inner.0.is_within(outer.0)) {
            return None;
        }
        let level = |candidate| sets.partition_point(|(members, _)| members.contains(candidate));
        let levels: Vec<usize> = (0..reduced.values.len()).map(level).collect();
        let mut more = vec![0u64; levels.len()];
        for (candidate, deeper, cost) in joint {
            if sets.get(levels[candidate]).is_none_or(|(members, _)| *members != deeper) {
                return None;
            }
            more[candidate] = more[candidate].saturating_add(cost);
        }
        let costs = std::iter::once(0).chain(sets.iter().map(|(_, cost)| *cost));
        let rooms = costs.scan(reduced.capacity, |room, cost| {
            *room = room.checked_sub(cost)?;
            Some(*room)
        });
        Some(Chain { rooms: rooms.collect(), joint: more, levels })
    }

    /// Returns the best selection, with the bound that no other exceeds.
    pub(super) fn solve(&self, reduced: &Reduced, effort: &Effort) -> Found {
        let mut used = vec![false; self.rooms.len()];
        self.levels.iter().filter_map(|level| used.get_mut(*level).map(|used| *used = true)).for_each(drop);
        let order = Knapsack::new(0, self.members(reduced, usize::MAX, 0), &reduced.values);
        let relaxed = |level: usize| order.relaxed(self.rooms[level], |candidate| self.levels[candidate] <= level);
        let deepest = (0..used.len()).filter(|level| used[*level]);
        let mut bounds: Vec<(f64, usize)> = deepest.map(|level| (relaxed(level), level)).collect();
        bounds.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut work = WORK;
        let mut solve = |level: usize, floor: f64| {
            let knapsack = Knapsack::new(self.rooms[level], self.members(reduced, level, 1), &reduced.values);
            knapsack.solve(effort.resolution, floor, &mut work)
        };
        let (mut best, mut deepest) = (Found::default(), 0);
        let mut lost = 0.0f64;
        for (bound, level) in &bounds {
            if *bound <= best.value + reduced.slack {
                break;
            }
            let found = solve(*level, best.value);
            lost = lost.max(found.bound);
            if found.value > best.value {
                (best, deepest) = (found, *level);
            }
        }
        // The same value may be had nearer to the output.
        let same = best.value - reduced.slack;
        let mut nearer: Vec<usize> =
            bounds.iter().filter(|(bound, _)| *bound >= same).map(|(_, level)| *level).collect();
        nearer.retain(|level| *level < deepest);
        nearer.sort_unstable();
        let nearer = nearer.into_iter().map(|level| solve(level, same - reduced.slack));
        if let Some(found) = nearer.into_iter().find(|found| found.value >= same) {
            best = found;
        }
        Found { bound: lost.max(best.value), ..best }
    }

    /// Returns the candidates up to a level; those below it pay what they do besides, `times`.
    fn members(&self, reduced: &Reduced, deepest: usize, times: u64) -> Vec<Member> {
        let inside = self.levels.iter().enumerate().filter(|(_, level)| **level <= deepest);
        let member = |(candidate, level): (usize, &usize)| {
            let more = if *level < deepest { self.joint[candidate].saturating_mul(times) } else { 0 };
            Member { candidate, cost: reduced.own[candidate].saturating_add(more) }
        };
        inside.map(member).collect()
    }
}

/// Returns the single candidate of an item of two sets, the other set, and its cost.
fn single(item: &Joint) -> Option<(usize, &Bits, u64)> {
    let (one, others) = if item.and.count() == 1 { (&item.and, &item.any) } else { (&item.any, &item.and) };
    let candidate = one.iter().next().filter(|_| one.count() == 1)?;
    Some((candidate, others, item.cost))
}
