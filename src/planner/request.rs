//! What a plan is made for, as programs in other languages say it.

use super::{PlannerError, Planning};
use crate::plan::PlanOptions;
use serde::Deserialize;
use serde_json::{Map, Value};

/// What a plan is made for, as data: [`PlanRequest::of`] takes what a [`Planning`] is told by its methods.
///
/// ```
/// let text = r#"{"epochs": 4, "batch": 64, "options": {"policy": "linear", "freeze_start": 0.25, "keep": ["conv1.*"]}}"#;
/// let request: freeze_plan::planner::PlanRequest = serde_json::from_str(text)?;
/// let plan = request.of(freeze_plan::plan("fixtures/digits/model.onnx"))?.run()?;
/// assert_eq!((plan.epochs.len(), plan.assumed.batch), (4, 64));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// Epochs of the run. Default 10.
    #[serde(default = "ten")]
    pub epochs: usize,
    /// Steps of an epoch; 0, which is the default, where they are not known.
    #[serde(default)]
    pub steps_per_epoch: usize,
    /// Samples of a batch. Default 1.
    #[serde(default = "one")]
    pub batch: usize,
    /// Shapes of inputs by name.
    #[serde(default)]
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Tensors that the optimizer keeps for each parameter. Default: as [`Planning::slots`] has it.
    pub slots: Option<u64>,
    /// The table `[freeze]` of a job: policy, its settings, unit, patterns.
    #[serde(default)]
    pub options: Map<String, Value>,
}

fn ten() -> usize {
    10
}

fn one() -> usize {
    1
}

impl PlanRequest {
    /// Returns the options.
    ///
    /// # Errors
    /// The first of them that is not what its name takes.
    pub fn options(&self) -> Result<PlanOptions, PlannerError> {
        let read = |options: Map<String, Value>| serde_json::from_value::<PlanOptions>(options.into());
        for (name, value) in &self.options {
            if let Err(error) = read(Map::from_iter([(name.clone(), value.clone())])) {
                return Err(PlannerError::Value {
                    name: name.clone(),
                    value: value.to_string(),
                    reason: error.to_string(),
                });
            }
        }
        Ok(read(self.options.clone()).expect("invariant: each of the options is read alone"))
    }

    /// Returns a plan to be made with everything that is said here.
    ///
    /// # Errors
    /// As [`PlanRequest::options`].
    pub fn of(&self, planning: Planning) -> Result<Planning, PlannerError> {
        let planning = planning
            .epochs(self.epochs)
            .steps_per_epoch(self.steps_per_epoch)
            .batch(self.batch)
            .options(self.options()?);
        let planning = self.shapes.iter().fold(planning, |planning, (input, shape)| planning.shape(input, shape));
        Ok(self.slots.into_iter().fold(planning, Planning::slots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_the_methods_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/digits/model.onnx");
        let text = r#"{"epochs": 3, "steps_per_epoch": 4, "slots": 2, "shapes": [["x", [16, 1, 8, 8]]],
            "options": {"policy": "freezeout", "t_0": 0.25, "freeze": ["conv1.*"]}}"#;
        let request: PlanRequest = serde_json::from_str(text).unwrap();
        let told = crate::plan(path).epochs(3).steps_per_epoch(4).slots(2).shape("x", &[16, 1, 8, 8]);
        let told = told.policy("freezeout").with("t_0", 0.25).freeze("conv1.*");
        assert_eq!(request.of(crate::plan(path)).unwrap().run().unwrap(), told.run().unwrap());
        let bare: PlanRequest = serde_json::from_str("{}").unwrap();
        assert_eq!(bare.of(crate::plan(path)).unwrap().run().unwrap(), crate::plan(path).run().unwrap());
    }

    #[test]
    fn an_option_of_another_type_is_told_with_its_name() {
        let error = |text: &str| serde_json::from_str::<PlanRequest>(text).unwrap().options().unwrap_err().to_string();
        let told = error(r#"{"options": {"policy": "linear", "unit": "atom"}}"#);
        assert!(told.starts_with(r#"unit is "atom": "#), "{told}");
        assert!(error(r#"{"options": {"keep": "conv1"}}"#).starts_with(r#"keep is "conv1": "#));
        assert!(serde_json::from_str::<PlanRequest>(r#"{"epoch": 3}"#).unwrap_err().to_string().contains("epoch"));
    }
}
