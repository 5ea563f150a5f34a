//! GroupQueryAttention of `com.microsoft`
//!
//! `y = softmax(softcap(scale * Q K') + attention_bias) V` for each head, query i seeing the keys up to
//! i, with `local_window_size` W the last W of them; N query heads share M heads of keys and values. With
//! `do_rotary`, Q and K are turned by the angles of their positions first. The further outputs are K
//! and V by head. Rows behind the length of a sequence, which ONNX Runtime leaves undefined, see the
//! keys before them. With `causal` 0 every query sees `seqlens_k + 1` keys. Of past keys and values, the first
//! `seqlens_k + 1 - S` stand before K and V; none where `total_sequence_length` is S. With a head sink,
//! or 0 with `smooth_softmax`, the softmax is over one more score, whose probability is dropped.
//! Shapes:   query `[B, S, N * H]`, key and value `[B, S, M * H]`, or all beside each other in
//!           `[B, S, (N + 2 M) * H]`; cos and sin `[P, R]`; of positions `[B, S]` the first one is added
//!           to the place in the row.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GroupQueryAttention>

use super::heads::{Attend, additive, at_or_before, attend, join_heads, rotate, scale, split_heads, sum, within};
use super::shared::{concat, copy, length, positions, size, split};
use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::{Attributes, DType, Dim, ValueId};

pub static DECOMPOSITION: Decomposition =
    Decomposition { domain: "com.microsoft", op: "GroupQueryAttention", opsets: 1..=1, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    refuse(parts)?;
    let [q, k, v] = projections(parts)?;
    let past = past(parts, q)?;
    let [q, k] = if parts.attributes().int("do_rotary", 0)? == 0 { [q, k] } else { rotated(parts, q, k, &past)? };
    let allowed = allowed(parts, q, k, &past)?;
    let (k, v) = match &past {
        Some(past) => (concat(parts, &[past.k, k], 2), concat(parts, &[past.v, v], 2)),
        None => (k, v),
    };
    let mask = additive(parts, allowed, parts.dtype(q), f64::NEG_INFINITY);
    let bias = sum(parts, parts.input(10), Some(mask));
    let softcap = f64::from(parts.attributes().float("softcap", 0.0)?);
    let sink = sink(parts, q)?;
    let how = Attend { scale: scale(parts, q)?, softcap, bias, empty_rows: false, sink };
    let made = attend(parts, [q, k, v], &how)?;
    let output = join_heads(parts, made.output)?;
    if !parts.has_output(1) && !parts.has_output(2) {
        return Ok(vec![output]);
    }
    if past.is_some() {
        // Where the present lies in its buffer is up to the operator.
        let present = parts.again(3);
        return Ok(vec![output, present[1], present[2]]);
    }
    Ok(vec![output, copy(parts, k), copy(parts, v)])
}

/// Keys and values before those of the node.
struct Past {
    k: ValueId,
    v: ValueId,
    /// How many of them count in each row, `[B, 1, 1, 1]`.
    count: ValueId,
}

fn past(parts: &mut Parts<'_>, q: ValueId) -> Result<Option<Past>, RuleError> {
    let (Some(k), Some(v)) = (parts.input(3), parts.input(4)) else { return Ok(None) };
    if parts.dims(k)?.get(2) == Some(&Dim::Known(0)) {
        return Ok(None);
    }
    if parts.input(10).is_some() || parts.input(9).is_some() || parts.attributes().int("causal", 1)? == 0 {
        let text = "past keys beside an attention bias, positions or causal 0 are not supported";
        return Err(RuleError::Unsupported(text.into()));
    }
    let (last, total) = (parts.x(5)?, parts.x(6)?);
    let [last, total] = [last, total].map(|value| parts.b.cast(value, DType::I64));
    let rows = length(parts, q, 2)?;
    let last = parts.b.reshape(last, &[-1, 1, 1, 1]);
    let length = parts.b.shift(last, 1.0);
    let before = parts.b.sub(length, rows);
    // A first prompt has no past, whatever lies in the buffer.
    let total = parts.b.reshape(total, &[1]);
    let first = parts.b.op("Equal", &[total, rows], Attributes::none());
    let none = parts.b.scalar(DType::I64, 0.0);
    let count = parts.b.select(first, none, before);
    Ok(Some(Past { k, v, count }))
}

/// Returns which keys, those of the past first, each query sees.
fn allowed(parts: &mut Parts<'_>, q: ValueId, k: ValueId, past: &Option<Past>) -> Result<ValueId, RuleError> {
    let window = parts.attributes().int("local_window_size", -1)?;
    if parts.attributes().int("causal", 1)? == 0 {
        let last = parts.x(5)?;
        let last = parts.b.cast(last, DType::I64);
        let last = parts.b.reshape(last, &[-1, 1, 1, 1]);
        let columns = positions(parts, k, 2)?;
        return Ok(parts.b.op("LessOrEqual", &[columns, last], Attributes::none()));
    }
    let mut allowed = at_or_before(parts, q, k, None)?;
    if window > 0 {
        let near = within(parts, q, k, None, window)?;
        allowed = parts.b.op("And", &[allowed, near], Attributes::none());
    }
    let Some(past) = past else { return Ok(allowed) };
    let columns = positions(parts, past.k, 2)?;
    let counts = parts.b.op("Less", &[columns, past.count], Attributes::none());
    // Both parts need the same rows and batch.
    let rows = positions(parts, q, 2)?;
    let rows = parts.b.reshape(rows, &[-1, 1]);
    let place = parts.b.add(rows, past.count);
    let reach = if window > 0 { window } else { i64::from(i32::MAX) };
    let reach = parts.b.ints("window", &[reach]);
    let end = parts.b.add(columns, reach);
    let near = parts.b.op("Less", &[place, end], Attributes::none());
    let before = parts.b.op("And", &[counts, near], Attributes::none());
    let every = parts.b.compare("GreaterOrEqual", place, 0.0);
    let allowed = parts.b.op("And", &[allowed, every], Attributes::none());
    Ok(concat(parts, &[before, allowed], 3))
}

fn refuse(parts: &Parts<'_>) -> Result<(), RuleError> {
    for attribute in ["sliding_window_cache", "qk_output"] {
        let found = parts.attributes().int(attribute, 0)?;
        if found > 0 {
            return Err(RuleError::Unsupported(format!("{attribute} {found} is not supported")));
        }
    }
    parts.refuse_inputs(12, "what it would be")
}

/// Returns the score that stands beside those of the keys, `[1, N, 1, 1]`: 0 with `smooth_softmax`.
fn sink(parts: &mut Parts<'_>, q: ValueId) -> Result<Option<ValueId>, RuleError> {
    let heads = size(parts, q, 1)?;
    let sink = match parts.input(11) {
        Some(sink) => sink,
        None if parts.attributes().int("smooth_softmax", 0)? > 0 => parts.b.like(q, 0.0),
        None => return Ok(None),
    };
    let count = if parts.rank(sink)? == 0 { 1 } else { heads };
    Ok(Some(parts.b.reshape(sink, &[1, count, 1, 1])))
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

fn rotated(parts: &mut Parts<'_>, q: ValueId, k: ValueId, past: &Option<Past>) -> Result<[ValueId; 2], RuleError> {
    let tables = [parts.x(7)?, parts.x(8)?];
    let mut places = positions(parts, q, 2)?;
    if let Some(given) = parts.input(9) {
        let flat = parts.b.reshape(given, &[-1]);
        let (start, end) = (parts.b.ints("start", &[0]), parts.b.ints("end", &[1]));
        let first = parts.b.op("Slice", &[flat, start, end], Attributes::none());
        places = parts.b.add(places, first);
    }
    if let Some(past) = past {
        let count = parts.b.squeeze(past.count, &[2, 3]);
        places = parts.b.add(places, count);
    }
    let each = past.is_some();
    let angles = tables.map(|table| {
        let angles = parts.b.op("Gather", &[table, places], Attributes::none().with("axis", 0_i64));
        if each { parts.b.unsqueeze(angles, &[1]) } else { angles }
    });
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
            grouped("smooth softmax, symbolic batch").int("smooth_softmax", 1).batches(&[0, 1, 2]),
            grouped("head sink").missing().missing().missing().missing().input(&[4]),
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

    /// Both sequences have two tokens before, or one and two.
    #[test]
    fn caches() {
        let past = |name, last: [i32; 2], total: i32| {
            let case = of(name).input(&[2, 1, 64]).input(&[2, 1, 32]).input(&[2, 1, 32]);
            let case = case.input(&[2, 2, 2, 16]).input(&[2, 2, 2, 16]);
            case.fed(Tensor::from_vec::<i32>(&[2], last.to_vec())).fed(Tensor::from_vec::<i32>(&[], vec![total]))
        };
        check(&[
            past("past", [2, 2], 3).in_loss(1),
            past("past of two lengths, rotary", [1, 2], 3).int("do_rotary", 1).input(&[5, 8]).input(&[5, 8]).in_loss(1),
            past("past, window", [1, 2], 3).int("local_window_size", 2).in_loss(1),
            past("past that is not used", [0, 0], 1).in_loss(1),
        ]);
    }
}
