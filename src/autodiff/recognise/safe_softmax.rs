//! Softmax that gives zeros for a row without any finite number.
//!
//! `where(isnan(softmax(x)), 0, softmax(x))`, as PyTorch writes attention whose mask may hide a whole
//! row.
//!
//! Becomes the internal `SafeSoftmax`: its gradient passes no `Where`, and is 0 in such a row.

use super::view::View;
use super::{Found, Pattern};
use crate::autodiff::safe_softmax_op;
use crate::graph::{Attributes, Node};

pub static PATTERN: Pattern = Pattern { name: "safe_softmax", find };

fn find(view: &View<'_>, node: &Node) -> Option<Found> {
    let (condition, zero, value) = (node.input(0)?, node.input(1)?, view.input(node, 2)?);
    if !node.op.is("Where") || view.number(zero) != Some(0.0) {
        return None;
    }
    let softmax = view.made_by(value, "Softmax")?;
    let asked = view.input(view.made_by(condition, "IsNaN")?, 0)?;
    let same = asked == value && view.graph.fact(zero).rank().is_some_and(|rank| rank <= 1);
    let attributes = Attributes::none().with("axis", softmax.attributes.int("axis", -1).ok()?);
    same.then_some(Found::unary(safe_softmax_op(), attributes, view.input(softmax, 0)?))
}
