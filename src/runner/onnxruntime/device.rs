//! What lies on a device: buffers as values of ONNX Runtime, sessions of the CUDA execution provider, captured graphs.

use super::{NAME, buffer_error, element_type};
use crate::graph::{DType, Model, Tensor};
use crate::runner::cuda::device::CudaDevice;
use crate::runner::cuda::gpu::Gpu;
use crate::runner::engine::{EngineError, OnProcessor};
use crate::runner::placement::on_host;
use ort::AsPointer;
use ort::ep::{ArbitrarilyConfigurableExecutionProvider, CUDA};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{DynTensor, DynValue};
use std::collections::HashSet;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

/// How sessions on a device compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CudaSettings {
    /// Whether products of float32 may round their factors to TensorFloat-32.
    pub tf32: bool,
    /// Whether runs of fixed shapes are captured and replayed.
    pub graphs: bool,
}

/// Puts a session on a device.
///
/// # Errors
/// ONNX Runtime has no CUDA execution provider, or it cannot be used.
pub(super) fn on(
    session: SessionBuilder,
    device: &CudaDevice,
    settings: CudaSettings,
    graph: bool,
) -> Result<SessionBuilder, String> {
    let index = i32::try_from(device.index()).map_err(|error| error.to_string())?;
    let provider = CUDA::default()
        .with_device_id(index)
        .with_tf32(settings.tf32)
        .with_cuda_graph(graph)
        .with_arbitrary_config("has_user_compute_stream", 1)
        .with_arbitrary_config("user_compute_stream", device.stream());
    let provider = provider.build().error_on_failure();
    let session = session.with_execution_providers([provider]).map_err(|error| error.to_string())?;
    let session = session.with_env_allocators().map_err(|error| error.to_string())?;
    session.with_config_entry("session.record_ep_graph_assignment_info", "1").map_err(|error| error.to_string())
}

/// Returns whether runs of a graph can be captured: it has no control flow.
pub(super) fn can_be_captured(model: &Model) -> bool {
    let branches = ["If", "Loop", "Scan", "SequenceMap"];
    !model.graph.nodes().iter().any(|node| branches.iter().any(|name| node.op.is(name)))
}

/// A buffer on a device.
pub(super) struct DeviceBuffer {
    pub(super) value: DynTensor,
    pub(super) at: u64,
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    device: Arc<CudaDevice>,
    /// Whether the memory is the buffer's own.
    owned: bool,
}

impl DeviceBuffer {
    /// Returns a buffer whose elements are not set.
    ///
    /// # Errors
    /// There is no memory, or no such dtype.
    pub(super) fn new(device: &Arc<CudaDevice>, dtype: DType, shape: &[usize]) -> Result<DeviceBuffer, EngineError> {
        let bytes = shape.iter().product::<usize>() * dtype.size();
        let what = || format!("{dtype}{shape:?} on {}", device.name());
        let at = device.allocate(bytes).map_err(|reason| buffer_error(what(), reason))?;
        DeviceBuffer::at(device, dtype, shape, at, true)
    }

    /// Returns a buffer of memory that is there.
    ///
    /// # Errors
    /// There is no such dtype.
    pub(super) fn at(
        device: &Arc<CudaDevice>,
        dtype: DType,
        shape: &[usize],
        at: u64,
        owned: bool,
    ) -> Result<DeviceBuffer, EngineError> {
        let what = || format!("{dtype}{shape:?} on {}", device.name());
        let element = element_type(dtype).ok_or_else(|| buffer_error(what(), "no such dtype"))?;
        let index = i32::try_from(device.index()).unwrap_or(0);
        let info = MemoryInfo::new(AllocationDevice::CUDA, index, AllocatorType::Device, MemoryType::Default)
            .map_err(|error| buffer_error(what(), error))?;
        let sizes: Vec<i64> = shape.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect();
        let bytes = shape.iter().product::<usize>() * dtype.size();
        let mut value = std::ptr::null_mut();
        // SAFETY: the memory has so many bytes and lives as long as this buffer, which releases the value first.
        let status = unsafe {
            let (data, element) = (at as *mut c_void, element.into());
            let make = ort::api().CreateTensorWithDataAsOrtValue;
            let status = make(info.ptr(), data, bytes, sizes.as_ptr(), sizes.len(), element, &mut value);
            ort::Error::result_from_status(status)
        };
        status.map_err(|error| buffer_error(what(), error))?;
        let value = NonNull::new(value).ok_or_else(|| buffer_error(what(), "ONNX Runtime gave no value"))?;
        // SAFETY: the value is a tensor that was just made, and nothing else releases it. Its memory is not the
        // allocator's, which only says that the value is no view of borrowed memory.
        let value = unsafe { DynValue::from_ptr(value, Some(&Allocator::default())) };
        let value = value.downcast().map_err(|error| buffer_error(what(), error))?;
        Ok(DeviceBuffer { value, at, dtype, shape: shape.to_vec(), device: Arc::clone(device), owned })
    }

    /// Returns its size in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }

    pub(super) fn what(&self) -> String {
        format!("{}{:?} on {}", self.dtype, self.shape, self.device.name())
    }

    /// Returns a copy of its elements.
    ///
    /// # Errors
    /// The device fails.
    pub(super) fn read(&self) -> Result<Tensor, EngineError> {
        let mut data = vec![0; self.bytes()];
        if !data.is_empty() {
            self.device.download(self.at, &mut data).map_err(|reason| buffer_error(self.what(), reason))?;
        }
        Tensor::new(self.dtype, self.shape.clone(), data.into()).map_err(|error| buffer_error(self.what(), error))
    }

    /// Returns a buffer that holds the same.
    ///
    /// # Errors
    /// There is no memory, or the device fails.
    pub(super) fn copied(&self) -> Result<DeviceBuffer, EngineError> {
        let copy = DeviceBuffer::new(&self.device, self.dtype, &self.shape)?;
        copy.take(self)?;
        Ok(copy)
    }

    /// Copies the elements of a buffer of the same dtype and shape.
    ///
    /// # Errors
    /// The device fails.
    pub(super) fn take(&self, other: &DeviceBuffer) -> Result<(), EngineError> {
        let copied = self.device.copy(other.at, self.at, self.bytes().min(other.bytes()));
        copied.map_err(|reason| buffer_error(self.what(), reason))
    }

    /// Replaces its elements.
    ///
    /// # Errors
    /// Dtype or shape differ, or the device fails.
    pub(super) fn write(&mut self, tensor: &Tensor) -> Result<(), EngineError> {
        if tensor.dtype() != self.dtype || tensor.shape() != self.shape {
            let reason = format!("cannot take {}{:?}", tensor.dtype(), tensor.shape());
            return Err(buffer_error(self.what(), reason));
        }
        if tensor.is_empty() {
            return Ok(());
        }
        self.device.upload(tensor.bytes(), self.at).map_err(|reason| buffer_error(self.what(), reason))
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if self.owned {
            self.device.free(self.at, self.bytes());
        }
    }
}

/// Scalars that a binding gives to the caller, in one block so that one copy brings them all.
pub(super) struct Scalars {
    device: Arc<CudaDevice>,
    at: u64,
    bytes: usize,
    pub(super) buffers: Vec<DeviceBuffer>,
}

/// Bytes from one scalar of a block to the next.
const APART: usize = 16;

impl Scalars {
    /// Returns room for scalars of these types.
    ///
    /// # Errors
    /// There is no memory.
    pub(super) fn new(device: &Arc<CudaDevice>, dtypes: &[DType]) -> Result<Scalars, EngineError> {
        let bytes = dtypes.len() * APART;
        let at = device.allocate(bytes).map_err(|reason| buffer_error("scalars".into(), reason))?;
        let mut scalars = Scalars { device: Arc::clone(device), at, bytes, buffers: Vec::new() };
        for (place, dtype) in dtypes.iter().enumerate() {
            let buffer = DeviceBuffer::at(device, *dtype, &[], at + (place * APART) as u64, false)?;
            scalars.buffers.push(buffer);
        }
        Ok(scalars)
    }

    /// Returns the scalars after everything that was asked for.
    ///
    /// # Errors
    /// The device fails.
    pub(super) fn read(&self) -> Result<Vec<Tensor>, EngineError> {
        let fail = |reason: String| buffer_error("scalars".into(), reason);
        let mut data = vec![0_u8; self.bytes];
        if !self.buffers.is_empty() {
            self.device.download(self.at, &mut data).map_err(fail)?;
        }
        let parts = self.buffers.iter().zip(data.chunks(APART));
        let scalar = |(buffer, bytes): (&DeviceBuffer, &[u8])| {
            let bytes = bytes.iter().take(buffer.dtype.size()).copied().collect::<Vec<u8>>();
            Tensor::new(buffer.dtype, Vec::new(), bytes.into()).map_err(|error| fail(error.to_string()))
        };
        parts.map(scalar).collect()
    }
}

impl Drop for Scalars {
    fn drop(&mut self) {
        self.buffers.clear();
        self.device.free(self.at, self.bytes);
    }
}

/// Returns the nodes of a graph that are not on the device, but for those that compute with shapes: ONNX Runtime does that
/// on the processor on purpose. `own` names our operators on the device.
///
/// # Errors
/// ONNX Runtime has not recorded it.
pub(super) fn on_processor(session: &Session, model: &Model, own: &[&str]) -> ort::Result<Vec<OnProcessor>> {
    let host: HashSet<String> = on_host(model, own).into_iter().collect();
    // What has no name of the graph, ONNX Runtime has made.
    let known: HashSet<&str> = model.graph.nodes().iter().map(|node| node.name.as_str()).collect();
    let api = ort::api();
    let mut found = Vec::new();
    // SAFETY: the session lives; arrays and strings that it gives live as long as it does and have the lengths it tells.
    unsafe {
        let text = |pointer: *const std::ffi::c_char| std::ffi::CStr::from_ptr(pointer).to_string_lossy().into_owned();
        let (mut parts, mut count) = (std::ptr::null(), 0);
        let status = (api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &mut parts, &mut count);
        ort::Error::result_from_status(status)?;
        for part in 0..count {
            let part = *parts.add(part);
            let mut name = std::ptr::null();
            ort::Error::result_from_status((api.EpAssignedSubgraph_GetEpName)(part, &mut name))?;
            if text(name) != "CPUExecutionProvider" {
                continue;
            }
            let (mut nodes, mut count) = (std::ptr::null(), 0);
            ort::Error::result_from_status((api.EpAssignedSubgraph_GetNodes)(part, &mut nodes, &mut count))?;
            for node in 0..count {
                let node = *nodes.add(node);
                let (mut name, mut operator) = (std::ptr::null(), std::ptr::null());
                ort::Error::result_from_status((api.EpAssignedNode_GetName)(node, &mut name))?;
                ort::Error::result_from_status((api.EpAssignedNode_GetOperatorType)(node, &mut operator))?;
                found.push(OnProcessor { node: text(name), operator: text(operator) });
            }
        }
    }
    found.retain(|found| known.contains(found.node.as_str()) && !host.contains(&found.node));
    Ok(found)
}

/// Returns what ONNX Runtime says of a failure, with the memory that the device did not give where that is why.
pub(super) fn with_refused(device: &CudaDevice, error: &dyn std::fmt::Display) -> String {
    match device.refused() {
        Some(bytes) => format!("CUDA out of memory: requested buffer of size {bytes}: {error}"),
        None => error.to_string(),
    }
}

/// Returns the engine's error of something that a device refuses.
pub(super) fn refused(reason: String, library: &std::path::Path) -> EngineError {
    EngineError::Library { engine: NAME, library: library.display().to_string(), reason }
}
