//! What no selection can be worth more than.
//!
//! Two knapsacks of which parts count; the smaller one is the bound, or the linear relaxation (`relax`). In the
//! first, every shared item is divided among its candidates: a selection pays at least the parts of those that
//! it chooses. In the second, the candidate whose shared items cost most is known: the selection pays those, and what
//! each of its candidates needs alone; over all candidates that this may be, the largest value is the bound.
//! On a chain the second is the relaxation of the dynamic program.

use super::reduce::Reduced;
use super::relax::Relaxed;

/// Returns a value that no selection exceeds.
pub(super) fn of(reduced: &Reduced, relaxed: Option<&Relaxed>) -> f64 {
    let bound = divided(reduced, relaxed).min(deepest(reduced));
    relaxed.map_or(bound, |relaxed| relaxed.bound.min(bound))
}

fn divided(reduced: &Reduced, relaxed: Option<&Relaxed>) -> f64 {
    let mut parts: Vec<f64> = reduced.own.iter().map(|own| *own as f64).collect();
    for (index, item) in reduced.shared.iter().enumerate() {
        let shares = relaxed.and_then(|relaxed| relaxed.shares.get(index));
        let sum = shares.map_or(0.0, |shares| shares.iter().sum::<f64>());
        let equal = vec![1.0; item.members.count()];
        let (shares, sum) = match shares {
            Some(shares) if sum > 0.0 => (shares, sum),
            _ => (&equal, equal.len() as f64),
        };
        for (member, share) in item.members.iter().zip(shares) {
            parts[member] += item.cost as f64 * share / sum;
        }
    }
    relaxed_by(reduced, &by_density(reduced, &parts), reduced.capacity as f64, |_| true)
}

fn deepest(reduced: &Reduced) -> f64 {
    let own: Vec<f64> = reduced.own.iter().map(|own| *own as f64).collect();
    let order = by_density(reduced, &own);
    let shared: Vec<u64> = reduced.needs.iter().map(|items| reduced.shared_cost(items)).collect();
    let mut depths: Vec<u64> = shared.iter().copied().filter(|cost| *cost <= reduced.capacity).collect();
    depths.sort_unstable();
    depths.dedup();
    let most = |depth: &u64| {
        let room = (reduced.capacity - depth) as f64;
        relaxed_by(reduced, &order, room, |candidate| shared[candidate] <= *depth)
    };
    depths.iter().map(most).fold(0.0, f64::max)
}

/// Returns the candidates with a cost each, by value for each unit of it.
fn by_density(reduced: &Reduced, costs: &[f64]) -> Vec<(usize, f64)> {
    let mut order: Vec<(usize, f64)> = costs.iter().copied().enumerate().collect();
    let density = |(candidate, cost): &(usize, f64)| reduced.values[*candidate] / cost;
    order.sort_by(|a, b| density(b).total_cmp(&density(a)));
    order
}

/// Returns the most that the candidates which may be chosen are worth within a cost, when parts count.
fn relaxed_by(reduced: &Reduced, order: &[(usize, f64)], room: f64, may: impl Fn(usize) -> bool) -> f64 {
    let (mut room, mut worth) = (room, 0.0);
    for (candidate, cost) in order.iter().filter(|(candidate, _)| may(*candidate)) {
        let value = reduced.values[*candidate];
        if *cost > room {
            return worth + value * room / cost;
        }
        room -= cost;
        worth += value;
    }
    worth
}
