//! One phase on an engine: its sessions, the buffers between them, and bindings.

use super::engine::{BindingId, BufferId, Engine, EngineError, NodeTime, OnProcessor, SessionId, Target};
use super::front::Front;
use super::precision::Summary;
use super::sessions::{Sessions, is_summed};
use super::state::State;
use crate::graph::{DType, Graph, Model, Tensor};
use crate::training::{TrainStep, names};
use std::collections::{HashMap, HashSet};

/// The sessions of one frozen set.
pub struct Phase {
    train: SessionId,
    /// The frozen prefix, where it runs on its own.
    front: Option<Front>,
    optimizer: Option<Optimizer>,
    passed: Vec<(String, BufferId)>,
    /// Which of these are in the sum.
    summed: Vec<bool>,
    lr: BufferId,
    /// Factors on the learning rates of single parameters, where they vary.
    scales: Option<BufferId>,
    /// The step number, where something is random.
    number: Option<BufferId>,
    /// The scale of the loss, where it is scaled, with what it is.
    scale: Option<(BufferId, f32)>,
    batches: HashMap<Vec<Vec<usize>>, Batch>,
    /// State that the train graph reads.
    inputs: Vec<(String, BufferId)>,
    /// State that the train graph changes: where it is read, or by way of the host.
    moving: Vec<(String, BufferId)>,
    moving_late: Vec<(String, BufferId)>,
    accumulated: Option<Accumulated>,
    /// What the train graph moves, with buffers for copies of it.
    kept: Vec<(BufferId, BufferId)>,
    /// Whether it was told what runs on the processor.
    placed: bool,
    /// The output that is the sum of all large gradients, with what it was in the last run.
    sum: Option<(String, f64)>,
}

/// A batch for [`Phase::inspect`].
pub(super) struct Feed<'a> {
    /// The run's batch of this number, from 1.
    pub at: usize,
    /// Its tensors.
    pub batch: &'a [(String, Tensor)],
    /// Its part in the update.
    pub share: Share,
}

/// What a train graph that adds gradients up reads beside them.
struct Accumulated {
    weight: BufferId,
    keep: BufferId,
}

/// The part of a batch in an update.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Its rows over those of the update.
    pub weight: f64,
    /// Whether it is the first batch of the update.
    pub first: bool,
}

impl Share {
    /// A batch that is an update by itself.
    pub const WHOLE: Share = Share { weight: 1.0, first: true };
}

struct Optimizer {
    session: SessionId,
    binding: BindingId,
    /// State that comes back by way of the host, in the order of the outputs.
    late: Vec<BufferId>,
    /// Whether the last output is the learning rate.
    rate: bool,
}

struct Batch {
    binding: BindingId,
    /// That of the prefix, where the batch has what it reads.
    front: Option<BindingId>,
    buffers: Vec<(String, BufferId)>,
}

/// A batch that a phase is bound to.
#[derive(Clone, Debug)]
pub(super) struct Bound(Vec<Vec<usize>>);

impl Phase {
    /// Loads the graphs of a step. The state must already have the slots of the step.
    ///
    /// # Errors
    /// The engine refuses a graph.
    pub fn new(engine: &mut dyn Engine, step: &TrainStep, state: &State) -> Result<Phase, EngineError> {
        let sessions = Sessions::load(engine, step)?;
        Phase::with(engine, sessions, step, state)
    }

    /// Binds the sessions of a step. The state must already have the slots of the step.
    ///
    /// # Errors
    /// Those of the engine.
    pub(super) fn with(
        engine: &mut dyn Engine,
        sessions: Sessions,
        step: &TrainStep,
        state: &State,
    ) -> Result<Phase, EngineError> {
        let Sessions { train, sum, optimizer, front } = sessions;
        let mut passed = Vec::new();
        for (name, fact) in &step.passed {
            let zeros = Tensor::zeros(fact.dtype.unwrap_or(DType::F32), &fact.sizes().unwrap_or_default());
            passed.push((name.clone(), engine.allocate(&zeros)?));
        }
        let lr = engine.allocate(&Tensor::scalar(0f32))?;
        let scales = step.optimizer.as_ref().and_then(|model| scales(&model.graph));
        let scales = scales.map(|ones| engine.allocate(&ones)).transpose()?;
        let number = match step.is_random() {
            true => Some(engine.allocate(&Tensor::scalar(0_i64))?),
            false => None,
        };
        let scale = match step.is_scaled() {
            true => Some((engine.allocate(&Tensor::scalar(1f32))?, 1.0)),
            false => None,
        };
        let optimizer = match optimizer.zip(step.optimizer.as_ref()) {
            None => None,
            Some((session, model)) => {
                let rates = Rates { passed: &passed, lr, scales };
                Some(Optimizer::bind(engine, session, &model.graph, step, state, &rates)?)
            }
        };
        let accumulated = match step.accumulates {
            false => None,
            true => Some(Accumulated {
                weight: engine.allocate(&Tensor::scalar(1f32))?,
                keep: engine.allocate(&Tensor::scalar(false))?,
            }),
        };
        let held = |name: &String| state.find(name).map(|buffer| (name.clone(), buffer));
        let graph = &step.train.graph;
        let inputs = graph.inputs().iter().map(|id| graph.value_name(*id).to_string());
        let (late, direct) = step.moving.iter().partition::<Vec<&String>, _>(|name| step.copied.contains(name));
        Ok(Phase {
            train,
            front,
            optimizer,
            passed,
            summed: step.passed.iter().map(|(_, fact)| is_summed(engine.info().remote, fact)).collect(),
            kept: Vec::new(),
            placed: false,
            lr,
            scales,
            number,
            scale,
            batches: HashMap::new(),
            inputs: inputs.filter_map(|name| held(&name)).collect(),
            moving: direct.into_iter().filter_map(held).collect(),
            moving_late: late.into_iter().filter_map(held).collect(),
            accumulated,
            sum: sum.map(|name| (name, 0.0)),
        })
    }

    /// Drops the bindings to slots, which may be freed while other phases run.
    pub fn park(&mut self, engine: &mut dyn Engine, state: &State) {
        if let Some(optimizer) = &self.optimizer {
            engine.unbind(optimizer.binding);
        }
        let slots: HashSet<&str> = state.slots().map(|(name, _)| name).collect();
        let held = self.inputs.iter().chain(&self.moving).chain(&self.moving_late);
        if held.into_iter().any(|(name, _)| slots.contains(name.as_str())) {
            for batch in self.batches.drain().map(|(_, batch)| batch) {
                engine.unbind(batch.binding);
                batch.buffers.into_iter().for_each(|(_, buffer)| engine.free(buffer));
            }
        }
    }

    /// Binds a parked phase to the slots as they are now: those that were freed have other buffers.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn rebind(&mut self, engine: &mut dyn Engine, step: &TrainStep, state: &State) -> Result<(), EngineError> {
        for (name, buffer) in self.inputs.iter_mut().chain(&mut self.moving).chain(&mut self.moving_late) {
            *buffer = state.find(name).unwrap_or(*buffer);
        }
        self.forget_kept(engine);
        let (Some(optimizer), Some(model)) = (&mut self.optimizer, &step.optimizer) else { return Ok(()) };
        let rates = Rates { passed: &self.passed, lr: self.lr, scales: self.scales };
        *optimizer = Optimizer::bind(engine, optimizer.session, &model.graph, step, state, &rates)?;
        Ok(())
    }

    fn forget_kept(&mut self, engine: &mut dyn Engine) {
        self.kept.drain(..).for_each(|(_, copy)| engine.free(copy));
    }

    /// Sets what the loss is multiplied with while gradients are computed.
    ///
    /// # Errors
    /// Those of the engine.
    pub(super) fn set_scale(&mut self, engine: &mut dyn Engine, scale: f32) -> Result<(), EngineError> {
        if let Some((buffer, held)) = self.scale.as_mut().filter(|(_, held)| *held != scale) {
            engine.write(*buffer, &Tensor::scalar(scale))?;
            *held = scale;
        }
        Ok(())
    }

    /// Returns what of the train graph computes in what, in mixed precision.
    pub(super) fn computes<'e>(&self, engine: &'e dyn Engine) -> Option<&'e Summary> {
        engine.computes(self.train)
    }

    /// Returns the nodes of the prefix that runs on its own; 0 where none does.
    pub fn prefix_nodes(&self) -> usize {
        self.front.as_ref().map_or(0, |front| front.nodes)
    }

    /// Returns what the train graph passes to the update, gradients among it, with its buffers.
    pub fn passed(&self) -> &[(String, BufferId)] {
        &self.passed
    }

    /// Returns what the train graph passes to the update, with whether it is in the sum.
    pub(super) fn gradients(&self) -> impl Iterator<Item = (&str, BufferId, bool)> {
        self.passed.iter().zip(&self.summed).map(|((name, buffer), summed)| (name.as_str(), *buffer, *summed))
    }

    /// Returns the sum of the elements of all large gradients after the last run; `None` where there are none.
    pub(super) fn sum(&self) -> Option<f64> {
        self.sum.as_ref().map(|(_, sum)| *sum)
    }

    /// Copies what the train graph moves: running statistics.
    ///
    /// # Errors
    /// Those of the engine.
    pub(super) fn keep(&mut self, engine: &mut dyn Engine) -> Result<(), EngineError> {
        if self.kept.is_empty() {
            for (_, buffer) in self.moving.iter().chain(&self.moving_late) {
                let now = engine.read(*buffer)?;
                self.kept.push((*buffer, engine.allocate(&now)?));
            }
            return Ok(());
        }
        self.kept.iter().try_for_each(|(buffer, copy)| engine.copy(*buffer, *copy))
    }

    /// Puts back what [`Phase::keep`] copied last.
    ///
    /// # Errors
    /// Those of the engine.
    pub(super) fn put_back(&self, engine: &mut dyn Engine) -> Result<(), EngineError> {
        self.kept.iter().try_for_each(|(buffer, copy)| engine.copy(*copy, *buffer))
    }

    /// Tells the engine which batch comes next.
    pub(super) fn ahead(&self, engine: &mut dyn Engine, batch: &[(String, Tensor)]) {
        let key: Vec<Vec<usize>> = batch.iter().map(|(_, tensor)| tensor.shape().to_vec()).collect();
        if let Some(bound) = self.batches.get(&key) {
            let pairs = batch.iter().zip(&bound.buffers);
            engine.ahead(pairs.map(|((_, tensor), (_, buffer))| (*buffer, tensor.clone())).collect());
        }
    }

    /// Returns, once after the first run, the nodes that run on the processor although the engine has a device.
    pub(super) fn on_processor(&mut self, engine: &dyn Engine) -> Vec<OnProcessor> {
        if std::mem::replace(&mut self.placed, true) {
            return Vec::new();
        }
        let sessions = [Some(self.train), self.optimizer.as_ref().map(|optimizer| optimizer.session)];
        sessions.into_iter().flatten().flat_map(|session| engine.on_processor(session)).collect()
    }

    /// Runs a model that has the inputs of the train graph on a batch and returns outputs. Nothing of the state changes.
    ///
    /// # Errors
    /// Those of the engine.
    pub(super) fn inspect(
        &self,
        engine: &mut dyn Engine,
        model: &Model,
        feed: &Feed<'_>,
        outputs: &[&str],
    ) -> Result<Vec<Tensor>, EngineError> {
        let mut held = Vec::with_capacity(feed.batch.len());
        for (name, tensor) in feed.batch {
            held.push((name.clone(), engine.allocate(tensor)?));
        }
        self.count(engine, feed.at, feed.share)?;
        let session = engine.load(model)?;
        let more = self.beside();
        let inputs = held.iter().chain(&self.inputs).chain(&more);
        let inputs: Vec<(&str, BufferId)> = inputs.map(|(name, id)| (name.as_str(), *id)).collect();
        let outputs: Vec<(&str, Target)> = outputs.iter().map(|name| (*name, Target::Host)).collect();
        let result = engine.bind(session, &inputs, &outputs).and_then(|binding| engine.run(binding));
        engine.unload(session);
        held.into_iter().for_each(|(_, buffer)| engine.free(buffer));
        result
    }

    /// Writes the number of a batch and its part in the update.
    fn count(&self, engine: &mut dyn Engine, at: usize, share: Share) -> Result<(), EngineError> {
        if let Some(buffer) = self.number {
            engine.write(buffer, &Tensor::scalar(i64::try_from(at).unwrap_or(i64::MAX)))?;
        }
        if let Some(accumulated) = &self.accumulated {
            engine.write(accumulated.weight, &Tensor::scalar(share.weight as f32))?;
            engine.write(accumulated.keep, &Tensor::scalar(!share.first))?;
        }
        Ok(())
    }

    /// Returns the inputs of the train graph beside the batch and the state.
    fn beside(&self) -> Vec<(String, BufferId)> {
        let mut more = Vec::new();
        if let Some(accumulated) = &self.accumulated {
            more.extend(self.passed.iter().map(|(name, id)| (names::sum(name), *id)));
            more.push((names::WEIGHT.to_string(), accumulated.weight));
            more.push((names::KEEP.to_string(), accumulated.keep));
        }
        more.extend(self.number.map(|buffer| (names::STEP.to_string(), buffer)));
        more.extend(self.scale.map(|(buffer, _)| (names::SCALE.to_string(), buffer)));
        more
    }

    /// Runs the train graph on a batch, the run's batch of this number, and returns the loss. The share matters only where the step
    /// accumulates.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn backward(
        &mut self,
        engine: &mut dyn Engine,
        at: usize,
        batch: &[(String, Tensor)],
        share: Share,
    ) -> Result<f64, EngineError> {
        let bound = self.place(engine, at, batch, share, true)?;
        self.run_front(engine, &bound)?;
        self.finish(engine, &bound)
    }

    /// Binds and writes a batch, with `data` also what only the prefix reads.
    pub(super) fn place(
        &mut self,
        engine: &mut dyn Engine,
        at: usize,
        batch: &[(String, Tensor)],
        share: Share,
        data: bool,
    ) -> Result<Bound, EngineError> {
        let key: Vec<Vec<usize>> = batch.iter().map(|(_, tensor)| tensor.shape().to_vec()).collect();
        if !self.batches.contains_key(&key) {
            let bound = self.bind(engine, batch)?;
            self.batches.insert(key.clone(), bound);
        }
        let unread =
            |name: &String| !data && self.front.as_ref().is_some_and(|front| front.own_inputs().any(|own| own == name));
        for ((name, tensor), (_, buffer)) in batch.iter().zip(&self.batches[&key].buffers) {
            if !unread(name) {
                engine.write(*buffer, tensor)?;
            }
        }
        self.count(engine, at, share)?;
        Ok(Bound(key))
    }

    /// Runs the prefix on a batch, where there is one.
    pub(super) fn run_front(&mut self, engine: &mut dyn Engine, bound: &Bound) -> Result<(), EngineError> {
        match self.batches[&bound.0].front {
            Some(binding) => engine.run(binding).map(drop),
            None => Ok(()),
        }
    }

    /// Returns the prefix.
    pub(super) fn front(&mut self) -> Option<&mut Front> {
        self.front.as_mut()
    }

    /// Runs the train graph behind what its prefix made of a batch, and returns the loss.
    pub(super) fn finish(&mut self, engine: &mut dyn Engine, bound: &Bound) -> Result<f64, EngineError> {
        let bound = &self.batches[&bound.0];
        let outputs = engine.run(bound.binding)?;
        if let Some((_, sum)) = &mut self.sum {
            *sum = number(outputs.get(1 + self.moving_late.len())).unwrap_or(f64::NAN);
        }
        for ((_, buffer), value) in self.moving_late.iter().zip(outputs.iter().skip(1)) {
            engine.write(*buffer, value)?;
        }
        Ok(number(outputs.first()).unwrap_or(f64::NAN))
    }

    /// Updates what trains, with the learning rate `lr` where the update reads one, multiplied with `scales` where
    /// the rates of single parameters vary, and returns the rate that it had, where it tells.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn update(
        &mut self,
        engine: &mut dyn Engine,
        lr: Option<f64>,
        scales: Option<&Tensor>,
    ) -> Result<Option<f64>, EngineError> {
        let Some(optimizer) = &self.optimizer else { return Ok(lr) };
        if let (Some(buffer), Some(scales)) = (self.scales, scales) {
            engine.write(buffer, scales)?;
        }
        if let Some(lr) = lr {
            engine.write(self.lr, &Tensor::scalar(lr as f32))?;
        }
        let outputs = engine.run(optimizer.binding)?;
        for (buffer, value) in optimizer.late.iter().zip(&outputs) {
            engine.write(*buffer, value)?;
        }
        Ok(if optimizer.rate { number(outputs.last()) } else { lr })
    }

    /// Returns what the nodes of the train graph and of the update took since the phase is there, where the engine was
    /// told to note it before, and ends that.
    ///
    /// # Errors
    /// Those of the engine.
    pub(super) fn node_times(&self, engine: &mut dyn Engine) -> Result<[Vec<NodeTime>; 2], EngineError> {
        let update = match &self.optimizer {
            Some(optimizer) => engine.node_times(optimizer.session)?,
            None => Vec::new(),
        };
        Ok([engine.node_times(self.train)?, update])
    }

    /// Drops the sessions and buffers of the phase; the state stays.
    pub fn close(mut self, engine: &mut dyn Engine) {
        engine.unload(self.train);
        self.forget_kept(engine);
        if let Some(optimizer) = self.optimizer {
            engine.unload(optimizer.session);
        }
        let batches = self.batches.into_values().flat_map(|batch| batch.buffers);
        for (_, buffer) in self.passed.into_iter().chain(batches) {
            engine.free(buffer);
        }
        self.front.into_iter().for_each(|front| front.close(engine));
        engine.free(self.lr);
        self.scales.into_iter().for_each(|buffer| engine.free(buffer));
        self.number.into_iter().chain(self.scale.map(|(buffer, _)| buffer)).for_each(|buffer| engine.free(buffer));
        for buffer in self.accumulated.into_iter().flat_map(|held| [held.weight, held.keep]) {
            engine.free(buffer);
        }
    }

    fn bind(&mut self, engine: &mut dyn Engine, batch: &[(String, Tensor)]) -> Result<Batch, EngineError> {
        let mut buffers = Vec::new();
        for (name, tensor) in batch {
            buffers.push((name.clone(), engine.allocate(tensor)?));
        }
        let mut more = self.beside();
        let mut front = None;
        if let Some(own) = &mut self.front {
            let samples = batch.first().and_then(|(_, tensor)| tensor.shape().first().copied()).unwrap_or(0);
            if own.is_fed_by(batch) {
                let inputs: Vec<(&str, BufferId)> = buffers.iter().map(|(name, id)| (name.as_str(), *id)).collect();
                front = Some(own.bind(engine, &inputs, samples)?);
            }
            more.extend(own.crossing(engine, samples)?);
        }
        let inputs: Vec<(&str, BufferId)> =
            buffers.iter().chain(&self.inputs).chain(&more).map(|(name, id)| (name.as_str(), *id)).collect();
        let mut outputs = vec![(names::LOSS.to_string(), Target::Host)];
        outputs.extend(self.moving_late.iter().map(|(name, _)| (names::next(name), Target::Host)));
        outputs.extend(self.sum.iter().map(|(name, _)| (name.clone(), Target::Host)));
        outputs.extend(self.passed.iter().map(|(name, id)| (name.clone(), Target::Buffer(*id))));
        outputs.extend(self.moving.iter().map(|(name, id)| (names::next(name), Target::Buffer(*id))));
        let outputs: Vec<(&str, Target)> = outputs.iter().map(|(name, target)| (name.as_str(), *target)).collect();
        let binding = engine.bind(self.train, &inputs, &outputs)?;
        Ok(Batch { binding, front, buffers })
    }
}

/// Returns the number that a tensor of one element holds.
fn number(tensor: Option<&Tensor>) -> Option<f64> {
    tensor.and_then(|tensor| tensor.to_f64s()?.first().copied())
}

/// What an update reads beside the state.
struct Rates<'a> {
    passed: &'a [(String, BufferId)],
    lr: BufferId,
    scales: Option<BufferId>,
}

/// Returns factors of 1 for every rate that an optimizer graph lets vary.
fn scales(graph: &Graph) -> Option<Tensor> {
    let input = graph.find(names::LR_SCALE).filter(|id| graph.inputs().contains(id))?;
    Some(Tensor::float_full(DType::F32, &graph.fact(input).sizes()?, 1.0))
}

impl Optimizer {
    fn bind(
        engine: &mut dyn Engine,
        session: SessionId,
        graph: &Graph,
        step: &TrainStep,
        state: &State,
        rates: &Rates<'_>,
    ) -> Result<Optimizer, EngineError> {
        let given: HashMap<&str, BufferId> =
            rates.passed.iter().map(|(port, buffer)| (port.as_str(), *buffer)).collect();
        let scales = |name: &str| rates.scales.filter(|_| name == names::LR_SCALE);
        let given = |name: &str| given.get(name).copied().or_else(|| scales(name));
        let names = graph.inputs().iter().map(|id| graph.value_name(*id));
        let inputs: Vec<(&str, BufferId)> =
            names.map(|name| (name, given(name).or_else(|| state.find(name)).unwrap_or(rates.lr))).collect();
        let (late, direct) = step.updated.iter().partition::<Vec<&String>, _>(|name| step.copied.contains(name));
        let held = |name: &String| state.find(name).map(|buffer| (names::next(name), buffer));
        let late: Vec<(String, BufferId)> = late.into_iter().filter_map(held).collect();
        let mut outputs: Vec<(String, Target)> = late.iter().map(|(name, _)| (name.clone(), Target::Host)).collect();
        outputs.extend(direct.into_iter().filter_map(held).map(|(name, buffer)| (name, Target::Buffer(buffer))));
        let rate = graph.outputs().iter().any(|id| graph.value_name(*id) == names::LR);
        outputs.extend(rate.then(|| (names::LR.to_string(), Target::Host)));
        let outputs: Vec<(&str, Target)> = outputs.iter().map(|(name, target)| (name.as_str(), *target)).collect();
        let binding = engine.bind(session, &inputs, &outputs)?;
        Ok(Optimizer { session, binding, late: late.into_iter().map(|(_, buffer)| buffer).collect(), rate })
    }
}
