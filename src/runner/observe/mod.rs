//! Measures the signals that a policy wants, from one point to the next.
//!
//! [`Gradients`] looks at the gradients of every step and at the weights around the last one of an interval,
//! [`importance`] trains a trial step, [`Outputs`] compares the outputs of units with those of an earlier model. What
//! is not defined (a unit that is frozen, nothing that varies, a number that is not finite) is no value.
//!
//! A checkpoint holds what was observed, what is gathered of an interval that has not ended, and the reference.

mod gradients;
mod importance;
mod outputs;
mod probe;

use super::engine::Engine;
use super::phase::Phase;
use super::run::Run;
use super::state::State;
use super::train::{RunError, Setup};
use crate::checkpoint::Tensors;
use crate::graph::Tensor;
use crate::plan::Signal;
use crate::training::{Objective, Prepared};
use gradients::Gradients;
use outputs::{Outputs, Reference};
use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

/// Of each signal a value per unit.
pub(super) type Measured = BTreeMap<Signal, Vec<Option<f64>>>;

/// What a run measures for its policy.
pub(super) struct Observer {
    signals: Vec<Signal>,
    gradients: Gradients,
    outputs: Option<Outputs>,
    /// Seconds that measuring took since the last observation.
    seconds: f64,
}

/// What an observer knows between two steps.
#[derive(Clone)]
pub(super) struct Memory {
    gradients: Gradients,
    reference: Option<Reference>,
}

impl Memory {
    /// Returns it as JSON and tensors.
    pub(super) fn saved(&self) -> (serde_json::Value, Tensors) {
        let mut tensors = Tensors::new();
        let gradients = self.gradients.saved(&mut tensors);
        let reference = self.reference.as_ref().map(|reference| reference.saved(&mut tensors));
        (serde_json::json!({ "gradients": gradients, "reference": reference }), tensors)
    }

    /// Returns what was saved of an observer like this one.
    ///
    /// # Errors
    /// It is of another one.
    pub(super) fn of(observer: &Observer, value: serde_json::Value, tensors: Tensors) -> Result<Memory, String> {
        let mut memory = observer.memory();
        memory.gradients.restore(&value["gradients"], &tensors)?;
        if let Some(reference) = &mut memory.reference {
            *reference = Reference::of(&value["reference"], &tensors)?;
        }
        Ok(memory)
    }
}

impl Observer {
    /// Returns what measures the signals of the run's policy; `None` where it wants none. The first reference is the
    /// model as it is now.
    ///
    /// # Errors
    /// A signal that the run cannot give, or the engine fails.
    pub(super) fn new(
        engine: &mut dyn Engine,
        setup: &Setup<'_>,
        prepared: &Prepared,
        state: &State,
    ) -> Result<Option<Observer>, RunError> {
        let clock = Instant::now();
        let Some(planner) = setup.freezing.planner.filter(|planner| !planner.policy().signals().is_empty()) else {
            return Ok(None);
        };
        let signals = planner.policy().signals();
        let refuse = |signal: Signal, problem: String| RunError::Signal {
            policy: planner.policy().name().into(),
            signal: serde_json::json!(signal).as_str().unwrap_or_default().into(),
            problem,
        };
        let of_gradients = [Signal::GradientSum, Signal::GradientSquare, Signal::Importance];
        if let (Some(signal), Objective::Stage { stage, .. }) =
            (signals.iter().find(|signal| of_gradients.contains(signal)), &setup.objective)
        {
            let frozen = planner.frozen_throughout();
            let mut names = planner.units().iter().flat_map(|unit| &unit.parameters);
            let hidden = |name: &&String| !frozen.contains(*name) && !stage.shows_gradient(&prepared.model.graph, name);
            if let Some(name) = names.find(hidden) {
                let problem = format!("the model's training step has no gradient of the loss of \"{name}\" as it is");
                return Err(refuse(*signal, problem));
            }
        }
        let compared: Vec<Signal> = signals.iter().copied().filter(|signal| signal.compares()).collect();
        let outputs = match compared.first() {
            None => None,
            Some(signal) => {
                let built = setup.objective.outputs(prepared, planner.units())?;
                if built.units.iter().all(Option::is_none) {
                    return Err(refuse(*signal, "no unit has an output that depends on the model's inputs".into()));
                }
                Some(Outputs::new(engine, setup, state, built, compared, planner.policy().reference())?)
            }
        };
        let gradients = Gradients::new(&signals, planner.units());
        Ok(Some(Observer { signals, gradients, outputs, seconds: clock.elapsed().as_secs_f64() }))
    }

    /// Looks at the gradients of a step and, before the last one of an interval, at the weights that `training` names.
    pub(super) fn before_update(
        &mut self,
        engine: &mut dyn Engine,
        phase: &Phase,
        state: &State,
        training: Option<&HashSet<String>>,
    ) -> Result<(), RunError> {
        let clock = Instant::now();
        self.gradients.add(engine, phase.passed())?;
        if let Some(training) = training {
            self.gradients.keep_weights(engine, state, training)?;
        }
        self.seconds += clock.elapsed().as_secs_f64();
        Ok(())
    }

    /// Looks at the weights after a step, where they were looked at before it.
    pub(super) fn after_update(&mut self, engine: &mut dyn Engine, state: &State) -> Result<(), RunError> {
        let clock = Instant::now();
        self.gradients.compare_weights(engine, state)?;
        self.seconds += clock.elapsed().as_secs_f64();
        Ok(())
    }

    /// Returns the signals of the interval with the seconds that they took, and begins the next one. `frozen` says
    /// which units were frozen in it.
    pub(super) fn measure(
        &mut self,
        engine: &mut dyn Engine,
        run: &mut Run<'_>,
        frozen: &[bool],
    ) -> Result<(Measured, f64), RunError> {
        let clock = Instant::now();
        let mut measured = self.gradients.take();
        if self.signals.contains(&Signal::Importance) {
            measured.insert(Signal::Importance, importance::importance(engine, run)?);
        }
        if let Some(outputs) = &mut self.outputs {
            measured.extend(outputs.measure(engine, run.setup, &run.state, frozen)?);
        }
        let finite = |value: &mut Option<f64>| *value = value.filter(|value| value.is_finite());
        measured.values_mut().flatten().for_each(finite);
        let seconds = std::mem::take(&mut self.seconds) + clock.elapsed().as_secs_f64();
        Ok((measured, seconds))
    }

    /// Returns what is known between two steps.
    pub(super) fn memory(&self) -> Memory {
        let reference = self.outputs.as_ref().map(|outputs| outputs.reference.clone());
        Memory { gradients: self.gradients.clone(), reference }
    }

    /// Goes back to what was known.
    pub(super) fn restore(&mut self, memory: Memory) {
        self.gradients = memory.gradients;
        if let (Some(outputs), Some(reference)) = (&mut self.outputs, memory.reference) {
            outputs.reference = reference;
        }
    }
}

/// Returns the elements of a tensor of floating-point numbers.
fn floats(tensor: &Tensor) -> Vec<f32> {
    match tensor.to_vec() {
        Ok(values) => values,
        Err(_) => tensor.to_f64s().unwrap_or_default().into_iter().map(|value| value as f32).collect(),
    }
}
