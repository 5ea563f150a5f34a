//! GroupQueryAttention of `com.microsoft`, without a cache of keys and values
//!
//! `y = softmax(softcap(scale * Q K') + attention_bias) V` for each head, query i seeing the keys up to
//! i, with `local_window_size` W the last W of them; N query heads share M heads of keys and values. With
//! `do_rotary`, Q and K are turned by the angles of their positions first. The further outputs are K
//! and V by head. Rows behind the length of a sequence, which ONNX Runtime leaves undefined, see the
//! keys before them. With `causal` 0 every query sees `seqlens_k + 1` keys.
//! Shapes:   query `[B, S, N * H]`, key and value `[B, S, M * H]`, or all beside each other in
//!           `[B, S, (N + 2 M) * H]`; cos and sin `[P, R]`; of positions `[B, S]` the first one is added
//!           to the place in the row.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GroupQueryAttention>

use super::heads::{Attend, additive, at_or_before, attend, join_heads, rotate, scale, split_heads, sum, within};
use super::shared::{copy, positions, size, split};
use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::{Attributes, DType, Dim, ValueId};

pub static DECOMPOSITION: Decomposition =
    Decomposition { domain: "com.microsoft", op: "GroupQueryAttention", opsets: 1..=1, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    refuse(parts)?;
    let [q, k, v] = projections(parts)?;
    let [q, k] = if parts.attributes().int("do_rotary", 0)? == 0 { [q, k] } else { rotated(parts, q, k)? };
    let dtype = parts.dtype(q);
    let allowed = if parts.attributes().int("causal", 1)? == 0 {
        let last = parts.x(5)?;
        let last = parts.b.cast(last, DType::I64);
        let last = parts.b.reshape(last, &[-1, 1, 1, 1]);
        let columns = positions(parts, k, 2)?;
        parts.b.op("LessOrEqual", &[columns, last], Attributes::none())
    } else {
        at_or_before(parts, q, k, None)?
    };
    let window = parts.attributes().int("local_window_size", -1)?;
    let allowed = if window > 0 {
        let near = within(parts, q, k, None, window)?;
        parts.b.op("And", &[allowed, near], Attributes::none())
    } else {
        allowed
    };
    let mask = additive(parts, allowed, dtype, f64::NEG_INFINITY);
    let bias = sum(parts, parts.input(10), Some(mask));
    let softcap = f64::from(parts.attributes().float("softcap", 0.0)?);
    let how = Attend { scale: scale(parts, q)?, softcap, bias, empty_rows: false };
    let made = attend(parts, [q, k, v], &how)?;
    let output = join_heads(parts, made.output)?;
    if !parts.has_output(1) && !parts.has_output(2) {
        return Ok(vec![output]);
    }
    Ok(vec![output, copy(parts, k), copy(parts, v)])
}

fn refuse(parts: &Parts<'_>) -> Result<(), RuleError> {
    for (index, what) in [(3, "keys"), (4, "values")] {
        let Some(past) = parts.input(index) else { continue };
        let length = parts.dims(past)?.get(2).cloned().unwrap_or(Dim::Unknown);
        if length != Dim::Known(0) {
            let text = format!("past {what} of length {length}: only the length 0 is supported, which must be fixed");
            return Err(RuleError::Unsupported(text));
        }
    }
    for (attribute, off) in [("smooth_softmax", 0), ("sliding_window_cache", 0), ("qk_output", 0)] {
        let found = parts.attributes().int(attribute, off)?;
        if found != off && !(attribute == "smooth_softmax" && found < 0) {
            return Err(RuleError::Unsupported(format!("{attribute} {found} is not supported")));
        }
    }
    parts.refuse_inputs(11, "what it would be")
}

/// Q, K and V as `[B, heads, S, H]`.
fn projections(parts: &mut Parts<'_>) -> Result<[ValueId; 3], RuleError> {
    let (heads, shared) = (parts.attributes().int("num_heads", 0)?, parts.attributes().int("kv_num_heads", 0)?);
    let query = parts.x(0)?;
    let mut qkv = match (parts.input(1), parts.input(2)) {
        (Some(key), Some(value)) => [query, key, value],
        _ => {
            let width = size(parts, query, 2)? / (heads + 2 * shared).max(1);
            let apart = split(parts, query, 2, &[heads * width, shared * width, shared * width]);
            [apart[0], apart[1], apart[2]]
        }
    };
    for (value, heads) in qkv.iter_mut().zip([heads, shared, shared]) {
        *value = split_heads(parts, *value, heads)?;
    }
    Ok(qkv)
}

fn rotated(parts: &mut Parts<'_>, q: ValueId, k: ValueId) -> Result<[ValueId; 2], RuleError> {
    let tables = [parts.x(7)?, parts.x(8)?];
    let mut places = positions(parts, q, 2)?;
    if let Some(given) = parts.input(9) {
        let flat = parts.b.reshape(given, &[-1]);
        let (start, end) = (parts.b.ints("start", &[0]), parts.b.ints("end", &[1]));
        let first = parts.b.op("Slice", &[flat, start, end], Attributes::none());
        places = parts.b.add(places, first);
    }
    let angles = tables.map(|table| parts.b.op("Gather", &[table, places], Attributes::none().with("axis", 0_i64)));
    let interleaved = parts.attributes().int("rotary_interleaved", 0)? != 0;
    Ok([rotate(parts, q, angles, interleaved)?, rotate(parts, k, angles, interleaved)?])
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    /// Four heads on two of keys and values, of size 16.
    fn grouped(name: &'static str) -> Case {
        lengths(of(name).input(&[2, 3, 64]).input(&[2, 3, 32]).input(&[2, 3, 32]).missing().missing())
    }

    fn of(name: &'static str) -> Case {
        Case::new(name, "GroupQueryAttention")
            .domain("com.microsoft")
            .int("num_heads", 4)
            .int("kv_num_heads", 2)
            .not_embedded("tract has no GroupQueryAttention")
            .outputs(3)
    }

    fn lengths(case: Case) -> Case {
        case.fed(Tensor::from_vec::<i32>(&[2], vec![2, 2])).fed(Tensor::from_vec::<i32>(&[], vec![3]))
    }

    #[test]
    fn gradients() {
        check(&[
            grouped("plain, symbolic batch").batches(&[0, 1, 2, 5]),
            grouped("scale, softcap").float("scale", 0.5).float("softcap", 0.7),
            lengths(of("packed").input(&[2, 3, 128]).missing().missing().missing().missing()),
            grouped("window").int("local_window_size", 2),
            grouped("bias").missing().missing().missing().input(&[1, 4, 3, 3]),
            grouped("all keys").int("causal", 0),
        ]);
    }

    #[test]
    fn rotary() {
        check(&[
            grouped("rotary").int("do_rotary", 1).input(&[5, 8]).input(&[5, 8]).batches(&[0, 1, 2, 5]),
            grouped("rotary, interleaved, half of the head")
                .int("do_rotary", 1)
                .int("rotary_interleaved", 1)
                .input(&[5, 8])
                .input(&[5, 8]),
            grouped("rotary, positions")
                .int("do_rotary", 1)
                .input(&[5, 8])
                .input(&[5, 8])
                .fed(Tensor::from_vec::<i64>(&[2, 3], vec![1, 2, 3, 0, 1, 2])),
        ]);
    }
}
