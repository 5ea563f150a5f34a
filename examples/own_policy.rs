//! A freezing policy of one's own.
//!
//! ```console
//! $ cargo run --example own_policy
//! ```
//!
//! Needs no ONNX Runtime.

use freeze_plan::plan::{Decision, FrozenSet, Moment, PlanError, Policy};
use std::error::Error;

/// Freezes from the input side as many units as keep the cost of a step at `share` or more, from one third of the run on.
struct Third {
    share: f64,
}

impl Policy for Third {
    /// The plan file names it so.
    fn name(&self) -> &str {
        "third"
    }

    /// Settings for the plan file.
    fn settings(&self) -> serde_json::Map<String, serde_json::Value> {
        [("share".to_string(), self.share.into())].into_iter().collect()
    }

    /// Is asked at the start of every epoch. The same moment must give the same decision: a policy keeps nothing, so a run
    /// that was stopped goes on with the same plan.
    fn decide(&self, at: &Moment<'_>) -> Decision {
        let units = at.units.len();
        if at.elapsed() < 1.0 / 3.0 {
            return Decision::of(FrozenSet::none(units));
        }
        // What a step costs with a set of parameters frozen. `at` also has what each unit costs and, where a policy asks for
        // signals, what the run has measured.
        let cost = |depth: usize| {
            let set = FrozenSet::prefix(units, depth);
            at.step_costs.cost(&set.parameters(at.units)).flops.total() as f64
        };
        let least = self.share * cost(0);
        let depth = (0..=units).take_while(|depth| cost(*depth) >= least).last().unwrap_or(0);
        Decision::of(FrozenSet::prefix(units, depth))
    }

    /// Refuses a setting that makes no sense, before anything is planned.
    fn check(&self, _units: &[freeze_plan::modules::Unit]) -> Result<(), PlanError> {
        if (0.0..=1.0).contains(&self.share) {
            return Ok(());
        }
        Err(PlanError::Knob { name: "share", found: self.share.to_string(), expected: "0 to 1".into() })
    }
}

pub fn main() -> Result<(), Box<dyn Error>> {
    // Patterns, units and the other options of a plan hold for any policy: here the last unit always trains.
    let plan = freeze_plan::plan("fixtures/digits/model.onnx")
        .epochs(6)
        .batch(64)
        .policy(Third { share: 0.6 })
        .keep("fc")
        .run()?;
    for epoch in &plan.epochs {
        println!("epoch {}: {} of {} units frozen", epoch.epoch, epoch.frozen_units, plan.units.len());
    }
    println!("{}", plan.summary.verdict);
    Ok(())
}
