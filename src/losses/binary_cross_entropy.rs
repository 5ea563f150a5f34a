//! Binary cross-entropy with logits
//!
//! Formula:   `mean((1 - t) x + (1 + (p - 1) t) s)` with `s = log(1 + exp(-x))` and the weight
//!            `p` of the positive part. `s` is built as `(|x| - x) / 2 + Softplus(-|x|)`: nothing
//!            overflows, and its derivative at `x = 0` is the exact `-1/2`.
//! Target:    probability in [0, 1], floating point, shape of the prediction.
//! Reduction: mean of all elements.
//! <https://pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html>

use super::{LossError, LossSpec, floats, mean};
use crate::graph::{Builder, ValueId};

/// Appends the loss.
pub(super) fn build(
    spec: &LossSpec,
    b: &mut Builder,
    prediction: ValueId,
    target: ValueId,
) -> Result<ValueId, LossError> {
    let x = prediction;
    let extra = spec.pos_weight.as_ref().map(|weights| pos_weight(spec, b, x, weights)).transpose()?;
    let magnitude = b.unary("Abs", x);
    let negative = b.unary("Neg", magnitude);
    let small = b.unary("Softplus", negative);
    let twice = b.sub(magnitude, x);
    let ramp = b.scale(twice, 0.5);
    let mut s = b.add(ramp, small);
    if let Some(extra) = extra {
        let scaled = b.mul(extra, target);
        let weight = b.shift(scaled, 1.0);
        s = b.mul(weight, s);
    }
    let one = b.like(x, 1.0);
    let rest = b.sub(one, target);
    let linear = b.mul(rest, x);
    let loss = b.add(linear, s);
    Ok(mean(b, loss))
}

/// Adds `p - 1` in a shape that broadcasts along the class axis.
fn pos_weight(spec: &LossSpec, b: &mut Builder, x: ValueId, weights: &[f32]) -> Result<ValueId, LossError> {
    let fact = b.fact(x).clone();
    let shape = if weights.len() == 1 {
        Vec::new()
    } else {
        let axis = spec.axis(&fact)?;
        let dims = fact.shape.unwrap_or_default();
        if dims[axis].known() != Some(weights.len()) {
            return Err(LossError::Count {
                kind: spec.kind,
                option: "pos_weight",
                expected: format!("1 or {}", dims[axis]),
                found: weights.len(),
            });
        }
        let mut shape = vec![1; dims.len() - axis];
        shape[0] = weights.len();
        shape
    };
    let less: Vec<f64> = weights.iter().map(|weight| f64::from(*weight) - 1.0).collect();
    let tensor = floats(b.dtype(x), &shape, &less);
    Ok(b.constant("pos_weight", tensor))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::losses::testing::{Case, check};
    use crate::losses::{LossKind, LossSpec};

    fn formula(weight: f64) -> impl Fn(f64, f64) -> f64 {
        move |x, t| {
            let softplus = |z: f64| z.max(0.0) + (-z.abs()).exp().ln_1p();
            weight * t * softplus(-x) + (1.0 - t) * softplus(x)
        }
    }

    #[test]
    fn values() {
        let spec = LossSpec::new(LossKind::BinaryCrossEntropy);
        let with = |weights: &[f32]| LossSpec { pos_weight: Some(weights.to_vec()), ..spec.clone() };
        let rows = |index: usize, x: f64, t: f64| formula([0.5, 2.0, 5.0][index % 3])(x, t);
        let planes = |index: usize, x: f64, t: f64| formula([0.5, 2.0, 5.0][index / 4 % 3])(x, t);
        check(&[
            Case::elementwise("rank 1", &spec, &[5], formula(1.0)),
            Case::elementwise("rank 2", &spec, &[4, 3], formula(1.0)),
            Case::elementwise("large", &spec, &[4, 3], formula(1.0)).scaled(80.0),
            Case::elementwise("huge", &spec, &[4, 3], formula(1.0)).scaled(1e4),
            Case::elementwise("one weight", &with(&[3.0]), &[4, 3], formula(3.0)),
            Case::indexed("weights on the last axis", &with(&[0.5, 2.0, 5.0]), &[4, 3], rows),
            Case::indexed("weights on axis 1", &with(&[0.5, 2.0, 5.0]), &[2, 3, 2, 2], planes),
            Case::indexed("weights, large", &with(&[0.5, 2.0, 5.0]), &[4, 3], rows).scaled(200.0),
        ]);
    }
}
