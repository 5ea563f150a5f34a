//! Bindings: where the inputs of a session come from and its outputs go, and its runs.

use super::device::{self, DeviceBuffer, Scalars};
use super::host::{download, dtype};
use super::lender::capturing;
use super::sessions::Prepared;
use super::{Buffer, NAME, OnnxRuntime};
use crate::graph::{DType, Tensor};
use crate::runner::engine::{BindingId, BufferId, EngineError, SessionId, Target};
use ort::AsPointer;
use ort::memory::MemoryInfo;
use ort::session::{IoBinding, RunOptions, Session};
use ort::value::{DynTensor, DynValue, ValueType};
use std::collections::HashSet;

pub(super) struct Bound {
    pub(super) session: usize,
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
    /// Where runs are captured: the graph.
    graph: Option<Captured>,
}

/// A run that is captured. Its number is no other binding's, also of none that is gone: a session keeps what it captured
/// under a number, with the addresses of then.
struct Captured {
    number: usize,
    done: bool,
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
    /// Fixes where the inputs of a session come from and its outputs go.
    pub(super) fn bound(
        &mut self,
        session: SessionId,
        inputs: &[(&str, BufferId)],
        outputs: &[(&str, Target)],
    ) -> Result<BindingId, EngineError> {
        let shape = |name: &str| {
            let (_, id) = inputs.iter().find(|(input, _)| *input == name)?;
            let (Buffer::Host(value) | Buffer::Device(DeviceBuffer { value, .. })) = self.buffers.get(id.0);
            Some(value.shape().iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect::<Vec<usize>>())
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
        let captures = room.is_some_and(|room| copies.sum::<usize>() <= room);
        let graph = captures.then(|| {
            self.captured += 1;
            Captured { number: self.captured, done: false }
        });
        let bound = Bound { session: session.0, member, binding, host, scalars, fixed, in_place, graph };
        Ok(BindingId(self.bindings.insert(bound)))
    }

    /// Runs a binding, and returns the outputs that go to the host.
    pub(super) fn run_bound(&mut self, binding: BindingId) -> Result<Vec<Tensor>, EngineError> {
        if self.sessions_of.device.is_some() {
            return self.run_on_device(binding);
        }
        let Bound { session, member, binding, host, fixed, .. } = self.bindings.get_mut(binding.0);
        let (name, Prepared { session, .. }) = self.sessions.get_mut(*session).named(*member);
        let fail = |error: &dyn std::fmt::Display| failed(name, error);
        if *fixed {
            run_fixed(session, binding, std::ptr::null()).map_err(|error| fail(&error))?;
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

    fn run_on_device(&mut self, id: BindingId) -> Result<Vec<Tensor>, EngineError> {
        let OnnxRuntime { sessions_of, sessions, bindings, buffers, ahead, cpu, .. } = self;
        let Some((gpu, _)) = &sessions_of.device else {
            unreachable!("invariant: only an engine on a device runs here");
        };
        let Bound { session, member, binding, host, scalars, fixed, in_place, graph } = bindings.get_mut(id.0);
        let (name, Prepared { session, .. }) = sessions.get_mut(*session).named(*member);
        let fail = |error: &dyn std::fmt::Display| failed(name, &device::with_refused(gpu, error));
        gpu.current().map_err(|error| fail(&error))?;
        let mut options = RunOptions::new().map_err(|error| fail(&error))?;
        let number = graph.as_ref().map_or_else(|| "-1".to_string(), |graph| graph.number.to_string());
        options.set("gpu_graph_id", number).map_err(|error| fail(&error))?;
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
        if let Some(graph) = graph.as_mut().filter(|graph| !graph.done) {
            // Capturing runs the graph three times: what it changes in place is put back, and the run that counts follows.
            let mut held = Vec::new();
            for id in in_place.iter() {
                if let Buffer::Device(buffer) = buffers.get(id.0) {
                    held.push((buffer, buffer.copied()?));
                }
            }
            let gate = capturing();
            let captured = run_fixed(session, binding, options.ptr());
            drop(gate);
            held.iter().try_for_each(|(buffer, held)| buffer.take(held))?;
            captured.map_err(|error| fail(&error))?;
            graph.done = true;
        }
        run_fixed(session, binding, options.ptr()).map_err(|error| fail(&error))?;
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
fn run_fixed(session: &mut Session, binding: &IoBinding, options: *const ort::sys::OrtRunOptions) -> ort::Result<()> {
    // SAFETY: all pointers are of live objects, the binding is one of this session, they are borrowed for the whole
    // run, and what is bound lives in the binding. ONNX Runtime takes no options as its defaults.
    unsafe {
        let status = (ort::api().RunWithBinding)(session.ptr_mut(), options, binding.ptr());
        ort::Error::result_from_status(status)
    }
}
