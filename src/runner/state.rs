//! Everything that outlives a step: parameters, running statistics, slots, in engine buffers.

use super::engine::{BufferId, Engine, EngineError};
use crate::graph::Tensor;
use crate::training::{Prepared, Slot};
use std::collections::BTreeMap;

/// One buffer per parameter, statistic and slot, by name. Buffers live across steps and phases;
/// a phase change frees the slots of what becomes frozen and touches nothing else.
pub struct State {
    values: BTreeMap<String, BufferId>,
    slots: BTreeMap<String, BufferId>,
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

    /// Returns the buffer of a parameter, statistic or slot.
    pub fn find(&self, name: &str) -> Option<BufferId> {
        self.values.get(name).or_else(|| self.slots.get(name)).copied()
    }

    /// Returns every parameter and statistic with its buffer.
    pub fn values(&self) -> impl Iterator<Item = (&str, BufferId)> {
        self.values.iter().map(|(name, buffer)| (name.as_str(), *buffer))
    }

    /// Returns every slot with its buffer.
    pub fn slots(&self) -> impl Iterator<Item = (&str, BufferId)> {
        self.slots.iter().map(|(name, buffer)| (name.as_str(), *buffer))
    }

    /// Keeps exactly the given slots: others are freed, missing ones start at their initial value.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn set_slots(&mut self, engine: &mut dyn Engine, slots: &[Slot]) -> Result<(), EngineError> {
        let gone: Vec<String> =
            self.slots.keys().filter(|name| !slots.iter().any(|slot| slot.name == **name)).cloned().collect();
        for buffer in gone.iter().filter_map(|name| self.slots.remove(name)).collect::<Vec<_>>() {
            engine.free(buffer);
        }
        for slot in slots {
            if !self.slots.contains_key(&slot.name) {
                self.slots.insert(slot.name.clone(), engine.allocate(&slot.initial)?);
            }
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

    /// Returns copies of all slots.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn read_slots(&self, engine: &dyn Engine) -> Result<BTreeMap<String, Tensor>, EngineError> {
        self.slots.iter().map(|(name, buffer)| Ok((name.clone(), engine.read(*buffer)?))).collect()
    }
}
