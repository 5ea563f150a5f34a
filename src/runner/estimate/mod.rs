//! The memory that a phase takes, told before it runs.
//!
//! Added up are what lives for the whole phase (parameters and statistics, slots, gradients, averages, batches, constants
//! of the graphs) and, for each session, the values that live at its peak ([`live`]), in the order in which ONNX Runtime
//! runs ([`order`]) the graph as the engine gets it, in mixed precision too. On the CPU a session keeps what it took once, so
//! the peaks of the sessions of a phase add up; on a device they share one memory. What operators take on the way is a guess ([`workspace`]).
//!
//! Not counted: the program and its libraries, training data and copies of the model in the memory of the host, what an
//! arena reserves beyond what it gives out, and graphs of the next phase that are made meanwhile.

mod live;
mod order;
mod workspace;

use super::device::Device;
use super::engine::Engine;
use super::memory::readable;
use super::native::{Target, optimize};
use super::precision::{Settings, lower};
use super::sessions::train_graph_of;
use super::train::Setup;
use crate::data::Shape;
use crate::facts::with_shapes;
use crate::graph::{DType, Graph, Model};
use crate::training::prefix::Split;
use crate::training::{Prepared, TrainStep, names};
use live::peak;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// What a process on CUDA holds beside buffers: its context and the code of libraries. A guess.
const CONTEXT: u64 = 500 << 20;
/// Consumers that are kept.
const LARGEST: usize = 10;

/// What takes memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Consumer {
    /// A value of the graphs, or what else it is.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
}

/// Bytes that a phase takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MemoryEstimate {
    /// Parameters and running statistics, frozen ones too.
    pub weights: u64,
    /// Constants of the graphs: frozen values once more.
    pub frozen: u64,
    /// What the optimizer remembers.
    pub slots: u64,
    /// Gradients, and what else the train graph passes to the update.
    pub gradients: u64,
    /// Values that live at the peak of the train graph, with the frozen prefix where it runs on its own.
    pub activations: u64,
    /// What operators take on the way: a guess.
    pub workspace: u64,
    /// Batches, averages, update, evaluation, what is kept of the frozen prefix on the device, and what a device needs
    /// for itself.
    pub other: u64,
    /// The sum.
    pub total: u64,
    /// What takes most, in falling order.
    pub largest: Vec<Consumer>,
    /// Values of which no size is known, and which are therefore not counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What an estimate takes for granted.
#[derive(Clone, Copy)]
pub(super) struct Assumed<'a> {
    pub prepared: &'a Prepared,
    /// The inputs of the largest batch.
    pub batch: &'a [Shape],
    /// Those of the largest batch that is evaluated.
    pub eval: Option<&'a [Shape]>,
    pub device: Device,
    pub threads: usize,
    /// Whether averages of the parameters are held.
    pub averages: bool,
    /// In which dtypes graphs compute, where that is not float32.
    pub computing: Option<&'a Settings>,
    /// Bytes that are kept of the frozen prefix where graphs run.
    pub cached: u64,
}

/// What an estimate takes for granted in all phases of a run.
#[derive(Clone)]
pub(super) struct Sizes {
    pub batch: Vec<Shape>,
    pub eval: Option<Vec<Shape>>,
    pub device: Device,
    pub threads: usize,
    pub averages: bool,
    pub computing: Option<Settings>,
}

impl Sizes {
    pub(super) fn of(setup: &Setup<'_>, engine: &dyn Engine) -> Sizes {
        let info = engine.info();
        Sizes {
            batch: setup.train.shapes(setup.train.most()),
            eval: setup.eval.map(|eval| eval.shapes(eval.most())),
            device: info.device.parse().unwrap_or_default(),
            threads: info.threads,
            averages: setup.ema.is_some(),
            computing: setup.computing.settings(),
        }
    }

    pub(super) fn assumed<'a>(&'a self, prepared: &'a Prepared) -> Assumed<'a> {
        let Sizes { batch, eval, device, threads, averages, computing } = self;
        Assumed {
            prepared,
            batch,
            eval: eval.as_deref(),
            device: *device,
            threads: *threads,
            averages: *averages,
            computing: computing.as_ref(),
            cached: 0,
        }
    }
}

impl MemoryEstimate {
    /// Returns the bytes of a phase. `split` is its train graph in two parts where the frozen prefix runs on its own.
    pub(super) fn of(step: &TrainStep, split: Option<&Split>, assumed: &Assumed<'_>) -> MemoryEstimate {
        let mut sum = Sum::default();
        let graph = &assumed.prepared.model.graph;
        for parameter in &assumed.prepared.parameters {
            let tensor = graph.value(parameter.value).initializer.as_ref();
            let bytes = tensor.map_or(0, |tensor| tensor.bytes().len() as u64);
            sum.estimate.weights += sum.take(&parameter.name, bytes);
            if assumed.averages && parameter.role == crate::modules::Role::Trainable {
                sum.estimate.other += sum.take(&format!("average of {}", parameter.name), bytes);
            }
        }
        for slot in &step.slots {
            sum.estimate.slots += sum.take(&slot.name, slot.initial.bytes().len() as u64);
        }
        for (name, fact) in &step.passed {
            let shape = fact.sizes().unwrap_or_default();
            sum.estimate.gradients += sum.take(name, bytes(fact.dtype.unwrap_or(DType::F32), &shape));
        }
        let batch: u64 = assumed.batch.iter().map(Shape::bytes).sum();
        // A device is given a batch while it works on the one before.
        let copies = if assumed.device == Device::Cpu { 1 } else { 2 };
        sum.estimate.other += sum.take("batches", copies * batch);
        sum.estimate.other += sum.take("what is kept of the frozen prefix", assumed.cached);
        sum.train(step, split, assumed);
        if let Some(optimizer) = &step.optimizer {
            let next = step.updated.iter().map(|name| names::next(name)).collect::<Vec<_>>();
            let update = sum.session(&assumed.as_run(optimizer, &[]), &next.iter().map(String::as_str).collect());
            sum.estimate.other += sum.take("the update", sum.beside(assumed, update));
        }
        if let Some(eval) = assumed.eval {
            let peak = sum.session(&assumed.as_run(&step.eval, eval), &HashSet::new());
            sum.estimate.other += sum.take("evaluation", sum.beside(assumed, peak));
        }
        if assumed.device != Device::Cpu {
            sum.estimate.other += sum.take("the device's context", CONTEXT);
        }
        sum.finish()
    }
}

impl MemoryEstimate {
    /// Returns in a sentence what a phase takes that begins with an epoch.
    pub fn sentence(&self, epoch: usize) -> String {
        format!("memory from epoch {epoch} on, estimated: {} ({})", readable(self.total), self.parts())
    }

    /// Returns the parts that are not 0, in words.
    pub fn parts(&self) -> String {
        let parts = [
            ("activations", self.activations),
            ("weights", self.weights),
            ("constants", self.frozen),
            ("slots", self.slots),
            ("gradients", self.gradients),
            ("workspace", self.workspace),
            ("other", self.other),
        ];
        let told = parts.into_iter().filter(|(_, bytes)| *bytes > 0);
        told.map(|(what, bytes)| format!("{what} {}", readable(bytes))).collect::<Vec<_>>().join(", ")
    }
}

/// An estimate in the making.
#[derive(Default)]
struct Sum {
    estimate: MemoryEstimate,
    largest: Vec<Consumer>,
}

impl Sum {
    fn take(&mut self, what: &str, bytes: u64) -> u64 {
        if bytes > 0 {
            self.largest.push(Consumer { name: what.to_string(), bytes });
        }
        bytes
    }

    /// Adds the train graph, and the frozen prefix before it.
    fn train(&mut self, step: &TrainStep, split: Option<&Split>, assumed: &Assumed<'_>) {
        let rest = split.map_or(&step.train, |split| &split.rest);
        let (model, total) = train_graph_of(assumed.device != Device::Cpu, rest, step);
        let crossing: Vec<Shape> = split.iter().flat_map(|split| crossing(split, assumed.batch)).collect();
        let model = assumed.as_run(&model, &[assumed.batch, crossing.as_slice()].concat());
        let next: Vec<String> = step.moving.iter().map(|name| names::next(name)).collect();
        let passed = step.passed.iter().map(|(name, _)| name.as_str());
        let bound =
            passed.chain(next.iter().map(String::as_str)).chain(total.as_deref()).chain([names::LOSS]).collect();
        self.estimate.activations += self.named_session(&model, &bound);
        self.estimate.frozen += self.constants(&model.graph);
        self.estimate.workspace = workspace::workspace(&model.graph, assumed.device, assumed.threads);
        let Some(split) = split else { return };
        let prefix = assumed.as_run(&split.prefix, assumed.batch);
        let bound = split.cut.iter().map(|crossing| crossing.name.as_str()).collect();
        let peak = self.session(&prefix, &bound);
        self.estimate.activations += self.beside(assumed, peak);
        for shape in &crossing {
            self.estimate.activations += self.take(&format!("{} of the frozen prefix", shape.name), shape.bytes());
        }
        self.estimate.frozen += self.constants(&prefix.graph);
        let workspace = workspace::workspace(&prefix.graph, assumed.device, assumed.threads);
        self.estimate.workspace = self.estimate.workspace.max(workspace);
    }

    /// Returns what the peak of a further session adds to that of the train graph: on a device all sessions work in the
    /// same memory, one after the other.
    fn beside(&self, assumed: &Assumed<'_>, peak: u64) -> u64 {
        if assumed.device == Device::Cpu { peak } else { peak.saturating_sub(self.estimate.activations) }
    }

    /// Returns the peak of a session.
    fn session(&mut self, model: &Model, bound: &HashSet<&str>) -> u64 {
        let peak = peak(&model.graph, bound);
        self.estimate.unknown += peak.unknown;
        peak.bytes
    }

    /// As [`Sum::session`], with what lives then among the consumers.
    fn named_session(&mut self, model: &Model, bound: &HashSet<&str>) -> u64 {
        let graph = &model.graph;
        let peak = peak(graph, bound);
        self.estimate.unknown += peak.unknown;
        for (value, bytes) in peak.live {
            let node = graph.producer(value).map(|id| graph.node(id));
            let of = node
                .map_or_else(|| graph.value_name(value).into(), |node| format!("{} \"{}\"", node.op.name, node.name));
            self.take(&format!("what {of} makes"), bytes);
        }
        peak.bytes
    }

    fn constants(&mut self, graph: &Graph) -> u64 {
        let constants: Vec<(String, u64)> =
            graph.initializers().map(|(_, value, tensor)| (value.name.clone(), tensor.bytes().len() as u64)).collect();
        constants.into_iter().map(|(name, bytes)| self.take(&format!("constant {name}"), bytes)).sum()
    }

    fn finish(mut self) -> MemoryEstimate {
        self.largest.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        self.largest.truncate(LARGEST);
        let MemoryEstimate { weights, frozen, slots, gradients, activations, workspace, other, .. } = self.estimate;
        let total = weights + frozen + slots + gradients + activations + workspace + other;
        MemoryEstimate { total, largest: self.largest, ..self.estimate }
    }
}

/// Returns the shapes of what crosses from a frozen prefix to the rest of its graph.
fn crossing(split: &Split, batch: &[Shape]) -> Vec<Shape> {
    let prefix = sized(&split.prefix, batch);
    let shape = |crossing: &crate::training::prefix::Crossing| {
        let fact = prefix.graph.fact(prefix.graph.find(&crossing.name)?);
        Some(Shape { name: crossing.name.clone(), dtype: fact.dtype?, sizes: fact.sizes()? })
    };
    split.cut.iter().filter_map(shape).collect()
}

impl Assumed<'_> {
    /// Returns a graph as the engine runs it, for inputs of these shapes.
    fn as_run(&self, model: &Model, inputs: &[Shape]) -> Model {
        let target = if self.device == Device::Cpu { Target::Processor } else { Target::Device };
        let sized = sized(&optimize(model, target), inputs);
        match self.computing.filter(|settings| !settings.simulated) {
            Some(settings) => lower(&sized, settings).0.into_owned(),
            None => sized,
        }
    }
}

fn sized(model: &Model, inputs: &[Shape]) -> Model {
    let shapes: Vec<(String, Vec<Option<usize>>)> =
        inputs.iter().map(|shape| (shape.name.clone(), shape.sizes.iter().copied().map(Some).collect())).collect();
    with_shapes(model, &shapes)
}

/// Returns the bytes of a tensor.
fn bytes(dtype: DType, shape: &[usize]) -> u64 {
    shape.iter().fold(dtype.size() as u64, |bytes, size| bytes.saturating_mul(*size as u64))
}
