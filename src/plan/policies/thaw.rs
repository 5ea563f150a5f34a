//! Unfreezes from the output side, with lower rates for lower units: ULMFiT's gradual unfreezing.
//!
//! *Idea.* Fine-tuning starts with the last unit alone, so that a new head does not disturb what was learnt before.
//! Then units thaw from the top, `group` of them every `every` epochs. Counted from the top in groups, unit `i` of `n`
//! has the level `l = ceil((n - 1 - i) / group)`, and after `e` completed epochs
//!
//! ```text
//! trains   where l = 0 or e >= thaw(l)       thaw(l) = unfreeze_at + (l - 1) every
//! factor   = decay^-l * min(1, initial * growth^(e - thaw(l)))      of the job's learning rate
//! ```
//!
//! The last unit always trains at the full rate. `unfreeze_at = 10, every = 0, decay = 1, initial = 0.1` is
//! Lightning's `BackboneFinetuning`: everything thaws together at a tenth of the rate, which doubles every epoch.
//!
//! *Signals.* None: epochs only.
//!
//! *Knobs.*
//!
//! | knob | unit | range | default |
//! |---|---|---|---|
//! | `every` | epochs from one thaw to the next; 0 thaws all at once | 0 or more | 1 |
//! | `unfreeze_at` | epochs before the first thaw | 0 or more | `every`, at least 1 |
//! | `group` | units that thaw together | 1 or more | 1 |
//! | `decay` | divisor of the rate for each level below the top; 1 for one rate | [1, 1000] | 2.6 |
//! | `initial` | factor on the rate of what has just thawed | [0.0001, 1] | 1 |
//! | `growth` | factor on `initial` for each epoch since | [1, 1000] | 2 |
//!
//! *Does nothing* but lower rates with `unfreeze_at` 0 and `every` 0, and nothing at all with one unit.
//!
//! *Source.* Howard and Ruder, ACL 2018, arXiv 1801.06146 (one group per epoch, rate divided by 2.6 a layer);
//! PyTorch Lightning, `callbacks/finetuning.py`, which leaves BatchNorm trainable meanwhile: `keep` does that here.
//! ULMFiT's slanted triangular rate is a `[schedule]` and not part of this.
//!
//! *Known negative results.* Not a saving of a whole run: everything trains in the end, and what is saved is in the
//! first epochs. With a frozen prefix that still moves in BatchNorm statistics, what the head learnt shifts under it.
//! Units thaw with fresh optimizer slots unless `on_return` says otherwise.

use super::Entry;
use crate::modules::UnitKind;
use crate::plan::{Decision, FrozenSet, Knob, Knobs, Moment, Policy, Preset, Range};
use serde_json::{Map, Value};

/// Unfreezes from the top.
#[derive(Clone, Debug)]
pub struct Thaw {
    every: usize,
    unfreeze_at: usize,
    group: usize,
    decay: f64,
    initial: f64,
    growth: f64,
    settings: Map<String, Value>,
}

pub(super) static ENTRY: Entry = Entry {
    name: "thaw",
    knobs: &[
        Knob {
            name: "every",
            about: "epochs from one thaw to the next; 0 thaws all at once",
            range: Range::Count(0),
            default: Preset::Count(1),
        },
        Knob {
            name: "unfreeze_at",
            about: "epochs before the first thaw",
            range: Range::Count(0),
            default: Preset::Unset("as every"),
        },
        Knob { name: "group", about: "units that thaw together", range: Range::Count(1), default: Preset::Count(1) },
        Knob {
            name: "decay",
            about: "divisor of the learning rate for each level below the top",
            range: Range::Between(1.0, 1000.0),
            default: Preset::Number(2.6),
        },
        Knob {
            name: "initial",
            about: "factor on the learning rate of what has just thawed",
            range: Range::Between(0.0001, 1.0),
            default: Preset::Number(1.0),
        },
        Knob {
            name: "growth",
            about: "factor on `initial` for each epoch since the thaw, up to the full rate",
            range: Range::Between(1.0, 1000.0),
            default: Preset::Number(2.0),
        },
    ],
    unit: Some(UnitKind::Block),
    card: include_str!("thaw.rs"),
    new: |knobs| Ok(Box::new(Thaw::new(knobs))),
};

impl Thaw {
    fn new(knobs: &Knobs<'_>) -> Thaw {
        let every = knobs.count("every");
        Thaw {
            every,
            unfreeze_at: knobs.optional_count("unfreeze_at").unwrap_or(every.max(1)),
            group: knobs.count("group"),
            decay: knobs.number("decay"),
            initial: knobs.number("initial"),
            growth: knobs.number("growth"),
            settings: knobs.settings(),
        }
    }

    /// Returns the level of each of `units` units, 0 for the last one.
    fn levels(&self, units: usize) -> impl Iterator<Item = usize> {
        (0..units).rev().map(|below_top| below_top.div_ceil(self.group))
    }

    /// Returns after how many epochs a level trains.
    fn thaw(&self, level: usize) -> usize {
        match level.checked_sub(1) {
            Some(thaws) => self.unfreeze_at.saturating_add(self.every.saturating_mul(thaws)),
            None => 0,
        }
    }
}

impl Policy for Thaw {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        let frozen: Vec<bool> = self.levels(at.units.len()).map(|level| at.completed < self.thaw(level)).collect();
        Decision::of(FrozenSet::from(frozen))
    }

    fn settings(&self) -> Map<String, Value> {
        self.settings.clone()
    }

    fn lr_scale(&self, at: &Moment<'_>) -> Option<Vec<f64>> {
        if self.decay == 1.0 && self.initial == 1.0 {
            return None;
        }
        let power = |base: f64, exponent: usize| base.powi(i32::try_from(exponent).unwrap_or(i32::MAX));
        let factor = |level: usize| {
            let since = at.completed.saturating_sub(self.thaw(level));
            let warm = if level == 0 { 1.0 } else { self.initial * power(self.growth, since) };
            warm.min(1.0) / power(self.decay, level)
        };
        Some(self.levels(at.units.len()).map(factor).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, frozen, policy};
    use super::*;
    use crate::plan::testing::chain;
    use crate::plan::{PlanOptions, Run, build};

    fn options(knobs: &[(&str, f64)]) -> PlanOptions {
        let whole = |number: f64| if number.fract() == 0.0 { Value::from(number as u64) } else { Value::from(number) };
        knobs.iter().fold(PlanOptions::of("thaw"), |options, (name, number)| options.with(name, whole(*number)))
    }

    #[test]
    fn units_thaw_from_the_top() {
        struct Case {
            knobs: &'static [(&'static str, f64)],
            units: usize,
            rows: &'static [&'static str],
        }
        let cases = [
            Case { knobs: &[], units: 4, rows: &["###.", "##..", "#...", "....", "....", "...."] },
            Case { knobs: &[("every", 2.0)], units: 3, rows: &["##.", "##.", "#..", "#..", "...", "..."] },
            Case {
                knobs: &[("group", 2.0)],
                units: 6,
                rows: &["#####.", "###...", "#.....", "......", "......", "......"],
            },
            Case {
                knobs: &[("every", 0.0), ("unfreeze_at", 3.0)],
                units: 3,
                rows: &["##.", "##.", "##.", "...", "...", "..."],
            },
            Case { knobs: &[("unfreeze_at", 2.0)], units: 3, rows: &["##.", "##.", "#..", "...", "...", "..."] },
            Case { knobs: &[("every", 0.0)], units: 3, rows: &["##.", "...", "...", "...", "...", "..."] },
            Case { knobs: &[("every", 0.0), ("unfreeze_at", 0.0)], units: 3, rows: &["..."; 6] },
            Case { knobs: &[], units: 2, rows: &["#.", "..", "..", "..", "..", ".."] },
            Case { knobs: &[], units: 1, rows: &["."; 6] },
            Case { knobs: &[], units: 0, rows: &[""; 6] },
        ];
        for Case { knobs, units, rows } in cases {
            for steps_per_epoch in [1, 100] {
                let run = Run { epochs: 5, steps_per_epoch };
                assert_eq!(frozen(policy(&options(knobs)).as_ref(), &chain(units), run), rows, "{knobs:?} {units}");
            }
        }
        let once = frozen(policy(&options(&[])).as_ref(), &chain(3), Run { epochs: 1, steps_per_epoch: 1 });
        assert_eq!(once, ["##.", "#.."]);
    }

    #[test]
    fn lower_levels_have_lower_rates() {
        let chain = chain(4);
        let run = Run { epochs: 9, steps_per_epoch: 10 };
        let rates =
            |knobs: &[(&str, f64)], epoch: usize| policy(&options(knobs)).lr_scale(&at(&chain, run, 10 * epoch));
        let close = |found: Option<Vec<f64>>, expected: [f64; 4]| {
            let found = found.unwrap();
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}, expected {expected:?}");
        };
        close(rates(&[], 5), [1.0 / 17.576, 1.0 / 6.76, 1.0 / 2.6, 1.0]);
        close(rates(&[("group", 2.0)], 5), [1.0 / 6.76, 1.0 / 2.6, 1.0 / 2.6, 1.0]);
        assert_eq!(rates(&[("decay", 1.0)], 5), None);
        let lightning = [("unfreeze_at", 4.0), ("every", 0.0), ("decay", 1.0), ("initial", 0.1)];
        for (epoch, factor) in [(4, 0.1), (5, 0.2), (6, 0.4), (7, 0.8), (8, 1.0), (9, 1.0)] {
            close(rates(&lightning, epoch), [factor, factor, factor, 1.0]);
        }
        close(rates(&[("decay", 1.0), ("initial", 0.5)], 2), [0.5, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn the_plan_tells_the_rates_of_what_trains() {
        let plan = build(&chain(3).inputs(4), &options(&[("decay", 2.0)])).unwrap();
        let rates: Vec<Vec<(&str, f64)>> = plan
            .epochs
            .iter()
            .map(|epoch| epoch.lr_scale.iter().map(|(name, factor)| (name.as_str(), *factor)).collect())
            .collect();
        let all = vec![("u0.weight", 0.25), ("u1.weight", 0.5)];
        assert_eq!(rates, [vec![], vec![("u1.weight", 0.5)], all.clone(), all]);
    }

    #[test]
    fn the_depth_never_rises_and_the_last_unit_trains() {
        for knobs in [&[][..], &[("every", 3.0), ("group", 2.0)], &[("unfreeze_at", 7.0), ("every", 0.0)]] {
            let rows = frozen(policy(&options(knobs)).as_ref(), &chain(9), Run { epochs: 30, steps_per_epoch: 1 });
            let depths: Vec<usize> = rows.iter().map(|row| row.matches('#').count()).collect();
            assert!(depths.is_sorted_by(|a, b| a >= b) && depths[0] == 8 && depths[30] == 0, "{depths:?}");
            assert!(rows.iter().all(|row| row.ends_with('.')));
        }
    }
}
