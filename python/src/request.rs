//! What a Python program asks for, as JSON.

use crate::failure::Failure;
use crate::model::{Opened, Source};
use freeze_plan::modules::units;
use freeze_plan::plan::{PlanOptions, frozen_unless_kept};
use freeze_plan::planner::{self, identify, sizes};
use freeze_plan::training::stage;
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
        let options: PlanOptions =
            serde_json::from_value(self.options.clone().into()).map_err(|error| Failure::usage(error.to_string()))?;
        match options.problem() {
            Some((name, reason)) => Err(Failure::usage(format!("{name}: {reason}"))),
            None => Ok(options),
        }
    }

    /// Returns the text of the plan file, as `freeze-plan MODEL --format json` writes it.
    pub fn plan(&self, source: Source) -> Result<String, Failure> {
        let mut options = self.options()?;
        let mut opened = source.open(&options.parameter, &options.buffer)?;
        let numbers = sizes(&opened.analysis.model.graph, self.batch, &self.shapes)?;
        let step = self.step(&mut opened);
        let frozen = units(&opened.analysis.tree, options.unit());
        options.freeze.extend(step.as_ref().map(|step| step.stays.clone()).unwrap_or_default());
        options.freeze.extend(frozen_unless_kept(&frozen, &opened.frozen, &options.keep)?);
        let request = planner::Request {
            epochs: self.epochs,
            steps_per_epoch: self.steps_per_epoch,
            options: &options,
            slots: self.slots.or(step.as_ref().map(|step| step.slots)).unwrap_or(1),
            own_slots: Default::default(),
            sizes: numbers,
        };
        let mut plan = planner::plan(&opened.file, &opened.analysis, &request)?;
        plan.summary.notes.extend(opened.notes);
        plan.summary.notes.extend(step.map(|step| step.about));
        identify(&mut plan, &opened.file);
        Ok(plan.to_json())
    }

    /// Returns the training step that the model carries. One that cannot be used is told and left out.
    fn step(&self, opened: &mut Opened) -> Option<Step> {
        if opened.file.training.is_empty() {
            return None;
        }
        match stage::prepare(&opened.file, &opened.analysis, 1) {
            Ok((prepared, stage)) => {
                let trains = prepared.trainable();
                let stays = opened.analysis.trainable().into_iter().filter(|name| !trains.contains(name));
                let stays = stays.map(globset::escape).collect();
                Some(Step { stays, slots: stage.slots_per_parameter(), about: stage.describe() })
            }
            Err(error) => {
                let text = Failure::from(error);
                opened.notes.push(format!("the training information is not used: {}", text.message()));
                None
            }
        }
    }

    /// Returns the modules of the model as JSON.
    pub fn tree(&self, source: Source) -> Result<String, Failure> {
        let options = self.options()?;
        let opened = source.open(&options.parameter, &options.buffer)?;
        Ok(crate::owners::told(&opened.analysis).to_string())
    }
}

/// A training step that a model carries.
struct Step {
    stays: Vec<String>,
    slots: u64,
    about: String,
}
