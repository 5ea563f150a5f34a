//! A plan in the metadata of its model: stored, read back, taken out.
//!
//! It is one entry of `metadata_props`, the plan file as compact JSON. Everything else in the file stays byte for byte,
//! so that the file without the entry is the one that was planned for, and its digest tells.

use super::{Analysis, PlannerError};
use crate::graph::Graph;
use crate::onnx::{OnnxFile, read};
use crate::plan::{self, FreezePlan, sha256_hex};
use std::cell::OnceCell;
use std::io::Read;
use std::path::Path;

/// The key of the entry.
pub const KEY: &str = "freeze-plan";

/// The name of the plan file in the folder of a run.
const PLAN: &str = "plan.json";

/// Returns the SHA-256 of a model file in lowercase hexadecimal; a plan that is attached to it does not count.
pub fn identity(file: &OnnxFile) -> String {
    sha256_hex(&file.without_metadata(KEY))
}

/// Returns the plan that is attached to a model.
///
/// # Errors
/// What is attached is no plan that can be read.
pub fn attached(file: &OnnxFile) -> Result<Option<FreezePlan>, PlannerError> {
    let entry = file.model.metadata.iter().find(|entry| entry.0 == KEY);
    entry.map(|(_, text)| plan::parse(&file.path, text)).transpose().map_err(PlannerError::from)
}

/// Returns the bytes of a model with a plan attached, in the place of one that it had.
///
/// # Errors
/// The plan is for another file.
pub fn attach(file: &OnnxFile, plan: &FreezePlan) -> Result<Vec<u8>, PlannerError> {
    let found = identity(file);
    if plan.model.sha256 != found {
        let expected = plan.model.sha256.clone();
        let expected = if expected.is_empty() { "unknown".into() } else { expected };
        return Err(PlannerError::OtherModel {
            path: file.path.clone(),
            planned: plan.model.file.clone(),
            expected,
            found,
        });
    }
    let text = serde_json::to_string(plan).expect("invariant: a plan has string keys and finite numbers");
    Ok(file.with_metadata(KEY, &text))
}

/// Returns a plan as one for another file of the same model, such as the trained one.
///
/// # Errors
/// A parameter of the plan is no initializer of the model, or the parameters of a unit have another number of elements.
pub fn retargeted(plan: &FreezePlan, file: &OnnxFile) -> Result<FreezePlan, PlannerError> {
    let other = |reason: String| PlannerError::OtherParameters {
        path: file.path.clone(),
        planned: plan.model.file.clone(),
        reason,
    };
    let written = &file.model.graph;
    // Parameters that the exporter merged have names of their own only there.
    let separated = OnceCell::new();
    let separated = || separated.get_or_init(|| Analysis::of(&file.model).model.graph);
    let held = |graph: &Graph, name: &str| graph.find(name).and_then(|id| graph.value(id).initializer.clone());
    for unit in &plan.units {
        let mut elements: u64 = 0;
        for name in &unit.parameters {
            let tensor = held(written, name).or_else(|| held(separated(), name));
            let tensor = tensor.ok_or_else(|| other(format!("it has no initializer \"{name}\"")))?;
            let size = tensor.shape().iter().fold(1u64, |size, dim| size.saturating_mul(*dim as u64));
            elements = elements.saturating_add(size);
        }
        if elements != unit.elements {
            let text = format!("unit \"{}\" has {elements} elements, expected {}", unit.path, unit.elements);
            return Err(other(text));
        }
    }
    let mut plan = plan.clone();
    plan.model.file = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    plan.model.sha256 = identity(file);
    Ok(plan)
}

/// Reads a plan: a plan file, a model with one attached, or the folder of a run.
///
/// # Errors
/// It cannot be read, or is none of these.
pub fn read_plan(path: &Path) -> Result<FreezePlan, PlannerError> {
    if path.is_dir() {
        return Ok(plan::read(&path.join(PLAN))?);
    }
    if !is_model(path) {
        return Ok(plan::read(path)?);
    }
    let file = read(path)?;
    attached(&file)?.ok_or_else(|| PlannerError::NotAttached { path: path.into() })
}

/// Returns true when a file is no JSON and is named as a model, or begins as one mostly does: with its IR version.
fn is_model(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(64).read_to_end(&mut start));
    let first = start.iter().find(|byte| !byte.is_ascii_whitespace());
    let named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"));
    read.is_ok() && first.is_some_and(|first| *first != b'{' && (named || *first == 8))
}

#[cfg(test)]
mod tests {
    use super::super::{Request, plan, sizes};
    use super::*;
    use crate::onnx::read_bytes;
    use crate::plan::PlanOptions;
    use std::path::PathBuf;

    fn digits() -> (OnnxFile, FreezePlan) {
        planned("digits/model.onnx")
    }

    fn planned(fixture: &str) -> (OnnxFile, FreezePlan) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(fixture);
        let file = read(&path).unwrap();
        let analysis = Analysis::of(&file.model);
        let options = PlanOptions::default();
        let sizes = sizes(&analysis.model.graph, 1, &[]).unwrap();
        let own_slots = Default::default();
        let request = Request { epochs: 5, steps_per_epoch: 0, options: &options, slots: 1, own_slots, sizes };
        let mut plan = plan(&file, &analysis, &request).unwrap();
        super::super::identify(&mut plan, &file);
        (file, plan)
    }

    #[test]
    fn an_attached_plan_is_read_back_and_leaves_the_model_what_it_was() {
        let (file, plan) = digits();
        let folder = tempfile::tempdir().unwrap();
        let with = folder.path().join("with.onnx");
        std::fs::write(&with, attach(&file, &plan).unwrap()).unwrap();
        let read_back = read(&with).unwrap();
        assert_eq!(attached(&read_back).unwrap(), Some(plan.clone()));
        assert_eq!(read_plan(&with).unwrap(), plan);
        assert_eq!(identity(&read_back), plan.model.sha256);
        assert_ne!(sha256_hex(&read_back.bytes), plan.model.sha256);
        assert!(attach(&read_back, &plan).unwrap() == read_back.bytes, "attached twice");
        assert_eq!(attached(&file).unwrap(), None);
        let text = read_plan(&file.path).unwrap_err().to_string();
        assert!(text.starts_with("no plan is attached to "), "{text}");
        plan::write(&folder.path().join(PLAN), &plan).unwrap();
        assert_eq!(read_plan(folder.path()).unwrap(), plan);
        assert_eq!(read_plan(&folder.path().join(PLAN)).unwrap(), plan);
    }

    #[test]
    fn a_plan_of_another_file_is_refused_with_both_digests() {
        let (file, plan) = digits();
        let mut other = read_bytes(&PathBuf::from("other.onnx"), file.with_metadata("note", "text").into()).unwrap();
        let error = attach(&other, &plan).unwrap_err().to_string();
        let found = identity(&other);
        let expected = format!("the plan is for model.onnx (sha256 {}), not for other.onnx (sha256 {found})", {
            &plan.model.sha256
        });
        assert_eq!(error, expected);
        let moved = retargeted(&plan, &other).unwrap();
        assert_eq!((moved.model.sha256.as_str(), moved.model.file.as_str()), (found.as_str(), "other.onnx"));
        assert_eq!(moved.epochs, plan.epochs);
        other = read_bytes(&other.path, attach(&other, &moved).unwrap().into()).unwrap();
        assert_eq!(attached(&other).unwrap(), Some(moved.clone()));
        let mut strange = plan.clone();
        strange.units[0].elements += 1;
        let text = retargeted(&strange, &other).unwrap_err().to_string();
        assert!(text.contains("elements, expected"), "{text}");
        strange = plan;
        strange.units[0].parameters[0] = "no.such".into();
        let text = retargeted(&strange, &other).unwrap_err().to_string();
        assert!(text.ends_with("it has no initializer \"no.such\""), "{text}");
    }

    #[test]
    fn a_plan_of_merged_parameters_is_for_another_file_with_them() {
        for fixture in ["merged/folded.onnx", "merged/fresh.onnx"] {
            let (file, plan) = planned(fixture);
            let graph = &file.model.graph;
            assert!(plan.units.iter().flat_map(|unit| &unit.parameters).any(|name| graph.find(name).is_none()));
            let other = read_bytes(Path::new("other.onnx"), file.with_metadata("note", "x").into()).unwrap();
            assert_eq!(retargeted(&plan, &other).unwrap().epochs, plan.epochs, "{fixture}");
        }
    }

    #[test]
    fn what_is_attached_and_no_plan_is_named() {
        let (file, _) = digits();
        let broken = read_bytes(&PathBuf::from("b.onnx"), file.with_metadata(KEY, "{}").into()).unwrap();
        let text = attached(&broken).unwrap_err().to_string();
        assert!(text.starts_with("b.onnx is no plan file"), "{text}");
    }
}
