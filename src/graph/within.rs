//! The nodes of a graph and of the graphs in it.

use super::{Attribute, Graph, Node};

impl Graph {
    /// Returns the nodes in evaluation order, each followed by those of the graphs that it runs.
    pub(crate) fn nodes_within(&self) -> Vec<&Node> {
        fn add<'a>(graph: &'a Graph, found: &mut Vec<&'a Node>) {
            for node in graph.nodes() {
                found.push(node);
                for (_, value) in node.attributes.iter() {
                    if let Attribute::Graph(inner) = value {
                        add(&inner.graph, found);
                    }
                }
            }
        }
        let mut found = Vec::new();
        add(self, &mut found);
        found
    }
}
