//! The phases of a run: the one that trains, and those that come back and are kept ready.

use super::engine::Engine;
use super::event::RunEvent;
use super::phase::Phase;
use super::proof::Proof;
use super::run::Run;
use super::train::RunError;
use crate::graph::Model;
use crate::plan::{OnReturn, Segment};
use crate::training::TrainStep;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Instant;

/// The most phases that are kept ready.
const MOST: usize = 16;

/// The phases whose sessions live.
pub(super) struct Phases {
    open: Option<Open>,
    /// Phases that will come back, the one that was left last at the end.
    parked: Vec<Open>,
    /// Frozen sets that come more than once.
    recurring: HashSet<BTreeSet<String>>,
    /// What was held last, once something was.
    last: Option<BTreeSet<String>>,
    /// The phase that a run goes on in.
    resumed: Option<Resumed>,
    nothing: BTreeSet<String>,
}

/// What a run that goes on must know of the phase it stands in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Resumed {
    from_epoch: usize,
    proof: Proof,
}

pub(super) struct Open {
    held: BTreeSet<String>,
    pub(super) phase: Phase,
    /// The step, without the graphs that the engine has.
    pub(super) step: TrainStep,
    proof: Proof,
    from_epoch: usize,
}

impl Phases {
    /// Returns no open phase, for a run of these segments.
    pub(super) fn new(segments: &[Segment]) -> Phases {
        let mut count: HashMap<BTreeSet<String>, usize> = HashMap::new();
        for segment in segments {
            *count.entry(segment.held().map(String::from).collect()).or_default() += 1;
        }
        let recurring = count.into_iter().filter(|(_, times)| *times > 1).map(|(held, _)| held).collect();
        Phases { open: None, parked: Vec::new(), recurring, last: None, resumed: None, nothing: BTreeSet::new() }
    }

    /// Returns the phase that trains.
    pub(super) fn current(&mut self) -> &mut Phase {
        &mut self.open.as_mut().expect("invariant: a segment is entered before its steps").phase
    }

    /// Returns the step and the phase that train.
    pub(super) fn open_step(&self) -> Option<(&TrainStep, &Phase)> {
        self.open.as_ref().map(|open| (&open.step, &open.phase))
    }

    /// Takes the phase that trains out; [`Phases::put`] brings it back.
    pub(super) fn take(&mut self) -> Option<Open> {
        self.open.take()
    }

    /// Makes a phase the one that trains.
    pub(super) fn put(&mut self, open: Open) {
        self.open = Some(open);
    }

    /// Returns the names of what is held in the phase that trains or trained last.
    pub(super) fn held(&self) -> &BTreeSet<String> {
        let open = self.open.as_ref().map(|open| &open.held);
        open.or(self.last.as_ref()).unwrap_or(&self.nothing)
    }

    /// Returns true when a phase trains or has trained.
    pub(super) fn has_trained(&self) -> bool {
        self.open.is_some() || self.last.is_some()
    }

    /// Returns what a run that goes on here must know of the phase that trains.
    pub(super) fn resumed(&self) -> Option<Resumed> {
        let open = self.open.as_ref().map(|open| Resumed { from_epoch: open.from_epoch, proof: open.proof.clone() });
        open.or_else(|| self.resumed.clone())
    }

    /// Goes on in a phase that trained `held`.
    pub(super) fn resume(&mut self, held: Option<BTreeSet<String>>, phase: Option<Resumed>) {
        (self.last, self.resumed) = (held, phase);
    }

    /// Drops the phase that trains, without a proof.
    pub(super) fn discard(&mut self, engine: &mut dyn Engine) {
        self.open.take().into_iter().for_each(|open| open.phase.close(engine));
        self.last = None;
        self.clear(engine);
    }

    /// Drops the phases that are kept ready.
    pub(super) fn clear(&mut self, engine: &mut dyn Engine) {
        self.parked.drain(..).for_each(|open| open.phase.close(engine));
    }
}

impl Run<'_> {
    /// Makes the graphs of a segment ready, where they are not those that run already.
    pub(super) fn enter(
        &mut self,
        engine: &mut dyn Engine,
        segment: &Segment,
        report: &mut dyn FnMut(RunEvent),
    ) -> Result<(), RunError> {
        let held: BTreeSet<String> = segment.held().map(String::from).collect();
        if self.phases.open.as_ref().is_some_and(|open| open.held == held) {
            if let Some(pace) = self.pace.as_mut().filter(|pace| !pace.is_open()) {
                pace.enter(segment, self.plan.epochs[segment.first_epoch - 1].at(segment.after), 0.0, false, report);
            }
            return Ok(());
        }
        let change = Instant::now();
        let same = self.phases.resumed.take_if(|_| self.phases.last.as_ref() == Some(&held));
        self.leave(engine, report)?;
        let clock = Instant::now();
        let entry = self.plan.epochs[segment.first_epoch - 1].at(segment.after);
        let parked = self.phases.parked.iter().position(|open| open.held == held);
        let keep = self.setup.freezing.on_return == OnReturn::Keep;
        let mut recomputed = Vec::new();
        let mut open = match parked {
            Some(position) => {
                let mut open = self.phases.parked.remove(position);
                self.state.set_slots(engine, &open.step.slots, keep)?;
                open.phase.rebind(engine, &open.step, &self.state)?;
                open
            }
            None => {
                let (step, names) = self.build(engine, segment, self.phases.recurring.contains(&held))?;
                recomputed = names;
                self.state.set_slots(engine, &step.slots, keep)?;
                let phase = Phase::new(engine, &step, &self.state)?;
                Open { held, phase, step, proof: Proof::default(), from_epoch: segment.first_epoch }
            }
        };
        if let Some(calibration) = self.calibration.take() {
            // A policy that decides as it goes has phases that nobody foresaw.
            if let Some(pace) = self.pace.as_mut().filter(|pace| !pace.knows(entry)) {
                let seconds = calibration.predict(&calibration.load(&open.step, self.setup.train.rows_of(0), entry));
                pace.learn(entry, &seconds);
            }
            self.calibration = Some(calibration);
        }
        let goes_on = same.is_some();
        open.from_epoch = same.as_ref().map_or(segment.first_epoch, |resumed| resumed.from_epoch);
        open.proof = match same {
            Some(resumed) => resumed.proof,
            None => Proof::of(engine, &self.state, segment)?,
        };
        self.rates.trains(&open.step.trained, self.place.started);
        report(RunEvent::Phase {
            epoch: segment.first_epoch,
            after: segment.after,
            frozen: segment.frozen.len(),
            frozen_units: entry.frozen_units,
            seconds: clock.elapsed().as_secs_f64(),
            predicted_step_cost: entry.predicted.step_cost,
            predicted_step_seconds: self.pace.as_ref().map(|pace| pace.predicted(entry)),
            nodes: open.step.train.graph.nodes().len(),
            recomputed,
        });
        if parked.is_none() {
            warn(&open.step, segment, report);
            if self.phases.recurring.contains(&open.held) {
                // The engine holds its own copy; what is left of the graphs is what a binding reads.
                open.step.eval = Model::default();
            }
        }
        self.phases.open = Some(open);
        if let Some(pace) = self.pace.as_mut().filter(|pace| !(goes_on && pace.is_open())) {
            pace.enter(segment, entry, change.elapsed().as_secs_f64(), parked.is_none(), report);
        }
        Ok(())
    }

    /// Ends the phase that trains: what was frozen in it must be what it was.
    pub(super) fn leave(&mut self, engine: &mut dyn Engine, report: &mut dyn FnMut(RunEvent)) -> Result<(), RunError> {
        if let Some(Resumed { from_epoch, proof }) = self.phases.resumed.take() {
            // The run went on at the end of a phase.
            let to_epoch = self.last_epoch().max(from_epoch);
            proof.check(engine, &self.state, from_epoch, to_epoch)?;
            if !proof.is_empty() {
                report(proof.event(from_epoch, to_epoch));
            }
        }
        let Some(mut open) = self.phases.open.take() else { return Ok(()) };
        let to_epoch = self.last_epoch().max(open.from_epoch);
        open.proof.check(engine, &self.state, open.from_epoch, to_epoch)?;
        self.phases.last = Some(open.held.clone());
        if !open.proof.is_empty() {
            report(open.proof.event(open.from_epoch, to_epoch));
        }
        if !self.phases.recurring.contains(&open.held) {
            open.phase.close(engine);
            return Ok(());
        }
        open.phase.park(engine, &self.state);
        self.phases.parked.push(open);
        if self.phases.parked.len() > MOST {
            self.phases.parked.remove(0).phase.close(engine);
        }
        Ok(())
    }

    /// Builds the graphs of a segment, with what is frozen as constants at its current values or, for a phase that
    /// comes back, as inputs. Returns with it the modules that are recomputed.
    pub(super) fn build(
        &self,
        engine: &dyn Engine,
        segment: &Segment,
        as_inputs: bool,
    ) -> Result<(TrainStep, Vec<String>), RunError> {
        let setup = self.setup;
        let mut prepared = self.prepared.clone();
        let held: HashSet<&str> = segment.held().collect();
        for (name, buffer) in self.state.values() {
            let trains = prepared.trainable().contains(&name) && !held.contains(name);
            if !trains {
                let tensor = engine.read(buffer)?;
                let graph = std::mem::take(&mut prepared.model.graph);
                prepared.model.graph = graph.with_initializer(name, tensor);
            }
        }
        let objective = &setup.objective;
        let mut step = objective.build(&prepared, held, as_inputs, self.rates.rates(), setup.seed)?;
        let recomputed = match engine.info().recomputes {
            true => step.recompute(&prepared, setup.recompute)?,
            false => Vec::new(),
        };
        if setup.accumulate > 1 {
            step = objective.accumulating(step)?;
        }
        for slot in &mut step.slots {
            slot.initial = self.initial.get(&slot.name).unwrap_or(&slot.initial).clone();
        }
        Ok((step, recomputed))
    }
}

fn warn(step: &TrainStep, segment: &Segment, report: &mut dyn FnMut(RunEvent)) {
    if step.trained.is_empty() {
        let message = format!("nothing trains from epoch {} on: every parameter is frozen", segment.first_epoch);
        report(RunEvent::Warning { message });
    }
    for name in &step.contract.unused {
        let message = format!("the loss does not depend on \"{name}\": it keeps its value");
        report(RunEvent::Warning { message });
    }
}
