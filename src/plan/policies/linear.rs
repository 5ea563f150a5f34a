//! Freezes from the input side, linearly in time: Composer's LayerFreezing.
//!
//! *Idea.* Layers near the input settle first, so their gradients are the first to be given up.
//! With `n` units and `e` of `E` epochs completed,
//!
//! ```text
//! cur      = e / E
//! fraction = 0                                                       if cur <= freeze_start
//!          = freeze_level * ((cur - freeze_start) / (1 - freeze_start))   otherwise
//! depth    = trunc(fraction * (n - 1))
//! ```
//!
//! and the first `depth` units are frozen. The last unit never is, and nothing thaws.
//!
//! *Signals.* None: epochs only.
//!
//! *Knobs.*
//!
//! | knob | unit | range | default |
//! |---|---|---|---|
//! | `freeze_start` | fraction of the epochs | [0, 1] | 0.5 |
//! | `freeze_level` | fraction of the units but the last | [0, 1] | 1 |
//! | `arithmetic` | `composer` (f64, that order of operations) or `exact` (rationals) | | `composer` |
//!
//! The two arithmetics differ where `fraction * (n - 1)` is a whole number: f64 may fall just short
//! of it and freeze one unit less. In `exact` a knob is the shortest decimal that reads as its f64,
//! so 0.1 is one tenth and 0.3333333333333333 is not one third.
//!
//! *Does nothing* with `freeze_start` 1, with `freeze_level` 0, with fewer than two units, in the
//! first epoch, and wherever `fraction * (n - 1)` is below 1. The level itself is reached after the
//! last epoch, when nothing trains any more.
//!
//! *Source.* mosaicml/composer, `composer/algorithms/layer_freezing/layer_freezing.py`.
//!
//! *Known negative results.* By its authors' account no better trade of quality for time: ResNet-50
//! on ImageNet about 5 % faster for 0.5 to 1 point of accuracy. With equal units the defaults save
//! at most 1/6 of the compute. A parameter outside the frozen prefix that feeds early nodes (class
//! token, position embedding) keeps the whole backward pass alive.

use super::Entry;
use crate::plan::{Decision, FrozenSet, Knob, Moment, PlanError, Policy, Preset, Range};
use serde_json::{Map, Value};

/// How a schedule's value is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// In f64, in Composer's order of operations, bit for bit.
    Composer,
    /// In rational numbers: a fraction is the decimal as it was written.
    Exact,
}

/// Freezes a prefix that grows linearly with the epochs.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    start: f64,
    level: f64,
    arithmetic: Arithmetic,
    exact_start: Decimal,
    exact_level: Decimal,
}

pub(super) static ENTRY: Entry = Entry {
    name: "linear",
    knobs: &[
        Knob {
            name: "freeze_start",
            about: "fraction of the epochs before which nothing freezes",
            range: Range::Fraction,
            default: Preset::Number(0.5),
        },
        Knob {
            name: "freeze_level",
            about: "fraction of the units but the last that is frozen when training ends",
            range: Range::Fraction,
            default: Preset::Number(1.0),
        },
        Knob {
            name: "arithmetic",
            about: "f64 in Composer's order of operations, or rational numbers",
            range: Range::Word(&["composer", "exact"]),
            default: Preset::Word("composer"),
        },
    ],
    unit: None,
    card: include_str!("linear.rs"),
    new: |knobs| {
        let arithmetic = if knobs.word("arithmetic") == "exact" { Arithmetic::Exact } else { Arithmetic::Composer };
        Ok(Box::new(Linear::new(knobs.number("freeze_start"), knobs.number("freeze_level"), arithmetic)?))
    },
};

impl Linear {
    /// Returns the policy that starts after the fraction `start` of the epochs and ends with the
    /// fraction `level` of the units but the last, both in [0, 1].
    ///
    /// # Errors
    /// `start` or `level` is outside [0, 1], or for [`Arithmetic::Exact`] has too many decimals.
    pub fn new(start: f64, level: f64, arithmetic: Arithmetic) -> Result<Linear, PlanError> {
        for (name, value) in [("freeze_start", start), ("freeze_level", level)] {
            if !Range::Fraction.holds(&Value::from(value)) {
                return Err(PlanError::Knob { name, found: value.to_string(), expected: Range::Fraction.to_string() });
            }
        }
        let exact = |argument, value| match arithmetic {
            Arithmetic::Composer => Ok(Decimal::ZERO),
            Arithmetic::Exact => Decimal::of(argument, value),
        };
        let exact_start = exact("freeze_start", start)?;
        let exact_level = exact("freeze_level", level)?;
        Ok(Linear { start, level, arithmetic, exact_start, exact_level })
    }

    /// Returns how many of `units` units are frozen after `completed` of `epochs` epochs, and the
    /// schedule's value in [0, 1].
    fn depth(&self, units: usize, epochs: usize, completed: usize) -> (usize, f64) {
        let freezable = units.saturating_sub(1);
        match self.arithmetic {
            Arithmetic::Composer => {
                let fraction = self.composer_fraction(epochs, completed);
                ((fraction * freezable as f64) as usize, fraction)
            }
            Arithmetic::Exact => self.exact_depth(freezable, epochs, completed),
        }
    }

    fn composer_fraction(&self, epochs: usize, completed: usize) -> f64 {
        let current = completed as f64 / epochs as f64;
        if current <= self.start { 0.0 } else { self.level * ((current - self.start) / (1.0 - self.start)) }
    }

    /// With `start = s / S` and `level = l / L`, the fraction is
    /// `l (e S - s E) / (L E (S - s))`, and the depth is the largest `k` that
    /// `k L E (S - s) <= (n - 1) l (e S - s E)`. The products need 256 bits.
    fn exact_depth(&self, freezable: usize, epochs: usize, completed: usize) -> (usize, f64) {
        let (start, level) = (&self.exact_start, &self.exact_level);
        let (epochs, completed) = (epochs as u128, completed as u128);
        let past = (completed * start.denominator).saturating_sub(start.numerator * epochs);
        if past == 0 {
            return (0, 0.0);
        }
        let left = epochs * (start.denominator - start.numerator);
        let target = wide(freezable as u128 * level.numerator, past);
        let reached = |depth: usize| wide(depth as u128 * level.denominator, left) <= target;
        let (mut depth, mut above) = (0, freezable + 1);
        while above - depth > 1 {
            let middle = depth + (above - depth) / 2;
            if reached(middle) { depth = middle } else { above = middle }
        }
        let fraction = self.level * (past as f64 / left as f64);
        (depth, fraction)
    }
}

impl Policy for Linear {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        let (depth, fraction) = self.depth(at.units.len(), at.epochs, at.completed);
        Decision { frozen: FrozenSet::prefix(at.units.len(), depth), fraction }
    }

    fn settings(&self) -> Map<String, Value> {
        let arithmetic = match self.arithmetic {
            Arithmetic::Composer => "composer",
            Arithmetic::Exact => "exact",
        };
        Map::from_iter([
            ("freeze_start".to_string(), Value::from(self.start)),
            ("freeze_level".to_string(), Value::from(self.level)),
            ("arithmetic".to_string(), Value::from(arithmetic)),
        ])
    }
}

/// The most decimals of a [`Decimal`]: beyond, a product of [`Linear::exact_depth`] could pass 128 bits.
const MOST_DECIMALS: usize = 26;

/// A fraction in [0, 1] with a power of ten below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    pub(super) numerator: u128,
    pub(super) denominator: u128,
}

impl Decimal {
    const ZERO: Decimal = Decimal { numerator: 0, denominator: 1 };

    /// Returns the shortest decimal that reads as `value`.
    pub(super) fn of(argument: &'static str, value: f64) -> Result<Decimal, PlanError> {
        let text = value.abs().to_string();
        let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
        let too_long = PlanError::Decimals { argument, value, most: MOST_DECIMALS };
        if decimals.len() > MOST_DECIMALS {
            return Err(too_long);
        }
        let numerator = format!("{whole}{decimals}").parse().map_err(|_| too_long)?;
        Ok(Decimal { numerator, denominator: 10u128.pow(decimals.len() as u32) })
    }
}

/// Returns the product as high and low half, so that products compare as tuples.
fn wide(a: u128, b: u128) -> (u128, u128) {
    let (low, high) = a.carrying_mul(b, 0);
    (high, low)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THIRD: f64 = 1.0 / 3.0;

    fn depth(arithmetic: Arithmetic, units: usize, epochs: usize, start: f64, level: f64, completed: usize) -> usize {
        Linear::new(start, level, arithmetic).unwrap().depth(units, epochs, completed).0
    }

    #[test]
    fn depths_are_those_of_composer() {
        struct Case {
            units: usize,
            epochs: usize,
            start: f64,
            level: f64,
            depths: &'static [usize],
        }
        #[rustfmt::skip]
        let cases = [
            Case { units: 10, epochs: 10, start: 0.5, level: 1.0, depths: &[0, 0, 0, 0, 0, 1, 3, 5, 7, 9] },
            Case { units: 10, epochs: 10, start: 0.0, level: 1.0, depths: &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9] },
            Case { units: 11, epochs: 10, start: 0.0, level: 1.0, depths: &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10] },
            Case { units: 53, epochs: 10, start: 0.5, level: 1.0, depths: &[0, 0, 0, 0, 0, 10, 20, 31, 41, 52] },
            Case { units: 6, epochs: 5, start: 0.2, level: 1.0, depths: &[0, 1, 2, 3, 5] },
            Case { units: 5, epochs: 4, start: 0.0, level: 1.0, depths: &[1, 2, 3, 4] },
            Case { units: 161, epochs: 20, start: 0.25, level: 0.75, depths: &[
                0, 0, 0, 0, 0, 7, 15, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120] },
            Case { units: 22, epochs: 12, start: THIRD, level: 1.0, depths: &[
                0, 0, 0, 0, 2, 5, 7, 10, 13, 15, 18, 21] },
            Case { units: 2, epochs: 10, start: 0.0, level: 1.0, depths: &[0, 0, 0, 0, 0, 0, 0, 0, 0, 1] },
            Case { units: 1, epochs: 10, start: 0.0, level: 1.0, depths: &[0; 10] },
            Case { units: 0, epochs: 3, start: 0.0, level: 1.0, depths: &[0; 3] },
            Case { units: 9, epochs: 3, start: 1.0, level: 1.0, depths: &[0; 3] },
            Case { units: 9, epochs: 3, start: 0.0, level: 0.0, depths: &[0; 3] },
        ];
        let mut failures = Vec::new();
        for Case { units, epochs, start, level, depths } in cases {
            let row = |arithmetic| -> Vec<usize> {
                (1..=epochs).map(|completed| depth(arithmetic, units, epochs, start, level, completed)).collect()
            };
            let found = row(Arithmetic::Composer);
            if found != depths {
                failures.push(format!("L={units} E={epochs} {start} {level}: {found:?}, expected {depths:?}"));
            }
            for (exact, composer) in row(Arithmetic::Exact).into_iter().zip(found) {
                if exact != composer && exact != composer + 1 {
                    failures.push(format!("L={units} E={epochs} {start} {level}: exact {exact}, f64 {composer}"));
                }
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    #[test]
    fn depths_of_long_runs_are_those_of_composer() {
        let early = [(9, 0), (10, 0), (18, 2), (27, 5), (36, 8), (45, 11), (54, 14), (63, 17), (72, 20), (81, 23)];
        for (completed, expected) in early.into_iter().chain([(89, 26), (90, 26)]) {
            assert_eq!(depth(Arithmetic::Composer, 54, 90, 0.1, 0.5, completed), expected, "epoch {completed}");
        }
        for (completed, expected) in [(45, 0), (54, 1), (63, 2), (72, 3), (81, 4), (89, 5), (90, 6)] {
            assert_eq!(depth(Arithmetic::Composer, 62, 90, 0.5, 0.1, completed), expected, "epoch {completed}");
        }
    }

    #[test]
    fn the_arithmetics_differ_at_the_known_traps() {
        struct Case {
            units: usize,
            epochs: usize,
            start: f64,
            completed: usize,
            exact: usize,
            composer: usize,
        }
        let cases = [
            Case { units: 4, epochs: 3, start: 0.5, completed: 2, exact: 1, composer: 0 },
            Case { units: 3, epochs: 5, start: 0.2, completed: 3, exact: 1, composer: 0 },
            Case { units: 23, epochs: 22, start: 0.0, completed: 15, exact: 15, composer: 14 },
            Case { units: 53, epochs: 26, start: 0.0, completed: 15, exact: 30, composer: 29 },
            Case { units: 56, epochs: 11, start: 0.0, completed: 3, exact: 15, composer: 14 },
            Case { units: 56, epochs: 11, start: 0.0, completed: 6, exact: 30, composer: 29 },
        ];
        for Case { units, epochs, start, completed, exact, composer } in cases {
            let found = |arithmetic| depth(arithmetic, units, epochs, start, 1.0, completed);
            assert_eq!(found(Arithmetic::Exact), exact, "exact L={units} E={epochs} e={completed}");
            assert_eq!(found(Arithmetic::Composer), composer, "composer L={units} E={epochs} e={completed}");
        }
    }

    #[test]
    fn the_arithmetics_differ_on_the_grid_in_4031_points_by_one() {
        let (mut points, mut differ) = (0, 0);
        for start in [0.0, 0.1, 0.2, 0.25, 0.3, 0.5] {
            for level in [0.5, 0.75, 0.9, 1.0] {
                let composer = Linear::new(start, level, Arithmetic::Composer).unwrap();
                let exact = Linear::new(start, level, Arithmetic::Exact).unwrap();
                for (units, epochs) in (2..60).flat_map(|units| (2..31).map(move |epochs| (units, epochs))) {
                    for completed in 1..=epochs {
                        let low = composer.depth(units, epochs, completed).0;
                        let high = exact.depth(units, epochs, completed).0;
                        assert!(high == low || high == low + 1, "L={units} E={epochs} e={completed} {start} {level}");
                        points += 1;
                        differ += usize::from(high != low);
                    }
                }
            }
        }
        assert_eq!((points, differ), (645_888, 4_031));
    }

    #[test]
    fn the_exact_arithmetic_is_right_at_the_largest_numbers() {
        let value = 0.30000000000000004e-9;
        let policy = Linear::new(value, 0.9999999999999999, Arithmetic::Exact).unwrap();
        let (depth, fraction) = policy.depth(1_000_001, 1_000_000, 1_000_000);
        assert_eq!((depth, fraction), (999_999, 0.9999999999999999));
        let tiny = Linear::new(1e-27, 1.0, Arithmetic::Exact).unwrap_err().to_string();
        assert_eq!(tiny, "freeze_start is 1e-27, the exact arithmetic takes at most 26 decimals");
        assert!(Linear::new(1e-27, 1.0, Arithmetic::Composer).is_ok());
        let third = Linear::new(THIRD, 1.0, Arithmetic::Exact).unwrap();
        assert_eq!(third.exact_start, Decimal { numerator: 3333333333333333, denominator: 10u128.pow(16) });
        assert_eq!(Linear::new(-0.0, 1.0, Arithmetic::Exact).unwrap().exact_start, Decimal::ZERO);
    }

    #[test]
    fn knobs_out_of_range_are_refused_by_name() {
        let error = |start, level| Linear::new(start, level, Arithmetic::Composer).unwrap_err().to_string();
        assert_eq!(error(2.0, 1.0), "freeze_start is 2, expected a fraction in [0, 1]");
        assert_eq!(error(0.5, f64::NAN), "freeze_level is NaN, expected a fraction in [0, 1]");
    }
}
