//! Which candidates train when a step has a budget: the most value under a limit of the cost.
//!
//! A candidate is a tensor or a unit. Its training needs items: the weight gradient of each of its
//! parameters, its optimizer slots, and all that the gradient passes on the way to it. Candidates
//! share items, and an item is paid once, so the cost of a selection is the cost of the *union* of
//! what its candidates need ([`Problem::cost`]). Where every two shared items are nested, the graph is a
//! chain for this purpose, and the problem is that of GreenTrainer (Huang et al., ICLR 2024).
//!
//! How it is solved, by the structure of the shared items:
//!
//! | structure | method | proven optimal |
//! |---|---|---|
//! | chain | for each candidate that may be the deepest, a 0/1 knapsack of those before it by their own costs (`chain`, `knapsack`) | while no more than [`Effort::resolution`] partial selections stay in question |
//! | any, up to 256 candidates | branch and bound (`search`), from the heuristic's result | when it ends within [`Effort::nodes`] |
//! | any | heuristic (`closures`): pay the needs of a candidate, of a few, or of a closure of the linear relaxation (`relax`, by minimum cuts) in advance and solve the knapsack of all that then costs only its own; then exchanges | where the result meets the bound |
//!
//! The bound is the dynamic program's or that of the search; for the heuristic, the linear relaxation up to
//! 300,000 pairs of a shared item and a candidate, and simpler ones (`bound`).
//!
//! Quantisation: GreenTrainer rounds every cost to a thousandth of the total, so its selection may be
//! neither the best nor within the limit. Here costs stay exact, and the resolution limits how many
//! partial selections of a knapsack compete: when there are more, those that can come to the most go on.
//! The limit is kept exactly in any case; the value that may have been lost is in
//! [`Selection::bound`], and [`Selection::optimal`] is true only where the bound is met, up to the
//! rounding of sums (`1e-12` of the sum of all values).
//!
//! The same problem always has the same answer. Of selections with the same value, the dynamic program and the
//! search go for one nearer to the output; the heuristic, for the one that it finds first.

mod bound;
mod chain;
mod closures;
mod knapsack;
mod reduce;
mod relax;
mod search;
#[cfg(test)]
mod tests;

use crate::cost::{Bits, Needs, Reach};
use chain::Chain;
use reduce::Reduced;

/// Whether a candidate may be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It trains when it is chosen.
    #[default]
    Free,
    /// It trains in any case.
    Trains,
    /// It is frozen in any case.
    Frozen,
}

/// A tensor or a unit that may train.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Candidate {
    /// What its training is worth. One that is worth nothing, or less, or no finite number, is not chosen.
    pub value: f64,
    /// Whether it may be chosen.
    pub state: State,
}

/// A part of the cost that is paid once.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// What it costs, in the unit of the limit.
    pub cost: u64,
    /// It is paid when one of these candidates trains, by position ..
    pub any: Bits,
    /// .. and one of these, if there are some.
    pub and: Option<Bits>,
}

/// The most value under a limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problem {
    /// The candidates, from the input side.
    pub candidates: Vec<Candidate>,
    /// What they need.
    pub items: Vec<Item>,
    /// What is paid whatever is chosen.
    pub base: u64,
    /// The most that all together may cost.
    pub limit: u64,
}

/// How hard to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Partial selections that a knapsack keeps at most; memory and time grow with it.
    pub resolution: usize,
    /// Nodes that branch and bound visits at most.
    pub nodes: usize,
}

impl Default for Effort {
    fn default() -> Effort {
        Effort { resolution: 1000, nodes: 20_000 }
    }
}

/// What trains.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// For each candidate, whether it trains.
    pub chosen: Vec<bool>,
    /// Sum of the finite values of what trains.
    pub value: f64,
    /// What it costs, exactly.
    pub cost: u64,
    /// No selection under the limit has a larger value.
    pub bound: f64,
    /// Whether the bound is met.
    pub optimal: bool,
    /// Whether the cost is within the limit. It is not only where what trains in any case costs more:
    /// then nothing else trains.
    pub fits: bool,
}

impl Problem {
    /// Returns the problem of choosing sets of parameters under a limit.
    ///
    /// `members` are the parameters of each candidate, by position in [`Reach::parameters`]; a parameter that
    /// several candidates share trains when one of them does. `always` train besides; a parameter that is in
    /// neither is frozen. `price` says what of a cost counts, and must be a sum of its parts: flops of the
    /// backward pass, say, or bytes.
    pub fn of(
        reach: &Reach,
        candidates: Vec<Candidate>,
        members: &[Bits],
        always: &Bits,
        price: impl Fn(&Needs) -> u64,
        limit: u64,
    ) -> Problem {
        let mut holders: Vec<Vec<usize>> = vec![Vec::new(); reach.parameters().len()];
        for (index, parameters) in members.iter().enumerate() {
            for parameter in parameters.iter() {
                holders.get_mut(parameter).into_iter().for_each(|holders| holders.push(index));
            }
        }
        // `None` where it is met in any case.
        let of = |parameters: &Bits| {
            let holders = parameters.iter().filter_map(|parameter| holders.get(parameter)).flatten().copied();
            (!parameters.meets(always)).then(|| Bits::of(candidates.len(), holders))
        };
        let mut base = price(&reach.constant());
        let mut items = Vec::new();
        for item in reach.items() {
            let cost = price(&item.needs);
            let sets = [of(&item.any), item.and.as_ref().and_then(|parameters| of(parameters))];
            let mut sets = sets.into_iter().flatten();
            match (sets.next(), sets.next()) {
                (None, _) => base = base.saturating_add(cost),
                (Some(any), _) if any.is_empty() => {}
                (Some(any), and) => items.push(Item { cost, any, and }),
            }
        }
        Problem { candidates, items, base, limit }
    }

    /// Returns what a step costs in which exactly the given candidates train.
    pub fn cost(&self, trains: &[bool]) -> u64 {
        let positions = trains.iter().enumerate().filter(|(_, trains)| **trains).map(|(index, _)| index);
        let trains = Bits::of(self.candidates.len(), positions);
        let paid =
            |item: &&Item| item.any.meets(&trains) && item.and.as_ref().is_none_or(|others| others.meets(&trains));
        self.items.iter().filter(paid).fold(self.base, |sum, item| sum.saturating_add(item.cost))
    }

    /// Returns the selection with the most value that was found under the limit.
    pub fn solve(&self, effort: &Effort) -> Selection {
        let mut chosen: Vec<bool> = self.candidates.iter().map(|one| one.state == State::Trains).collect();
        let worth = |chosen: &[bool]| {
            let values = self.candidates.iter().zip(chosen).filter(|(_, chosen)| **chosen).map(|(one, _)| one.value);
            values.filter(|value| value.is_finite()).sum::<f64>()
        };
        let forced = worth(&chosen);
        let Some(reduced) = Reduced::of(self) else {
            let cost = self.cost(&chosen);
            return Selection { chosen, value: forced, cost, bound: forced, optimal: true, fits: cost <= self.limit };
        };
        let found = reduced.solve(effort);
        for position in found.chosen.iter().filter_map(|free| reduced.original.get(*free)) {
            chosen[*position] = true;
        }
        let (value, cost) = (worth(&chosen), self.cost(&chosen));
        let optimal = found.bound <= found.value + reduced.slack;
        let bound = if optimal { value } else { (forced + found.bound).max(value) };
        Selection { chosen, value, cost, bound, optimal, fits: cost <= self.limit }
    }
}

/// A selection of free candidates, with a bound on what others are worth.
#[derive(Clone, Debug, Default)]
struct Found {
    chosen: Vec<usize>,
    value: f64,
    bound: f64,
}

impl Reduced {
    fn solve(&self, effort: &Effort) -> Found {
        let mut relaxed = None;
        let mut found = match Chain::of(self) {
            Some(chain) => chain.solve(self, effort),
            None => {
                relaxed = relax::solve(self);
                let found = closures::solve(self, relaxed.as_ref(), effort);
                Found { bound: bound::of(self, relaxed.as_ref()), ..found }
            }
        };
        if found.bound > found.value + self.slack && self.values.len() <= search::MOST {
            found = search::solve(self, relaxed.as_ref(), found, effort.nodes);
        }
        found
    }
}
