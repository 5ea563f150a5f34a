//! Freezes from the input side, one unit after the other at equal intervals: SVCCA's Freeze Training.
//!
//! *Idea.* The similarity of a layer to its final state says that layers settle from the input side up. Of `n` units
//! the `i`-th, counted from 1, is frozen from the fraction `i / n` of the run on:
//!
//! ```text
//! depth = min(trunc(n j / J), n - 1)         before step j of J
//! ```
//!
//! In whole numbers, so there is no rounding. The last unit trains to the end, and nothing thaws.
//!
//! *Signals.* None: steps only; the similarity itself is the policy `similarity`. With unknown steps a freeze is
//! shown at the start of the next epoch.
//!
//! *Knobs.* None. The authors freeze blocks of a residual network as one, and so does this policy where nothing else
//! is asked for.
//!
//! *Does nothing* with fewer than two units, and in a run of one step.
//!
//! *Source.* Raghu, Gilmer, Yosinski, Sohl-Dickstein, NeurIPS 2017, arXiv 1706.05806, section on Freeze Training. No
//! code of it was released; what becomes of optimizer state, statistics and learning rate is not said.
//!
//! *Known negative results.* None is published, and neither is a time: the paper shows a curve (CIFAR-10, ten runs of
//! 160 000 steps, slightly above the baseline) and no table. Equal units save at most 1/3 of the compute.

use super::Entry;
use crate::modules::UnitKind;
use crate::plan::{Decision, FrozenSet, Moment, Policy, Run};

/// Freezes a prefix that grows by one unit at equal intervals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SvccaLinear;

pub(super) static ENTRY: Entry = Entry {
    name: "svcca-linear",
    knobs: &[],
    unit: Some(UnitKind::Block),
    card: include_str!("svcca_linear.rs"),
    new: |_| Ok(Box::new(SvccaLinear)),
};

impl Policy for SvccaLinear {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        let units = at.units.len();
        let depth = units as u128 * at.steps() as u128 / at.run().steps().max(1) as u128;
        let depth = usize::try_from(depth).unwrap_or(units).min(units.saturating_sub(1));
        Decision { frozen: FrozenSet::prefix(units, depth), fraction: at.elapsed().min(1.0) }
    }

    fn points(&self, run: Run, units: usize) -> Vec<usize> {
        let first_frozen = |unit: usize| (unit as u128 * run.steps() as u128).div_ceil(units as u128);
        (1..units).filter_map(|unit| usize::try_from(first_frozen(unit)).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, frozen};
    use super::*;
    use crate::plan::testing::chain;

    #[test]
    fn unit_i_freezes_at_its_share_of_the_run() {
        struct Case {
            units: usize,
            run: Run,
            points: &'static [usize],
        }
        let cases = [
            Case { units: 4, run: Run { epochs: 10, steps_per_epoch: 100 }, points: &[250, 500, 750] },
            Case { units: 3, run: Run { epochs: 1, steps_per_epoch: 100 }, points: &[34, 67] },
            Case { units: 5, run: Run { epochs: 1, steps_per_epoch: 3 }, points: &[1, 2, 2, 3] },
            Case { units: 1, run: Run { epochs: 3, steps_per_epoch: 3 }, points: &[] },
            Case { units: 0, run: Run { epochs: 3, steps_per_epoch: 3 }, points: &[] },
        ];
        for Case { units, run, points } in cases {
            assert_eq!(SvccaLinear.points(run, units), points, "{units} units, {run:?}");
            let chain = chain(units);
            for (index, step) in points.iter().enumerate() {
                let depth = |step| SvccaLinear.decide(&at(&chain, run, step)).frozen.count();
                assert!(depth(step - 1) <= index && depth(*step) > index, "{units} units, {run:?}, step {step}");
            }
        }
    }

    #[test]
    fn the_depth_never_falls_and_the_last_unit_trains() {
        for units in [0, 1, 2, 7] {
            let chain = chain(units);
            for (epochs, steps_per_epoch) in [(1, 1), (1, 100), (9, 1), (3, 100)] {
                let run = Run { epochs, steps_per_epoch };
                let mut before = 0;
                for step in 0..=run.steps() {
                    let Decision { frozen, fraction } = SvccaLinear.decide(&at(&chain, run, step));
                    assert!(frozen.count() >= before && frozen.count() <= units.saturating_sub(1));
                    assert_eq!(fraction, step as f64 / run.steps() as f64);
                    before = frozen.count();
                }
                assert_eq!(before, units.saturating_sub(1));
            }
        }
        let run = Run { epochs: 4, steps_per_epoch: 1 };
        assert_eq!(frozen(&SvccaLinear, &chain(4), run), ["....", "#...", "##..", "###.", "###."]);
    }
}
