//! Which nodes of a graph compute in the low dtype.
//!
//! A node whose row is [`Class::Low`] does. One that is [`Class::Follows`] does where something that it reads was
//! computed in the low dtype; a parameter, a constant or the data of the batch beside it has no say. These stay float32:
//!
//! - updates of state, the loss and its gradient, and what the job keeps;
//! - what is computed with a float32 sum over elements, such as what is centered or normalized with it;
//! - arithmetic that only float32 nodes read, as it may leave the range of float16 on the way to a sum;
//! - arithmetic with a constant that would become 0.
//!
//! A move between float32 and products that all read it in the low dtype is in the low dtype too: the cast comes first.

use super::table::{self, Class, Row};
use super::{LowDType, Settings};
use crate::graph::{DType, Graph, Node, NodeId, Origin, ValueId};
use std::collections::{HashMap, HashSet};

/// Returns for each node its row where it computes in the low dtype.
pub(super) fn decide(graph: &Graph, settings: &Settings) -> Vec<Option<&'static Row>> {
    let losses: HashSet<&str> =
        graph.nodes().iter().filter(|node| node.origin == Origin::Loss).map(|node| node.name.as_str()).collect();
    let mut pass = Pass {
        graph,
        settings,
        losses,
        rows: vec![None; graph.nodes().len()],
        computed: HashSet::new(),
        sums: HashSet::new(),
        lost: HashMap::new(),
    };
    pass.forward();
    let readers = graph.consumers();
    let outputs: HashSet<ValueId> = graph.outputs().iter().copied().collect();
    for (id, node) in graph.node_ids().collect::<Vec<_>>().into_iter().rev() {
        let all = |wanted: bool| {
            let written = node.outputs.iter().flatten();
            written.clone().all(|value| {
                let output = outputs.contains(value);
                let mut reads = readers[value.0].iter().filter_map(|reader| pass.reads_low(*reader, *value)).peekable();
                !(wanted && output) && (output || reads.peek().is_some()) && reads.all(|low| low == wanted)
            })
        };
        if pass.rows[id.0].is_some() && table::is_arithmetic(&node.op) && all(false) {
            pass.rows[id.0] = None;
        } else if pass.rows[id.0].is_none() && table::moves(&node.op) && all(true) {
            pass.rows[id.0] = pass.row(node);
        }
    }
    pass.rows
}

struct Pass<'g> {
    graph: &'g Graph,
    settings: &'g Settings,
    /// Names of the nodes of the loss.
    losses: HashSet<&'g str>,
    rows: Vec<Option<&'static Row>>,
    /// Values that were computed in the low dtype.
    computed: HashSet<ValueId>,
    /// Float32 sums over elements, and what is computed with nothing else.
    sums: HashSet<ValueId>,
    /// Whether a constant has elements that become 0.
    lost: HashMap<ValueId, bool>,
}

impl Pass<'_> {
    fn forward(&mut self) {
        for (id, node) in self.graph.node_ids() {
            let row = self.row(node).filter(|row| row.class == Class::Low || self.follows(node, row));
            self.rows[id.0] = row;
            match row {
                Some(row) => {
                    let written = node.outputs.iter().enumerate().filter(|(index, _)| row.outputs.has(*index));
                    let written = written.filter_map(|(_, value)| *value);
                    self.computed.extend(written.filter(|value| self.graph.fact(*value).dtype == Some(DType::F32)));
                }
                None if self.is_sum(node) => self.sums.extend(node.outputs.iter().flatten()),
                None => {}
            }
        }
    }

    /// Returns the row of a node that may compute in the low dtype.
    fn row(&self, node: &Node) -> Option<&'static Row> {
        let loss = match &node.origin {
            Origin::Update(_) => return None,
            Origin::Loss => true,
            Origin::Backward(of) => of == crate::training::names::LOSS || self.losses.contains(of.as_str()),
            Origin::Forward => false,
        };
        if loss && !table::moves(&node.op) || self.settings.keep.keeps(node) {
            return None;
        }
        let row = table::find(&node.op).or_else(|| self.sums_what_was_broadcast(node).then_some(&table::BROADCAST_SUM));
        let exists = |row: &&Row| row.class != Class::Float && (row.bf16 || self.settings.low != LowDType::Bf16);
        row.filter(exists).filter(|row| self.fits(node, row))
    }

    /// Returns true where all floating-point values at the ports of a row are float32, and there are some to read.
    fn fits(&self, node: &Node, row: &Row) -> bool {
        let known = |value: ValueId| match self.graph.fact(value).dtype {
            Some(dtype) => dtype == DType::F32 || !dtype.is_float(),
            None => false,
        };
        let at = |values: &[Option<ValueId>], ports: table::Ports| {
            let taken = values.iter().enumerate().filter(|(index, _)| ports.has(*index));
            taken.filter_map(|(_, value)| *value).collect::<Vec<_>>()
        };
        let read = at(&node.inputs, row.inputs);
        let some = read.iter().any(|value| self.graph.fact(*value).dtype == Some(DType::F32));
        some && read.into_iter().chain(at(&node.outputs, row.outputs)).all(known) && node.captured().next().is_none()
    }

    fn follows(&mut self, node: &Node, row: &Row) -> bool {
        let read: Vec<ValueId> = node
            .inputs
            .iter()
            .enumerate()
            .filter(|(index, _)| row.inputs.has(*index))
            .filter_map(|(_, value)| *value)
            .collect();
        let low = |value: &ValueId| self.computed.contains(value);
        if !row.led_by.map_or_else(|| read.iter().any(low), |index| node.input(index).as_ref().is_some_and(low)) {
            return false;
        }
        let standard = node.op.domain.is_empty() && !table::moves(&node.op);
        !(standard && read.iter().any(|value| self.sums.contains(value) || self.is_lost(*value)))
    }

    /// Returns true for a sum over elements, and for what is computed with such sums and constants alone.
    fn is_sum(&self, node: &Node) -> bool {
        let float = |value: &ValueId| self.graph.fact(*value).is_float() && self.graph.constant(*value).is_none();
        let mut read = node.inputs.iter().flatten().copied().filter(float).peekable();
        table::reduces(&node.op)
            || node.op.domain.is_empty() && read.peek().is_some() && read.all(|value| self.sums.contains(&value))
    }

    /// Returns true for the sum of a gradient over its leading axes, the batch among them.
    fn sums_what_was_broadcast(&self, node: &Node) -> bool {
        let backward = matches!(node.origin, Origin::Backward(_));
        let axes = |axes: ValueId| self.graph.constant(axes)?.to_ints();
        let rank = node.input(0).and_then(|x| self.graph.fact(x).rank());
        let (Some(axes), Some(rank)) = (node.input(1).and_then(axes), rank) else { return false };
        let mut axes: Vec<i64> =
            axes.into_iter().map(|axis| if axis < 0 { axis + rank as i64 } else { axis }).collect();
        axes.sort_unstable();
        let leading = axes.iter().enumerate().all(|(index, axis)| *axis == index as i64);
        backward && node.op.is("ReduceSum") && leading && !axes.is_empty() && axes.len() < rank
    }

    /// Returns true for a constant of which elements that are not 0 would be.
    fn is_lost(&mut self, value: ValueId) -> bool {
        if let Some(known) = self.lost.get(&value) {
            return *known;
        }
        let low = self.settings.low.dtype();
        let lost = self.graph.constant(value).and_then(|tensor| {
            let rounded = tensor.rounded(low)?.to_f64s()?;
            Some(tensor.to_f64s()?.iter().zip(rounded).any(|(exact, rounded)| rounded == 0.0 && *exact != 0.0))
        });
        *self.lost.entry(value).or_insert(lost == Some(true))
    }

    /// Returns whether a node reads a value in the low dtype only; `None` where it takes any.
    fn reads_low(&self, reader: NodeId, value: ValueId) -> Option<bool> {
        let node = self.graph.node(reader);
        let at = || node.inputs.iter().enumerate().filter(|(_, input)| **input == Some(value)).map(|(index, _)| index);
        match self.rows[reader.0] {
            Some(row) => Some(at().all(|index| row.inputs.has(index))),
            None => {
                let any = table::find(&node.op).is_some_and(|row| at().all(|index| row.either.contains(&index)));
                (!any || at().next().is_none()).then_some(false)
            }
        }
    }
}
