//! MultiHeadAttention of `com.microsoft`
//!
//! `y = softmax(scale * Q K' + attention_bias + mask) V` for each head, Q, K and V after adding their part
//! of `bias`; past keys and values stand before K and V. What is masked gets `mask_filter_value`, not
//! minus infinity. The further outputs are K and V with the past, and the scores.
//! Shapes:   query `[B, S, N * H]`, key `[B, T, N * H]`, value `[B, T, N * V]`; or key and value
//!           `[B, N, T, H]`; or packed key and value `[B, T, N, 2, H]`, all three `[B, S, N, 3, H]`.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MultiHeadAttention>

use super::heads::{Attend, attend, join_heads, masked_bias, scale, split_heads};
use super::shared::{concat, copy, length, size, split};
use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::ValueId;

pub static DECOMPOSITION: Decomposition =
    Decomposition { domain: "com.microsoft", op: "MultiHeadAttention", opsets: 1..=1, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    parts.refuse_inputs(8, "a cache that is written in place")?;
    let heads = parts.attributes().int("num_heads", 0)?;
    let [q, mut k, mut v] = projections(parts, heads)?;
    let mut offset = None;
    if let (Some(past_k), Some(past_v)) = (parts.input(6), parts.input(7)) {
        offset = Some(length(parts, past_k, 2)?);
        (k, v) = (concat(parts, &[past_k, k], 2), concat(parts, &[past_v, v], 2));
    }
    let bias = masked_bias(parts, parts.input(5), parts.input(4), [q, k], offset)?;
    let how = Attend { scale: scale(parts, q)?, softcap: 0.0, bias, empty_rows: false, sink: None };
    let made = attend(parts, [q, k, v], &how)?;
    let mut outputs = vec![join_heads(parts, made.output)?];
    for (index, value) in [k, v, made.biased].into_iter().enumerate() {
        let wanted = parts.has_output(index + 1);
        outputs.push(if wanted { copy(parts, value) } else { value });
    }
    Ok(outputs)
}

/// Q, K and V as `[B, N, S, H]`.
fn projections(parts: &mut Parts<'_>, heads: i64) -> Result<[ValueId; 3], RuleError> {
    let query = parts.x(0)?;
    let (key, value) = (parts.input(1), parts.input(2));
    if parts.rank(query)? == 5 {
        let [q, k, v] = unpack(parts, query)?;
        return with_bias(parts, [q, k, v], heads);
    }
    let key = key.ok_or_else(|| RuleError::Unsupported("input 1 is missing".into()))?;
    match (parts.rank(key)?, value) {
        (5, _) => {
            let [k, v] = unpack(parts, key)?;
            with_bias(parts, [query, k, v], heads)
        }
        (4, Some(value)) => {
            if parts.input(3).is_some() {
                return Err(RuleError::Unsupported("a bias beside keys by head is not supported".into()));
            }
            Ok([split_heads(parts, query, heads)?, key, value])
        }
        (_, Some(value)) => with_bias(parts, [query, key, value], heads),
        (_, None) => Err(RuleError::Unsupported("input 2 is missing".into())),
    }
}

/// `[B, S, N, C, H]` to C times `[B, S, N * H]`.
fn unpack<const C: usize>(parts: &mut Parts<'_>, packed: ValueId) -> Result<[ValueId; C], RuleError> {
    let width = size(parts, packed, 2)? * size(parts, packed, 4)?;
    let both = split(parts, packed, 3, &[1; C]);
    let flat: Vec<ValueId> = both.into_iter().map(|part| parts.b.reshape(part, &[0, 0, width])).collect();
    Ok(flat.try_into().expect("invariant: split into as many parts"))
}

fn with_bias(parts: &mut Parts<'_>, mut qkv: [ValueId; 3], heads: i64) -> Result<[ValueId; 3], RuleError> {
    if let Some(bias) = parts.input(3) {
        let mut sizes = [0; 3];
        for (slot, value) in sizes.iter_mut().zip(qkv) {
            *slot = size(parts, value, 2)?;
        }
        for (value, bias) in qkv.iter_mut().zip(split(parts, bias, 0, &sizes)) {
            *value = parts.b.add(*value, bias);
        }
    }
    for value in &mut qkv {
        *value = split_heads(parts, *value, heads)?;
    }
    Ok(qkv)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    fn attention(name: &'static str) -> Case {
        Case::new(name, "MultiHeadAttention")
            .domain("com.microsoft")
            .int("num_heads", 2)
            .not_embedded("tract has no MultiHeadAttention")
    }

    fn qkv(name: &'static str) -> Case {
        attention(name).input(&[2, 3, 4]).input(&[2, 5, 4]).input(&[2, 5, 6])
    }

    fn past(name: &'static str) -> Case {
        let case = attention(name).input(&[2, 3, 4]).input(&[2, 3, 4]).input(&[2, 3, 4]).missing().missing().missing();
        case.input(&[2, 2, 2, 2]).input(&[2, 2, 2, 2])
    }

    fn mask(shape: &[usize], values: &[i32]) -> Tensor {
        Tensor::from_vec(shape, values.to_vec())
    }

    #[test]
    fn gradients() {
        check(&[
            qkv("three inputs, symbolic batch").batches(&[0, 1, 2]),
            qkv("bias, scale").input(&[14]).float("scale", 0.9),
            attention("keys by head").input(&[2, 3, 4]).input(&[2, 2, 5, 2]).input(&[2, 2, 5, 2]),
            attention("unidirectional, symbolic batch")
                .int("unidirectional", 1)
                .input(&[2, 4, 4])
                .input(&[2, 4, 4])
                .input(&[2, 4, 4])
                .batches(&[0, 1, 2]),
            qkv("keys and values are outputs").outputs(3),
            past("past").outputs(3),
            past("past, unidirectional").int("unidirectional", 1).outputs(3),
            qkv("scores are an output").outputs(4),
        ]);
    }

    #[test]
    fn masks() {
        check(&[
            qkv("lengths").missing().fed(mask(&[2], &[3, 5])),
            qkv("of keys, symbolic batch")
                .missing()
                .fed(mask(&[2, 5], &[1, 0, 1, 1, 0, 1, 1, 1, 1, 0]))
                .input(&[2, 2, 3, 5])
                .batches(&[0, 1, 2, 4, 5]),
            qkv("of each query").missing().fed(mask(
                &[2, 3, 5],
                &[1, 0, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0, 1],
            )),
            qkv("bias for all rows").missing().missing().input(&[1, 2, 3, 5]).batches(&[0, 1, 2]),
            qkv("bias for all heads").missing().missing().input(&[2, 1, 3, 5]),
            attention("lengths, unidirectional, filter")
                .int("unidirectional", 1)
                .float("mask_filter_value", -50.0)
                .input(&[2, 4, 4])
                .input(&[2, 4, 4])
                .input(&[2, 4, 4])
                .missing()
                .fed(mask(&[2], &[3, 4])),
        ]);
    }

    /// The CPU kernels of ONNX Runtime want three inputs; the numbers are PyTorch's.
    #[test]
    fn packed_inputs() {
        check(&[
            attention("all three, bias").input(&[1, 2, 2, 3, 2]).missing().missing().input(&[12]).reference(&[
                0.414_625_73,
                -0.998_372_7,
                0.406_619_72,
                -0.438_439_5,
                0.356_053_35,
                -1.073_931_3,
                0.409_163_17,
                -0.429_830_1,
            ]),
            attention("keys and values").input(&[1, 2, 4]).input(&[1, 3, 2, 2, 2]).reference(&[
                -0.323_532_7,
                0.286_577,
                -0.082_953_5,
                -0.242_953_9,
                0.005_132_43,
                0.158_334_7,
                0.011_995_27,
                -0.181_854_3,
            ]),
        ]);
    }
}
