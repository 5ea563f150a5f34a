//! The numbers by which plans are compared.

use crate::plan::{EpochPlan, FreezePlan, Point, Predicted};

/// What a plan comes to.
pub(in crate::report) struct Numbers {
    pub(super) units: usize,
    /// Units that are frozen in the last step.
    pub(super) frozen: usize,
    /// Where something is frozen for the first time.
    pub(super) first: Option<Point>,
    /// Fractions of the flops of a run with nothing frozen.
    pub(super) saved: f64,
    pub(super) saved_cached: f64,
    pub(super) ceiling: f64,
    pub(super) ceiling_cached: f64,
    /// Lowest and highest bytes of gradients and optimizer slots, and of what the forward pass keeps.
    pub(super) state_bytes: (u64, u64),
    pub(super) activation_bytes: (u64, u64),
    /// Of each epoch, means over its steps: fraction of the units that is frozen, and flops of a step relative to
    /// nothing frozen, without and with a cached prefix.
    pub(in crate::report) shares: Vec<f64>,
    pub(super) costs: Vec<f64>,
    pub(super) cached_costs: Vec<f64>,
}

impl Numbers {
    pub(in crate::report) fn of(plan: &FreezePlan) -> Numbers {
        let steps = plan.assumed.steps_per_epoch;
        let units = plan.units.len();
        let share = |epoch: &EpochPlan| -> f64 {
            let shares = epoch.shares(steps).into_iter();
            shares.map(|(stretch, share)| stretch.frozen_units as f64 * share).sum::<f64>() / units.max(1) as f64
        };
        let stretches = || plan.epochs.iter().flat_map(EpochPlan::stretches);
        let range = |number: fn(&Predicted) -> u64| {
            let numbers = || stretches().map(|stretch| number(&stretch.predicted));
            (numbers().min().unwrap_or(0), numbers().max().unwrap_or(0))
        };
        let first = stretches().find(|stretch| !stretch.frozen.is_empty());
        Numbers {
            units,
            frozen: stretches().last().map_or(0, |last| last.frozen_units),
            first: first.map(|stretch| Point { epoch: stretch.epoch, after: stretch.after }),
            saved: (1.0 - plan.summary.cost_ratio).max(0.0),
            saved_cached: (1.0 - plan.summary.cached_cost_ratio).max(0.0),
            ceiling: plan.summary.ceiling,
            ceiling_cached: plan.summary.cached_ceiling,
            state_bytes: range(|predicted| predicted.state_bytes),
            activation_bytes: range(|predicted| predicted.activation_bytes),
            shares: plan.epochs.iter().map(share).collect(),
            costs: plan.epochs.iter().map(|epoch| epoch.mean(steps, |p| p.step_cost)).collect(),
            cached_costs: plan.epochs.iter().map(|epoch| epoch.mean(steps, |p| p.cached_step_cost)).collect(),
        }
    }

    /// Returns the first freeze: `6`, or `6+12` where 12 steps of epoch 6 come before it.
    #[cfg(feature = "cli")]
    pub(super) fn first(&self) -> String {
        match self.first {
            None => "never".into(),
            Some(Point { epoch, after: 0 }) => epoch.to_string(),
            Some(Point { epoch, after }) => format!("{epoch}+{after}"),
        }
    }

    /// Returns the frozen units at the end, as `9/13`.
    #[cfg(feature = "cli")]
    pub(super) fn frozen(&self) -> String {
        format!("{}/{}", self.frozen, self.units)
    }
}

/// Returns `values`, one for each of `epochs` epochs, in at most `width` columns: as they are, or the means over the
/// part of the epochs that a column stands for. Columns after the last value are left out.
#[cfg(feature = "cli")]
pub(super) fn resampled(values: &[f64], epochs: usize, width: usize) -> Vec<f64> {
    if epochs <= width {
        return values.to_vec();
    }
    let per_column = epochs as f64 / width as f64;
    let mean = |column: usize| {
        let (from, to) = (column as f64 * per_column, (column + 1) as f64 * per_column);
        let (mut sum, mut weight) = (0.0, 0.0);
        for (epoch, value) in values.iter().enumerate().skip(from as usize).take(per_column as usize + 2) {
            let part = ((epoch + 1) as f64).min(to) - (epoch as f64).max(from);
            if part > 1e-9 {
                sum += value * part;
                weight += part;
            }
        }
        (weight > 0.0).then(|| sum / weight)
    };
    (0..width).map_while(mean).collect()
}

/// Returns the number of epochs of the longest plan.
pub(super) fn longest(plans: &[super::Compared]) -> usize {
    plans.iter().map(|compared| compared.plan.epochs.len()).max().unwrap_or(0)
}
