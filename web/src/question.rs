//! What the page asks.

use crate::Failure;
use freeze_plan::plan::PlanOptions;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A question.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// The policies and their settings.
    Policies,
    /// Nothing: forget the model.
    Close,
    /// The model that was kept, under this name; answered with the pieces of other files that are worth reading.
    Open(String),
    /// The bytes that were kept, as a piece of another file.
    Piece(Piece),
    /// The model, with the pieces that were given; answered with its inputs.
    Read,
    /// The page of a plan.
    Page(Request),
    /// The text of a plan file.
    File(Request),
}

/// Where data of a tensor lie in another file, in bytes.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
pub struct Piece {
    /// The file, relative to the model.
    pub file: String,
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
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
        serde_json::from_value(self.options.clone().into()).map_err(|error| Failure::new(error.to_string()))
    }
}
