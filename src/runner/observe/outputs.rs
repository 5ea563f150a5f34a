//! Compares the outputs of units with those of a reference: the model as it was at an earlier point.
//!
//! The first rows of the training data, in the order of the file, go through the model in inference form. What is kept
//! of each unit's output for the comparison is small, so the reference is kept as that and not as a second model.

use super::Measured;
use super::probe::{Keep, Probe};
use crate::checkpoint::Tensors;
use crate::plan::{self, Signal};
use crate::runner::engine::{BindingId, BufferId, Engine, EngineError, SessionId, Target};
use crate::runner::state::State;
use crate::runner::train::{RunError, Setup};
use crate::signals::{self, Directions, MinibatchCka, SVCCA_SHARE};
use crate::training::UnitOutputs;
use std::collections::HashMap;
use std::sync::Arc;

/// Positions of a batch of minibatch CKA.
const MINIBATCH: usize = 256;

/// The outputs of units on an engine.
pub(super) struct Outputs {
    signals: Vec<Signal>,
    built: UnitOutputs,
    session: SessionId,
    batches: HashMap<Vec<Vec<usize>>, (BindingId, Vec<BufferId>)>,
    keep: Keep,
    refresh: usize,
    pub reference: Reference,
}

/// The outputs of the reference.
#[derive(Clone, Default)]
pub(super) struct Reference {
    probes: Arc<Vec<Probe>>,
    /// Observations since it was made.
    age: usize,
}

impl Reference {
    /// Returns it as JSON and tensors.
    pub(super) fn saved(&self, tensors: &mut Tensors) -> serde_json::Value {
        let of = |(number, probe): (usize, &Probe)| probe.saved(&format!("reference/{number}"), tensors);
        let probes: Vec<usize> = self.probes.iter().enumerate().map(of).collect();
        serde_json::json!({ "offered": probes, "age": self.age })
    }

    /// Returns what was saved.
    pub(super) fn of(value: &serde_json::Value, tensors: &Tensors) -> Result<Reference, String> {
        let number = |value: &serde_json::Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
        let probe = |(position, offered): (usize, &serde_json::Value)| {
            Probe::of(&format!("reference/{position}"), number(offered)?, tensors)
        };
        let probes = value["offered"].as_array().map(|offered| offered.iter().enumerate().map(probe).collect());
        let (Some(Some(probes)), Some(age)) = (probes, number(&value["age"])) else {
            return Err("it has no reference of the policy's signals".into());
        };
        Ok(Reference { probes: Arc::new(probes), age })
    }
}

impl Outputs {
    /// Loads the graph of the outputs. The reference is the model as it is.
    ///
    /// # Errors
    /// The engine refuses the graph.
    pub(super) fn new(
        engine: &mut dyn Engine,
        setup: &Setup<'_>,
        state: &State,
        built: UnitOutputs,
        signals: Vec<Signal>,
        reference: plan::Reference,
    ) -> Result<Outputs, RunError> {
        let session = engine.load(&built.model)?;
        let keep = Keep {
            samples: reference.samples.min(setup.train.rows()),
            features: signals.contains(&Signal::SimilarityPreserving),
            positions: signals.iter().any(|signal| *signal != Signal::SimilarityPreserving),
        };
        let batches = HashMap::new();
        let mut outputs = Outputs {
            signals,
            built,
            session,
            batches,
            keep,
            refresh: reference.refresh,
            reference: Default::default(),
        };
        outputs.reference.probes = Arc::new(outputs.probe(engine, setup, state)?);
        Ok(outputs)
    }

    /// Returns what the signals say of each unit that is not frozen, and makes the model the reference where that is
    /// old enough.
    ///
    /// # Errors
    /// Those of the engine.
    pub(super) fn measure(
        &mut self,
        engine: &mut dyn Engine,
        setup: &Setup<'_>,
        state: &State,
        frozen: &[bool],
    ) -> Result<Measured, RunError> {
        let now = self.probe(engine, setup, state)?;
        let mut measured = Measured::new();
        for signal in &self.signals {
            let units = self.built.units.iter().enumerate().map(|(unit, output)| {
                let active = !frozen.get(unit).copied().unwrap_or(false);
                let (position, _) = (*output).filter(|_| active)?;
                compare(*signal, now.get(position)?, self.reference.probes.get(position)?)
            });
            measured.insert(*signal, units.collect());
        }
        self.reference.age += 1;
        if self.reference.age >= self.refresh {
            self.reference = Reference { probes: Arc::new(now), age: 0 };
        }
        Ok(measured)
    }

    /// Takes the outputs of the model as it is.
    fn probe(&mut self, engine: &mut dyn Engine, setup: &Setup<'_>, state: &State) -> Result<Vec<Probe>, RunError> {
        let mut probes = vec![Probe::default(); self.built.model.graph.outputs().len()];
        let mut channels = vec![false; probes.len()];
        for (position, own) in self.built.units.iter().flatten() {
            channels[*position] = *own;
        }
        let mut left = self.keep.samples;
        for index in 0..setup.train.len() {
            if left == 0 {
                break;
            }
            let batch = setup.train.in_file_order(index)?;
            let graph = &self.built.model.graph;
            let read = |name: &str| graph.find(name).is_some_and(|id| graph.inputs().contains(&id));
            let batch: Vec<_> = batch.into_iter().filter(|(name, _)| read(name)).collect();
            let rows = setup.train.rows_of(index);
            let results = self.run(engine, state, &batch)?;
            for ((probe, output), channels) in probes.iter_mut().zip(&results).zip(&channels) {
                probe.add(output, *channels, rows, left, self.keep);
            }
            left -= rows.min(left);
        }
        Ok(probes)
    }

    fn run(
        &mut self,
        engine: &mut dyn Engine,
        state: &State,
        batch: &[(String, crate::graph::Tensor)],
    ) -> Result<Vec<crate::graph::Tensor>, EngineError> {
        let key: Vec<Vec<usize>> = batch.iter().map(|(_, tensor)| tensor.shape().to_vec()).collect();
        if let Some((binding, buffers)) = self.batches.get(&key) {
            for ((_, tensor), buffer) in batch.iter().zip(buffers) {
                engine.write(*buffer, tensor)?;
            }
            return engine.run(*binding);
        }
        let mut buffers = Vec::with_capacity(batch.len());
        for (_, tensor) in batch {
            buffers.push(engine.allocate(tensor)?);
        }
        let graph = &self.built.model.graph;
        let own = batch.iter().map(|(name, _)| name.as_str()).zip(buffers.iter().copied());
        let inputs: Vec<(&str, BufferId)> =
            own.chain(state.values().filter(|(name, _)| graph.find(name).is_some())).collect();
        let outputs: Vec<(&str, Target)> =
            graph.outputs().iter().map(|id| (graph.value_name(*id), Target::Host)).collect();
        let binding = engine.bind(self.session, &inputs, &outputs)?;
        self.batches.insert(key, (binding, buffers));
        engine.run(binding)
    }
}

/// Returns how alike two outputs of one unit are; `None` where the measure is not defined on them.
fn compare(signal: Signal, now: &Probe, before: &Probe) -> Option<f64> {
    let positions = || Some((now.activations()?, before.activations()?));
    match signal {
        Signal::SimilarityPreserving => now.similarities()?.loss(before.similarities()?).ok(),
        Signal::Svcca => positions().and_then(|(x, y)| Some(signals::svcca(&x, &y, SVCCA_SHARE).ok()?.mean())),
        Signal::Pwcca => positions().and_then(|(x, y)| Some(signals::pwcca(&x, &y, Directions::Variates).ok()?.value)),
        Signal::Cka => positions().and_then(|(x, y)| signals::linear_cka(&x, &y).ok()),
        Signal::MinibatchCka => {
            let mut sums = MinibatchCka::new();
            for (x, y) in now.batches(MINIBATCH).iter().zip(&before.batches(MINIBATCH)) {
                // A rest of fewer than four is left out.
                if x.datapoints() >= 4 {
                    sums.add(x, y).ok()?;
                }
            }
            sums.value().ok()
        }
        _ => None,
    }
}
