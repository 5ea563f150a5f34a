//! What the page asks.

use crate::Failure;
use freeze_plan::plan::PlanOptions;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A question.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// The policies and their settings.
    Policies,
    /// The model that was kept, under this name; answered with its inputs.
    Open(String),
    /// The page of a plan.
    Page(Request),
    /// The text of a plan file.
    File(Request),
}

/// What a plan is to be made for; options have the keys of the table `[freeze]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default = "ten")]
    pub epochs: usize,
    #[serde(default)]
    pub steps_per_epoch: usize,
    #[serde(default = "one")]
    pub batch: usize,
    #[serde(default)]
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Without it, those of the training step that the model carries, else 1.
    pub slots: Option<u64>,
    #[serde(default)]
    options: Map<String, Value>,
}

fn ten() -> usize {
    10
}

fn one() -> usize {
    1
}

impl Request {
    /// Returns the options, or the first of them that is not what its name takes.
    pub fn options(&self) -> Result<PlanOptions, Failure> {
        for (name, value) in &self.options {
            let alone = Map::from_iter([(name.clone(), value.clone())]);
            if let Err(error) = serde_json::from_value::<PlanOptions>(alone.into()) {
                return Err(Failure::new(format!("{name} is {value}: {error}")));
            }
        }
        let options: PlanOptions =
            serde_json::from_value(self.options.clone().into()).map_err(|error| Failure::new(error.to_string()))?;
        match options.problem() {
            Some((name, reason)) => Err(Failure::new(format!("{name}: {reason}"))),
            None => Ok(options),
        }
    }
}
