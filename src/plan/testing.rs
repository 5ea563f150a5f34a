//! Made-up models for tests: chains of units.

use super::{Inputs, ModelInfo, StepCosts};
use crate::cost::{Flops, StepCost, UnitCost};
use crate::modules::Unit;
use std::collections::HashSet;

/// A chain of units: each needs the gradient of the next one, and nothing else.
pub(crate) struct Chain {
    pub(crate) model: ModelInfo,
    pub(crate) units: Vec<Unit>,
    pub(crate) costs: Vec<UnitCost>,
    /// What is named as keeping the backward pass alive while anything is frozen.
    pub(crate) alive: Option<&'static str>,
    /// Whether a frozen prefix can be cached.
    pub(crate) cached: bool,
    /// Nodes, one for each unit, that have no count.
    pub(crate) uncounted: usize,
}

impl Chain {
    fn new(file: &str) -> Chain {
        let sha256 = super::sha256_hex(file.as_bytes());
        let model = ModelInfo {
            file: file.into(),
            sha256,
            opset: 17,
            exporter: "pytorch 2.9.0".into(),
            ..ModelInfo::default()
        };
        Chain { model, units: Vec::new(), costs: Vec::new(), alive: None, cached: true, uncounted: 0 }
    }

    fn push(&mut self, path: &str, class: &str, parameters: &[&str], elements: u64, flops: Flops) {
        let parameters = parameters.iter().map(|name| format!("{path}.{name}")).collect();
        self.units.push(Unit {
            index: self.units.len(),
            path: path.into(),
            class: class.into(),
            parameters,
            shared: Vec::new(),
        });
        let bytes = 4 * elements;
        let cost = UnitCost { elements, flops, parameter_bytes: bytes, gradient_bytes: bytes, slot_bytes: bytes };
        self.costs.push(cost);
        self.model.parameters += elements;
        self.model.bytes += bytes;
    }

    pub(crate) fn inputs(&self, epochs: usize) -> Inputs<'_> {
        Inputs {
            model: &self.model,
            units: &self.units,
            costs: &self.costs,
            step_costs: self,
            epochs,
            steps_per_epoch: 0,
            accompanied: None,
        }
    }
}

/// Returns `units` equal units `u0`, `u1`, .. with one parameter each and forward, input gradient
/// and weight gradient of one flop each.
pub(crate) fn chain(units: usize) -> Chain {
    let mut chain = Chain::new("chain.onnx");
    for index in 0..units {
        chain.push(&format!("u{index}"), "Gemm", &["weight"], 1, Flops { forward: 1, input_grad: 1, weight_grad: 1 });
    }
    chain
}

/// Returns a small convolution network of six units.
pub(crate) fn six_units() -> Chain {
    let mut chain = Chain::new("small.onnx");
    let dense = |flops| Flops { forward: flops, input_grad: flops, weight_grad: flops };
    let norm = |flops| Flops { forward: flops, input_grad: 2 * flops, weight_grad: flops };
    chain.push("stem.conv", "Conv2d", &["weight"], 9_408, dense(236_027_904));
    chain.push("stem.bn", "BatchNorm2d", &["weight", "bias"], 128, norm(3_211_264));
    chain.push("layer1.0.conv1", "Conv2d", &["weight"], 36_864, dense(231_211_008));
    chain.push("layer1.0.a_module_with_a_long_path.conv2", "Conv2d", &["weight"], 36_864, dense(231_211_008));
    chain.push("layer1.0.bn2", "BatchNorm2d", &["weight", "bias"], 128, norm(802_816));
    chain.push("fc", "Linear", &["weight", "bias"], 513_000, dense(1_024_000));
    chain
}

impl StepCosts for Chain {
    fn cost(&self, frozen: &HashSet<&str>) -> StepCost {
        let mut cost = StepCost::default();
        for (unit, (flops, unit_cost)) in self.units.iter().zip(self.unit_costs(frozen).into_iter().zip(&self.costs)) {
            cost.flops = cost.flops.plus(flops);
            if self.trains(unit, frozen) {
                cost.gradient_bytes += unit_cost.gradient_bytes;
                cost.slot_bytes += unit_cost.slot_bytes;
                cost.activation_bytes += unit_cost.flops.forward;
            } else if cost.gradient_bytes == 0 && self.cached {
                cost.cacheable += unit_cost.flops.forward;
                cost.cut_bytes = unit_cost.flops.forward;
            }
        }
        cost
    }

    fn keeps_backward_alive(&self, frozen: &HashSet<&str>) -> Vec<String> {
        let alive = self.alive.filter(|name| !frozen.is_empty() && !frozen.contains(name));
        alive.map(String::from).into_iter().collect()
    }

    fn unit_costs(&self, frozen: &HashSet<&str>) -> Vec<Flops> {
        let mut below_trains = false;
        let mut cost = |(unit, cost): (&Unit, &UnitCost)| {
            let trains = self.trains(unit, frozen);
            let input_grad = if below_trains { cost.flops.input_grad } else { 0 };
            below_trains |= trains;
            Flops { input_grad, weight_grad: if trains { cost.flops.weight_grad } else { 0 }, ..cost.flops }
        };
        self.units.iter().zip(&self.costs).map(&mut cost).collect()
    }

    fn ends_cache(&self, frozen: &HashSet<&str>) -> Option<String> {
        (!self.cached && !frozen.is_empty()).then(|| "\"bn\", which normalizes by the statistics of the batch".into())
    }

    fn counted(&self) -> (usize, usize) {
        (self.units.len() - self.uncounted, self.units.len())
    }
}

impl Chain {
    fn trains(&self, unit: &Unit, frozen: &HashSet<&str>) -> bool {
        unit.parameters.iter().any(|name| !frozen.contains(name.as_str()))
    }
}
