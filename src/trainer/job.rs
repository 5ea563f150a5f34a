//! A job as graphs and batches.

use super::TrainerError;
use super::feeds::batches;
use super::model::{self, Note};
use crate::autodiff::Rules;
use crate::data::{Dataset, Files, LastBatch, Selection, Wish};
use crate::error::ErrorKind;
use crate::graph::{Graph, ValueId};
use crate::losses::LossSpec;
use crate::plan::{FreezePlan, segments};
use crate::planner::Loaded;
use crate::runner::Job;
use crate::training::stage::{Stage, StageError};
use crate::training::{Objective, Own, Prepared, Rates, TrainingError};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// The data of a job: files that it names, or what is given in their place.
pub(super) struct Data {
    train: Option<Dataset>,
    /// Whether the training data were given.
    given: bool,
    eval: Option<Dataset>,
    /// Whether there are eval data.
    pub evaluates: bool,
}

impl Data {
    /// Opens the training data, and completes the job with what evaluation needs to know of them. What is wrong with
    /// them is told when they are read.
    pub(super) fn of(
        job: &mut Job,
        train: Option<Dataset>,
        eval: Option<Dataset>,
        note: Note<'_>,
    ) -> Result<Data, TrainerError> {
        let eval = eval.map(|eval| eval.pictured(&job.data.eval_options())).transpose()?;
        let (given, evaluates) = (train.is_some(), eval.is_some() || job.data.eval.is_some());
        let train = match job.data.open(train) {
            Ok((dataset, notes)) => {
                notes.iter().for_each(|found| note(found));
                Some(dataset)
            }
            Err(error) if given || job.data.normalize.is_some() => return Err(error.into()),
            Err(_) => None,
        };
        Ok(Data { train, given, eval, evaluates })
    }

    /// Returns training data or eval data, with the columns that the job reads.
    pub(super) fn open(&self, job: &Job, training: bool) -> Result<Dataset, TrainerError> {
        let opened = if training { &self.train } else { &self.eval };
        let files = || if training { Some(&job.data.train) } else { job.data.eval.as_ref() };
        match (opened, files()) {
            (Some(opened), _) => Ok(opened.clone()),
            (None, Some(files)) => {
                let options = if training { job.data.options() } else { job.data.eval_options() };
                Ok(Dataset::open_files(files, &options, Some(&job.data.columns(training)))?)
            }
            (None, None) => Err(TrainerError::new(ErrorKind::Usage, "missing key `eval` in [data]")),
        }
    }

    /// Returns the files that are read.
    pub(super) fn files(&self, job: &Job) -> Vec<PathBuf> {
        let train = (!self.given).then_some(&job.data.train);
        let eval = job.data.eval.as_ref().filter(|_| self.eval.is_none());
        train.into_iter().chain(eval).flat_map(Files::found).collect()
    }

    /// Returns the shape of a batch of each input, from the columns of the training data; none where the
    /// model leaves no size open but the batch. What is wrong with the data is told later.
    pub(super) fn shapes(&self, job: &Job, graph: &Graph) -> Vec<(String, Vec<usize>)> {
        let open = |id: &ValueId| match &graph.fact(*id).shape {
            Some(shape) => shape.iter().skip(1).any(|dim| dim.known().is_none()),
            None => true,
        };
        let Some(dataset) = self.train.as_ref().filter(|_| graph.inputs().iter().any(open)) else { return Vec::new() };
        let shape = |(input, selection): (&String, &Selection)| {
            let derived = dataset.derive(&job.data.options(), &[Wish { selection, dtype: None }]).ok()?;
            let column = derived.columns().first()?;
            Some((input.clone(), [&[job.data.batch], column.shape.as_slice()].concat()))
        };
        job.data.inputs.iter().filter_map(shape).collect()
    }

    /// Returns the steps of an epoch; 0 where the data cannot tell. What is wrong with the data is told later.
    pub(super) fn steps(&self, job: &Job) -> usize {
        let Some(rows) = self.train.as_ref().map(Dataset::rows) else { return 0 };
        let batches = match job.data.last_batch {
            LastBatch::Keep | LastBatch::Pad => rows.div_ceil(job.data.batch),
            LastBatch::Drop => rows / job.data.batch,
        };
        batches.div_ceil(usize::try_from(job.run.accumulate).unwrap_or(usize::MAX))
    }
}

/// What a job trains, with its data.
pub(super) struct Fitted {
    pub prepared: Prepared,
    pub stage: Option<Stage>,
    pub train: crate::data::Batches,
    pub eval: Option<crate::data::Batches>,
}

/// Prepares the model and reads the data. What cannot be trained is refused.
pub(super) fn fit(
    job: &Job,
    loss: &Option<LossSpec>,
    loaded: &Loaded,
    plan: &FreezePlan,
    data: &Data,
    rules: &Rules,
) -> Result<Fitted, TrainerError> {
    let (prepared, stage) = match loss {
        Some(_) => (model::prepared(loaded, job.dropout)?, None),
        None => {
            let staged = model::staged(loaded, job.stage.unwrap_or(1), job.dropout)?;
            (staged.prepared, Some(staged.stage))
        }
    };
    let prepared = Prepared { scaled: job.run.is_scaled(), ..prepared }.with_rules(rules.clone());
    let objective = objective(job, loss, stage.as_ref())?;
    let train = batches(job, &prepared, &objective, data, true)?;
    let eval = data.evaluates.then(|| batches(job, &prepared, &objective, data, false)).transpose()?;
    try_graphs(job, &prepared, &objective, plan)?;
    Ok(Fitted { prepared, stage, train, eval })
}

/// Returns what is minimized and how.
pub(super) fn objective<'a>(
    job: &'a Job,
    loss: &'a Option<LossSpec>,
    stage: Option<&'a Stage>,
) -> Result<Objective<'a>, TrainerError> {
    match (stage, loss, &job.optimizer) {
        (Some(stage), ..) => {
            let rate = || stage.rate.ok_or(StageError::Rate).map_err(TrainingError::from);
            Ok(Objective::Stage { stage, lr: job.schedule.as_ref().map(|_| rate()).transpose()? })
        }
        (None, Some(loss), Some(optimizer)) => {
            Ok(Objective::Own(Own { loss, output: job.output.as_deref(), optimizer }))
        }
        _ => unreachable!("invariant: without a stage the job has both sections"),
    }
}

/// Builds the graphs once with only that frozen which is frozen in every epoch: they need every
/// gradient that some phase needs, so what cannot be trained is refused now.
fn try_graphs(
    job: &Job,
    prepared: &Prepared,
    objective: &Objective<'_>,
    plan: &FreezePlan,
) -> Result<(), TrainerError> {
    let parts = segments(plan);
    let trainable = prepared.trainable();
    if parts.iter().all(|part| trainable.iter().all(|name| part.frozen.iter().any(|frozen| frozen == name))) {
        let text = "the plan freezes every parameter in every epoch: nothing trains";
        return Err(TrainerError::new(ErrorKind::BadInput, text));
    }
    let mut always: HashSet<&str> = parts.first().map(|part| part.held().collect()).unwrap_or_default();
    for part in parts.iter().skip(1) {
        let held: HashSet<&str> = part.held().collect();
        always.retain(|name| held.contains(name));
    }
    let mut step = objective.build(prepared, always, false, Rates::new(), job.run.seed)?;
    step.recompute(prepared, &job.run.recompute)?;
    if job.run.accumulate > 1 {
        objective.accumulating(step)?;
    }
    Ok(())
}

/// Returns the training step of the model that the job runs; `None` where it has a loss and an
/// optimizer of its own.
pub(super) fn stage(
    file: &Path,
    job: &Job,
    loss: &Option<LossSpec>,
    loaded: &Loaded,
    note: Note<'_>,
) -> Result<Option<model::Staged>, TrainerError> {
    let carries = !loaded.file.training.is_empty();
    let wrong = |text: String| Err(TrainerError::new(ErrorKind::Usage, format!("{}: {text}", file.display())));
    match (loss, &job.optimizer) {
        (None, None) if carries => Ok(Some(model::staged(loaded, job.stage.unwrap_or(1), job.dropout)?)),
        (Some(_), Some(_)) if job.stage.is_some() => wrong("`stage` needs a job without [loss] and [optimizer]".into()),
        (Some(_), Some(_)) if carries => {
            note("the job has a [loss] and an [optimizer]: the model's training information is not used");
            Ok(None)
        }
        (Some(_), Some(_)) => Ok(None),
        (loss, _) => {
            let (missing, given) = if loss.is_none() { ("loss", "optimizer") } else { ("optimizer", "loss") };
            let text = match carries {
                true => format!("[{given}] needs [{missing}], or neither to run the model's training information"),
                false => format!("missing section [{missing}]"),
            };
            wrong(text)
        }
    }
}
