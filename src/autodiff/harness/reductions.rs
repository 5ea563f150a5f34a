//! The cases that every reduction has.

use super::Case;
use crate::graph::Tensor;

/// Returns cases of a reduction over all, some and one of three axes, with and without them kept, with
/// symbolic sizes, and with the axes as an attribute. `case` gives one with an input of rank 3.
pub fn reductions(case: &dyn Fn(&'static str) -> Case) -> Vec<Case> {
    let over = |name, axes: &[i64]| case(name).fixed(Tensor::ints(axes));
    let symbols = [(0, 0, "a"), (0, 1, "b"), (0, 2, "c")];
    vec![
        case("all"),
        case("all, dropped").int("keepdims", 0),
        over("symbols, dropped", &[1, -1]).int("keepdims", 0).symbols(&symbols),
        over("some", &[0, -1]),
        over("some, dropped", &[1]).int("keepdims", 0),
        over("symbolic batch", &[1]).int("keepdims", 0).batch(),
        over("over a symbolic batch", &[0]).int("keepdims", 0).batch(),
        case("axes as attribute").opset(7).ints("axes", &[-1]).int("keepdims", 0).batch(),
    ]
}
