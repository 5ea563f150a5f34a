use super::*;

/// A generator of random numbers with a fixed start.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }

    pub(super) fn set(&mut self, size: usize, percent: u64) -> Bits {
        Bits::of(size, (0..size).filter(|_| self.below(100) < percent).collect::<Vec<_>>())
    }
}

fn free(values: &[f64]) -> Vec<Candidate> {
    values.iter().map(|value| Candidate { value: *value, state: State::Free }).collect()
}

fn item(size: usize, cost: u64, any: impl IntoIterator<Item = usize>) -> Item {
    Item { cost, any: Bits::of(size, any), and: None }
}

/// A chain from the input side: `own` is what each needs alone, `pass` what all up to it need.
fn chain(values: &[f64], own: &[u64], pass: &[u64], limit: u64) -> Problem {
    let size = values.len();
    let owns = own.iter().enumerate().map(|(index, cost)| item(size, *cost, [index]));
    let passes = pass.iter().enumerate().map(|(index, cost)| item(size, *cost, 0..=index));
    Problem { candidates: free(values), items: owns.chain(passes).collect(), base: 0, limit }
}

fn values(random: &mut Random, size: usize) -> Vec<f64> {
    let whole = random.below(2) == 0;
    let mut value = || match random.below(8) {
        0 => -1.0,
        1 => 0.0,
        _ if whole => random.below(6) as f64,
        _ => random.below(100_000) as f64 / 7919.0,
    };
    (0..size).map(|_| value()).collect()
}

fn random_chain(random: &mut Random, size: usize) -> Problem {
    let mut numbers = |end: u64| (0..size).map(|_| random.below(end)).collect::<Vec<u64>>();
    let (own, pass) = (numbers(30), numbers(20));
    let total: u64 = own.iter().chain(&pass).sum();
    chain(&values(random, size), &own, &pass, random.below(total + 10))
}

/// A random graph: each candidate is the weight of a node that reads one or two earlier nodes.
pub(super) fn random_graph(random: &mut Random, size: usize) -> Problem {
    let mut reaching: Vec<Bits> = Vec::new();
    let mut items = Vec::new();
    for index in 0..size {
        let mut reached = Bits::of(size, [index]);
        items.push(item(size, random.below(30), [index]));
        for _ in 0..random.below(3).min(index as u64) {
            let from = index - 1 - random.below((index as u64).min(4)) as usize;
            let any = reaching[from].clone();
            reached.join(&any);
            items.push(Item { cost: random.below(30), any, and: None });
        }
        reaching.push(reached);
    }
    let total: u64 = items.iter().map(|item| item.cost).sum();
    Problem { candidates: free(&values(random, size)), items, base: 0, limit: random.below(total + 10) }
}

/// Any sets, some of two that both must train, and candidates whose state is given.
fn random_sets(random: &mut Random, size: usize) -> Problem {
    let mut problem = random_graph(random, size);
    for _ in 0..random.below(size as u64) {
        let and = (random.below(2) == 0).then(|| random.set(size, 30));
        problem.items.push(Item { cost: random.below(20), any: random.set(size, 30), and });
    }
    for candidate in &mut problem.candidates {
        candidate.state = match random.below(8) {
            0 => State::Trains,
            1 => State::Frozen,
            _ => State::Free,
        };
    }
    problem.base = random.below(10);
    problem.limit += random.below(100);
    problem
}

/// A chain in which a candidate pays more when a deeper one trains.
fn random_switched_chain(random: &mut Random, size: usize) -> Problem {
    let mut problem = random_chain(random, size);
    let own = (0..size).map(|index| item(size, 1, 0..=index));
    problem.items.extend(own);
    for index in 1..size {
        let and = Some(Bits::of(size, [index]));
        problem.items.push(Item { cost: random.below(20), any: Bits::of(size, 0..index), and });
    }
    problem
}

/// A chain in which a candidate pays more when one of some deeper ones trains.
fn random_branched_chain(random: &mut Random, size: usize) -> Problem {
    let mut problem = random_chain(random, size);
    for index in 2..size {
        let (any, and) = (Bits::of(size, 0..1 + random.below(index as u64 - 1) as usize), Bits::of(size, [index]));
        problem.items.push(Item { cost: random.below(20), any, and: Some(and) });
    }
    problem
}

/// Looks at every selection; returns the largest value under the limit, if any is.
fn brute_force(problem: &Problem) -> Option<f64> {
    let size = problem.candidates.len();
    let selections = (0u32..1 << size).map(|set| (0..size).map(|index| set >> index & 1 == 1).collect::<Vec<bool>>());
    let possible = selections.filter(|chosen| {
        let given = problem.candidates.iter().zip(chosen);
        let fits = |(one, chosen): (&Candidate, &bool)| match one.state {
            State::Free => true,
            State::Trains => *chosen,
            State::Frozen => !chosen,
        };
        given.into_iter().all(fits) && problem.cost(chosen) <= problem.limit
    });
    possible.map(|chosen| worth(problem, &chosen)).max_by(f64::total_cmp)
}

fn worth(problem: &Problem, chosen: &[bool]) -> f64 {
    problem.candidates.iter().zip(chosen).filter(|(_, chosen)| **chosen).map(|(one, _)| one.value).sum()
}

/// Says what is wrong with a selection.
fn check(problem: &Problem, found: &Selection, best: Option<f64>) -> Option<String> {
    let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
    let wrong = match best {
        None => found.fits || problem.cost(&found.chosen) <= problem.limit,
        Some(best) => {
            !found.fits
                || found.cost > problem.limit
                || found.value > best + 1e-9
                || found.bound < best - 1e-9
                || found.optimal && !near(found.value, best)
        }
    };
    let wrong = wrong || found.cost != problem.cost(&found.chosen) || !near(found.value, worth(problem, &found.chosen));
    wrong.then(|| format!("{found:?}, the best is {best:?} of {problem:?}"))
}

/// Says what is wrong with a search from nothing, with and without the linear relaxation, and with the bounds.
fn check_searches(problem: &Problem) -> Option<String> {
    let reduced = Reduced::of(problem)?;
    let unknown = || Found { bound: f64::INFINITY, ..Found::default() };
    let plain = search::solve(&reduced, None, unknown(), usize::MAX);
    let relaxed = relax::solve(&reduced);
    let found = search::solve(&reduced, relaxed.as_ref(), unknown(), usize::MAX);
    let bounds = [bound::of(&reduced, None), bound::of(&reduced, relaxed.as_ref()), plain.bound, found.bound];
    let cost = reduced.cost(&Bits::of(reduced.values.len(), found.chosen.iter().copied()));
    let same = (plain.value - found.value).abs() < 1e-9 && plain.chosen == found.chosen;
    let fits = cost <= reduced.capacity && bounds.iter().all(|bound| *bound >= found.value - 1e-9);
    (!same || !fits).then(|| format!("{plain:?} and {found:?}, cost {cost}, bounds {bounds:?}"))
}

/// The toy of GreenTrainer's repository, there from the output side:
/// `t_dy = [0, 2, 1, 4, 0]`, `t_dw = [5, 1, 7, 3, 1]`, `I = [1, 3, 10, 5, 3]`, limit 14.
#[test]
fn greentrainers_toy_is_solved_as_by_brute_force() {
    let problem = chain(&[3.0, 5.0, 10.0, 3.0, 1.0], &[1, 3, 7, 1, 5], &[0, 4, 1, 2, 0], 14);
    let found = problem.solve(&Effort::default());
    let mask: Vec<bool> = found.chosen.iter().rev().copied().collect();
    assert_eq!(mask, [false, true, true, false, false]);
    assert_eq!((found.value, found.cost, found.bound), (13.0, 11, 13.0));
    assert!(found.optimal && found.fits);
}

#[test]
fn selections_of_small_problems_are_those_of_brute_force() {
    type Make = fn(&mut Random, usize) -> Problem;
    let kinds: [(&str, Make, usize); 5] = [
        ("chain", random_chain, 300),
        ("switched chain", random_switched_chain, 200),
        ("branched", random_branched_chain, 200),
        ("graph", random_graph, 300),
        ("sets", random_sets, 300),
    ];
    let mut failures = Vec::new();
    for (name, make, count) in kinds {
        let mut random = Random(7);
        let mut chains = 0;
        for round in 0..count {
            let size = 1 + random.below(if round % 20 == 0 { 12 } else { 9 }) as usize;
            let problem = make(&mut random, size);
            chains += usize::from(Reduced::of(&problem).is_some_and(|reduced| Chain::of(&reduced).is_some()));
            let found = problem.solve(&Effort::default());
            failures.extend(check(&problem, &found, brute_force(&problem)).map(|text| format!("{name}: {text}")));
            if !found.optimal {
                failures.push(format!("{name}: not proven: {found:?} of {problem:?}"));
            }
            failures.extend(check_searches(&problem).map(|text| format!("{name}: {text} of {problem:?}")));
        }
        assert_eq!(name.ends_with("chain"), chains == count, "{chains} of {count} {name}s are chains");
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures[0]);
}

#[test]
fn a_coarse_resolution_keeps_the_limit_and_the_bound() {
    let mut random = Random(11);
    let (mut failures, mut unproven) = (Vec::new(), 0);
    for round in 0..200 {
        let size = 8 + (round % 4);
        let problem = random_chain(&mut random, size);
        let reduced = Reduced::of(&problem).unwrap();
        let chain = Chain::of(&reduced).unwrap();
        let best = brute_force(&problem).unwrap();
        for resolution in [1, 2, 4] {
            let found = chain.solve(&reduced, &Effort { resolution, nodes: 0 });
            let cost = reduced.cost(&Bits::of(reduced.values.len(), found.chosen.iter().copied()));
            unproven += usize::from(found.bound > found.value);
            if cost > reduced.capacity || found.value > best + 1e-9 || found.bound < best - 1e-9 {
                failures.push(format!("{resolution}: {found:?}, cost {cost}, the best is {best} of {problem:?}"));
            }
        }
    }
    assert!(unproven > 0, "no list was trimmed");
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures[0]);
}

/// The heuristic by itself, on graphs of 16 candidates that are no chains.
#[test]
fn the_heuristic_keeps_the_limit_and_is_near_the_best() {
    let mut random = Random(3);
    let (mut compared, mut met, mut worst, mut sum) = (0, 0, 1.0f64, 0.0);
    while compared < 40 {
        let problem = random_graph(&mut random, 16);
        let Some(reduced) = Reduced::of(&problem).filter(|reduced| Chain::of(reduced).is_none()) else { continue };
        let relaxed = relax::solve(&reduced);
        let found = closures::solve(&reduced, relaxed.as_ref(), &Effort::default());
        let chosen = Bits::of(reduced.values.len(), found.chosen.iter().copied());
        assert!(reduced.cost(&chosen) <= reduced.capacity, "{problem:?}");
        let exact = search::solve(&reduced, None, Found { bound: f64::INFINITY, ..found.clone() }, usize::MAX);
        assert_eq!(exact.bound, exact.value);
        assert!(bound::of(&reduced, relaxed.as_ref()) >= exact.value - 1e-9, "{problem:?}");
        if compared % 8 == 0 {
            assert!((brute_force(&problem).unwrap() - exact.value).abs() < 1e-9, "{problem:?}");
        }
        let share = if exact.value > 0.0 { found.value / exact.value } else { 1.0 };
        (compared, met, worst, sum) =
            (compared + 1, met + usize::from(share > 1.0 - 1e-9), worst.min(share), sum + share);
    }
    println!("{met} of {compared} met the best, {:.4} of it on average, {worst:.4} at worst", sum / compared as f64);
    assert!(sum / compared as f64 > 0.99 && worst > 0.9, "{met} of {compared}, average {sum}, worst {worst}");
}

#[test]
fn long_chains_are_solved_within_their_bound() {
    for (seed, share) in [(1, 10), (2, 30), (3, 60)] {
        let mut random = Random(seed);
        let mut numbers = |end: u64| (0..2000).map(|_| 1 + random.below(end)).collect::<Vec<u64>>();
        let (own, pass) = (numbers(1_000_000_000), numbers(1_000_000_000));
        let values: Vec<f64> = numbers(1_000_000).into_iter().map(|value| value as f64 / 1e6).collect();
        let limit = own.iter().chain(&pass).sum::<u64>() * share / 100;
        let problem = chain(&values, &own, &pass, limit);
        let started = std::time::Instant::now();
        let found = problem.solve(&Effort::default());
        println!("{share} %: {:?}, value {}, bound {}", started.elapsed(), found.value, found.bound);
        assert!(found.fits && found.cost == problem.cost(&found.chosen));
        assert!(found.bound - found.value <= 1e-3 * found.value, "{} of {}", found.value, found.bound);
    }
}

#[test]
fn limits_and_states_at_the_edge() {
    struct Case {
        name: &'static str,
        candidates: Vec<Candidate>,
        base: u64,
        limit: u64,
        chosen: &'static [usize],
        fits: bool,
    }
    let one = |value: f64, state: State| Candidate { value, state };
    let even = free(&[1.0; 4]);
    let nothing = free(&[0.0, -2.0, f64::NAN, f64::INFINITY]);
    let mut forced = free(&[5.0, 1.0, 1.0, 1.0]);
    (forced[0], forced[1]) = (one(-5.0, State::Trains), one(9.0, State::Frozen));
    // Each costs 10 alone and passes the gradient for 1 to those before it.
    let cases = [
        Case { name: "all fits", candidates: even.clone(), base: 7, limit: 50, chosen: &[0, 1, 2, 3], fits: true },
        Case { name: "ties", candidates: even.clone(), base: 7, limit: 29, chosen: &[2, 3], fits: true },
        Case { name: "nothing fits", candidates: even.clone(), base: 7, limit: 16, chosen: &[], fits: true },
        Case { name: "the base", candidates: even.clone(), base: 7, limit: 7, chosen: &[], fits: true },
        Case { name: "below the base", candidates: even, base: 7, limit: 6, chosen: &[], fits: false },
        Case { name: "no value", candidates: nothing, base: 7, limit: 100, chosen: &[], fits: true },
        Case { name: "forced", candidates: forced.clone(), base: 7, limit: 30, chosen: &[0, 3], fits: true },
        Case { name: "forced only", candidates: forced.clone(), base: 7, limit: 29, chosen: &[0], fits: true },
        Case { name: "forced too dear", candidates: forced, base: 7, limit: 19, chosen: &[0], fits: false },
        Case { name: "none", candidates: Vec::new(), base: 7, limit: 7, chosen: &[], fits: true },
    ];
    for Case { name, candidates, base, limit, chosen, fits } in cases {
        let size = candidates.len();
        let own = (0..size).map(|index| item(size, 10, [index]));
        let pass = (1..size).map(|index| item(size, 1, 0..index));
        let problem = Problem { items: own.chain(pass).collect(), candidates, base, limit };
        let found = problem.solve(&Effort::default());
        let positions: Vec<usize> = (0..size).filter(|index| found.chosen[*index]).collect();
        assert_eq!((&positions[..], found.fits, found.optimal), (chosen, fits, true), "{name}: {found:?}");
        assert_eq!(found.cost, problem.cost(&found.chosen), "{name}");
    }
}

/// The relaxation of the deeper level is larger, its selection worth the same.
#[test]
fn ties_of_a_chain_go_to_the_output_side() {
    let items = vec![item(3, 2, [0]), item(3, 2, [1]), item(3, 4, [2]), item(3, 1, [0, 1])];
    let problem = Problem { candidates: free(&[5.0, 0.25, 5.0]), items, base: 0, limit: 4 };
    let found = problem.solve(&Effort::default());
    assert_eq!(found.chosen, [false, false, true]);
    assert_eq!((found.value, found.cost, found.optimal), (5.0, 4, true));
}

/// Ties on a graph that is no chain, which is searched.
#[test]
fn ties_of_a_graph_go_to_the_output_side() {
    let size = 5;
    let mut items: Vec<Item> = (0..size).map(|index| item(size, 10, [index])).collect();
    items.extend([item(size, 2, [0, 1]), item(size, 2, [1, 2]), item(size, 2, [0, 2])]);
    let problem = Problem { candidates: free(&[1.0; 5]), items, base: 0, limit: 20 };
    let found = problem.solve(&Effort::default());
    assert_eq!(found.chosen, [false, false, false, true, true]);
    assert_eq!((found.value, found.cost, found.optimal), (2.0, 20, true));
}

#[test]
fn without_nodes_a_graph_is_not_proven_and_the_same_again() {
    let mut random = Random(5);
    let mut unproven = 0;
    for _ in 0..60 {
        let problem = random_sets(&mut random, 11);
        let effort = Effort { nodes: 0, resolution: 1000 };
        let found = problem.solve(&effort);
        assert_eq!(found, problem.solve(&effort));
        unproven += usize::from(!found.optimal);
        let wrong = check(&problem, &found, brute_force(&problem));
        assert!(wrong.is_none(), "{wrong:?}");
    }
    assert!(unproven > 0);
}
