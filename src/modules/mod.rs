//! Who owns what in a model: the module tree as its author wrote it, and the units a policy
//! freezes.
//!
//! [`parameters()`] says which initializers train, [`recover`] gives the [`ModuleTree`], [`units`] the
//! list that policies count on.
//!
//! A model whose exporter merged parameters of equal value goes through [`untie`] before.
//!
//! What this module does not do: decide what is frozen (`plan`), or count costs (`cost`).

mod hints;
mod names;
mod outputs;
mod parameters;
mod recover;
mod roles;
mod shared;
mod signature;
mod text;
mod tree;
mod unit;
mod untie;
pub(crate) mod uses;
pub use uses::Use;

#[doc(hidden)]
pub use names::is_state_name;
pub use outputs::{UnitOutput, outputs};
#[doc(hidden)]
pub use parameters::{Overrides, parameters_with, trainable_values};
pub use parameters::{Param, Role, parameters};
pub use recover::{recover, recover_with};
pub use shared::{Shared, shared};
pub use text::{notes, why};
pub use tree::{Evidence, Module, ModuleId, ModuleTree};
pub use unit::{Unit, UnitKind, units};
pub use untie::{Untied, untie};

#[cfg(test)]
mod tests;
