//! The data of a job as batches of what its graphs read.

use super::failure::Failure;
use crate::data::{self, BatchOptions, Batches, Dataset, LastBatch, Wanted};
use crate::error::ErrorKind;
use crate::losses::IGNORE_INDEX;
use crate::runner::Job;
use crate::training::stage::Stage;
use crate::training::{Objective, Own, Prepared, names, target_fact};
use std::path::Path;

/// Reads a data file. Everything that does not fit the graphs is refused.
pub fn batches(
    job: &Job,
    prepared: &Prepared,
    objective: &Objective<'_>,
    path: &Path,
    training: bool,
) -> Result<Batches, Failure> {
    let graph = &prepared.model.graph;
    let wanted = match objective {
        Objective::Own(own) => own_columns(job, prepared, own)?,
        Objective::Stage { stage, .. } => stage_columns(job, prepared, stage)?,
    };
    let columns: Vec<&str> = wanted.iter().map(|wanted| wanted.column.as_str()).collect();
    let dataset = Dataset::open(path, Some(&columns))?;
    let feeds = data::check(&dataset, &wanted)?;
    let prediction = objective.prediction(prepared)?.and_then(|name| graph.find(name));
    let classes = prediction.and_then(|id| objective.metrics().classes(graph.fact(id)));
    let target = wanted.iter().find(|wanted| wanted.input == names::TARGET);
    if let (Some((_, classes)), Some(target)) = (classes, target) {
        let ignored = objective.metrics().ignore_index.or(Some(IGNORE_INDEX));
        data::check_labels(&target.column, dataset.column(&target.column)?, classes, ignored)
            .map_err(|error| bad(format!("{}: {error}", path.display())))?;
    }
    let fixed = wanted.iter().find_map(|wanted| wanted.fact.dim(0)?.known().map(|size| (&wanted.input, size)));
    let options = BatchOptions {
        size: job.data.batch,
        seed: job.data.seed,
        shuffle: training && job.data.shuffle,
        last_batch: if training || fixed.is_some() { job.data.last_batch } else { LastBatch::Keep },
    };
    if let Some((input, size)) = fixed {
        let partial = options.last_batch == LastBatch::Keep && dataset.rows() % size != 0;
        if job.data.batch != size || partial {
            let text = format!(
                "the model takes batches of exactly {size} (input \"{input}\"), found data.batch = {} and {} rows in {}",
                job.data.batch,
                dataset.rows(),
                path.display()
            );
            return Err(bad(text).hint("export the model with a dynamic batch axis, or use data.last_batch = \"drop\""));
        }
    }
    Ok(Batches::new(feeds, options)?)
}

fn bad(text: String) -> Failure {
    Failure::new(ErrorKind::BadInput, text)
}

fn own_columns(job: &Job, prepared: &Prepared, own: &Own<'_>) -> Result<Vec<Wanted>, Failure> {
    let graph = &prepared.model.graph;
    let known = || graph.inputs().iter().map(|id| graph.value_name(*id)).collect::<Vec<_>>().join(", ");
    let mut wanted: Vec<Wanted> = Vec::new();
    for (input, column) in &job.data.inputs {
        let id = graph.find(input).filter(|id| graph.inputs().contains(id));
        let id = id.ok_or_else(|| bad(format!("data.inputs names \"{input}\", the model's inputs are {}", known())))?;
        wanted.push(Wanted { column: column.clone(), input: input.clone(), fact: graph.fact(id).clone() });
    }
    for id in graph.inputs() {
        let name = graph.value_name(*id);
        if !job.data.inputs.contains_key(name) {
            return Err(bad(format!("the model's input \"{name}\" {} has no column in data.inputs", graph.fact(*id))));
        }
    }
    let fact = target_fact(prepared, own.loss, own.output)?;
    let column = job.data.target.clone().ok_or_else(|| bad("missing key `target` in [data]".into()))?;
    wanted.push(Wanted { column, input: names::TARGET.into(), fact });
    Ok(wanted)
}

/// Inputs keep their names in the file; `target` is the column of the one that `inputs` leaves out.
fn stage_columns(job: &Job, prepared: &Prepared, stage: &Stage) -> Result<Vec<Wanted>, Failure> {
    let graph = &prepared.model.graph;
    let ids = stage.inputs(graph);
    let in_file = |name: &str| match (&stage.target, name) {
        (Some(target), names::TARGET) => target.clone(),
        _ => name.to_string(),
    };
    let known: Vec<String> = ids.iter().map(|id| in_file(graph.value_name(*id))).collect();
    if let Some(stranger) = job.data.inputs.keys().find(|name| !known.contains(name)) {
        return Err(bad(format!("data.inputs names \"{stranger}\", the inputs of a step are {}", known.join(", "))));
    }
    let left: Vec<&String> = known.iter().filter(|name| !job.data.inputs.contains_key(*name)).collect();
    match (&job.data.target, left.as_slice()) {
        (Some(_), [_]) | (None, []) => {}
        (Some(target), []) => {
            let text = format!("data.target is \"{target}\", and every input of a step has a column in data.inputs");
            return Err(bad(text));
        }
        (_, [first, ..]) => return Err(bad(format!("the input \"{first}\" of a step has no column in data.inputs"))),
    }
    let column = |name: &String| job.data.inputs.get(name).or(job.data.target.as_ref()).cloned().unwrap_or_default();
    let wanted = ids.iter().zip(&known).map(|(id, name)| Wanted {
        column: column(name),
        input: graph.value_name(*id).to_string(),
        fact: graph.fact(*id).clone(),
    });
    Ok(wanted.collect())
}
