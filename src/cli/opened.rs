//! The training data of a job, opened once.

use super::failure::Failure;
use crate::data::{DataError, Dataset, Files, LastBatch, Selection, Wish};
use crate::graph::{Graph, ValueId};
use crate::runner::Job;

/// The training data, or what is wrong with them, which is told when they are read.
pub struct Opened(Option<Dataset>);

impl Opened {
    /// Opens the training data, and completes the job with what evaluation needs to know of them.
    pub fn of(job: &mut Job) -> Result<Opened, Failure> {
        match job.data.open() {
            Ok((dataset, notes)) => {
                notes.iter().for_each(|note| eprintln!("note: {note}"));
                Ok(Opened(Some(dataset)))
            }
            Err(error) if job.data.normalize.is_some() => Err(error.into()),
            Err(_) => Ok(Opened(None)),
        }
    }

    /// Returns files of the job with the columns that are read.
    pub fn dataset(&self, job: &Job, files: &Files, training: bool) -> Result<Dataset, DataError> {
        match &self.0 {
            Some(dataset) if training => Ok(dataset.clone()),
            _ => Dataset::open_files(files, &job.data.options(), Some(&job.data.columns(training))),
        }
    }

    /// Returns the shape of a batch of each input, from the columns of the training data; none where the model leaves no
    /// size open but the batch.
    pub fn shapes(&self, job: &Job, graph: &Graph) -> Vec<(String, Vec<usize>)> {
        let open = |id: &ValueId| match &graph.fact(*id).shape {
            Some(shape) => shape.iter().skip(1).any(|dim| dim.known().is_none()),
            None => true,
        };
        let Some(dataset) = self.0.as_ref().filter(|_| graph.inputs().iter().any(open)) else { return Vec::new() };
        let shape = |(input, selection): (&String, &Selection)| {
            let derived = dataset.derive(&job.data.options(), &[Wish { selection, dtype: None }]).ok()?;
            let column = derived.columns().first()?;
            Some((input.clone(), [&[job.data.batch], column.shape.as_slice()].concat()))
        };
        job.data.inputs.iter().filter_map(shape).collect()
    }

    /// Returns the steps of an epoch; 0 where the data cannot tell.
    pub fn steps(&self, job: &Job) -> usize {
        let Some(rows) = self.0.as_ref().map(Dataset::rows) else { return 0 };
        let batches = match job.data.last_batch {
            LastBatch::Keep | LastBatch::Pad => rows.div_ceil(job.data.batch),
            LastBatch::Drop => rows / job.data.batch,
        };
        batches.div_ceil(usize::try_from(job.run.accumulate).unwrap_or(usize::MAX))
    }
}
