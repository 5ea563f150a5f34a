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
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::operator::OperatorDomain;
use ort::value::DynTensor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod ahead;
mod arena;
mod bound;
mod device;
mod family;
mod host;
mod lender;
mod library;
mod operators;
mod profile;
mod sessions;
mod telemetry;

pub use arena::Arena;
#[cfg(test)]
pub(super) use operators::names as operator_names;
pub use telemetry::disable_telemetry;
pub(crate) use telemetry::is_undecided as telemetry_is_undecided;

pub(super) use library::{VersionError, library_version};

use ahead::Ahead;
use bound::Bound;
use device::{CudaSettings, DeviceBuffer};
use family::Family;
use host::{download, dtype, element_type, size, upload, view};
use library::{Environments, environment};
use sessions::{Operators, Source};

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
    /// How many bindings' runs are or were captured.
    captured: usize,
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
        let gpu = match lender::adopted() {
            Some(gpu) if gpu.index() == index => gpu,
            _ => {
                let opened = CudaDevice::open(index, cuda.cache.clone());
                lender::adopt(opened.map_err(|reason| device::refused(reason, library))?)?
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
            let shared = lender::share_memory(environment, gpu);
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
            fixes_sizes: device.is_some(),
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
            captured: 0,
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

    /// Returns this engine, which makes a session for each set of sizes as one on a device does.
    pub(super) fn fixing_sizes(self) -> OnnxRuntime {
        OnnxRuntime { sessions_of: Source { fixes_sizes: true, ..self.sessions_of }, ..self }
    }

    /// Returns this engine with another limit of weights inside an encoded graph.
    fn with_largest(self, largest: usize) -> OnnxRuntime {
        OnnxRuntime { sessions_of: Source { largest, ..self.sessions_of }, ..self }
    }
}

fn buffer_error(what: String, reason: impl ToString) -> EngineError {
    EngineError::Buffer { engine: NAME, what, reason: reason.to_string() }
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
        let on_device = self.sessions_of.target == native::Target::Device;
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
        self.bound(session, inputs, outputs)
    }

    fn unbind(&mut self, binding: BindingId) {
        self.bindings.remove(binding.0);
    }

    fn run(&mut self, binding: BindingId) -> Result<Vec<Tensor>, EngineError> {
        self.run_bound(binding)
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
