//! Smoothing and the slope of a series, as Egeria judges whether a unit still learns.

use super::SignalError;
use super::error::{finite, in_range};

/// Returns the mean of every `window` consecutive values, oldest first: `values.len() - window + 1`
/// means.
///
/// # Errors
/// A window of 0; fewer values than the window; a NaN or an infinity; a mean beyond the range of
/// f64.
pub fn moving_average(values: &[f64], window: usize) -> Result<Vec<f64>, SignalError> {
    if window == 0 {
        return Err(SignalError::Argument { argument: "window", value: 0.0, expected: "at least 1" });
    }
    if values.len() < window {
        return Err(SignalError::TooFew { what: "values", needed: window, found: values.len() });
    }
    let values = finite("values", values)?;
    let mean = |part: &[f64]| in_range("the moving average", part.iter().sum::<f64>() / window as f64);
    values.windows(window).map(mean).collect()
}

/// Returns the slope of the least-squares line through the values, per value.
///
/// # Errors
/// Fewer than 2 values; a NaN or an infinity; a slope beyond the range of f64.
pub fn slope(values: &[f64]) -> Result<f64, SignalError> {
    if values.len() < 2 {
        return Err(SignalError::TooFew { what: "values", needed: 2, found: values.len() });
    }
    let values = finite("values", values)?;
    let count = values.len() as f64;
    let middle = (count - 1.0) / 2.0;
    let mean = values.iter().sum::<f64>() / count;
    let (mut above, mut below) = (0.0, 0.0);
    for (index, value) in values.iter().enumerate() {
        let distance = index as f64 - middle;
        above += distance * (value - mean);
        below += distance * distance;
    }
    in_range("the slope", above / below)
}

/// Returns `decay * average + (1 - decay) * value`, and `value` itself where there is no average
/// yet. `decay` is a fraction in [0, 1).
///
/// # Errors
/// A decay outside of [0, 1); a NaN or an infinity.
pub fn exponential_average(average: Option<f64>, value: f64, decay: f64) -> Result<f64, SignalError> {
    if !(0.0..1.0).contains(&decay) {
        return Err(SignalError::Argument { argument: "decay", value: decay, expected: "a fraction in [0, 1)" });
    }
    finite("average and value", &[average.unwrap_or(value), value])?;
    Ok(average.map_or(value, |average| decay * average + (1.0 - decay) * value))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cases, close, close_all, floats};
    use super::*;

    #[test]
    fn series_are_numpys() {
        let cases = cases();
        let case = &cases["trend"];
        let values = floats(&case["values"]);
        close_all("moving average", &moving_average(&values, 5).unwrap(), &case["moving_average_5"]);
        close("slope", slope(&values).unwrap(), case["slope"].as_f64().unwrap());
        let mut average = None;
        let averages: Vec<f64> = values
            .iter()
            .map(|value| {
                average = Some(exponential_average(average, *value, 0.9).unwrap());
                average.unwrap()
            })
            .collect();
        close_all("exponential average", &averages, &case["exponential_average_0.9"]);
    }

    #[test]
    fn closed_cases() {
        assert_eq!(moving_average(&[1.0, 2.0, 6.0], 3), Ok(vec![3.0]));
        assert_eq!(moving_average(&[1.0, 2.0, 6.0], 1), Ok(vec![1.0, 2.0, 6.0]));
        close("line", slope(&[5.0, 3.0, 1.0, -1.0]).unwrap(), -2.0);
        assert_eq!(slope(&[1e9; 4]), Ok(0.0));
        assert_eq!(exponential_average(Some(1.0), 3.0, 0.5), Ok(2.0));
        assert_eq!(exponential_average(None, 3.0, 0.5), Ok(3.0));
    }

    #[test]
    fn degenerate_series() {
        let few = |needed, found| SignalError::TooFew { what: "values", needed, found };
        assert_eq!(moving_average(&[1.0], 2), Err(few(2, 1)));
        assert_eq!(slope(&[1.0]), Err(few(2, 1)));
        assert_eq!(slope(&[]), Err(few(2, 0)));
        assert!(moving_average(&[1.0], 0).is_err());
        assert!(moving_average(&[1.0, f64::NAN], 1).is_err());
        assert!(moving_average(&[f64::MAX, f64::MAX], 2).is_err());
        assert!(slope(&[1.0, f64::INFINITY]).is_err());
        for (average, value, decay) in [(None, f64::NAN, 0.5), (Some(f64::NAN), 1.0, 0.5), (None, 1.0, 1.0)] {
            assert!(exponential_average(average, value, decay).is_err(), "{average:?} {value} {decay}");
        }
        assert!(exponential_average(None, 1.0, f64::NAN).is_err());
    }
}
