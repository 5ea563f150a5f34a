//! LayerNormalization.
//!
//! `(x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * scale + bias` over trailing axes.
//!
//! Exporters write it so below opset 17: the square as `Pow` or `Mul`, the quotient as `Div` or as a
//! product with `Reciprocal`, `Div(1, ..)` or a power of -1/2, the difference once or twice. Scale
//! and bias must have exactly the normalized shape; without them, or where they have another one,
//! the normalization alone is recognised, with a scale of ones. Only float32: the operator computes
//! its statistics in it.
//! Becomes `LayerNormalization`.

use super::view::View;
use super::{Found, Pattern, Source};
use crate::graph::{Attributes, DType, Node, OpId, Tensor, ValueId};

pub static PATTERN: Pattern = Pattern { name: "layer_normalization", find };

/// The normalized value, the first normalized axis, epsilon.
struct Core {
    x: ValueId,
    first: usize,
    epsilon: f64,
}

fn find(view: &View<'_>, node: &Node) -> Option<Found> {
    if let Some(core) = core(view, node) {
        let sizes = view.dims(core.x)?.get(core.first..)?.iter().map(|dim| dim.known());
        let ones = Tensor::float_full(DType::F32, &sizes.collect::<Option<Vec<_>>>()?, 1.0);
        return Some(found(&core, [Some(Source::Constant(ones)), None]));
    }
    if let Some((core, scale)) = scaled(view, node) {
        return Some(found(&core, [Some(Source::Value(scale)), None]));
    }
    let orders = if node.op.is("Add") { view.orders(node)? } else { return None };
    orders.into_iter().find_map(|[product, bias]| {
        let (core, scale) = scaled(view, view.made_by(product, "Mul")?)?;
        view.has_dims(bias, view.dims(core.x)?.get(core.first..)?).then_some(())?;
        Some(found(&core, [Some(Source::Value(scale)), Some(Source::Value(bias))]))
    })
}

fn found(core: &Core, affine: [Option<Source>; 2]) -> Found {
    let axis = i64::try_from(core.first).unwrap_or(i64::MAX);
    let attributes = Attributes::none().with("axis", axis).with("epsilon", core.epsilon as f32);
    let inputs = [Some(Source::Value(core.x))].into_iter().chain(affine).flatten().collect();
    Found::new(OpId::standard("LayerNormalization"), attributes, inputs)
}

/// `normalized * scale`
fn scaled(view: &View<'_>, node: &Node) -> Option<(Core, ValueId)> {
    let orders = if node.op.is("Mul") { view.orders(node)? } else { return None };
    orders.into_iter().find_map(|[normalized, scale]| {
        let core = core(view, view.graph.node(view.graph.producer(normalized)?))?;
        let dims = view.dims(core.x)?.get(core.first..)?;
        (view.has_dims(scale, dims) && view.graph.fact(scale).dtype == Some(DType::F32)).then_some((core, scale))
    })
}

fn core(view: &View<'_>, node: &Node) -> Option<Core> {
    let (numerator, var, epsilon) = view.over_root(node)?;
    let (x, first) = centered(view, numerator)?;
    let (square, second) = view.trailing(view.made_by(var, "ReduceMean")?)?;
    let same = first == second && centered(view, view.square(square)?)? == (x, first);
    (same && view.graph.fact(x).dtype == Some(DType::F32)).then_some(Core { x, first, epsilon })
}

/// `x - mean(x)`: x and the first axis of the mean.
fn centered(view: &View<'_>, value: ValueId) -> Option<(ValueId, usize)> {
    let [x, mean] = view.pair(view.made_by(value, "Sub")?)?;
    let (of, first) = view.trailing(view.made_by(mean, "ReduceMean")?)?;
    (of == x).then_some((x, first))
}
