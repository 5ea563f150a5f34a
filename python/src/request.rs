//! What a Python program asks for, as JSON.

use crate::failure::Failure;
use crate::model::Source;
use freeze_plan::plan::PlanOptions;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default = "ten")]
    epochs: usize,
    #[serde(default)]
    steps_per_epoch: usize,
    #[serde(default = "one")]
    batch: usize,
    #[serde(default)]
    shapes: Vec<(String, Vec<usize>)>,
    slots: Option<u64>,
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
    /// Reads a request.
    pub fn read(text: &str) -> Result<Request, Failure> {
        serde_json::from_str(text).map_err(|error| Failure::usage(error.to_string()))
    }

    /// Returns the options, or the first of them that is not what its name takes.
    fn options(&self) -> Result<PlanOptions, Failure> {
        for (name, value) in &self.options {
            let alone = Map::from_iter([(name.clone(), value.clone())]);
            if let Err(error) = serde_json::from_value::<PlanOptions>(alone.into()) {
                return Err(Failure::usage(format!("{name} is {value}: {error}")));
            }
        }
        serde_json::from_value(self.options.clone().into()).map_err(|error| Failure::usage(error.to_string()))
    }

    /// Returns the text of the plan file, as `freeze-plan MODEL --format json` writes it.
    pub fn plan(&self, source: Source) -> Result<String, Failure> {
        let mut planning = source
            .planning()
            .epochs(self.epochs)
            .steps_per_epoch(self.steps_per_epoch)
            .batch(self.batch)
            .options(self.options()?);
        for (input, shape) in &self.shapes {
            planning = planning.shape(input, shape);
        }
        if let Some(slots) = self.slots {
            planning = planning.slots(slots);
        }
        Ok(planning.open()?.identified_plan()?.to_json())
    }

    /// Returns the modules of the model as JSON.
    pub fn tree(&self, source: Source) -> Result<String, Failure> {
        let options = self.options()?;
        let loaded = source.load()?.with_roles(&options.parameter, &options.buffer)?;
        Ok(crate::owners::told(&loaded.analysis).to_string())
    }
}
