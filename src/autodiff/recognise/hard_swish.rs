//! HardSwish.
//!
//! `x * clip(x + 3, 0, 6) / 6`, or `x * HardSigmoid(x)` with `alpha = 1 / 6` and `beta = 1 / 2`.
//!
//! Becomes `HardSwish`, which has a rule with one mask in the place of a chain of them.

use super::gated::gated;
use super::view::{View, alike, near};
use super::{Found, Pattern};
use crate::graph::{Attributes, Node, OpId};

pub static PATTERN: Pattern = Pattern { name: "hard_swish", find };

fn find(view: &View<'_>, node: &Node) -> Option<Found> {
    let products = gated(view, node, |gate| gate.op.is("Clip") || gate.op.is("HardSigmoid"));
    let product = products.into_iter().find(|product| {
        let by_clip = view.made_by(product.gate, "Clip").is_some_and(|gate| {
            let inner = view.input(gate, 0).and_then(|inner| view.polynomial(inner, product.x));
            let bound =
                |index: usize, number: f64| view.input(gate, index).and_then(|id| view.number(id)) == Some(number);
            inner.is_some_and(|inner| alike(inner, [3.0, 1.0, 0.0, 0.0]))
                && bound(1, 0.0)
                && bound(2, 6.0)
                && near(product.factor, 1.0 / 6.0)
        });
        let by_sigmoid = view.made_by(product.gate, "HardSigmoid").is_some_and(|gate| {
            let slope = |name: &str, default: f32, number: f64| {
                gate.attributes.float(name, default).is_ok_and(|found| near(f64::from(found), number))
            };
            view.input(gate, 0) == Some(product.x)
                && slope("alpha", 0.2, 1.0 / 6.0)
                && slope("beta", 0.5, 0.5)
                && near(product.factor, 1.0)
        });
        by_clip || by_sigmoid
    })?;
    Some(Found::unary(OpId::standard("HardSwish"), Attributes::none(), product.x))
}
