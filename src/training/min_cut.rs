//! The cheapest cut between two ends of a directed graph, by Dinic's algorithm.

use std::collections::VecDeque;

/// What is never cut.
pub(super) const NEVER: u64 = u64::MAX / 4;

/// A directed graph whose edges have a price.
pub(super) struct Network {
    /// Edges by the vertex that they leave; an edge and its reverse are neighbours, `2 i` and `2 i + 1`.
    leaving: Vec<Vec<usize>>,
    to: Vec<usize>,
    left: Vec<u64>,
}

impl Network {
    /// Returns a graph of so many vertices without edges.
    pub(super) fn new(vertices: usize) -> Network {
        Network { leaving: vec![Vec::new(); vertices], to: Vec::new(), left: Vec::new() }
    }

    /// Adds an edge.
    pub(super) fn edge(&mut self, from: usize, to: usize, price: u64) {
        for (from, to, price) in [(from, to, price), (to, from, 0)] {
            self.leaving[from].push(self.to.len());
            self.to.push(to);
            self.left.push(price);
        }
    }

    /// Returns for each vertex whether it is on the side of `source` in the cheapest cut; of several the one that is
    /// nearest to `sink`.
    pub(super) fn cut(mut self, source: usize, sink: usize) -> Vec<bool> {
        while let Some(levels) = self.levels(source, sink) {
            let mut next = vec![0; self.leaving.len()];
            while self.push(source, sink, &levels, &mut next) {}
        }
        let mut beyond = vec![false; self.leaving.len()];
        let mut open = vec![sink];
        beyond[sink] = true;
        while let Some(vertex) = open.pop() {
            for edge in &self.leaving[vertex] {
                // The reverse of an edge that leaves is one that arrives.
                let (from, arrives) = (self.to[*edge], self.left[edge ^ 1] > 0);
                if arrives && !std::mem::replace(&mut beyond[from], true) {
                    open.push(from);
                }
            }
        }
        beyond.into_iter().map(|beyond| !beyond).collect()
    }

    /// Returns the distance of each vertex from `source`; `None` where `sink` is not reached.
    fn levels(&self, source: usize, sink: usize) -> Option<Vec<usize>> {
        let mut levels = vec![usize::MAX; self.leaving.len()];
        levels[source] = 0;
        let mut open = VecDeque::from([source]);
        while let Some(vertex) = open.pop_front() {
            for edge in &self.leaving[vertex] {
                let to = self.to[*edge];
                if self.left[*edge] > 0 && levels[to] == usize::MAX {
                    levels[to] = levels[vertex] + 1;
                    open.push_back(to);
                }
            }
        }
        (levels[sink] != usize::MAX).then_some(levels)
    }

    /// Pushes one path's worth; returns false when there is no path.
    fn push(&mut self, source: usize, sink: usize, levels: &[usize], next: &mut [usize]) -> bool {
        let mut path: Vec<usize> = Vec::new();
        let mut vertex = source;
        while vertex != sink {
            let edge = self.leaving[vertex].get(next[vertex]).copied();
            match edge {
                Some(edge) if self.left[edge] > 0 && levels[self.to[edge]] == levels[vertex].wrapping_add(1) => {
                    path.push(edge);
                    vertex = self.to[edge];
                }
                Some(_) => next[vertex] += 1,
                None => {
                    let Some(edge) = path.pop() else { return false };
                    vertex = self.to[edge ^ 1];
                    next[vertex] += 1;
                }
            }
        }
        let least = path.iter().map(|edge| self.left[*edge]).min().unwrap_or(0);
        for edge in path {
            self.left[edge] -= least;
            self.left[edge ^ 1] += least;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(edges: &[(usize, usize, u64)], side: &[bool]) -> u64 {
        edges.iter().filter(|(from, to, _)| side[*from] && !side[*to]).map(|(_, _, price)| price).sum()
    }

    #[test]
    fn no_cut_is_cheaper() {
        // The networks of a linear congruential generator, against all cuts.
        let mut state = 7u64;
        let mut random = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for _ in 0..300 {
            let vertices = 2 + random(6) as usize;
            let edges: Vec<(usize, usize, u64)> = (0..random(14))
                .map(|_| (random(vertices as u64) as usize, random(vertices as u64) as usize, random(9)))
                .filter(|(from, to, _)| from != to)
                .collect();
            let mut network = Network::new(vertices);
            edges.iter().for_each(|(from, to, price)| network.edge(*from, *to, *price));
            let side = network.cut(0, 1);
            assert!(side[0] && !side[1]);
            let all = (0..1usize << vertices).map(|bits| (0..vertices).map(|v| bits >> v & 1 == 1).collect::<Vec<_>>());
            let cuts: Vec<Vec<bool>> = all.filter(|side| side[0] && !side[1]).collect();
            let best = cuts.iter().map(|side| price(&edges, side)).min().unwrap();
            assert_eq!(price(&edges, &side), best, "{edges:?}");
            // It is the one nearest to the sink.
            let size = |side: &[bool]| side.iter().filter(|own| **own).count();
            let most = cuts.iter().filter(|side| price(&edges, side) == best).map(|side| size(side)).max();
            assert_eq!(Some(size(&side)), most, "{edges:?}");
        }
    }
}
