//! What of a graph computes in what.

use super::Settings;
use super::table::Row;
use crate::graph::{DType, Graph, Node};
use std::collections::BTreeMap;

/// What of a graph computes in what: nodes with floating-point values, by operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Nodes that compute in the low dtype.
    pub low: BTreeMap<String, usize>,
    /// Nodes that compute in float32.
    pub float32: BTreeMap<String, usize>,
    /// Those of `float32` that the job keeps.
    pub kept: usize,
    /// Casts between the two.
    pub casts: usize,
}

impl Summary {
    pub(super) fn of(graph: &Graph, rows: &[Option<&'static Row>], settings: &Settings, casts: usize) -> Summary {
        let mut summary = Summary { casts, ..Summary::default() };
        for (node, row) in graph.nodes().iter().zip(rows) {
            let count = if row.is_some() { &mut summary.low } else { &mut summary.float32 };
            if row.is_some() || computes(graph, node) {
                *count.entry(node.op.to_string()).or_default() += 1;
                summary.kept += usize::from(settings.keep.keeps(node));
            }
        }
        summary
    }
}

/// Returns true for a node that reads float32 and is no constant.
fn computes(graph: &Graph, node: &Node) -> bool {
    node.inputs.iter().flatten().any(|id| graph.fact(*id).dtype == Some(DType::F32))
}
