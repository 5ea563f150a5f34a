//! From values to places in a chart.

use super::numbers::Form;

/// Parts that ticks cut a scale into, at most.
const PARTS: f64 = 5.0;
/// From this ratio of the highest to the lowest value on, a scale is logarithmic.
const WIDE: f64 = 30.0;

/// A range of values that a chart shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    pub(super) low: f64,
    pub(super) high: f64,
    /// Between ticks; of a logarithmic scale 0.
    step: f64,
}

impl Scale {
    /// Returns the scale that reaches from the lowest to the highest value; `None` where there is none.
    pub(super) fn exact(values: impl Iterator<Item = f64>) -> Option<Scale> {
        let (low, high) = range(values)?;
        let (low, high) = if high > low { (low, high) } else { (low - 0.5, high + 0.5) };
        Some(Scale { low, high, step: round_step((high - low) / PARTS) })
    }

    /// Returns a scale around the values with ticks at both ends; `None` where there are none. With `zero` it begins
    /// at 0.
    pub(super) fn round(values: &[f64], zero: bool) -> Option<Scale> {
        let (low, high) = range(values.iter().copied())?;
        let low = if zero { low.min(0.0) } else { low };
        let pad = if high > low { 0.0 } else { (0.05 * high.abs()).max(1e-9) };
        let (low, high) = (if zero { low } else { low - pad }, high + pad);
        let step = round_step((high - low) / PARTS);
        let (low, high) = ((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step);
        (low.is_finite() && high.is_finite() && high > low).then_some(Scale { low, high, step })
    }

    /// Returns a logarithmic scale around values above 0; `None` where there are none.
    pub(super) fn log(values: &[f64]) -> Option<Scale> {
        let (low, high) = range(values.iter().copied())?;
        let (low, high) = (round_down(low), 1.0 / round_down(1.0 / high));
        (low > 0.0 && high.is_finite() && high > low).then_some(Scale { low, high, step: 0.0 })
    }

    pub(super) fn is_log(&self) -> bool {
        self.step == 0.0
    }

    /// Returns where a value stands: 0 at the low end, 1 at the high one.
    pub(super) fn place(&self, value: f64) -> f64 {
        match self.is_log() {
            true => (value.ln() - self.low.ln()) / (self.high.ln() - self.low.ln()),
            false => (value - self.low) / (self.high - self.low),
        }
    }

    /// Returns the ticks with their labels.
    pub(super) fn ticks(&self, form: Form) -> Vec<(f64, String)> {
        if self.is_log() {
            return self.powers().into_iter().map(|value| (value, form.tick(value, value))).collect();
        }
        let first = (self.low / self.step - 1e-6).ceil();
        let value = |index: u32| (first + f64::from(index)) * self.step;
        let ticks = (0..20).map(value).take_while(|value| *value <= self.high + 1e-6 * self.step);
        ticks.map(|value| (value, form.tick(value, self.step))).collect()
    }

    /// Returns powers of ten, with what is between them where they are few.
    fn powers(&self) -> Vec<f64> {
        let (from, to) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let digits: &[f64] = if self.high / self.low <= 1001.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let every = usize::try_from((to - from) / 6).unwrap_or(0) + 1;
        let all =
            (from..=to).step_by(every).flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
        all.filter(|value| *value >= self.low * 0.999 && *value <= self.high * 1.001).collect()
    }
}

/// Returns true for values above 0 that are far apart.
pub(super) fn is_wide(values: impl Iterator<Item = f64>) -> bool {
    range(values).is_some_and(|(low, high)| low > 0.0 && high / low >= WIDE)
}

/// Returns places and labels below a chart, of whole numbers where the scale is over such.
pub(super) fn places_of_x(scale: &Scale) -> Vec<(f64, String)> {
    // A single whole number has half a number on each side.
    let one = scale.high - scale.low == 1.0 && (scale.low + 0.5).fract() == 0.0;
    let whole = one || scale.low.fract() == 0.0 && scale.high.fract() == 0.0 || scale.step >= 1.0;
    let step = if whole { scale.step.max(1.0).ceil() } else { scale.step };
    let ticks = Scale { step, ..*scale }.ticks(Form::Plain);
    let mut places: Vec<(f64, String)> = ticks.into_iter().map(|(value, label)| (scale.place(value), label)).collect();
    places.retain(|(place, _)| (-1e-6..=1.0 + 1e-6).contains(place));
    if places.is_empty() {
        let middle = (scale.low + scale.high) / 2.0;
        places.push((0.5, Form::Plain.tick(middle, middle)));
    }
    places
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let values = values.filter(|value| value.is_finite());
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    (low <= high).then_some((low, high))
}

/// Returns 1, 2, 2.5 or 5 times a power of ten that is not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let step =
        [1.0, 2.0, 2.5, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= least * 0.999_999);
    step.filter(|step| step.is_finite() && *step > 0.0).unwrap_or(least.max(f64::MIN_POSITIVE))
}

/// Returns 1, 2 or 5 times a power of ten that is not above a value.
fn round_down(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [5.0, 2.0, 1.0].map(|digit| digit * power).into_iter().find(|low| *low <= value * 1.000_001).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_ends_at_round_values_around_all() {
        struct Case {
            values: &'static [f64],
            zero: bool,
            expected: (f64, f64, &'static [&'static str]),
        }
        let cases = [
            Case { values: &[0.13, 0.88], zero: false, expected: (0.0, 1.0, &["0", "0.2", "0.4", "0.6", "0.8", "1"]) },
            Case { values: &[3.1, 4.9], zero: true, expected: (0.0, 5.0, &["0", "1", "2", "3", "4", "5"]) },
            Case {
                values: &[-1.0, 30.0, f64::NAN],
                zero: false,
                expected: (-10.0, 30.0, &["-10", "0", "10", "20", "30"]),
            },
            Case { values: &[1e-9, 1.0], zero: true, expected: (0.0, 1.0, &["0", "0.2", "0.4", "0.6", "0.8", "1"]) },
        ];
        for Case { values, zero, expected } in cases {
            let scale = Scale::round(values, zero).unwrap();
            let labels: Vec<String> = scale.ticks(Form::Plain).into_iter().map(|tick| tick.1).collect();
            let close = (scale.low - expected.0).abs() < 1e-9 && (scale.high - expected.1).abs() < 1e-9;
            assert!(close && labels == expected.2, "{values:?}: {scale:?} {labels:?}");
        }
        let labels = |values: &[f64]| Scale::log(values).unwrap().ticks(Form::Plain).into_iter().map(|tick| tick.1);
        let told: Vec<String> = labels(&[0.011, 2.3]).collect();
        assert_eq!(told, ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5"]);
        let wide = Scale::log(&[1e-12, 1e12]).unwrap().ticks(Form::Plain);
        assert!((4..=8).contains(&wide.len()), "{wide:?}");
    }

    #[test]
    fn every_set_of_values_has_a_scale_or_none() {
        let cases = [vec![0.5], vec![0.0; 3], vec![-7.0], vec![1e300], vec![f64::MAX, f64::MIN], vec![1e-320, 2e-320]];
        for values in cases {
            let positive = values.iter().all(|value| *value > 0.0);
            let scales =
                [Scale::round(&values, true), Scale::round(&values, false), Scale::log(&values).filter(|_| positive)];
            for scale in scales.into_iter().flatten() {
                let places: Vec<f64> = values.iter().map(|value| scale.place(*value)).collect();
                assert!(
                    places.iter().all(|place| (-1e-6..=1.0 + 1e-6).contains(place)),
                    "{values:?} {scale:?} {places:?}"
                );
            }
        }
        assert!(Scale::round(&[0.5], false).is_some() && Scale::round(&[f64::NAN], false).is_none());
        assert_eq!(Scale::exact([3.0].into_iter()).map(|scale| (scale.low, scale.high)), Some((2.5, 3.5)));
    }

    #[test]
    fn epochs_are_whole_numbers() {
        let labels = |from: f64, to: f64| {
            let scale = Scale::exact([from, to].into_iter()).unwrap();
            places_of_x(&scale).into_iter().map(|place| place.1).collect::<Vec<_>>()
        };
        assert_eq!(labels(1.0, 3.0), ["1", "2", "3"]);
        assert_eq!(labels(1.0, 1.0), ["1"]);
        assert_eq!(labels(1.0, 20.0), ["5", "10", "15", "20"]);
        assert_eq!(labels(0.0, 1_000_000.0), ["0", "200 k", "400 k", "600 k", "800 k", "1 M"]);
    }
}
