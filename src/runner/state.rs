//! Everything that outlives a step: parameters, running statistics, slots, in engine buffers.

use super::engine::{BufferId, Engine, EngineError};
use crate::graph::Tensor;
use crate::training::{Prepared, Slot};
use std::collections::{BTreeMap, HashSet};

/// A copy of a [`State`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Parameters and statistics by name.
    pub values: BTreeMap<String, Tensor>,
    /// Slots by name.
    pub slots: BTreeMap<String, Tensor>,
    /// Averages of parameters by the name of the parameter, and the count of their updates.
    pub averages: BTreeMap<String, Tensor>,
}

/// One buffer per parameter, statistic and slot, by name. Buffers live across steps and phases;
/// a phase change frees the slots of what becomes frozen, where they are not kept, and touches nothing else.
pub struct State {
    values: BTreeMap<String, BufferId>,
    slots: BTreeMap<String, BufferId>,
    averages: BTreeMap<String, BufferId>,
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
        Ok(State { values, slots: BTreeMap::new(), averages: BTreeMap::new() })
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

    /// Returns every average with its buffer, and the count of their updates.
    pub fn averages(&self) -> impl Iterator<Item = (&str, BufferId)> {
        self.averages.iter().map(|(name, buffer)| (name.as_str(), *buffer))
    }

    /// Returns the buffer of an average.
    pub fn average(&self, name: &str) -> Option<BufferId> {
        self.averages.get(name).copied()
    }

    /// Returns what the evaluated model reads: parameters and statistics, with `averaged` the averages where there are
    /// any, and slots.
    pub fn evaluated(&self, averaged: bool) -> impl Iterator<Item = (&str, BufferId)> {
        let average = move |name: &str| self.average(name).filter(|_| averaged);
        self.values().map(move |(name, buffer)| (name, average(name).unwrap_or(buffer))).chain(self.slots())
    }

    /// Adds an average with its starting value.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn add_average(&mut self, engine: &mut dyn Engine, name: &str, start: &Tensor) -> Result<(), EngineError> {
        let buffer = engine.allocate(start)?;
        if let Some(before) = self.averages.insert(name.to_string(), buffer) {
            engine.free(before);
        }
        Ok(())
    }

    /// Makes the given slots be there: missing ones start at their initial value. Others are freed, or with `keep`
    /// stay as they are until they are wanted again.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn set_slots(&mut self, engine: &mut dyn Engine, slots: &[Slot], keep: bool) -> Result<(), EngineError> {
        let wanted: HashSet<&str> = slots.iter().map(|slot| slot.name.as_str()).collect();
        let gone: Vec<String> =
            self.slots.keys().filter(|name| !keep && !wanted.contains(name.as_str())).cloned().collect();
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

    /// Returns a copy of everything.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn snapshot(&self, engine: &dyn Engine) -> Result<Snapshot, EngineError> {
        let (values, slots) = (self.read_values(engine)?, self.read_slots(engine)?);
        Ok(Snapshot { values, slots, averages: self.read_averages(engine)? })
    }

    /// Puts everything back as it was when a copy was made. Bindings stay good for values and averages, for slots only
    /// where the same ones are there.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn restore(&mut self, engine: &mut dyn Engine, snapshot: &Snapshot) -> Result<(), EngineError> {
        for (name, tensor) in &snapshot.values {
            engine.write(self.value(name), tensor)?;
        }
        for (name, tensor) in &snapshot.averages {
            match self.averages.get(name) {
                Some(buffer) => engine.write(*buffer, tensor)?,
                None => self.add_average(engine, name, tensor)?,
            }
        }
        let gone: Vec<String> = self.slots.keys().filter(|name| !snapshot.slots.contains_key(*name)).cloned().collect();
        for buffer in gone.iter().filter_map(|name| self.slots.remove(name)).collect::<Vec<_>>() {
            engine.free(buffer);
        }
        for (name, tensor) in &snapshot.slots {
            match self.slots.get(name) {
                Some(buffer) => engine.write(*buffer, tensor)?,
                None => {
                    let buffer = engine.allocate(tensor)?;
                    self.slots.insert(name.clone(), buffer);
                }
            }
        }
        Ok(())
    }

    /// Returns copies of all averages.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn read_averages(&self, engine: &dyn Engine) -> Result<BTreeMap<String, Tensor>, EngineError> {
        self.averages.iter().map(|(name, buffer)| Ok((name.clone(), engine.read(*buffer)?))).collect()
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
