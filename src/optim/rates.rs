//! Learning rates of single parameters
//!
//! `rate = lr lr_scale[i] scale`, where `i` is [`Parameter::element`], `lr_scale` an input that is
//! fed with each step, and `scale` [`Parameter::lr_scale`], a constant. Everything in an update that
//! reads the rate reads this one, as under an optimizer group with a learning rate of its own:
//! decoupled weight decay too. At rate 0 a parameter keeps its value where its gradient is finite
//! (a zero may lose its sign); its slots move on, so velocities and averages follow the gradients
//! and counts go up.

use super::Parameter;
use crate::graph::{Attributes, Builder, DType, Fact, Origin, Tensor, ValueId};
use std::collections::HashMap;

/// Name of the input.
pub(super) const LR_SCALE: &str = "lr_scale";

/// Products of the learning rate and elements of `lr_scale`, by dtype and element.
pub(super) type Rates = HashMap<(DType, usize), ValueId>;

/// Returns the length that `lr_scale` needs for parameters; 0 where none reads it.
pub(super) fn length(parameters: &[Parameter]) -> usize {
    let elements = parameters.iter().filter_map(|parameter| parameter.element);
    elements.max().map_or(0, |largest| largest.saturating_add(1))
}

/// Appends the input `lr_scale`.
pub(super) fn input(b: &mut Builder, length: usize) -> ValueId {
    b.input(LR_SCALE, Fact::fixed(DType::F32, &[length]))
}

/// Appends what the parameters read of `lr lr_scale`, each element of a dtype once.
pub(super) fn build(b: &mut Builder, lr: ValueId, scales: ValueId, parameters: &[Parameter]) -> Rates {
    b.enter(Origin::Update(LR_SCALE.into()), LR_SCALE);
    let mut products: HashMap<DType, ValueId> = HashMap::new();
    let mut rates = Rates::new();
    for parameter in parameters {
        let (Some(dtype), Some(element)) = (parameter.fact.dtype, parameter.element) else { continue };
        if rates.contains_key(&(dtype, element)) {
            continue;
        }
        let product = *products.entry(dtype).or_insert_with(|| {
            let [lr, scales] = [lr, scales].map(|value| if dtype == DType::F32 { value } else { b.cast(value, dtype) });
            b.mul(scales, lr)
        });
        let index = b.constant("index", Tensor::scalar(element as i64));
        rates.insert((dtype, element), b.op("Gather", &[product, index], Attributes::none()));
    }
    rates
}
