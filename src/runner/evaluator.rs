//! The eval graph on an engine, kept for the whole run.

use super::engine::{BindingId, BufferId, Engine, EngineError, SessionId, Target};
use super::state::State;
use super::train::RunError;
use crate::data::Loader;
use crate::graph::{Model, Tensor};
use crate::metrics::{Batch, Metrics, Results};
use crate::training::names;
use std::collections::HashMap;

/// A session of the eval graph that reads the state's buffers.
pub struct Evaluator {
    model: Model,
    prediction: Option<String>,
    /// Whether averages take the place of parameters.
    averaged: bool,
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
        let prediction = prediction.map(str::to_string);
        Ok(Evaluator { model, prediction, averaged: false, session, batches: HashMap::new() })
    }

    /// Evaluates averages in the place of parameters, where there are any.
    pub fn averaged(self, averaged: bool) -> Evaluator {
        Evaluator { averaged, ..self }
    }

    /// Runs all batches and returns what `metrics` are of it; `compared` is the input that is the target.
    ///
    /// # Errors
    /// Those of the engine and the data, and what metrics cannot be taken of.
    pub fn run(
        &mut self,
        engine: &mut dyn Engine,
        state: &State,
        loader: &Loader,
        mut metrics: Metrics,
        compared: &str,
    ) -> Result<Results, RunError> {
        for index in 0..loader.batches().len() {
            let batch = loader.take(0, index).0?;
            let results = self.batch(engine, state, &batch)?;
            let Some(loss) = results.first() else { continue };
            let rows = loader.batches().rows_of(index);
            let given = batch.first().and_then(|(_, tensor)| tensor.shape().first().copied()).unwrap_or(rows);
            let counts: Vec<bool> = (0..given).map(|row| row < rows).collect();
            metrics.add(&Batch {
                loss: loss.to_f64s().and_then(|values| values.first().copied()).unwrap_or(f64::NAN),
                rows,
                prediction: results.get(1),
                target: batch.iter().find(|(name, _)| name == compared).map(|(_, target)| target),
                counts: (given > rows).then_some(counts.as_slice()),
            })?;
        }
        Ok(metrics.results())
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
        inputs.extend(state.evaluated(self.averaged).filter(|(name, _)| graph.find(name).is_some()));
        let outputs = [Some(names::LOSS), self.prediction.as_deref()];
        let outputs: Vec<(&str, Target)> = outputs.into_iter().flatten().map(|name| (name, Target::Host)).collect();
        let binding = engine.bind(self.session, &inputs, &outputs)?;
        self.batches.insert(key, (binding, buffers));
        engine.run(binding)
    }
}
