//! Cross-entropy of class indices or probabilities
//!
//! Formula:   with `p = LogSoftmax(x)` over the class axis, class weights `w` (1), smoothing `e`
//!            (0) and `C` classes, over the samples `n` whose target `t` is not `ignore_index`:
//!            `-sum_n((1 - e) w[t] p[n, t] + e / C sum_c(w[c] p[n, c])) / sum_n(w[t])`.
//! Target:    int64 class index, shape of the prediction without the class axis. An index that
//!            is neither a class nor `ignore_index` makes the loss NaN. With `target_kind =
//!            "probabilities"`: floating point, shape of the prediction.
//! Reduction: weighted mean; NaN when no sample counts, as PyTorch. Of probabilities `q` over `N`
//!            samples `-sum_n,c(w[c] ((1 - e) q[n, c] + e / C) p[n, c]) / N`, also with weights.
//!
//! The target selects by comparison with `0..C`, a constant where `C` is fixed, so that neither the
//! loss nor its gradient gathers or scatters.
//! <https://pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html>

use super::{IGNORE_INDEX, LossError, LossSpec, TargetKind, floats, mean, sum};
use crate::graph::{Attributes, Builder, DType, Dim, Fact, Tensor, ValueId};

/// Returns the fact of the target.
pub(super) fn target_fact(spec: &LossSpec, prediction: &Fact) -> Result<Fact, LossError> {
    let (axis, _) = classes(spec, prediction)?;
    let mut shape = prediction.shape.clone().unwrap_or_default();
    if spec.target_kind == TargetKind::Probabilities {
        return Ok(Fact::new(spec.wide(prediction)?, shape));
    }
    shape.remove(axis);
    Ok(Fact::new(DType::I64, shape))
}

/// Appends the loss.
pub(super) fn build(
    spec: &LossSpec,
    b: &mut Builder,
    prediction: ValueId,
    target: ValueId,
) -> Result<ValueId, LossError> {
    let (axis, _) = classes(spec, b.fact(prediction))?;
    let logs = b.op("LogSoftmax", &[prediction], Attributes::none().with("axis", axis as i64));
    match spec.target_kind {
        TargetKind::Indices => of_logs(spec, b, logs, target),
        TargetKind::Probabilities => of_probabilities(spec, b, logs, target),
    }
}

/// Appends the loss of log-probabilities and probabilities.
fn of_probabilities(spec: &LossSpec, b: &mut Builder, logs: ValueId, target: ValueId) -> Result<ValueId, LossError> {
    let (axis, count) = classes(spec, b.fact(logs))?;
    let (dtype, rank) = (b.dtype(logs), b.fact(logs).rank().unwrap_or(0));
    let along = Along { axis, trailing: vec![1; rank - axis - 1] };
    let logs = match &spec.class_weights {
        Some(weights) => {
            let numbers: Vec<f64> = weights.iter().map(|weight| f64::from(*weight)).collect();
            let weights = b.constant("class_weights", floats(dtype, &along.shape(weights.len()), &numbers));
            b.mul(logs, weights)
        }
        None => logs,
    };
    let own = b.mul(logs, target);
    let mut score = b.reduce("ReduceSum", own, &[along.axis()], false);
    let smoothing = f64::from(spec.label_smoothing);
    if smoothing > 0.0 {
        let count = along.count(b, logs, count);
        let spread = b.reduce("ReduceSum", logs, &[along.axis()], false);
        let spread = count.share(b, spread, smoothing);
        score = b.scale(score, 1.0 - smoothing);
        score = b.add(score, spread);
    }
    let mean = mean(b, score);
    Ok(b.unary("Neg", mean))
}

/// Appends the loss of log-probabilities.
pub(super) fn of_logs(spec: &LossSpec, b: &mut Builder, logs: ValueId, target: ValueId) -> Result<ValueId, LossError> {
    let (axis, count) = classes(spec, b.fact(logs))?;
    let (dtype, rank) = (b.dtype(logs), b.fact(logs).rank().unwrap_or(0));
    let along = Along { axis, trailing: vec![1; rank - axis - 1] };
    let target = b.unsqueeze(target, &[along.axis()]);
    let count = along.count(b, logs, count);
    let classes = along.classes(b, &count);
    let hit = b.op("Equal", &[target, classes], Attributes::none());
    let shape = b.fact(logs).shape.clone();
    b.refine(hit, &Fact { dtype: Some(DType::Bool), shape });

    let weights = spec.class_weights.as_ref().map(|weights| {
        let weights: Vec<f64> = weights.iter().map(|weight| f64::from(*weight)).collect();
        b.constant("class_weights", floats(dtype, &along.shape(weights.len()), &weights))
    });
    let zero = b.scalar(dtype, 0.0);
    let own = match weights {
        Some(weights) => {
            let selected = b.select(hit, weights, zero);
            b.reduce("ReduceSum", selected, &[along.axis()], true)
        }
        None => b.scalar(dtype, 1.0),
    };
    let ignored = b.constant("ignore_index", Tensor::scalar(spec.ignore_index.unwrap_or(IGNORE_INDEX)));
    let ignored = b.op("Equal", &[target, ignored], Attributes::none());
    let below = b.compare("Less", target, 0.0);
    let size = count.value(b);
    let above = b.op("GreaterOrEqual", &[target, size], Attributes::none());
    let outside = b.op("Or", &[below, above], Attributes::none());
    let nan = b.scalar(dtype, f64::NAN);
    let weight = b.select(outside, nan, own);
    let weight = b.select(ignored, zero, weight);
    let total = sum(b, weight);

    let picked = b.select(hit, logs, zero);
    let picked = b.reduce("ReduceSum", picked, &[along.axis()], true);
    let picked = b.mul(picked, weight);
    let mut score = sum(b, picked);
    let smoothing = f64::from(spec.label_smoothing);
    if smoothing > 0.0 {
        let weighted = weights.map_or(logs, |weights| b.mul(logs, weights));
        let spread = b.reduce("ReduceSum", weighted, &[along.axis()], true);
        let spread = b.select(ignored, zero, spread);
        let spread = sum(b, spread);
        let spread = count.share(b, spread, smoothing);
        score = b.scale(score, 1.0 - smoothing);
        score = b.add(score, spread);
    }
    let mean = b.div(score, total);
    Ok(b.unary("Neg", mean))
}

/// The class axis of the prediction.
struct Along {
    axis: usize,
    trailing: Vec<usize>,
}

impl Along {
    fn axis(&self) -> i64 {
        self.axis as i64
    }

    /// The number of classes, computed where it is not fixed.
    fn count(&self, b: &mut Builder, logs: ValueId, fixed: Option<usize>) -> Count {
        if let Some(count) = fixed {
            return Count::Fixed(count);
        }
        let shape = b.shape_of(logs);
        let axis = b.constant("class_axis", Tensor::scalar(self.axis()));
        Count::Computed(b.op("Gather", &[shape, axis], Attributes::none().with("axis", 0)))
    }

    /// `0..C` along the axis.
    fn classes(&self, b: &mut Builder, count: &Count) -> ValueId {
        match count {
            Count::Fixed(count) => {
                let indices = (0..*count).map(|class| class as i64).collect();
                b.constant("classes", Tensor::from_vec(&self.shape(*count), indices))
            }
            Count::Computed(size) => {
                let [first, step] = [0_i64, 1].map(|number| b.constant("number", Tensor::scalar(number)));
                let numbers = b.op("Range", &[first, *size, step], Attributes::none());
                let trailing: Vec<i64> = (1..).take(self.trailing.len()).collect();
                if trailing.is_empty() { numbers } else { b.unsqueeze(numbers, &trailing) }
            }
        }
    }

    /// The shape of a constant of one entry per class that broadcasts along the axis.
    fn shape(&self, count: usize) -> Vec<usize> {
        [&[count], self.trailing.as_slice()].concat()
    }
}

/// The number of classes.
enum Count {
    Fixed(usize),
    Computed(ValueId),
}

impl Count {
    /// Returns a value times `factor`, over the number of classes.
    fn share(&self, b: &mut Builder, value: ValueId, factor: f64) -> ValueId {
        match self {
            Count::Fixed(count) => b.scale(value, factor / *count as f64),
            Count::Computed(size) => {
                let size = b.cast(*size, b.dtype(value));
                let value = b.scale(value, factor);
                b.div(value, size)
            }
        }
    }

    fn value(&self, b: &mut Builder) -> ValueId {
        match self {
            Count::Fixed(count) => b.constant("count", Tensor::scalar(*count as i64)),
            Count::Computed(size) => *size,
        }
    }
}

/// Returns the class axis and the number of classes where it is fixed, after checking the weights
/// against it.
fn classes(spec: &LossSpec, prediction: &Fact) -> Result<(usize, Option<usize>), LossError> {
    let axis = spec.axis(prediction)?;
    let dim = prediction.shape.as_ref().and_then(|shape| shape.get(axis));
    let needs = |expected| LossError::Prediction {
        kind: spec.kind,
        expected,
        found: format!("{prediction} with the classes on axis {axis}"),
    };
    match (dim.and_then(Dim::known), &spec.class_weights) {
        (Some(0), _) => Err(needs("at least one class")),
        (Some(count), Some(weights)) if weights.len() != count => Err(LossError::Count {
            kind: spec.kind,
            option: "class_weights",
            expected: count.to_string(),
            found: weights.len(),
        }),
        (None, Some(_)) => Err(needs("a fixed number of classes, which class_weights are for")),
        (count, _) => Ok((axis, count)),
    }
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::losses::testing::{Case, check};
    use crate::losses::{LossKind, LossSpec};

    /// The formula of the head, straight from the definition of softmax.
    fn formula(spec: &LossSpec, shape: &[usize], axis: usize, x: &[f64], t: &[f64]) -> f64 {
        let count = shape[axis];
        let inner: usize = shape[axis + 1..].iter().product();
        let weight = |class: usize| spec.class_weights.as_ref().map_or(1.0, |weights| f64::from(weights[class]));
        let smoothing = f64::from(spec.label_smoothing);
        let (mut score, mut total) = (0.0, 0.0);
        for (n, class) in t.iter().enumerate().filter(|(_, class)| **class as i64 != spec.ignore_index.unwrap_or(-100))
        {
            let row: Vec<f64> = (0..count).map(|c| x[n / inner * inner * count + c * inner + n % inner]).collect();
            let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let log_sum = top + row.iter().map(|x| (x - top).exp()).sum::<f64>().ln();
            let log = |c: usize| row[c] - log_sum;
            let own = *class as usize;
            let spread: f64 = (0..count).map(|c| weight(c) * log(c)).sum();
            score -= (1.0 - smoothing) * weight(own) * log(own) + smoothing / count as f64 * spread;
            total += weight(own);
        }
        score / total
    }

    fn case(name: &'static str, spec: &LossSpec, shape: &[usize], axis: usize, target: &[i64]) -> Case {
        let (of, sizes) = (spec.clone(), shape.to_vec());
        Case::classes(name, spec, shape, target, move |x, t| formula(&of, &sizes, axis, x, t))
    }

    #[test]
    fn values() {
        let spec = LossSpec::new(LossKind::CrossEntropy);
        let weights = Some(vec![0.5, 1.0, 2.0, 0.25, 3.0]);
        let weighted = LossSpec { class_weights: weights, ..spec.clone() };
        let ignoring = LossSpec { ignore_index: Some(2), ..spec.clone() };
        let smooth = LossSpec { label_smoothing: 0.1, ..spec.clone() };
        let all = LossSpec { ignore_index: Some(2), label_smoothing: 0.25, ..weighted.clone() };
        let axis_1 = LossSpec { class_axis: Some(1), ..all.clone() };
        let first = LossSpec { class_axis: Some(-2), ..all.clone() };
        let six = [4, 2, 3, 0, 2, 4];
        let masked = [4, -100, 3, 0, -100, 4];
        let pixels = [0, 1, 2, 3, 4, 0, -100, 2, 3, 4, 4, 0];
        check(&[
            case("plain", &spec, &[6, 5], 1, &six),
            case("class weights", &weighted, &[6, 5], 1, &six),
            case("ignored class", &ignoring, &[6, 5], 1, &six),
            case("ignored -100", &weighted, &[6, 5], 1, &masked),
            case("smoothing", &smooth, &[6, 5], 1, &six),
            case("smoothing, ignored -100", &smooth, &[6, 5], 1, &masked),
            case("all", &all, &[6, 5], 1, &six),
            case("one sample of rank 1", &spec, &[5], 0, &[3]),
            case("one class", &spec, &[2, 1], 1, &[0, 0]),
            case("tokens", &smooth, &[2, 3, 5], 2, &six),
            case("rank 3 on axis 1", &axis_1, &[2, 5, 3], 1, &six),
            case("axis from the end", &first, &[2, 5, 3], 1, &six),
            case("pixels", &smooth, &[2, 5, 3, 2], 1, &pixels),
            case("pixels, weights", &weighted, &[2, 5, 3, 2], 1, &pixels),
            case("large", &spec, &[6, 5], 1, &six).scaled(80.0),
            case("huge, all", &all, &[6, 5], 1, &six).scaled(1e4),
        ]);
    }

    #[test]
    fn as_many_classes_as_the_batch_says() {
        let spec = LossSpec::new(LossKind::CrossEntropy);
        let smooth = LossSpec { label_smoothing: 0.1, ignore_index: Some(2), ..spec.clone() };
        let six = [4, 2, 3, 0, 2, 4];
        let pixels = [0, 1, 2, 3, 4, 0, -100, 2, 3, 4, 4, 0];
        check(&[
            case("logits of all pairs", &spec, &[3, 3], 1, &[0, 1, 2]).symbol(1, "batch"),
            case("plain", &spec, &[6, 5], 1, &six).symbol(1, "classes"),
            case("smoothing and ignored", &smooth, &[6, 5], 1, &six).symbol(1, "classes"),
            case("tokens", &smooth, &[2, 3, 5], 2, &six).symbol(2, "classes").symbol(1, "length"),
            case("pixels", &spec, &[2, 5, 3, 2], 1, &pixels).symbol(1, "classes"),
            Case::classes("above", &spec, &[2, 3], &[0, 3], |_, _| f64::NAN).symbol(1, "classes"),
        ]);
    }

    #[test]
    fn nothing_counts_or_no_class_is_nan() {
        let spec = LossSpec::new(LossKind::CrossEntropy);
        let weighted = LossSpec { class_weights: Some(vec![1.0, 2.0, 3.0]), ..spec.clone() };
        let nan = |name, spec: &LossSpec, target: &[i64]| Case::classes(name, spec, &[2, 3], target, |_, _| f64::NAN);
        check(&[
            nan("all ignored", &spec, &[-100, -100]),
            nan("above", &spec, &[0, 3]),
            nan("below", &weighted, &[-1, 1]),
        ]);
    }
}
