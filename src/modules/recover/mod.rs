//! Recovers the ownership tree of a model from everything that the file says:
//!
//! | strategy | from | gives |
//! |---|---|---|
//! | `dynamo` | `name_scopes`, `class_hierarchy` or `namespace` of the nodes | paths and classes |
//! | `functions` | the calls of model-local functions that nodes come from | paths and classes |
//! | `scoped` | node names that are paths (`/layer1/layer1.0/conv1/Conv`) | paths |
//! | `slash` | node and tensor names of TensorFlow (`model/dense/MatMul`) | paths |
//! | `dotted` | dotted names of initializers | owners |
//! | `topological` | nothing but the graph, and names with underscores that agree with it | one module for each node with parameters |
//!
//! The tree is called after the first that the file has, and they are merged. The owner of a parameter is
//! what its dotted name says. For one without such a name it is, in this order: the owner of a dotted
//! parameter beside it (the bias of a folded `onnx::MatMul_123`), unless the scope of the node that
//! reads it lies elsewhere; that scope; what a TensorFlow name says; the module that it shares the front
//! of its name with, where these tensors are read by one node or by neighbours; that node itself.
//!
//! A node belongs to the owner of the parameter it reads, else to its scope, else to the deepest
//! module that holds all of its producers. A parameter that several modules read has one owner; a leaf
//! module among the others has it in [`Module::shared`](super::Module::shared).
//!
//! Children stand in the order of the exported program's signature where there is one, else in the order
//! of their dotted parameters in the file, else in the order of use.

mod dynamo;
mod functions;
mod known;
mod order;
mod scoped;
mod slash;
#[cfg(test)]
mod tests;
mod topological;
mod underscore;

pub(super) use dynamo::node_scope;

use super::names::{dotted_owner, slash_owner, underscored};
use super::parameters::{Param, Role, parameters};
use super::tree::{Evidence, Module, ModuleId, ModuleTree};
use super::uses::{Use, Uses, source};
use crate::graph::{Graph, Model, NodeId, ValueId};
use known::Known;
use std::collections::HashMap;
use underscore::Groups;

/// What a strategy found for the nodes.
struct Scopes {
    /// Name of the strategy.
    strategy: &'static str,
    /// Position in `paths` of each node's scope, by position of the node.
    of_node: Vec<Option<usize>>,
    /// The scopes, each once.
    paths: Vec<String>,
    /// Class by path.
    classes: HashMap<String, String>,
}

impl Scopes {
    fn none(strategy: &'static str, nodes: usize) -> Scopes {
        Scopes { strategy, of_node: vec![None; nodes], paths: Vec::new(), classes: HashMap::new() }
    }

    fn new(strategy: &'static str, found: Vec<Option<String>>, classes: HashMap<String, String>) -> Scopes {
        let (mut paths, mut index): (Vec<String>, HashMap<String, usize>) = (Vec::new(), HashMap::new());
        let mut place = |path: String| {
            *index.entry(path).or_insert_with_key(|path| {
                paths.push(path.clone());
                paths.len() - 1
            })
        };
        let of_node = found.into_iter().map(|path| path.map(&mut place)).collect();
        Scopes { strategy, of_node, paths, classes }
    }
}

/// Returns the ownership tree of a model.
pub fn recover(model: &Model) -> ModuleTree {
    recover_with(model, &parameters(model))
}

/// Returns the ownership tree of a model whose initializers have the given roles
/// ([`parameters_with`](super::parameters_with)).
pub fn recover_with(model: &Model, params: &[Param]) -> ModuleTree {
    let graph = &model.graph;
    let known = Known::new(params.iter().filter(|param| param.is_named()).map(|param| param.name.as_str()));
    let scopes = dynamo::scopes(model)
        .or_else(|| functions::scopes(model, &known))
        .or_else(|| scoped::scopes(model, &known))
        .or_else(|| slash::scopes(model, params))
        .unwrap_or_else(|| {
            let strategy = if known.is_empty() { "topological" } else { "dotted" };
            Scopes::none(strategy, graph.nodes().len())
        });
    let uses = Uses::new(graph);
    let readers: Vec<Vec<Use>> = params.iter().map(|param| uses.through_views(graph, param.value)).collect();
    let held = params.iter().enumerate().filter(|(_, param)| param.role != Role::Buffer);
    let mut merge = Merge {
        graph,
        tree: ModuleTree::new(scopes.strategy, graph.nodes().len()),
        modules: vec![None; scopes.paths.len()],
        groups: Groups::new(graph, params, &readers),
        position: held.map(|(index, param)| (param.value, index)).collect(),
        uses,
        readers,
        scopes,
        params,
        owners: vec![None; params.len()],
        known,
    };
    merge.own();
    merge.assign();
    merge.name_classes();
    order::order(model, &mut merge);
    merge.tree
}

struct Merge<'a> {
    graph: &'a Graph,
    uses: Uses,
    tree: ModuleTree,
    scopes: Scopes,
    /// Module of each scope, once it is needed.
    modules: Vec<Option<ModuleId>>,
    groups: Groups,
    params: &'a [Param],
    /// Slots that read each parameter, seen through views.
    readers: Vec<Vec<Use>>,
    /// Position among the parameters, of those that are no buffers.
    position: HashMap<ValueId, usize>,
    /// Owner of each parameter.
    owners: Vec<Option<ModuleId>>,
    known: Known<'a>,
}

impl Merge<'_> {
    fn own(&mut self) {
        let params = self.params;
        for (index, param) in params.iter().enumerate() {
            let Some((id, evidence)) = self.owner(index) else { continue };
            self.owners[index] = Some(id);
            self.tree.own(id, &param.name, evidence);
        }
        let mut held: Vec<(usize, ModuleId)> =
            self.owners.iter().enumerate().filter_map(|(index, id)| Some((index, (*id)?))).collect();
        // Exporters move folded weights to the end of the file; a weight registers before its bias.
        held.sort_by_key(|(index, _)| super::names::is_state_name(&params[*index].name));
        for (index, id) in held {
            let (param, module) = (&params[index], self.tree.module_mut(id));
            match param.role {
                Role::Trainable => module.parameters.push(param.name.clone()),
                Role::Statistic => module.statistics.push(param.name.clone()),
                Role::Buffer => module.buffers.push(param.name.clone()),
            }
        }
    }

    fn owner(&mut self, index: usize) -> Option<(ModuleId, Evidence)> {
        let param = &self.params[index];
        if let Some(path) = dotted_owner(&param.name) {
            return Some((self.tree.ensure(path), Evidence::Name));
        }
        let first = self.readers[index].first().copied();
        if param.role == Role::Buffer {
            let several = self.graph.fact(param.value).sizes().is_some_and(|sizes| sizes.iter().any(|size| *size > 1));
            return match first.filter(|_| several && !param.is_named()) {
                Some(first) => {
                    let scope = self.scopes.of_node[first.node.0].map(|scope| self.scope(scope));
                    scope.map(|id| (id, Evidence::Scope(first.node)))
                }
                None => param.is_named().then_some((self.tree.root(), Evidence::Root)),
            };
        }
        let flat = self.tree.strategy() == "topological";
        if !flat && super::names::is_state_name(&param.name) {
            return Some((self.tree.root(), Evidence::Root));
        }
        let Some(first) = first else { return Some((self.tree.root(), Evidence::Root)) };
        let scope = self.scopes.of_node[first.node.0];
        let beside = self.readers[index].iter().find_map(|reader| self.dotted_beside(*reader));
        let agrees = |path: &str, scope: &str| {
            let last = |path: &str| path.rsplit('.').next().map(String::from);
            is_below(path, scope) || !self.known.contains(scope) && last(path) == last(scope)
        };
        if let Some((path, name)) = beside
            && scope.is_none_or(|scope| agrees(&path, &self.scopes.paths[scope]))
        {
            return Some((self.tree.ensure(&path), Evidence::Beside(name)));
        }
        if let Some(scope) = scope {
            return Some((self.scope(scope), Evidence::Scope(first.node)));
        }
        if let Some(path) = self.groups.of(index) {
            return Some((self.tree.ensure(path), Evidence::Underscores));
        }
        if let Some(path) = slash_owner(&param.name).filter(|_| underscored(&param.name).is_none()) {
            return Some((self.tree.ensure(&path), Evidence::Name));
        }
        let node = topological::node(self.graph, first);
        Some((self.tree.ensure_flat(&self.graph.node(node).name), Evidence::Node(node)))
    }

    fn scope(&mut self, scope: usize) -> ModuleId {
        if let Some(id) = self.modules[scope] {
            return id;
        }
        let id = self.tree.ensure(&self.scopes.paths[scope]);
        self.modules[scope] = Some(id);
        id
    }

    /// Returns the owner and the name of a dotted parameter that the same node reads, or that is added
    /// to its output.
    fn dotted_beside(&self, reader: Use) -> Option<(String, String)> {
        let node = self.graph.node(reader.node);
        let owner = |value: ValueId| {
            let param = &self.params[*self.position.get(&source(self.graph, value))?];
            Some((dotted_owner(&param.name)?.to_string(), param.name.clone()))
        };
        let others = node.inputs.iter().enumerate().filter(|(input, _)| *input != reader.input);
        let same = others.filter_map(|(_, value)| *value).find_map(owner);
        let added = || {
            let readers = self.uses.through_views(self.graph, node.output(0)?);
            let adds = readers.iter().filter(|reader| self.graph.node(reader.node).op.is("Add"));
            let others = adds.filter_map(|add| self.graph.node(add.node).input(1 - add.input.min(1)));
            others.into_iter().find_map(owner)
        };
        same.or_else(added)
    }

    fn assign(&mut self) {
        let mut of_node: Vec<Option<(ModuleId, bool)>> = vec![None; self.graph.nodes().len()];
        let mut borrowed: Vec<(NodeId, usize, ModuleId, usize)> = Vec::new();
        for index in 0..self.params.len() {
            let Some(owner) = self.owners[index].filter(|_| self.params[index].role != Role::Buffer) else { continue };
            let shared = self.readers[index].len() > 1;
            let direct = self.uses.direct(self.params[index].value).to_vec();
            for reader in self.readers[index].clone().into_iter().chain(direct) {
                let scope = self.scopes.of_node[reader.node.0].map(|scope| self.scope(scope));
                if let Some(scope) = scope.filter(|scope| *scope != owner && self.params[index].role == Role::Trainable)
                {
                    borrowed.push((reader.node, reader.input, scope, index));
                }
                let module = scope.filter(|_| shared).unwrap_or(owner);
                let entry = &mut of_node[reader.node.0];
                *entry = Some(match *entry {
                    None => (module, false),
                    Some((other, many)) => (self.tree.common(other, module), many || other != module),
                });
            }
        }
        for (id, node) in self.graph.node_ids() {
            let module = match (of_node[id.0], self.scopes.of_node[id.0]) {
                (Some((module, many)), scope) if !many || scope.is_none() => module,
                (_, Some(scope)) => self.scope(scope),
                _ => {
                    let data = node.inputs.iter().flatten().filter_map(|value| self.graph.producer(*value));
                    let producers = data.filter(|producer| !self.graph.node(*producer).op.is("Constant"));
                    let modules = producers.map(|producer| self.tree.module_of_node(producer));
                    modules.reduce(|a, b| self.tree.common(a, b)).unwrap_or(self.tree.root())
                }
            };
            self.tree.assign(id, module);
            self.tree.module_mut(module).nodes.push(id);
        }
        self.lend(borrowed);
    }

    /// Gives leaf modules the parameters that they read and another module owns: those that several
    /// modules read; those of a module above one that has such or has its own; and the table of one that
    /// has nothing else, where a tied table has the name of the other module.
    fn lend(&mut self, mut borrowed: Vec<(NodeId, usize, ModuleId, usize)>) {
        borrowed.sort_unstable_by_key(|(node, input, _, index)| (*node, *input, *index));
        let mut homes: HashMap<usize, (ModuleId, bool)> = HashMap::new();
        for (index, readers) in self.readers.iter().enumerate().filter(|(_, readers)| readers.len() > 1) {
            for reader in readers {
                let module = self.tree.module_of_node(reader.node);
                let home = homes.entry(index).or_insert((module, false));
                home.1 |= home.0 != module;
            }
        }
        let leaf = |tree: &ModuleTree, id: ModuleId| tree.module(id).children.is_empty();
        for several in [true, false] {
            for (node, input, module, index) in &borrowed {
                let has_some = |module: &Module| !module.parameters.is_empty() || !module.shared.is_empty();
                let has_some = has_some(self.tree.module(*module));
                let accepted = match several {
                    true => homes.get(index).is_some_and(|home| home.1),
                    false if has_some => self.is_above(self.owners[*index], *module),
                    false => self.graph.node(*node).op.is("Gather") && *input == 0,
                };
                let name = &self.params[*index].name;
                if accepted && leaf(&self.tree, *module) && !self.tree.module(*module).shared.contains(name) {
                    self.tree.module_mut(*module).shared.push(name.clone());
                }
            }
        }
    }

    fn is_above(&self, owner: Option<ModuleId>, module: ModuleId) -> bool {
        owner.is_some_and(|owner| self.tree.common(owner, module) == owner)
    }

    fn name_classes(&mut self) {
        let ids: Vec<ModuleId> = self.tree.iter().map(|(id, _)| id).collect();
        for id in ids {
            let module = self.tree.module(id);
            let class = self.scopes.classes.get(&module.path).cloned().or_else(|| {
                let held = module.parameters.first().or(module.shared.first())?;
                let readers = self.readers.get(*self.position.get(&self.graph.find(held)?)?)?;
                let own = readers.iter().find(|reader| self.tree.module_of_node(reader.node) == id);
                Some(self.graph.node(own.or(readers.first())?.node).op.name.clone())
            });
            self.tree.module_mut(id).class = class.unwrap_or_default();
        }
    }
}

/// Returns true for the scope itself and for paths below it.
fn is_below(path: &str, scope: &str) -> bool {
    scope.is_empty() || path.strip_prefix(scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
