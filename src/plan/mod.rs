//! Which parameters are frozen in which epoch: policies, and the plan they make.
//!
//! A [`Policy`] is a pure function of units, costs, history and the number of completed epochs.
//! [`build()`] asks it once per epoch, applies what the user froze or kept by name, prices every
//! distinct frozen set and returns a [`FreezePlan`]: the file `freeze-plan/1`, and the only place
//! where it is written down what is frozen. Epochs count from 1; the decision after `e` completed
//! epochs is what is frozen while epoch `e + 1` trains.
//!
//! What this module does not do: recover units (`modules`), count flops (`cost`), build graphs
//! (`training`) or open a session. What a run has measured reaches a policy as a [`History`].

mod batch_norm;
#[doc(hidden)]
pub mod budget;
mod build;
mod companions;
mod costs;
mod error;
mod file;
mod freeze_plan;
mod history;
mod knobs;
mod memo;
mod options;
mod planner;
pub mod policies;
mod policy;
mod roles;
mod selection;
mod summary;
#[cfg(test)]
pub(crate) mod testing;

pub use batch_norm::BatchNorm;
pub use build::{Inputs, StepCosts};
#[doc(hidden)]
pub use build::{build, build_with};
pub use companions::{Accompanied, Companion, CompanionKind, Companions, FrozenDropout, Held, ParameterSet};
pub use error::PlanError;
pub use file::{parse, read, write};
pub use freeze_plan::{
    Assumed, EpochPlan, FORMAT, FinalDecision, FreezePlan, Measured, ModelInfo, PlannedUnit, Point, PolicyRecord,
    Predicted, Remaining, Segment, StepSeconds, Summary, segments, sha256_hex,
};
pub use history::{EpochRecord, History, Observation, Reading, Signal, Speeds};
pub use knobs::{Knob, Knobs, Preset, Range};
#[cfg(feature = "cli")]
pub(crate) use options::COMMON;
pub use options::{MAX_EPOCHS, OnReturn, PlanOptions, PrefixMode, Rollback};
pub use planner::{Planner, SHOWN_LATER};
pub use policies::Arithmetic;
pub use policy::{Decision, FrozenSet, Moment, Policy, Reference, Run};
#[doc(hidden)]
pub use roles::overrides;
#[cfg(feature = "runner")]
pub(crate) use selection::{Pattern, nearby};
#[doc(hidden)]
pub use selection::{frozen_unless_kept, spoken_for};
