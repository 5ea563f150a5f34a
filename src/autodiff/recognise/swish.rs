//! Swish, also SiLU and the quick form of Gelu.
//!
//! `x * sigmoid(alpha * x)`, with `alpha` 1 in SiLU and 1.702 in the quick Gelu.
//!
//! Becomes the internal `Swish`, whose rule reads the sigmoid and the result that are there anyway.

use super::gated::gated;
use super::view::{View, near};
use super::{Found, Pattern};
use crate::autodiff::swish_op;
use crate::graph::{Attributes, Node};

pub static PATTERN: Pattern = Pattern { name: "swish", find };

fn find(view: &View<'_>, node: &Node) -> Option<Found> {
    let products = gated(view, node, |gate| gate.op.is("Sigmoid"));
    let (x, alpha) = products.into_iter().find_map(|product| {
        let inner = view.input(view.made_by(product.gate, "Sigmoid")?, 0)?;
        match view.polynomial(inner, product.x)? {
            [0.0, alpha, 0.0, 0.0] if alpha != 0.0 && near(product.factor, 1.0) => Some((product.x, alpha)),
            _ => None,
        }
    })?;
    let mut found = Found::unary(swish_op(), Attributes::none().with("alpha", alpha as f32), x);
    found.more.push(("gate", view.graph.fact(x).clone()));
    Some(found)
}
