//! Everything that outlives a step: parameters, running statistics, slots, in engine buffers.

use super::engine::{BufferId, Engine, EngineError};
use crate::graph::{DType, Fact, Tensor};
use crate::optim::OptimizerSpec;
use crate::training::{Prepared, names};
use std::collections::BTreeMap;

/// One buffer per parameter, statistic and slot, by name. Buffers live across steps and phases;
/// a phase change frees the slots of what becomes frozen and touches nothing else.
pub struct State {
    values: BTreeMap<String, BufferId>,
    slots: BTreeMap<String, BTreeMap<String, BufferId>>,
}

impl State {
    /// Uploads the model's parameters and statistics.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn new(engine: &mut dyn Engine, prepared: &Prepared) -> Result<State, EngineError> {
        let mut values = BTreeMap::new();
        for parameter in &prepared.parameters {
            let initializer = prepared.model.graph.value(parameter.value).initializer.as_ref();
            let tensor = initializer.expect("invariant: parameters are initializers");
            values.insert(parameter.name.clone(), engine.allocate(tensor)?);
        }
        Ok(State { values, slots: BTreeMap::new() })
    }

    /// Returns the buffer of a parameter or statistic.
    pub fn value(&self, name: &str) -> BufferId {
        *self.values.get(name).expect("invariant: every parameter and statistic has a buffer")
    }

    /// Returns every parameter and statistic with its buffer.
    pub fn values(&self) -> impl Iterator<Item = (&str, BufferId)> {
        self.values.iter().map(|(name, buffer)| (name.as_str(), *buffer))
    }

    /// Returns every slot, as `parameter.slot`, with its buffer.
    pub fn slots(&self) -> impl Iterator<Item = (&str, BufferId)> {
        self.slots.values().flat_map(|slots| slots.iter().map(|(name, buffer)| (name.as_str(), *buffer)))
    }

    /// Gives exactly the trained parameters slots: those of the others are freed, missing ones
    /// start at their initial value.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn set_trained(
        &mut self,
        engine: &mut dyn Engine,
        trained: &[(String, Fact)],
        optimizer: &OptimizerSpec,
    ) -> Result<(), EngineError> {
        let gone: Vec<String> =
            self.slots.keys().filter(|name| !trained.iter().any(|entry| entry.0 == **name)).cloned().collect();
        for name in gone {
            for buffer in self.slots.remove(&name).unwrap_or_default().into_values() {
                engine.free(buffer);
            }
        }
        for (name, fact) in trained.iter().filter(|(name, _)| !self.slots.contains_key(name)).collect::<Vec<_>>() {
            let mut buffers = BTreeMap::new();
            for slot in optimizer.slots() {
                let shape = if slot.scalar { Vec::new() } else { fact.sizes().unwrap_or_default() };
                let dtype = if slot.scalar { DType::F32 } else { fact.dtype.unwrap_or(DType::F32) };
                let initial = Tensor::float_full(dtype, &shape, slot.initial);
                buffers.insert(names::slot(name, slot.name), engine.allocate(&initial)?);
            }
            self.slots.insert(name.clone(), buffers);
        }
        Ok(())
    }

    /// Returns copies of all parameters and statistics.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn read_values(&self, engine: &dyn Engine) -> Result<BTreeMap<String, Tensor>, EngineError> {
        self.values.iter().map(|(name, buffer)| Ok((name.clone(), engine.read(*buffer)?))).collect()
    }
}
