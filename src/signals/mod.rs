//! Numbers about a run: how alike two sets of activations are, how much gradients and weights change.
//!
//! Every measure is a pure function of plain data in f64, one file each. Activations come as
//! [`Activations`], a matrix of datapoints x features made from a tensor under a [`Layout`]; gradients
//! and weights come as slices. What cannot be measured (no variance, too few datapoints, a NaN) is a
//! [`SignalError`]; no function here panics or returns a NaN.
//!
//! | measure | value | two equal inputs |
//! |---|---|---|
//! | [`cca`], [`svcca`], [`pwcca`] | canonical correlations, in [0, 1] | 1 |
//! | [`linear_cka`] | in [0, 1] | 1 |
//! | [`MinibatchCka`] | at most 1, about 0 where unrelated | 1 |
//! | [`similarity_preserving`] | a loss, from 0 | 0 |
//! | [`relative_change`], [`weight_change`] | from 0 | 0 |
//!
//! This module does not run a model, keep snapshots, know units or epochs, or decide what freezes:
//! the runner observes, and a policy decides.

mod activations;
mod basis;
mod cca;
mod change;
mod cka;
mod error;
mod hsic;
mod minibatch_cka;
mod percentile;
mod pwcca;
mod similarity_preserving;
mod singular;
mod svcca;
#[cfg(test)]
mod testing;
mod trend;

pub use activations::{Activations, Layout};
pub use cca::{Correlations, cca};
pub use change::{GradientSum, relative_change, weight_change};
pub use cka::linear_cka;
pub use error::SignalError;
pub use hsic::{hsic0, hsic1};
pub use minibatch_cka::MinibatchCka;
pub use percentile::percentile;
pub use pwcca::{Directions, ProjectionWeighted, pwcca};
pub use similarity_preserving::{Similarities, similarity_preserving};
pub use svcca::{SVCCA_SHARE, svcca};
pub use trend::{exponential_average, moving_average, slope};
