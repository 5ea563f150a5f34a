//! Attention over heads: what the attention operators of all domains have in common.
//!
//! Queries are `[B, N, S, H]`, keys `[B, M, T, H]`, values `[B, M, T, V]`; N is a multiple of M.

use super::Parts;
use super::shared::{concat, positions, size, split};
use crate::autodiff::RuleError;
use crate::graph::{Attributes, DType, Dim, Fact, OpId, ValueId};

/// How scores become probabilities.
#[derive(Clone, Copy)]
pub struct Attend {
    /// Factor of the scores.
    pub scale: f64,
    /// Scores become `softcap * tanh(score / softcap)`; 0 leaves them as they are.
    pub softcap: f64,
    /// What is added to the scores.
    pub bias: Option<ValueId>,
    /// Gives a row of which everything is masked by minus infinity the probability 0 everywhere.
    pub empty_rows: bool,
    /// One more score for each head, `[1, N, 1, 1]`, whose probability is dropped.
    pub sink: Option<ValueId>,
}

/// The steps of attention, `[B, N, S, T]`, and its output `[B, N, S, V]`.
pub struct Attended {
    /// Scaled scores.
    pub scores: ValueId,
    /// Scores after the soft cap.
    pub capped: ValueId,
    /// Scores after the bias.
    pub biased: ValueId,
    /// Probabilities.
    pub probabilities: ValueId,
    /// `probabilities V`.
    pub output: ValueId,
}

/// `[B, S, N * H]` to `[B, N, S, H]`.
///
/// # Errors
/// The last dimension is not fixed.
pub fn split_heads(parts: &mut Parts<'_>, value: ValueId, heads: i64) -> Result<ValueId, RuleError> {
    let hidden = size(parts, value, 2)?;
    if heads < 1 || hidden % heads != 0 {
        return Err(RuleError::Unsupported(format!("{hidden} values cannot be split into {heads} heads")));
    }
    let apart = parts.b.reshape(value, &[0, 0, heads, hidden / heads]);
    Ok(parts.b.transpose(apart, &[0, 2, 1, 3]))
}

/// `[B, N, S, H]` to `[B, S, N * H]`.
///
/// # Errors
/// N or H is not fixed.
pub fn join_heads(parts: &mut Parts<'_>, value: ValueId) -> Result<ValueId, RuleError> {
    let hidden = size(parts, value, 1)? * size(parts, value, 3)?;
    let turned = parts.b.transpose(value, &[0, 2, 1, 3]);
    Ok(parts.b.reshape(turned, &[0, 0, hidden]))
}

/// Repeats each of the M heads N / M times.
fn repeat_heads(parts: &mut Parts<'_>, value: ValueId, heads: i64) -> Result<ValueId, RuleError> {
    let (own, width) = (size(parts, value, 1)?, size(parts, value, 3)?);
    if own == heads {
        return Ok(value);
    }
    if own < 1 || heads % own != 0 {
        return Err(RuleError::Unsupported(format!("{heads} heads cannot share {own} heads of keys and values")));
    }
    let apart = parts.b.unsqueeze(value, &[2]);
    let shape = parts.b.ints("shape", &[1, 1, heads / own, 1, 1]);
    let repeated = parts.b.op("Expand", &[apart, shape], Attributes::none());
    Ok(parts.b.reshape(repeated, &[0, heads, -1, width]))
}

/// Appends `softmax(softcap(scale * Q K') + bias) V`.
///
/// # Errors
/// The number of heads or their size is not fixed.
pub fn attend(parts: &mut Parts<'_>, [q, k, v]: [ValueId; 3], how: &Attend) -> Result<Attended, RuleError> {
    let heads = size(parts, q, 1)?;
    let (k, v) = (repeat_heads(parts, k, heads)?, repeat_heads(parts, v, heads)?);
    let (dims, keys) = (parts.dims(q)?, parts.dims(k)?);
    let [batch, count, rows, _] = dims.as_slice() else {
        return Err(RuleError::Unsupported(format!("queries have rank {}, 4 was expected", dims.len())));
    };
    let columns = keys.get(2).cloned().unwrap_or(Dim::Unknown);
    let shape = vec![batch.clone(), count.clone(), rows.clone(), columns];
    let fact = Fact::new(parts.dtype(q), shape);
    let turned = parts.b.transpose(k, &[0, 1, 3, 2]);
    let scaled = if how.scale == 1.0 { q } else { parts.b.scale(q, how.scale) };
    let scores = parts.b.op("MatMul", &[scaled, turned], Attributes::none());
    parts.b.refine(scores, &fact);
    let capped = if how.softcap > 0.0 {
        let small = parts.b.scale(scores, 1.0 / how.softcap);
        let flat = parts.b.unary("Tanh", small);
        parts.b.scale(flat, how.softcap)
    } else {
        scores
    };
    let biased = match how.bias {
        Some(bias) => parts.b.add(capped, bias),
        None => capped,
    };
    parts.b.refine(biased, &fact);
    let softmax = Attributes::none().with("axis", -1_i64);
    let probabilities = match how.bias.filter(|_| how.empty_rows) {
        Some(bias) => {
            let most = parts.b.reduce("ReduceMax", bias, &[-1], true);
            let empty = parts.b.compare("Equal", most, f64::NEG_INFINITY);
            let zero = parts.b.like(biased, 0.0);
            let safe = parts.b.select(empty, zero, biased);
            parts.b.refine(safe, &fact);
            let some = parts.b.op("Softmax", &[safe], softmax);
            parts.b.select(empty, zero, some)
        }
        None => match how.sink {
            Some(sink) => beside(parts, biased, sink)?,
            None => parts.b.op("Softmax", &[biased], softmax),
        },
    };
    parts.b.refine(probabilities, &fact);
    let output = parts.b.op("MatMul", &[probabilities, v], Attributes::none());
    let width = parts.dims(v)?.get(3).cloned().unwrap_or(Dim::Unknown);
    let shape = vec![batch.clone(), count.clone(), rows.clone(), width];
    parts.b.refine(output, &Fact::new(parts.dtype(q), shape));
    Ok(Attended { scores, capped, biased, probabilities, output })
}

/// Softmax of scores and one more number of each head, without the probability of the latter.
fn beside(parts: &mut Parts<'_>, scores: ValueId, sink: ValueId) -> Result<ValueId, RuleError> {
    let mut dims = parts.dims(scores)?;
    let rows = parts.b.op("Shape", &[scores], Attributes::none().with("start", 0_i64).with("end", 3_i64));
    let one = parts.b.ints("one", &[1]);
    let shape = concat(parts, &[rows, one], 0);
    let column = parts.b.op("Expand", &[sink, shape], Attributes::none());
    dims[3] = Dim::Known(1);
    let fact = Fact::new(parts.dtype(scores), dims);
    parts.b.refine(column, &fact);
    let all = concat(parts, &[column, scores], 3);
    let all = parts.b.op("Softmax", &[all], Attributes::none().with("axis", -1_i64));
    let [start, end, axis] = [1, i64::MAX, 3].map(|number| parts.b.ints("part", &[number]));
    Ok(parts.b.op("Slice", &[all, start, end, axis], Attributes::none()))
}

/// Returns the default factor of the scores, `1 / sqrt(H)`, where the attribute gives none.
///
/// # Errors
/// The attribute has the wrong type, or H is not fixed.
pub fn scale(parts: &Parts<'_>, q: ValueId) -> Result<f64, RuleError> {
    match f64::from(parts.attributes().float("scale", 0.0)?) {
        0.0 => Ok(1.0 / (size(parts, q, 3)? as f64).sqrt()),
        given => Ok(given),
    }
}

/// Returns where key j lies at or before query i + offset; `[S, T]`, or broadcast with `offset`.
///
/// # Errors
/// The ranks are unknown.
pub fn at_or_before(
    parts: &mut Parts<'_>,
    q: ValueId,
    k: ValueId,
    offset: Option<ValueId>,
) -> Result<ValueId, RuleError> {
    let (rows, columns) = (query_positions(parts, q, offset)?, positions(parts, k, 2)?);
    Ok(parts.b.op("LessOrEqual", &[columns, rows], Attributes::none()))
}

/// Returns where key j lies less than `window` positions before query i + offset, or behind it.
///
/// # Errors
/// The ranks are unknown.
pub fn within(
    parts: &mut Parts<'_>,
    q: ValueId,
    k: ValueId,
    offset: Option<ValueId>,
    window: i64,
) -> Result<ValueId, RuleError> {
    let (rows, columns) = (query_positions(parts, q, offset)?, positions(parts, k, 2)?);
    let reach = parts.b.ints("window", &[window]);
    let ends = parts.b.add(columns, reach);
    Ok(parts.b.op("Less", &[rows, ends], Attributes::none()))
}

fn query_positions(parts: &mut Parts<'_>, q: ValueId, offset: Option<ValueId>) -> Result<ValueId, RuleError> {
    let rows = positions(parts, q, 2)?;
    let rows = parts.b.reshape(rows, &[-1, 1]);
    Ok(match offset {
        Some(offset) => parts.b.add(rows, offset),
        None => rows,
    })
}

/// Returns what is added to scores: 0 where `allowed` holds, `filter` elsewhere.
pub fn additive(parts: &mut Parts<'_>, allowed: ValueId, dtype: DType, filter: f64) -> ValueId {
    let (zero, filter) = (parts.b.scalar(dtype, 0.0), parts.b.scalar(dtype, filter));
    parts.b.select(allowed, zero, filter)
}

/// Returns the sum of what is there.
pub fn sum(parts: &mut Parts<'_>, a: Option<ValueId>, b: Option<ValueId>) -> Option<ValueId> {
    match (a, b) {
        (Some(a), Some(b)) => Some(parts.b.add(a, b)),
        (a, b) => a.or(b),
    }
}

/// Adds the padding mask of the `com.microsoft` operators and, with `unidirectional`, the causal
/// one, at an offset of the queries, to the bias of the scores. The mask is int32: `[B]` the length of each row, `[2 B]` the ends and
/// then the starts, or 1 where attention is allowed as `[B, T]` or `[B, S, T]`.
///
/// # Errors
/// The mask has another form.
pub fn masked_bias(
    parts: &mut Parts<'_>,
    bias: Option<ValueId>,
    mask: Option<ValueId>,
    [q, k]: [ValueId; 2],
    offset: Option<ValueId>,
) -> Result<Option<ValueId>, RuleError> {
    let dtype = parts.dtype(q);
    let filter = f64::from(parts.attributes().float("mask_filter_value", -10000.0)?);
    let padding = match mask {
        Some(mask) => {
            let allowed = allowed(parts, mask, q, k)?;
            Some(additive(parts, allowed, dtype, filter))
        }
        None => None,
    };
    let bias = sum(parts, bias, padding);
    if parts.attributes().int("unidirectional", 0)? == 0 {
        return Ok(bias);
    }
    let before = at_or_before(parts, q, k, offset)?;
    let causal = additive(parts, before, dtype, filter);
    Ok(sum(parts, bias, Some(causal)))
}

fn allowed(parts: &mut Parts<'_>, mask: ValueId, q: ValueId, k: ValueId) -> Result<ValueId, RuleError> {
    let dims = parts.dims(mask)?;
    let raw = |parts: &mut Parts<'_>| parts.b.compare("Greater", mask, 0.0);
    match dims.as_slice() {
        [entries] => {
            let columns = positions(parts, k, 2)?;
            let mask = parts.b.cast(mask, DType::I64);
            let batch = parts.dims(q)?[0].clone();
            if entries.same(&batch) {
                let ends = parts.b.reshape(mask, &[-1, 1, 1, 1]);
                return Ok(parts.b.op("Less", &[columns, ends], Attributes::none()));
            }
            let twice = batch.size().and_then(|batch| batch.plus(&batch)).map(|size| Dim::from(Some(size)));
            if twice.is_none_or(|twice| !entries.same(&twice)) {
                let text = format!("a mask of {entries} entries is not supported with {batch} rows of queries");
                return Err(RuleError::Unsupported(text));
            }
            let halves = Attributes::none().with("axis", 0_i64).with("num_outputs", 2_i64);
            let ends = parts.b.ops(&OpId::standard("Split"), &[Some(mask)], halves, 2);
            let [end, start] = [ends[0], ends[1]].map(|ends| parts.b.reshape(ends, &[-1, 1, 1, 1]));
            let before = parts.b.op("Less", &[columns, end], Attributes::none());
            let from = parts.b.op("GreaterOrEqual", &[columns, start], Attributes::none());
            Ok(parts.b.op("And", &[before, from], Attributes::none()))
        }
        [_, _] => {
            let allowed = raw(parts);
            Ok(parts.b.unsqueeze(allowed, &[1, 2]))
        }
        [_, _, _] => {
            let allowed = raw(parts);
            Ok(parts.b.unsqueeze(allowed, &[1]))
        }
        _ => Err(RuleError::Unsupported(format!("a mask of rank {} is not supported", dims.len()))),
    }
}

/// Turns each pair of the first `2 R` values of `x [B, N, S, H]` by an angle; `cos` and `sin` are
/// `[.., S, R]`, broadcast to `[B, N, S, R]`. A pair is the values i and i + R, or 2i and 2i + 1 where
/// `interleaved`.
///
/// # Errors
/// R or H is not fixed, or R is too large.
pub fn rotate(
    parts: &mut Parts<'_>,
    x: ValueId,
    [cos, sin]: [ValueId; 2],
    interleaved: bool,
) -> Result<ValueId, RuleError> {
    let (half, width) = (size(parts, cos, parts.rank(cos)?.saturating_sub(1))?, size(parts, x, 3)?);
    let rest = width - 2 * half;
    if rest < 0 {
        return Err(RuleError::Unsupported(format!("{half} angles do not fit heads of size {width}")));
    }
    let (turned, kept) = match rest {
        0 => (x, None),
        rest => {
            let both = split(parts, x, 3, &[2 * half, rest]);
            (both[0], Some(both[1]))
        }
    };
    let (a, b) = if interleaved {
        let pairs = parts.b.reshape(turned, &[0, 0, 0, half, 2]);
        let both = split(parts, pairs, 4, &[1, 1]);
        (parts.b.squeeze(both[0], &[4]), parts.b.squeeze(both[1], &[4]))
    } else {
        let both = split(parts, turned, 3, &[half, half]);
        (both[0], both[1])
    };
    let fact = parts.b.fact(a).clone();
    let mut product = |value: ValueId, factor: ValueId| {
        let product = parts.b.mul(value, factor);
        parts.b.refine(product, &fact);
        product
    };
    let [ac, bs, asin, bc] = [product(a, cos), product(b, sin), product(a, sin), product(b, cos)];
    let (real, imaginary) = (parts.b.sub(ac, bs), parts.b.add(asin, bc));
    let result = if interleaved {
        let (real, imaginary) = (parts.b.unsqueeze(real, &[4]), parts.b.unsqueeze(imaginary, &[4]));
        let pairs = concat(parts, &[real, imaginary], 4);
        parts.b.reshape(pairs, &[0, 0, 0, 2 * half])
    } else {
        concat(parts, &[real, imaginary], 3)
    };
    Ok(match kept {
        Some(kept) => concat(parts, &[result, kept], 3),
        None => result,
    })
}
