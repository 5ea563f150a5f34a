//! Whole runs in a few lines: a model, its data, a policy by name or by value, and what came of it.

use crate::delegate::{Delegate, Hooks};
use crate::engines::fixture;
use freeze_plan::checkpoint::{Checkpoint, Store};
use freeze_plan::data::{self, BatchOptions, Batches, Dataset, Feed, LastBatch, Sampler, Wanted};
use freeze_plan::graph::{DType, Model, Tensor};
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::onnx::{OnnxFile, read, read_bytes, to_bytes};
use freeze_plan::optim::OptimizerSpec;
use freeze_plan::plan::{Decision, FrozenSet, Moment, PlanOptions, Policy, Rollback, Signal};
use freeze_plan::planner::{Analysis, Basis, Request};
use freeze_plan::runner::{
    BindingId, BufferId, Caching, Checkpoints, Ema, Engine, EngineError, Evaluation, Freezing, Loader, Nonfinite,
    Outcome, RunError, RunEvent, Schedule, SessionId, Setup, train,
};
use freeze_plan::training::{Objective, Own, Prepared, Recompute, names, prepare, target_fact};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a run needs.
pub struct Job {
    pub file: OnnxFile,
    pub analysis: Analysis,
    pub prepared: Prepared,
    pub loss: LossSpec,
    pub optimizer: OptimizerSpec,
    pub schedule: Schedule,
    pub evaluation: Evaluation,
    pub options: PlanOptions,
    pub epochs: usize,
    pub accumulate: usize,
    pub nonfinite: Nonfinite,
    pub ema: Option<Ema>,
    pub cache: Option<Caching>,
    pub train: Batches,
    pub eval: bool,
    pub checkpoints: Option<Checkpoints>,
    pub resume: Option<Checkpoint>,
    /// Asks the run to stop while this step reports.
    pub stop_after: Option<usize>,
}

/// What came of a run.
pub struct Ran {
    pub events: Vec<RunEvent>,
    pub result: Result<Outcome, RunError>,
}

/// Returns a checkpoint that holds values and nothing else.
pub fn of_values(step: u64, values: BTreeMap<String, Tensor>) -> Checkpoint {
    let groups = BTreeMap::from([("values".to_string(), values)]);
    Checkpoint { epoch: 1, step, sequence: 0, plan: String::new(), state: String::new(), groups }
}

/// Returns the newest checkpoint of a folder.
pub fn newest(folder: &Path) -> Checkpoint {
    Store::new(folder, 1).latest().unwrap().unwrap().checkpoint
}

/// Returns the order of rows of the file in batches.
pub fn in_order(size: usize) -> BatchOptions {
    BatchOptions { size, seed: 0, sampler: Sampler::Sequential, last_batch: LastBatch::Keep }
}

impl Job {
    /// Returns the job of a model and a data file of the fixtures, with cross-entropy.
    pub fn of(model: &str, data: &str, columns: [&str; 2], batches: BatchOptions, optimizer: serde_json::Value) -> Job {
        let file = read(&fixture(model)).unwrap();
        let dataset = Dataset::open(&fixture(data), &Default::default(), None).unwrap();
        Job::with(file, LossKind::CrossEntropy, optimizer, |prepared, loss| {
            let graph = &prepared.model.graph;
            let fact = graph.fact(graph.find("x").unwrap()).clone();
            let target = target_fact(prepared, loss, None).unwrap();
            let wanted = [(columns[0], "x", fact), (columns[1], names::TARGET, target)];
            let wanted =
                wanted.map(|(column, input, fact)| Wanted { column: column.into(), input: input.into(), fact });
            Batches::new(data::check(&dataset, &wanted).unwrap(), batches).unwrap()
        })
    }

    /// Returns the job of a graph on the given columns.
    pub fn on(model: &Model, loss: LossKind, columns: Vec<(&str, Tensor)>, batch: usize) -> Job {
        let file = read_bytes(Path::new("made.onnx"), to_bytes(model).into()).unwrap();
        let optimizer = serde_json::json!({"kind": "sgd", "lr": 0.1, "momentum": 0.9});
        Job::with(file, loss, optimizer, |_, _| {
            let feed = |(name, column): (&str, Tensor)| {
                let dtype = column.dtype();
                Feed::of(name, column, dtype)
            };
            Batches::new(columns.into_iter().map(feed).collect(), in_order(batch)).unwrap()
        })
    }

    fn with(
        file: OnnxFile,
        kind: LossKind,
        optimizer: serde_json::Value,
        batches: impl FnOnce(&Prepared, &LossSpec) -> Batches,
    ) -> Job {
        let analysis = Analysis::of(&file.model);
        let prepared = prepare(&analysis).unwrap();
        let loss = LossSpec::new(kind);
        let train = batches(&prepared, &loss);
        Job {
            file,
            analysis,
            prepared,
            loss,
            optimizer: serde_json::from_value(optimizer).unwrap(),
            schedule: Schedule::default(),
            evaluation: Evaluation::default(),
            options: PlanOptions::of("none"),
            epochs: 2,
            accumulate: 1,
            nonfinite: Nonfinite::default(),
            ema: None,
            cache: None,
            train,
            eval: true,
            checkpoints: None,
            resume: None,
            stop_after: None,
        }
    }

    pub fn steps_per_epoch(&self) -> usize {
        self.train.len().div_ceil(self.accumulate)
    }

    /// Returns what plans of the job's policy are made from, or of one that is given.
    pub fn basis(&self, policy: Option<Box<dyn Policy>>) -> Basis {
        let request = Request {
            epochs: self.epochs,
            steps_per_epoch: self.steps_per_epoch(),
            options: &self.options,
            slots: 1,
            own_slots: HashMap::new(),
            sizes: HashMap::from([("N".into(), 8), ("batch".into(), 8)]),
        };
        match policy {
            Some(policy) => Basis::with(&self.file, &self.analysis, &request, policy).unwrap(),
            None => Basis::of(&self.file, &self.analysis, &request).unwrap(),
        }
    }

    /// Trains with the policy of the options.
    pub fn run(&self, engine: &mut dyn Engine) -> Ran {
        self.run_on(engine, None, &mut |_| {})
    }

    /// Trains with a policy that is given, and shows every event.
    pub fn run_on(
        &self,
        engine: &mut dyn Engine,
        policy: Option<Box<dyn Policy>>,
        look: &mut dyn FnMut(&RunEvent),
    ) -> Ran {
        let basis = self.basis(policy);
        let (plan, planner) = (basis.plan().unwrap(), basis.planner().unwrap());
        self.follow(engine, Freezing::with(&plan, &planner, &self.options).cached(self.cache.as_ref()), look)
    }

    /// Trains with what is frozen given.
    pub fn follow(&self, engine: &mut dyn Engine, freezing: Freezing<'_>, look: &mut dyn FnMut(&RunEvent)) -> Ran {
        let setup = Setup {
            prepared: &self.prepared,
            freezing,
            objective: Objective::Own(Own { loss: &self.loss, output: None, optimizer: &self.optimizer }),
            schedule: &self.schedule,
            evaluation: &self.evaluation,
            train: &self.train,
            eval: self.eval.then_some(&self.train),
            loading: None,
            checkpoints: self.checkpoints.clone(),
            resume: self.resume.as_ref(),
            seed: 0,
            recompute: &Recompute::None,
            log_every: 1,
            accumulate: self.accumulate,
            nonfinite: self.nonfinite,
            ema: self.ema,
            operators: freeze_plan::runner::Operators::Own,
            computing: Default::default(),
        };
        let stop = AtomicBool::new(false);
        let mut events = Vec::new();
        let mut report = |event: RunEvent| {
            if matches!(&event, RunEvent::Step { step, .. } if Some(*step) == self.stop_after) {
                stop.store(true, Ordering::Relaxed);
            }
            look(&event);
            events.push(event);
        };
        let result = train(engine, &setup, &mut report, &stop);
        Ran { events, result }
    }
}

impl Ran {
    pub fn outcome(&self) -> &Outcome {
        self.result.as_ref().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Returns the loss of every step, those of epochs that were taken back included.
    pub fn losses(&self) -> Vec<f64> {
        let loss = |event: &RunEvent| match event {
            RunEvent::Step { loss, .. } => Some(*loss),
            _ => None,
        };
        self.events.iter().filter_map(loss).collect()
    }

    /// Returns the numbers of the steps in the order in which they ran.
    pub fn steps(&self) -> Vec<usize> {
        let step = |event: &RunEvent| match event {
            RunEvent::Step { step, .. } => Some(*step),
            _ => None,
        };
        self.events.iter().filter_map(step).collect()
    }

    pub fn count(&self, wanted: impl Fn(&RunEvent) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(event)).count()
    }
}

/// Asserts that two runs end with the same bits.
pub fn same_end(a: &Ran, b: &Ran) {
    let (a, b) = (a.outcome(), b.outcome());
    assert!(a.values == b.values, "values differ");
    assert!(a.slots == b.slots, "slots differ");
    assert_eq!(a.metrics, b.metrics);
}

/// A factor on the rate of a unit in a step of the run, both from 0.
pub type Scale = Box<dyn Fn(usize, usize) -> f64 + Send + Sync>;

/// A policy that freezes by the steps that are done, with a factor on the rate of each unit.
pub struct ByStep {
    /// Which units are frozen after so many steps, the last one that applies.
    pub frozen: Vec<(usize, Vec<usize>)>,
    pub scale: Option<Scale>,
}

impl Policy for ByStep {
    fn name(&self) -> &str {
        "by-step"
    }

    fn points(&self, _: freeze_plan::plan::Run, _: usize) -> Vec<usize> {
        self.frozen.iter().map(|(steps, _)| *steps).collect()
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        let now = self.frozen.iter().rev().find(|(steps, _)| *steps <= at.steps());
        let units = now.map_or(&[][..], |(_, units)| units.as_slice());
        let frozen: Vec<bool> = (0..at.units.len()).map(|unit| units.contains(&unit)).collect();
        Decision::of(FrozenSet::from(frozen))
    }

    fn lr_scale(&self, at: &Moment<'_>) -> Option<Vec<f64>> {
        let scale = self.scale.as_ref()?;
        Some((0..at.units.len()).map(|unit| scale(at.steps(), unit)).collect())
    }
}

/// A policy that measures gradients every few steps and freezes the first three units after so many measurements,
/// with a factor of 100 on the rate of what still trains from a step on.
pub struct Counting {
    pub every: usize,
    pub measurements: usize,
    pub jump: usize,
}

impl Policy for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    fn points(&self, run: freeze_plan::plan::Run, _: usize) -> Vec<usize> {
        (1..=run.steps()).filter(|step| step.is_multiple_of(self.every)).collect()
    }

    fn signals(&self) -> Vec<Signal> {
        vec![Signal::GradientSquare]
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        let enough = at.history.observations.len() >= self.measurements;
        Decision::of(FrozenSet::prefix(at.units.len(), if enough { 3 } else { 0 }))
    }

    fn lr_scale(&self, at: &Moment<'_>) -> Option<Vec<f64>> {
        Some(vec![if at.steps() >= self.jump { 100.0 } else { 1.0 }; at.units.len()])
    }
}

/// Returns a guard on a metric.
pub fn guard(metric: &str, drop: f64, delay: usize) -> Option<Rollback> {
    Some(Rollback { metric: metric.into(), drop, delay })
}

/// A buffer, and when a bit of it flips.
pub struct Victim {
    /// Its starting value.
    pub start: Tensor,
    /// Buffers with this value that were made before it.
    pub skip: usize,
    /// The run before which the bit flips, from 1.
    pub run: usize,
}

/// Counts, and may flip a bit of a buffer; graphs are made by the engine alone.
pub struct Watching<'a> {
    inner: &'a mut dyn Engine,
    victim: Option<Victim>,
    found: Option<BufferId>,
    runs: usize,
    /// Graphs that were loaded.
    pub loads: usize,
}

pub type Watched<'a> = Delegate<Watching<'a>>;

impl<'a> Watched<'a> {
    pub fn new(inner: &'a mut dyn Engine, victim: Option<Victim>) -> Watched<'a> {
        Delegate(Watching { inner, victim, found: None, runs: 0, loads: 0 })
    }
}

impl Hooks for Watching<'_> {
    fn inner(&self) -> &dyn Engine {
        self.inner
    }

    fn inner_mut(&mut self) -> &mut dyn Engine {
        self.inner
    }

    fn loader(&self) -> Option<Box<dyn Loader>> {
        None
    }

    fn load(&mut self, model: &Model) -> Result<SessionId, EngineError> {
        self.loads += 1;
        self.inner.load(model)
    }

    fn allocate(&mut self, tensor: &Tensor) -> Result<BufferId, EngineError> {
        let id = self.inner.allocate(tensor)?;
        if let Some(victim) = self.victim.as_mut().filter(|victim| victim.start == *tensor) {
            match victim.skip.checked_sub(1) {
                Some(left) => victim.skip = left,
                None => _ = self.found.get_or_insert(id),
            }
        }
        Ok(id)
    }

    fn run(&mut self, binding: BindingId) -> Result<Vec<Tensor>, EngineError> {
        self.runs += 1;
        if self.victim.as_ref().is_some_and(|victim| self.runs == victim.run) {
            let id = self.found.expect("the victim was uploaded");
            let tensor = self.inner.read(id)?;
            let mut bytes = tensor.bytes().to_vec();
            bytes[0] ^= 1;
            let changed = Tensor::new(DType::F32, tensor.shape().to_vec(), bytes.into()).unwrap();
            self.inner.write(id, &changed)?;
        }
        self.inner.run(binding)
    }
}
