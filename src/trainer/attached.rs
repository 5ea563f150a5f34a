//! What becomes of a plan in the metadata of a model that is planned or trained.

use crate::onnx::{Edits, OnnxFile};
use crate::plan::FreezePlan;
use crate::planner::{ATTACHED, attached, identity};

/// Says that another plan is attached to a model than the one that is followed; `None` where none is, or the same.
pub fn attached_note(file: &OnnxFile, followed: &FreezePlan) -> Option<String> {
    let entry = file.model.metadata.iter().any(|entry| entry.0 == ATTACHED);
    let plan = match attached(file) {
        Ok(plan) => plan?,
        Err(_) => return entry.then(|| format!("the metadata entry \"{ATTACHED}\" of the model is no plan")),
    };
    let (policy, epochs) = (&plan.policy.name, plan.epochs.len());
    let of = if epochs == 1 { "1 epoch".into() } else { format!("{epochs} epochs") };
    if plan.model.sha256 != identity(file) {
        return Some(format!(
            "the plan that is attached to the model (policy {policy}, {of}) is for another file, {}: it is not used",
            plan.model.file
        ));
    }
    if epochs == followed.epochs.len() && plan.epochs.iter().zip(&followed.epochs).all(|(a, b)| a.acts_as(b)) {
        return None;
    }
    Some(format!("the plan that is attached to the model (policy {policy}, {of}) is not used: another is made"))
}

/// Leaves the plan that is attached to a model out of a file that is written with edits, for which it would not be;
/// returns what a person should know.
pub fn without_plan(file: &OnnxFile, edits: &mut Edits) -> Option<String> {
    file.model.metadata.iter().any(|entry| entry.0 == ATTACHED).then(|| {
        edits.metadata.insert(ATTACHED.into());
        "the written model has other weights than the plan that is attached to the first one is for, and does not hold it".into()
    })
}
