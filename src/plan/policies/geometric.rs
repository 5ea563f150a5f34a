//! Freezes from the input side a fixed share of what still trains, once an epoch: PipeTransformer's schedule.
//!
//! *Idea.* Of `L` units, after `e` completed epochs,
//!
//! ```text
//! depth = ceil(L (1 - (1 - alpha)^e))
//! ```
//!
//! are frozen, but never the last unless `last` is set. Most freezes in the first epochs, and nothing thaws.
//!
//! *Signals.* None: epochs only. The authors' second term, which stops at the smallest gradient norm, is not here; the
//! policy `gradient` decides by gradients.
//!
//! *Knobs.*
//!
//! | knob | unit | range | default |
//! |---|---|---|---|
//! | `alpha` | share of the units that train | [0, 1] | 0.5 |
//! | `last` | whether the last unit may freeze, after which nothing trains | | false |
//!
//! `alpha` is the shortest decimal that reads as its f64, and the depth is computed in whole numbers while they fit
//! 128 bits. In f64, `10 * (1 - 0.7)` would be a little more than 3 and freeze a fourth unit.
//!
//! *Does nothing* with `alpha` 0, in the first epoch, and with one unit.
//!
//! *Source.* He, Li, Soltanolkotabi, Avestimehr, ICML 2021; Distributed-AI/PipeTransformer, which runs this term alone
//! by default. It counts the 12 encoder blocks and not the head; here the head is one of the units.
//!
//! *Known negative results.* By its authors' account most of the speed came from packing the pipeline onto fewer
//! devices, and freezing alone "even downgrades the training speed". ViT-B/16 on CIFAR-100 fell from 0.9121 to 0.9113
//! with 1/4, to 0.9078 with 1/3 and to 0.8984 with 1/2; with 1/5 it was 0.9133.

use super::Entry;
use super::linear::Decimal;
use crate::modules::UnitKind;
use crate::plan::{Decision, FrozenSet, Knob, Knobs, Moment, Policy, Preset, Range};
use serde_json::{Map, Value};

/// Freezes a share of what still trains in every epoch.
#[derive(Clone, Debug)]
pub struct Geometric {
    alpha: f64,
    last: bool,
    settings: Map<String, Value>,
}

pub(super) static ENTRY: Entry = Entry {
    name: "geometric",
    knobs: &[
        Knob {
            name: "alpha",
            about: "share of the units that train which freezes in every epoch",
            range: Range::Fraction,
            default: Preset::Number(0.5),
        },
        Knob {
            name: "last",
            about: "whether the last unit may freeze, after which nothing trains",
            range: Range::Flag,
            default: Preset::Flag(false),
        },
    ],
    unit: Some(UnitKind::Block),
    card: include_str!("geometric.rs"),
    new: |knobs| Ok(Box::new(Geometric::new(knobs))),
};

impl Geometric {
    fn new(knobs: &Knobs<'_>) -> Geometric {
        Geometric { alpha: knobs.number("alpha"), last: knobs.flag("last"), settings: knobs.settings() }
    }

    fn depth(&self, units: usize, completed: usize) -> usize {
        let most = if self.last { units } else { units.saturating_sub(1) };
        let left = exact_left(units, self.alpha, completed).unwrap_or_else(|| {
            let power = i32::try_from(completed).unwrap_or(i32::MAX);
            (units as f64 * (1.0 - self.alpha).powi(power)).floor() as usize
        });
        units.saturating_sub(left).min(most)
    }
}

/// Returns `floor(units * (1 - alpha)^completed)`, which is `L - depth`; `None` where the numbers do not fit.
fn exact_left(units: usize, alpha: f64, completed: usize) -> Option<usize> {
    let Decimal { numerator, denominator } = Decimal::of("alpha", alpha).ok()?;
    let divisor = common(numerator, denominator);
    let (rest, whole) = ((denominator - numerator) / divisor, denominator / divisor);
    let power = u32::try_from(completed).ok()?;
    let left = (units as u128).checked_mul(rest.checked_pow(power)?)? / whole.checked_pow(power)?;
    usize::try_from(left).ok()
}

/// Returns the greatest common divisor.
fn common(a: u128, b: u128) -> u128 {
    if b == 0 { a.max(1) } else { common(b, a % b) }
}

impl Policy for Geometric {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        let depth = self.depth(at.units.len(), at.completed);
        let power = i32::try_from(at.completed).unwrap_or(i32::MAX);
        let fraction = 1.0 - (1.0 - self.alpha).powi(power);
        Decision { frozen: FrozenSet::prefix(at.units.len(), depth), fraction }
    }

    fn settings(&self) -> Map<String, Value> {
        self.settings.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::frozen;
    use super::*;
    use crate::plan::Run;
    use crate::plan::testing::chain;

    fn of(alpha: f64, last: bool) -> Geometric {
        let settings = Map::from_iter([("alpha".into(), Value::from(alpha)), ("last".into(), Value::from(last))]);
        Geometric::new(&Knobs::new("geometric", ENTRY.knobs, &settings).unwrap())
    }

    #[test]
    fn depths_are_those_of_the_paper() {
        let cases: [(f64, &[usize]); 4] = [
            (0.5, &[0, 6, 9, 11, 12, 12]),
            (1.0 / 3.0, &[0, 4, 7, 9, 10, 11, 11, 12]),
            (0.25, &[0, 3, 6, 7, 9, 10, 10, 11]),
            (0.2, &[0, 3, 5, 6, 8, 9, 9, 10]),
        ];
        for (alpha, depths) in cases {
            for (completed, expected) in depths.iter().enumerate() {
                assert_eq!(of(alpha, true).depth(12, completed), *expected, "alpha {alpha}, epoch {completed}");
                assert_eq!(of(alpha, false).depth(12, completed), (*expected).min(11), "alpha {alpha}");
            }
        }
    }

    #[test]
    fn whole_numbers_are_met_where_f64_passes_them() {
        struct Case {
            units: usize,
            alpha: f64,
            completed: usize,
            exact: usize,
            in_f64: usize,
        }
        let cases = [
            Case { units: 10, alpha: 0.3, completed: 1, exact: 3, in_f64: 4 },
            Case { units: 20, alpha: 0.3, completed: 1, exact: 6, in_f64: 7 },
            Case { units: 50, alpha: 0.3, completed: 1, exact: 15, in_f64: 16 },
            Case { units: 100, alpha: 0.1, completed: 2, exact: 19, in_f64: 19 },
            Case { units: 1000, alpha: 0.3, completed: 3, exact: 657, in_f64: 657 },
        ];
        for Case { units, alpha, completed, exact, in_f64 } in cases {
            let naive = (units as f64 * (1.0 - (1.0 - alpha).powi(completed as i32))).ceil() as usize;
            assert_eq!((of(alpha, true).depth(units, completed), naive), (exact, in_f64), "{units} {alpha}");
        }
    }

    #[test]
    fn large_numbers_fall_back_to_f64() {
        assert_eq!(exact_left(12, 0.12345678901234568, 9), None);
        assert_eq!(of(0.12345678901234568, true).depth(1000, 9), 1000 - 305);
        assert_eq!(of(1e-300, false).depth(7, 1_000_000), 0);
        assert_eq!(of(0.5, true).depth(1_000_000, 1_000_000), 1_000_000);
    }

    #[test]
    fn the_depth_never_falls_and_the_last_unit_trains_unless_asked() {
        for units in [0, 1, 2, 7] {
            for alpha in [0.0, 0.1, 0.5, 1.0] {
                for last in [false, true] {
                    let policy = of(alpha, last);
                    let depths: Vec<usize> = (0..40).map(|completed| policy.depth(units, completed)).collect();
                    assert!(depths.is_sorted() && depths[0] == 0);
                    assert!(depths[39] <= if last { units } else { units.saturating_sub(1) });
                    assert!(alpha > 0.0 || depths[39] == 0);
                }
            }
        }
        for steps_per_epoch in [1, 100] {
            let run = Run { epochs: 3, steps_per_epoch };
            assert_eq!(frozen(&of(0.5, false), &chain(4), run), ["....", "##..", "###.", "###."]);
        }
        assert_eq!(frozen(&of(1.0, false), &chain(2), Run { epochs: 1, steps_per_epoch: 1 }), ["..", "#."]);
    }
}
