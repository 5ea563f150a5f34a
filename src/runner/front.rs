//! The frozen prefix of a phase on an engine: a session of its own, and buffers of what crosses from it to the train graph.
//!
//! What the prefix makes goes into buffers that the train graph reads, so nothing is copied between them. They may also be
//! filled with what was kept of the same samples, or by a growth: the graph from what another phase kept.

use super::engine::{BindingId, BufferId, Engine, EngineError, SessionId, Target};
use crate::graph::{Model, Tensor};
use crate::training::prefix::{Crossing, Part, Split};
use std::collections::HashMap;

/// The graph from values that were kept in another phase to those that cross now.
pub(super) struct Growth {
    pub(super) model: Model,
    /// Its inputs, with what a sample has of each.
    pub(super) inputs: Vec<(String, Part)>,
}

/// The binding of a growth, and the buffers that it reads.
pub(super) type Growing = (BindingId, Vec<(Part, BufferId)>);

/// The prefix of a phase.
pub(super) struct Front {
    session: SessionId,
    pub(super) nodes: usize,
    /// The inputs of the batch that it reads.
    inputs: Vec<String>,
    /// Those of them that the train graph reads as well.
    shared: Vec<String>,
    cut: Vec<Crossing>,
    /// By the number of samples.
    held: HashMap<usize, Held>,
    growth: Option<(SessionId, Growth)>,
}

/// Buffers of what crosses for so many samples.
struct Held {
    buffers: Vec<BufferId>,
    growth: Option<(BindingId, Vec<BufferId>)>,
}

impl Front {
    pub(super) fn new(engine: &mut dyn Engine, split: &Split, growth: Option<Growth>) -> Result<Front, EngineError> {
        let names = |model: &Model| -> Vec<String> {
            model.graph.inputs().iter().map(|id| model.graph.value_name(*id).to_string()).collect()
        };
        let (inputs, rest) = (names(&split.prefix), names(&split.rest));
        let shared = inputs.iter().filter(|name| rest.contains(name)).cloned().collect();
        let session = engine.load(&split.prefix)?;
        let growth = match growth {
            Some(growth) => Some((engine.load(&growth.model)?, growth)),
            None => None,
        };
        Ok(Front { session, nodes: split.nodes, inputs, shared, cut: split.cut.clone(), held: HashMap::new(), growth })
    }

    /// Returns the inputs of a batch that nothing else reads.
    pub(super) fn own_inputs(&self) -> impl Iterator<Item = &String> {
        self.inputs.iter().filter(|name| !self.shared.contains(name))
    }

    /// Returns true where a batch has all that the prefix reads.
    pub(super) fn is_fed_by(&self, batch: &[(String, Tensor)]) -> bool {
        self.inputs.iter().all(|input| batch.iter().any(|(name, _)| name == input))
    }

    /// Returns true where what is kept for each sample is all that crosses for so many samples, or the rest is known of
    /// another batch of that size.
    pub(super) fn is_complete(&self, samples: usize) -> bool {
        self.held.contains_key(&samples) || self.cut.iter().all(|crossing| crossing.part.is_some())
    }

    pub(super) fn grows(&self) -> bool {
        self.growth.is_some()
    }

    /// Ends the growth: everything that it is fed by was taken over.
    pub(super) fn stop_growing(&mut self, engine: &mut dyn Engine) {
        if let Some((session, _)) = self.growth.take() {
            engine.unload(session);
        }
        for held in self.held.values_mut() {
            held.growth.take().into_iter().flat_map(|(_, buffers)| buffers).for_each(|buffer| engine.free(buffer));
        }
    }

    /// Binds the prefix to the buffers of a batch.
    pub(super) fn bind(
        &mut self,
        engine: &mut dyn Engine,
        inputs: &[(&str, BufferId)],
        samples: usize,
    ) -> Result<BindingId, EngineError> {
        let names: Vec<String> = self.cut.iter().map(|crossing| crossing.name.clone()).collect();
        if !self.held.contains_key(&samples) {
            // The shapes are known from a first run.
            let outputs: Vec<(&str, Target)> = names.iter().map(|name| (name.as_str(), Target::Host)).collect();
            let binding = engine.bind(self.session, inputs, &outputs)?;
            let made = engine.run(binding);
            engine.unbind(binding);
            let buffers = made?.iter().map(|tensor| engine.allocate(tensor)).collect::<Result<_, _>>()?;
            self.held.insert(samples, Held { buffers, growth: None });
        }
        let buffers = &self.held[&samples].buffers;
        let outputs: Vec<(&str, Target)> =
            names.iter().zip(buffers).map(|(name, buffer)| (name.as_str(), Target::Buffer(*buffer))).collect();
        engine.bind(self.session, inputs, &outputs)
    }

    /// Returns the values that cross for so many samples, each with its buffer.
    pub(super) fn crossing(
        &mut self,
        engine: &mut dyn Engine,
        samples: usize,
    ) -> Result<Vec<(String, BufferId)>, EngineError> {
        if !self.held.contains_key(&samples) {
            let zeros = |crossing: &Crossing| {
                let part = crossing.part.as_ref().expect("invariant: asked for only where every value has parts");
                Tensor::zeros(part.dtype, &part.of(samples))
            };
            let buffers =
                self.cut.iter().map(|crossing| engine.allocate(&zeros(crossing))).collect::<Result<_, _>>()?;
            self.held.insert(samples, Held { buffers, growth: None });
        }
        let names = self.cut.iter().map(|crossing| crossing.name.clone());
        Ok(names.zip(self.held[&samples].buffers.iter().copied()).collect())
    }

    /// Returns the buffers of what is kept for each sample.
    pub(super) fn parts(&self, samples: usize) -> Vec<(&Part, BufferId)> {
        let Some(held) = self.held.get(&samples) else { return Vec::new() };
        let parts = self.cut.iter().zip(&held.buffers);
        parts.filter_map(|(crossing, buffer)| Some((crossing.part.as_ref()?, *buffer))).collect()
    }

    /// Returns the buffers that the growth reads, and its binding.
    pub(super) fn growing(&mut self, engine: &mut dyn Engine, samples: usize) -> Result<Option<Growing>, EngineError> {
        let Some((session, growth)) = &self.growth else { return Ok(None) };
        let Some(held) = self.held.get_mut(&samples) else { return Ok(None) };
        if held.growth.is_none() {
            let mut buffers = Vec::with_capacity(growth.inputs.len());
            for (_, part) in &growth.inputs {
                buffers.push(engine.allocate(&Tensor::zeros(part.dtype, &part.of(samples)))?);
            }
            let names = growth.inputs.iter().map(|(name, _)| name.as_str());
            let inputs: Vec<(&str, BufferId)> = names.zip(buffers.iter().copied()).collect();
            let crossing = self.cut.iter().zip(&held.buffers).filter(|(crossing, _)| crossing.part.is_some());
            let outputs: Vec<(&str, Target)> =
                crossing.map(|(crossing, buffer)| (crossing.name.as_str(), Target::Buffer(*buffer))).collect();
            held.growth = Some((engine.bind(*session, &inputs, &outputs)?, buffers));
        }
        let parts = growth.inputs.iter().map(|(_, part)| part.clone());
        Ok(held.growth.as_ref().map(|(binding, buffers)| (*binding, parts.zip(buffers.iter().copied()).collect())))
    }

    /// Drops sessions and buffers.
    pub(super) fn close(mut self, engine: &mut dyn Engine) {
        self.stop_growing(engine);
        engine.unload(self.session);
        self.held.into_values().flat_map(|held| held.buffers).for_each(|buffer| engine.free(buffer));
    }
}
