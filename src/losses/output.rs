//! A scalar output of the model as its loss
//!
//! Formula:   the output, of one element.
//! Target:    none; what the model compares with are inputs of its own.
//! Reduction: the model's.

use super::{LossError, LossSpec};
use crate::graph::{Builder, Fact, ValueId};

/// Refuses an output of more than one element.
pub(super) fn check(spec: &LossSpec, output: &Fact) -> Result<(), LossError> {
    let one = output.shape.as_ref().is_some_and(|shape| shape.iter().all(|dim| dim.known() == Some(1)));
    if one {
        return Ok(());
    }
    Err(LossError::Prediction { kind: spec.kind, expected: "one element", found: output.to_string() })
}

/// Appends the loss: the output itself where it has rank 0.
pub(super) fn build(b: &mut Builder, output: ValueId) -> ValueId {
    if b.fact(output).rank() == Some(0) { output } else { b.reshape(output, &[]) }
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use super::*;
    use crate::losses::LossKind;
    use crate::losses::testing::{Case, check};

    #[test]
    fn values() {
        let spec = LossSpec::new(LossKind::Output);
        check(&[
            Case::several("rank 0", &spec, &[], None, |x, _| x[0][0]),
            Case::several("rank 1", &spec, &[1], None, |x, _| x[0][0]),
            Case::several("rank 3", &spec, &[1, 1, 1], None, |x, _| x[0][0]),
        ]);
    }

    #[test]
    fn more_than_one_element_is_refused() {
        let spec = LossSpec::new(LossKind::Output);
        let error = spec.target_fact(&[Fact::fixed(crate::graph::DType::F32, &[4])]).unwrap_err();
        assert_eq!(error.to_string(), "the loss output needs a prediction of one element, found float32[4]");
    }
}
