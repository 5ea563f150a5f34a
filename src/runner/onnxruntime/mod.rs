//! The ONNX Runtime engine: sessions, and state in ONNX Runtime's own buffers.
//!
//! A buffer is one `OrtValue`, bound as input and output by reference, so a step moves no state.

use super::engine::{
    BindingId, BufferId, Engine, EngineError, EngineInfo, Loaded, Loader, NodeTime, SessionId, Slab, Target, is_finite,
};
use super::precision::{Settings, Summary};
use crate::autodiff::Form;
use crate::graph::{DType, Model, Tensor};
use crate::onnx::LARGEST;
use bytes::Bytes;
use ort::AsPointer;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session};
use ort::value::{DynTensor, DynValue, TensorElementType, ValueType};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

mod library;
mod operators;
mod profile;
mod sessions;

#[cfg(test)]
pub(super) use operators::names as operator_names;

pub(super) use library::{VersionError, library_version};

use library::{Environments, environment};
use sessions::{Operators, Prepared, Source};

const NAME: &str = "onnxruntime";

/// Executes graphs with an ONNX Runtime library found at run time.
pub struct OnnxRuntime {
    info: EngineInfo,
    sessions_of: Source,
    allocator: Allocator,
    /// Where outputs are made whose sizes are not known.
    cpu: MemoryInfo<'static>,
    sessions: Slab<Prepared>,
    buffers: Slab<DynTensor>,
    bindings: Slab<Bound>,
}

struct Bound {
    session: usize,
    binding: IoBinding,
    host: Vec<HostOutput>,
    /// Whether every output has a buffer.
    fixed: bool,
}

/// An output that goes to the caller.
enum HostOutput {
    /// A scalar, with the buffer it is written to.
    Scalar(DynTensor),
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
        let version = library_version(library).map_err(|error| EngineError::Library {
            engine: NAME,
            library: library.display().to_string(),
            reason: match error {
                VersionError::Load(reason) => reason,
                VersionError::NotOnnxRuntime => "it is no ONNX Runtime library".into(),
            },
        })?;
        let Environments { library, environment, threads: shared } = environment(library, threads)?;
        let operators = operators::domain(threads).map_err(|error| EngineError::Library {
            engine: NAME,
            library: library.display().to_string(),
            reason: error.to_string(),
        })?;
        #[allow(clippy::arc_with_non_send_sync)]
        let operators = Operators(Arc::new(operators));
        let cpu = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)
            .map_err(|error| buffer_error("outputs".into(), error))?;
        let sessions_of = Source {
            environment,
            operators,
            threads,
            shared: threads == shared,
            largest: LARGEST,
            precision: None,
            notes: false,
        };
        sessions_of.first()?;
        Ok(OnnxRuntime {
            info: EngineInfo {
                name: NAME.into(),
                version,
                library: library.display().to_string(),
                device: "cpu".into(),
                threads,
                recomputes: true,
                form: Form::Native,
            },
            sessions_of,
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
        let session = self.sessions_of.session(model)?;
        Ok(SessionId(self.sessions.insert(session)))
    }

    fn compute_in(&mut self, settings: Option<&Settings>) -> Result<(), EngineError> {
        let cpu = self.info.device == "cpu";
        if let Some(settings) = settings.filter(|settings| cpu && !settings.simulated) {
            return Err(EngineError::no_precision(&self.info, settings));
        }
        self.sessions_of.precision = settings.cloned();
        Ok(())
    }

    fn computes(&self, session: SessionId) -> Option<&Summary> {
        self.sessions.get(session.0).computes.as_ref()
    }

    fn loader(&self) -> Option<Box<dyn Loader>> {
        Some(Box::new(self.sessions_of.clone()))
    }

    fn adopt(&mut self, loaded: Loaded) -> SessionId {
        let session = loaded.0.downcast().expect("invariant: a session comes from a loader of this engine");
        SessionId(self.sessions.insert(*session))
    }

    fn unload(&mut self, session: SessionId) {
        self.bindings.retain(|bound| bound.session != session.0);
        self.sessions.remove(session.0);
    }

    fn allocate(&mut self, tensor: &Tensor) -> Result<BufferId, EngineError> {
        let what = || format!("{}{:?}", tensor.dtype(), tensor.shape());
        let element = element_type(tensor.dtype()).ok_or_else(|| buffer_error(what(), "no such dtype"))?;
        let value = DynTensor::new(&self.allocator, element, tensor.shape().to_vec())
            .map_err(|error| buffer_error(what(), error))?;
        let id = BufferId(self.buffers.insert(value));
        self.write(id, tensor)?;
        Ok(id)
    }

    fn write(&mut self, buffer: BufferId, tensor: &Tensor) -> Result<(), EngineError> {
        let value = self.buffers.get_mut(buffer.0);
        let shape: Vec<usize> = value.shape().iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).collect();
        if dtype(*value.data_type()) != Some(tensor.dtype()) || shape != tensor.shape() {
            let what = format!("{:?}{shape:?}", value.data_type());
            return Err(buffer_error(what, format!("cannot take {}{:?}", tensor.dtype(), tensor.shape())));
        }
        let bytes = tensor.bytes();
        if !bytes.is_empty() {
            // SAFETY: the buffer has exactly the tensor's dtype and shape, lies in CPU memory,
            // and `&mut self` keeps a run from using it meanwhile.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.data_ptr_mut().cast::<u8>(), bytes.len());
            }
        }
        Ok(())
    }

    fn read(&self, buffer: BufferId) -> Result<Tensor, EngineError> {
        download(self.buffers.get(buffer.0))
    }

    fn is_finite(&self, buffer: BufferId) -> Result<bool, EngineError> {
        let value = self.buffers.get(buffer.0);
        let known = dtype(*value.data_type());
        Ok(known.is_none_or(|dtype| is_finite(dtype, view(value, dtype))))
    }

    fn bytes(&self, buffer: BufferId) -> Option<&[u8]> {
        let value = self.buffers.get(buffer.0);
        let size = size(value)?;
        // SAFETY: the value is a CPU tensor of `size` bytes, which lives as long as `self` is borrowed.
        (cfg!(target_endian = "little"))
            .then(|| unsafe { std::slice::from_raw_parts(value.data_ptr().cast::<u8>(), size) })
    }

    fn bytes_mut(&mut self, buffer: BufferId) -> Option<&mut [u8]> {
        let value = self.buffers.get_mut(buffer.0);
        let size = size(value)?;
        // SAFETY: as above; `&mut self` keeps a run and other readers away, and every bit pattern that is written back is
        // one that a tensor of this dtype had.
        (cfg!(target_endian = "little"))
            .then(|| unsafe { std::slice::from_raw_parts_mut(value.data_ptr_mut().cast::<u8>(), size) })
    }

    fn free(&mut self, buffer: BufferId) {
        self.buffers.remove(buffer.0);
    }

    fn bind(
        &mut self,
        session: SessionId,
        inputs: &[(&str, BufferId)],
        outputs: &[(&str, Target)],
    ) -> Result<BindingId, EngineError> {
        let loaded = self.sessions.get(session.0);
        let fail = |error: &dyn std::fmt::Display| EngineError::Run {
            engine: NAME,
            graph: loaded.name.clone(),
            reason: error.to_string(),
        };
        let wanted: HashSet<&str> = loaded.session.inputs().iter().map(|input| input.name()).collect();
        let mut binding = loaded.session.create_binding().map_err(|error| fail(&error))?;
        for (name, buffer) in inputs.iter().filter(|(name, _)| wanted.contains(name)) {
            binding.bind_input(*name, self.buffers.get(buffer.0)).map_err(|error| fail(&error))?;
        }
        let scalar = |name: &str| {
            // A shape that ONNX Runtime does not know looks like that of a scalar there.
            let scalar = loaded.scalars.contains(name);
            let output = loaded.session.outputs().iter().find(|output| scalar && output.name() == name)?;
            match output.dtype() {
                ValueType::Tensor { ty, .. } => DynTensor::new(&self.allocator, *ty, Vec::<usize>::new()).ok(),
                _ => None,
            }
        };
        let mut host = Vec::new();
        for (name, target) in outputs {
            match target {
                Target::Buffer(id) => {
                    binding.bind_output(*name, self.buffers.get_mut(id.0)).map_err(|error| fail(&error))?;
                }
                Target::Host => match scalar(name) {
                    Some(mut buffer) => {
                        binding.bind_output(*name, &mut buffer).map_err(|error| fail(&error))?;
                        host.push(HostOutput::Scalar(buffer));
                    }
                    None => host.push(HostOutput::Made((*name).to_string())),
                },
            }
        }
        let fixed = host.iter().all(|output| matches!(output, HostOutput::Scalar(_)));
        Ok(BindingId(self.bindings.insert(Bound { session: session.0, binding, host, fixed })))
    }

    fn unbind(&mut self, binding: BindingId) {
        self.bindings.remove(binding.0);
    }

    fn run(&mut self, binding: BindingId) -> Result<Vec<Tensor>, EngineError> {
        let Bound { session, binding, host, fixed } = self.bindings.get_mut(binding.0);
        let Prepared { session, name, .. } = self.sessions.get_mut(*session);
        let fail = |error: &dyn std::fmt::Display| EngineError::Run {
            engine: NAME,
            graph: name.clone(),
            reason: error.to_string(),
        };
        if *fixed {
            run_bound(session, binding).map_err(|error| fail(&error))?;
            let scalar = |output: &HostOutput| match output {
                HostOutput::Scalar(buffer) => download(buffer),
                HostOutput::Made(name) => Err(fail(&format!("output \"{name}\" has no buffer"))),
            };
            return host.iter().map(scalar).collect();
        }
        for output in host.iter() {
            if let HostOutput::Made(output) = output {
                // Else it would be written to where it was in the run before.
                binding.bind_output_to_device(output, &self.cpu).map_err(|error| fail(&error))?;
            }
        }
        let mut outputs = session.run_binding(binding).map_err(|error| fail(&error))?;
        let mut results = Vec::with_capacity(host.len());
        for output in host.iter() {
            results.push(match output {
                HostOutput::Scalar(buffer) => download(buffer)?,
                HostOutput::Made(output) => {
                    let value: DynValue =
                        outputs.remove(output).ok_or_else(|| fail(&format!("output \"{output}\" is missing")))?;
                    let value: DynTensor = value.downcast().map_err(|error| fail(&error))?;
                    download(&value)?
                }
            });
        }
        Ok(results)
    }

    fn note_nodes(&mut self, on: bool) -> bool {
        self.sessions_of.notes = on;
        true
    }

    fn node_times(&mut self, session: SessionId) -> Result<Vec<NodeTime>, EngineError> {
        let loaded = self.sessions.get_mut(session.0);
        if loaded.profile.is_none() {
            return Ok(Vec::new());
        }
        let path = loaded.session.end_profiling().map_err(|error| error.to_string());
        path.and_then(|path| profile::read(Path::new(&path)).map_err(|error| error.to_string())).map_err(|reason| {
            EngineError::Run { engine: NAME, graph: loaded.name.clone(), reason: format!("its profile: {reason}") }
        })
    }
}

/// Runs a binding of which every output has a buffer, without a value made for each of them.
fn run_bound(session: &mut Session, binding: &IoBinding) -> ort::Result<()> {
    // SAFETY: both pointers are of live objects, the binding is one of this session, both are borrowed for the whole
    // run, and what is bound lives in the binding. ONNX Runtime takes no options as its defaults.
    unsafe {
        let status = (ort::api().RunWithBinding)(session.ptr_mut(), std::ptr::null(), binding.ptr());
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
