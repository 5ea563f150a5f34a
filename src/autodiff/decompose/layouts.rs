//! Operators of another memory layout, which ONNX Runtime's optimizer writes at level `all`
//!
//! They have no decomposition: their weights lie in blocks whose size depends on the machine. Each is
//! here so that the error says what to do.

use super::{Decomposition, Parts};
use crate::autodiff::RuleError;
use crate::graph::ValueId;

const BLOCKED: &str = "com.microsoft.nchwc";

pub static CONV: Decomposition = refused(BLOCKED, "Conv");
pub static MAX_POOL: Decomposition = refused(BLOCKED, "MaxPool");
pub static GLOBAL_MAX_POOL: Decomposition = refused(BLOCKED, "GlobalMaxPool");
pub static AVERAGE_POOL: Decomposition = refused(BLOCKED, "AveragePool");
pub static GLOBAL_AVERAGE_POOL: Decomposition = refused(BLOCKED, "GlobalAveragePool");
pub static REORDER_INPUT: Decomposition = refused(BLOCKED, "ReorderInput");
pub static REORDER_OUTPUT: Decomposition = refused(BLOCKED, "ReorderOutput");
pub static UPSAMPLE: Decomposition = refused(BLOCKED, "Upsample");
pub static NHWC_CONV: Decomposition = refused("com.microsoft", "NhwcConv");
pub static NHWC_FUSED_CONV: Decomposition = refused("com.microsoft", "NhwcFusedConv");
pub static NHWC_MAX_POOL: Decomposition = refused("com.microsoft", "NhwcMaxPool");

const fn refused(domain: &'static str, op: &'static str) -> Decomposition {
    Decomposition { domain, op, opsets: 1..=1, build }
}

fn build(_: &mut Parts<'_>) -> Result<Vec<ValueId>, RuleError> {
    let text = "the model was optimized for the memory layout of one machine: optimize it at level extended at most";
    Err(RuleError::Unsupported(text.into()))
}
