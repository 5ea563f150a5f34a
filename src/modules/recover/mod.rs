//! Recovers the ownership tree of a model, by the best of several strategies:
//!
//! | strategy | from | gives |
//! |---|---|---|
//! | `dynamo` | metadata of every node | paths and classes |
//! | `scoped` | node names that are paths | paths |
//! | `dotted` | dotted names of initializers | owners |
//! | `topological` | nothing but the graph | one module for each node with parameters |
//!
//! They are merged. The owner of a parameter is what its dotted name says; for one without such a
//! name, the owner of a dotted parameter beside it (the bias of a folded `onnx::MatMul_123`), else
//! the scope of the first node that reads it, else that node itself. A node belongs to the owner of
//! the parameter it reads, else to its scope, else to the deepest module that holds all of its
//! producers.

mod dotted;
mod dynamo;
mod scoped;
mod topological;

pub(super) use dynamo::node_scope;

use super::parameters::{Param, Role, is_state_name, parameters};
use super::tree::{ModuleId, ModuleTree};
use super::uses::{Use, Uses, source};
use crate::graph::{Graph, Model};
use std::collections::{HashMap, HashSet};

/// What a strategy found for the nodes.
struct Scopes {
    /// Module path of each node, by position.
    paths: Vec<Option<String>>,
    /// Class by path.
    classes: HashMap<String, String>,
}

/// Returns the ownership tree of a model.
pub fn recover(model: &Model) -> ModuleTree {
    let params = parameters(model);
    let known = dotted::known(params.iter().map(|param| param.name.as_str()));
    let dynamo = dynamo::scopes(model).map(|scopes| ("dynamo", scopes));
    let scoped = || Some(("scoped", Scopes { paths: scoped::paths(model, &known)?, classes: HashMap::new() }));
    let (strategy, scopes) = dynamo.or_else(scoped).unwrap_or_else(|| {
        let none = Scopes { paths: vec![None; model.graph.nodes().len()], classes: HashMap::new() };
        (if known.is_empty() { "topological" } else { "dotted" }, none)
    });
    let mut merge = Merge {
        graph: &model.graph,
        uses: Uses::new(&model.graph),
        tree: ModuleTree::new(strategy, model.graph.nodes().len()),
        scopes,
        params,
    };
    merge.own();
    merge.assign();
    merge.name_classes();
    merge.order();
    merge.tree
}

struct Merge<'a> {
    graph: &'a Graph,
    uses: Uses,
    tree: ModuleTree,
    scopes: Scopes,
    params: Vec<Param>,
}

impl Merge<'_> {
    fn own(&mut self) {
        for index in 0..self.params.len() {
            let name = self.params[index].name.clone();
            let id = match dotted::owner(&name) {
                Some(path) => self.tree.ensure(path),
                None => self.owner_of_undotted(index),
            };
            self.tree.own(id, &name);
        }
        let mut held: Vec<(&Param, ModuleId)> =
            self.params.iter().filter_map(|param| Some((param, self.tree.owner(&param.name)?))).collect();
        // Exporters move folded weights to the end of the file; a weight registers before its bias.
        held.sort_by_key(|(param, _)| is_state_name(&param.name));
        let held: Vec<_> = held.into_iter().map(|(param, id)| (param.name.clone(), param.role, id)).collect();
        for (name, role, id) in held {
            let module = self.tree.module_mut(id);
            match role {
                Role::Trainable => module.parameters.push(name),
                Role::Statistic => module.statistics.push(name),
            }
        }
    }

    fn owner_of_undotted(&mut self, index: usize) -> ModuleId {
        let (value, name) = (self.params[index].value, self.params[index].name.clone());
        let readers = self.uses.through_views(self.graph, value);
        let flat = matches!(self.tree.strategy(), "topological");
        if !flat && is_state_name(&name) {
            return self.tree.root();
        }
        let Some(first) = readers.first().copied() else { return self.tree.root() };
        if let Some(path) = readers.iter().find_map(|reader| self.dotted_beside(*reader)) {
            return self.tree.ensure(&path);
        }
        match &self.scopes.paths[first.node.0] {
            Some(path) => self.tree.ensure(&path.clone()),
            None => self.tree.ensure_flat(&topological::path(self.graph, first)),
        }
    }

    /// Returns the owner of a dotted parameter that the same node reads, or that is added to its
    /// output.
    fn dotted_beside(&self, reader: Use) -> Option<String> {
        let node = self.graph.node(reader.node);
        let owner = |value| dotted::owner(self.graph.value_name(source(self.graph, value))).map(String::from);
        let others = node.inputs.iter().enumerate().filter(|(input, _)| *input != reader.input);
        let same = others.filter_map(|(_, value)| *value).filter(|value| self.is_param(*value)).find_map(owner);
        let added = || {
            let readers = self.uses.through_views(self.graph, node.output(0)?);
            let adds = readers.iter().filter(|reader| self.graph.node(reader.node).op.is("Add"));
            let others = adds.filter_map(|add| self.graph.node(add.node).input(1 - add.input.min(1)));
            others.filter(|value| self.is_param(*value)).find_map(owner)
        };
        same.or_else(added)
    }

    fn is_param(&self, value: crate::graph::ValueId) -> bool {
        let value = source(self.graph, value);
        self.params.iter().any(|param| param.value == value)
    }

    fn assign(&mut self) {
        let mut readers: HashMap<usize, HashSet<ModuleId>> = HashMap::new();
        for param in &self.params {
            let Some(owner) = self.tree.owner(&param.name) else { continue };
            let all = self.uses.through_views(self.graph, param.value);
            let first = all.iter().chain(self.uses.direct(param.value)).map(|reader| reader.node.0);
            for node in first.collect::<HashSet<_>>() {
                let scope = self.scopes.paths[node].as_deref().and_then(|path| self.tree.get(path));
                let shared = all.len() > 1;
                readers.entry(node).or_default().insert(scope.filter(|_| shared).unwrap_or(owner));
            }
        }
        for (id, node) in self.graph.node_ids() {
            let owners = readers.get(&id.0).map(|owners| owners.iter().copied().collect::<Vec<_>>());
            let module = match (owners, &self.scopes.paths[id.0]) {
                (Some(owners), scope) if owners.len() == 1 || scope.is_none() => self.common(owners),
                (_, Some(path)) => self.tree.ensure(&path.clone()),
                _ => {
                    let data = node.inputs.iter().flatten().filter_map(|value| self.graph.producer(*value));
                    let producers = data.filter(|producer| !self.graph.node(*producer).op.is("Constant"));
                    self.common(producers.map(|producer| self.tree.module_of_node(producer)).collect())
                }
            };
            self.tree.assign(id, module);
            self.tree.module_mut(module).nodes.push(id);
        }
    }

    fn common(&self, modules: Vec<ModuleId>) -> ModuleId {
        modules.into_iter().reduce(|a, b| self.tree.common(a, b)).unwrap_or(self.tree.root())
    }

    fn name_classes(&mut self) {
        let ids: Vec<ModuleId> = self.tree.iter().map(|(id, _)| id).collect();
        for id in ids {
            let module = self.tree.module(id);
            let class = self.scopes.classes.get(&module.path).cloned().or_else(|| {
                let held = module.parameters.first()?;
                let reader = *self.uses.through_views(self.graph, self.graph.find(held)?).first()?;
                Some(self.graph.node(reader.node).op.name.clone())
            });
            self.tree.module_mut(id).class = class.unwrap_or_default();
        }
    }

    /// Puts children in registration order: those with dotted parameters as in the file, numbered
    /// ones by number, others behind the sibling that runs last before them.
    fn order(&mut self) {
        let count = self.tree.iter().count();
        let (mut registered, mut used) = (vec![usize::MAX; count], vec![usize::MAX; count]);
        for (index, param) in self.params.iter().enumerate() {
            let Some(owner) = self.tree.owner(&param.name) else { continue };
            if dotted::owner(&param.name).is_some() {
                self.up(owner, index, &mut registered);
            }
            if let Some(reader) = self.uses.through_views(self.graph, param.value).first() {
                self.up(owner, reader.node.0, &mut used);
            }
        }
        for (id, _) in self.graph.node_ids() {
            self.up(self.tree.module_of_node(id), id.0, &mut used);
        }
        let ids: Vec<ModuleId> = self.tree.iter().map(|(id, _)| id).collect();
        for id in ids {
            let children = &self.tree.module(id).children;
            let (mut ordered, mut rest): (Vec<ModuleId>, Vec<ModuleId>) =
                children.iter().copied().partition(|child| registered[child.0] != usize::MAX);
            ordered.sort_by_key(|child| registered[child.0]);
            rest.sort_by_key(|child| used[child.0]);
            for child in rest {
                let before = ordered.iter().enumerate().filter(|(_, other)| used[other.0] < used[child.0]);
                let place = before.max_by_key(|(_, other)| used[other.0]).map_or(0, |(index, _)| index + 1);
                ordered.insert(place, child);
            }
            let number = |child: &ModuleId| self.tree.module(*child).name.parse::<u64>();
            if ordered.iter().all(|child| number(child).is_ok()) {
                ordered.sort_by_key(|child| number(child).unwrap_or_default());
            }
            self.tree.module_mut(id).children = ordered;
        }
    }

    fn up(&self, id: ModuleId, index: usize, least: &mut [usize]) {
        for id in std::iter::successors(Some(id), |id| self.tree.module(*id).parent) {
            least[id.0] = least[id.0].min(index);
        }
    }
}
