//! The seam between training and whatever executes a graph.

use crate::autodiff::Form;
use crate::error::ErrorKind;
use crate::graph::{Model, Tensor};

/// A buffer that an engine owns: a parameter, a slot, a gradient, a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub(super) usize);

/// A graph that an engine has prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub(super) usize);

/// A session with a buffer or target for each input and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BindingId(pub(super) usize);

/// Where an output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Into a buffer of the same dtype and shape, which may be an input of the same run where
    /// `training::in_place` has shown that to be safe.
    Buffer(BufferId),
    /// To the caller.
    Host,
}

/// What an engine is.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineInfo {
    /// `onnxruntime` or `tract`.
    pub name: String,
    /// Version.
    pub version: String,
    /// Library file; empty for the embedded engine.
    pub library: String,
    /// `cpu`.
    pub device: String,
    /// Threads within one operator.
    pub threads: usize,
    /// In which operators it runs train graphs best.
    pub form: Form,
    /// True where it can reshape to a shape that is computed, as recomputing modules needs.
    pub recomputes: bool,
}

/// A graph that an engine refuses or fails to run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum EngineError {
    #[error("{engine} cannot be loaded from {library}: {reason}")]
    Library { engine: &'static str, library: String, reason: String },
    #[error("{engine} refuses the graph \"{graph}\": {reason}")]
    Load { engine: &'static str, graph: String, reason: String },
    #[error("{engine} failed while running \"{graph}\": {reason}")]
    Run { engine: &'static str, graph: String, reason: String },
    #[error("{engine}: a buffer of {what}: {reason}")]
    Buffer { engine: &'static str, what: String, reason: String },
}

impl EngineError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            EngineError::Library { .. } => ErrorKind::BadInput,
            EngineError::Load { .. } => ErrorKind::Unsupported,
            EngineError::Run { .. } | EngineError::Buffer { .. } => ErrorKind::Internal,
        }
    }
}

/// What a node of a session took.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeTime {
    /// Name of the node as the engine runs it: where the engine fuses nodes it may be a name of its own.
    pub name: String,
    /// Seconds in each run.
    pub seconds: Vec<f64>,
}

/// Executes graphs on buffers that it owns.
pub trait Engine {
    /// Returns what this engine is.
    fn info(&self) -> &EngineInfo;

    /// Prepares a graph.
    ///
    /// # Errors
    /// The engine cannot run it.
    fn load(&mut self, model: &Model) -> Result<SessionId, EngineError>;

    /// Drops a session and its bindings.
    fn unload(&mut self, session: SessionId);

    /// Returns a new buffer holding a tensor.
    ///
    /// # Errors
    /// The engine has no such dtype, or no memory.
    fn allocate(&mut self, tensor: &Tensor) -> Result<BufferId, EngineError>;

    /// Replaces the elements of a buffer by others of the same dtype and shape.
    ///
    /// # Errors
    /// Dtype or shape differ.
    fn write(&mut self, buffer: BufferId, tensor: &Tensor) -> Result<(), EngineError>;

    /// Returns a copy of a buffer.
    ///
    /// # Errors
    /// The device fails.
    fn read(&self, buffer: BufferId) -> Result<Tensor, EngineError>;

    /// Drops a buffer. Bindings that use it must be dropped with their session first.
    fn free(&mut self, buffer: BufferId);

    /// Fixes where the inputs come from and the outputs go.
    ///
    /// # Errors
    /// A name is unknown or a buffer does not fit.
    fn bind(
        &mut self,
        session: SessionId,
        inputs: &[(&str, BufferId)],
        outputs: &[(&str, Target)],
    ) -> Result<BindingId, EngineError>;

    /// Drops a binding.
    fn unbind(&mut self, binding: BindingId);

    /// Runs once and returns the outputs that go to the host, in the order of the binding.
    ///
    /// # Errors
    /// An operator fails.
    fn run(&mut self, binding: BindingId) -> Result<Vec<Tensor>, EngineError>;

    /// Makes sessions that are loaded from now on note what their nodes take, or no longer; returns false where the
    /// engine cannot.
    fn note_nodes(&mut self, _on: bool) -> bool {
        false
    }

    /// Returns what the nodes of a session took in each of its runs, and ends the noting of it.
    ///
    /// # Errors
    /// What was noted cannot be read.
    fn node_times(&mut self, _session: SessionId) -> Result<Vec<NodeTime>, EngineError> {
        Ok(Vec::new())
    }
}

/// Runs a graph once on host tensors and returns all of its outputs.
///
/// # Errors
/// Those of the engine.
pub fn evaluate(
    engine: &mut dyn Engine,
    model: &Model,
    inputs: &[(&str, &Tensor)],
) -> Result<Vec<Tensor>, EngineError> {
    let session = engine.load(model)?;
    let mut buffers = Vec::with_capacity(inputs.len());
    for (name, tensor) in inputs {
        buffers.push((*name, engine.allocate(tensor)?));
    }
    let graph = &model.graph;
    let outputs: Vec<(&str, Target)> = graph.outputs().iter().map(|id| (graph.value_name(*id), Target::Host)).collect();
    let result = engine.bind(session, &buffers, &outputs).and_then(|binding| engine.run(binding));
    engine.unload(session);
    for (_, buffer) in buffers {
        engine.free(buffer);
    }
    result
}

/// Entries that keep their position, as ids need it.
#[derive(Debug)]
pub(super) struct Slab<T>(Vec<Option<T>>);

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab(Vec::new())
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, entry: T) -> usize {
        match self.0.iter().position(Option::is_none) {
            Some(free) => {
                self.0[free] = Some(entry);
                free
            }
            None => {
                self.0.push(Some(entry));
                self.0.len() - 1
            }
        }
    }

    pub(super) fn remove(&mut self, index: usize) {
        if let Some(slot) = self.0.get_mut(index) {
            *slot = None;
        }
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        for slot in &mut self.0 {
            if slot.as_ref().is_some_and(|entry| !keep(entry)) {
                *slot = None;
            }
        }
    }

    pub(super) fn get(&self, index: usize) -> &T {
        self.0.get(index).and_then(Option::as_ref).expect("invariant: an id is used only while its entry lives")
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut T {
        self.0.get_mut(index).and_then(Option::as_mut).expect("invariant: an id is used only while its entry lives")
    }
}
