//! The heuristic for any graph.
//!
//! A set of shared items is paid in advance; what then costs only its own is a knapsack. The idea:
//! in a deep graph nearly all shared items of a selection are those of its deepest candidate, and few
//! more those of its neighbours on parallel branches. So:
//!
//! 1. *Closures*: the sets are the shared items of each single candidate, in the order of the
//!    relaxation of their knapsacks, as long as this is above the best selection; then those of the linear
//!    relaxation (`relax`).
//! 2. *Unions*: the items of the best selection and of the most promising closures grow by those of
//!    one more candidate, as long as the relaxation grows.
//! 3. *Improvement*: the items that the best selection really needs are paid and the knapsack solved
//!    again; what fits is added; a candidate gives way to a better one.
//!
//! What two sets of candidates need together counts for each of the second set, until the selection is priced.

use super::knapsack::{Knapsack, Member};
use super::reduce::Reduced;
use super::relax::Relaxed;
use super::{Effort, Found};
use crate::cost::Bits;
use std::collections::BTreeSet;

/// How many knapsacks are solved for closures at most.
const CLOSURES: usize = 64;
/// From how many closures unions grow.
const SEEDS: usize = 8;
/// How many words of bits may be looked at in each of the steps 2 and 3.
const WORK: usize = 5_000_000;
/// How many partial selections may be looked at in all knapsacks together.
const PARTIAL: usize = 4_000_000;

/// Returns a selection without a bound.
pub(super) fn solve(reduced: &Reduced, relaxed: Option<&Relaxed>, effort: &Effort) -> Found {
    let mut search = Closures::new(reduced, effort);
    let mut sets: BTreeSet<&Bits> = reduced.needs.iter().collect();
    let nothing = Bits::none(reduced.shared.len());
    sets.insert(&nothing);
    let mut closures: Vec<(f64, &Bits)> =
        sets.into_iter().map(|items| (search.relaxed(items), items)).filter(|(worth, _)| *worth > 0.0).collect();
    closures.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (worth, items) in closures.iter().take(CLOSURES) {
        if *worth > search.best.value {
            search.knapsack(items);
        }
    }
    let known = relaxed.map_or(&[][..], |relaxed| &relaxed.closures);
    for items in known {
        search.knapsack(items);
    }
    let used = reduced.needed(search.best.chosen.iter().copied());
    for items in std::iter::once(&used)
        .chain(known.iter().rev().take(SEEDS))
        .chain(closures.iter().take(SEEDS).map(|(_, items)| *items))
    {
        search.grow(items.clone());
    }
    search.improve();
    search.best
}

struct Closures<'a> {
    reduced: &'a Reduced,
    effort: &'a Effort,
    /// What each candidate costs beyond its shared items, at most.
    costs: Vec<u64>,
    /// The candidates by value for each unit of that.
    order: Vec<usize>,
    best: Found,
    /// Words of bits that may still be looked at.
    work: usize,
    /// Partial selections that the knapsacks may still look at.
    partial: usize,
}

impl<'a> Closures<'a> {
    fn new(reduced: &'a Reduced, effort: &'a Effort) -> Closures<'a> {
        let mut costs = reduced.own.clone();
        for item in &reduced.joint {
            item.and.iter().for_each(|member| costs[member] = costs[member].saturating_add(item.cost));
        }
        let mut order: Vec<usize> = (0..costs.len()).collect();
        let density = |candidate: usize| reduced.values[candidate] / costs[candidate] as f64;
        order.sort_by(|a, b| density(*b).total_cmp(&density(*a)));
        Closures { reduced, effort, costs, order, best: Found::default(), work: WORK, partial: PARTIAL }
    }

    /// Returns the room that is left when items are paid, and whom it is left for.
    fn inside<'b>(&'b self, items: &'b Bits) -> (Option<u64>, impl Iterator<Item = usize> + 'b) {
        let room = self.reduced.capacity.checked_sub(self.reduced.shared_cost(items));
        let fits = move |candidate: &usize| {
            room.is_some_and(|room| self.costs[*candidate] <= room) && self.reduced.needs[*candidate].is_within(items)
        };
        (room, self.order.iter().copied().filter(fits))
    }

    /// Returns what the candidates inside are worth at most, when parts count.
    fn relaxed(&self, items: &Bits) -> f64 {
        let (room, inside) = self.inside(items);
        let (mut room, mut worth) = (room.unwrap_or(0), 0.0);
        for candidate in inside {
            let (cost, value) = (self.costs[candidate], self.reduced.values[candidate]);
            let Some(left) = room.checked_sub(cost) else { return worth + value * room as f64 / cost as f64 };
            room = left;
            worth += value;
        }
        worth
    }

    /// Chooses the best candidates inside, and returns whether they are better than the best so far.
    fn knapsack(&mut self, items: &Bits) -> bool {
        let (Some(capacity), inside) = self.inside(items) else { return false };
        let mut inside: Vec<usize> = inside.collect();
        inside.sort_unstable();
        let members = inside.into_iter().map(|candidate| Member { candidate, cost: self.costs[candidate] });
        let knapsack = Knapsack::new(capacity, members.collect(), &self.reduced.values);
        let found = knapsack.solve(self.effort.resolution, self.best.value, &mut self.partial);
        let better = found.value > self.best.value + self.reduced.slack;
        if better {
            self.best = found;
        }
        better
    }

    fn grow(&mut self, mut items: Bits) {
        let mut worth = self.relaxed(&items);
        let words = self.reduced.values.len() * (1 + self.reduced.shared.len() / 64);
        loop {
            let mut most: Option<(f64, Bits)> = None;
            for needs in &self.reduced.needs {
                if needs.is_within(&items) {
                    continue;
                }
                let Some(left) = self.work.checked_sub(words) else { return };
                self.work = left;
                let mut more = items.clone();
                more.join(needs);
                let worth = self.relaxed(&more);
                if worth > most.as_ref().map_or(0.0, |most| most.0) {
                    most = Some((worth, more));
                }
            }
            let Some((next, more)) = most.filter(|(next, _)| *next > worth) else { return };
            (worth, items) = (next, more);
            if worth > self.best.value {
                self.knapsack(&items);
            }
        }
    }

    fn improve(&mut self) {
        self.work = WORK;
        loop {
            let used = self.reduced.needed(self.best.chosen.iter().copied());
            if !(self.knapsack(&used) || self.add() || self.exchange()) {
                return;
            }
        }
    }

    /// Adds what fits, and returns whether something did.
    fn add(&mut self) -> bool {
        let mut chosen = self.chosen();
        let before = self.best.chosen.len();
        for candidate in self.order.clone() {
            if !chosen.contains(candidate) {
                let mut more = chosen.clone();
                more.insert(candidate);
                if self.fits(&more) {
                    chosen = more;
                    self.best.chosen.push(candidate);
                    self.best.value += self.reduced.values[candidate];
                }
            }
        }
        self.best.chosen.len() > before
    }

    /// Exchanges a chosen candidate for one that is worth more, and returns whether there was one.
    fn exchange(&mut self) -> bool {
        let values = &self.reduced.values;
        let chosen = self.chosen();
        for (place, out) in self.best.chosen.clone().into_iter().enumerate() {
            let gain = |candidate: &usize| values[*candidate] - values[out] > self.reduced.slack;
            let better: Vec<usize> = self.order.iter().copied().filter(|c| !chosen.contains(*c)).filter(gain).collect();
            for candidate in better {
                let members = self.best.chosen.iter().copied().filter(|other| *other != out);
                if self.fits(&Bits::of(values.len(), members.chain([candidate]))) {
                    self.best.chosen[place] = candidate;
                    self.best.value += values[candidate] - values[out];
                    return true;
                }
            }
        }
        false
    }

    fn chosen(&self) -> Bits {
        Bits::of(self.reduced.values.len(), self.best.chosen.iter().copied())
    }

    /// Returns whether a selection is within the capacity; false when the work is done.
    fn fits(&mut self, chosen: &Bits) -> bool {
        let words = 1 + chosen.count() * (1 + self.reduced.shared.len() / 64) + self.reduced.shared.len();
        let Some(left) = self.work.checked_sub(words) else { return false };
        self.work = left;
        self.reduced.cost(chosen) <= self.reduced.capacity
    }
}
