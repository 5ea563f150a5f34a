//! How much gradients and weights change.
//!
//! - AutoFreeze (arXiv 2102.01386): the gradients of an interval of steps are summed; the L1 norm
//!   of the sum is compared with that of the interval before, `|before - now| / before`. Steps of
//!   opposite sign cancel.
//! - SlimFit (arXiv 2305.18513): the mean over the weights of `|(before - now) / before|`.

use super::SignalError;
use super::error::{finite, in_range};

/// The sum of a parameter's gradients over some steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GradientSum {
    sum: Vec<f64>,
    steps: usize,
}

impl GradientSum {
    /// Returns a sum of no steps.
    pub fn new() -> GradientSum {
        GradientSum::default()
    }

    /// Returns the sum that was taken over so many steps before.
    pub fn of(sum: Vec<f64>, steps: usize) -> GradientSum {
        GradientSum { sum, steps }
    }

    /// Returns the sums of the elements, and the steps they are taken over.
    pub fn parts(&self) -> (&[f64], usize) {
        (&self.sum, self.steps)
    }

    /// Adds the gradient of one step. After an error the sum is as before.
    ///
    /// # Errors
    /// Another number of elements than before; a NaN or an infinity; a sum beyond the range of f64.
    pub fn add<T: Copy + Into<f64>>(&mut self, gradient: &[T]) -> Result<(), SignalError> {
        let gradient = finite("gradient", gradient)?;
        if self.steps == 0 {
            self.sum = vec![0.0; gradient.len()];
        }
        same_length("gradient", self.sum.len(), gradient.len())?;
        if self.sum.iter().zip(&gradient).any(|(sum, more)| !(sum + more).is_finite()) {
            return Err(SignalError::Overflow { measure: "the sum of gradients" });
        }
        self.sum.iter_mut().zip(&gradient).for_each(|(sum, more)| *sum += more);
        self.steps += 1;
        Ok(())
    }

    /// Returns the number of steps added.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Returns the L1 norm of the sum; 0 without steps. A module's is the sum of its parameters'.
    ///
    /// # Errors
    /// A norm beyond the range of f64.
    pub fn l1(&self) -> Result<f64, SignalError> {
        in_range("the norm of gradients", self.sum.iter().map(|value| value.abs()).sum())
    }
}

/// Returns `|before - now| / before` for two norms.
///
/// From 0 to 0 is no change, 0; from 0 to anything else is infinite.
///
/// # Errors
/// A norm that is negative or not finite.
pub fn relative_change(before: f64, now: f64) -> Result<f64, SignalError> {
    for (argument, value) in [("before", before), ("now", now)] {
        if !(value >= 0.0 && value.is_finite()) {
            return Err(SignalError::Argument { argument, value, expected: "a finite norm of at least 0" });
        }
    }
    Ok(if before == now { 0.0 } else { (before - now).abs() / before })
}

/// Returns the mean of `|(before - now) / before|` over the weights that were not zero.
///
/// A weight that was zero has no relative change: it is left out of the sum and of the number it
/// is divided by.
///
/// # Errors
/// Different lengths; a NaN or an infinity; no weight but zeros; a mean beyond the range of f64.
pub fn weight_change<T: Copy + Into<f64>>(before: &[T], now: &[T]) -> Result<f64, SignalError> {
    same_length("weights", before.len(), now.len())?;
    let (before, now) = (finite("previous weights", before)?, finite("weights", now)?);
    let (mut sum, mut count) = (0.0, 0usize);
    for (before, now) in before.iter().zip(&now).filter(|(before, _)| **before != 0.0) {
        sum += ((before - now) / before).abs();
        count += 1;
    }
    if count == 0 {
        return Err(SignalError::NoWeight);
    }
    in_range("the change of weights", sum / count as f64)
}

fn same_length(what: &'static str, expected: usize, found: usize) -> Result<(), SignalError> {
    if expected == found { Ok(()) } else { Err(SignalError::Length { what, expected, found }) }
}

#[cfg(test)]
mod tests {
    use super::super::percentile;
    use super::super::testing::{cases, close, floats};
    use super::*;

    #[test]
    fn autofreeze_trace() {
        let etas = |before: &[f64], now: &[f64]| -> Vec<f64> {
            before.iter().zip(now).map(|(before, now)| relative_change(*before, *now).unwrap()).collect()
        };
        let first_at = |etas: &[f64], start: usize| {
            let median = percentile(&etas[start..], 50.0).unwrap();
            (start..etas.len()).find(|unit| etas[*unit] >= median).unwrap()
        };
        let first = etas(&[10.0, 20.0, 30.0, 40.0], &[9.0, 15.0, 29.0, 20.0]);
        for (found, expected) in first.iter().zip([0.1, 0.25, 1.0 / 30.0, 0.5]) {
            close("first", *found, expected);
        }
        close("median", percentile(&first, 50.0).unwrap(), 0.175);
        assert_eq!(first_at(&first, 0), 1);
        let second = etas(&[0.0, 15.0, 29.0, 20.0], &[0.0, 14.0, 28.0, 10.0]);
        for (found, expected) in second.iter().zip([0.0, 1.0 / 15.0, 1.0 / 29.0, 0.5]) {
            close("second", *found, expected);
        }
        assert_eq!(first_at(&second, 1), 1);
    }

    #[test]
    fn relative_change_of_zero_and_of_no_norm() {
        assert_eq!(relative_change(0.0, 0.0), Ok(0.0));
        assert_eq!(relative_change(0.0, 1e-30), Ok(f64::INFINITY));
        assert_eq!(relative_change(2.0, 0.0), Ok(1.0));
        assert_eq!(relative_change(1e-300, 1e300), Ok(f64::INFINITY));
        for (before, now) in [(f64::NAN, 1.0), (1.0, f64::INFINITY), (-1.0, 1.0), (1.0, -1.0)] {
            assert!(relative_change(before, now).is_err(), "{before} {now}");
        }
    }

    #[test]
    fn gradients_are_summed_before_the_norm() {
        let mut sum = GradientSum::new();
        assert_eq!(sum.l1(), Ok(0.0));
        sum.add(&[1.0f32, -2.0, 0.5]).unwrap();
        sum.add(&[-1.0f32, -1.0, 0.25]).unwrap();
        assert_eq!((sum.l1(), sum.steps()), (Ok(3.75), 2));
        let before = sum.clone();
        assert_eq!(sum.add(&[1.0]), Err(SignalError::Length { what: "gradient", expected: 3, found: 1 }));
        assert!(sum.add(&[1.0, f64::NAN, 0.0]).is_err());
        assert_eq!(sum, before);
        sum.add(&[f64::MAX, f64::MAX, 0.0]).unwrap();
        assert!(sum.add(&[f64::MAX, 0.0, 0.0]).is_err());
        assert_eq!(sum.l1(), Err(SignalError::Overflow { measure: "the norm of gradients" }));
    }

    #[test]
    fn weight_change_is_slimfits() {
        let cases = cases();
        let case = &cases["weight_change"];
        let found = weight_change(&floats(&case["before"]), &floats(&case["now"])).unwrap();
        close("golden", found, case["value"].as_f64().unwrap());
        close("zero left out", weight_change(&[0.0, 2.0, -4.0], &[9.0, 1.0, -4.0]).unwrap(), 0.25);
    }

    #[test]
    fn weights_without_a_relative_change() {
        assert_eq!(weight_change(&[0.0, 0.0], &[1.0, 0.0]), Err(SignalError::NoWeight));
        assert_eq!(weight_change::<f32>(&[], &[]), Err(SignalError::NoWeight));
        assert_eq!(weight_change(&[1.0], &[1.0, 2.0]).unwrap_err().to_string(), "weights: expected 1 values, found 2");
        assert!(weight_change(&[1.0], &[f64::NAN]).is_err());
        assert!(weight_change(&[1e-300], &[1e300]).is_err());
    }
}
