//! Gelu, exact and by `tanh`.
//!
//! `x * (1 + erf(x / sqrt(2))) / 2`, or `x * (1 + tanh(c * (x + 0.044715 * x^3))) / 2` with
//! `c = sqrt(2 / pi)`.
//!
//! Exporters write the factors in every order: `x * (0.5 * (1 + erf))`, `(0.5 * x) * (1 + erf)`,
//! `0.5 * (x * (1 + erf))`, `x * (0.5 + 0.5 * tanh)`; the cube as `Pow` or as products; the inner
//! polynomial with its factors taken out.
//! Becomes `Gelu` from opset 20 on, before that the internal `Gelu`.

use super::gated::gated;
use super::view::{View, alike, near};
use super::{Found, Pattern};
use crate::autodiff::gelu_op;
use crate::graph::{Attributes, Node, OpId, ValueId};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

pub static PATTERN: Pattern = Pattern { name: "gelu", find };

const CUBE: f64 = 0.044_715;

fn find(view: &View<'_>, node: &Node) -> Option<Found> {
    let products = gated(view, node, |gate| gate.op.is("Add"));
    let (x, approximate) = products.into_iter().find_map(|product| {
        let node = view.made_by(product.gate, "Add")?;
        let curve = view.pair(node)?.into_iter().find_map(|part| curve(view, part))?;
        let [constant, slope, ..] = view.polynomial(product.gate, curve)?;
        if !near(slope, constant) || !near(product.factor * constant, 0.5) {
            return None;
        }
        Some((product.x, kind(view, curve, product.x)?))
    })?;
    let attributes = match approximate {
        true => Attributes::none().with("approximate", "tanh"),
        false => Attributes::none(),
    };
    let op = if view.opset >= 20 { OpId::standard("Gelu") } else { gelu_op() };
    Some(Found::unary(op, attributes, x))
}

/// Returns the result of `Erf` or `Tanh` that a term has, with or without a factor.
fn curve(view: &View<'_>, term: ValueId) -> Option<ValueId> {
    let is_curve = |value: &ValueId| view.made_by(*value, "Erf").or(view.made_by(*value, "Tanh")).is_some();
    if is_curve(&term) {
        return Some(term);
    }
    view.pair(view.made_by(term, "Mul")?)?.into_iter().find(is_curve)
}

/// Returns true for the form by `tanh`, false for the exact one.
fn kind(view: &View<'_>, curve: ValueId, x: ValueId) -> Option<bool> {
    let c = FRAC_1_SQRT_2 * FRAC_2_SQRT_PI;
    let inner = |op: &str| view.polynomial(view.input(view.made_by(curve, op)?, 0)?, x);
    match (inner("Erf"), inner("Tanh")) {
        (Some(inner), _) => alike(inner, [0.0, FRAC_1_SQRT_2, 0.0, 0.0]).then_some(false),
        (_, Some(inner)) => alike(inner, [0.0, c, 0.0, c * CUBE]).then_some(true),
        _ => None,
    }
}
