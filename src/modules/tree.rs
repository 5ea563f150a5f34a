//! The ownership tree: modules, what they hold and which nodes they run.

use super::names::parent;
use crate::graph::NodeId;
use std::collections::HashMap;

/// Position of a module in its [`ModuleTree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleId(pub(crate) usize);

/// One module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Module {
    /// Path from the root, such as `layer1.0.conv1`; the root's is empty.
    pub path: String,
    /// Last part of the path.
    pub name: String,
    /// Class, such as `Conv2d`; where the file does not say, the operator that reads the module's own
    /// first parameter; empty for a module that has none.
    pub class: String,
    /// The module that holds this one.
    pub parent: Option<ModuleId>,
    /// The modules it holds, in registration order.
    pub children: Vec<ModuleId>,
    /// Trainable initializers that it holds itself, in registration order.
    pub parameters: Vec<String>,
    /// Running statistics that it holds itself.
    pub statistics: Vec<String>,
    /// Buffers that it holds itself.
    pub buffers: Vec<String>,
    /// Trainable initializers that it reads as a leaf and another module owns, such as the tied weight
    /// of a language model's head.
    pub shared: Vec<String>,
    /// Nodes that it runs itself, in evaluation order.
    pub nodes: Vec<NodeId>,
}

/// What placed a parameter in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Its own name says the owner.
    Name,
    /// Its name is one of the model's author and says no owner, so it belongs to the root.
    Root,
    /// The named parameter that is read together with it.
    Beside(String),
    /// The scope of the node that reads it first.
    Scope(NodeId),
    /// The front of its name, which all tensors of neighbouring nodes have.
    Underscores,
    /// Nothing but the node that reads it.
    Node(NodeId),
}

/// The modules of a model. Every node and every parameter belongs to exactly one of them.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleTree {
    modules: Vec<Module>,
    by_path: HashMap<String, ModuleId>,
    owners: HashMap<String, (ModuleId, Evidence)>,
    depths: Vec<usize>,
    of_node: Vec<ModuleId>,
    strategy: &'static str,
}

impl ModuleTree {
    /// Returns a tree that holds nothing but a root.
    pub(super) fn new(strategy: &'static str, nodes: usize) -> ModuleTree {
        let root = ModuleId(0);
        ModuleTree {
            modules: vec![Module::default()],
            by_path: HashMap::from([(String::new(), root)]),
            owners: HashMap::new(),
            depths: vec![0],
            of_node: vec![root; nodes],
            strategy,
        }
    }

    /// Returns how the tree was recovered: `dynamo`, `functions`, `scoped`, `slash`, `dotted` or
    /// `topological`.
    pub fn strategy(&self) -> &'static str {
        self.strategy
    }

    /// Returns the root.
    pub fn root(&self) -> ModuleId {
        ModuleId(0)
    }

    /// Returns a module.
    pub fn module(&self, id: ModuleId) -> &Module {
        &self.modules[id.0]
    }

    /// Returns the module of a path.
    pub fn get(&self, path: &str) -> Option<ModuleId> {
        self.by_path.get(path).copied()
    }

    /// Returns every module, parents before children, children in registration order.
    pub fn iter(&self) -> impl Iterator<Item = (ModuleId, &Module)> {
        self.below(self.root()).into_iter().map(|id| (id, self.module(id)))
    }

    /// Returns a module and everything below it, depth first.
    pub fn below(&self, id: ModuleId) -> Vec<ModuleId> {
        let (mut found, mut open) = (Vec::new(), vec![id]);
        while let Some(id) = open.pop() {
            found.push(id);
            open.extend(self.module(id).children.iter().rev());
        }
        found
    }

    /// Returns the module that holds a parameter, running statistic or buffer.
    pub fn owner(&self, parameter: &str) -> Option<ModuleId> {
        self.owners.get(parameter).map(|(id, _)| *id)
    }

    /// Returns what placed a parameter, running statistic or buffer where it is.
    pub fn evidence(&self, parameter: &str) -> Option<&Evidence> {
        self.owners.get(parameter).map(|(_, evidence)| evidence)
    }

    /// Returns the module that runs a node.
    pub fn module_of_node(&self, node: NodeId) -> ModuleId {
        self.of_node[node.0]
    }

    /// Returns the trainable parameters in the order of registration: depth first, those of a
    /// module before those of its children.
    pub fn registration(&self) -> Vec<&str> {
        self.iter().flat_map(|(_, module)| module.parameters.iter().map(String::as_str)).collect()
    }

    /// Adds a module and those above it; a dot separates levels.
    pub(super) fn ensure(&mut self, path: &str) -> ModuleId {
        let (mut missing, mut above) = (Vec::new(), Some(path));
        let found = loop {
            match above.map(|path| (path, self.get(path))) {
                None => break self.root(),
                Some((_, Some(id))) => break id,
                Some((path, None)) => {
                    missing.push(path);
                    above = parent(path);
                }
            }
        };
        missing.into_iter().rev().fold(found, |above, path| self.add(path, above))
    }

    /// Adds a module directly below the root, whatever its name holds.
    pub(super) fn ensure_flat(&mut self, path: &str) -> ModuleId {
        self.get(path).unwrap_or_else(|| self.add(path, self.root()))
    }

    fn add(&mut self, path: &str, parent: ModuleId) -> ModuleId {
        let id = ModuleId(self.modules.len());
        let above = &self.module(parent).path;
        let name =
            path.strip_prefix(above.as_str()).map(|rest| rest.trim_start_matches('.')).filter(|_| !above.is_empty());
        let name = name.unwrap_or(path).to_string();
        self.modules.push(Module { path: path.to_string(), name, parent: Some(parent), ..Module::default() });
        self.depths.push(self.depths[parent.0] + 1);
        self.by_path.insert(path.to_string(), id);
        self.module_mut(parent).children.push(id);
        id
    }

    pub(super) fn module_mut(&mut self, id: ModuleId) -> &mut Module {
        &mut self.modules[id.0]
    }

    pub(super) fn own(&mut self, id: ModuleId, parameter: &str, evidence: Evidence) {
        self.owners.insert(parameter.to_string(), (id, evidence));
    }

    pub(super) fn assign(&mut self, node: NodeId, id: ModuleId) {
        self.of_node[node.0] = id;
    }

    /// Returns the deepest module that holds both.
    pub(super) fn common(&self, mut a: ModuleId, mut b: ModuleId) -> ModuleId {
        let above = |id: ModuleId| self.module(id).parent.unwrap_or(self.root());
        while a != b {
            if self.depths[a.0] >= self.depths[b.0] {
                a = above(a);
            } else {
                b = above(b);
            }
        }
        a
    }
}
