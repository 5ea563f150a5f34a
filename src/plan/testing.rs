//! Made-up models for tests: chains of units.

use super::{Decision, FrozenSet, History, Inputs, ModelInfo, Moment, Observation, Policy, Run, Signal, StepCosts};
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

/// Returns a history of one observation for each row: 10 steps apart, learning rate 0.1, loss 1. A unit without a
/// value was frozen.
pub(crate) fn observed(signal: Signal, rows: &[&[Option<f64>]]) -> History {
    let mut history = History::default();
    for (index, row) in rows.iter().enumerate() {
        let frozen = row.iter().map(Option::is_none).collect();
        let mut observation = Observation::new(10 * (index + 1), 0.1, 1.0, frozen);
        observation.signals.insert(signal, row.to_vec());
        history.observations.push(observation);
    }
    history
}

/// How long the runs of [`Chain::asked`] are.
pub(crate) const RUN: Run = Run { epochs: 10, steps_per_epoch: 100 };

impl Chain {
    /// Returns what a policy decides after the last observation of a history.
    pub(crate) fn asked(&self, policy: &dyn Policy, history: &History) -> Decision {
        let steps = history.observations.last().map_or(0, |last| last.step);
        policy.decide(&Moment {
            units: &self.units,
            costs: &self.costs,
            step_costs: self,
            epochs: RUN.epochs,
            completed: steps / RUN.steps_per_epoch,
            steps_per_epoch: RUN.steps_per_epoch,
            step: steps % RUN.steps_per_epoch,
            history,
        })
    }

    /// Returns the numbers of the units that are frozen after the last observation.
    pub(crate) fn frozen(&self, policy: &dyn Policy, history: &History) -> Vec<usize> {
        let Decision { frozen, .. } = self.asked(policy, history);
        (0..self.units.len()).filter(|index| frozen.contains(*index)).collect()
    }
}

/// Runs a policy on made-up values of a signal, some of them missing or not finite, and checks at every point what
/// holds for all policies: one unit trains, a unit of which nothing is known is not frozen, and a policy that
/// starts from a written history decides the same. Units of `by_name` are frozen throughout. Returns the decisions.
pub(crate) fn simulated(
    policy: &dyn Fn() -> Box<dyn Policy>,
    signal: Signal,
    by_name: &[usize],
    mut value: impl FnMut(usize, usize) -> Option<f64>,
) -> Vec<FrozenSet> {
    let (model, asked) = (chain(6), policy());
    let mut history = History::default();
    let mut frozen = model.asked(asked.as_ref(), &history).frozen;
    let mut decisions = Vec::new();
    for (index, step) in asked.points(RUN, 6).into_iter().enumerate() {
        let held: Vec<bool> = (0..6).map(|unit| frozen.contains(unit) || by_name.contains(&unit)).collect();
        let measured: Vec<Option<f64>> =
            held.iter().enumerate().map(|(unit, held)| if *held { None } else { value(index, unit) }).collect();
        let mut observation = Observation::new(step, 0.1, 1.0, held.clone());
        observation.signals.insert(signal, measured.clone());
        history.observations.push(observation);
        frozen = model.asked(asked.as_ref(), &history).frozen;
        let trains = |unit: &usize| !frozen.contains(*unit) && !by_name.contains(unit);
        assert!((0..6).any(|unit| trains(&unit)), "everything is frozen after {step} steps: {history:?}");
        for unit in (0..6).filter(|unit| !held[*unit] && measured[*unit].is_none_or(|value| !value.is_finite())) {
            assert!(!frozen.contains(unit), "unit {unit} is frozen after {step} steps, measured {measured:?}");
        }
        let written = serde_json::to_string(&history).unwrap();
        let again = model.asked(policy().as_ref(), &serde_json::from_str(&written).unwrap()).frozen;
        assert_eq!(again, frozen, "after {step} steps");
        decisions.push(frozen.clone());
    }
    decisions
}

/// Returns made-up values: most are in [0, 1), one in eight is missing, not finite or 0.
pub(crate) fn rough(seed: u64) -> impl FnMut(usize, usize) -> Option<f64> {
    let mut state = seed;
    move |_, _| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let number = state >> 33;
        match number % 40 {
            0 => None,
            1 => Some(f64::NAN),
            2 => Some(f64::INFINITY),
            3 => Some(f64::NEG_INFINITY),
            4 => Some(0.0),
            _ => Some((number % 10_000) as f64 / 10_000.0),
        }
    }
}
