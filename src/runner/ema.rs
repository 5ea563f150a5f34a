//! Exponential moving averages of the parameters.
//!
//! Every parameter has one, also while it is frozen, whatever the phases of the run are. The first update copies the
//! parameters; update `t` from 1 on (counted from 0) moves each average by `average + (1 - d)(parameter - average)`, with
//! `d` the decay or, with `warmup`, `min(decay, (1 + t) / (10 + t))`. This is
//! `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn`: an average of what never moves is that, bit for bit.
//! Running statistics have no average: the averaged model has those of the model.

use super::engine::{BindingId, BufferId, Engine, EngineError, Target};
use super::state::State;
use super::train::RunError;
use crate::graph::{DType, Fact, Tensor};
use crate::training::average::{WEIGHT, average, ports};
use crate::training::{Prepared, TrainingError};
use serde::{Deserialize, Serialize};

/// The name under which [`State`] holds how often averages were updated, an int64 scalar.
pub const UPDATES: &str = "ema.updates";

/// `[ema]`: averages of the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Ema {
    /// What an average keeps of itself in an update, in [0, 1); 0.999 by default.
    #[serde(default = "decay")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0), extend("exclusiveMaximum" = 1)))]
    pub decay: f64,
    /// Whether the decay rises as `(1 + t) / (10 + t)` over the first updates; false by default.
    #[serde(default)]
    pub warmup: bool,
    /// Steps from one update to the next, at least 1; 1 by default.
    #[serde(default = "one")]
    pub every: u64,
    /// Whether the averaged model is evaluated and written as the trained one; true by default.
    #[serde(default = "yes")]
    pub evaluate: bool,
}

fn decay() -> f64 {
    0.999
}

fn one() -> u64 {
    1
}

fn yes() -> bool {
    true
}

impl Default for Ema {
    fn default() -> Ema {
        Ema { decay: decay(), warmup: false, every: one(), evaluate: yes() }
    }
}

impl Ema {
    /// Returns the key and the reason of a value out of its range.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        if !(0.0..1.0).contains(&self.decay) {
            return Some(("ema.decay", format!("expected a number in [0, 1), found {}", self.decay)));
        }
        (self.every == 0).then(|| ("ema.every", "expected 1 or more, found 0".to_string()))
    }

    /// Returns what an average takes of the new value in update `t`, from 0.
    fn weight(&self, t: i64) -> f64 {
        let rising = (1.0 + t as f64) / (10.0 + t as f64);
        1.0 - if self.warmup { self.decay.min(rising) } else { self.decay }
    }
}

/// The averages of a run on an engine.
pub(super) struct Averager {
    ema: Ema,
    binding: BindingId,
    weight: BufferId,
    /// Names of what is averaged.
    names: Vec<String>,
}

impl Averager {
    /// Makes averages that start at the values of the state.
    ///
    /// # Errors
    /// A parameter has the name of the count, or the engine fails.
    pub(super) fn new(
        engine: &mut dyn Engine,
        ema: Ema,
        prepared: &Prepared,
        state: &mut State,
    ) -> Result<Averager, RunError> {
        if prepared.model.graph.find(UPDATES).is_some() {
            let meaning = "the count of updates of the averages".into();
            return Err(TrainingError::Collision { name: UPDATES.into(), meaning }.into());
        }
        let (mut names, mut facts) = (Vec::new(), Vec::new());
        for name in prepared.trainable() {
            let value = engine.read(state.value(name))?;
            if matches!(value.dtype(), DType::F32 | DType::F64) {
                state.add_average(engine, name, &value)?;
                facts.push(Fact::fixed(value.dtype(), value.shape()));
                names.push(name.to_string());
            }
        }
        state.add_average(engine, UPDATES, &Tensor::scalar(0i64))?;
        let session = engine.load(&average(&facts)?)?;
        let weight = engine.allocate(&Tensor::scalar(0f32))?;
        let (mut inputs, mut outputs) = (vec![(WEIGHT.to_string(), weight)], Vec::new());
        for (position, name) in names.iter().enumerate() {
            let [value, old, next] = ports(position);
            let Some(buffer) = state.average(name) else { continue };
            inputs.extend([(value, state.value(name)), (old, buffer)]);
            outputs.push((next, Target::Buffer(buffer)));
        }
        let inputs: Vec<(&str, BufferId)> = inputs.iter().map(|(name, buffer)| (name.as_str(), *buffer)).collect();
        let outputs: Vec<(&str, Target)> = outputs.iter().map(|(name, target)| (name.as_str(), *target)).collect();
        let binding = engine.bind(session, &inputs, &outputs)?;
        Ok(Averager { ema, binding, weight, names })
    }

    /// Updates the averages after a step, the run's step of this number from 1, where it is one of those.
    ///
    /// # Errors
    /// Those of the engine.
    pub(super) fn step(&self, engine: &mut dyn Engine, state: &State, step: usize) -> Result<(), EngineError> {
        let every = usize::try_from(self.ema.every).unwrap_or(usize::MAX).max(1);
        let Some(count) = state.average(UPDATES).filter(|_| step.is_multiple_of(every)) else { return Ok(()) };
        let updates = engine.read(count)?.to_ints().and_then(|counts| counts.first().copied()).unwrap_or(0);
        if updates == 0 {
            for name in &self.names {
                let Some(buffer) = state.average(name) else { continue };
                let value = engine.read(state.value(name))?;
                engine.write(buffer, &value)?;
            }
        } else {
            engine.write(self.weight, &Tensor::scalar(self.ema.weight(updates) as f32))?;
            engine.run(self.binding)?;
        }
        engine.write(count, &Tensor::scalar(updates.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_falls_with_the_updates_where_the_decay_rises() {
        let ema = Ema { decay: 0.9, ..Ema::default() };
        assert!((ema.weight(1) - 0.1).abs() < 1e-12);
        let rising = Ema { warmup: true, ..ema };
        assert!((rising.weight(1) - 9.0 / 11.0).abs() < 1e-12);
        assert!((rising.weight(1000) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn ranges() {
        assert_eq!(Ema::default().problem(), None);
        for decay in [1.0, -0.1, f64::NAN] {
            assert_eq!(Ema { decay, ..Ema::default() }.problem().map(|(key, _)| key), Some("ema.decay"));
        }
        assert_eq!(Ema { every: 0, ..Ema::default() }.problem().map(|(key, _)| key), Some("ema.every"));
    }
}
