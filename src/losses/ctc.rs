//! Connectionist temporal classification
//!
//! Formula:   `mean_n(-log p_n / max(len_n, 1))`, `p_n` the sum over all ways to write the `len_n`
//!            labels of sample `n` as one class for each of the `T` steps, with blanks between and
//!            repeats (blanks between equal labels), of the product of the classes' probabilities
//!            under the softmax of the prediction. With states `B[s]` (a blank after `s` labels) and
//!            `L[s]` (label `s`), in logarithms and for `t` in `0..T`:
//!            `B'[s] = log(e^B[s] + e^L[s-1]) + x[t, blank]`,
//!            `L'[s] = log(e^L[s] + e^B[s] + e^L[s-1]) + x[t, label s]`, the last only where label
//!            `s` is not label `s - 1`.
//! Target:    int64 labels, `[N, S]`, with `ignore_index` after the last label of a sample; a label
//!            that is the blank or no class, or one after an ignored one, makes the loss NaN.
//! Reduction: mean over the labels, then over the batch. A sample with fewer steps than it needs
//!            makes the loss infinite, or with `zero_infinity` counts as 0.
//!
//! Every sample has all steps of the prediction. The steps are unrolled, so their number is fixed.
//! <https://pytorch.org/docs/stable/generated/torch.nn.CTCLoss.html>

use super::{IGNORE_INDEX, LossError, LossSpec, mean};
use crate::graph::{Attributes, Builder, DType, Dim, Fact, OpId, Tensor, ValueId};

/// The logarithm of what cannot happen.
const NEVER: f64 = -1e30;
/// Name of the most labels of a sample.
const LABELS: &str = "target_labels";

/// Returns the fact of the target.
pub(super) fn target_fact(spec: &LossSpec, prediction: &Fact) -> Result<Fact, LossError> {
    let (steps, batch, _) = sizes(spec, prediction)?;
    let shape = prediction.shape.as_ref().and_then(|shape| Some(vec![shape.get(batch)?.clone(), symbol()]));
    let classes = prediction.dim(2).and_then(Dim::known);
    let blank = usize::try_from(spec.blank.unwrap_or(0)).unwrap_or(usize::MAX);
    match (classes, steps) {
        (Some(classes), 1..) if blank < classes => Ok(Fact { dtype: Some(DType::I64), shape }),
        (Some(classes), 1..) => Err(LossError::Range {
            kind: spec.kind,
            option: "blank",
            range: format!("below the {classes} classes"),
            found: blank.to_string(),
        }),
        _ => Err(needs(spec, "a fixed number of steps and classes", prediction)),
    }
}

fn symbol() -> Dim {
    Dim::Symbol(LABELS.into())
}

fn needs(spec: &LossSpec, expected: &'static str, prediction: &Fact) -> LossError {
    LossError::Prediction { kind: spec.kind, expected, found: prediction.to_string() }
}

/// Returns the number of steps, the axis of the batch and that of the steps.
fn sizes(spec: &LossSpec, prediction: &Fact) -> Result<(usize, usize, i64), LossError> {
    spec.ranked(prediction, 3, "rank 3")?;
    let (batch, time) = if spec.time_axis == Some(0) { (1, 0) } else { (0, 1) };
    let steps = prediction.dim(time).and_then(Dim::known);
    let steps = steps.ok_or_else(|| needs(spec, "a fixed number of steps and classes", prediction))?;
    Ok((steps, batch, time))
}

/// Appends the loss.
pub(super) fn build(
    spec: &LossSpec,
    b: &mut Builder,
    prediction: ValueId,
    target: ValueId,
) -> Result<ValueId, LossError> {
    let (steps, _, time) = sizes(spec, b.fact(prediction))?;
    let classes = b.fact(prediction).dim(2).and_then(Dim::known).unwrap_or(0);
    let x = if time == 0 { b.transpose(prediction, &[1, 0, 2]) } else { prediction };
    let logs = b.op("LogSoftmax", &[x], Attributes::none().with("axis", 2));
    let labels = Labels::new(spec, b, target, classes);
    let c = Column::new(b, target, b.dtype(logs));

    let blank = b.ints("blank", &[spec.blank.unwrap_or(0)]);
    let blanks = b.op("Gather", &[logs, blank], Attributes::none().with("axis", 2));
    let rows = b.unsqueeze(labels.index, &[1]);
    let tall = b.ints("steps", &[1, steps as i64, 1]);
    let index = b.op("Expand", &[rows, tall], Attributes::none());
    let owns = b.op("GatherElements", &[logs, index], Attributes::none().with("axis", 2));
    let (blanks, owns) = (split(b, blanks, steps), split(b, owns, steps));

    let never = b.scalar(b.dtype(logs), NEVER);
    let mut own = b.expand_like(never, target);
    let mut empty = joined(b, c.zero, own);
    for (blank, label) in blanks.into_iter().zip(owns) {
        let behind = joined(b, c.never, own);
        let (before, beside) = (shorter(b, behind, target), shorter(b, empty, target));
        let repeated = b.select(labels.differs, before, never);
        empty = log_sum(b, &[empty, behind]);
        empty = b.add(empty, blank);
        own = log_sum(b, &[own, beside, repeated]);
        own = b.add(own, label);
    }
    let behind = joined(b, c.never, own);
    let ends = log_sum(b, &[empty, behind]);
    let zero = b.like(ends, 0.0);
    let end = b.select(labels.end, ends, zero);
    let chance = b.reduce("ReduceSum", end, &[1], false);
    let impossible = b.compare("Less", chance, NEVER / 2.0);
    let instead = b.like(chance, if spec.zero_infinity == Some(true) { 0.0 } else { f64::INFINITY });
    let loss = b.unary("Neg", chance);
    let loss = b.select(impossible, instead, loss);
    let dtype = b.dtype(loss);
    let count = if b.dtype(labels.count) == dtype { labels.count } else { b.cast(labels.count, dtype) };
    let loss = b.div(loss, count);
    let nan = b.like(loss, f64::NAN);
    let loss = b.select(labels.wrong, nan, loss);
    Ok(mean(b, loss))
}

/// What the states are made from.
struct Labels {
    /// The labels, 0 where there is none.
    index: ValueId,
    /// Where a label is not that before it.
    differs: ValueId,
    /// For each number of labels whether the sample has so many.
    end: ValueId,
    /// The number of labels of a sample, at least 1.
    count: ValueId,
    /// Samples whose labels are wrong.
    wrong: ValueId,
}

impl Labels {
    fn new(spec: &LossSpec, b: &mut Builder, target: ValueId, classes: usize) -> Labels {
        let ignored = b.compare("Equal", target, spec.ignore_index.unwrap_or(IGNORE_INDEX) as f64);
        let there = b.unary("Not", ignored);
        let (below, above) = (b.compare("Less", target, 0.0), b.compare("Greater", target, classes as f64 - 1.0));
        let blank = b.compare("Equal", target, spec.blank.unwrap_or(0) as f64);
        let outside = b.op("Or", &[below, above], Attributes::none());
        let none = b.op("Or", &[outside, ignored], Attributes::none());
        let zero = b.like(target, 0.0);
        let index = b.select(none, zero, target);
        let outside = b.op("Or", &[outside, blank], Attributes::none());
        let outside = b.op("And", &[outside, there], Attributes::none());

        // As integers: tract has no Concat of bool.
        let there = b.cast(there, DType::I64);
        let first = column(b, target, Tensor::scalar(1i64));
        let last = column(b, target, Tensor::scalar(0i64));
        let (before, after) = (joined(b, first, there), joined(b, there, last));
        let falls = b.sub(before, after);
        let end = b.compare("Equal", falls, 1.0);
        let hole = b.compare("Equal", falls, -1.0);
        let count = b.reduce("ReduceSum", there, &[1], false);
        let one = b.like(count, 1.0);
        let count = b.op("Max", &[count, one], Attributes::none());

        let previous = joined(b, first, index);
        let previous = shorter(b, previous, target);
        let same = b.op("Equal", &[index, previous], Attributes::none());
        let differs = b.unary("Not", same);
        let [outside, hole] = [outside, hole].map(|wrong| {
            let wrong = b.cast(wrong, DType::I64);
            b.reduce("ReduceMax", wrong, &[1], false)
        });
        let wrong = b.add(outside, hole);
        let wrong = b.compare("Greater", wrong, 0.0);
        Labels { index, differs, end, count, wrong }
    }
}

/// Columns of one number for every sample.
struct Column {
    zero: ValueId,
    never: ValueId,
}

impl Column {
    fn new(b: &mut Builder, target: ValueId, dtype: DType) -> Column {
        let zero = column(b, target, Tensor::float_scalar(dtype, 0.0));
        Column { zero, never: column(b, target, Tensor::float_scalar(dtype, NEVER)) }
    }
}

/// Appends a number for every sample, of shape `[N, 1]`.
fn column(b: &mut Builder, target: ValueId, number: Tensor) -> ValueId {
    let first = b.ints("first", &[0]);
    let like = b.op("Gather", &[target, first], Attributes::none().with("axis", 1));
    let number = b.constant("number", number);
    b.expand_like(number, like)
}

/// Appends columns followed by columns.
fn joined(b: &mut Builder, left: ValueId, right: ValueId) -> ValueId {
    b.op("Concat", &[left, right], Attributes::none().with("axis", 1))
}

/// Appends all columns but the last: the shape of the target.
fn shorter(b: &mut Builder, value: ValueId, target: ValueId) -> ValueId {
    let [start, end, axis] = [("start", 0), ("end", -1), ("axis", 1)].map(|(part, number)| b.ints(part, &[number]));
    let result = b.op("Slice", &[value, start, end, axis], Attributes::none());
    let shape = b.fact(target).shape.clone();
    b.refine(result, &Fact { dtype: None, shape });
    result
}

/// Appends the parts of axis 1 without it.
fn split(b: &mut Builder, value: ValueId, parts: usize) -> Vec<ValueId> {
    let sizes = b.ints("sizes", &vec![1; parts]);
    let attributes = Attributes::none().with("axis", 1);
    let parts = b.ops(&OpId::standard("Split"), &[Some(value), Some(sizes)], attributes, parts);
    parts.into_iter().map(|part| b.squeeze(part, &[1])).collect()
}

/// Appends the logarithm of the sum of exponentials.
fn log_sum(b: &mut Builder, logs: &[ValueId]) -> ValueId {
    let largest = b.op("Max", logs, Attributes::none());
    let mut parts = Vec::with_capacity(logs.len());
    for log in logs {
        let below = b.sub(*log, largest);
        parts.push(b.unary("Exp", below));
    }
    let sum = b.op("Sum", &parts, Attributes::none());
    let log = b.unary("Log", sum);
    b.add(log, largest)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use super::*;
    use crate::losses::LossKind;
    use crate::losses::testing::{Case, check, wave};

    /// The probability of the labels, by writing out every path.
    fn by_paths(x: &[Vec<f64>], labels: &[usize], blank: usize) -> f64 {
        let (steps, classes) = (x.len(), x[0].len());
        let mut total = 0.0;
        for number in 0..classes.pow(steps as u32) {
            let path: Vec<usize> = (0..steps).map(|t| number / classes.pow(t as u32) % classes).collect();
            let mut kept = path.clone();
            kept.dedup();
            kept.retain(|class| *class != blank);
            if kept == labels {
                let own = |t: usize| x[t][path[t]].exp() / x[t].iter().map(|x| x.exp()).sum::<f64>();
                total += (0..steps).map(own).product::<f64>();
            }
        }
        total
    }

    /// The formula of the head for predictions of shape `[N, T, C]`.
    fn formula(x: &Tensor, target: &Tensor, blank: usize, zero: bool) -> f64 {
        let (values, labels) = (x.to_f64s().unwrap(), target.to_ints().unwrap());
        let [samples, steps, classes] = x.shape() else { unreachable!() };
        let one = |n: usize| {
            let width = target.shape()[1];
            let own = labels[n * width..(n + 1) * width].iter().take_while(|label| **label >= 0);
            let own: Vec<usize> = own.map(|label| *label as usize).collect();
            let rows = values[n * steps * classes..(n + 1) * steps * classes].chunks(*classes).map(<[f64]>::to_vec);
            let chance = by_paths(&rows.collect::<Vec<_>>(), &own, blank);
            let loss = if chance == 0.0 && zero { 0.0 } else { -chance.ln() };
            loss / own.len().max(1) as f64
        };
        (0..*samples).map(one).sum::<f64>() / *samples as f64
    }

    fn case(name: &str, spec: &LossSpec, shape: &[usize; 3], target: &[i64], expected: Option<f64>) -> Case {
        let x = wave(shape, 3, 2.0);
        let target = Tensor::from_vec(&[shape[0], target.len() / shape[0]], target.to_vec());
        let blank = spec.blank.unwrap_or(0) as usize;
        let value = expected.unwrap_or_else(|| formula(&x, &target, blank, spec.zero_infinity == Some(true)));
        Case::expecting(name, spec, vec![x], Some(target), value)
    }

    #[test]
    fn values() {
        let spec = LossSpec::new(LossKind::Ctc);
        let last = LossSpec { blank: Some(2), ..spec.clone() };
        let zero = LossSpec { zero_infinity: Some(true), ..spec.clone() };
        let none = -100;
        check(&[
            case("one label", &spec, &[2, 3, 3], &[1, 2], None),
            case("all labels", &spec, &[2, 4, 3], &[1, 2, 2, 1], None),
            case("repeated", &spec, &[2, 5, 3], &[1, 1, 1, 2, 2, 1], None),
            case("of several lengths", &spec, &[3, 5, 4], &[3, 1, 2, 2, none, none, none, none, none], None),
            case("last class blank", &last, &[2, 4, 3], &[0, 1, 1, none], None),
            case("one step", &spec, &[2, 1, 3], &[1, none], None),
            case("too few steps", &spec, &[2, 2, 3], &[1, 1, 1, 2], Some(f64::INFINITY)),
            case("too few steps count as 0", &zero, &[2, 2, 3], &[1, 1, 1, 2], None),
            case("the blank as a label", &spec, &[2, 3, 3], &[1, 0], Some(f64::NAN)),
            case("no class", &spec, &[2, 3, 3], &[1, 3], Some(f64::NAN)),
            case("a hole", &spec, &[1, 3, 3], &[1, none, 2], Some(f64::NAN)),
        ]);
    }
}
