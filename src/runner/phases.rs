//! The phases of a run: the one that trains, and those that come back and are kept ready.

use super::ahead::{Ahead, Made, Next};
use super::cache::{Cache, Fresh};
use super::engine::{Engine, OnProcessor};
use super::estimate::{Assumed, MemoryEstimate, Sizes};
use super::event::RunEvent;
use super::phase::Phase;
use super::precision::Summary;
use super::proof::Proof;
use super::recipe::{Form, Graphs};
use super::run::Run;
use super::sessions::Sessions;
use super::train::RunError;
use crate::graph::{Model, Tensor};
use crate::plan::{OnReturn, Segment};
use crate::training::TrainStep;
use crate::training::prefix::Split;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Instant;

/// The most phases that are kept ready.
const MOST: usize = 16;
/// The most phases whose memory is told ahead.
const TOLD: usize = 8;

/// The phases whose sessions live.
pub(super) struct Phases {
    pub(super) open: Option<Open>,
    /// Phases that will come back, the one that was left last at the end.
    pub(super) parked: Vec<Open>,
    /// Frozen sets that come more than once.
    pub(super) recurring: HashSet<BTreeSet<String>>,
    /// What is made while the open phase trains.
    pub(super) ahead: Option<Ahead>,
    /// The proof of the phase before, until another phase trains.
    proved: Option<Proof>,
    /// Seconds that training has waited since the last phase ended.
    waited: f64,
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
    /// What is an input of the graphs because it froze with the phase, as long as that is so.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    fresh: BTreeSet<String>,
    /// Steps done over the run from which on it is a constant, where the phase is that long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    constants_from: Option<usize>,
}

pub(super) struct Open {
    pub(super) held: BTreeSet<String>,
    pub(super) phase: Phase,
    /// The step, without the graphs that the engine has.
    pub(super) step: TrainStep,
    proof: Proof,
    from_epoch: usize,
    fresh: BTreeSet<String>,
    pub(super) constants_from: Option<usize>,
    /// Values that are constants of the graphs.
    pub(super) values: BTreeMap<String, Tensor>,
    /// Seconds in which the graphs and sessions were made.
    pub(super) seconds: f64,
    /// What to make ready before it comes.
    pub(super) next: Option<Next>,
    /// What it is estimated to take.
    pub(super) memory: MemoryEstimate,
}

impl Phases {
    /// Returns no open phase, for a run of these segments.
    pub(super) fn new(segments: &[Segment]) -> Phases {
        let mut count: HashMap<BTreeSet<String>, usize> = HashMap::new();
        for segment in segments {
            *count.entry(segment.held().map(String::from).collect()).or_default() += 1;
        }
        let recurring = count.into_iter().filter(|(_, times)| *times > 1).map(|(held, _)| held).collect();
        Phases {
            open: None,
            parked: Vec::new(),
            recurring,
            ahead: None,
            proved: None,
            waited: 0.0,
            last: None,
            resumed: None,
            nothing: BTreeSet::new(),
        }
    }

    /// Returns the phase that trains.
    pub(super) fn current(&mut self) -> &mut Phase {
        &mut self.current_open().phase
    }

    pub(super) fn current_open(&mut self) -> &mut Open {
        self.open.as_mut().expect("invariant: a segment is entered before its steps")
    }

    /// Returns what was held before the phase that is about to open, once something was.
    pub(super) fn before(&self) -> Option<&BTreeSet<String>> {
        self.last.as_ref()
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
        let open = self.open.as_ref().map(|open| Resumed {
            from_epoch: open.from_epoch,
            proof: open.proof.clone(),
            fresh: open.fresh.clone(),
            constants_from: open.constants_from,
        });
        open.or_else(|| self.resumed.clone())
    }

    /// Goes on in a phase that trained `held`.
    pub(super) fn resume(&mut self, held: Option<BTreeSet<String>>, phase: Option<Resumed>) {
        (self.last, self.resumed) = (held, phase);
    }

    /// Drops the phase that trains, without a proof.
    pub(super) fn discard(&mut self, engine: &mut dyn Engine) {
        self.open.take().into_iter().for_each(|open| open.phase.close(engine));
        (self.last, self.proved) = (None, None);
        self.clear(engine);
    }

    /// Drops the phases that are kept ready.
    pub(super) fn clear(&mut self, engine: &mut dyn Engine) {
        self.ahead = None;
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
                let cached = self.cache.as_ref().is_some_and(Cache::is_used);
                pace.enter(
                    segment,
                    self.plan.epochs[segment.first_epoch - 1].at(segment.after),
                    0.0,
                    false,
                    cached,
                    report,
                );
            }
            return Ok(());
        }
        let change = Instant::now();
        let same = self.phases.resumed.take_if(|_| self.phases.last.as_ref() == Some(&held));
        self.leave(engine, report)?;
        let parked = self.phases.parked.iter().position(|open| open.held == held);
        let keep = self.setup.freezing.on_return == OnReturn::Keep;
        let epoch = &self.plan.epochs[segment.first_epoch - 1];
        let entry = epoch.at(segment.after).clone();
        let (mut recomputed, mut kept) = (Vec::new(), Vec::new());
        let mut open = match parked {
            Some(position) => {
                let clock = Instant::now();
                let mut open = self.phases.parked.remove(position);
                self.forget_kept(engine);
                self.state.set_slots(engine, &open.step.slots, keep)?;
                open.phase.rebind(engine, &open.step, &self.state)?;
                open.seconds = clock.elapsed().as_secs_f64();
                open
            }
            None => {
                let recurs = self.phases.recurring.contains(&held);
                let (fresh, from) = match &same {
                    Some(resumed) => (Some(resumed.fresh.clone()), resumed.constants_from),
                    None => (self.newly_frozen(engine, &held), None),
                };
                let form = Form::of(recurs, fresh.unwrap_or_default());
                let (mut open, modules) = self.open(
                    engine,
                    held,
                    &form,
                    segment.first_epoch,
                    Some((segment, &mut |event| kept.push(event))),
                )?;
                recomputed = modules;
                if let Form::Mixed(fresh) = form {
                    let nodes = open.step.train.graph.nodes().len();
                    let from = match (open.phase.prefix_nodes(), &same) {
                        (0, Some(_)) => from,
                        (0, None) => self.constants_from(&entry, nodes, &open.held),
                        // What is frozen is constant in the prefix.
                        _ => None,
                    };
                    (open.fresh, open.constants_from) = (fresh, from);
                }
                open
            }
        };
        if let Some(calibration) = self.calibration.take() {
            // A policy that decides as it goes has phases that nobody foresaw.
            if let Some(pace) = self.pace.as_mut().filter(|pace| !pace.knows(&entry)) {
                let seconds = calibration.predict(&calibration.load(&open.step, self.setup.train.rows_of(0), &entry));
                pace.learn(&entry, &seconds);
            }
            self.calibration = Some(calibration);
        }
        let goes_on = same.is_some();
        open.from_epoch = same.as_ref().map_or(segment.first_epoch, |resumed| resumed.from_epoch);
        open.proof = match same {
            Some(resumed) => resumed.proof,
            None => Proof::of(engine, &self.state, segment, self.phases.proved.as_ref())?,
        };
        self.phases.proved = None;
        self.rates.trains(&open.step.trained, self.place.started);
        open.next = self.upcoming(&open.held);
        let stall = std::mem::take(&mut self.phases.waited) + change.elapsed().as_secs_f64();
        let cached = self.cache.as_ref().is_some_and(Cache::is_used);
        report(RunEvent::Phase {
            epoch: segment.first_epoch,
            after: segment.after,
            frozen: segment.frozen.len(),
            frozen_units: entry.frozen_units,
            seconds: open.seconds,
            stall_seconds: if self.place.started > 0 { stall } else { 0.0 },
            predicted_step_cost: if cached { entry.predicted.cached_step_cost } else { entry.predicted.step_cost },
            predicted_step_seconds: self.pace.as_ref().map(|pace| pace.predicted(&entry)),
            nodes: open.step.train.graph.nodes().len(),
            recomputed,
            prefix_nodes: open.phase.prefix_nodes(),
            memory_estimate: Some(open.memory.clone()),
        });
        if let Some(Summary { low, float32, kept, casts }) = open.phase.computes(engine).cloned() {
            report(RunEvent::Precision { epoch: segment.first_epoch, low, float32, kept, casts });
        }
        kept.into_iter().for_each(&mut *report);
        if parked.is_none() {
            warn(&open.step, segment, report);
            if self.phases.recurring.contains(&open.held) {
                // The engine holds its own copy; what is left of the graphs is what a binding reads.
                open.step.eval = Model::default();
            }
        }
        let constants_follow = open.constants_from.is_some();
        self.phases.open = Some(open);
        if constants_follow {
            self.make_constants(engine)?;
        }
        if let Some(pace) = self.pace.as_mut().filter(|pace| !(goes_on && pace.is_open())) {
            pace.enter(segment, &entry, stall, parked.is_none(), cached, report);
        }
        Ok(())
    }

    /// Makes the graphs of a phase ready, those that were made ahead where there are any; where a segment is given, with
    /// its frozen prefix on its own. Returns with it the modules that are recomputed.
    fn open(
        &mut self,
        engine: &mut dyn Engine,
        held: BTreeSet<String>,
        form: &Form,
        from_epoch: usize,
        fronted: Option<(&Segment, &mut dyn FnMut(RunEvent))>,
    ) -> Result<(Open, Vec<String>), RunError> {
        let clock = Instant::now();
        let (Graphs { step, recomputed, mut memory }, made, seconds) = match self.made(&held, form)? {
            Some(Made { graphs, sessions, seconds }) => (graphs, Some(sessions), seconds),
            None => (self.build(engine, &held, form)?, None, 0.0),
        };
        let foreseen = made.is_some();
        let front = match fronted {
            Some((segment, report)) => {
                let mut fixed = BTreeMap::new();
                if let Form::Mixed(fresh) = form {
                    for name in fresh {
                        fixed.insert(name.clone(), engine.read(self.state.value(name))?);
                    }
                }
                let of = Fresh { step: &step, segment, recurs: *form == Form::Inputs, fixed: &fixed, memory: &memory };
                self.front(engine, &of, report)
            }
            None => None,
        };
        if let Some((split, _)) = &front {
            memory = self.memory(engine, &step, split);
        }
        let sessions = match (made, front) {
            (Some(made), Some(front)) => {
                let mut sessions = made.adopt(engine);
                sessions.divide(engine, &step, front)?;
                sessions
            }
            (Some(made), None) => made.adopt(engine),
            (None, front) => Sessions::behind(engine, &step, front)?,
        };
        let keep = self.setup.freezing.on_return == OnReturn::Keep;
        self.state.set_slots(engine, &step.slots, keep)?;
        let phase = Phase::with(engine, sessions, &step, &self.state)?;
        let seconds = if foreseen { seconds } else { clock.elapsed().as_secs_f64() };
        let constants = step.train.graph.initializers().filter(|(_, value, _)| held.contains(&value.name));
        let values = constants.map(|(_, value, tensor)| (value.name.clone(), tensor.clone())).collect();
        let open = Open {
            held,
            phase,
            step,
            proof: Proof::default(),
            from_epoch,
            fresh: BTreeSet::new(),
            constants_from: None,
            values,
            seconds,
            next: None,
            memory,
        };
        Ok((open, recomputed))
    }

    /// Returns what a phase takes whose frozen prefix runs on its own.
    fn memory(&self, engine: &dyn Engine, step: &TrainStep, split: &Split) -> MemoryEstimate {
        let sizes = Sizes::of(self.setup, engine);
        let cached = self.cache.as_ref().map_or(0, Cache::on_device);
        MemoryEstimate::of(step, Some(split), &Assumed { cached, ..sizes.assumed(&self.prepared) })
    }

    /// Returns what phases of the plan are estimated to take, each with its first epoch: all, or some of many.
    pub(super) fn memory_of_phases(&self, engine: &dyn Engine) -> Result<Vec<(usize, MemoryEstimate)>, RunError> {
        let mut seen = HashSet::new();
        let held = |segment: &Segment| segment.held().map(String::from).collect::<BTreeSet<String>>();
        let parts: Vec<&Segment> = self.segments.iter().filter(|part| seen.insert(held(part))).collect();
        let apart = parts.len().div_ceil(TOLD).max(1);
        let told = parts.iter().step_by(apart);
        told.map(|part| {
            let memory = self.build(engine, &held(part), &Form::Constants)?.memory;
            Ok((part.first_epoch, memory))
        })
        .collect()
    }

    /// Begins to make the graphs of the open phase with all that is frozen as constants.
    fn make_constants(&mut self, engine: &dyn Engine) -> Result<(), RunError> {
        let Some(open) = &self.phases.open else { return Ok(()) };
        let values = self.constants(engine, &open.held, &open.values)?;
        self.phases.ahead = self.start(engine, open.held.clone(), Form::Constants, values);
        Ok(())
    }

    /// Puts the graphs with constants in the place of those that the open phase began with, when it is time.
    pub(super) fn take_constants(
        &mut self,
        engine: &mut dyn Engine,
        epoch: usize,
        report: &mut dyn FnMut(RunEvent),
    ) -> Result<(), RunError> {
        let due = |open: &mut Open| open.constants_from.is_some_and(|from| from <= self.place.started);
        let Some(before) = self.phases.open.take_if(due) else { return Ok(()) };
        let clock = Instant::now();
        let Open { held, phase, proof, from_epoch, fresh, next, .. } = before;
        phase.close(engine);
        let (open, _) = self.open(engine, held, &Form::Constants, from_epoch, None)?;
        let stall = clock.elapsed().as_secs_f64();
        let (step, parameters, seconds) = (self.place.started, fresh.len(), open.seconds);
        self.phases.open = Some(Open { proof, next, ..open });
        self.pace.iter_mut().for_each(|pace| pace.stall(stall));
        report(RunEvent::Constants { epoch, step, values: parameters, seconds, stall_seconds: stall });
        Ok(())
    }

    /// Ends the phase that trains: what was frozen in it must be what it was.
    pub(super) fn leave(&mut self, engine: &mut dyn Engine, report: &mut dyn FnMut(RunEvent)) -> Result<(), RunError> {
        let clock = Instant::now();
        let result = self.end_phase(engine, report);
        self.phases.waited += clock.elapsed().as_secs_f64();
        result
    }

    fn end_phase(&mut self, engine: &mut dyn Engine, report: &mut dyn FnMut(RunEvent)) -> Result<(), RunError> {
        if let Some(Resumed { from_epoch, proof, .. }) = self.phases.resumed.take() {
            // The run went on at the end of a phase.
            let to_epoch = self.last_epoch().max(from_epoch);
            proof.check(engine, &self.state, from_epoch, to_epoch)?;
            if !proof.is_empty() {
                report(proof.event(from_epoch, to_epoch));
            }
            self.phases.proved = Some(proof);
        }
        let Some(mut open) = self.phases.open.take() else { return Ok(()) };
        let to_epoch = self.last_epoch().max(open.from_epoch);
        open.proof.check(engine, &self.state, open.from_epoch, to_epoch)?;
        self.phases.last = Some(open.held.clone());
        if !open.proof.is_empty() {
            report(open.proof.event(open.from_epoch, to_epoch));
        }
        self.phases.proved = Some(std::mem::take(&mut open.proof));
        self.cache.iter_mut().for_each(|cache| cache.unbind(engine));
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
}

/// Reports nodes that run on the processor although the run has a device: each copies what it reads and makes.
pub(super) fn misplaced(nodes: &[OnProcessor], device: &str, report: &mut dyn FnMut(RunEvent)) {
    const NAMED: usize = 5;
    if nodes.is_empty() {
        return;
    }
    let named: Vec<String> =
        nodes.iter().take(NAMED).map(|node| format!("\"{}\" ({})", node.node, node.operator)).collect();
    let more = if nodes.len() > NAMED { format!(" and {} more", nodes.len() - NAMED) } else { String::new() };
    let message = format!("{} nodes run on the processor and not on {device}: {}{more}", nodes.len(), named.join(", "));
    report(RunEvent::Warning { message });
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
