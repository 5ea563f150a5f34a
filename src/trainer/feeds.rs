//! The data of a job as batches of what its graphs read.

use super::TrainerError;
use super::job::Data;
use crate::data::{
    self as rows, BatchOptions, Batches, DataError, Dataset, Feed, LastBatch, Sampler, Selection, Wanted, Wish,
};
use crate::error::{ErrorKind, nearest};
use crate::losses::IGNORE_INDEX;
use crate::runner::job::SamplerKind;
use crate::runner::{Job, Targets};
use crate::training::stage::Stage;
use crate::training::{Objective, Own, Prepared, Target, names, targets};

/// Reads a data file. Everything that does not fit the graphs is refused.
pub fn batches(
    job: &Job,
    prepared: &Prepared,
    objective: &Objective<'_>,
    data: &Data,
    training: bool,
) -> Result<Batches, TrainerError> {
    let (wanted, selections) = match objective {
        Objective::Own(own) => own_columns(job, prepared, own)?,
        Objective::Stage { stage, .. } => stage_columns(job, prepared, stage)?,
    };
    let weights = job.data.weights.as_deref().filter(|_| training).map(Selection::from);
    let mut wishes: Vec<Wish<'_>> = selections
        .iter()
        .zip(&wanted)
        .map(|(selection, wanted)| Wish { selection, dtype: wanted.fact.dtype })
        .collect();
    wishes.extend(weights.as_ref().map(|selection| Wish { selection, dtype: None }));
    let dataset = data.open(job, training)?.derive(&job.data.options(), &wishes)?;
    let path = dataset.path().to_path_buf();
    let mut feeds = rows::check(&dataset, &wanted).map_err(|error| named(error, prepared))?;
    for (input, classes, ignored) in labels(prepared, objective)? {
        let Some(feed) = feeds.iter_mut().find(|feed| feed.input == input) else { continue };
        rows::check_fed_labels(feed, classes, Some(ignored))
            .map_err(|error| bad(format!("{}: {error}", path.display())))?;
        feed.pad = Some(ignored);
    }
    let fixed = wanted.iter().find_map(|wanted| wanted.fact.dim(0)?.known().map(|size| (&wanted.input, size)));
    let options = BatchOptions {
        size: job.data.batch,
        seed: job.data.seed,
        sampler: if training { sampler(job, &dataset, &feeds)? } else { Sampler::Sequential },
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
            let hint = "export the model with a dynamic batch axis, or use data.last_batch = \"drop\" or \"pad\"";
            return Err(bad(text).hint(hint));
        }
    }
    let counted = |feed: &Feed| feed.input.starts_with(names::TARGET) && feed.pad.is_none();
    if options.last_batch == LastBatch::Pad
        && dataset.rows() % job.data.batch != 0
        && !feeds.iter().any(|feed| feed.pad.is_some())
    {
        let which = feeds.iter().find(|feed| counted(feed)).map_or("the loss", |feed| feed.input.as_str());
        let text = format!("data.last_batch = \"pad\" needs class labels, which can be ignored; {which} holds none");
        return Err(bad(text).hint("use data.last_batch = \"keep\" or \"drop\""));
    }
    Ok(Batches::new(feeds, options)?)
}

/// Returns how the rows of training data are drawn.
fn sampler(job: &Job, dataset: &Dataset, feeds: &[Feed]) -> Result<Sampler, TrainerError> {
    Ok(match job.data.sampler() {
        SamplerKind::Shuffle => Sampler::Shuffle,
        SamplerKind::Sequential => Sampler::Sequential,
        SamplerKind::Weighted => {
            let name = job.data.weights.as_deref().unwrap_or_default();
            let values = dataset.values(name)?;
            let weights = values.to_f64s().filter(|weights| weights.len() == dataset.rows());
            let weights =
                weights.ok_or_else(|| bad(format!("data.weights: column \"{name}\" is no number for each row")))?;
            if let Some(row) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
                return Err(bad(format!(
                    "data.weights: row {row} (from 0) of \"{name}\" is {}, expected 0 or more",
                    weights[row]
                )));
            }
            if weights.iter().sum::<f64>() <= 0.0 {
                return Err(bad(format!("data.weights: no row of \"{name}\" has a weight above 0")));
            }
            Sampler::Weighted(weights)
        }
        SamplerKind::Balanced => {
            let target = feeds.iter().find(|feed| feed.pad.is_some());
            let target = target.map(|feed| feed.source.columns()[feed.column].name.as_str());
            let Some(name) = job.data.weights.as_deref().or(target) else {
                let text =
                    "data.sampler = \"balanced\" needs data.weights, the column of the classes: no target holds any";
                return Err(bad(text.into()));
            };
            let labels = dataset.values(name)?.to_ints().filter(|labels| labels.len() == dataset.rows());
            Sampler::Balanced(labels.ok_or_else(|| {
                bad(format!("data.sampler = \"balanced\": column \"{name}\" is no label for each row"))
            })?)
        }
    })
}

/// Returns the inputs that are class indices, with the number of classes and the label that does not
/// count.
fn labels(prepared: &Prepared, objective: &Objective<'_>) -> Result<Vec<(String, usize, i64)>, TrainerError> {
    let graph = &prepared.model.graph;
    match objective {
        Objective::Own(own) => {
            let targets = targets(prepared, own.loss, own.output)?.into_iter();
            Ok(targets
                .filter_map(|target| target.labels.map(|(classes, rest)| (target.input, classes, rest)))
                .collect())
        }
        Objective::Stage { stage, .. } => {
            let prediction = stage.prediction(graph).and_then(|name| graph.find(name));
            let classes = prediction.and_then(|id| stage.metrics.classes(graph.fact(id)));
            let ignored = stage.metrics.ignore_index.unwrap_or(IGNORE_INDEX);
            Ok(classes.map(|(_, classes)| (names::TARGET.to_string(), classes, ignored)).into_iter().collect())
        }
    }
}

/// Says of a target that it is one: its input is none of the model's.
fn named(error: DataError, prepared: &Prepared) -> TrainerError {
    let graph = &prepared.model.graph;
    match &error {
        DataError::Fit { path, column, input, expected, found } if graph.find(input).is_none() => {
            let name = input.split_once('.').map_or_else(|| "of the loss".into(), |(_, name)| format!("\"{name}\""));
            let text = format!("does not fit the target {name}: expected {expected}, found {found}");
            bad(format!("{}: column \"{column}\" {text}", path.display()))
        }
        _ => error.into(),
    }
}

fn bad(text: String) -> TrainerError {
    TrainerError::new(ErrorKind::BadInput, text)
}

fn own_columns(job: &Job, prepared: &Prepared, own: &Own<'_>) -> Result<(Vec<Wanted>, Vec<Selection>), TrainerError> {
    let graph = &prepared.model.graph;
    let known = || graph.inputs().iter().map(|id| graph.value_name(*id)).collect::<Vec<_>>().join(", ");
    let (mut wanted, mut selections) = (Vec::new(), Vec::new());
    for (input, column) in &job.data.inputs {
        let id = graph.find(input).filter(|id| graph.inputs().contains(id));
        let id = id.ok_or_else(|| bad(format!("data.inputs names \"{input}\", the model's inputs are {}", known())))?;
        wanted.push(Wanted { column: column.to_string(), input: input.clone(), fact: graph.fact(id).clone() });
        selections.push(column.clone());
    }
    for id in graph.inputs() {
        let name = graph.value_name(*id);
        if !job.data.inputs.contains_key(name) {
            return Err(bad(format!("the model's input \"{name}\" {} has no column in data.inputs", graph.fact(*id))));
        }
    }
    let targets = targets(prepared, own.loss, own.output)?;
    for Target { input, name, fact, .. } in &targets {
        let column = job.data.target.as_ref().and_then(|columns| columns.column(name.as_deref()));
        let column = column.ok_or_else(|| bad(no_column(job.data.target.as_ref(), name.as_deref())))?;
        wanted.push(Wanted { column: column.to_string(), input: input.clone(), fact: fact.clone() });
        selections.push(column.clone());
    }
    if let Some(Targets::Named(columns)) = &job.data.target
        && let Some(stranger) =
            columns.keys().find(|key| !targets.iter().any(|target| target.name.as_ref() == Some(key)))
    {
        return Err(bad(format!("data.target names \"{stranger}\", which is the target of no loss")));
    }
    if targets.is_empty() && job.data.target.is_some() {
        return Err(bad("data.target is given, and no loss has a target".into()));
    }
    Ok((wanted, selections))
}

fn no_column(columns: Option<&Targets>, name: Option<&str>) -> String {
    match (columns, name) {
        (None, None) => "missing key `target` in [data]".into(),
        (Some(Targets::Named(columns)), None) => {
            let names = columns.keys().cloned().collect::<Vec<_>>().join(", ");
            format!("data.target names its columns ({names}): each loss needs one of these as its `target`")
        }
        (Some(Targets::Named(columns)), Some(name)) => {
            let near = nearest(name, columns.keys().map(String::as_str));
            let near = near.map(|near| format!(", did you mean \"{near}\"?")).unwrap_or_default();
            format!("a loss has the target \"{name}\", which is not in data.target{near}")
        }
        (_, Some(name)) => {
            format!("a loss has the target \"{name}\": data.target needs a table such as {{ {name} = \"column\" }}")
        }
        (Some(Targets::One(_)), None) => unreachable!("invariant: one column is that of the target without a name"),
    }
}

/// Inputs keep their names in the file; `target` is the column of the one that `inputs` leaves out.
fn stage_columns(job: &Job, prepared: &Prepared, stage: &Stage) -> Result<(Vec<Wanted>, Vec<Selection>), TrainerError> {
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
    let target = match &job.data.target {
        None => None,
        Some(Targets::One(column)) => Some(column),
        Some(Targets::Named(_)) => return Err(bad("a data.target of several columns needs [[losses]]".into())),
    };
    match (target, left.as_slice()) {
        (Some(_), [_]) | (None, []) => {}
        (Some(target), []) => {
            let text = format!("data.target is \"{target}\", and every input of a step has a column in data.inputs");
            return Err(bad(text));
        }
        (_, [first, ..]) => return Err(bad(format!("the input \"{first}\" of a step has no column in data.inputs"))),
    }
    let column = |name: &String| job.data.inputs.get(name).or(target).expect("invariant: every input has a column");
    let wanted = ids.iter().zip(&known).map(|(id, name)| Wanted {
        column: column(name).to_string(),
        input: graph.value_name(*id).to_string(),
        fact: graph.fact(*id).clone(),
    });
    Ok((wanted.collect(), known.iter().map(|name| column(name).clone()).collect()))
}
