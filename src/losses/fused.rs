//! Softmax and cross entropy of class indices as one operator of our own, and its gradient.
//!
//! `ai.freeze-plan.SoftmaxCrossEntropy(x, target, weights?) -> loss, log_sum?, total?` computes what `cross_entropy.rs`
//! appends, for a fixed number of classes: x float32 with the classes on `axis`, target int64, weights `[C]`; attributes
//! `ignore_index` and `label_smoothing`. log_sum is the logarithm of the sum of `exp(x)`, of the target's shape, and total
//! the sum of the targets' weights. `SoftmaxCrossEntropyGrad(dloss, x, target, log_sum, total, weights?) -> dx` has the
//! same attributes.

use super::{IGNORE_INDEX, LossError, LossKind, LossSpec, TargetKind};
use crate::graph::{Attributes, Builder, DType, Dim, Fact, INTERNAL_DOMAIN, OpId, Origin, Tensor, ValueId};

/// A loss that was appended as one operator.
#[derive(Clone, Debug)]
pub struct FusedLoss {
    /// The loss, a scalar.
    pub loss: ValueId,
    /// What it is computed from, in float32.
    pub prediction: ValueId,
    target: ValueId,
    log_sum: ValueId,
    total: ValueId,
    weights: Option<ValueId>,
    attributes: Attributes,
}

fn own(name: &str) -> OpId {
    OpId { domain: INTERNAL_DOMAIN.into(), name: name.into() }
}

impl LossSpec {
    /// Returns true where there is an operator for the loss of such a prediction.
    ///
    /// # Errors
    /// The prediction is none that this loss can take.
    pub fn is_fused(&self, prediction: &Fact) -> Result<bool, LossError> {
        let indices = self.kind == LossKind::CrossEntropy && self.target_kind == TargetKind::Indices;
        let counted = indices && self.classes(prediction).is_some_and(|(_, count)| count > 0);
        Ok(counted && self.wide(prediction)? == DType::F32)
    }

    /// Appends the loss as one operator; `None` where there is no operator for it.
    ///
    /// # Errors
    /// As [`LossSpec::build`].
    pub fn build_fused(
        &self,
        b: &mut Builder,
        prediction: ValueId,
        target: ValueId,
    ) -> Result<Option<FusedLoss>, LossError> {
        let fact = b.fact(prediction).clone();
        if !self.is_fused(&fact)? {
            return Ok(None);
        }
        let Some(expected) = self.target_fact(std::slice::from_ref(&fact))? else { return Ok(None) };
        b.enter(Origin::Loss, "loss");
        self.check_target(b, target, &expected)?;
        b.refine(target, &expected);
        let axis = self.axis(&fact)?;
        let prediction = if b.dtype(prediction) == DType::F32 { prediction } else { b.cast(prediction, DType::F32) };
        let weights = self.class_weights.as_ref();
        let weights = weights
            .map(|weights| b.constant("class_weights", Tensor::from_vec::<f32>(&[weights.len()], weights.clone())));
        let attributes = Attributes::none()
            .with("axis", axis as i64)
            .with("ignore_index", self.ignore_index.unwrap_or(IGNORE_INDEX))
            .with("label_smoothing", self.label_smoothing);
        let inputs = [vec![Some(prediction), Some(target)], weights.map(Some).into_iter().collect()].concat();
        let outputs = b.ops(&own("SoftmaxCrossEntropy"), &inputs, attributes.clone(), 3);
        let shape = b.fact(target).shape.clone();
        let facts = [Some(Vec::<Dim>::new()), shape, Some(Vec::new())];
        for (output, shape) in outputs.iter().zip(facts) {
            b.refine(*output, &Fact { dtype: Some(DType::F32), shape });
        }
        let [loss, log_sum, total] = outputs[..] else { unreachable!("invariant: made with three outputs") };
        Ok(Some(FusedLoss { loss, prediction, target, log_sum, total, weights, attributes }))
    }
}

impl FusedLoss {
    /// Appends the gradient of the prediction for that of the loss.
    pub fn grad(&self, b: &mut Builder, dloss: ValueId) -> ValueId {
        let inputs = [dloss, self.prediction, self.target, self.log_sum, self.total];
        let inputs: Vec<Option<ValueId>> = inputs.into_iter().chain(self.weights).map(Some).collect();
        let dx = b.ops(&own("SoftmaxCrossEntropyGrad"), &inputs, self.attributes.clone(), 1)[0];
        let like = b.fact(self.prediction).clone();
        b.refine(dx, &like);
        dx
    }
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::gradients;
    use crate::graph::{Builder, DType, Fact, INTERNAL_DOMAIN, Model, Tensor};
    use crate::losses::{LossKind, LossSpec, TargetKind};
    use crate::runner::{evaluate, testing};

    /// How far the two forms may be apart, relative to the largest number of an output.
    const NEAR: f64 = 2e-6;

    /// Returns the loss and its gradient, appended as one operator or as many.
    fn values(spec: &LossSpec, x: &Tensor, target: &Tensor, fused: bool) -> Vec<Vec<f64>> {
        let mut b = Builder::new("loss");
        let [prediction, labels] = [("x", x), ("target", target)]
            .map(|(name, tensor)| b.input(name, Fact::fixed(tensor.dtype(), tensor.shape())));
        let (loss, dx) = if fused {
            let fused = spec.build_fused(&mut b, prediction, labels).unwrap().unwrap();
            let one = b.scalar(DType::F32, 1.0);
            (fused.loss, fused.grad(&mut b, one))
        } else {
            let loss = spec.build(&mut b, &[prediction], Some(labels)).unwrap();
            (loss, gradients(&mut b, 18, loss, &[prediction]).unwrap()[0].unwrap())
        };
        b.output(loss, "loss");
        b.output(dx, "dx");
        let opsets = [(String::new(), 18), (INTERNAL_DOMAIN.to_string(), 1)].into();
        let model = Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() };
        let found = evaluate(&mut testing::onnxruntime(), &model, &[("x", x), ("target", target)]).unwrap();
        found.iter().map(|tensor| tensor.to_f64s().unwrap()).collect()
    }

    #[test]
    fn both_forms_compute_the_same() {
        let plain = LossSpec::new(LossKind::CrossEntropy);
        let weighted = LossSpec { class_weights: Some(vec![0.5, 1.0, 2.0, 0.25, 3.0]), ..plain.clone() };
        let all = LossSpec { ignore_index: Some(2), label_smoothing: 0.25, ..weighted.clone() };
        let cases: [(&LossSpec, &[usize]); 7] = [
            (&plain, &[6, 5]),
            (&plain, &[5]),
            (&weighted, &[6, 5]),
            (&LossSpec { label_smoothing: 0.1, ..plain.clone() }, &[2, 3, 5]),
            (&all, &[6, 5]),
            (&all, &[2, 5, 3, 2]),
            (&LossSpec { class_axis: Some(1), ..all.clone() }, &[2, 5, 3]),
        ];
        for (spec, shape) in cases {
            let wave = |at: usize| ((at * 37 % 101) as f32 / 101.0 - 0.5) * 8.0;
            let x = Tensor::from_vec(shape, (0..shape.iter().product()).map(wave).collect::<Vec<f32>>());
            let fact = spec.target_fact(&[Fact::fixed(DType::F32, shape)]).unwrap().unwrap();
            let sizes = fact.sizes().unwrap();
            let label = |at: usize| if at % 4 == 3 { spec.ignore_index.unwrap_or(-100) } else { (at * 3 % 5) as i64 };
            let target = Tensor::from_vec(&sizes, (0..sizes.iter().product()).map(label).collect::<Vec<i64>>());
            let [expected, found] = [false, true].map(|fused| values(spec, &x, &target, fused));
            for (expected, found) in expected.iter().zip(&found) {
                let size = expected.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
                let far = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(expected.len() == found.len() && far <= NEAR * size, "{spec:?} {shape:?}: {far} of {size}");
            }
        }
    }

    #[test]
    fn others_have_no_operator() {
        let soft = LossSpec { target_kind: TargetKind::Probabilities, ..LossSpec::new(LossKind::CrossEntropy) };
        for (spec, dtype) in [(soft, DType::F32), (LossSpec::new(LossKind::Mse), DType::F32)] {
            let mut b = Builder::new("loss");
            let [x, target] = ["x", "target"].map(|name| b.input(name, Fact::fixed(dtype, &[2, 3])));
            assert!(spec.build_fused(&mut b, x, target).unwrap().is_none());
        }
    }
}
