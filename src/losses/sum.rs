//! A weighted sum of losses
//!
//! Formula:   `sum_i(weight_i loss_i)`.
//! Target:    those of the terms.
//! Reduction: those of the terms.

use crate::graph::{Attributes, Builder, DType, ValueId};

/// Appends the weighted sum of scalars, in float64 where one of them is.
///
/// # Panics
/// When there is no scalar.
pub fn total(b: &mut Builder, terms: &[(ValueId, f64)]) -> ValueId {
    let wide = terms.iter().any(|(loss, _)| b.dtype(*loss) == DType::F64);
    let mut parts = Vec::with_capacity(terms.len());
    for (loss, weight) in terms {
        let loss = if wide && b.dtype(*loss) != DType::F64 { b.cast(*loss, DType::F64) } else { *loss };
        parts.push(if *weight == 1.0 { loss } else { b.scale(loss, *weight) });
    }
    match parts[..] {
        [single] => single,
        _ => b.op("Sum", &parts, Attributes::none()),
    }
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use super::*;
    use crate::graph::{Fact, Model, Origin, Tensor};
    use crate::runner::{evaluate, testing};

    #[test]
    fn weights_and_dtypes() {
        for (dtypes, weights, expected) in [
            (vec![DType::F32], vec![1.0], 3.0),
            (vec![DType::F32], vec![0.5], 1.5),
            (vec![DType::F32, DType::F32], vec![1.0, 2.0], 11.0),
            (vec![DType::F32, DType::F64, DType::F32], vec![1.0, 0.0, 0.5], 5.5),
        ] {
            let mut b = Builder::new("sum");
            b.enter(Origin::Loss, "loss");
            let mut terms = Vec::new();
            let mut feeds = Vec::new();
            for (at, (dtype, weight)) in dtypes.iter().zip(&weights).enumerate() {
                let name = format!("x{at}");
                terms.push((b.input(&name, Fact::fixed(*dtype, &[])), *weight));
                feeds.push((name, Tensor::float_full(*dtype, &[], 3.0 + at as f64)));
            }
            let total = total(&mut b, &terms);
            b.output(total, "loss");
            let wide = dtypes.contains(&DType::F64);
            assert_eq!(b.dtype(total) == DType::F64, wide);
            let opsets = std::collections::BTreeMap::from([(String::new(), 18)]);
            let model = Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() };
            let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, value)| (name.as_str(), value)).collect();
            for mut engine in testing::engines() {
                let found = evaluate(engine.as_mut(), &model, &feeds).unwrap();
                assert_eq!(found[0].to_f64s().unwrap(), [expected]);
            }
        }
    }
}
