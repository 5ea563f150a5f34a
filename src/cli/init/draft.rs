//! The settings of the job, each with what made it so.

use super::super::failure::{Failure, note};
use super::super::model::{self, Loaded};
use super::attached::Made;
use super::columns::{described, joined, matched};
use super::{loss, optimizer};
use crate::data::Dataset;
use crate::graph::{DType, Dim, Fact, Graph};
use crate::losses::LossSpec;
use crate::plan::{FreezePlan, Run};
use crate::report::plan_brief;
use crate::trainer::attached_note;
use crate::trainer::sizes::Sizes;
use crate::training::Dropout;
use std::collections::BTreeMap;
use toml::Value;

/// Epochs of the run.
const EPOCHS: usize = 20;
/// Rows of a batch where the model leaves it open.
const BATCH: usize = 64;

/// The files of the job, as it names them.
pub struct Paths {
    /// The model.
    pub model: String,
    /// The training data.
    pub train: Option<String>,
}

/// A job in the making.
#[derive(Debug, Default)]
pub struct Draft {
    /// Sections in order; the keys of the top stand in one without a name.
    pub sections: Vec<Section>,
    /// What a person must look at before training.
    pub problems: Vec<String>,
}

/// A section of the file.
#[derive(Debug, Default)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// Comments below its header.
    pub comments: Vec<String>,
    /// Its keys.
    pub keys: Vec<Key>,
    /// Keys that are commented out, with the header where there are no others.
    pub without: Vec<Key>,
}

/// A key.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: Value,
    /// Comments above it.
    pub comments: Vec<String>,
}

fn key(name: &'static str, value: impl Into<Value>) -> Key {
    Key { name, value: value.into(), comments: Vec::new() }
}

fn commented(name: &'static str, value: impl Into<Value>, comment: impl Into<String>) -> Key {
    Key { name, value: value.into(), comments: vec![comment.into()] }
}

/// How the model trains: by a loss and an optimizer of the job, or by what its files carry.
enum How {
    Own { loss: Option<loss::Guess>, optimizer: Box<optimizer::Choice> },
    Artifacts { loss: Value, optimizer: Value, target: String, about: String },
    Stage { about: String, target: Option<String> },
}

impl Draft {
    /// Makes the job for a model and its data, which freezes as the plan does that was `made`, where there is one.
    ///
    /// # Errors
    /// The model cannot be planned.
    pub fn of(loaded: &Loaded, paths: &Paths, data: Option<&Dataset>, made: Option<Made>) -> Result<Draft, Failure> {
        let graph = &loaded.analysis.model.graph;
        let mut draft = Draft::default();
        let staged = match loaded.file.training.is_empty() {
            true => None,
            false => model::staged(loaded, 1, Dropout::AsExported)
                .map_err(|failure| eprintln!("warning: the training information is not used: {failure}"))
                .ok(),
        };
        let inputs: Vec<(String, Fact)> = match &staged {
            Some(staged) => {
                let graph = &staged.prepared.model.graph;
                staged
                    .stage
                    .inputs(graph)
                    .iter()
                    .map(|id| (graph.value_name(*id).into(), graph.fact(*id).clone()))
                    .collect()
            }
            None => {
                graph.inputs().iter().map(|id| (graph.value_name(*id).to_string(), graph.fact(*id).clone())).collect()
            }
        };
        let is_target = |name: &str| {
            staged
                .as_ref()
                .is_some_and(|staged| staged.stage.target.is_some() && name == crate::training::names::TARGET)
        };
        let (targets, inputs): (Vec<_>, Vec<_>) = inputs.into_iter().partition(|(name, _)| is_target(name));
        let mut columns = data.map(|data| matched(&inputs, data, &[])).unwrap_or_default();
        let several = data.map(|data| joined(&inputs, data, &columns)).unwrap_or_default();
        let taken: Vec<String> = columns.values().chain(several.values().flatten()).cloned().collect();
        let how = match (&staged, &loaded.artifacts) {
            (Some(staged), _) => {
                let left = targets.first().map(|(_, fact)| ("target".to_string(), fact.clone()));
                let column = data.zip(left).and_then(|(data, left)| free(&left, data, &taken));
                How::Stage {
                    about: staged.stage.describe(),
                    target: targets.first().map(|_| column.unwrap_or("target".into())),
                }
            }
            (None, Some(artifacts)) => match (&artifacts.loss, &artifacts.optimizer) {
                (Some(found), Some(spec)) => {
                    let fact = graph.find(&found.prediction).map(|id| graph.fact(id));
                    let fact = fact.and_then(|fact| found.spec.target_fact(std::slice::from_ref(fact)).ok().flatten());
                    let left = fact.map(|fact| (found.target.clone(), fact));
                    let column = data.zip(left).and_then(|(data, left)| free(&left, data, &taken));
                    How::Artifacts {
                        loss: value_of(&found.spec),
                        optimizer: value_of(spec),
                        target: column.unwrap_or(found.target.clone()),
                        about: format!("{} of {} against {}", found.spec.kind, found.prediction, found.target),
                    }
                }
                _ => How::Own { loss: loss::guess(graph, data, &taken), optimizer: Box::new(optimizer::choice(graph)) },
            },
            (None, None) => {
                How::Own { loss: loss::guess(graph, data, &taken), optimizer: Box::new(optimizer::choice(graph)) }
            }
        };
        for (name, fact) in &inputs {
            if columns.contains_key(name) || several.contains_key(name) {
                continue;
            }
            if let Some(data) = data {
                draft.problems.push(format!("no column fits the input {name} {fact}: {}", listed(data)));
            }
            columns.insert(name.clone(), name.clone());
        }
        let batch = inputs.iter().find_map(|(_, fact)| fact.dim(0).and_then(Dim::known)).unwrap_or(BATCH);
        let batch = if batch == BATCH { data.map_or(batch, |data| batch.min(data.rows())) } else { batch };
        draft.top(paths, graph);
        draft.data(paths, &inputs, (&columns, &several), &how, data, batch);
        let epochs = made.as_ref().map_or(EPOCHS, |made| made.epochs);
        draft.objective(&how, epochs * data.map_or(0, |data| data.rows().div_ceil(batch)));
        let shape = |(name, column): (&String, &String)| {
            let rest = data?.column(column).ok()?.shape.as_slice();
            Some((name.clone(), [&[batch], rest].concat()))
        };
        let sizes = Sizes { batch: Some(batch), shapes: columns.iter().filter_map(shape).collect() }.that_fit(graph);
        let length = Run { epochs, steps_per_epoch: data.map_or(0, |data| data.rows().div_ceil(batch)) };
        let options = made.as_ref().map(|made| made.options.clone()).unwrap_or_default();
        let wanted = model::Wanted { options: &options, length, sizes: &sizes, policy: None };
        let planned = match (&staged, &how) {
            (Some(staged), _) => staged.plan(loaded, wanted)?,
            (None, How::Own { optimizer, .. }) => {
                model::plan(loaded, wanted, model::slots(loaded, &optimizer.spec, &mut note)?)?
            }
            _ => {
                let spec = loaded.artifacts.as_ref().and_then(|artifacts| artifacts.optimizer.clone());
                let spec = spec.unwrap_or_else(|| optimizer::choice(graph).spec);
                model::plan(loaded, wanted, model::slots(loaded, &spec, &mut note)?)?
            }
        };
        attached_note(&loaded.file, &planned.plan).iter().for_each(|told| note(told));
        draft.freeze(&planned.plan, made);
        draft.sections.push(Section {
            name: "run",
            keys: vec![
                key("epochs", i64::try_from(epochs).unwrap_or(i64::MAX)),
                commented("dir", "runs/first", "The folder of the run: trained model, plan, events, checkpoints."),
            ],
            ..Section::default()
        });
        Ok(draft)
    }

    fn top(&mut self, paths: &Paths, graph: &Graph) {
        let outputs = graph.outputs().iter().map(|id| format!("{} {}", graph.value_name(*id), graph.fact(*id)));
        let outputs = outputs.collect::<Vec<_>>().join(", ");
        let comments = vec![
            "A job of freeze-plan, run with freeze-plan train FILE. Paths are relative to this file. A key that is \
             commented out stands with its default, or with an example where it says that it has none."
                .into(),
            format!("Outputs of the model: {outputs}."),
        ];
        self.sections.push(Section { keys: vec![key("model", paths.model.as_str())], comments, ..Section::default() });
    }

    fn data(
        &mut self,
        paths: &Paths,
        inputs: &[(String, Fact)],
        (columns, several): (&BTreeMap<String, String>, &BTreeMap<String, Vec<String>>),
        how: &How,
        data: Option<&Dataset>,
        batch: usize,
    ) {
        let mut train = key("train", paths.train.as_deref().unwrap_or("train.npz"));
        train.comments = match data {
            Some(data) => vec![format!("{} rows: {}.", data.rows(), listed(data))],
            None => vec!["The data to train on, each row one sample.".into()],
        };
        let table = columns.iter().map(|(input, column)| (input.clone(), Value::from(column.as_str())));
        let arrays = several.iter().map(|(input, columns)| (input.clone(), Value::from(columns.clone())));
        let mut feeds = key("inputs", Value::Table(table.chain(arrays).collect()));
        feeds.comments.push("The column of each input of the model:".into());
        feeds.comments.extend(inputs.iter().map(|(name, fact)| format!("  {name} {fact}{}", meaning(fact))));
        let target = match how {
            How::Own { loss: Some(guess), .. } => guess.target.as_ref().map(|fact| {
                let column = guess
                    .column
                    .clone()
                    .unwrap_or_else(|| if fact.is_float() { "target".into() } else { "labels".into() });
                if let (Some(data), None) = (data, &guess.column) {
                    let none = format!(
                        "no column is left that fits a target {fact} or another one of {}: {}",
                        guess.output,
                        listed(data)
                    );
                    self.problems.push(none);
                }
                commented("target", column, format!("The column that the loss compares with: {fact}."))
            }),
            How::Own { loss: None, .. } => None,
            How::Artifacts { target, .. } => {
                Some(commented("target", target.as_str(), "The column that the loss compares with."))
            }
            How::Stage { target, .. } => target.as_ref().map(|column| {
                commented("target", column.as_str(), "The column of the input that only the training step reads.")
            }),
        };
        let mut keys = vec![train, feeds];
        keys.extend(target);
        keys.push(key("batch", batch as i64));
        self.sections.push(Section { name: "data", keys, ..Section::default() });
    }

    fn objective(&mut self, how: &How, steps: usize) {
        let schedule = |warmup_steps: usize| {
            let mut keys = vec![key("kind", "cosine")];
            keys.extend((warmup_steps > 0).then(|| key("warmup_steps", warmup_steps as i64)));
            let comments =
                vec!["Also constant, step, multistep, one-cycle, polynomial, exponential, linear and plateau.".into()];
            Section { name: "schedule", keys, comments, ..Section::default() }
        };
        match how {
            How::Own { loss: guess, optimizer } => {
                let mut section = Section { name: "loss", ..Section::default() };
                match guess {
                    Some(guess) => {
                        section.comments = guess.why.iter().map(|why| sentence(why)).collect();
                        section.keys = vec![key("kind", guess.kind.name()), key("output", guess.output.as_str())];
                    }
                    None => self.problems.push("the model has no output of numbers: no loss is known for it".into()),
                }
                self.sections.push(section);
                let spec = value_of(&optimizer.spec);
                let comments = vec![sentence(optimizer.why)];
                self.sections.push(Section { name: "optimizer", comments, keys: keys_of(&spec), ..Section::default() });
                let most = if steps > 0 { steps / 10 } else { usize::MAX };
                self.sections.push(schedule(optimizer.warmup_steps.min(most)));
            }
            How::Artifacts { loss, optimizer, about, .. } => {
                let own = |name, what: String, value: &Value| Section {
                    name,
                    comments: vec![what],
                    without: keys_of(value),
                    ..Section::default()
                };
                self.sections.push(own("loss", format!("That of the training artifacts: {about}."), loss));
                self.sections.push(own("optimizer", "That of the training artifacts.".into(), optimizer));
                self.sections.push(schedule(0));
            }
            How::Stage { about, .. } => {
                let comments =
                    vec![format!("Without [loss] and [optimizer] the model trains as its file says: {}.", about)];
                self.sections.push(Section { name: "optimizer", comments, ..Section::default() });
            }
        }
    }

    fn freeze(&mut self, plan: &FreezePlan, made: Option<Made>) {
        let mut comments =
            vec!["What this gives; freeze-plan MODEL shows it as a table, freeze-plan policies other ways:".into()];
        comments.extend(plan_brief(plan).iter().map(|line| format!("  {line}")));
        let keys = match made {
            Some(made) => {
                comments.push("It is the plan that is attached to the model, with its number of epochs.".into());
                made.keys
            }
            None => vec![
                key("policy", "linear"),
                commented("freeze_start", 0.5, "The fraction of the epochs before the first freeze."),
                commented("freeze_level", 1.0, "The fraction of the units but the last that is frozen at the end."),
            ],
        };
        self.sections.push(Section { name: "freeze", comments, keys, ..Section::default() });
    }
}

/// Returns a column that none of the inputs takes and that fits a target, one of its name first.
fn free(target: &(String, Fact), data: &Dataset, taken: &[String]) -> Option<String> {
    matched(std::slice::from_ref(target), data, taken).into_values().next()
}

/// Returns options as a table.
fn value_of(spec: &impl serde::Serialize) -> Value {
    Value::try_from(spec).unwrap_or(Value::Table(toml::Table::new()))
}

fn keys_of(value: &Value) -> Vec<Key> {
    const NAMES: [&str; 14] = [
        "kind",
        "output",
        "lr",
        "momentum",
        "dampening",
        "nesterov",
        "weight_decay",
        "betas",
        "eps",
        "amsgrad",
        "decoupled_weight_decay",
        "alpha",
        "centered",
        "clip_norm",
    ];
    let table = value.as_table();
    NAMES.iter().filter_map(|name| Some(key(name, table?.get(*name)?.clone()))).collect()
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let text = format!("{first}{}", letters.as_str());
    if text.ends_with('.') { text } else { text + "." }
}

fn meaning(fact: &Fact) -> &'static str {
    match (fact.dtype, fact.rank()) {
        (Some(DType::I64 | DType::I32), Some(2)) => ", such as token ids or a mask",
        (Some(DType::F32), Some(4)) => ", such as images [rows, channels, height, width]",
        _ => "",
    }
}

fn listed(data: &Dataset) -> String {
    data.columns().iter().map(|column| described(data, column)).collect::<Vec<_>>().join(", ")
}

/// Returns what a job with a loss of this kind looks like, for keys that go with it.
pub fn options_of(kind: &str) -> &'static [(&'static str, &'static str, &'static str)] {
    match LossSpec::default().kind.name() == kind {
        true => &[
            ("label_smoothing", "0.1", "fraction of the target that is spread over all classes"),
            ("ignore_index", "-100", "target value that does not count"),
        ],
        false => &[],
    }
}
