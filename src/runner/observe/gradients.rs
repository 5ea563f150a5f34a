//! Sums of gradients over an interval, and the change of the weights in its last step.

use super::{Measured, floats};
use crate::checkpoint::Tensors;
use crate::graph::Tensor;
use crate::modules::Unit;
use crate::plan::Signal;
use crate::runner::engine::{BufferId, Engine, EngineError};
use crate::runner::state::State;
use crate::signals::{GradientSum, SignalError, weight_change};
use crate::training::names;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What is gathered in an interval, by parameter.
#[derive(Clone)]
pub(super) struct Gradients {
    sums: bool,
    squares: bool,
    changes: bool,
    /// Parameters of each unit.
    units: Vec<Vec<String>>,
    /// The parameter of each gradient.
    ports: HashMap<String, String>,
    gathered: HashMap<String, Gathered>,
    /// Weights before the last step.
    before: BTreeMap<String, Tensor>,
    /// Change of the weights of each unit in it.
    changed: Vec<Option<f64>>,
}

/// What the gradients of one parameter gave.
#[derive(Clone, Default)]
struct Gathered {
    sum: GradientSum,
    /// Sum over the steps of the squared gradient.
    square: f64,
    steps: usize,
    /// A step had no finite gradient.
    lost: bool,
}

/// What is no tensor of it.
#[derive(Serialize, Deserialize)]
struct SavedGathered {
    sum_steps: usize,
    steps: usize,
    lost: bool,
}

impl Gathered {
    fn add(&mut self, gradient: &[f32], sums: bool) -> Result<(), SignalError> {
        if sums {
            self.sum.add(gradient)?;
        }
        self.square += gradient.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>();
        self.steps += 1;
        Ok(())
    }
}

impl Gradients {
    pub(super) fn new(signals: &[Signal], units: &[Unit]) -> Gradients {
        let units: Vec<Vec<String>> = units.iter().map(|unit| unit.parameters.clone()).collect();
        Gradients {
            sums: signals.contains(&Signal::GradientSum),
            squares: signals.contains(&Signal::GradientSquare),
            changes: signals.contains(&Signal::WeightChange),
            ports: units.iter().flatten().map(|name| (names::grad(name), name.clone())).collect(),
            changed: vec![None; units.len()],
            units,
            gathered: HashMap::new(),
            before: BTreeMap::new(),
        }
    }

    /// Returns what is gathered between two steps; the sums become tensors.
    pub(super) fn saved(&self, tensors: &mut Tensors) -> serde_json::Value {
        let gathered = self.gathered.iter().map(|(name, own)| {
            let (sum, sum_steps) = own.sum.parts();
            tensors.insert(format!("gradients/{name}"), Tensor::from_vec(&[sum.len()], sum.to_vec()));
            let square = Tensor::scalar(own.square);
            tensors.insert(format!("squares/{name}"), square);
            let saved = SavedGathered { sum_steps, steps: own.steps, lost: own.lost };
            (name.clone(), saved)
        });
        serde_json::to_value(gathered.collect::<BTreeMap<_, _>>()).expect("invariant: plain data")
    }

    /// Goes on from what was gathered.
    pub(super) fn restore(&mut self, value: &serde_json::Value, tensors: &Tensors) -> Result<(), String> {
        let saved: BTreeMap<String, SavedGathered> =
            serde_json::from_value(value.clone()).map_err(|error| format!("what was gathered: {error}"))?;
        self.gathered.clear();
        for (name, SavedGathered { sum_steps, steps, lost }) in saved {
            let numbers = |kind: &str| {
                let tensor = tensors.get(&format!("{kind}/{name}")).and_then(|tensor| tensor.to_vec::<f64>().ok());
                tensor.ok_or_else(|| format!("it has no {kind} of \"{name}\""))
            };
            let square = numbers("squares")?.first().copied().unwrap_or(0.0);
            let sum = GradientSum::of(numbers("gradients")?, sum_steps);
            self.gathered.insert(name, Gathered { sum, square, steps, lost });
        }
        Ok(())
    }

    /// Adds the gradients of a step.
    pub(super) fn add(&mut self, engine: &dyn Engine, passed: &[(String, BufferId)]) -> Result<(), EngineError> {
        if !self.sums && !self.squares {
            return Ok(());
        }
        for (port, buffer) in passed {
            let Some(name) = self.ports.get(port) else { continue };
            let gradient = floats(&engine.read(*buffer)?);
            let own = self.gathered.entry(name.clone()).or_default();
            own.lost |= own.add(&gradient, self.sums).is_err();
        }
        Ok(())
    }

    /// Keeps the weights that the last step of an interval starts from.
    pub(super) fn keep_weights(
        &mut self,
        engine: &dyn Engine,
        state: &State,
        training: &HashSet<String>,
    ) -> Result<(), EngineError> {
        for name in self.units.iter().flatten().filter(|name| self.changes && training.contains(*name)) {
            self.before.insert(name.clone(), engine.read(state.value(name))?);
        }
        Ok(())
    }

    /// Compares the weights after a step with those that were kept before it.
    pub(super) fn compare_weights(&mut self, engine: &dyn Engine, state: &State) -> Result<(), EngineError> {
        if self.before.is_empty() {
            return Ok(());
        }
        for (unit, changed) in self.units.iter().zip(&mut self.changed) {
            let (mut before, mut now) = (Vec::new(), Vec::new());
            for name in unit {
                if let Some(tensor) = self.before.get(name) {
                    before.extend(floats(tensor));
                    now.extend(floats(&engine.read(state.value(name))?));
                }
            }
            *changed = weight_change(&before, &now).ok();
        }
        self.before.clear();
        Ok(())
    }

    /// Returns the signals of the interval, and begins the next one.
    pub(super) fn take(&mut self) -> Measured {
        let gathered = std::mem::take(&mut self.gathered);
        let total = |value: &dyn Fn(&Gathered) -> Option<f64>| -> Vec<Option<f64>> {
            let of_unit = |unit: &Vec<String>| {
                let mut values = unit.iter().filter_map(|name| gathered.get(name)).peekable();
                values.peek()?;
                values.map(|own| value(own).filter(|_| !own.lost)).sum::<Option<f64>>()
            };
            self.units.iter().map(of_unit).collect()
        };
        let mut measured = Measured::new();
        if self.sums {
            measured.insert(Signal::GradientSum, total(&|own| own.sum.l1().ok()));
        }
        if self.squares {
            measured.insert(Signal::GradientSquare, total(&|own| Some(own.square / own.steps.max(1) as f64)));
        }
        if self.changes {
            let none = vec![None; self.units.len()];
            measured.insert(Signal::WeightChange, std::mem::replace(&mut self.changed, none));
        }
        measured
    }
}
