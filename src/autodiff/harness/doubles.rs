//! Tests rules on float64 inputs, where ONNX Runtime has the operator for them.

use super::{Case, Input, differentiate, double, feeds, forward_model, run};
use crate::graph::DType;
use crate::runner::Engine;

/// Largest difference between the gradients in float32 and in float64, relative to 1 plus their size.
const TOLERANCE: f64 = 1e-4;

/// Returns what is wrong with the gradients in float64.
pub(super) fn failures(cases: &[Case], engine: &mut dyn Engine) -> Vec<String> {
    let mut failures = Vec::new();
    for case in cases.iter().filter(|case| case.runtime && case.doubles && case.expected.is_empty()) {
        if let Err(reason) = test(case, engine) {
            failures.push(format!("{} {} in float64: {reason}", case.op, case.name));
        }
    }
    failures
}

fn test(case: &Case, engine: &mut dyn Engine) -> Result<(), String> {
    let inputs = case.inputs.iter().map(|input| match input {
        Input::Missing => Input::Missing,
        Input::Float(tensor) => Input::Float(double(tensor)),
        Input::Fixed(tensor) => Input::Fixed(double(tensor)),
        Input::Fed(tensor) => Input::Fed(double(tensor)),
    });
    let exact = Case { inputs: inputs.collect(), ..case.clone() };
    if run(engine, &forward_model(&exact, None), &feeds(&exact)).is_err() {
        return Ok(());
    }
    let (single, exact) = (differentiate(case, engine)?, differentiate(&exact, engine)?);
    for ((index, a), (_, b)) in single.grads.iter().zip(&exact.grads) {
        let (x, y) = (a.to_f64s().unwrap_or_default(), b.to_f64s().unwrap_or_default());
        let close = |(x, y): (&f64, &f64)| y.is_finite() && (x - y).abs() <= TOLERANCE * (1.0 + y.abs());
        if b.dtype() != DType::F64 || a.shape() != b.shape() || !x.iter().zip(&y).all(close) {
            return Err(format!("gradient {index} is {y:?} ({}), in float32 {x:?}", b.dtype()));
        }
    }
    Ok(())
}
