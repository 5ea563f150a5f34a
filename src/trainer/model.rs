//! A model as it is planned and trained.

use super::TrainerError;
use super::sizes::Sizes;
use crate::artifacts::{self, Artifacts};
use crate::error::ErrorKind;
use crate::facts::Probe;
use crate::graph::{Graph, ValueId};
use crate::modules::{UnitKind, units};
use crate::onnx::{OnnxFile, read};
use crate::optim::{OptimizerSpec, SlotSpec};
use crate::plan::{FreezePlan, PlanOptions, Run, frozen_unless_kept};
use crate::planner::{Analysis, Basis, Request};
use crate::training::{Dropout, Prepared, TrainingError, grouped, prepare, stage};
use std::collections::HashMap;
use std::path::Path;

/// A loaded and analysed model.
pub struct Loaded {
    /// The file.
    pub file: OnnxFile,
    /// What the planner knows of it.
    pub analysis: Analysis,
    /// The training artifacts that it was recovered from.
    pub artifacts: Option<Artifacts>,
}

impl Loaded {
    /// Returns the parameters that the file itself says are frozen and that can be.
    pub fn frozen(&self) -> Vec<String> {
        let trainable = self.analysis.trainable();
        let frozen = self.artifacts.as_ref().map(Artifacts::frozen).unwrap_or_default();
        frozen.into_iter().filter(|name| trainable.contains(&name.as_str())).collect()
    }
}

/// Takes what a person should know.
pub type Note<'a> = &'a mut dyn FnMut(&str);

/// Patterns for what is a parameter and for what is a buffer.
pub type Roles<'a> = (&'a [String], &'a [String]);

/// Loads a model, or the one that training artifacts were made from, that is used with these sizes and these roles. What
/// only a run can tell of its values is asked of `probe`.
///
/// # Errors
/// The file is no model, or the patterns match nothing.
pub fn load(
    path: &Path,
    sizes: &Sizes,
    (parameter, buffer): Roles<'_>,
    probe: Option<&mut dyn Probe>,
) -> Result<Loaded, TrainerError> {
    let artifacts = artifacts::find(path)?.map(|files| artifacts::read(&files)).transpose()?;
    let file = match &artifacts {
        Some(artifacts) => artifacts.to_file(),
        None => read(path)?,
    };
    let graph = &file.model.graph;
    let sizes = sizes.of(graph).unwrap_or_default();
    // Bindings of training information name initializers as the file has them.
    let analysis = match file.training.is_empty() {
        true => Analysis::with(&file.model, &sizes, probe),
        false => Analysis::as_written_with(&file.model, &sizes, probe),
    };
    Ok(Loaded { file, analysis: analysis.with_roles(parameter, buffer)?, artifacts })
}

/// Prepares the model for training.
pub fn prepared(loaded: &Loaded, dropout: Dropout) -> Result<Prepared, TrainerError> {
    prepare(&loaded.analysis)?.with_dropout(dropout).map_err(|error| {
        let lost = matches!(error, TrainingError::NoDropout);
        let told = TrainerError::from(error);
        if !lost {
            return told;
        }
        told.hint(
            "exporters drop it from a module in eval mode: from PyTorch, export model.train() with dynamo=True, \
             optimize=False, or with dynamo=False, training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False",
        )
    })
}

/// A plan, and what others of the same run are made from.
pub struct Planned {
    /// The plan.
    pub plan: FreezePlan,
    /// Units, costs and policy.
    pub basis: Basis,
}

/// Plans a run of the model; `length` has 0 steps in an epoch where they are not known.
pub fn plan(
    loaded: &Loaded,
    options: &PlanOptions,
    length: Run,
    slots: Slots,
    sizes: &Sizes,
) -> Result<Planned, TrainerError> {
    let graph = &loaded.analysis.model.graph;
    let numbers = sizes.of(graph)?;
    let mut options = options.clone();
    let frozen = loaded.frozen();
    let patterns = frozen_unless_kept(&units(&loaded.analysis.tree, options.unit()), &frozen, &options.keep)?;
    let note = from_the_start(&frozen, patterns.len());
    options.freeze.extend(patterns);
    let request = Request {
        epochs: length.epochs,
        steps_per_epoch: length.steps_per_epoch,
        options: &options,
        slots: slots.each,
        own_slots: slots.own,
        sizes: numbers,
    };
    let basis = Basis::of(&loaded.file, &loaded.analysis, &request)?;
    let mut plan = basis.plan()?;
    let notes = loaded.artifacts.iter().flat_map(|artifacts| artifacts.notes.iter().cloned());
    let batch = fixed_batch(graph, sizes.batch());
    plan.summary.notes.extend(notes.chain(note).chain(batch));
    Ok(Planned { plan, basis })
}

/// Says that a batch size was asked for which the file does not take.
fn fixed_batch(graph: &Graph, batch: usize) -> Option<String> {
    let first = |id: &ValueId| graph.fact(*id).dim(0).cloned();
    let sizes: Vec<usize> = graph.inputs().iter().filter_map(first).map(|dim| dim.known()).collect::<Option<_>>()?;
    let size = *sizes.first()?;
    (batch > 1 && !sizes.contains(&batch))
        .then(|| format!("the file fixes the first size of its inputs ({size}): --batch {batch} changes nothing"))
}

/// Says which parameters the file keeps frozen.
fn from_the_start(names: &[String], frozen: usize) -> Option<String> {
    const MOST: usize = 4;
    let shown: Vec<&str> = names.iter().take(MOST).map(String::as_str).collect();
    let more = if names.len() > MOST { format!(" and {} more", names.len() - MOST) } else { String::new() };
    let kept = names.len() - frozen;
    let kept = if kept > 0 { format!(", {kept} of them kept training by --keep") } else { String::new() };
    (!names.is_empty()).then(|| {
        format!(
            "the checkpoint keeps {}{more} frozen in every epoch (--keep PATTERN trains them){kept}",
            shown.join(", ")
        )
    })
}

/// The tensors that an optimizer keeps for each parameter.
#[derive(Clone, Debug)]
pub struct Slots {
    each: u64,
    own: HashMap<String, u64>,
}

/// Returns the tensors that an optimizer keeps for the parameters of the model.
///
/// # Errors
/// A group of the optimizer matches nothing.
pub fn slots(loaded: &Loaded, optimizer: &OptimizerSpec, note: Note<'_>) -> Result<Slots, TrainerError> {
    let analysis = &loaded.analysis;
    let count = |slots: Vec<SlotSpec>| slots.iter().filter(|slot| !slot.scalar).count() as u64;
    let each = count(optimizer.slots());
    let leaves = units(&analysis.tree, UnitKind::Leaf);
    let parameters = grouped(&analysis.model.graph, &leaves, &analysis.trainable(), optimizer)?;
    if !parameters.is_empty() && parameters.iter().all(|own| optimizer.falls_back(own)) {
        note(&format!("{} updates matrices, and no parameter is left to it: its fallback updates all", optimizer.kind));
    }
    let own = parameters.into_iter().map(|own| (count(optimizer.slots_of(&own)), own.name));
    let own = own.filter(|(slots, _)| *slots != each).map(|(slots, name)| (name, slots)).collect();
    Ok(Slots { each, own })
}

/// A training step that the model carries.
pub struct Staged {
    /// The graph of the step.
    pub prepared: Prepared,
    /// The step.
    pub stage: stage::Stage,
}

/// Prepares training step `number`, from 1, of the model, which runs as it is written.
pub fn staged(loaded: &Loaded, number: usize, dropout: Dropout) -> Result<Staged, TrainerError> {
    if dropout != Dropout::AsExported {
        let text = "training information runs as it is written: dropout goes with a loss and an optimizer";
        return Err(TrainerError::new(ErrorKind::Usage, text));
    }
    let (prepared, stage) = stage::prepare(&loaded.file, &loaded.analysis, number)?;
    Ok(Staged { prepared, stage })
}

impl Staged {
    /// Plans a run of the step: what it does not update is frozen throughout.
    pub fn plan(
        &self,
        loaded: &Loaded,
        options: &PlanOptions,
        length: Run,
        sizes: &Sizes,
    ) -> Result<Planned, TrainerError> {
        let trainable = self.prepared.trainable();
        let stays = loaded.analysis.trainable().into_iter().filter(|name| !trainable.contains(name));
        let mut options = options.clone();
        options.freeze.extend(stays.map(globset::escape));
        let slots = Slots { each: self.stage.slots_per_parameter(), own: HashMap::new() };
        let mut planned = plan(loaded, &options, length, slots, sizes)?;
        planned.plan.summary.notes.push(self.stage.describe());
        Ok(planned)
    }
}
