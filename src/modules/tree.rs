//! The ownership tree: modules, what they hold and which nodes they run.

use crate::graph::{Model, NodeId};
use std::collections::HashMap;
use std::fmt::Write;

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
    /// Nodes that it runs itself, in evaluation order.
    pub nodes: Vec<NodeId>,
}

/// The modules of a model. Every node and every parameter belongs to exactly one of them.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleTree {
    modules: Vec<Module>,
    by_path: HashMap<String, ModuleId>,
    owners: HashMap<String, ModuleId>,
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
            of_node: vec![root; nodes],
            strategy,
        }
    }

    /// Returns how the tree was recovered: `dynamo`, `scoped`, `dotted` or `topological`.
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

    /// Returns the module that holds a parameter or running statistic.
    pub fn owner(&self, parameter: &str) -> Option<ModuleId> {
        self.owners.get(parameter).copied()
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
        if let Some(id) = self.get(path) {
            return id;
        }
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        let parent = self.ensure(parent);
        self.add(parent, path, name)
    }

    /// Adds a module under the root whose path is taken as one part.
    pub(super) fn ensure_flat(&mut self, path: &str) -> ModuleId {
        match self.get(path) {
            Some(id) => id,
            None => self.add(self.root(), path, path),
        }
    }

    fn add(&mut self, parent: ModuleId, path: &str, name: &str) -> ModuleId {
        let id = ModuleId(self.modules.len());
        let module = Module { path: path.into(), name: name.into(), parent: Some(parent), ..Module::default() };
        self.modules.push(module);
        self.modules[parent.0].children.push(id);
        self.by_path.insert(path.to_string(), id);
        id
    }

    pub(super) fn module_mut(&mut self, id: ModuleId) -> &mut Module {
        &mut self.modules[id.0]
    }

    pub(super) fn own(&mut self, id: ModuleId, parameter: &str) {
        self.owners.insert(parameter.to_string(), id);
    }

    pub(super) fn assign(&mut self, node: NodeId, id: ModuleId) {
        self.of_node[node.0] = id;
    }

    /// Returns the deepest module that holds both.
    pub(super) fn common(&self, a: ModuleId, b: ModuleId) -> ModuleId {
        let above = |id: ModuleId| std::iter::successors(Some(id), |id| self.module(*id).parent).collect::<Vec<_>>();
        let of_b = above(b);
        above(a).into_iter().find(|id| of_b.contains(id)).unwrap_or(self.root())
    }

    /// Returns the tree as text: a module a line, indented, with its class; below it each
    /// parameter with dtype, shape and element count.
    pub fn text(&self, model: &Model) -> String {
        let mut text = String::new();
        let mut open = vec![(self.root(), 0)];
        while let Some((id, depth)) = open.pop() {
            let module = self.module(id);
            let name = if module.path.is_empty() { "(model)" } else { &module.name };
            let _ = writeln!(text, "{:indent$}{}", "", [name, &module.class].join(" ").trim_end(), indent = 2 * depth);
            let held = module.parameters.iter().map(|name| (name, ""));
            for (name, note) in held.chain(module.statistics.iter().map(|name| (name, " statistic"))) {
                let Some(value) = model.graph.find(name) else { continue };
                let short = name.strip_prefix(&format!("{}.", module.path)).unwrap_or(name);
                let fact = model.graph.fact(value);
                let count = fact.sizes().map_or(0, |sizes| sizes.iter().product::<usize>());
                let _ = writeln!(text, "{:indent$}{short} {fact} {count}{note}", "", indent = 2 * depth + 2);
            }
            open.extend(module.children.iter().rev().map(|child| (*child, depth + 1)));
        }
        text
    }
}
