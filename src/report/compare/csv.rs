//! Compared plans as comma-separated values (RFC 4180).

use super::Compared;
use super::numbers::Numbers;
use crate::report::plan_csv::field;

/// Returns one row per plan and epoch: number of the plan from 1, what it is called, policy, epoch from 1, units frozen
/// at the end of the epoch, all units, and means over the steps of the epoch: fraction of the units that is frozen,
/// flops of a step relative to nothing frozen without and with a cached prefix, bytes of gradients and optimizer slots,
/// bytes kept for the backward pass. `known` is `ahead`, `assumed`, `file`, or `measured` where the run decides.
/// Lines end with CR LF.
pub fn compare_csv(plans: &[Compared]) -> String {
    let mut text = String::from(
        "plan,label,policy,known,epoch,frozen_units,units,frozen_share,step_cost,cached_step_cost,state_bytes,\
         activation_bytes\r\n",
    );
    for (index, compared) in plans.iter().enumerate() {
        let plan = &compared.plan;
        let numbers = Numbers::of(plan);
        let steps = plan.assumed.steps_per_epoch;
        let head = [
            (index + 1).to_string(),
            field(&compared.label),
            field(&plan.policy.name),
            compared.known.word().to_string(),
        ];
        let values = numbers.shares.iter().zip(&numbers.costs).zip(&numbers.cached_costs);
        for (epoch, ((share, cost), cached)) in plan.epochs.iter().zip(values) {
            let last = epoch.changes.last().unwrap_or(epoch);
            let mean = |number: fn(&crate::plan::Predicted) -> u64| epoch.mean(steps, |p| number(p) as f64).round();
            text += &format!("{},{},{},{},", head.join(","), epoch.epoch, last.frozen_units, plan.units.len());
            text += &format!("{share},{cost},{cached},");
            text += &format!("{},{}\r\n", mean(|p| p.state_bytes), mean(|p| p.activation_bytes));
        }
    }
    text
}

impl super::Known {
    fn word(&self) -> &'static str {
        match self {
            super::Known::Ahead => "ahead",
            super::Known::Measured => "measured",
            super::Known::Assuming(_) => "assumed",
            super::Known::File(_) => "file",
        }
    }
}
