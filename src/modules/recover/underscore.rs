//! Modules from names in which underscores separate the module from the role of the tensor
//! (`stage1_conv0_weight`, `res2_0_branch2a_bn_riv_0`), where the graph agrees.

use crate::graph::{Graph, NodeId};
use crate::modules::names::{dotted_owner, underscored};
use crate::modules::parameters::{Param, Role};
use crate::modules::uses::{Use, source};
use std::collections::{HashMap, HashSet};

/// Which parameters belong together by name.
pub(super) struct Groups(HashMap<usize, String>);

impl Groups {
    /// Groups the parameters without a dotted name. A group stands when one node reads its tensors, or
    /// when each further node that reads one works on what another node of the group made.
    pub(super) fn new(graph: &Graph, params: &[Param], readers: &[Vec<Use>]) -> Groups {
        let mut groups: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, param) in params.iter().enumerate() {
            if param.role == Role::Buffer || dotted_owner(&param.name).is_some() {
                continue;
            }
            if let Some((stem, _)) = underscored(&param.name) {
                groups.entry(stem).or_default().push(index);
            }
        }
        let mut found = HashMap::new();
        for (stem, members) in groups {
            let nodes = members.iter().filter_map(|index| Some(readers[*index].first()?.node)).collect();
            if together(graph, nodes) {
                let path = stem.replace('.', "_").replace('/', ".");
                found.extend(members.into_iter().map(|index| (index, path.clone())));
            }
        }
        Groups(found)
    }

    /// Returns the path of the module that a parameter belongs to.
    pub(super) fn of(&self, index: usize) -> Option<&str> {
        self.0.get(&index).map(String::as_str)
    }
}

fn together(graph: &Graph, nodes: HashSet<NodeId>) -> bool {
    let made_here = |node: &NodeId| {
        let made_by = |value: &crate::graph::ValueId| graph.producer(source(graph, *value));
        graph.node(*node).inputs.iter().flatten().filter_map(made_by).any(|producer| nodes.contains(&producer))
    };
    nodes.iter().filter(|node| !made_here(node)).count() <= 1
}
