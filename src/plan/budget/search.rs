//! Branch and bound: exact on any graph while there are few candidates.
//!
//! Depth first, from the input side, without before with: once it is known which candidate is the deepest, most
//! shared items are paid, and of selections with the same value the one nearer to the output is found first. At each node the items that are not paid are
//! divided among the candidates that are left and need them, in the proportions of the linear relaxation
//! (`relax`); a knapsack with these costs, of which parts count, bounds what they can still be worth. A candidate that does not fit any more goes: what it
//! would cost falls by no more than the room does.

use super::Found;
use super::reduce::Reduced;
use super::relax::Relaxed;

/// The most candidates.
pub(super) const MOST: usize = 64 * WORDS;

const WORDS: usize = 4;

/// A set of candidates.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Set([u64; WORDS]);

impl Set {
    fn of(members: impl Iterator<Item = usize>) -> Set {
        members.fold(Set([0; WORDS]), Set::with)
    }

    fn with(mut self, member: usize) -> Set {
        self.0[member / 64] |= 1 << (member % 64);
        self
    }

    fn without(mut self, member: usize) -> Set {
        self.0[member / 64] &= !(1 << (member % 64));
        self
    }

    fn and(self, other: Set) -> Set {
        Set(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    fn or(self, other: Set) -> Set {
        Set(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    fn meets(self, other: Set) -> bool {
        self.and(other).0 != [0; WORDS]
    }

    fn count(self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    fn members(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(index, word)| {
            let rest = std::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)));
            rest.take_while(|word| *word != 0).map(move |word| 64 * index + word.trailing_zeros() as usize)
        })
    }
}

/// Returns the best selection, starting from a known one; its bound is its value when the search ends
/// within `nodes`.
pub(super) fn solve(reduced: &Reduced, relaxed: Option<&Relaxed>, known: Found, nodes: usize) -> Found {
    let all = Set::of(0..reduced.values.len());
    let mut search = Search {
        reduced,
        items: reduced.shared.iter().map(|item| (Set::of(item.members.iter()), item.cost)).collect(),
        joint: reduced
            .joint
            .iter()
            .map(|item| (Set::of(item.any.iter()), Set::of(item.and.iter()), item.cost))
            .collect(),
        best: known.value,
        found: None,
        shares: shares(reduced, relaxed),
        nodes,
        open: f64::NEG_INFINITY,
        slack: reduced.slack,
    };
    search.visit(Set::of(std::iter::empty()), all, 0.0, f64::INFINITY);
    let Search { best, found, open, .. } = search;
    let chosen = found.map_or(known.chosen, |set| set.members().collect());
    Found { chosen, value: best, bound: open.max(best).min(known.bound.max(best)) }
}

fn shares(reduced: &Reduced, relaxed: Option<&Relaxed>) -> Vec<[f64; MOST]> {
    let mut all = vec![[0.0; MOST]; reduced.shared.len()];
    for (shares, (item, parts)) in
        all.iter_mut().zip(reduced.shared.iter().zip(relaxed.map_or(&[][..], |relaxed| &relaxed.shares)))
    {
        item.members.iter().zip(parts).for_each(|(member, part)| shares[member] = *part);
    }
    all
}

struct Search<'a> {
    reduced: &'a Reduced,
    items: Vec<(Set, u64)>,
    joint: Vec<(Set, Set, u64)>,
    /// For each item, the part that each candidate has in its cost.
    shares: Vec<[f64; MOST]>,
    best: f64,
    found: Option<Set>,
    nodes: usize,
    /// The largest bound of what was not looked at.
    open: f64,
    slack: f64,
}

impl Search<'_> {
    /// Looks at the selections that hold `chosen`, worth `value`, and some of `left`; none is worth more
    /// than `bound`.
    fn visit(&mut self, chosen: Set, left: Set, value: f64, bound: f64) {
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
        for (members, cost, shares) in self.unpaid(chosen, left) {
            let sum = shares.map_or(0.0, |shares| members.members().map(|member| shares[member]).sum());
            let equal = cost as f64 / f64::from(members.count());
            for member in members.members() {
                needs[member] = needs[member].saturating_add(cost);
                let share = shares.filter(|_| sum > 0.0).map(|shares| cost as f64 * shares[member] / sum);
                parts[member] += share.unwrap_or(equal);
            }
        }
        let mut fitting = Vec::with_capacity(MOST);
        for member in left.members() {
            let own = self.reduced.own[member];
            if needs[member].saturating_add(own) <= room {
                fitting.push((member, parts[member] + own as f64));
            }
        }
        let Some((deepest, _)) = fitting.last().copied() else { return self.offer(chosen, value) };
        let left = Set::of(fitting.iter().map(|(member, _)| *member));
        let values = &self.reduced.values;
        if self.cost(chosen.or(left)) <= self.reduced.capacity {
            let rest: f64 = left.members().map(|member| values[member]).sum();
            return self.offer(chosen.or(left), value + rest);
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
        let (bound, with) = (worth.min(bound), value + values[deepest]);
        let rest = left.without(deepest);
        self.visit(chosen, rest, value, bound);
        self.visit(chosen.with(deepest), rest, with, bound);
    }

    fn is_open(&self, bound: f64) -> bool {
        if self.found.is_some() { bound > self.best + self.slack } else { bound + self.slack >= self.best }
    }

    fn offer(&mut self, chosen: Set, value: f64) {
        if value > self.best || self.found.is_none() && value >= self.best {
            self.best = value;
            self.found = Some(chosen);
        }
    }

    /// Returns the items that `chosen` does not pay, with those of `left` of which any one alone
    /// would, and how the cost is divided.
    fn unpaid(&self, chosen: Set, left: Set) -> impl Iterator<Item = (Set, u64, Option<&[f64; MOST]>)> {
        let plain = self.items.iter().zip(&self.shares).filter(move |((members, _), _)| !members.meets(chosen));
        let plain = plain.map(|((members, cost), shares)| (*members, *cost, Some(shares)));
        let joint = self.joint.iter().filter_map(move |(any, and, cost)| {
            let members = match (any.meets(chosen), and.meets(chosen)) {
                (true, true) => return None,
                (true, false) => *and,
                (false, true) => *any,
                (false, false) => any.and(*and),
            };
            Some((members, *cost, None))
        });
        let open = plain.chain(joint).map(move |(members, cost, shares)| (members.and(left), cost, shares));
        open.filter(|(members, _, _)| members.count() > 0)
    }

    fn cost(&self, chosen: Set) -> u64 {
        let own = chosen.members().fold(0u64, |sum, member| sum.saturating_add(self.reduced.own[member]));
        let plain = self.items.iter().filter(|(members, _)| members.meets(chosen));
        let sum = plain.fold(own, |sum, (_, cost)| sum.saturating_add(*cost));
        let joint = self.joint.iter().filter(|(any, and, _)| any.meets(chosen) && and.meets(chosen));
        joint.fold(sum, |sum, (_, _, cost)| sum.saturating_add(*cost))
    }
}
