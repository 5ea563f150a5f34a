//! The ONNX Runtime engine: sessions, and state in ONNX Runtime's own buffers.
//!
//! A buffer is one `OrtValue`, bound as input and output by reference, so a step moves no state.

use super::cuda::device::CudaDevice;
use super::cuda::gpu::Gpu;
use super::device::Device;
use super::engine::{
    BindingId, BufferId, DeviceMemory, Engine, EngineError, EngineInfo, Loaded, Loader, NodeTime, OnProcessor,
    SessionId, Slab, Target, is_finite,
};
use super::native;
use super::precision::{Settings, Summary};
use crate::autodiff::Form;
use crate::graph::{DType, Model, Tensor};
use crate::onnx::LARGEST;
use bytes::Bytes;
use ort::AsPointer;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::operator::OperatorDomain;
use ort::session::{IoBinding, RunOptions, Session};
use ort::value::{DynTensor, DynValue, TensorElementType, ValueType};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod arena;
mod device;
mod family;
mod library;
mod operators;
mod profile;
mod sessions;

pub use arena::Arena;
#[cfg(test)]
pub(super) use operators::names as operator_names;

pub(super) use library::{VersionError, library_version};

use device::{Ahead, CudaSettings, DeviceBuffer, Scalars};
use family::Family;
use library::{Environments, environment};
use sessions::{Operators, Prepared, Source};

const NAME: &str = "onnxruntime";

/// Executes graphs with an ONNX Runtime library found at run time.
pub struct OnnxRuntime {
    info: EngineInfo,
    sessions_of: Source,
    allocator: Allocator,
    /// What was told to come next, and what of it is on the way to the device.
    ahead: Ahead,
    /// Where outputs are made whose sizes are not known.
    cpu: MemoryInfo<'static>,
    sessions: Slab<Family>,
    buffers: Slab<Buffer>,
    bindings: Slab<Bound>,
}

/// How an engine computes on an NVIDIA device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cuda {
    /// Whether products of float32 may round their factors to TensorFloat-32.
    pub tf32: bool,
    /// Whether runs of fixed shapes are captured as CUDA graphs and replayed.
    pub graphs: bool,
    /// The folder in which machine code of kernels is kept; compiled anew in each process without one.
    pub cache: Option<PathBuf>,
}

/// Where a buffer lies.
enum Buffer {
    Host(DynTensor),
    Device(DeviceBuffer),
}

struct Bound {
    session: usize,
    /// Which of the sessions of its graph.
    member: usize,
    binding: IoBinding,
    host: Vec<HostOutput>,
    /// The scalars of a device.
    scalars: Option<Scalars>,
    /// Whether every output has a buffer.
    fixed: bool,
    /// Buffers that are inputs and outputs.
    in_place: Vec<BufferId>,
    /// Where runs are captured: whether one has been.
    captured: Option<bool>,
}

/// An output that goes to the caller.
enum HostOutput {
    /// A scalar, with the buffer it is written to.
    Scalar(DynTensor),
    /// A scalar of a device: its place among them.
    OnDevice(usize),
    /// Any other: its name.
    Made(String),
}

impl OnnxRuntime {
    /// Loads the library at `library` and returns an engine on the CPU with `threads` threads.
    /// One process can load one library; a second path is ignored once one was loaded.
    ///
    /// # Errors
    /// The file is no ONNX Runtime, too old (1.24 is needed), or does not load.
    pub fn new(library: &Path, threads: usize) -> Result<OnnxRuntime, EngineError> {
        OnnxRuntime::with(library, threads, None, || operators::domain(threads))
    }

    /// Loads the library at `library`, which must be one with CUDA, and returns an engine on an NVIDIA device.
    ///
    /// # Errors
    /// As [`OnnxRuntime::new`]; or the device cannot be used, or another one is in use by this process.
    pub fn on_cuda(library: &Path, index: u32, threads: usize, cuda: &Cuda) -> Result<OnnxRuntime, EngineError> {
        let gpu = match device::adopted() {
            Some(gpu) if gpu.index() == index => gpu,
            _ => {
                let opened = CudaDevice::open(index, cuda.cache.clone());
                device::adopt(opened.map_err(|reason| device::refused(reason, library))?)?
            }
        };
        let settings = CudaSettings { tf32: cuda.tf32, graphs: cuda.graphs };
        gpu.allow_tf32(cuda.tf32);
        let operators: Arc<dyn Gpu> = Arc::clone(&gpu) as Arc<dyn Gpu>;
        OnnxRuntime::with(library, threads, Some((gpu, settings)), || {
            operators::device::domain(&operators, Some("CUDAExecutionProvider"))
        })
    }

    /// Makes an engine with these operators of our own, on the processor or a device.
    fn with(
        library: &Path,
        threads: usize,
        device: Option<(Arc<CudaDevice>, CudaSettings)>,
        operators: impl FnOnce() -> ort::Result<OperatorDomain>,
    ) -> Result<OnnxRuntime, EngineError> {
        let version = library_version(library).map_err(|error| EngineError::Library {
            engine: NAME,
            library: library.display().to_string(),
            reason: match error {
                VersionError::Load(reason) => reason,
                VersionError::NotOnnxRuntime => "it is no ONNX Runtime library".into(),
            },
        })?;
        let Environments { library, environment, threads: shared } = environment(library, threads)?;
        if let Some((gpu, _)) = &device {
            let shared = device::share_memory(environment, gpu);
            shared.map_err(|error| device::refused(error.to_string(), &library))?;
        }
        let operators = operators().map_err(|error| EngineError::Library {
            engine: NAME,
            library: library.display().to_string(),
            reason: error.to_string(),
        })?;
        #[allow(clippy::arc_with_non_send_sync)]
        let operators = Operators(Arc::new(operators));
        let cpu = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)
            .map_err(|error| buffer_error("outputs".into(), error))?;
        let place = device.as_ref().map_or(Device::Cpu, |(gpu, _)| Device::Cuda(gpu.index()));
        let info = EngineInfo {
            name: NAME.into(),
            version,
            library: library.display().to_string(),
            device: place.to_string(),
            threads,
            remote: place != Device::Cpu,
            recomputes: true,
            form: Form::Native,
        };
        let sessions_of = Source {
            environment,
            operators,
            threads,
            shared: threads == shared,
            largest: LARGEST,
            target: if device.is_some() { native::Target::Device } else { native::Target::Processor },
            optimizes: true,
            precision: None,
            notes: false,
            sizes: Arc::default(),
            device,
        };
        sessions_of.first()?;
        Ok(OnnxRuntime {
            info,
            sessions_of,
            ahead: Ahead::default(),
            allocator: Allocator::default(),
            cpu,
            sessions: Slab::default(),
            buffers: Slab::default(),
            bindings: Slab::default(),
        })
    }
}

#[cfg(test)]
impl OnnxRuntime {
    /// Returns an engine on the processor whose operators of our own are those of an emulated device.
    #[cfg(unix)]
    pub(super) fn emulated(library: &Path, threads: usize) -> OnnxRuntime {
        let gpu: Arc<dyn super::cuda::gpu::Gpu> = Arc::new(super::cuda::emulated::Emulated::default());
        let engine = OnnxRuntime::with(library, threads, None, || operators::device::domain(&gpu, None));
        let engine = engine.expect("ONNX Runtime loads");
        OnnxRuntime { sessions_of: Source { target: native::Target::Device, ..engine.sessions_of }, ..engine }
    }

    /// Returns this engine, which runs graphs as they are.
    pub(super) fn running_as_is(self) -> OnnxRuntime {
        OnnxRuntime { sessions_of: Source { optimizes: false, ..self.sessions_of }, ..self }
    }

    /// Returns this engine with another limit of weights inside an encoded graph.
    fn with_largest(self, largest: usize) -> OnnxRuntime {
        OnnxRuntime { sessions_of: Source { largest, ..self.sessions_of }, ..self }
    }
}

fn element_type(dtype: DType) -> Option<TensorElementType> {
    Some(match dtype {
        DType::F32 => TensorElementType::Float32,
        DType::F64 => TensorElementType::Float64,
        DType::F16 => TensorElementType::Float16,
        DType::BF16 => TensorElementType::Bfloat16,
        DType::I64 => TensorElementType::Int64,
        DType::I32 => TensorElementType::Int32,
        DType::I16 => TensorElementType::Int16,
        DType::I8 => TensorElementType::Int8,
        DType::U64 => TensorElementType::Uint64,
        DType::U32 => TensorElementType::Uint32,
        DType::U16 => TensorElementType::Uint16,
        DType::U8 => TensorElementType::Uint8,
        DType::Bool => TensorElementType::Bool,
        DType::String | DType::Other(_) => return None,
    })
}

fn dtype(element: TensorElementType) -> Option<DType> {
    [
        DType::F32,
        DType::F64,
        DType::F16,
        DType::BF16,
        DType::I64,
        DType::I32,
        DType::I16,
        DType::I8,
        DType::U64,
        DType::U32,
        DType::U16,
        DType::U8,
        DType::Bool,
    ]
    .into_iter()
    .find(|dtype| element_type(*dtype) == Some(element))
}

fn buffer_error(what: String, reason: impl ToString) -> EngineError {
    EngineError::Buffer { engine: NAME, what, reason: reason.to_string() }
}

/// Returns the bytes that a tensor has; `None` of none, and of what is no plain number.
fn size(value: &DynTensor) -> Option<usize> {
    let elements: usize = value.shape().iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).product();
    let size = elements * dtype(*value.data_type())?.size();
    (size > 0).then_some(size)
}

fn download(value: &DynTensor) -> Result<Tensor, EngineError> {
    let shape: Vec<usize> = value.shape().iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).collect();
    let dtype = dtype(*value.data_type())
        .ok_or_else(|| buffer_error(format!("{:?}", value.data_type()), "this dtype cannot be read back"))?;
    let data = Bytes::copy_from_slice(view(value, dtype));
    Tensor::new(dtype, shape, data).map_err(|error| buffer_error(dtype.to_string(), error))
}

/// Replaces the elements of a value on the processor.
fn upload(value: &mut DynTensor, tensor: &Tensor) -> Result<(), EngineError> {
    let shape: Vec<usize> = value.shape().iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).collect();
    if dtype(*value.data_type()) != Some(tensor.dtype()) || shape != tensor.shape() {
        let what = format!("{:?}{shape:?}", value.data_type());
        return Err(buffer_error(what, format!("cannot take {}{:?}", tensor.dtype(), tensor.shape())));
    }
    let bytes = tensor.bytes();
    if !bytes.is_empty() {
        // SAFETY: the value has exactly the tensor's dtype and shape, lies in CPU memory, and the caller's mutable engine
        // keeps a run from using it meanwhile.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.data_ptr_mut().cast::<u8>(), bytes.len());
        }
    }
    Ok(())
}

/// Returns the bytes of a value of this dtype.
fn view(value: &DynTensor, dtype: DType) -> &[u8] {
    let sizes = value.shape().iter().map(|dim| usize::try_from(*dim).unwrap_or(0));
    let size = sizes.product::<usize>() * dtype.size();
    if size == 0 {
        return &[];
    }
    // SAFETY: the value is a CPU tensor of this dtype and shape, so `size` bytes are readable as long as it lives, and a
    // run, which may write them, takes the engine that holds it mutably.
    unsafe { std::slice::from_raw_parts(value.data_ptr().cast::<u8>(), size) }
}

impl Engine for OnnxRuntime {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn load(&mut self, model: &Model) -> Result<SessionId, EngineError> {
        let family = Family::new(&self.sessions_of, model)?;
        Ok(SessionId(self.sessions.insert(family)))
    }

    fn compute_in(&mut self, settings: Option<&Settings>) -> Result<(), EngineError> {
        let on_device = self.sessions_of.device.is_some();
        if let Some(settings) = settings.filter(|settings| !settings.simulated && !on_device) {
            return Err(EngineError::no_precision(&self.info, settings));
        }
        self.sessions_of.precision = settings.cloned();
        Ok(())
    }

    fn computes(&self, session: SessionId) -> Option<&Summary> {
        self.sessions.get(session.0).last()?.computes.as_ref()
    }

    fn loader(&self) -> Option<Box<dyn Loader>> {
        Some(Box::new(self.sessions_of.clone()))
    }

    fn adopt(&mut self, loaded: Loaded) -> SessionId {
        let session = loaded.0.downcast::<Family>().expect("invariant: a session comes from a loader of this engine");
        SessionId(self.sessions.insert(*session))
    }

    fn unload(&mut self, session: SessionId) {
        self.bindings.retain(|bound| bound.session != session.0);
        self.sessions.remove(session.0);
    }

    fn allocate(&mut self, tensor: &Tensor) -> Result<BufferId, EngineError> {
        let id = self.reserve(tensor.dtype(), tensor.shape())?;
        self.write(id, tensor)?;
        Ok(id)
    }

    fn reserve(&mut self, dtype: DType, shape: &[usize]) -> Result<BufferId, EngineError> {
        let buffer = match &self.sessions_of.device {
            Some((gpu, _)) => Buffer::Device(DeviceBuffer::new(gpu, dtype, shape)?),
            None => {
                let what = || format!("{dtype}{shape:?}");
                let element = element_type(dtype).ok_or_else(|| buffer_error(what(), "no such dtype"))?;
                let value = DynTensor::new(&self.allocator, element, shape.to_vec());
                Buffer::Host(value.map_err(|error| buffer_error(what(), error))?)
            }
        };
        Ok(BufferId(self.buffers.insert(buffer)))
    }

    fn device_memory(&self) -> Option<DeviceMemory> {
        let (gpu, _) = self.sessions_of.device.as_ref()?;
        let memory = gpu.memory().ok()?;
        let bytes = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        Some(DeviceMemory {
            used: bytes(memory.total.saturating_sub(memory.free)),
            peak: bytes(memory.state.saturating_add(memory.work.peak)),
            total: bytes(memory.total),
        })
    }

    fn write(&mut self, buffer: BufferId, tensor: &Tensor) -> Result<(), EngineError> {
        match self.buffers.get_mut(buffer.0) {
            Buffer::Host(value) => upload(value, tensor),
            Buffer::Device(value) => match self.ahead.end(buffer, value, tensor)? {
                true => Ok(()),
                false => value.write(tensor),
            },
        }
    }

    fn copy(&mut self, from: BufferId, to: BufferId) -> Result<(), EngineError> {
        match (self.buffers.get(from.0), self.buffers.get(to.0)) {
            (Buffer::Device(from), Buffer::Device(to)) => to.take(from),
            (Buffer::Host(from), _) => {
                let tensor = download(from)?;
                self.write(to, &tensor)
            }
            (Buffer::Device(_), Buffer::Host(_)) => {
                let tensor = self.read(from)?;
                self.write(to, &tensor)
            }
        }
    }

    fn on_processor(&self, session: SessionId) -> Vec<OnProcessor> {
        self.sessions.get(session.0).last().map(|session| session.on_processor.clone()).unwrap_or_default()
    }

    fn ahead(&mut self, batch: Vec<(BufferId, Tensor)>) {
        if self.sessions_of.device.is_some() {
            self.ahead.tell(batch);
        }
    }

    fn read(&self, buffer: BufferId) -> Result<Tensor, EngineError> {
        match self.buffers.get(buffer.0) {
            Buffer::Host(value) => download(value),
            Buffer::Device(value) => value.read(),
        }
    }

    fn is_finite(&self, buffer: BufferId) -> Result<bool, EngineError> {
        let value = match self.buffers.get(buffer.0) {
            Buffer::Host(value) => value,
            Buffer::Device(value) => {
                let tensor = value.read()?;
                return Ok(is_finite(tensor.dtype(), tensor.bytes()));
            }
        };
        let known = dtype(*value.data_type());
        Ok(known.is_none_or(|dtype| is_finite(dtype, view(value, dtype))))
    }

    fn bytes(&self, buffer: BufferId) -> Option<&[u8]> {
        let Buffer::Host(value) = self.buffers.get(buffer.0) else { return None };
        let size = size(value)?;
        // SAFETY: the value is a CPU tensor of `size` bytes, which lives as long as `self` is borrowed.
        (cfg!(target_endian = "little"))
            .then(|| unsafe { std::slice::from_raw_parts(value.data_ptr().cast::<u8>(), size) })
    }

    fn bytes_mut(&mut self, buffer: BufferId) -> Option<&mut [u8]> {
        let Buffer::Host(value) = self.buffers.get_mut(buffer.0) else { return None };
        let size = size(value)?;
        // SAFETY: as above; `&mut self` keeps a run and other readers away, and every bit pattern that is written back is
        // one that a tensor of this dtype had.
        (cfg!(target_endian = "little"))
            .then(|| unsafe { std::slice::from_raw_parts_mut(value.data_ptr_mut().cast::<u8>(), size) })
    }

    fn free(&mut self, buffer: BufferId) {
        self.ahead.forget(buffer);
        self.buffers.remove(buffer.0);
    }

    fn bind(
        &mut self,
        session: SessionId,
        inputs: &[(&str, BufferId)],
        outputs: &[(&str, Target)],
    ) -> Result<BindingId, EngineError> {
        let shape = |name: &str| {
            let (_, id) = inputs.iter().find(|(input, _)| *input == name)?;
            match self.buffers.get(id.0) {
                Buffer::Device(buffer) => Some(buffer.shape.as_slice()),
                Buffer::Host(_) => None,
            }
        };
        let member = self.sessions.get_mut(session.0).member(&self.sessions_of, shape)?;
        let family = self.sessions.get(session.0);
        let loaded = family.get(member);
        let fail = |error: &dyn std::fmt::Display| EngineError::Run {
            engine: NAME,
            graph: family.name.clone(),
            reason: error.to_string(),
        };
        let wanted: HashSet<&str> = loaded.session.inputs().iter().map(|input| input.name()).collect();
        let mut binding = loaded.session.create_binding().map_err(|error| fail(&error))?;
        for (name, buffer) in inputs.iter().filter(|(name, _)| wanted.contains(name)) {
            let (Buffer::Host(value) | Buffer::Device(DeviceBuffer { value, .. })) = self.buffers.get(buffer.0);
            binding.bind_input(*name, value).map_err(|error| fail(&error))?;
        }
        let scalar = |name: &str| {
            // A shape that ONNX Runtime does not know looks like that of a scalar there.
            let scalar = family.scalars.contains(name);
            let output = loaded.session.outputs().iter().find(|output| scalar && output.name() == name)?;
            match output.dtype() {
                ValueType::Tensor { ty, .. } => Some(*ty),
                _ => None,
            }
        };
        let (mut host, mut on_device) = (Vec::new(), Vec::new());
        for (name, target) in outputs {
            match target {
                Target::Buffer(id) => {
                    let (Buffer::Host(value) | Buffer::Device(DeviceBuffer { value, .. })) = self.buffers.get_mut(id.0);
                    binding.bind_output(*name, value).map_err(|error| fail(&error))?;
                }
                Target::Host => host.push(match (scalar(name), &self.sessions_of.device) {
                    (Some(ty), None) => match DynTensor::new(&self.allocator, ty, Vec::<usize>::new()) {
                        Ok(mut buffer) => {
                            binding.bind_output(*name, &mut buffer).map_err(|error| fail(&error))?;
                            HostOutput::Scalar(buffer)
                        }
                        Err(_) => HostOutput::Made((*name).to_string()),
                    },
                    (Some(ty), Some(_)) if let Some(dtype) = dtype(ty) => {
                        on_device.push((*name, dtype));
                        HostOutput::OnDevice(on_device.len() - 1)
                    }
                    _ => HostOutput::Made((*name).to_string()),
                }),
            }
        }
        let mut scalars = None;
        if let Some((gpu, _)) = &self.sessions_of.device {
            let dtypes: Vec<DType> = on_device.iter().map(|(_, dtype)| *dtype).collect();
            let mut block = Scalars::new(gpu, &dtypes)?;
            for ((name, _), buffer) in on_device.iter().zip(&mut block.buffers) {
                binding.bind_output(*name, &mut buffer.value).map_err(|error| fail(&error))?;
            }
            scalars = Some(block);
        }
        let fixed = !host.iter().any(|output| matches!(output, HostOutput::Made(_)));
        let written: HashSet<BufferId> = outputs
            .iter()
            .filter_map(|(_, target)| match target {
                Target::Buffer(id) => Some(*id),
                Target::Host => None,
            })
            .collect();
        let in_place: Vec<BufferId> = inputs.iter().map(|(_, id)| *id).filter(|id| written.contains(id)).collect();
        // Capturing keeps a copy of what changes in place, for which there must be room.
        let copies = in_place.iter().filter_map(|id| match self.buffers.get(id.0) {
            Buffer::Device(buffer) => Some(buffer.bytes()),
            Buffer::Host(_) => None,
        });
        let gpu = self.sessions_of.device.as_ref().map(|(gpu, _)| gpu).filter(|_| loaded.captures && fixed);
        let room = gpu.and_then(|gpu| gpu.memory().ok()).map(|memory| memory.free / 2);
        let captured = room.filter(|room| copies.sum::<usize>() <= *room).map(|_| false);
        let bound = Bound { session: session.0, member, binding, host, scalars, fixed, in_place, captured };
        Ok(BindingId(self.bindings.insert(bound)))
    }

    fn unbind(&mut self, binding: BindingId) {
        self.bindings.remove(binding.0);
    }

    fn run(&mut self, binding: BindingId) -> Result<Vec<Tensor>, EngineError> {
        if self.sessions_of.device.is_some() {
            return self.run_on_device(binding);
        }
        let Bound { session, member, binding, host, fixed, .. } = self.bindings.get_mut(binding.0);
        let family = self.sessions.get_mut(*session);
        let name = &family.name.clone();
        let Prepared { session, .. } = family.get_mut(*member);
        let fail = |error: &dyn std::fmt::Display| failed(name, error);
        if *fixed {
            run_bound(session, binding, std::ptr::null()).map_err(|error| fail(&error))?;
            let scalar = |output: &HostOutput| match output {
                HostOutput::Scalar(buffer) => download(buffer),
                HostOutput::OnDevice(_) => Err(fail(&"an output lies on a device")),
                HostOutput::Made(name) => Err(fail(&format!("output \"{name}\" has no buffer"))),
            };
            return host.iter().map(scalar).collect();
        }
        let options = RunOptions::new().map_err(|error| fail(&error))?;
        run_making(session, name, binding, host, &self.cpu, &options)
    }

    fn note_nodes(&mut self, on: bool) -> bool {
        // A profile has the time in which a device is asked, not that in which it computes.
        self.sessions_of.notes = on && self.sessions_of.device.is_none();
        self.sessions_of.device.is_none()
    }

    fn node_times(&mut self, session: SessionId) -> Result<Vec<NodeTime>, EngineError> {
        let family = self.sessions.get_mut(session.0);
        let name = family.name.clone();
        if self.sessions_of.device.is_some() || family.get(0).profile.is_none() {
            return Ok(Vec::new());
        }
        let loaded = family.get_mut(0);
        let path = loaded.session.end_profiling().map_err(|error| error.to_string());
        path.and_then(|path| profile::read(Path::new(&path)).map_err(|error| error.to_string()))
            .map_err(|reason| EngineError::Run { engine: NAME, graph: name, reason: format!("its profile: {reason}") })
    }
}

impl OnnxRuntime {
    fn run_on_device(&mut self, id: BindingId) -> Result<Vec<Tensor>, EngineError> {
        let OnnxRuntime { sessions_of, sessions, bindings, buffers, ahead, cpu, .. } = self;
        let Some((gpu, _)) = &sessions_of.device else {
            unreachable!("invariant: only an engine on a device runs here");
        };
        let Bound { session, member, binding, host, scalars, fixed, in_place, captured } = bindings.get_mut(id.0);
        let family = sessions.get_mut(*session);
        let name = &family.name.clone();
        let Prepared { session, .. } = family.get_mut(*member);
        let fail = |error: &dyn std::fmt::Display| failed(name, &device::with_refused(gpu, error));
        gpu.current().map_err(|error| fail(&error))?;
        let mut options = RunOptions::new().map_err(|error| fail(&error))?;
        let graph = captured.map_or_else(|| "-1".to_string(), |_| (id.0 + 1).to_string());
        options.set("gpu_graph_id", graph).map_err(|error| fail(&error))?;
        if !*fixed {
            let mut made = run_making(session, name, binding, host, cpu, &options)?.into_iter();
            ahead.begin(gpu)?;
            let scalars = scalars.as_ref().map(Scalars::read).transpose()?.unwrap_or_default();
            let output = |output: &HostOutput| match output {
                HostOutput::OnDevice(place) => scalars.get(*place).cloned(),
                HostOutput::Made(_) | HostOutput::Scalar(_) => made.next(),
            };
            let outputs: Option<Vec<Tensor>> = host.iter().map(output).collect();
            return outputs.ok_or_else(|| fail(&"an output is missing"));
        }
        options.disable_device_sync().map_err(|error| fail(&error))?;
        if *captured == Some(false) {
            // Capturing runs the graph three times: what it changes in place is put back, and the run that counts follows.
            let mut held = Vec::new();
            for id in in_place.iter() {
                if let Buffer::Device(buffer) = buffers.get(id.0) {
                    held.push((buffer, buffer.copied()?));
                }
            }
            let gate = device::capturing();
            run_bound(session, binding, options.ptr()).map_err(|error| fail(&error))?;
            drop(gate);
            held.iter().try_for_each(|(buffer, held)| buffer.take(held))?;
            *captured = Some(true);
        }
        run_bound(session, binding, options.ptr()).map_err(|error| fail(&error))?;
        ahead.begin(gpu)?;
        scalars.as_ref().map(Scalars::read).transpose().map(Option::unwrap_or_default)
    }
}

/// Runs a binding some of whose outputs ONNX Runtime makes, and returns those that are not on a device.
fn run_making(
    session: &mut Session,
    name: &str,
    binding: &mut IoBinding,
    host: &[HostOutput],
    cpu: &MemoryInfo<'static>,
    options: &RunOptions,
) -> Result<Vec<Tensor>, EngineError> {
    let fail = |error: &dyn std::fmt::Display| failed(name, error);
    for output in host {
        if let HostOutput::Made(output) = output {
            // Else it would be written to where it was in the run before.
            binding.bind_output_to_device(output, cpu).map_err(|error| fail(&error))?;
        }
    }
    let mut outputs = session.run_binding_with_options(binding, options).map_err(|error| fail(&error))?;
    let mut results = Vec::with_capacity(host.len());
    for output in host {
        match output {
            HostOutput::Scalar(buffer) => results.push(download(buffer)?),
            HostOutput::OnDevice(_) => {}
            HostOutput::Made(output) => {
                let value: DynValue =
                    outputs.remove(output).ok_or_else(|| fail(&format!("output \"{output}\" is missing")))?;
                let value: DynTensor = value.downcast().map_err(|error| fail(&error))?;
                results.push(download(&value)?);
            }
        }
    }
    Ok(results)
}

fn failed(graph: &str, error: &dyn std::fmt::Display) -> EngineError {
    EngineError::Run { engine: NAME, graph: graph.into(), reason: error.to_string() }
}

/// Runs a binding of which every output has a buffer, without a value made for each of them.
fn run_bound(session: &mut Session, binding: &IoBinding, options: *const ort::sys::OrtRunOptions) -> ort::Result<()> {
    // SAFETY: all pointers are of live objects, the binding is one of this session, they are borrowed for the whole
    // run, and what is bound lives in the binding. ONNX Runtime takes no options as its defaults.
    unsafe {
        let status = (ort::api().RunWithBinding)(session.ptr_mut(), options, binding.ptr());
        ort::Error::result_from_status(status)
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine::evaluate;
    use super::*;
    use crate::graph::{Attributes, Builder, Fact};

    #[test]
    fn weights_beside_the_graph_compute_the_same() {
        let mut b = Builder::new("large");
        let mut y = b.input("x", Fact::fixed(DType::F32, &[2, 40]));
        for index in 0..2 {
            let weights = (0..1600).map(|element| ((element * 7 + index) % 13) as f32 / 13.0).collect();
            let w = b.initializer(&format!("w{index}"), Tensor::from_vec(&[40, 40], weights));
            y = b.op("MatMul", &[y, w], Attributes::none());
        }
        b.mark_output(y);
        let opsets = [(String::new(), 18)].into();
        let model = Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() };
        let x = Tensor::from_vec(&[2, 40], (0..80).map(|element| element as f32 / 80.0).collect::<Vec<_>>());
        let found = [LARGEST, 0].map(|largest| {
            let mut engine = super::super::testing::onnxruntime().with_largest(largest);
            evaluate(&mut engine, &model, &[("x", &x)]).unwrap()
        });
        assert!(found[0] == found[1]);
    }
}
