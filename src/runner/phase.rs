//! One phase on an engine: its sessions, gradient buffers and bindings.

use super::engine::{BindingId, BufferId, Engine, EngineError, SessionId, Target};
use super::state::State;
use crate::graph::{Fact, Tensor};
use crate::training::{TrainStep, names};
use std::collections::HashMap;

/// The sessions of one frozen set.
pub struct Phase {
    train: SessionId,
    optimizer: Option<(SessionId, BindingId)>,
    gradients: Vec<(String, BufferId)>,
    lr: BufferId,
    batches: HashMap<Vec<Vec<usize>>, Batch>,
    trained: Vec<String>,
    moving: Vec<String>,
    statistics: Vec<String>,
}

struct Batch {
    binding: BindingId,
    buffers: Vec<(String, BufferId)>,
}

impl Phase {
    /// Loads the graphs of a step. The state must already have the slots of what it trains.
    ///
    /// # Errors
    /// The engine refuses a graph.
    pub fn new(engine: &mut dyn Engine, step: &TrainStep, state: &State) -> Result<Phase, EngineError> {
        let train = engine.load(&step.train)?;
        let mut gradients = Vec::new();
        for (name, fact) in trained_facts(step) {
            let dtype = fact.dtype.unwrap_or(crate::graph::DType::F32);
            let zeros = Tensor::zeros(dtype, &fact.sizes().unwrap_or_default());
            gradients.push((name, engine.allocate(&zeros)?));
        }
        let lr = engine.allocate(&Tensor::scalar(0f32))?;
        let optimizer = match &step.optimizer {
            None => None,
            Some(model) => {
                let session = engine.load(model)?;
                let binding = bind_optimizer(engine, session, state, &gradients, lr)?;
                Some((session, binding))
            }
        };
        let inputs = step.train.graph.inputs().iter().map(|id| step.train.graph.value_name(*id));
        let known: Vec<&str> = state.values().map(|(name, _)| name).collect();
        let statistics = inputs.filter(|name| known.contains(name) && !step.trained.iter().any(|t| t == name));
        Ok(Phase {
            train,
            optimizer,
            gradients,
            lr,
            batches: HashMap::new(),
            trained: step.trained.clone(),
            moving: step.moving.clone(),
            statistics: statistics.map(str::to_string).collect(),
        })
    }

    /// Runs one step on a batch and returns its loss. The update is left out when the loss is
    /// not finite.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn step(
        &mut self,
        engine: &mut dyn Engine,
        state: &State,
        batch: &[(String, Tensor)],
        lr: f64,
    ) -> Result<f64, EngineError> {
        let key: Vec<Vec<usize>> = batch.iter().map(|(_, tensor)| tensor.shape().to_vec()).collect();
        if !self.batches.contains_key(&key) {
            let bound = self.bind(engine, state, batch)?;
            self.batches.insert(key.clone(), bound);
        }
        let bound = &self.batches[&key];
        for ((_, tensor), (_, buffer)) in batch.iter().zip(&bound.buffers) {
            engine.write(*buffer, tensor)?;
        }
        let outputs = engine.run(bound.binding)?;
        let loss = outputs.first().and_then(|loss| loss.to_f64s()?.first().copied()).unwrap_or(f64::NAN);
        if let (true, Some((_, binding))) = (loss.is_finite(), self.optimizer) {
            engine.write(self.lr, &Tensor::scalar(lr as f32))?;
            engine.run(binding)?;
        }
        Ok(loss)
    }

    /// Drops the sessions and buffers of the phase; the state stays.
    pub fn close(self, engine: &mut dyn Engine) {
        engine.unload(self.train);
        if let Some((session, _)) = self.optimizer {
            engine.unload(session);
        }
        let batches = self.batches.into_values().flat_map(|batch| batch.buffers);
        for (_, buffer) in self.gradients.into_iter().chain(batches) {
            engine.free(buffer);
        }
        engine.free(self.lr);
    }

    fn bind(&self, engine: &mut dyn Engine, state: &State, batch: &[(String, Tensor)]) -> Result<Batch, EngineError> {
        let mut buffers = Vec::new();
        for (name, tensor) in batch {
            buffers.push((name.clone(), engine.allocate(tensor)?));
        }
        let mut inputs: Vec<(&str, BufferId)> = buffers.iter().map(|(name, id)| (name.as_str(), *id)).collect();
        inputs.extend(self.trained.iter().chain(&self.statistics).map(|name| (name.as_str(), state.value(name))));
        let mut outputs = vec![(names::LOSS.to_string(), Target::Host)];
        outputs.extend(self.gradients.iter().map(|(name, id)| (names::grad(name), Target::Buffer(*id))));
        outputs.extend(self.moving.iter().map(|name| (names::next(name), Target::Buffer(state.value(name)))));
        let outputs: Vec<(&str, Target)> = outputs.iter().map(|(name, target)| (name.as_str(), *target)).collect();
        let binding = engine.bind(self.train, &inputs, &outputs)?;
        Ok(Batch { binding, buffers })
    }
}

/// Returns the trained parameters of a step with their facts.
pub fn trained_facts(step: &TrainStep) -> Vec<(String, Fact)> {
    let graph = &step.train.graph;
    let fact = |name: &String| graph.find(name).map_or_else(Fact::default, |id| graph.fact(id).clone());
    step.trained.iter().map(|name| (name.clone(), fact(name))).collect()
}

fn bind_optimizer(
    engine: &mut dyn Engine,
    session: SessionId,
    state: &State,
    gradients: &[(String, BufferId)],
    lr: BufferId,
) -> Result<BindingId, EngineError> {
    let mut inputs = vec![(names::LR.to_string(), lr)];
    let mut outputs = Vec::new();
    for (name, gradient) in gradients {
        inputs.push((name.clone(), state.value(name)));
        inputs.push((names::grad(name), *gradient));
        outputs.push((names::next(name), Target::Buffer(state.value(name))));
    }
    for (slot, buffer) in state.slots() {
        inputs.push((slot.to_string(), buffer));
        outputs.push((names::next(slot), Target::Buffer(buffer)));
    }
    let inputs: Vec<(&str, BufferId)> = inputs.iter().map(|(name, id)| (name.as_str(), *id)).collect();
    let outputs: Vec<(&str, Target)> = outputs.iter().map(|(name, target)| (name.as_str(), *target)).collect();
    engine.bind(session, &inputs, &outputs)
}
