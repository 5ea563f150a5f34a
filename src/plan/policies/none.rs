//! Freezes nothing.
//!
//! *Idea.* The baseline that other plans are compared with, and the policy for a user who freezes
//! by name only.
//!
//! *Signals.* None. *Knobs.* None. *Does nothing* always.
//!
//! *Source.* Ordinary training. *Known negative results.* It saves nothing.

use super::Entry;
use crate::plan::{Decision, FrozenSet, Moment, Policy};

/// Freezes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nothing;

pub(super) static ENTRY: Entry =
    Entry { name: "none", knobs: &[], unit: None, card: include_str!("none.rs"), new: |_| Ok(Box::new(Nothing)) };

impl Policy for Nothing {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        Decision { frozen: FrozenSet::none(at.units.len()), fraction: 0.0 }
    }
}
