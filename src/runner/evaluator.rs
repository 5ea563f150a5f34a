//! The eval graph on an engine, kept for the whole run.

use super::engine::{BindingId, BufferId, Engine, EngineError, SessionId, Target};
use super::metrics::Metrics;
use super::state::State;
use super::train::RunError;
use crate::data::Loader;
use crate::graph::{Model, Tensor};
use crate::losses::LossSpec;
use crate::training::names;
use std::collections::{BTreeMap, HashMap};

/// A session of the eval graph that reads the state's buffers.
pub struct Evaluator {
    model: Model,
    prediction: Option<String>,
    session: SessionId,
    batches: HashMap<Vec<Vec<usize>>, (BindingId, Vec<BufferId>)>,
}

impl Evaluator {
    /// Loads the eval graph; `prediction` is the output that metrics are taken of, where there is one.
    ///
    /// # Errors
    /// The engine refuses the graph.
    pub fn new(engine: &mut dyn Engine, model: Model, prediction: Option<&str>) -> Result<Evaluator, EngineError> {
        let session = engine.load(&model)?;
        Ok(Evaluator { model, prediction: prediction.map(str::to_string), session, batches: HashMap::new() })
    }

    /// Runs all batches and returns the metrics of `loss`, which may be one term of a `sum`.
    ///
    /// # Errors
    /// Those of the engine and the data.
    pub fn run(
        &mut self,
        engine: &mut dyn Engine,
        state: &State,
        loader: &Loader,
        loss: &LossSpec,
        sum: bool,
    ) -> Result<BTreeMap<String, f64>, RunError> {
        let mut metrics = Metrics::default();
        let compared = names::target(loss.target.as_deref());
        for index in 0..loader.batches().len() {
            let batch = loader.take(0, index).0?;
            let results = self.batch(engine, state, &batch)?;
            let target = batch.iter().find(|(name, _)| *name == compared).or(batch.first());
            if let ([value, rest @ ..], Some((_, target))) = (results.as_slice(), target) {
                let value = value.to_f64s().and_then(|values| values.first().copied()).unwrap_or(f64::NAN);
                metrics.add(loss, sum, value, rest.first().unwrap_or(target), target);
            }
        }
        Ok(metrics.values())
    }

    fn batch(
        &mut self,
        engine: &mut dyn Engine,
        state: &State,
        batch: &[(String, Tensor)],
    ) -> Result<Vec<Tensor>, EngineError> {
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
        let graph = &self.model.graph;
        let mut inputs: Vec<(&str, BufferId)> =
            batch.iter().map(|(name, _)| name.as_str()).zip(buffers.iter().copied()).collect();
        inputs.extend(state.values().chain(state.slots()).filter(|(name, _)| graph.find(name).is_some()));
        let outputs = [Some(names::LOSS), self.prediction.as_deref()];
        let outputs: Vec<(&str, Target)> = outputs.into_iter().flatten().map(|name| (name, Target::Host)).collect();
        let binding = engine.bind(self.session, &inputs, &outputs)?;
        self.batches.insert(key, (binding, buffers));
        engine.run(binding)
    }
}
