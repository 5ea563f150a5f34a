//! The sessions of a phase.

use super::engine::{Engine, EngineError, Loaded, Loader, SessionId};
use crate::graph::{Fact, Model};
use crate::training::{TrainStep, finite};

/// Elements from which on the train graph sums a gradient, in parallel and while it is in the cache. Smaller ones are
/// looked at after the run, which costs less than a node.
const SUMMED: usize = 1 << 16;

/// Returns true where the train graph sums a gradient of this fact.
pub(super) fn is_summed(fact: &Fact) -> bool {
    fact.sizes().is_none_or(|sizes| sizes.iter().product::<usize>() >= SUMMED)
}

/// The sessions of a step that an engine runs.
pub(super) struct Sessions {
    pub train: SessionId,
    /// The output of the train graph that is the sum of all large gradients.
    pub sum: Option<String>,
    pub optimizer: Option<SessionId>,
}

/// The sessions of a step that were made beside an engine.
pub(super) struct LoadedSessions {
    train: Loaded,
    sum: Option<String>,
    optimizer: Option<Loaded>,
}

impl Sessions {
    /// Loads the graphs of a step.
    ///
    /// # Errors
    /// The engine refuses a graph.
    pub(super) fn load(engine: &mut dyn Engine, step: &TrainStep) -> Result<Sessions, EngineError> {
        let (train, sum) = with_sum(step, |model| engine.load(model))?;
        let optimizer = step.optimizer.as_ref().map(|model| engine.load(model)).transpose()?;
        Ok(Sessions { train, sum, optimizer })
    }
}

impl LoadedSessions {
    /// Loads the graphs of a step beside the engine.
    ///
    /// # Errors
    /// The engine refuses a graph.
    pub(super) fn load(loader: &dyn Loader, step: &TrainStep) -> Result<LoadedSessions, EngineError> {
        let (train, sum) = with_sum(step, |model| loader.load(model))?;
        let optimizer = step.optimizer.as_ref().map(|model| loader.load(model)).transpose()?;
        Ok(LoadedSessions { train, sum, optimizer })
    }

    /// Gives the sessions to the engine.
    pub(super) fn adopt(self, engine: &mut dyn Engine) -> Sessions {
        let LoadedSessions { train, sum, optimizer } = self;
        let train = engine.adopt(train);
        Sessions { train, sum, optimizer: optimizer.map(|optimizer| engine.adopt(optimizer)) }
    }
}

/// Loads the train graph of a step with one more output, the sum of all large gradients, and returns its name.
fn with_sum<T>(
    step: &TrainStep,
    load: impl FnOnce(&Model) -> Result<T, EngineError>,
) -> Result<(T, Option<String>), EngineError> {
    let large = step.passed.iter().filter(|(_, fact)| is_summed(fact));
    let gradients: Vec<&str> = large.map(|(name, _)| name.as_str()).collect();
    match finite::summed(&step.train, &gradients).expect("invariant: a sum of outputs fits any graph") {
        Some((model, name)) => Ok((load(&model)?, Some(name))),
        None => Ok((load(&step.train)?, None)),
    }
}
