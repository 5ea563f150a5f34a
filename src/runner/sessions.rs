//! The sessions of a phase.

use super::cache::Fronted;
use super::engine::{Engine, EngineError, Loaded, Loader, SessionId};
use super::front::Front;
use crate::graph::{Fact, Model};
use crate::training::{TrainStep, finite};
use std::borrow::Cow;

/// Elements from which on the train graph sums a gradient, in parallel and while it is in the cache. Smaller ones are
/// looked at after the run, which costs less than a node; but for an engine from which reading costs more.
const SUMMED: usize = 1 << 16;

/// Returns true where the train graph sums a gradient of this fact.
pub(super) fn is_summed(remote: bool, fact: &Fact) -> bool {
    remote || fact.sizes().is_none_or(|sizes| sizes.iter().product::<usize>() >= SUMMED)
}

/// The sessions of a step that an engine runs.
pub(super) struct Sessions {
    pub train: SessionId,
    /// The output of the train graph that is the sum of all large gradients.
    pub sum: Option<String>,
    pub optimizer: Option<SessionId>,
    /// The frozen prefix, where it runs on its own.
    pub front: Option<Front>,
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
        Sessions::behind(engine, step, None)
    }

    /// As [`Sessions::load`], where one is given with the frozen prefix of the train graph as a session of its own.
    ///
    /// # Errors
    /// The engine refuses a graph.
    pub(super) fn behind(
        engine: &mut dyn Engine,
        step: &TrainStep,
        split: Option<Fronted>,
    ) -> Result<Sessions, EngineError> {
        let rest = split.as_ref().map_or(&step.train, |(split, _)| &split.rest);
        let (model, sum) = summed(engine.info().remote, rest, step);
        let train = engine.load(&model)?;
        let optimizer = step.optimizer.as_ref().map(|model| engine.load(model)).transpose()?;
        let mut sessions = Sessions { train, sum, optimizer, front: None };
        if let Some((split, growth)) = split {
            sessions.front = Some(Front::new(engine, &split, growth)?);
        }
        Ok(sessions)
    }

    /// Puts the frozen prefix of the train graph and what is left of it in the place of the whole.
    ///
    /// # Errors
    /// The engine refuses a graph.
    pub(super) fn divide(
        &mut self,
        engine: &mut dyn Engine,
        step: &TrainStep,
        (split, growth): Fronted,
    ) -> Result<(), EngineError> {
        engine.unload(self.train);
        let (model, sum) = summed(engine.info().remote, &split.rest, step);
        (self.train, self.sum) = (engine.load(&model)?, sum);
        self.front = Some(Front::new(engine, &split, growth)?);
        Ok(())
    }
}

impl LoadedSessions {
    /// Loads the graphs of a step beside the engine.
    ///
    /// # Errors
    /// The engine refuses a graph.
    pub(super) fn load(loader: &dyn Loader, step: &TrainStep) -> Result<LoadedSessions, EngineError> {
        let (model, sum) = summed(loader.remote(), &step.train, step);
        let train = loader.load(&model)?;
        let optimizer = step.optimizer.as_ref().map(|model| loader.load(model)).transpose()?;
        Ok(LoadedSessions { train, sum, optimizer })
    }

    /// Gives the sessions to the engine.
    pub(super) fn adopt(self, engine: &mut dyn Engine) -> Sessions {
        let LoadedSessions { train, sum, optimizer } = self;
        let train = engine.adopt(train);
        Sessions { train, sum, optimizer: optimizer.map(|optimizer| engine.adopt(optimizer)), front: None }
    }
}

/// Returns the train graph of a step as an engine runs it, and the name of the sum.
pub(super) fn train_graph(remote: bool, step: &TrainStep) -> (Cow<'_, Model>, Option<String>) {
    summed(remote, &step.train, step)
}

/// As [`train_graph`], of what is left of a train graph.
pub(super) fn train_graph_of<'m>(remote: bool, train: &'m Model, step: &TrainStep) -> (Cow<'m, Model>, Option<String>) {
    summed(remote, train, step)
}

/// Returns a train graph, or what is left of it, with one more output, the sum of all large gradients, and its name.
fn summed<'m>(remote: bool, train: &'m Model, step: &TrainStep) -> (Cow<'m, Model>, Option<String>) {
    let large = step.passed.iter().filter(|(_, fact)| is_summed(remote, fact));
    let gradients: Vec<&str> = large.map(|(name, _)| name.as_str()).collect();
    match finite::summed(train, &gradients).expect("invariant: a sum of outputs fits any graph") {
        Some((model, name)) => (Cow::Owned(model), Some(name)),
        None => (Cow::Borrowed(train), None),
    }
}
