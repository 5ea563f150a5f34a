//! Linear CKA from minibatches.
//!
//! The unbiased HSIC of every batch is summed for the numerator and for both denominators on their
//! own: `sum HSIC1(K, L) / sqrt(sum HSIC1(K, K) * sum HSIC1(L, L))`. Batches count equally,
//! whatever their size. Unlike [`linear_cka`](super::linear_cka) it is not inflated by few
//! datapoints. Source: arXiv 2010.15327.

use super::activations::paired;
use super::error::in_range;
use super::hsic::Kernel;
use super::{Activations, SignalError};

/// Sums over batches. The two sets of all batches must be of the same two layers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MinibatchCka {
    cross: f64,
    first: f64,
    second: f64,
    batches: usize,
}

impl MinibatchCka {
    /// Returns an accumulator without batches.
    pub fn new() -> MinibatchCka {
        MinibatchCka::default()
    }

    /// Adds one batch, at least 4 datapoints. A batch that does not vary adds zero. After an error
    /// the sums are as before.
    ///
    /// # Errors
    /// Different numbers of datapoints; fewer than 4; a sum beyond the range of f64.
    pub fn add(&mut self, x: &Activations, y: &Activations) -> Result<(), SignalError> {
        let found = paired(x, y)?;
        if found < 4 {
            return Err(SignalError::TooFew { what: "datapoints", needed: 4, found });
        }
        let (k, l) = (Kernel::of(x), Kernel::of(y));
        let sum = |before: f64, more: f64| in_range("the sum of HSIC", before + more);
        *self = MinibatchCka {
            cross: sum(self.cross, k.hsic1(&l)?)?,
            first: sum(self.first, k.hsic1(&k)?)?,
            second: sum(self.second, l.hsic1(&l)?)?,
            batches: self.batches + 1,
        };
        Ok(())
    }

    /// Returns the number of batches added.
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// Returns the CKA of the batches so far, in [-1, 1]; about 0 for unrelated sets.
    ///
    /// # Errors
    /// No batch; a set that varied in no batch.
    pub fn value(&self) -> Result<f64, SignalError> {
        if self.batches == 0 {
            return Err(SignalError::TooFew { what: "batches", needed: 1, found: 0 });
        }
        for (sum, set) in [(self.first, "first"), (self.second, "second")] {
            if sum <= 0.0 {
                return Err(SignalError::NoVariance { set });
            }
        }
        Ok((self.cross / self.first.sqrt() / self.second.sqrt()).clamp(-1.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::linear_cka;
    use super::super::testing::{cases, close, matrix, random, set};
    use super::*;
    use nalgebra::DMatrix;

    #[test]
    fn batches_give_the_papers_value() {
        let cases = cases();
        let case = &cases["minibatch_cka"];
        let mut cka = MinibatchCka::new();
        for batch in case["batches"].as_array().unwrap() {
            cka.add(&matrix(&batch["x"]), &matrix(&batch["y"])).unwrap();
        }
        assert_eq!(cka.batches(), 3);
        close("minibatch", cka.value().unwrap(), case["value"].as_f64().unwrap());
    }

    #[test]
    fn few_datapoints_and_many_features_do_not_inflate_it() {
        let mut cka = MinibatchCka::new();
        let mut biased = 0.0;
        for seed in 0..20 {
            let (x, y) = (set(&random(8, 60, seed)), set(&random(8, 60, seed + 100)));
            cka.add(&x, &y).unwrap();
            biased += linear_cka(&x, &y).unwrap() / 20.0;
        }
        let value = cka.value().unwrap();
        assert!(value.abs() < 0.05 && biased > 0.8, "{value} {biased}");
    }

    #[test]
    fn rotations_and_scales_change_nothing() {
        let rotation = random(3, 3, 9).qr().q();
        let (mut plain, mut turned, mut equal) = (MinibatchCka::new(), MinibatchCka::new(), MinibatchCka::new());
        for seed in 0..3 {
            let x = random(6, 3, seed);
            let y = &x * random(3, 5, 50) + random(6, 5, seed + 60);
            plain.add(&set(&x), &set(&y)).unwrap();
            turned.add(&set(&(&x * &rotation * 1e3).add_scalar(7.0)), &set(&y)).unwrap();
            equal.add(&set(&x), &set(&x)).unwrap();
        }
        close("turned", turned.value().unwrap(), plain.value().unwrap());
        close("equal", equal.value().unwrap(), 1.0);
    }

    #[test]
    fn degenerate_batches() {
        let mut cka = MinibatchCka::new();
        assert_eq!(cka.value(), Err(SignalError::TooFew { what: "batches", needed: 1, found: 0 }));
        let (few, x) = (set(&random(3, 2, 1)), set(&random(6, 2, 1)));
        assert_eq!(cka.add(&few, &few), Err(SignalError::TooFew { what: "datapoints", needed: 4, found: 3 }));
        assert!(cka.add(&few, &x).is_err());
        assert_eq!(cka, MinibatchCka::new());
        cka.add(&x, &set(&DMatrix::repeat(6, 3, 0.1))).unwrap();
        assert_eq!(cka.value(), Err(SignalError::NoVariance { set: "second" }));
        cka.add(&x, &x).unwrap();
        close("half", cka.value().unwrap(), 0.5f64.sqrt());
    }
}
