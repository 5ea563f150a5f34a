//! Percentiles.

use super::SignalError;

/// Returns a percentile, `percent` in [0, 100], by linear interpolation between the two nearest of
/// the sorted values: numpy's default. It lies between the smallest and the largest value, and is
/// one of the values where `percent` falls on one.
///
/// Infinities of [`relative_change`](super::relative_change) are allowed: between a finite value
/// and one of them the result is infinite.
///
/// # Errors
/// No value; a NaN or a negative infinity; a percentage outside of [0, 100].
pub fn percentile(values: &[f64], percent: f64) -> Result<f64, SignalError> {
    if !(0.0..=100.0).contains(&percent) {
        let expected = "a percentage in [0, 100]";
        return Err(SignalError::Argument { argument: "percent", value: percent, expected });
    }
    if let Some(index) = values.iter().position(|value| value.is_nan() || *value == f64::NEG_INFINITY) {
        return Err(SignalError::NonFinite { what: "values", index, value: values[index] });
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let none = SignalError::TooFew { what: "values", needed: 1, found: 0 };
    let last = sorted.len().checked_sub(1).ok_or(none)?;
    let position = percent / 100.0 * last as f64;
    let below = (position.floor() as usize).min(last);
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    let part = position - below as f64;
    Ok(match part {
        _ if part <= 0.0 || low == high => low,
        _ => (low * (1.0 - part) + high * part).clamp(low, high),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cases, close, floats};
    use super::*;

    #[test]
    fn values_are_numpys() {
        let cases = cases();
        for case in cases["percentile"].as_array().unwrap() {
            let found = percentile(&floats(&case["values"]), case["percent"].as_f64().unwrap()).unwrap();
            close(&case.to_string(), found, case["value"].as_f64().unwrap());
        }
    }

    #[test]
    fn a_percentile_on_a_value_is_that_value() {
        let values = [0.3, 0.1, 0.7];
        assert_eq!([0.0, 50.0, 100.0].map(|percent| percentile(&values, percent)), [Ok(0.1), Ok(0.3), Ok(0.7)]);
        assert_eq!(percentile(&[0.1; 7], 37.0), Ok(0.1));
    }

    #[test]
    fn degenerate_values() {
        let infinite = [1.0, f64::INFINITY, f64::INFINITY];
        assert_eq!(percentile(&infinite, 0.0), Ok(1.0));
        assert_eq!(percentile(&infinite, 10.0), Ok(f64::INFINITY));
        assert_eq!(percentile(&infinite, 75.0), Ok(f64::INFINITY));
        close("extremes", percentile(&[-f64::MAX, f64::MAX], 75.0).unwrap(), f64::MAX / 2.0);
        assert_eq!(percentile(&[], 50.0), Err(SignalError::TooFew { what: "values", needed: 1, found: 0 }));
        for (values, percent) in
            [([1.0, f64::NAN], 50.0), ([1.0, f64::NEG_INFINITY], 50.0), ([1.0, 2.0], 101.0), ([1.0, 2.0], f64::NAN)]
        {
            assert!(percentile(&values, percent).is_err(), "{values:?} {percent}");
        }
    }
}
