//! What a policy freezes as one.

use super::tree::{Module, ModuleId, ModuleTree};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// How parameters are grouped into units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum UnitKind {
    /// A leaf module with parameters, and each set of parameters directly on a module with
    /// children.
    #[default]
    Leaf,
    /// Composer's list: leaf modules with parameters only.
    Composer,
    /// A repeated block.
    Block,
    /// One tensor.
    Parameter,
}

/// One entry of the list that a policy freezes from the front.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Position, from 0, in depth-first order of the ownership tree.
    pub index: usize,
    /// Module path, such as `layer1.0.conv1`; with [`UnitKind::Parameter`] the tensor's name.
    pub path: String,
    /// Class of the module, such as `Conv2d`; where the file does not say, the operator that reads
    /// its parameters, and `Block` for a block without parameters of its own.
    pub class: String,
    /// Names of the trainable initializers it owns, in registration order.
    pub parameters: Vec<String>,
    /// Names of trainable initializers that it uses and another unit owns. Such a parameter freezes with
    /// the last of these units.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<String>,
}

/// Returns the units of a model in registration order, depth first. Parameters directly on a
/// module come before those of its children. Running statistics are in no unit. A leaf module that has
/// nothing but shared parameters is a unit, except with [`UnitKind::Parameter`].
///
/// A leaf is a module without children *in the file*: a child that left neither a node nor a
/// parameter there (a `Dropout` in inference) cannot be seen.
pub fn units(tree: &ModuleTree, kind: UnitKind) -> Vec<Unit> {
    let mut found = Vec::new();
    collect(tree, tree.root(), kind, &mut found);
    for (index, unit) in found.iter_mut().enumerate() {
        unit.index = index;
    }
    found
}

fn collect(tree: &ModuleTree, id: ModuleId, kind: UnitKind, found: &mut Vec<Unit>) {
    let module = tree.module(id);
    if kind == UnitKind::Block && is_block(tree, module) {
        let below = || tree.below(id).into_iter().map(|id| tree.module(id));
        let held: Vec<String> = below().flat_map(|module| module.parameters.clone()).collect();
        let mut seen: HashSet<&String> = held.iter().collect();
        let shared = below().flat_map(|module| &module.shared).filter(|name| seen.insert(*name)).cloned().collect();
        return push(module, held, shared, found);
    }
    match kind {
        UnitKind::Parameter => {
            for name in &module.parameters {
                push(module, vec![name.clone()], Vec::new(), found);
                found.last_mut().into_iter().for_each(|unit| unit.path.clone_from(name));
            }
        }
        UnitKind::Composer if !module.children.is_empty() => {}
        _ => push(module, module.parameters.clone(), module.shared.clone(), found),
    }
    for child in &module.children {
        collect(tree, *child, kind, found);
    }
}

fn push(module: &Module, parameters: Vec<String>, shared: Vec<String>, found: &mut Vec<Unit>) {
    if !parameters.is_empty() || !shared.is_empty() {
        let class = if module.class.is_empty() { "Block" } else { &module.class };
        found.push(Unit { index: 0, path: module.path.clone(), class: class.to_string(), parameters, shared });
    }
}

/// Returns true for a repeated block: a numbered module, or a container whose name ends in a number
/// (`block1`) and whose children are not the numbered ones (`layer1.0`).
fn is_block(tree: &ModuleTree, module: &Module) -> bool {
    let ends_in_number = module.name.ends_with(|c: char| c.is_ascii_digit());
    let holds_blocks = module.children.iter().any(|child| is_numbered(tree.module(*child)));
    is_numbered(module) || ends_in_number && !module.children.is_empty() && !holds_blocks
}

/// Returns true for a module that its author numbered, as `0` in `layers.0`.
fn is_numbered(module: &Module) -> bool {
    !module.name.is_empty() && module.name.chars().all(|c| c.is_ascii_digit())
}
