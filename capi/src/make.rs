//! A plan of a model, as the program makes it.

use crate::model::fp_model;
use crate::options::fp_options;
use crate::status::Failure;
use freeze_plan::plan::FreezePlan;
use freeze_plan::planner::Planning;

/// Plans a run. What the model itself keeps frozen is frozen throughout: by training artifacts, or because
/// the training step that the file carries does not update it.
pub(crate) fn plan(model: &fp_model, epochs: usize, options: &fp_options) -> Result<FreezePlan, Failure> {
    let mut planning = Planning::of(&model.loaded.file.path)
        .epochs(epochs)
        .steps_per_epoch(options.steps_per_epoch)
        .batch(options.batch.unwrap_or(1))
        .options(options.plan.clone());
    for (input, shape) in &options.shapes {
        planning = planning.shape(input, shape);
    }
    if let Some(slots) = options.slots {
        planning = planning.slots(slots);
    }
    Ok(planning.run_on(&model.loaded)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn planned(path: &str, settings: &[(&str, &str)]) -> FreezePlan {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(path);
        let model = fp_model::read(&path).unwrap();
        let mut options = fp_options::default();
        settings.iter().for_each(|(name, value)| options.set(name, value).unwrap());
        plan(&model, 4, &options).unwrap()
    }

    #[test]
    fn what_training_artifacts_keep_frozen_is_frozen() {
        let plan = planned("classic/frozen", &[("policy", "none")]);
        for epoch in &plan.epochs {
            assert_eq!(epoch.frozen, ["stem.conv.weight", "stem.conv.bias"]);
        }
        let notes = &plan.summary.notes;
        assert!(notes.iter().any(|note| note.contains("training artifacts")), "{notes:?}");
        let plan = planned("classic/frozen", &[("policy", "none"), ("keep", "*.bias")]);
        assert_eq!(plan.epochs[3].frozen, ["stem.conv.weight"]);
    }

    #[test]
    fn a_training_step_of_the_file_says_the_slots() {
        let path = "training_info/mlp_adam.onnx";
        let bytes = |settings: &[(&str, &str)]| planned(path, settings).epochs[0].predicted;
        let (own, none) = (bytes(&[("policy", "none")]), bytes(&[("policy", "none"), ("slots", "0")]));
        assert_eq!((own.slot_bytes, none.slot_bytes), (2 * own.gradient_bytes, 0));
        let notes = planned(path, &[]).summary.notes;
        assert!(notes.iter().any(|note| note.starts_with("training information 1 of the model")), "{notes:?}");
    }

    #[test]
    fn options_reach_the_plan() {
        let plan = planned(
            "digits/model.onnx",
            &[("batch", "64"), ("slots", "2"), ("freeze", "conv1.*"), ("batch_norm", "frozen"), ("buffer", "bn1.*")],
        );
        assert_eq!((plan.assumed.batch, plan.assumed.slots), (64, 2));
        assert!(plan.epochs[0].frozen.contains(&"conv1.weight".to_string()));
        assert!(plan.units.iter().all(|unit| unit.path != "bn1"));
        assert!(!plan.epochs[3].statistics.is_empty());
        let shaped = planned("digits/model.onnx", &[("shape", "x=16,1,8,8")]);
        assert_eq!(shaped.assumed.batch, 16);
    }
}
