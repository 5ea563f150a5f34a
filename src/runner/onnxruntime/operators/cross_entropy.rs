//! Softmax and cross entropy as one, and its gradient.
//!
//! `SoftmaxCrossEntropy(x, target, weights?) -> loss, log_sum?, total?` of logits x `[.., C, ..]` with the classes on
//! `axis`, int64 targets `[.., ..]` and a weight of each class `[C]`; attributes `ignore_index` and `label_smoothing`.
//! log_sum is the logarithm of the sum of `exp(x)` of each row, total the sum of the weights of its targets.
//! `SoftmaxCrossEntropyGrad(dloss, x, target, log_sum, total, weights?) -> dx`.

use super::call::{Call, Input, Reader};
use super::{Compute, Definition};
use freeze_plan_kernels::Exec;
use freeze_plan_kernels::cross_entropy::CrossEntropy;
use std::borrow::Cow;

pub(super) static SOFTMAX_CROSS_ENTROPY: Definition = Definition {
    name: "SoftmaxCrossEntropy",
    inputs: &[true, true, false],
    outputs: &[true, false, false],
    make: |node| Ok(Box::new(Forward(Loss::of(node)))),
};

pub(super) static SOFTMAX_CROSS_ENTROPY_GRAD: Definition = Definition {
    name: "SoftmaxCrossEntropyGrad",
    inputs: &[true, true, true, true, true, false],
    outputs: &[true],
    make: |node| Ok(Box::new(Backward(Loss::of(node)))),
};

/// What the loss depends on beside its inputs.
struct Loss {
    axis: i64,
    ignore_index: i64,
    smoothing: f32,
}

/// `[outer, classes, inner]`
type Sizes = [usize; 3];

impl Loss {
    fn of(node: &Reader<'_, '_>) -> Loss {
        Loss {
            axis: node.int("axis", -1),
            ignore_index: node.int("ignore_index", -100),
            smoothing: node.float("label_smoothing", 0.0),
        }
    }

    fn sizes(&self, x: &Input<'_>, target: &Input<'_, i64>, weights: Option<&Input<'_>>) -> Result<Sizes, String> {
        let rank = x.shape.len();
        let axis = usize::try_from(if self.axis < 0 { self.axis + rank as i64 } else { self.axis });
        let axis = axis.ok().filter(|axis| *axis < rank);
        let axis = axis.ok_or_else(|| format!("axis {} of a shape {:?}", self.axis, x.shape))?;
        let [outer, inner] = [&x.shape[..axis], &x.shape[axis + 1..]].map(|sizes| sizes.iter().product::<usize>());
        let classes = x.shape[axis];
        if target.elements.len() != outer * inner || weights.is_some_and(|weights| weights.elements.len() != classes) {
            return Err(format!("logits of {:?} have targets of {:?}, or other weights", x.shape, target.shape));
        }
        Ok([outer, classes, inner])
    }

    fn kernel<'a>(&self, classes: usize, weights: Option<&Input<'a>>) -> CrossEntropy<'a> {
        let weights = weights.map(|weights| weights.elements);
        CrossEntropy { classes, weights, ignore_index: self.ignore_index, smoothing: self.smoothing }
    }

    /// Returns the sum of the weights of the targets; NaN where one is no class.
    fn total(&self, classes: usize, target: &[i64], weights: Option<&Input<'_>>) -> f32 {
        let weight = |target: &i64| match usize::try_from(*target).ok().filter(|class| *class < classes) {
            Some(class) => weights.map_or(1.0, |weights| f64::from(weights.elements[class])),
            None => f64::NAN,
        };
        target.iter().filter(|target| **target != self.ignore_index).map(weight).sum::<f64>() as f32
    }
}

/// Returns the elements of `[outer, rows, columns]` as `[outer, columns, rows]`.
fn turned<'a>(elements: &'a [f32], [outer, rows, columns]: Sizes) -> Cow<'a, [f32]> {
    if rows == 1 || columns == 1 {
        return Cow::Borrowed(elements);
    }
    let mut out = Vec::with_capacity(elements.len());
    for at in 0..outer {
        let part = &elements[at * rows * columns..][..rows * columns];
        (0..columns).for_each(|column| out.extend(part.iter().skip(column).step_by(columns)));
    }
    Cow::Owned(out)
}

struct Forward(Loss);

impl Compute for Forward {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let (x, target, weights) = (call.input(0)?, call.integers(1)?, call.optional(2)?);
        let sizes = self.0.sizes(&x, &target, weights.as_ref())?;
        let loss = call.output(0, &[])?;
        let mut own = vec![0.0; target.elements.len()];
        let log_sum = call.optional_output(1, &target.shape)?.unwrap_or(&mut own);
        let kernel = self.0.kernel(sizes[1], weights.as_ref());
        loss.fill(kernel.forward(Exec::on(call), &turned(x.elements, sizes), target.elements, log_sum));
        if let Some(total) = call.optional_output(2, &[])? {
            total.fill(self.0.total(sizes[1], target.elements, weights.as_ref()));
        }
        Ok(())
    }
}

struct Backward(Loss);

impl Compute for Backward {
    fn compute(&mut self, call: &Call<'_>, scratch: &mut Vec<f32>) -> Result<(), String> {
        let (dloss, x, target) = (call.scalar(0)?, call.input(1)?, call.integers(2)?);
        let (log_sum, weights) = (call.input(3)?, call.optional(5)?);
        let sizes = self.0.sizes(&x, &target, weights.as_ref())?;
        let dx = call.output(0, &x.shape)?;
        let kernel = self.0.kernel(sizes[1], weights.as_ref());
        let [outer, classes, inner] = sizes;
        let x = turned(x.elements, sizes);
        if inner == 1 {
            kernel.backward(Exec::on(call), &x, target.elements, log_sum.elements, dloss, dx);
            return Ok(());
        }
        scratch.resize(dx.len(), 0.0);
        kernel.backward(Exec::on(call), &x, target.elements, log_sum.elements, dloss, scratch);
        dx.copy_from_slice(&turned(scratch, [outer, inner, classes]));
        Ok(())
    }
}
