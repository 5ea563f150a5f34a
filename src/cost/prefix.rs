//! What a cache of a frozen prefix's output can hold.
//!
//! A node is cacheable when nothing that trains and nothing that varies between steps goes into
//! it, and the model's input does. What varies: a `BatchNormalization` by the statistics of the batch,
//! random operators, operators that run a subgraph or are not known. A `BatchNormalization` and a
//! Dropout in the frozen set do not. The cut is every value that a cacheable node makes and another node
//! reads, or the model returns.

use super::model::{CostModel, NodeCost, Source, Varies};
use super::step::is;

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing but parameters and constants goes into it.
    Constant,
    /// It gives the same for the same sample in every step.
    Cacheable,
    /// It does not train, and does not give the same in every step.
    Varies,
    /// What trains goes into it.
    Trains,
}

impl CostModel {
    /// Returns the flops of the cacheable nodes and the bytes of the cut for each sample, both 0 when
    /// nothing is frozen.
    pub(super) fn cacheable(&self, trains: &[bool]) -> (u64, u64) {
        if trains.iter().take(self.parameters.len()).all(|trains| *trains) {
            return (0, 0);
        }
        let places = self.places(trains);
        let inside = |index: usize| places.get(index) == Some(&Place::Cacheable);
        let nodes = self.nodes.iter().enumerate().filter(|(index, _)| inside(*index));
        let flops = nodes.fold(0u64, |sum, (_, node)| sum.saturating_add(self.form(node, trains).flops.forward));
        let crossing = self.edges.iter().filter(|edge| inside(edge.from) && edge.to.iter().any(|to| !inside(*to)));
        let bytes = crossing.fold(0u64, |sum, edge| sum.saturating_add(edge.bytes));
        (flops, bytes.div_ceil(self.batch))
    }

    /// Returns the first node that nothing trained goes into and that cannot be cached, and why, while
    /// the names for which `frozen` answers true are in the frozen set.
    pub fn ends_cache(&self, frozen: impl Fn(&str) -> bool) -> Option<String> {
        let trains = &self.mask_while(frozen)[..];
        let places = self.places(trains);
        let varies = self
            .nodes
            .iter()
            .zip(&places)
            .filter(|(node, place)| **place == Place::Varies && self.varies(node, trains).is_some());
        let (node, reason) = varies.filter_map(|(node, _)| Some((node, self.varies(node, trains)?))).next()?;
        let why = match reason {
            Varies::Batch if node.fixed.as_ref().is_some_and(|fixed| fixed.affine) => {
                "normalizes by the statistics of the batch (with batch_norm \"frozen\" it would not)"
            }
            Varies::Batch => "normalizes by the statistics of the batch",
            Varies::Random if node.fixed.is_some() => {
                "draws random numbers (in a frozen unit it would not with freeze.dropout \"off\")"
            }
            Varies::Random => "draws random numbers",
            Varies::Unknown => "runs a subgraph or is not known",
        };
        Some(format!("\"{}\", which {why}", node.name))
    }

    fn varies(&self, node: &NodeCost, trains: &[bool]) -> Option<Varies> {
        node.varies.filter(|_| !self.is_fixed(node, trains))
    }

    fn places(&self, trains: &[bool]) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let mut place = match self.varies(node, trains) {
                Some(_) => Place::Varies,
                None if node.of_weights => Place::Constant,
                None => Place::Cacheable,
            };
            for source in &node.sources {
                match *source {
                    Source::Parameter(parameter) if is(trains, parameter) => place = Place::Trains,
                    Source::Node(by) if places.get(by) == Some(&Place::Trains) => place = Place::Trains,
                    Source::Node(by) if places.get(by) == Some(&Place::Varies) && place != Place::Trains => {
                        place = Place::Varies;
                    }
                    _ => {}
                }
            }
            places.push(place);
        }
        places
    }
}
