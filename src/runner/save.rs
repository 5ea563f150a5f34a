//! A run as a checkpoint, and a run from one.

use super::engine::Engine;
use super::event::RunEvent;
use super::guard::SavedGuard;
use super::nonfinite::{SavedWatch, Watch};
use super::observe::Memory;
use super::pace::Pace;
use super::phases::Resumed;
use super::rates::SavedRates;
use super::run::{Place, Run};
use super::state::Snapshot;
use super::train::{Checkpoints, RunError, Setup};
use crate::checkpoint::{Checkpoint, Store, Tensors};
use crate::graph::Fact;
use crate::plan::{History, parse, segments, sha256_hex};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Groups of tensors.
pub(super) const VALUES: &str = "values";
pub(super) const SLOTS: &str = "slots";
const AVERAGES: &str = "averages";
pub(super) const OBSERVER: &str = "observer";
const BEFORE: &str = "before";
const START: &str = "start";

/// Everything of a run that is no tensor.
#[derive(Serialize, Deserialize)]
struct Saved {
    place: Place,
    history: History,
    delay: usize,
    rates: SavedRates,
    /// What was held last, once something trained.
    held: Option<BTreeSet<String>>,
    phase: Option<Resumed>,
    guard: Option<SavedGuard>,
    observer: Option<serde_json::Value>,
    watch: SavedWatch,
    /// What the steps took; a run goes on without it.
    pace: Option<serde_json::Value>,
    /// The plan that the run began with.
    began_with: String,
    data: Shape,
    /// Operators with a gradient rule of the caller, with its version.
    #[serde(default)]
    rules: Option<BTreeMap<String, u64>>,
}

/// What the data must have in common.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Shape {
    rows: usize,
    steps_per_epoch: usize,
}

impl Shape {
    fn of(setup: &Setup<'_>) -> Shape {
        Shape { rows: setup.train.rows(), steps_per_epoch: setup.steps_per_epoch() }
    }
}

/// Puts the tensors of a snapshot into groups.
pub(super) fn group(groups: &mut BTreeMap<String, Tensors>, prefix: &str, snapshot: Snapshot) {
    let name = |group: &str| if prefix.is_empty() { group.to_string() } else { format!("{prefix}.{group}") };
    groups.insert(name(VALUES), snapshot.values);
    groups.insert(name(SLOTS), snapshot.slots);
    if !snapshot.averages.is_empty() {
        groups.insert(name(AVERAGES), snapshot.averages);
    }
}

/// Takes the tensors of a snapshot out of a checkpoint.
pub(super) fn snapshot(checkpoint: &Checkpoint, prefix: &str) -> Snapshot {
    let name = |group: &str| if prefix.is_empty() { group.to_string() } else { format!("{prefix}.{group}") };
    let [values, slots, averages] = [VALUES, SLOTS, AVERAGES].map(|group| checkpoint.group(&name(group)));
    Snapshot { values, slots, averages }
}

/// Returns how the gradient rules of the caller differ from those that a checkpoint was made with.
pub(crate) fn changed_rules(checkpoint: &Checkpoint, now: &BTreeMap<String, u64>) -> Vec<String> {
    /// What is read of a state.
    #[derive(Default, Deserialize)]
    struct Ruled {
        rules: Option<BTreeMap<String, u64>>,
    }
    changed(serde_json::from_str::<Ruled>(&checkpoint.state).unwrap_or_default().rules, now)
}

fn changed(before: Option<BTreeMap<String, u64>>, now: &BTreeMap<String, u64>) -> Vec<String> {
    let Some(before) = before else { return Vec::new() };
    let operators: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let differ = operators.into_iter().filter(|op| before.get(*op) != now.get(*op));
    let text = |rule: Option<&u64>| rule.map_or("the built-in one".into(), |version| format!("version {version}"));
    let told =
        |op: &String| format!("the gradient rule of {op} was {} and is {}", text(before.get(op)), text(now.get(op)));
    differ.map(told).collect()
}

impl Run<'_> {
    /// Saves the run, as the best so far with `best`. What cannot be saved is a warning, the run goes on; with `must` it is
    /// an error.
    pub(super) fn checkpoint(
        &mut self,
        engine: &dyn Engine,
        epoch: usize,
        best: bool,
        must: bool,
        report: &mut dyn FnMut(RunEvent),
    ) -> Result<(), RunError> {
        let Some(Checkpoints { folder, keep, .. }) = &self.setup.checkpoints else { return Ok(()) };
        let mut checkpoint = self.saved(engine, epoch)?;
        let step = self.place.started;
        match Store::new(folder, *keep).save(&mut checkpoint, best) {
            Ok(path) => {
                self.last_saved = Some(step);
                let (sequence, path) = (checkpoint.sequence, path.display().to_string());
                report(RunEvent::Checkpoint { epoch, step, path, sequence });
                Ok(())
            }
            Err(error) if must => Err(error.into()),
            Err(error) => {
                let last =
                    self.last_saved.map_or("there is none yet".into(), |step| format!("the last is of step {step}"));
                let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
                let message = format!("no checkpoint of step {step}, {last}: {error}{source}");
                report(RunEvent::Warning { message });
                Ok(())
            }
        }
    }

    fn saved(&self, engine: &dyn Engine, epoch: usize) -> Result<Checkpoint, RunError> {
        let mut groups = BTreeMap::new();
        group(&mut groups, "", self.state.snapshot(engine)?);
        let observer = self.observer.as_ref().map(|observer| {
            let (value, tensors) = observer.memory().saved();
            groups.insert(OBSERVER.into(), tensors);
            value
        });
        let guard = self.guard.saved(BEFORE, &mut groups);
        let saved = Saved {
            place: self.place.clone(),
            history: self.history.clone(),
            delay: self.delay,
            rates: self.rates.saved(),
            held: self.phases.has_trained().then(|| self.phases.held().clone()),
            phase: self.phases.resumed(),
            guard,
            observer,
            watch: self.watch.saved(self.within, START, &mut groups),
            pace: self.pace.as_ref().and_then(|pace| serde_json::to_value(pace).ok()),
            began_with: self.began_with(),
            data: Shape::of(self.setup),
            rules: Some(self.setup.rules()?),
        };
        Ok(Checkpoint {
            epoch: epoch as u64,
            step: self.place.started as u64,
            sequence: 0,
            plan: self.plan.to_json(),
            state: serde_json::to_string(&saved).expect("invariant: plain data"),
            groups,
        })
    }

    fn began_with(&self) -> String {
        let epochs = serde_json::to_vec(&self.setup.freezing.plan.epochs);
        sha256_hex(&epochs.expect("invariant: a plan has string keys and finite numbers"))
    }

    /// Goes to where a checkpoint stands.
    pub(super) fn restore(&mut self, engine: &mut dyn Engine, checkpoint: &Checkpoint) -> Result<(), RunError> {
        let unfit = |reason: String| RunError::Resume { sequence: checkpoint.sequence, reason };
        let saved: Saved = serde_json::from_str(&checkpoint.state).map_err(|error| unfit(error.to_string()))?;
        let data = Shape::of(self.setup);
        if saved.data != data {
            let text = |shape: &Shape| format!("{} rows in {} steps an epoch", shape.rows, shape.steps_per_epoch);
            return Err(unfit(format!("it was made with {}, the job has {}", text(&saved.data), text(&data))));
        }
        let changed = changed(saved.rules, &self.setup.rules()?);
        if !changed.is_empty() {
            return Err(unfit(changed.join("; ")));
        }
        let tensors = snapshot(checkpoint, "");
        self.fits(engine, &tensors).map_err(unfit)?;
        self.state.restore(engine, &tensors)?;
        self.plan = parse("plan.json".as_ref(), &checkpoint.plan).map_err(|error| unfit(error.to_string()))?;
        if let (Some(observer), Some(value)) = (&mut self.observer, saved.observer) {
            observer.restore(Memory::of(observer, value, checkpoint.group(OBSERVER)).map_err(unfit)?);
        }
        let observer = self.observer.as_ref();
        self.guard.restore(saved.guard, checkpoint, BEFORE, &self.rates, observer).map_err(unfit)?;
        self.watch = Watch::of(saved.watch, checkpoint, START);
        self.pace = saved.pace.and_then(|pace| serde_json::from_value::<Pace>(pace).ok());
        let scale = self.place.scale;
        (self.place, self.history, self.delay) = (saved.place, saved.history, saved.delay);
        // A job that was changed in how the loss is scaled begins with its own scale.
        self.place.scale = self.setup.computing.resumed(self.place.scale, scale);
        self.rates.restore(saved.rates);
        self.phases.resume(saved.held, saved.phase);
        self.last_saved = Some(self.place.started);
        self.evaluated = None;
        // A job that was changed in what is still to come has another plan.
        if saved.began_with != self.began_with() {
            let followed = std::mem::replace(&mut self.plan, self.setup.freezing.plan.clone());
            let done = self.place.at.epoch.saturating_sub(1);
            let past = self.plan.epochs.iter_mut().zip(followed.epochs).take(done);
            past.for_each(|(own, followed)| *own = followed);
            self.decide_again()?;
        }
        self.segments = segments(&self.plan);
        Ok(())
    }

    /// Refuses values that are not those of the model.
    fn fits(&self, engine: &dyn Engine, snapshot: &Snapshot) -> Result<(), String> {
        for (name, buffer) in self.state.values() {
            let Some(found) = snapshot.values.get(name) else { return Err(format!("it has no value of \"{name}\"")) };
            let own = engine.read(buffer).map_err(|error| error.to_string())?;
            let (expected, found) = (Fact::fixed(own.dtype(), own.shape()), Fact::fixed(found.dtype(), found.shape()));
            if expected != found {
                return Err(format!("its \"{name}\" is {found}, that of the model {expected}"));
            }
        }
        match snapshot.values.keys().find(|name| self.state.find(name).is_none()) {
            Some(name) => Err(format!("its \"{name}\" is not in the model")),
            None => Ok(()),
        }
    }
}
