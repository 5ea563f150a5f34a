//! MaxRoiPool
//!
//! Forward:  `y[r, c]` = the maxima of x in the cells of region r.
//! Backward: not implemented; regions and their images have no gradient.
//! Opsets:   1 to 24.
//! <https://onnx.ai/onnx/operators/onnx__MaxRoiPool.html>

use crate::autodiff::{InputRule, Inputs, Rule};

pub static RULE: Rule = Rule {
    domain: "",
    op: "MaxRoiPool",
    opsets: 1..=24,
    inputs: Inputs::Fixed(&[
        InputRule::Missing("no standard operator tells which element of a region is the largest; RoiAlign has one"),
        InputRule::Constant,
    ]),
};
