//! TensorScatter
//!
//! `present[b, .., (write[b] + s) mod M, ..] = update[b, .., s, ..]`, elsewhere `past`; the remainder
//! only in mode `circular`, write 0 where it is not given. As a product with a matrix of zeros and
//! ones that has a row for each place and a column for each s.
//! Shapes:   past `[B, .., M, ..]`, update `[B, .., S, ..]`, S at most M.
//! Opsets:   24.
//! <https://onnx.ai/onnx/operators/onnx__TensorScatter.html>

use super::shared::{length, positions};
use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::autodiff::rule::axis;
use crate::graph::{Attributes, ValueId};

pub static DECOMPOSITION: Decomposition = Decomposition { domain: "", op: "TensorScatter", opsets: 24..=24, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let (past, update) = (parts.x(0)?, parts.x(1)?);
    let rank = parts.rank(past)?;
    let along = axis(parts.attributes().int("axis", -2)?, rank)?;
    if along == 0 {
        return Err(RuleError::Unsupported("the axis cannot be the batch".into()));
    }
    let mode = parts.attributes().text("mode", "linear")?;
    let to = positions(parts, update, along)?;
    let to = match parts.input(2) {
        Some(write) => {
            let write = parts.b.unsqueeze(write, &[1]);
            parts.b.add(to, write)
        }
        None => parts.b.unsqueeze(to, &[0]),
    };
    let to = match mode.as_str() {
        "linear" => to,
        "circular" => {
            let count = length(parts, past, along)?;
            parts.b.op("Mod", &[to, count], Attributes::none())
        }
        other => return Err(RuleError::Unsupported(format!("mode \"{other}\" is not known"))),
    };
    // Rows [B or 1, 1.., M, S] of which at most one column is 1.
    let places = positions(parts, past, along)?;
    let places = parts.b.unsqueeze(places, &[1]);
    let to = parts.b.unsqueeze(to, &[1]);
    let here = parts.b.op("Equal", &[places, to], Attributes::none());
    // An update along the last axis has a row of one value.
    let last = along == rank - 1;
    let full = rank + usize::from(last);
    let middle: Vec<i64> = (1..full as i64 - 2).collect();
    let here = if middle.is_empty() { here } else { parts.b.unsqueeze(here, &middle) };
    let dtype = parts.dtype(past);
    let matrix = parts.b.cast(here, dtype);
    let mut order: Vec<i64> = (0..full as i64).collect();
    order.swap(along, full - 2);
    let rows = |parts: &mut Parts<'_>, value: ValueId| match along == full - 2 {
        true => value,
        false => parts.b.transpose(value, &order),
    };
    let opened = |parts: &mut Parts<'_>, value: ValueId| match last {
        true => parts.b.unsqueeze(value, &[rank as i64]),
        false => rows(parts, value),
    };
    let (past, update) = (opened(parts, past), opened(parts, update));
    let moved = parts.b.op("MatMul", &[matrix, update], Attributes::none());
    let made = choose(parts, matrix, moved, past);
    Ok(vec![if last { parts.b.squeeze(made, &[rank as i64]) } else { rows(parts, made) }])
}

/// Takes the moved rows where there is one and the past ones elsewhere.
fn choose(parts: &mut Parts<'_>, matrix: ValueId, moved: ValueId, past: ValueId) -> ValueId {
    let some = parts.b.reduce("ReduceMax", matrix, &[-1], true);
    let some = parts.b.compare("Greater", some, 0.0);
    let fact = parts.b.fact(past).clone();
    parts.b.refine(moved, &fact);
    let made = parts.b.select(some, moved, past);
    parts.b.refine(made, &fact);
    made
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let scatter =
            |name| Case::new(name, "TensorScatter").opset(24).linear().not_embedded("tract has no TensorScatter");
        check(&[
            scatter("from the start").input(&[2, 2, 5, 3]).input(&[2, 2, 2, 3]),
            scatter("each row elsewhere").input(&[2, 2, 5, 3]).input(&[2, 2, 2, 3]).fed(Tensor::ints(&[3, 1])),
            scatter("around the end")
                .text("mode", "circular")
                .input(&[2, 2, 5, 3])
                .input(&[2, 2, 3, 3])
                .fed(Tensor::ints(&[4, 3])),
            scatter("axis 1").int("axis", 1).input(&[2, 4, 2, 3]).input(&[2, 3, 2, 3]).fed(Tensor::ints(&[1, 0])),
            scatter("last axis").int("axis", -1).input(&[2, 2, 5]).input(&[2, 2, 3]).fed(Tensor::ints(&[2, 1])),
            scatter("rank 3, symbolic batch")
                .input(&[2, 5, 3])
                .input(&[2, 2, 3])
                .fed(Tensor::ints(&[3, 1]))
                .batches(&[0, 1, 2]),
        ]);
    }
}
