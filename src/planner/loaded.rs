//! A file that was read and analysed, with what it says of its own training.

use super::{Analysis, Basis, PlannerError, Request};
use crate::artifacts::{self, Artifacts};
use crate::facts::Probe;
use crate::graph::{Graph, ValueId};
use crate::modules::units;
use crate::onnx::{OnnxFile, read, read_bytes};
use crate::plan::{Policy, frozen_unless_kept, policies};
use crate::training::{Prepared, TrainingError, stage};
use bytes::Bytes;
use std::collections::HashMap;
use std::path::Path;

/// A model that was read and analysed: that of an ONNX file, or the one that ONNX Runtime's training artifacts were made
/// from.
#[derive(Clone)]
pub struct Loaded {
    /// The file.
    pub file: OnnxFile,
    /// What the planner knows of it.
    pub analysis: Analysis,
    /// The training artifacts that it was recovered from.
    pub artifacts: Option<Artifacts>,
}

impl Loaded {
    /// Reads an ONNX file, or training artifacts: their folder or one of their files. No weight is read.
    ///
    /// # Errors
    /// The file is no model.
    pub fn read(path: impl AsRef<Path>) -> Result<Loaded, PlannerError> {
        Loaded::read_with(path.as_ref(), |_| HashMap::new(), None)
    }

    /// Reads the bytes of an ONNX file. `name` stands in messages and in plans; its folder is where data outside of the
    /// file are looked for.
    ///
    /// # Errors
    /// The bytes are no model, or data outside of the file are not there.
    pub fn parse(name: impl AsRef<Path>, bytes: impl Into<Bytes>) -> Result<Loaded, PlannerError> {
        Ok(Loaded::of_file(read_bytes(name.as_ref(), bytes.into())?))
    }

    /// Analyses an ONNX file that was read already, as with [`read_bytes_with`](crate::onnx::read_bytes_with).
    pub fn of_file(file: OnnxFile) -> Loaded {
        Loaded::of(file, None, |_| HashMap::new(), None)
    }

    /// As [`Loaded::read`], for a model that is used with these numbers for its named sizes and that `probe` may run.
    pub(crate) fn read_with(
        path: &Path,
        sizes: impl FnOnce(&Graph) -> HashMap<String, usize>,
        probe: Option<&mut dyn Probe>,
    ) -> Result<Loaded, PlannerError> {
        let artifacts = artifacts::find(path)?.map(|files| artifacts::read(&files)).transpose()?;
        let file = match &artifacts {
            Some(artifacts) => artifacts.to_file(),
            None => read(path)?,
        };
        Ok(Loaded::of(file, artifacts, sizes, probe))
    }

    fn of(
        file: OnnxFile,
        artifacts: Option<Artifacts>,
        sizes: impl FnOnce(&Graph) -> HashMap<String, usize>,
        probe: Option<&mut dyn Probe>,
    ) -> Loaded {
        let sizes = sizes(&file.model.graph);
        // Bindings of training information name initializers as the file has them.
        let analysis = match file.training.is_empty() {
            true => Analysis::with(&file.model, &sizes, probe),
            false => Analysis::as_written_with(&file.model, &sizes, probe),
        };
        Loaded { file, analysis, artifacts }
    }

    /// Returns the model with the roles that the user tells by pattern.
    ///
    /// # Errors
    /// A pattern is no glob, or matches nothing that it can speak for.
    pub fn with_roles(self, parameter: &[String], buffer: &[String]) -> Result<Loaded, PlannerError> {
        Ok(Loaded { analysis: self.analysis.with_roles(parameter, buffer)?, ..self })
    }

    /// Returns the parameters that the file itself says are frozen and that can be.
    pub fn frozen(&self) -> Vec<String> {
        let trainable = self.analysis.trainable();
        let frozen = self.artifacts.as_ref().map(Artifacts::frozen).unwrap_or_default();
        frozen.into_iter().filter(|name| trainable.contains(&name.as_str())).collect()
    }

    /// Returns the first training step that the file carries; `None` where it carries none.
    pub(crate) fn step(&self) -> Option<Result<Carried, TrainingError>> {
        (!self.file.training.is_empty()).then(|| {
            let (prepared, stage) = stage::prepare(&self.file, &self.analysis, 1)?;
            Ok(Carried::of(&self.analysis, &prepared, &stage))
        })
    }

    /// Returns what plans of the model are made from, where batches of `batch` samples were asked for. What the file keeps frozen, and what the training step does not
    /// update, is frozen throughout.
    pub(crate) fn basis(
        &self,
        request: &Request<'_>,
        batch: usize,
        step: Option<&Carried>,
        policy: Option<Box<dyn Policy>>,
    ) -> Result<Basis, PlannerError> {
        let mut options = request.options.clone();
        options.freeze.extend(step.iter().flat_map(|step| step.stays.iter().cloned()));
        let frozen = self.frozen();
        let patterns = frozen_unless_kept(&units(&self.analysis.tree, options.unit()), &frozen, &options.keep)?;
        let mut notes: Vec<String> = self.artifacts.iter().flat_map(|artifacts| artifacts.notes.clone()).collect();
        notes.extend(from_the_start(&frozen, patterns.len()));
        notes.extend(fixed_batch(&self.analysis.model.graph, batch));
        notes.extend(step.map(|step| step.about.clone()));
        options.freeze.extend(patterns);
        let request = Request { options: &options, ..request.clone() };
        let policy = match policy {
            Some(policy) => policy,
            None => policies::find(&options)?,
        };
        let mut basis = Basis::with(&self.file, &self.analysis, &request, policy)?;
        basis.notes.extend(notes);
        Ok(basis)
    }
}

/// A training step that a file carries, as plans see it.
#[derive(Clone, Debug)]
pub(crate) struct Carried {
    /// Tensors that its optimizer keeps for each parameter.
    pub slots: u64,
    /// Patterns for what it does not update.
    stays: Vec<String>,
    /// What it is, for a person.
    about: String,
}

impl Carried {
    pub fn of(analysis: &Analysis, prepared: &Prepared, stage: &stage::Stage) -> Carried {
        let trained = prepared.trainable();
        let stays = analysis.trainable().into_iter().filter(|name| !trained.contains(name));
        Carried {
            slots: stage.slots_per_parameter(),
            stays: stays.map(globset::escape).collect(),
            about: stage.describe(),
        }
    }
}

/// Says that a batch size was asked for which the file does not take.
fn fixed_batch(graph: &Graph, batch: usize) -> Option<String> {
    let first = |id: &ValueId| graph.fact(*id).dim(0).cloned();
    let sizes: Vec<usize> = graph.inputs().iter().filter_map(first).map(|dim| dim.known()).collect::<Option<_>>()?;
    let size = *sizes.first()?;
    (batch > 1 && !sizes.contains(&batch))
        .then(|| format!("the file fixes the first size of its inputs ({size}): a batch of {batch} changes nothing"))
}

/// Says which parameters the file keeps frozen.
fn from_the_start(names: &[String], frozen: usize) -> Option<String> {
    const MOST: usize = 4;
    let shown: Vec<&str> = names.iter().take(MOST).map(String::as_str).collect();
    let more = if names.len() > MOST { format!(" and {} more", names.len() - MOST) } else { String::new() };
    let kept = names.len() - frozen;
    let kept = if kept > 0 { format!(", {kept} of them kept training") } else { String::new() };
    (!names.is_empty()).then(|| {
        format!(
            "the checkpoint keeps {}{more} frozen in every epoch (keep PATTERN trains them){kept}",
            shown.join(", ")
        )
    })
}
