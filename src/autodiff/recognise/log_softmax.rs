//! LogSoftmax.
//!
//! `log(softmax(x))`: the logarithm of a rounded 0 is not finite, and its gradient is not a number.
//!
//! Becomes `LogSoftmax`.

use super::view::View;
use super::{Found, Pattern};
use crate::graph::{Attributes, Node, OpId};

pub static PATTERN: Pattern = Pattern { name: "log_softmax", find };

fn find(view: &View<'_>, node: &Node) -> Option<Found> {
    let softmax = if node.op.is("Log") { view.made_by(node.input(0)?, "Softmax")? } else { return None };
    let attributes = Attributes::none().with("axis", softmax.attributes.int("axis", -1).ok()?);
    Some(Found::unary(OpId::standard("LogSoftmax"), attributes, view.input(softmax, 0)?))
}
