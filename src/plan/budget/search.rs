//! Branch and bound: exact on any graph while there are few candidates.
//!
//! Depth first, from the output side, with before without. At each node the items that are not paid are
//! divided among the candidates that are left and need them; the linear relaxation of the knapsack with these
//! costs bounds what they can still be worth. A candidate that does not fit any more goes: what it
//! would cost falls by no more than the room does.

use super::Found;
use super::reduce::Reduced;

/// The most candidates: a set of them is a word.
pub(super) const MOST: usize = 64;

/// Returns the best selection, starting from a known one; its bound is its value when the search ends
/// within `nodes`.
pub(super) fn solve(reduced: &Reduced, known: Found, nodes: usize) -> Found {
    let all = known_bits(0..reduced.values.len());
    let mut search = Search {
        reduced,
        items: reduced.shared.iter().map(|item| (known_bits(item.members.iter()), item.cost)).collect(),
        joint: reduced
            .joint
            .iter()
            .map(|item| (known_bits(item.any.iter()), known_bits(item.and.iter()), item.cost))
            .collect(),
        best: known.value,
        found: None,
        nodes,
        open: f64::NEG_INFINITY,
        slack: reduced.slack(),
    };
    search.visit(0, all, 0.0, f64::INFINITY);
    let Search { best, found, open, .. } = search;
    let chosen = found.map_or(known.chosen, |set| members(set).collect());
    Found { chosen, value: best, bound: open.max(best).min(known.bound.max(best)) }
}

fn known_bits(members: impl Iterator<Item = usize>) -> u64 {
    members.fold(0, |set, member| set | 1 << member)
}

fn members(set: u64) -> impl Iterator<Item = usize> {
    let rest = std::iter::successors(Some(set), |set| Some(set & set.wrapping_sub(1)));
    rest.take_while(|set| *set != 0).map(|set| set.trailing_zeros() as usize)
}

struct Search<'a> {
    reduced: &'a Reduced,
    items: Vec<(u64, u64)>,
    joint: Vec<(u64, u64, u64)>,
    best: f64,
    found: Option<u64>,
    nodes: usize,
    /// The largest bound of what was not looked at.
    open: f64,
    slack: f64,
}

impl Search<'_> {
    /// Looks at the selections that hold `chosen`, worth `value`, and some of `left`; none is worth more
    /// than `bound`.
    fn visit(&mut self, chosen: u64, left: u64, value: f64, bound: f64) {
        if !self.is_open(bound) {
            return;
        }
        if self.nodes == 0 {
            self.open = self.open.max(bound);
            return;
        }
        self.nodes -= 1;
        let Some(room) = self.reduced.capacity.checked_sub(self.cost(chosen)) else { return };
        let mut needs = [0u64; MOST];
        let mut parts = [0f64; MOST];
        for (members, cost) in self.unpaid(chosen, left) {
            let part = cost as f64 / f64::from(members.count_ones());
            for member in self::members(members) {
                needs[member] = needs[member].saturating_add(cost);
                parts[member] += part;
            }
        }
        let mut fitting = Vec::with_capacity(MOST);
        for member in members(left) {
            let own = self.reduced.own[member];
            if needs[member].saturating_add(own) <= room {
                fitting.push((member, parts[member] + own as f64));
            }
        }
        let Some((first, _)) = fitting.first().copied() else { return self.offer(chosen, value) };
        let left = known_bits(fitting.iter().map(|(member, _)| *member));
        let values = &self.reduced.values;
        if self.cost(chosen | left) <= self.reduced.capacity {
            let rest: f64 = members(left).map(|member| values[member]).sum();
            return self.offer(chosen | left, value + rest);
        }
        fitting.sort_by(|a, b| (values[b.0] / b.1).total_cmp(&(values[a.0] / a.1)));
        let (mut room, mut worth) = (room as f64, value);
        for (member, cost) in fitting {
            if cost > room {
                worth += values[member] * room / cost;
                break;
            }
            room -= cost;
            worth += values[member];
        }
        let (bound, first_value) = (worth.min(bound), value + values[first]);
        let rest = left & !(1 << first);
        self.visit(chosen | 1 << first, rest, first_value, bound);
        self.visit(chosen, rest, value, bound);
    }

    fn is_open(&self, bound: f64) -> bool {
        if self.found.is_some() { bound > self.best + self.slack } else { bound + self.slack >= self.best }
    }

    fn offer(&mut self, chosen: u64, value: f64) {
        if value > self.best || self.found.is_none() && value >= self.best {
            self.best = value;
            self.found = Some(chosen);
        }
    }

    /// Returns the items that `chosen` does not pay, with those of `left` of which any one alone
    /// would.
    fn unpaid(&self, chosen: u64, left: u64) -> impl Iterator<Item = (u64, u64)> {
        let plain = self.items.iter().filter(move |(members, _)| members & chosen == 0).copied();
        let joint = self.joint.iter().filter_map(move |(any, and, cost)| {
            let members = match (any & chosen != 0, and & chosen != 0) {
                (true, true) => return None,
                (true, false) => *and,
                (false, true) => *any,
                (false, false) => any & and,
            };
            Some((members, *cost))
        });
        plain.chain(joint).map(move |(members, cost)| (members & left, cost)).filter(|(members, _)| *members != 0)
    }

    fn cost(&self, chosen: u64) -> u64 {
        let own = members(chosen).fold(0u64, |sum, member| sum.saturating_add(self.reduced.own[member]));
        let plain = self.items.iter().filter(|(members, _)| members & chosen != 0);
        let sum = plain.fold(own, |sum, (_, cost)| sum.saturating_add(*cost));
        let joint = self.joint.iter().filter(|(any, and, _)| any & chosen != 0 && and & chosen != 0);
        joint.fold(sum, |sum, (_, _, cost)| sum.saturating_add(*cost))
    }
}
