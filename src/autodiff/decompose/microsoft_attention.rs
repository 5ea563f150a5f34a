//! Attention of `com.microsoft`
//!
//! `Q, K, V = input W + bias`, then `y = softmax(scale * Q K' + attention_bias + mask) V` for each head. What
//! is masked gets `mask_filter_value`, not minus infinity. Past keys and values stand before K and V; the
//! second output is both with the past, stacked.
//! Shapes:   input `[B, S, D]`, W `[D, 2 N * H + N * V]`, bias `[2 N * H + N * V]`; the mask as
//!           lengths `[B]`, ends and starts `[2 B]`, `[B, T]` or `[B, S, T]`; the past
//!           `[2, B, N, P, H]`.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.Attention>

use super::heads::{Attend, attend, join_heads, masked_bias, scale, split_heads};
use super::shared::{concat, length, size, split};
use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::{Attributes, ValueId};

pub static DECOMPOSITION: Decomposition =
    Decomposition { domain: "com.microsoft", op: "Attention", opsets: 1..=1, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    parts.refuse_inputs(6, "a cache that is written in place")?;
    if parts.attributes().int("do_rotary", 0)? != 0 {
        return Err(RuleError::Unsupported("do_rotary is not supported".into()));
    }
    let (input, weights) = (parts.x(0)?, parts.x(1)?);
    let heads = parts.attributes().int("num_heads", 0)?;
    let mut packed = parts.b.op("MatMul", &[input, weights], Attributes::none());
    if let Some(bias) = parts.input(2) {
        packed = parts.b.add(packed, bias);
    }
    let sizes = match parts.attributes().ints("qkv_hidden_sizes")?.filter(|sizes| !sizes.is_empty()) {
        Some(sizes) if sizes.len() == 3 => sizes,
        Some(sizes) => {
            return Err(RuleError::Unsupported(format!("qkv_hidden_sizes has {} entries, not 3", sizes.len())));
        }
        None => vec![size(parts, weights, 1)? / 3; 3],
    };
    let apart = split(parts, packed, 2, &sizes);
    let mut qkv = [apart[0], apart[1], apart[2]];
    for value in &mut qkv {
        *value = split_heads(parts, *value, heads)?;
    }
    let [q, mut k, mut v] = qkv;
    let mut offset = None;
    if let Some(past) = parts.input(4) {
        offset = Some(length(parts, past, 3)?);
        let both = split(parts, past, 0, &[1, 1]);
        let [past_k, past_v] = [both[0], both[1]].map(|past| parts.b.squeeze(past, &[0]));
        (k, v) = (concat(parts, &[past_k, k], 2), concat(parts, &[past_v, v], 2));
    }
    let bias = masked_bias(parts, parts.input(5), parts.input(3), [q, k], offset)?;
    let how = Attend { scale: scale(parts, q)?, softcap: 0.0, bias, empty_rows: false, sink: None };
    let made = attend(parts, [q, k, v], &how)?;
    let output = join_heads(parts, made.output)?;
    if !parts.has_output(1) {
        return Ok(vec![output]);
    }
    let (k, v) = (parts.b.unsqueeze(k, &[0]), parts.b.unsqueeze(v, &[0]));
    Ok(vec![output, concat(parts, &[k, v], 0)])
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let of = |name| {
            Case::new(name, "Attention")
                .domain("com.microsoft")
                .int("num_heads", 2)
                .not_embedded("tract has no such Attention")
        };
        let attention = |name| of(name).input(&[2, 4, 4]).input(&[4, 12]).input(&[12]);
        let mask = |shape: &[usize], values: &[i32]| Tensor::from_vec(shape, values.to_vec());
        check(&[
            attention("plain, symbolic batch").batch(),
            attention("unidirectional, scale, present").int("unidirectional", 1).float("scale", 0.9).outputs(2),
            attention("lengths").fed(mask(&[2], &[2, 4])),
            attention("ends and starts").fed(mask(&[4], &[3, 4, 1, 0])),
            attention("of keys, unidirectional, symbolic batch")
                .int("unidirectional", 1)
                .fed(mask(&[2, 4], &[1, 1, 0, 1, 1, 0, 1, 1]))
                .batches(&[0, 3]),
            attention("of each query, filter, bias")
                .float("mask_filter_value", -30.0)
                .fed(mask(
                    &[2, 4, 4],
                    &[1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 0],
                ))
                .missing()
                .input(&[2, 2, 4, 4]),
            attention("past, unidirectional").int("unidirectional", 1).missing().input(&[2, 2, 2, 3, 2]).outputs(2),
            of("three sizes").input(&[2, 4, 4]).input(&[4, 14]).input(&[14]).ints("qkv_hidden_sizes", &[4, 4, 6]),
        ]);
    }
}
