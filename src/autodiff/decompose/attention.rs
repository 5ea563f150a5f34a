//! Attention of the default domain
//!
//! `Y = softmax(softcap(scale * Q K') + mask) V` for each head; N query heads share M heads of
//! keys and values. The mask is a bool (where attention is allowed) or a number that is added; a
//! shorter one is continued by minus infinity. `is_causal` lets query i see the keys up to
//! `i + offset`, where the offset is the number of keys before the first query. A row that sees
//! nothing is 0.
//! Shapes:   Q `[B, N, S, H]`, K `[B, M, T, H]`, V `[B, M, T, V]`, or heads beside each other in
//!           `[B, S, N * H]`; N, M, H and V are fixed.
//! Opsets:   23 and 24.
//! <https://onnx.ai/onnx/operators/onnx__Attention.html>

use super::heads::{Attend, additive, at_or_before, attend, join_heads, scale, split_heads, sum};
use super::shared::{concat, copy, length, positions};
use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::{Attributes, DType, Fact, ValueId};

pub static DECOMPOSITION: Decomposition = Decomposition { domain: "", op: "Attention", opsets: 23..=24, build };

const MASKED: f64 = f64::NEG_INFINITY;

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let mut qkv = [parts.x(0)?, parts.x(1)?, parts.x(2)?];
    let flat = parts.rank(qkv[0])? == 3;
    if flat {
        let (own, shared) = (parts.attributes().int("q_num_heads", 0)?, parts.attributes().int("kv_num_heads", 0)?);
        for (value, heads) in qkv.iter_mut().zip([own, shared, shared]) {
            *value = split_heads(parts, *value, heads)?;
        }
    }
    let [q, mut k, mut v] = qkv;
    let mut offset = None;
    if let (Some(past_k), Some(past_v)) = (parts.input(4), parts.input(5)) {
        offset = Some(length(parts, past_k, 2)?);
        (k, v) = (concat(parts, &[past_k, k], 2), concat(parts, &[past_v, v], 2));
    }
    let mut given = match parts.input(3) {
        Some(mask) => Some(whole_mask(parts, mask, k)?),
        None => None,
    };
    let mut empty_rows = given.is_some();
    if let Some(valid) = parts.input(6) {
        let valid = parts.b.reshape(valid, &[-1, 1, 1, 1]);
        let rows = length(parts, q, 2)?;
        offset = Some(parts.b.sub(valid, rows));
        let columns = positions(parts, k, 2)?;
        let before = parts.b.op("Less", &[columns, valid], Attributes::none());
        let padding = additive(parts, before, parts.dtype(q), MASKED);
        given = sum(parts, given, Some(padding));
        empty_rows = true;
    }
    if parts.attributes().int("is_causal", 0)? != 0 {
        let before = at_or_before(parts, q, k, offset)?;
        let causal = additive(parts, before, parts.dtype(q), MASKED);
        given = sum(parts, given, Some(causal));
    }
    let softcap = f64::from(parts.attributes().float("softcap", 0.0)?);
    let how = Attend { scale: scale(parts, q)?, softcap, bias: given, empty_rows, sink: None };
    let made = attend(parts, [q, k, v], &how)?;
    let output = if flat { join_heads(parts, made.output)? } else { made.output };
    let shown = match parts.attributes().int("qk_matmul_output_mode", 0)? {
        0 => made.scores,
        1 => made.capped,
        2 => made.biased,
        3 => made.probabilities,
        other => return Err(RuleError::Unsupported(format!("qk_matmul_output_mode {other} is not known"))),
    };
    let mut outputs = vec![output];
    for (index, value) in [k, v, shown].into_iter().enumerate() {
        let wanted = parts.has_output(index + 1);
        outputs.push(if wanted { copy(parts, value) } else { value });
    }
    Ok(outputs)
}

/// Returns a mask as what is added to the scores, continued to the length of the keys.
fn whole_mask(parts: &mut Parts<'_>, mask: ValueId, k: ValueId) -> Result<ValueId, RuleError> {
    let dtype = parts.dtype(k);
    let mask = match parts.dtype(mask) {
        DType::Bool => additive(parts, mask, dtype, MASKED),
        _ => mask,
    };
    let (dims, keys) = (parts.dims(mask)?, parts.dims(k)?);
    let (Some(own), Some(all)) = (dims.last(), keys.get(2)) else {
        return Err(RuleError::Unsupported("the mask must have one dimension or more".into()));
    };
    if own.same(all) {
        return Ok(mask);
    }
    let mut pads = vec![0; 2 * dims.len()];
    let pads = match (own.known(), all.known()) {
        (Some(own), Some(all)) if all >= own => {
            pads[2 * dims.len() - 1] = (all - own) as i64;
            parts.b.ints("pads", &pads)
        }
        _ => {
            let before = parts.b.ints("pads", &pads[1..]);
            let (all, own) = (length(parts, k, 2)?, length(parts, mask, dims.len() - 1)?);
            let missing = parts.b.sub(all, own);
            concat(parts, &[before, missing], 0)
        }
    };
    let filter = parts.b.like(mask, MASKED);
    let whole = parts.b.op("Pad", &[mask, pads, filter], Attributes::none().with("mode", "constant"));
    let mut shape = dims.clone();
    shape[dims.len() - 1] = all.clone();
    parts.b.refine(whole, &Fact::new(dtype, shape));
    Ok(whole)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    fn attention(name: &'static str) -> Case {
        Case::new(name, "Attention").opset(23).not_embedded("tract has no Attention of this form")
    }

    /// Four heads on two of keys and values.
    fn grouped(name: &'static str) -> Case {
        attention(name).input(&[2, 4, 3, 4]).input(&[2, 2, 5, 4]).input(&[2, 2, 5, 6])
    }

    fn bools(shape: &[usize], values: &[u8]) -> Tensor {
        let data = bytes::Bytes::copy_from_slice(values);
        Tensor::new(crate::graph::DType::Bool, shape.to_vec(), data).unwrap()
    }

    #[test]
    fn gradients() {
        check(&[
            attention("heads, symbolic batch")
                .input(&[2, 2, 3, 4])
                .input(&[2, 2, 5, 4])
                .input(&[2, 2, 5, 4])
                .batches(&[0, 1, 2]),
            grouped("shared heads, scale, softcap").float("scale", 0.7).float("softcap", 0.6),
            attention("heads beside each other, symbolic batch")
                .int("q_num_heads", 4)
                .int("kv_num_heads", 2)
                .input(&[2, 3, 16])
                .input(&[2, 5, 8])
                .input(&[2, 5, 12])
                .batches(&[0, 1, 2]),
            grouped("causal, symbolic batch").int("is_causal", 1).batches(&[0, 1, 2]),
            grouped("opset 24, causal").opset(24).int("is_causal", 1),
        ]);
    }

    #[test]
    fn masks() {
        check(&[
            grouped("of bools").fed(bools(&[3, 5], &[1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0])),
            grouped("a row sees nothing").fed(bools(&[3, 5], &[1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0])),
            grouped("of numbers for each head").input(&[4, 3, 5]),
            grouped("of numbers, symbolic batch").input(&[2, 1, 3, 5]).batches(&[0, 1, 2, 3]),
        ]);
    }

    /// ONNX Runtime wants masks of full length; the numbers are of ONNX's reference implementation.
    #[test]
    fn short_masks() {
        let short = |name| attention(name).input(&[1, 2, 2, 2]).input(&[1, 1, 3, 2]).input(&[1, 1, 3, 2]);
        check(&[
            short("numbers").input(&[2, 2]).reference(&[
                0.708_285_5,
                0.093_829_65,
                0.759_932_6,
                0.000_108_64,
                0.668_571_8,
                0.165_896_05,
                0.742_129_6,
                0.032_414_89,
            ]),
            short("bools, causal").int("is_causal", 1).fed(bools(&[2, 2], &[1, 0, 1, 1])).reference(&[
                0.404,
                0.646,
                0.676_37,
                0.151_745_24,
                0.404,
                0.646,
                0.650_060_2,
                0.199_488,
            ]),
        ]);
    }

    #[test]
    fn caches() {
        let past = |name| {
            let case = grouped(name).missing();
            case.input(&[2, 2, 2, 4]).input(&[2, 2, 2, 6]).outputs(3)
        };
        check(&[
            past("past and present"),
            past("past, causal").int("is_causal", 1),
            grouped("valid keys").opset(24).missing().missing().missing().fed(Tensor::ints(&[3, 5])),
            grouped("valid keys, causal")
                .opset(24)
                .int("is_causal", 1)
                .missing()
                .missing()
                .missing()
                .fed(Tensor::ints(&[4, 5])),
        ]);
    }

    #[test]
    fn scores_are_an_output() {
        let shown = |name, mode| {
            grouped(name)
                .float("softcap", 0.6)
                .input(&[3, 5])
                .int("qk_matmul_output_mode", mode)
                .without(1)
                .without(2)
                .outputs(4)
        };
        check(&[shown("scores", 0), shown("mode 1", 1), shown("mode 2", 2), shown("probabilities", 3)]);
    }
}
