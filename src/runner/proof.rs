//! Proof that what is frozen did not move: a hash of each value at the start of a phase, compared at its end.

use super::engine::{Engine, EngineError};
use super::event::RunEvent;
use super::state::State;
use super::train::RunError;
use crate::plan::{Segment, sha256_hex};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The hashes of what a phase holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Proof {
    /// Names of parameters and statistics with the SHA-256 of their bytes.
    hashes: Vec<(String, String)>,
    parameters: usize,
}

impl Proof {
    /// Returns the hashes of the frozen parameters and of the statistics that stay, as they are now; those that the proof
    /// of the phase before ended with are taken from it.
    pub(super) fn of(
        engine: &dyn Engine,
        state: &State,
        segment: &Segment,
        before: Option<&Proof>,
    ) -> Result<Proof, EngineError> {
        let known: HashMap<&str, &str> =
            before.iter().flat_map(|proof| &proof.hashes).map(|(name, hash)| (name.as_str(), hash.as_str())).collect();
        let held = |names: &[String]| names.iter().filter(|name| state.find(name).is_some()).cloned().collect();
        let [parameters, statistics]: [Vec<String>; 2] = [held(&segment.frozen), held(&segment.statistics)];
        let count = parameters.len();
        let hash = |name: String| {
            let hash = match known.get(name.as_str()) {
                Some(hash) => (*hash).to_string(),
                None => sha256_hex(engine.read(state.value(&name))?.bytes()),
            };
            Ok((name, hash))
        };
        let hashes = parameters.into_iter().chain(statistics).map(hash).collect::<Result<Vec<_>, EngineError>>()?;
        Ok(Proof { hashes, parameters: count })
    }

    /// Returns true where nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Refuses values that are not what they were.
    pub(super) fn check(&self, engine: &dyn Engine, state: &State, from: usize, to: usize) -> Result<(), RunError> {
        for (name, before) in &self.hashes {
            let after = sha256_hex(engine.read(state.value(name))?.bytes());
            if after != *before {
                return Err(RunError::Moved { name: name.clone(), from, to, before: before.clone(), after });
            }
        }
        Ok(())
    }

    /// Returns the event that says so.
    pub(super) fn event(&self, from_epoch: usize, to_epoch: usize) -> RunEvent {
        let lines: String = self.hashes.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect();
        RunEvent::Proof {
            from_epoch,
            to_epoch,
            parameters: self.parameters,
            statistics: self.hashes.len().saturating_sub(self.parameters),
            sha256: sha256_hex(lines.as_bytes()),
        }
    }
}
