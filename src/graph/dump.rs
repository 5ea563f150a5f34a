//! A graph as text, one node a line, for tests and for reading.

use super::{Attribute, Graph};
use std::fmt::Write;

/// Returns the graph as text: inputs, then nodes in order, then outputs.
pub fn dump(graph: &Graph) -> String {
    let mut text = String::new();
    let name = |id| graph.value_name(id);
    for id in graph.inputs() {
        let _ = writeln!(text, "in  {} {}", name(*id), graph.fact(*id));
    }
    for node in graph.nodes() {
        let list = |ids: &[Option<super::ValueId>]| -> String {
            let names: Vec<&str> = ids.iter().map(|id| id.map_or("-", name)).collect();
            names.join(", ")
        };
        let attributes: Vec<String> = node
            .attributes
            .iter()
            .map(|(key, value)| match value {
                Attribute::Int(value) => format!("{key}={value}"),
                Attribute::Float(value) => format!("{key}={value}"),
                Attribute::Ints(values) => format!("{key}={values:?}"),
                Attribute::String(value) => format!("{key}={}", String::from_utf8_lossy(value)),
                Attribute::Tensor(tensor) => format!("{key}={tensor:?}"),
                _ => format!("{key}=.."),
            })
            .collect();
        let _ = writeln!(
            text,
            "{} = {}({}){}",
            list(&node.outputs),
            node.op,
            list(&node.inputs),
            if attributes.is_empty() { String::new() } else { format!(" {{{}}}", attributes.join(", ")) },
        );
    }
    for id in graph.outputs() {
        let _ = writeln!(text, "out {} {}", name(*id), graph.fact(*id));
    }
    text
}
