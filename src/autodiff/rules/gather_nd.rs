//! GatherND
//!
//! Forward:  `y[b, q, ..] = x[b, indices[b, q], ..]` with `batch_dims` leading axes b.
//! Backward: `dx[b, indices[b, q], ..] += dy[b, q, ..]`, by ScatterElements on a view of x in which
//!           the indexed axes are one. (ScatterND with reduction add loses updates on CPU.)
//! Shapes:   x `[B.., D1, .., Dk, E..]`, indices `[B.., Q.., k]` with k fixed, repeated and negative
//!           indices too; dimensions may be symbols.
//! Opsets:   11 to 24.
//! <https://onnx.ai/onnx/operators/onnx__GatherND.html>

use super::shared::{Part, reshape_to, sizes_of, zeros_like};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, Dim, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "GatherND",
    opsets: 11..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x, indices) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?);
    let batch = ctx.attributes().int("batch_dims", 0)?;
    let batch =
        usize::try_from(batch).map_err(|_| RuleError::Unsupported(format!("batch_dims {batch} is negative")))?;
    let Flat { parts, axis, .. } = Flat::parts(ctx, x, indices, batch)?;
    let (places, updates) = flat(ctx, x, indices, dy, batch)?;
    let zeros = zeros_like(ctx, x);
    let zeros = reshape_to(ctx, zeros, &parts)?;
    let attributes = Attributes::none().with("axis", axis).with("reduction", "add");
    let dx = ctx.b.op("ScatterElements", &[zeros, places, updates], attributes);
    Ok(ctx.b.reshape_like(dx, x))
}

/// The view of a value in which the axes that are indexed are one axis.
pub struct Flat {
    /// Its shape; also that of the values gathered, all places in one axis.
    pub parts: Vec<Part>,
    /// The axis of the places.
    pub axis: i64,
    depth: usize,
}

impl Flat {
    /// Returns the view for indices of known depth.
    ///
    /// # Errors
    /// The rank of the value or the depth is unknown, or they do not fit.
    pub fn parts(ctx: &Ctx<'_>, x: ValueId, indices: ValueId, batch: usize) -> Result<Flat, RuleError> {
        let rank = ctx.rank(x)?;
        let dims = ctx.dims(indices)?;
        let depth = dims.last().and_then(Dim::known).ok_or_else(|| RuleError::NoShape {
            value: ctx.name(indices),
            dims: "the last".into(),
            found: ctx.b.fact(indices).to_string(),
        })?;
        if depth == 0 || batch.saturating_add(depth) > rank {
            return Err(RuleError::Unsupported(format!(
                "{depth} indices after {batch} axes of a value of rank {rank}"
            )));
        }
        let mut parts: Vec<Part> = (0..batch).map(|axis| Part::Axis(x, axis)).collect();
        parts.push(Part::Fixed(-1));
        parts.extend((batch + depth..rank).map(|axis| Part::Axis(x, axis)));
        Ok(Flat { parts, axis: batch as i64, depth })
    }
}

/// Returns the places of indices in the view of x ([`Flat`]), expanded to the values that belong
/// there, and these values in the same view.
///
/// # Errors
/// Those of [`Flat::parts`].
pub fn flat(
    ctx: &mut Ctx<'_>,
    x: ValueId,
    indices: ValueId,
    values: ValueId,
    batch: usize,
) -> Result<(ValueId, ValueId), RuleError> {
    let Flat { parts, depth, .. } = Flat::parts(ctx, x, indices, batch)?;
    let sizes: Option<Vec<i64>> =
        ctx.dims(x)?[batch..batch + depth].iter().map(|dim| dim.known().map(|size| size as i64)).collect();
    let limits = match &sizes {
        Some(sizes) => ctx.b.ints("sizes", sizes),
        None => sizes_of(ctx, x, batch, batch + depth),
    };
    let wrapped = ctx.b.op("Mod", &[indices, limits], Attributes::none());
    let wrapped = if depth == 1 {
        wrapped
    } else {
        let strides = match sizes {
            Some(sizes) => {
                let strides: Vec<i64> = (1..=depth).map(|from| sizes[from..].iter().product()).collect();
                ctx.b.ints("strides", &strides)
            }
            None => strides(ctx, x, batch, depth),
        };
        let steps = ctx.b.mul(wrapped, strides);
        ctx.b.reduce("ReduceSum", steps, &[-1], true)
    };
    let values = reshape_to(ctx, values, &parts)?;
    let ones = parts.iter().enumerate().map(|(axis, part)| if axis > batch { Part::Fixed(1) } else { *part });
    let places = reshape_to(ctx, wrapped, &ones.collect::<Vec<_>>())?;
    Ok((ctx.b.expand_like(places, values), values))
}

/// Returns data in its view for indices without batch axes, the places of the indices in it, the
/// values that belong there, and the axis of the places.
///
/// # Errors
/// Those of [`Flat::parts`].
pub fn flattened(
    ctx: &mut Ctx<'_>,
    data: ValueId,
    indices: ValueId,
    values: ValueId,
) -> Result<(ValueId, ValueId, ValueId, i64), RuleError> {
    let Flat { parts, axis, .. } = Flat::parts(ctx, data, indices, 0)?;
    let (places, values) = flat(ctx, data, indices, values, 0)?;
    Ok((reshape_to(ctx, data, &parts)?, places, values, axis))
}

/// The strides of axes whose sizes are read while the model runs.
fn strides(ctx: &mut Ctx<'_>, x: ValueId, batch: usize, depth: usize) -> ValueId {
    let mut strides = Vec::with_capacity(depth);
    for from in 1..depth {
        let sizes = sizes_of(ctx, x, batch + from, batch + depth);
        strides.push(ctx.b.reduce("ReduceProd", sizes, &[0], true));
    }
    strides.push(ctx.b.ints("stride", &[1]));
    ctx.b.op("Concat", &strides, Attributes::none().with("axis", 0))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let gather = |name| Case::new(name, "GatherND").linear().input(&[2, 3, 4]);
        let negative = |name| gather(name).not_embedded("tract stops at negative indices");
        let places = |shape: &[usize], values: &[i64]| Tensor::from_vec(shape, values.to_vec());
        let symbols = [(0, 0, "a"), (0, 1, "b"), (0, 2, "c")];
        let pairs = || places(&[2, 2, 2], &[0, 1, 1, 0, 0, 1, 1, 2]);
        let batches = places(&[2, 3, 2, 1], &[0, 1, 2, 2, 1, 0, 3, 3, 2, 1, 0, 0]);
        check(&[
            negative("elements, repeated").fixed(places(&[3, 3], &[0, 1, 2, 1, -1, -4, 0, 1, 2])),
            negative("rows, negative").fixed(places(&[2, 2, 2], &[0, 1, -1, -3, 0, 1, 1, 2])),
            negative("symbols, negative").fed(places(&[2, 3], &[0, 1, 2, 1, -1, -4])).symbols(&symbols),
            gather("one element").fixed(places(&[3], &[1, 2, 3])),
            gather("rows, repeated").fixed(pairs()),
            gather("slices, repeated").fixed(places(&[3, 1], &[1, 1, 0])),
            gather("one batch axis").int("batch_dims", 1).fixed(places(&[2, 1], &[1, 2])),
            gather("one batch axis, elements").int("batch_dims", 1).fixed(pairs()),
            gather("two batch axes").int("batch_dims", 2).fixed(batches),
            gather("symbolic batch").int("batch_dims", 1).fixed(pairs()).batch(),
            gather("symbols").fed(pairs()).symbols(&symbols),
            gather("symbolic batch and length").int("batch_dims", 1).fed(pairs()).symbols(&[
                (0, 0, "a"),
                (0, 1, "b"),
                (0, 2, "c"),
                (1, 0, "a"),
                (1, 1, "d"),
            ]),
        ]);
    }
}
