//! Options for what BatchNormalization and Dropout do in frozen units.

use super::failure::Failure;
use super::model::Loaded;
use super::options::word;
use crate::error::ErrorKind;
use crate::modules::{UnitKind, units};
use crate::plan::{BatchNorm, EpochPlan, FreezePlan, FrozenDropout, spoken_for};
use crate::planner::companions;
use clap::Args;
use serde::de::DeserializeOwned;
use std::collections::HashSet;

/// What a frozen unit does beside keeping its parameters.
#[derive(Args, Clone, Debug)]
pub struct FrozenUnitArgs {
    /// BatchNormalization in frozen units: train (default: the statistics of the batch, running ones move),
    /// frozen (the running statistics, which stay), or both parts, as affine=train,statistics=frozen
    #[arg(long, value_name = "KIND")]
    batch_norm: Option<String>,
    /// Dropout in frozen units: train (default: it drops) or off
    #[arg(long, value_name = "KIND")]
    frozen_dropout: Option<String>,
}

impl FrozenUnitArgs {
    /// Returns true when something was asked for.
    pub fn given(&self) -> bool {
        self.batch_norm.is_some() || self.frozen_dropout.is_some()
    }

    /// Returns what was asked of BatchNormalization.
    pub fn batch_norm(&self) -> Result<Option<BatchNorm>, Failure> {
        let wrong = |reason| Failure::new(ErrorKind::Usage, format!("--batch-norm: {reason}"));
        self.batch_norm.as_deref().map(|text| text.parse().map_err(wrong)).transpose()
    }

    /// Returns what was asked of Dropout.
    pub fn dropout(&self) -> Result<Option<FrozenDropout>, Failure> {
        word("--frozen-dropout", &self.frozen_dropout)
    }
}

/// What is frozen in the graphs of a phase.
pub struct Still {
    /// The parameters.
    pub parameters: Vec<String>,
    /// Running statistics and outputs of Dropout.
    pub companions: Vec<String>,
}

impl Still {
    /// Returns what an epoch of a plan says.
    pub fn planned(entry: &EpochPlan) -> Still {
        let companions = entry.statistics.iter().chain(&entry.dropout_off).cloned().collect();
        Still { parameters: entry.frozen.clone(), companions }
    }

    /// Returns what is frozen with the parameters that a plan chose, as the options or else the plan say.
    pub fn of(
        args: &FrozenUnitArgs,
        loaded: &Loaded,
        plan: &FreezePlan,
        chosen: Vec<String>,
        every_dropout: bool,
    ) -> Result<Still, Failure> {
        let batch_norm = args.batch_norm()?.map_or_else(|| setting(plan, "batch_norm"), Ok)?;
        let dropout = args.dropout()?.map_or_else(|| setting(plan, "dropout"), Ok)?;
        let kind: UnitKind = setting(plan, "unit")?;
        let explicit = spoken_for(&units(&loaded.analysis.tree, kind), "freeze", &plan.policy.patterns("freeze"))?;
        let always = loaded.frozen();
        let explicit: HashSet<&str> = explicit.iter().chain(&always).map(String::as_str).collect();
        let frozen: HashSet<&str> = chosen.iter().map(String::as_str).collect();
        let companions = companions(&loaded.analysis, every_dropout);
        let held = companions.held(&frozen, &explicit, batch_norm, dropout);
        let trains: HashSet<&str> = held.trains.iter().copied().collect();
        Ok(Still {
            companions: held.names().map(String::from).collect(),
            parameters: chosen.iter().filter(|name| !trains.contains(name.as_str())).cloned().collect(),
        })
    }

    /// Returns the names of all that is frozen.
    pub fn names(&self) -> HashSet<&str> {
        self.parameters.iter().chain(&self.companions).map(String::as_str).collect()
    }
}

/// Returns a setting of a plan, or its default.
fn setting<T: DeserializeOwned + Default>(plan: &FreezePlan, name: &str) -> Result<T, Failure> {
    let Some(value) = plan.policy.settings.get(name) else { return Ok(T::default()) };
    let wrong = |error| Failure::new(ErrorKind::BadInput, format!("the plan's setting {name}: {error}"));
    serde_json::from_value(value.clone()).map_err(wrong)
}
