//! RotaryEmbedding of the default domain
//!
//! Turns each pair of values `(a, b)` of a head by the angle of its position:
//! `(a cos - b sin, a sin + b cos)`. A pair is the values i and i + R of the first 2R, or 2i and
//! 2i + 1 where `interleaved`; what lies behind is kept.
//! Shapes:   X `[B, N, S, H]` or `[B, S, N * H]`; cos and sin `[P, R]` with positions `[B, S]`, or
//!           `[B, S, R]`; H and R are fixed.
//! Opsets:   23 and 24.
//! <https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html>

use super::heads::{join_heads, rotate, split_heads};
use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::{Attributes, ValueId};

pub static DECOMPOSITION: Decomposition = Decomposition { domain: "", op: "RotaryEmbedding", opsets: 23..=24, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let (x, tables) = (parts.x(0)?, [parts.x(1)?, parts.x(2)?]);
    let flat = parts.rank(x)? == 3;
    let x = match flat {
        true => split_heads(parts, x, parts.attributes().int("num_heads", 0)?)?,
        false => x,
    };
    let place = parts.input(3);
    let angles = tables.map(|table| {
        let table = match place {
            Some(place) => parts.b.op("Gather", &[table, place], Attributes::none().with("axis", 0_i64)),
            None => table,
        };
        parts.b.unsqueeze(table, &[1])
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
        let rotary =
            |name| Case::new(name, "RotaryEmbedding").opset(23).linear().not_embedded("tract has no RotaryEmbedding");
        let place = || Tensor::from_vec::<i64>(&[2, 3], vec![0, 1, 2, 4, 1, 1]);
        check(&[
            rotary("halves").input(&[2, 2, 3, 4]).input(&[5, 2]).input(&[5, 2]).fed(place()),
            rotary("interleaved")
                .int("interleaved", 1)
                .input(&[2, 2, 3, 4])
                .input(&[5, 2])
                .input(&[5, 2])
                .fed(place())
                .batches(&[0, 3]),
            rotary("no positions, part of the head")
                .int("rotary_embedding_dim", 4)
                .input(&[2, 2, 3, 6])
                .input(&[2, 3, 2])
                .input(&[2, 3, 2]),
            rotary("heads beside each other, interleaved part")
                .int("num_heads", 2)
                .int("interleaved", 1)
                .int("rotary_embedding_dim", 4)
                .input(&[2, 3, 12])
                .input(&[5, 2])
                .input(&[5, 2])
                .fed(place()),
            rotary("opset 24, symbolic batch")
                .opset(24)
                .int("num_heads", 2)
                .input(&[2, 3, 8])
                .input(&[5, 2])
                .input(&[5, 2])
                .fed(place())
                .batches(&[0, 3]),
        ]);
    }
}
