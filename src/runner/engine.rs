//! The seam between training and whatever executes a graph.

use super::exhausted::OutOfMemory;
use super::precision::{Settings, Summary};
use crate::autodiff::Form;
use crate::error::ErrorKind;
use crate::graph::{DType, Model, Tensor};
use std::any::Any;

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
    /// `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Threads within one operator.
    pub threads: usize,
    /// In which operators it runs train graphs best.
    pub form: Form,
    /// True where reading a buffer costs more than a node that looks at it.
    pub remote: bool,
    /// True where it can reshape to a shape that is computed, as recomputing modules needs.
    pub recomputes: bool,
}

/// Memory of the device of an engine, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// In use now, by this process and by others.
    pub used: u64,
    /// The most that this engine has held at a time.
    pub peak: u64,
    /// All that the device has.
    pub total: u64,
}

impl DeviceMemory {
    /// Returns what is free now.
    pub fn free(&self) -> u64 {
        self.total.saturating_sub(self.used)
    }
}

/// A graph that an engine refuses or fails to run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum EngineError {
    #[error("{engine} cannot be loaded from {library}: {reason}")]
    Library { engine: &'static str, library: String, reason: String },
    #[error("{engine} refuses the graph \"{graph}\": {reason}")]
    Load { engine: &'static str, graph: String, reason: String },
    #[error("{engine} failed while running \"{graph}\": {reason}")]
    Run { engine: &'static str, graph: String, reason: String },
    #[error("{engine} on {device} does not compute in {dtype}")]
    Precision { engine: String, device: String, dtype: DType },
    #[error("{engine}: a buffer of {what}: {reason}")]
    Buffer { engine: &'static str, what: String, reason: String },
    #[error(transparent)]
    OutOfMemory(Box<OutOfMemory>),
}

impl EngineError {
    /// Returns that an engine has no kernels of a dtype.
    pub(super) fn no_precision(info: &EngineInfo, settings: &Settings) -> EngineError {
        let (engine, device) = (info.name.clone(), info.device.clone());
        EngineError::Precision { engine, device, dtype: settings.low.dtype() }
    }

    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            EngineError::Library { .. } | EngineError::OutOfMemory(_) => ErrorKind::BadInput,
            EngineError::Load { .. } | EngineError::Precision { .. } => ErrorKind::Unsupported,
            EngineError::Run { .. } | EngineError::Buffer { .. } => ErrorKind::Internal,
        }
    }
}

/// A graph that a [`Loader`] has prepared; only engines know what it holds.
pub struct Loaded(pub(super) Box<dyn Any + Send>);

/// Prepares graphs for an engine while that runs others.
pub trait Loader: Send {
    /// Returns true where reading a buffer of the engine costs more than a node that looks at it.
    fn remote(&self) -> bool {
        false
    }

    /// Prepares a graph.
    ///
    /// # Errors
    /// The engine cannot run it.
    fn load(&self, model: &Model) -> Result<Loaded, EngineError>;
}

/// What a node of a session took.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeTime {
    /// Name of the node as the engine runs it: where the engine fuses nodes it may be a name of its own.
    pub name: String,
    /// Seconds in each run.
    pub seconds: Vec<f64>,
}

/// A node that runs on the processor although the engine has a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnProcessor {
    /// Its name.
    pub node: String,
    /// Its operator.
    pub operator: String,
}

/// Executes graphs on buffers that it owns.
pub trait Engine {
    /// Returns what this engine is.
    fn info(&self) -> &EngineInfo;

    /// Returns what prepares graphs on another thread; `None` where only the engine itself does.
    fn loader(&self) -> Option<Box<dyn Loader>> {
        None
    }

    /// Takes a graph that a loader of this engine has prepared.
    fn adopt(&mut self, loaded: Loaded) -> SessionId {
        drop(loaded);
        unreachable!("invariant: an engine without a loader is given nothing that one prepared")
    }

    /// Makes graphs that are loaded from here on compute in mixed precision, or without settings in float32.
    ///
    /// # Errors
    /// The engine computes in float32 only.
    fn compute_in(&mut self, settings: Option<&Settings>) -> Result<(), EngineError> {
        match settings {
            None => Ok(()),
            Some(settings) => Err(EngineError::no_precision(self.info(), settings)),
        }
    }

    /// Returns what of a session computes in what, where it is in mixed precision.
    fn computes(&self, session: SessionId) -> Option<&Summary> {
        let _ = session;
        None
    }

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

    /// Returns a new buffer whose elements may be anything.
    ///
    /// # Errors
    /// As [`Engine::allocate`].
    fn reserve(&mut self, dtype: DType, shape: &[usize]) -> Result<BufferId, EngineError> {
        self.allocate(&Tensor::zeros(dtype, shape))
    }

    /// Returns the memory of the device; `None` where graphs run in the memory of the process.
    fn device_memory(&self) -> Option<DeviceMemory> {
        None
    }

    /// Replaces the elements of a buffer by others of the same dtype and shape.
    ///
    /// # Errors
    /// Dtype or shape differ.
    fn write(&mut self, buffer: BufferId, tensor: &Tensor) -> Result<(), EngineError>;

    /// Says what will be written next, so that an engine with a device copies it there while it runs. The tensors that
    /// are written must share their bytes with these to gain by it.
    fn ahead(&mut self, _batch: Vec<(BufferId, Tensor)>) {}

    /// Copies a buffer to another one of the same dtype and shape.
    ///
    /// # Errors
    /// The device fails.
    fn copy(&mut self, from: BufferId, to: BufferId) -> Result<(), EngineError> {
        let tensor = self.read(from)?;
        self.write(to, &tensor)
    }

    /// Returns the nodes of a session that ONNX Runtime has placed on the processor although the engine has a device,
    /// but for those that compute shapes.
    fn on_processor(&self, _session: SessionId) -> Vec<OnProcessor> {
        Vec::new()
    }

    /// Returns a copy of a buffer.
    ///
    /// # Errors
    /// The device fails.
    fn read(&self, buffer: BufferId) -> Result<Tensor, EngineError>;

    /// Returns true where a buffer of floating-point numbers has none that is NaN or infinite.
    ///
    /// # Errors
    /// The device fails.
    fn is_finite(&self, buffer: BufferId) -> Result<bool, EngineError> {
        let tensor = self.read(buffer)?;
        Ok(is_finite(tensor.dtype(), tensor.bytes()))
    }

    /// Returns the bytes of a buffer where they lie, little-endian; `None` where the engine does not give them out.
    fn bytes(&self, _buffer: BufferId) -> Option<&[u8]> {
        None
    }

    /// As [`Engine::bytes`], to change them.
    fn bytes_mut(&mut self, _buffer: BufferId) -> Option<&mut [u8]> {
        None
    }

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

/// Returns true where none of the elements of a floating-point dtype is NaN or infinite, and for other dtypes.
pub(super) fn is_finite(dtype: DType, bytes: &[u8]) -> bool {
    const F64: u64 = 0x7ff0 << 48;
    const F32: u32 = 0x7f80 << 16;
    const F16: u16 = 0x7c00;
    const BF16: u16 = 0x7f80;
    // Of what is not finite all bits of the exponent are ones.
    match dtype {
        DType::F64 => highest(bytes, |bytes| u64::from_le_bytes(bytes) & F64) < F64,
        DType::F32 => highest(bytes, |bytes| u32::from_le_bytes(bytes) & F32) < F32,
        DType::F16 => highest(bytes, |bytes| u16::from_le_bytes(bytes) & F16) < F16,
        DType::BF16 => highest(bytes, |bytes| u16::from_le_bytes(bytes) & BF16) < BF16,
        _ => true,
    }
}

/// Returns the largest of what elements of `N` bytes are mapped to.
fn highest<const N: usize, T: Ord + Copy + Default>(bytes: &[u8], of: impl Fn([u8; N]) -> T) -> T {
    let (elements, _) = bytes.as_chunks::<N>();
    elements.iter().fold(T::default(), |highest, element| highest.max(of(*element)))
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

#[cfg(test)]
mod tests {
    use super::is_finite;
    use crate::graph::DType;

    #[test]
    fn every_number_that_is_not_finite_is_found_at_every_place() {
        let floats = |value: f32, at: usize| {
            let mut all = vec![-f32::MAX, 0.0, f32::MIN_POSITIVE, 1e-45, f32::MAX, -1.0, 2.0, 3.0, 5.0];
            all[at] = value;
            all.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>()
        };
        for at in 0..9 {
            assert!(is_finite(DType::F32, &floats(f32::MAX, at)));
            for value in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                assert!(!is_finite(DType::F32, &floats(value, at)), "{value} at {at}");
            }
        }
        for (value, finite) in [(1e300, true), (f64::NAN, false), (f64::INFINITY, false)] {
            assert_eq!(is_finite(DType::F64, &[1.0, value].map(f64::to_le_bytes).concat()), finite);
        }
        let halves = [(DType::F16, 0x7bff_u16, 0x7c00_u16), (DType::BF16, 0x7f7f, 0xff81)];
        for (dtype, largest, not) in halves {
            assert!(is_finite(dtype, &[0, largest].map(u16::to_le_bytes).concat()));
            assert!(!is_finite(dtype, &[0, not].map(u16::to_le_bytes).concat()));
        }
        assert!(is_finite(DType::I64, &i64::MAX.to_le_bytes()) && is_finite(DType::F32, &[]));
    }
}
