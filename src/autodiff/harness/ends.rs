//! Tests rules at the first and last opset of their ranges, as far as models of them can be read.
//!
//! ONNX Runtime decides whether a case's node exists at such an opset. Where it does, the upgraded
//! model must compute what the model computes, and its gradients are tested if the upgraded model
//! differs from the case's own. An end that no case reaches is a failure: it takes a case with
//! `.opset(..)` in the form the operator has there, here or in another test of the same file.

use super::{Case, check_case, feeds, forward_model, run, upgraded};
use crate::autodiff::RULES;
use crate::graph::{OpId, READABLE_OPSETS, Tensor, dump};
use crate::runner::Engine;
use std::collections::BTreeSet;

/// What ONNX Runtime says of an operator that exists and that it cannot run.
const NO_KERNEL: &str = "Could not find an implementation";

/// Returns what is wrong at the ends of the ranges of the rules of cases that stand in a source file.
pub(super) fn failures(cases: &[Case], file: &str, engine: &mut dyn Engine) -> Vec<String> {
    let ops: BTreeSet<&str> =
        cases.iter().filter(|case| case.op.domain.is_empty()).map(|case| case.op.name.as_str()).collect();
    let mut failures = Vec::new();
    for op in ops {
        for end in ends(&OpId::standard(op)) {
            let mut reached = false;
            for case in cases.iter().filter(|case| case.runtime && case.op.is(op)) {
                match test(case, end, engine) {
                    Ok(held) => reached |= held,
                    Err(reason) => failures.push(format!("{op} {} at opset {end}: {reason}", case.name)),
                }
            }
            let compared = cases.iter().any(|case| case.op.is(op) && case.expected.is_empty());
            if compared && !reached && !names(file, end) {
                failures.push(format!("{op} has no case that holds at opset {end}, an end of its rule's range"));
            }
        }
    }
    failures
}

/// Returns true where a test of the file has a case for the opset.
fn names(file: &str, opset: i64) -> bool {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(path).is_ok_and(|text| text.contains(&format!(".opset({opset})")))
}

/// Returns the ends of the opset ranges of an operator's rules, as far as models can be read.
pub(super) fn ends(op: &OpId) -> BTreeSet<i64> {
    let rules = RULES.iter().filter(|rule| op.domain.is_empty() && op.is(rule.op) && rule.domain.is_empty());
    let (first, last) = READABLE_OPSETS;
    rules.flat_map(|rule| [*rule.opsets.start(), *rule.opsets.end()]).map(|end| end.clamp(first, last)).collect()
}

/// Tests a case at another opset; returns whether the node exists there and can be upgraded.
fn test(case: &Case, opset: i64, engine: &mut dyn Engine) -> Result<bool, String> {
    let moved = Case { opset, ..case.clone() };
    let feeds = feeds(&moved);
    let expected = match run(engine, &forward_model(&moved, None), &feeds) {
        Ok(outputs) => Some(outputs),
        Err(reason) if reason.contains(NO_KERNEL) => None,
        Err(reason) if opset == case.opset => return Err(reason),
        Err(_) => return Ok(false),
    };
    let model = match upgraded(&moved, None) {
        Ok(model) => model,
        Err(_) if opset != case.opset => return Ok(false),
        Err(reason) => return Err(reason),
    };
    if let Some(expected) = expected {
        same(&expected, &run(engine, &model, &feeds)?)?;
    }
    let own = upgraded(case, None)?;
    if opset != case.opset && (model.opset() != own.opset() || dump(&model.graph) != dump(&own.graph)) {
        check_case(&moved, engine)?;
    }
    Ok(true)
}

fn same(expected: &[Tensor], found: &[Tensor]) -> Result<(), String> {
    for (index, (a, b)) in expected.iter().zip(found).enumerate() {
        let (x, y) = (a.to_f64s().unwrap_or_default(), b.to_f64s().unwrap_or_default());
        let near = |x: f64, y: f64| x.is_finite() && (x - y).abs() <= 1e-6 * (1.0 + x.abs());
        let close = |(x, y): (&f64, &f64)| x == y || near(*x, *y) || x.is_nan() && y.is_nan();
        if a.shape() != b.shape() || !x.iter().zip(&y).all(close) {
            return Err(format!("output {index} is {x:?}, of the upgraded model {y:?}"));
        }
    }
    Ok(())
}
