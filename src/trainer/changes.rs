//! What may change in a job while its run is stopped, key by key.

use super::{Trainer, TrainerError};
use crate::checkpoint::Checkpoint;
use crate::error::ErrorKind;
use crate::plan::{FreezePlan, parse};
use crate::runner::changed_rules;
use std::collections::BTreeMap;
use std::path::Path;
use toml::Value;

/// What becomes of a change.
enum Verdict {
    /// It has no influence on what is trained.
    Free,
    /// It is accepted, and this is what a person should know.
    Accepted(String),
    /// The run cannot go on with it, for this reason.
    Refused(String),
}

/// Keys whose change is free, by their beginnings.
const FREE: [&str; 14] = [
    "run.dir",
    "run.log_every",
    "run.tensorboard",
    "run.ceiling_steps",
    "checkpoint.",
    "cache.limit",
    "data.workers",
    "data.prefetch",
    "data.cache_dir",
    "init.",
    "eval.metrics",
    "eval.best",
    "eval.early_stopping",
    "eval.every",
];

/// Keys whose change is accepted, by their beginnings, with what follows from it.
const ACCEPTED: [(&str, &str); 13] = [
    ("run.threads", "the run need not end with the same bits as one that never stopped"),
    ("run.device", "the run need not end with the same bits as one that never stopped"),
    ("run.operators", "the run need not end with the same bits as one that never stopped"),
    ("run.precision", "parameters and slots are float32 in all of them; from here on steps round otherwise"),
    ("run.keep_float32", "from here on steps round otherwise"),
    ("run.loss_scale", "it holds from here on"),
    ("run.recompute", "the run need not end with the same bits as one that never stopped"),
    ("freeze.prefix", "the run need not end with the same bits as one that never stopped"),
    ("cache.", "the run need not end with the same bits as one that never stopped"),
    ("run.nonfinite", "it holds from here on"),
    ("data.train", "its rows must be those of the run so far; only their number is checked"),
    ("data.eval", "metrics before and after are of different files"),
    ("model", "the file has the same content"),
];

/// Why other changes are refused, by the section.
const REFUSED: [(&str, &str); 8] = [
    ("data.", "the rows and their order would not be those of the run so far"),
    ("loss", "another loss is minimized"),
    ("optimizer.", "the slots are those of the optimizer that the run began with, and its rates follow from it"),
    ("schedule.", "the rates are those of the whole run, and a part of it is done"),
    ("freeze.", "the plan is that of the whole run, and a part of it is done"),
    ("ema.", "the averages so far were taken otherwise"),
    ("run.accumulate", "the steps of an epoch would be others"),
    ("run.seed", "what is random would not be that of the run so far"),
];

/// Compares the job with the one that the run was trained with so far. Returns what a person should know of accepted
/// changes.
///
/// # Errors
/// The changes with which the run cannot go on, each with its reason.
pub(super) fn check(folder: &Path, trainer: &Trainer, checkpoint: &Checkpoint) -> Result<Vec<String>, TrainerError> {
    let path = folder.join("job.toml");
    let bad = |text: String| TrainerError::new(ErrorKind::BadInput, text);
    let text =
        std::fs::read_to_string(&path).map_err(|error| bad(format!("cannot read {}: {error}", path.display())))?;
    let before: Value =
        toml::from_str(&text).map_err(|error| bad(format!("{} is no job: {}", path.display(), error.message())))?;
    let now: Value = toml::from_str(&trainer.job.resolved()).expect("invariant: a resolved job is TOML");
    let past = parse(Path::new("plan.json"), &checkpoint.plan)?;
    let (before, now) = (flat(&before), flat(&now));
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let (mut notes, mut refused) = (Vec::new(), Vec::new());
    for key in keys {
        let [old, new] = [&before, &now].map(|job| job.get(key));
        if old == new {
            continue;
        }
        let text = |value: Option<&Value>| value.map_or("not set".into(), Value::to_string);
        let change = format!("{key} was {} and is {}", text(old), text(new));
        match verdict(key, trainer, &past, checkpoint) {
            Verdict::Free => {}
            Verdict::Accepted(note) => notes.push(format!("{change}: {note}")),
            Verdict::Refused(reason) => refused.push(format!("{change}: {reason}")),
        }
    }
    // A policy of the caller stands in no job.
    if !refused.iter().any(|change| change.starts_with("freeze.")) && past.policy != trainer.plan.policy {
        let [old, new] = [&past, &trainer.plan].map(|plan| {
            let settings = serde_json::to_string(&plan.policy.settings).expect("invariant: plain data");
            format!("{} {settings}", plan.policy.name)
        });
        refused.push(format!(
            "the policy was {old} and is {new}: the plan is that of the whole run, and a part of it is done"
        ));
    }
    let rules = trainer.objective()?.rules(&trainer.prepared)?;
    let others = changed_rules(checkpoint, &rules).into_iter();
    refused.extend(others.map(|change| format!("{change}: what is trained would be something else")));
    if refused.is_empty() {
        return Ok(notes);
    }
    let text = format!("{} cannot go on with a changed job: {}", folder.display(), refused.join("; "));
    Err(TrainerError::new(ErrorKind::Usage, text).hint(
        "go on without the change, or begin a new run from its weights: another run.dir, and [init] weights = the \
         checkpoint",
    ))
}

fn verdict(key: &str, trainer: &Trainer, past: &FreezePlan, checkpoint: &Checkpoint) -> Verdict {
    if key == "model" && past.model.sha256 != trainer.plan.model.sha256 {
        return Verdict::Refused("it is another model".into());
    }
    if key == "run.epochs" {
        return epochs(trainer, past, checkpoint);
    }
    let begins = |start: &&str| key == start.trim_end_matches('.') || key.starts_with(*start);
    if FREE.iter().any(begins) {
        return Verdict::Free;
    }
    if let Some((_, note)) = ACCEPTED.iter().find(|(start, _)| begins(start)) {
        return Verdict::Accepted((*note).into());
    }
    let reason = REFUSED.iter().find(|(start, _)| begins(start)).map(|(_, reason)| *reason);
    Verdict::Refused(reason.unwrap_or("what is trained would be something else").into())
}

/// More or fewer epochs change nothing of what is done where the rates and the plan so far do not depend on them.
fn epochs(trainer: &Trainer, past: &FreezePlan, checkpoint: &Checkpoint) -> Verdict {
    let done = usize::try_from(checkpoint.epoch).unwrap_or(usize::MAX);
    let plan = &trainer.plan;
    if plan.epochs.len() < done {
        return Verdict::Refused(format!("epoch {done} has begun"));
    }
    if trainer.schedule.depends_on_length() {
        return Verdict::Refused("the rates of the schedule so far depend on the length of the run".into());
    }
    let adaptive = trainer.basis.planner().is_ok_and(|planner| planner.policy().is_adaptive());
    let same = |epoch: usize| match (past.epochs.get(epoch), plan.epochs.get(epoch)) {
        (Some(before), Some(now)) => before.acts_as(now),
        (before, now) => before.is_none() && now.is_none(),
    };
    match (0..done).find(|epoch| !same(*epoch)) {
        Some(epoch) if !adaptive => {
            let text = format!("with it the plan would freeze something else in epoch {}, which has begun", epoch + 1);
            Verdict::Refused(text)
        }
        _ => Verdict::Accepted("what is done stays as it is".into()),
    }
}

/// Returns the values of a table by their keys with dots.
fn flat(value: &Value) -> BTreeMap<String, Value> {
    fn walk(path: String, value: &Value, out: &mut BTreeMap<String, Value>) {
        match value {
            Value::Table(table) => table.iter().for_each(|(key, value)| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(path, value, out);
            }),
            value => {
                out.insert(path, value.clone());
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(String::new(), value, &mut out);
    out
}
