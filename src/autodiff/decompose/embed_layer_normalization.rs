//! EmbedLayerNormalization of `com.microsoft`
//!
//! `sum = word[ids] + position[place] + segment[segments]`, `y = LayerNormalization(sum, gamma, beta)`.
//! The place is its index in the row where no positions are given; segments are optional. Further outputs:
//! the number of ones in each row of the mask (zeros where there is none), and sum.
//! Shapes:   ids, segments and mask `[B, S]`, positions `[B, S]` or `[1, S]`, tables `[.., D]`, gamma
//!           and beta `[D]`.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.EmbedLayerNormalization>

use super::shared::{length, positions};
use super::skip_layer_normalization::layer_normalization;
use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::{Attributes, DType, Dim, Fact, ValueId};

pub static DECOMPOSITION: Decomposition =
    Decomposition { domain: "com.microsoft", op: "EmbedLayerNormalization", opsets: 1..=1, build };

fn build(parts: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let (ids, gamma, beta) = (parts.x(0)?, parts.x(5)?, parts.input(6));
    let (word, position) = (parts.x(2)?, parts.x(3)?);
    let places = match parts.input(8) {
        Some(places) => places,
        None => positions(parts, ids, 1)?,
    };
    let rows = pick(parts, word, ids);
    let fact = parts.b.fact(rows).clone();
    let at = pick(parts, position, places);
    // What is not known of the positions is as in ids, but for a batch of one.
    let mut shape = parts.dims(at)?;
    let along = fact.shape.iter().flatten().rev();
    for (own, dim) in shape.iter_mut().rev().zip(along).take(2) {
        if *own == Dim::Unknown {
            *own = dim.clone();
        }
    }
    parts.b.refine(at, &Fact { dtype: None, shape: Some(shape) });
    let mut sum = parts.b.add(rows, at);
    parts.b.refine(sum, &fact);
    if let (Some(segments), Some(segment)) = (parts.input(1), parts.input(4)) {
        let of = pick(parts, segment, segments);
        parts.b.refine(of, &fact);
        sum = parts.b.add(sum, of);
        parts.b.refine(sum, &fact);
    }
    let epsilon = parts.attributes().float("epsilon", 1e-12)?;
    let y = layer_normalization(parts, sum, gamma, beta, epsilon)[0];
    if !parts.has_output(1) {
        return Ok(vec![y, sum, sum]);
    }
    let counts = match parts.input(7) {
        Some(mask) => {
            let ones = parts.b.compare("Equal", mask, 1.0);
            let ones = parts.b.cast(ones, DType::I32);
            parts.b.reduce("ReduceSum", ones, &[1], false)
        }
        None => {
            let (zero, shape) = (parts.b.scalar(DType::I32, 0.0), length(parts, ids, 0)?);
            parts.b.op("Expand", &[zero, shape], Attributes::none())
        }
    };
    let batch = parts.dims(ids)?.first().cloned().unwrap_or(Dim::Unknown);
    parts.b.refine(counts, &Fact::new(DType::I32, vec![batch]));
    Ok(vec![y, counts, sum])
}

fn pick(parts: &mut Parts<'_>, table: ValueId, places: ValueId) -> ValueId {
    parts.b.op("Gather", &[table, places], Attributes::none().with("axis", 0_i64))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let matrix = |rows: usize, values: &[i32]| Tensor::from_vec(&[rows, 3], values.to_vec());
        let embed = |name, segments: bool| {
            let case = Case::new(name, "EmbedLayerNormalization")
                .domain("com.microsoft")
                .not_embedded("tract has no EmbedLayerNormalization")
                .float("epsilon", 0.01)
                .fed(matrix(2, &[0, 3, 3, 1, 0, 4]));
            let case = if segments { case.fed(matrix(2, &[0, 1, 1, 0, 0, 1])) } else { case.missing() };
            let case = case.input(&[5, 4]).input(&[6, 4]);
            let case = if segments { case.input(&[2, 4]) } else { case.missing() };
            case.range(&[4], 0.5, 1.5).input(&[4])
        };
        let mask = || matrix(2, &[1, 1, 0, 1, 1, 1]);
        check(&[
            embed("segments, mask", true).fed(mask()).outputs(2),
            embed("no segments, no mask", false).outputs(2),
            embed("positions", true).missing().fed(matrix(2, &[5, 1, 0, 2, 2, 2])).outputs(2),
            embed("positions for all rows, sum", false).missing().fed(matrix(1, &[5, 1, 0])).outputs(3),
        ]);
    }
}
