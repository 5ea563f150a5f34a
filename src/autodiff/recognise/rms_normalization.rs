//! Normalization by the root mean square.
//!
//! `x / sqrt(mean(x^2) + epsilon) * scale` over trailing axes.
//!
//! T5, Llama and their relatives write it so: the square as `Pow` or `Mul`, the quotient as `Div` or
//! as a product with `Reciprocal`, `Div(1, ..)` or a power of -1/2, casts to float32 around it, which
//! do nothing in a float32 model. The scale must have exactly the normalized shape; without it, or
//! where it has another one, the normalization alone is recognised.
//! Becomes the internal `RMSNormalization`.

use super::view::View;
use super::{Found, Pattern, Source};
use crate::autodiff::rms_norm_op;
use crate::graph::{Attributes, Dim, Fact, Node, ValueId};

pub static PATTERN: Pattern = Pattern { name: "rms_normalization", find };

fn find(view: &View<'_>, node: &Node) -> Option<Found> {
    if let Some((x, first, epsilon)) = core(view, node) {
        return Some(found(view, x, first, epsilon, None));
    }
    let orders = if node.op.is("Mul") { view.orders(node)? } else { return None };
    orders.into_iter().find_map(|[normalized, scale]| {
        let (x, first, epsilon) = core(view, view.graph.node(view.graph.producer(normalized)?))?;
        let same = view.graph.fact(x).dtype == view.graph.fact(scale).dtype;
        let fits = same && view.has_dims(scale, view.dims(x)?.get(first..)?);
        fits.then(|| found(view, x, first, epsilon, Some(scale)))
    })
}

fn found(view: &View<'_>, x: ValueId, first: usize, epsilon: f64, scale: Option<ValueId>) -> Found {
    let axis = i64::try_from(first).unwrap_or(i64::MAX);
    let attributes = Attributes::none().with("axis", axis).with("epsilon", epsilon as f32);
    let inputs = [Some(x), scale].into_iter().flatten().map(Source::Value).collect();
    let mut fact = view.graph.fact(x).clone();
    fact.shape.iter_mut().flatten().skip(first).for_each(|dim| *dim = Dim::Known(1));
    let more: Vec<(&'static str, Fact)> = vec![("inv_std", fact)];
    Found { more, ..Found::new(rms_norm_op(), attributes, inputs) }
}

fn core(view: &View<'_>, node: &Node) -> Option<(ValueId, usize, f64)> {
    let (x, mean, epsilon) = view.over_root(node)?;
    let (square, first) = view.trailing(view.made_by(mean, "ReduceMean")?)?;
    (view.square(square)? == x && view.graph.fact(x).is_float()).then_some((x, first, epsilon))
}
