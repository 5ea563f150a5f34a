//! Who owns what in a model: the module tree as its author wrote it, and the units a policy
//! freezes.
//!
//! [`parameters()`] says which initializers train, [`recover`] gives the [`ModuleTree`], [`units`] the
//! list that policies count on.
//!
//! A model whose exporter merged parameters of equal value goes through [`untie`] before.
//!
//! What this module does not do: decide what is frozen (`plan`), or count costs (`cost`).

mod parameters;
mod recover;
mod shared;
mod tree;
mod unit;
mod untie;
pub(crate) mod uses;
pub use uses::Use;

pub use parameters::{Param, Role, is_state_name, parameters};
pub use recover::recover;
pub use shared::{Shared, shared};
pub use tree::{Module, ModuleId, ModuleTree};
pub use unit::{Unit, UnitKind, units};
pub use untie::{Untied, untie};

#[cfg(test)]
mod tests;
