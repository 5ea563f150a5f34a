//! What the steps of a plan's phases take, told from a few phases that were timed.
//!
//! A few steps run with nothing frozen, with everything frozen and, where the plan has one, with about half of the
//! backward pass: these are the *anchors*. Where the engine notes what single nodes take, the *load* of any phase is the
//! sum over the nodes of its graphs, each as it was in the anchors: the same node, or else one of the same operator,
//! attributes and shapes, or else by operator and bytes. The seconds of a phase lie on the line through the anchors by
//! load, so what goes with running nodes (dispatch, caches, the noting itself) is part of them. Where the engine notes
//! nothing, the load is the flops of the backward pass, and the elements that train for the update.
//!
//! Everything the steps wrote is put back. What this module does not do: time the batches of a run that goes on (`pace`),
//! or say what is worth it (`ceiling`).

mod curve;
mod measure;
mod nodes;
#[cfg(test)]
mod tests;

pub(super) use measure::Effort;
pub use measure::{Timings, measure, timings};

use super::pace::Scale;
use crate::plan::StepSeconds;
use curve::Curve;
use nodes::NodeTimes;

/// What is told of a phase before its time is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Load {
    /// Of the train graph.
    train: f64,
    /// Of the update.
    update: f64,
    /// The part of both that goes by operator and bytes alone, in [0, 1].
    pub guessed: f64,
}

/// What measures a load.
#[derive(Clone, Debug)]
enum Ruler {
    /// Seconds of nodes, and of what goes with each.
    Nodes { times: NodeTimes, beside: f64 },
    /// Flops of the backward pass, and elements that train.
    Flops(Scale),
}

/// Predicts what steps take.
#[derive(Clone, Debug)]
pub(super) struct Calibration {
    ruler: Ruler,
    train: Curve,
    update: Curve,
    /// Of a step: seconds to make its batches, with everything frozen, and beside.
    data: f64,
    forward: f64,
    rest: f64,
    /// Batches of a step.
    batches: f64,
    /// The largest load that was timed.
    most: Load,
}

/// A phase that was timed.
struct Anchor {
    load: Load,
    train: f64,
    update: f64,
}

impl Calibration {
    fn new(ruler: Ruler, anchors: &[Anchor], (data, rest): (f64, f64), batches: f64) -> Calibration {
        let train = Curve::through(anchors.iter().map(|anchor| (anchor.load.train, anchor.train)).collect());
        let update = anchors.iter().map(|anchor| (anchor.load.update, anchor.update));
        let update = Curve::through(update.filter(|point| point.0 > 0.0).chain([(0.0, 0.0)]).collect());
        let least = anchors.iter().map(|anchor| anchor.load.train).fold(f64::INFINITY, f64::min);
        let forward = if anchors.is_empty() { 0.0 } else { train.at(least) };
        let most =
            anchors.iter().map(|anchor| anchor.load).max_by(|a, b| a.train.total_cmp(&b.train)).unwrap_or_default();
        Calibration { ruler, train, update, data, forward, rest, batches, most }
    }

    /// Returns true where single nodes were timed.
    pub(super) fn is_by_node(&self) -> bool {
        matches!(self.ruler, Ruler::Nodes { .. })
    }

    /// Predicts a step of the anchor with the largest load: that with nothing frozen.
    pub(super) fn most(&self) -> StepSeconds {
        self.predict(&self.most)
    }

    /// Predicts a step.
    pub(super) fn predict(&self, load: &Load) -> StepSeconds {
        let train = self.train.at(load.train);
        let forward = self.forward.min(train);
        StepSeconds {
            data: self.batches * self.data,
            forward: self.batches * forward,
            backward: self.batches * (train - forward),
            update: if load.update > 0.0 { self.update.at(load.update) } else { 0.0 },
            rest: self.rest,
        }
    }
}
