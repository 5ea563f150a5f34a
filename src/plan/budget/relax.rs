//! The linear relaxation: a price for each unit of cost, and what is worth training at it.
//!
//! At a price, the selection with the largest surplus, its value without the price of its cost, is a
//! closure that a minimum cut finds (Rhys, 1970): each candidate sends what it is worth beyond its own
//! cost, each shared item takes in its cost. The surplus with the price of the limit bounds the value of every
//! selection within it. The price with the smallest bound is where the closure's cost crosses the limit; it is
//! found from a closure on either side, each the best selection for the cost that it has.
//!
//! The flow says also how the cost of each shared item is best divided among its candidates.

use super::reduce::Reduced;
use crate::cost::Bits;
use std::collections::VecDeque;

/// The most pairs of a shared item and a candidate.
const MOST: usize = 300_000;
/// Prices that are tried at most.
const PRICES: usize = 40;
/// All values together, in units of flow.
const SCALE: f64 = (1u64 << 52) as f64;

pub(super) struct Relaxed {
    /// No selection is worth more.
    pub(super) bound: f64,
    /// Shared items of selections that are the best for what they cost.
    pub(super) closures: Vec<Bits>,
    /// The part that each candidate of each shared item has in its cost, in the order of its members.
    pub(super) shares: Vec<Vec<f64>>,
}

/// Returns the relaxation; `None` where it would be large.
pub(super) fn solve(reduced: &Reduced) -> Option<Relaxed> {
    let mut flow = Flow::new(reduced)?;
    let all = Bits::of(reduced.values.len(), 0..reduced.values.len());
    let (mut above, mut below) = (worth(reduced, &all), (0.0, 0u64));
    let mut relaxed = Relaxed { bound: above.0, closures: Vec::new(), shares: Vec::new() };
    if above.1 <= reduced.capacity {
        return Some(relaxed);
    }
    for _ in 0..PRICES {
        let price = (above.0 - below.0) / (above.1 - below.1) as f64;
        let (surplus, closure) = flow.at(reduced, price);
        let bound = surplus + price * reduced.capacity as f64;
        if bound < relaxed.bound || relaxed.shares.is_empty() {
            relaxed.bound = bound.min(relaxed.bound);
            relaxed.shares = flow.shares();
        }
        let found = worth(reduced, &closure);
        relaxed.closures.push(reduced.needed(closure.iter()));
        let gain = (found.0 - above.0) - price * (found.1 as f64 - above.1 as f64);
        if gain <= reduced.slack || found.1 <= below.1 || found.1 >= above.1 {
            break;
        }
        *(if found.1 > reduced.capacity { &mut above } else { &mut below }) = found;
    }
    Some(relaxed)
}

/// Returns what a selection is worth and what it costs without what two sets need together.
fn worth(reduced: &Reduced, chosen: &Bits) -> (f64, u64) {
    let own = chosen.iter().fold(0u64, |sum, candidate| sum.saturating_add(reduced.own[candidate]));
    let shared = reduced.shared_cost(&reduced.needed(chosen.iter()));
    (chosen.iter().map(|candidate| reduced.values[candidate]).sum(), own.saturating_add(shared))
}

/// A flow from candidates to the shared items that they need.
struct Flow {
    scale: f64,
    /// For each candidate, its edges with their items.
    of_candidate: Vec<Vec<(usize, usize)>>,
    /// For each item, its edges with their candidates.
    of_item: Vec<Vec<(usize, usize)>>,
    flows: Vec<u64>,
    /// What each candidate can still send.
    supply: Vec<u64>,
    /// What each item can still take.
    room: Vec<u64>,
    /// Distance from a candidate that can send: of candidates and of items.
    levels: (Vec<u32>, Vec<u32>),
    /// Edges that are done with in this round.
    done: (Vec<usize>, Vec<usize>),
}

const FAR: u32 = u32::MAX;
/// The longest way of a flow. What a longer one would send stays in the surplus, which is still a bound.
const FARTHEST: u32 = 1000;

impl Flow {
    fn new(reduced: &Reduced) -> Option<Flow> {
        let (candidates, items) = (reduced.values.len(), reduced.shared.len());
        let edges = reduced.shared.iter().map(|item| item.members.count()).sum::<usize>();
        let total = reduced.values.iter().sum::<f64>();
        if edges > MOST || !total.is_finite() || total <= 0.0 {
            return None;
        }
        let mut flow = Flow {
            scale: SCALE / total,
            of_candidate: vec![Vec::new(); candidates],
            of_item: vec![Vec::new(); items],
            flows: vec![0; edges],
            supply: vec![0; candidates],
            room: vec![0; items],
            levels: (vec![FAR; candidates], vec![FAR; items]),
            done: (vec![0; candidates], vec![0; items]),
        };
        let mut edge = 0;
        for (index, item) in reduced.shared.iter().enumerate() {
            for member in item.members.iter() {
                flow.of_candidate[member].push((edge, index));
                flow.of_item[index].push((edge, member));
                edge += 1;
            }
        }
        Some(flow)
    }

    /// Returns a bound of the largest surplus at a price, and the smallest selection that has it.
    fn at(&mut self, reduced: &Reduced, price: f64) -> (f64, Bits) {
        self.flows.fill(0);
        let mut sent = 0u64;
        for (supply, (value, own)) in self.supply.iter_mut().zip(reduced.values.iter().zip(&reduced.own)) {
            let surplus = (value - price * *own as f64) * self.scale;
            *supply = if surplus > 0.0 { surplus.ceil() as u64 } else { 0 };
            sent += *supply;
        }
        for (room, item) in self.room.iter_mut().zip(&reduced.shared) {
            *room = (price * item.cost as f64 * self.scale).min(4.0 * SCALE) as u64;
        }
        while self.level() {
            self.done.0.fill(0);
            self.done.1.fill(0);
            for candidate in 0..self.supply.len() {
                let supply = self.supply[candidate];
                let pushed = if supply > 0 { self.push(candidate, supply) } else { 0 };
                self.supply[candidate] -= pushed;
                sent -= pushed;
            }
        }
        let reached = self.levels.0.iter().enumerate().filter(|(_, level)| **level != FAR);
        (sent as f64 / self.scale, Bits::of(self.supply.len(), reached.map(|(candidate, _)| candidate)))
    }

    /// Finds the distances, and returns whether an item that can take something is reached.
    fn level(&mut self) -> bool {
        let (candidates, items) = (&mut self.levels.0, &mut self.levels.1);
        candidates.fill(FAR);
        items.fill(FAR);
        let mut queue: VecDeque<usize> =
            (0..candidates.len()).filter(|candidate| self.supply[*candidate] > 0).collect();
        queue.iter().for_each(|candidate| candidates[*candidate] = 0);
        let mut takes = false;
        while let Some(candidate) = queue.pop_front() {
            if candidates[candidate] > FARTHEST {
                break;
            }
            for (_, item) in &self.of_candidate[candidate] {
                if items[*item] != FAR {
                    continue;
                }
                items[*item] = candidates[candidate] + 1;
                takes |= self.room[*item] > 0;
                for (edge, other) in &self.of_item[*item] {
                    if self.flows[*edge] > 0 && candidates[*other] == FAR {
                        candidates[*other] = items[*item] + 1;
                        queue.push_back(*other);
                    }
                }
            }
        }
        takes
    }

    /// Sends what a candidate has, and returns how much went.
    fn push(&mut self, candidate: usize, amount: u64) -> u64 {
        let mut left = amount;
        while let Some((edge, item)) = self.of_candidate[candidate].get(self.done.0[candidate]).copied() {
            if self.levels.1[item] == self.levels.0[candidate] + 1 {
                let pushed = self.take(item, left);
                self.flows[edge] += pushed;
                left -= pushed;
                if left == 0 {
                    break;
                }
            }
            self.done.0[candidate] += 1;
        }
        amount - left
    }

    /// Has an item take an amount, or other candidates take theirs back, and returns how much it took.
    fn take(&mut self, item: usize, amount: u64) -> u64 {
        let taken = amount.min(self.room[item]);
        self.room[item] -= taken;
        let mut left = amount - taken;
        while left > 0 {
            let Some((edge, other)) = self.of_item[item].get(self.done.1[item]).copied() else { break };
            if self.flows[edge] > 0 && self.levels.0[other] == self.levels.1[item] + 1 {
                let back = left.min(self.flows[edge]);
                let pushed = self.push(other, back);
                self.flows[edge] -= pushed;
                left -= pushed;
                if left == 0 {
                    break;
                }
            }
            self.done.1[item] += 1;
        }
        amount - left
    }

    fn shares(&self) -> Vec<Vec<f64>> {
        let of = |edges: &Vec<(usize, usize)>| edges.iter().map(|(edge, _)| self.flows[*edge] as f64).collect();
        self.of_item.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Item;
    use super::super::tests::{Random, random_graph};
    use super::*;

    #[test]
    fn surpluses_are_those_of_brute_force() {
        let mut random = Random(13);
        let mut failures = Vec::new();
        for _ in 0..150 {
            let mut problem = random_graph(&mut random, 10);
            for _ in 0..12 {
                problem.items.push(Item { cost: random.below(20), any: random.set(10, 30), and: None });
            }
            let Some(reduced) = Reduced::of(&problem) else { continue };
            let size = reduced.values.len();
            let Some(mut flow) = Flow::new(&reduced) else { continue };
            for price in [0.01, 0.03, 0.06, 0.1, 0.2, 0.4] {
                let surplus = |chosen: &Bits| {
                    let (value, cost) = worth(&reduced, chosen);
                    value - price * cost as f64
                };
                let sets = (0usize..1 << size).map(|set| Bits::of(size, (0..size).filter(|one| set >> one & 1 == 1)));
                let best = sets.map(|set| surplus(&set)).fold(0.0, f64::max);
                let (bound, closure) = flow.at(&reduced, price);
                if (bound - best).abs() > 1e-9 || (surplus(&closure) - best).abs() > 1e-9 {
                    failures.push(format!("price {price}: {bound}, {}, the best is {best}", surplus(&closure)));
                }
            }
        }
        assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures[0]);
    }
}
