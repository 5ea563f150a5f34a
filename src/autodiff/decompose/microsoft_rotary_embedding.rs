//! RotaryEmbedding of `com.microsoft`
//!
//! As RotaryEmbedding of the default domain; positions are `[B, S]`, or one number to which the place
//! in the row is added.
//! Shapes:   input `[B, N, S, H]` or `[B, S, N * H]`, cos and sin `[P, R]`.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.RotaryEmbedding>

use super::heads::{join_heads, rotate, split_heads};
use super::shared::{positions, size};
use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::{Attributes, ValueId};

pub static DECOMPOSITION: Decomposition =
    Decomposition { domain: "com.microsoft", op: "RotaryEmbedding", opsets: 1..=1, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    if parts.attributes().int("is_packed_batching", 0)? != 0 {
        return Err(RuleError::Unsupported("is_packed_batching is not supported".into()));
    }
    let (input, place, tables) = (parts.x(0)?, parts.x(1)?, [parts.x(2)?, parts.x(3)?]);
    let flat = parts.rank(input)? == 3;
    let x = if flat {
        let heads = match parts.attributes().int("num_heads", 0)? {
            0 => size(parts, input, 2)? / (2 * size(parts, tables[0], 1)?).max(1),
            heads => heads,
        };
        split_heads(parts, input, heads)?
    } else {
        input
    };
    let one = parts.rank(place)? == 1;
    let place = if one {
        let places = positions(parts, x, 2)?;
        parts.b.add(places, place)
    } else {
        place
    };
    let angles = tables.map(|table| {
        let angles = parts.b.op("Gather", &[table, place], Attributes::none().with("axis", 0_i64));
        if one { angles } else { parts.b.unsqueeze(angles, &[1]) }
    });
    let interleaved = parts.attributes().int("interleaved", 0)? != 0;
    let turned = rotate(parts, x, angles, interleaved)?;
    Ok(vec![if flat { join_heads(parts, turned)? } else { turned }])
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let rotary = |name| {
            Case::new(name, "RotaryEmbedding")
                .domain("com.microsoft")
                .linear()
                .not_embedded("tract has no RotaryEmbedding")
        };
        let place = || Tensor::from_vec::<i64>(&[2, 3], vec![0, 1, 2, 4, 1, 1]);
        check(&[
            rotary("halves, symbolic batch")
                .input(&[2, 2, 3, 4])
                .fed(place())
                .input(&[5, 2])
                .input(&[5, 2])
                .batches(&[0, 1]),
            rotary("flat, heads from the tables").input(&[2, 3, 8]).fed(place()).input(&[5, 2]).input(&[5, 2]),
            rotary("flat, interleaved, one position")
                .int("interleaved", 1)
                .input(&[2, 3, 8])
                .fed(Tensor::ints(&[2]))
                .input(&[5, 2])
                .input(&[5, 2])
                .batch(),
            rotary("part of the head")
                .int("num_heads", 2)
                .int("rotary_embedding_dim", 4)
                .input(&[2, 3, 12])
                .fed(place())
                .input(&[5, 2])
                .input(&[5, 2]),
        ]);
    }
}
