//! `[freeze]` as the plan has it that is attached to the model.

use super::draft::Key;
use crate::onnx::OnnxFile;
use crate::plan::{COMMON, PlanOptions, policies};
use crate::planner::{attached, identity};
use serde_json::Value;

/// What a plan was made with.
#[derive(Debug, Default)]
pub struct Made {
    /// The options of the plan.
    pub options: PlanOptions,
    /// The same as keys of the job, the policy first.
    pub keys: Vec<Key>,
    /// Epochs of the run.
    pub epochs: usize,
}

/// Returns what the plan was made with that is attached to a model; `None` where none is, or where a job cannot say it:
/// the plan is for another file, or its policy is none of the built-in ones.
pub fn made(file: &OnnxFile) -> Option<Made> {
    let plan = attached(file).ok().flatten().filter(|plan| plan.model.sha256 == identity(file))?;
    let entry = policies::entry(&plan.policy.name)?;
    let known = || entry.knobs.iter().map(|knob| knob.name).chain(COMMON.iter().copied());
    let mut table = plan.policy.settings.clone();
    table.insert("policy".into(), entry.name.into());
    let options: PlanOptions = serde_json::from_value(Value::Object(table)).ok()?;
    policies::find(&options).ok()?;
    let mut keys = vec![Key { name: "policy", value: entry.name.into(), comments: Vec::new() }];
    for (name, value) in &plan.policy.settings {
        let name = known().find(|known| known == name)?;
        keys.push(Key { name, value: toml::Value::try_from(value).ok()?, comments: Vec::new() });
    }
    Some(Made { options, keys, epochs: plan.epochs.len() })
}
