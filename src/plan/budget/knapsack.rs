//! The 0/1 knapsack over exact costs.
//!
//! The state is a list of partial selections, cheapest first, of which none is both dearer and worth
//! less than another (Nemhauser and Ullmann, 1969). Candidates come in by their value for each unit of
//! cost, the best first; each doubles the list. What is dominated goes, what does not fit, and what
//! cannot come up to the best selection known: the linear relaxation of the candidates to come says how
//! far each can. So few are left but those that differ in candidates near the break, where the room ends.
//! When more than `resolution` are left, those with the largest bounds stay, and the largest bound of the
//! others is remembered.

use super::Found;

/// A candidate of a knapsack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) candidate: usize,
    pub(super) cost: u64,
}

pub(super) struct Knapsack<'a> {
    capacity: u64,
    /// By value for each unit of cost.
    members: Vec<Member>,
    values: &'a [f64],
    /// Sums over the members before each position.
    costs: Vec<u128>,
    worths: Vec<f64>,
}

/// A partial selection.
#[derive(Clone, Copy, Debug)]
struct Partial {
    cost: u64,
    value: f64,
    /// What it can come to at most.
    bound: f64,
    /// Its last candidate, in the list of links.
    last: Option<usize>,
}

/// A candidate, and the link to the one chosen before it.
type Link = (usize, Option<usize>);

impl<'a> Knapsack<'a> {
    /// Returns the knapsack of some candidates, in the order in which ties are broken; `values` are by candidate.
    pub(super) fn new(capacity: u64, mut members: Vec<Member>, values: &'a [f64]) -> Knapsack<'a> {
        let density = |member: &Member| values[member.candidate] / member.cost as f64;
        members.sort_by(|a, b| density(b).total_cmp(&density(a)));
        let (mut costs, mut worths) = (vec![0], vec![0.0]);
        let (mut cost, mut worth) = (0u128, 0.0);
        for member in &members {
            cost += u128::from(member.cost);
            worth += values[member.candidate];
            costs.push(cost);
            worths.push(worth);
        }
        Knapsack { capacity, members, values, costs, worths }
    }

    /// Returns what the members for which `may` answers true are worth at most within `room`, when
    /// parts of them count.
    pub(super) fn relaxed(&self, room: u64, may: impl Fn(usize) -> bool) -> f64 {
        let (mut room, mut worth) = (room, 0.0);
        for Member { candidate, cost } in self.members.iter().filter(|member| may(member.candidate)) {
            let value = self.values[*candidate];
            let Some(left) = room.checked_sub(*cost) else { return worth + value * room as f64 / *cost as f64 };
            room = left;
            worth += value;
        }
        worth
    }

    /// Returns the selection with the most value, and the bound that no other exceeds; an empty one
    /// where none is found that is worth more than `floor`. When `work`, a number of partial selections,
    /// is done, only the most promising one goes on.
    pub(super) fn solve(&self, resolution: usize, floor: f64, work: &mut usize) -> Found {
        let slack = 1e-12 * self.worths.last().copied().unwrap_or(0.0);
        let greedy = self.greedy();
        let mut known = greedy.value.max(floor);
        let mut links: Vec<Link> = Vec::new();
        let mut states = vec![Partial { cost: 0, value: 0.0, bound: self.bound(0, 0, 0.0), last: None }];
        let mut best = None;
        let mut lost = f64::NEG_INFINITY;
        for index in 0..self.members.len() {
            states = self.extend(index, &states, known - slack, &mut links);
            *work = work.saturating_sub(states.len());
            let most = if *work == 0 { 1 } else { resolution.max(1) };
            if states.len() > most {
                lost = lost.max(trim(&mut states, most));
            }
            let Some(state) = states.last() else { break };
            if state.value > best.map_or(f64::NEG_INFINITY, |best: Partial| best.value) {
                best = Some(*state);
                known = known.max(state.value);
            }
        }
        let best = best.filter(|best| best.value >= greedy.value);
        let found = best.map_or(greedy, |best| {
            let mut chosen = Vec::new();
            let mut last = best.last;
            while let Some((candidate, before)) = last.and_then(|link| links.get(link)) {
                chosen.push(*candidate);
                last = *before;
            }
            Found { chosen, value: best.value, bound: 0.0 }
        });
        let found = if found.value > floor { found } else { Found::default() };
        Found { bound: lost.max(found.value).max(floor), ..found }
    }

    /// Returns the list of the partial selections without and with a member.
    fn extend(&self, index: usize, states: &[Partial], known: f64, links: &mut Vec<Link>) -> Vec<Partial> {
        let Member { candidate, cost } = self.members[index];
        let mut without = states.iter().peekable();
        let with = states.iter().filter_map(|state| {
            let cost = state.cost.checked_add(cost).filter(|cost| *cost <= self.capacity)?;
            Some((cost, state.value + self.values[candidate], state.last))
        });
        let mut with = with.peekable();
        let mut next = Vec::with_capacity(states.len() + 1);
        let mut most = f64::NEG_INFINITY;
        loop {
            let old = match (without.peek(), with.peek()) {
                (Some(old), Some((cost, value, _))) => (old.cost, *value) <= (*cost, old.value),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return next,
            };
            let (cost, value, last) = match if old { None } else { with.next() } {
                Some(new) => new,
                None => match without.next() {
                    Some(state) => (state.cost, state.value, state.last),
                    None => return next,
                },
            };
            let bound = self.bound(index + 1, cost, value);
            if value <= most || bound < known {
                continue;
            }
            most = value;
            if old {
                next.push(Partial { cost, value, bound, last });
            } else {
                next.push(Partial { cost, value, bound, last: Some(links.len()) });
                links.push((candidate, last));
            }
        }
    }

    /// Returns what a partial selection can come to with parts of the members from a position on.
    fn bound(&self, from: usize, cost: u64, value: f64) -> f64 {
        let spent = self.costs[from];
        let room = u128::from(self.capacity - cost);
        let to = self.costs.partition_point(|sum| *sum <= spent + room) - 1;
        let whole = value + (self.worths[to] - self.worths[from]);
        self.members.get(to).map_or(whole, |member| {
            let left = (room - (self.costs[to] - spent)) as f64;
            whole + self.values[member.candidate] * left / member.cost as f64
        })
    }

    /// Returns the selection that takes what fits, in order.
    fn greedy(&self) -> Found {
        let (mut room, mut found) = (self.capacity, Found::default());
        for Member { candidate, cost } in &self.members {
            if let Some(left) = room.checked_sub(*cost) {
                room = left;
                found.value += self.values[*candidate];
                found.chosen.push(*candidate);
            }
        }
        found
    }
}

/// Keeps the partial selections with the largest bounds, and returns the largest bound of the others.
fn trim(states: &mut Vec<Partial>, most: usize) -> f64 {
    let mut bounds: Vec<f64> = states.iter().map(|state| state.bound).collect();
    if most >= bounds.len() {
        return f64::NEG_INFINITY;
    }
    let (larger, least, _) = bounds.select_nth_unstable_by(most, |a, b| b.total_cmp(a));
    let least = *least;
    let mut equal = most - larger.iter().filter(|bound| **bound > least).count();
    states.retain(|state| {
        let stays = state.bound > least || state.bound == least && equal > 0;
        equal -= usize::from(stays && state.bound == least);
        stays
    });
    least
}
