//! What the steps of each phase took, beside what was predicted.

use super::ceiling::{Measured, Relative, Stretch, median, ratio};
use super::event::RunEvent;
use crate::plan::{EpochPlan, FreezePlan, Segment, StepSeconds, sha256_hex};
use crate::training::Prepared;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Steps after a phase change that are no part of the median: sessions grow their memory in them.
const WARM_UP: usize = 2;

/// What steps cost relative to those of the first phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Scale {
    /// Elements of each trainable parameter.
    elements: HashMap<String, u64>,
    /// Backward flops and elements that train, of the step that is measured and with nothing frozen.
    first: (f64, f64),
    nothing: (f64, f64),
    /// Whether what the frozen prefix makes is kept.
    #[serde(default)]
    cached: bool,
    /// What was predicted by the times of single nodes.
    #[serde(default)]
    told: Told,
}

/// Predictions that do not go by flops.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Told {
    /// The step that is measured, and one with nothing frozen.
    first: StepSeconds,
    nothing: Option<Relative>,
    /// By the digest of what is held.
    phases: BTreeMap<String, Relative>,
}

impl Scale {
    pub(super) fn of(plan: &FreezePlan, prepared: &Prepared, first: &Segment) -> Scale {
        let graph = &prepared.model.graph;
        let of = |name: &str| {
            let sizes = graph.find(name).and_then(|id| graph.fact(id).sizes()).unwrap_or_default();
            (name.to_string(), sizes.iter().map(|size| *size as u64).product())
        };
        let elements: HashMap<String, u64> = prepared.trainable().into_iter().map(of).collect();
        let all: u64 = elements.values().sum();
        let mut scale =
            Scale { elements, first: (0.0, 0.0), nothing: (0.0, all as f64), cached: false, told: Told::default() };
        if let Some(entry) = plan.epochs.get(first.first_epoch.saturating_sub(1)).map(|epoch| epoch.at(first.after)) {
            let predicted = &entry.predicted;
            scale.first = (predicted.backward_flops as f64, scale.trained(entry));
            let total = (predicted.forward_flops as f64 + predicted.backward_flops as f64) / predicted.step_cost;
            let nothing = total - predicted.forward_flops as f64;
            scale.nothing.0 = if nothing.is_finite() { nothing.max(scale.first.0) } else { scale.first.0 };
        }
        scale
    }

    /// Returns the scale of a run that keeps what its frozen prefix makes, where it can.
    pub(super) fn cached(self, cached: bool) -> Scale {
        Scale { cached, ..self }
    }

    /// Returns the backward flops of an entry and the elements that train; `None` has nothing frozen.
    pub(super) fn load(&self, entry: Option<&EpochPlan>) -> (f64, f64) {
        entry.map_or(self.nothing, |entry| (entry.predicted.backward_flops as f64, self.trained(entry)))
    }

    fn trained(&self, entry: &EpochPlan) -> f64 {
        let frozen: u64 = entry.frozen.iter().filter_map(|name| self.elements.get(name)).sum();
        self.nothing.1 - frozen as f64
    }

    /// Returns true where the first phase has less than half of the whole backward pass.
    pub(super) fn is_small(&self) -> bool {
        self.first.0 < 0.5 * self.nothing.0
    }

    /// Takes a step with nothing frozen for the one that is measured.
    pub(super) fn measure_nothing(&mut self) {
        self.first = self.nothing;
    }

    /// Returns true where that step has nothing frozen.
    pub(super) fn measures_nothing(&self) -> bool {
        self.first == self.nothing
    }

    /// Returns backward flops and elements that train of the step that is measured.
    pub(super) fn reference(&self) -> (f64, f64) {
        self.first
    }

    /// Returns the cost of the step that is measured, which is one of the first phase or one with nothing frozen.
    pub(super) fn first(&self) -> Relative {
        Relative::FIRST
    }

    /// Returns the cost of a step with nothing frozen.
    pub(super) fn nothing(&self) -> Relative {
        if let Some(told) = self.told.nothing {
            return told;
        }
        Relative::to((self.nothing.0, self.first.0), (self.nothing.1, self.first.1))
    }

    /// Returns the cost of a step with what an entry of a plan freezes.
    pub(super) fn relative(&self, entry: &EpochPlan) -> Relative {
        if let Some(told) = self.told.phases.get(&digest(entry)) {
            return *told;
        }
        let predicted = &entry.predicted;
        let (forward, backward) = (predicted.forward_flops as f64, predicted.backward_flops as f64);
        let cost = Relative::to((backward, self.first.0), (self.trained(entry), self.first.1));
        let saved = (predicted.step_cost - predicted.cached_step_cost) * ratio(forward + backward, predicted.step_cost);
        let saved = if self.cached { ratio(saved, forward).clamp(0.0, 1.0) } else { 0.0 };
        Relative { forward: 1.0 - saved, ..cost }
    }

    /// Takes predicted seconds, of the step that is measured and of one with nothing frozen, in place of flops.
    pub(super) fn tell(&mut self, first: StepSeconds, nothing: &StepSeconds) {
        self.told = Told { first, nothing: Some(Relative::of(nothing, &first)), phases: BTreeMap::new() };
    }

    /// Takes predicted seconds of what an entry of a plan freezes; nothing without those of [`Scale::tell`].
    pub(super) fn learn(&mut self, entry: &EpochPlan, seconds: &StepSeconds) {
        if self.told.nothing.is_some() {
            self.told.phases.insert(digest(entry), Relative::of(seconds, &self.told.first));
        }
    }

    /// Returns true where predicted seconds of what an entry freezes were taken.
    pub(super) fn knows(&self, entry: &EpochPlan) -> bool {
        self.told.phases.contains_key(&digest(entry))
    }

    /// Returns the stretches of a plan.
    pub(super) fn stretches(&self, plan: &FreezePlan, steps_per_epoch: usize) -> Vec<Stretch> {
        let mut seen: HashSet<Vec<&str>> = HashSet::new();
        let mut before: Option<Vec<&str>> = None;
        let mut stretches: Vec<Stretch> = Vec::new();
        for epoch in &plan.epochs {
            let ends = epoch.changes.iter().map(|change| change.after).chain([steps_per_epoch]);
            for (entry, end) in epoch.stretches().zip(ends) {
                let steps = end.saturating_sub(entry.after);
                let held: Vec<&str> = entry.held().collect();
                if let (Some(last), true) = (stretches.last_mut(), before.as_ref() == Some(&held)) {
                    last.steps += steps;
                    continue;
                }
                let new = seen.insert(held.clone());
                stretches.push(Stretch { steps, cost: self.relative(entry), builds: new && before.is_some() });
                before = Some(held);
            }
        }
        stretches
    }
}

/// Returns a digest of what an entry holds.
fn digest(entry: &EpochPlan) -> String {
    let mut held: Vec<&str> = entry.held().collect();
    held.sort_unstable();
    sha256_hex(held.join("\n").as_bytes())
}

/// The stretch that trains.
#[derive(Serialize, Deserialize)]
struct Open {
    epoch: usize,
    after: usize,
    cost: Relative,
    builds: bool,
    change: f64,
    seconds: Vec<f64>,
}

/// Compares the run with the prediction.
#[derive(Serialize, Deserialize)]
pub(super) struct Pace {
    measured: Measured,
    scale: Scale,
    open: Option<Open>,
    done: Vec<Done>,
}

/// A stretch that is over.
#[derive(Serialize, Deserialize)]
struct Done {
    stretch: Stretch,
    median: f64,
    /// Seconds of the change before it, with what its first steps took beyond the median.
    change: f64,
}

impl Pace {
    pub(super) fn new(measured: Measured, scale: Scale) -> Pace {
        Pace { measured, scale, open: None, done: Vec::new() }
    }

    /// Returns the predicted seconds of a step with what an entry of a plan freezes.
    pub(super) fn predicted(&self, entry: &EpochPlan) -> f64 {
        self.measured.step.of(self.scale.relative(entry))
    }

    /// Returns true where the seconds of what an entry freezes were predicted.
    pub(super) fn knows(&self, entry: &EpochPlan) -> bool {
        self.scale.knows(entry)
    }

    /// Takes predicted seconds of what an entry of a plan freezes.
    pub(super) fn learn(&mut self, entry: &EpochPlan, seconds: &StepSeconds) {
        self.scale.learn(entry, seconds);
    }

    /// Notes that another frozen set trains, after a change of so many seconds; `builds` says whether graphs were built.
    pub(super) fn enter(
        &mut self,
        segment: &Segment,
        entry: &EpochPlan,
        change: f64,
        builds: bool,
        cached: bool,
        report: &mut dyn FnMut(RunEvent),
    ) {
        self.close(report);
        self.scale.cached = cached;
        let first = self.done.is_empty();
        self.open = Some(Open {
            epoch: segment.first_epoch,
            after: segment.after,
            cost: self.scale.relative(entry),
            builds: builds && !first,
            change: if first { 0.0 } else { change },
            seconds: Vec::new(),
        });
    }

    /// Returns true while the steps of a stretch are noted.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Notes that steps waited for so many seconds more.
    pub(super) fn stall(&mut self, seconds: f64) {
        let first = self.done.is_empty();
        self.open.iter_mut().filter(|_| !first).for_each(|open| open.change += seconds);
    }

    /// Notes the seconds of a step.
    pub(super) fn step(&mut self, seconds: f64) {
        self.open.iter_mut().for_each(|open| open.seconds.push(seconds));
    }

    /// Ends the stretch that trains.
    pub(super) fn close(&mut self, report: &mut dyn FnMut(RunEvent)) {
        let Some(Open { epoch, after, cost, builds, change, seconds }) = self.open.take() else { return };
        let apart = WARM_UP.min(seconds.len().saturating_sub(1));
        let (first, rest) = seconds.split_at(apart);
        let median = median(rest);
        let warm_up = first.iter().map(|seconds| (seconds - median).max(0.0)).sum::<f64>();
        let stretch = Stretch { steps: seconds.len(), cost, builds };
        if stretch.steps == 0 {
            return;
        }
        let before = self.done.last().map_or(0.0, |done| {
            let Stretch { steps, cost, .. } = done.stretch;
            steps as f64 * self.measured.step.of(cost)
        });
        report(RunEvent::Speed {
            epoch,
            after,
            steps: stretch.steps,
            predicted_seconds: self.measured.step.of(cost),
            median_seconds: median,
            predicted_change_seconds: if builds { self.measured.change(cost, before) } else { 0.0 },
            change_seconds: change + if self.done.is_empty() { 0.0 } else { warm_up },
        });
        let change = if self.done.is_empty() { 0.0 } else { change + warm_up };
        self.done.push(Done { stretch, median, change });
    }

    /// Returns what the freezing saved, as far as the run came; `None` where nothing can be compared.
    pub(super) fn gain(&self) -> Option<RunEvent> {
        // The stretch that costs most tells best what a step with nothing frozen takes.
        let cost = |done: &&Done| self.measured.step.of(done.stretch.cost);
        let most = self.done.iter().rev().max_by(|a, b| cost(a).total_cmp(&cost(b)))?;
        let stretches: Vec<Stretch> = self.done.iter().map(|done| done.stretch).collect();
        let nothing = self.scale.nothing();
        let predicted = self.measured.predict(nothing, &stretches);
        let full = most.median * ratio(self.measured.step.of(nothing), self.measured.step.of(most.stretch.cost));
        let (mut without, mut steps, mut changes) = (0.0, 0.0, 0.0);
        for Done { stretch, median, change } in &self.done {
            without += stretch.steps as f64 * full;
            steps += stretch.steps as f64 * median;
            changes += change;
        }
        (self.done.len() > 1 || nothing != most.stretch.cost).then(|| RunEvent::Gain {
            predicted: predicted.gain(),
            predicted_steps: predicted.steps_gain(),
            steps: ratio(without - steps, without),
            gain: ratio(without - steps - changes, without),
            seconds_without: without,
            seconds_with: steps + changes,
            change_seconds: changes,
        })
    }
}
