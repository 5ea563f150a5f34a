//! The device's memory as ONNX Runtime allocates it: all sessions of the process from one arena.

use super::buffer_error;
use crate::runner::cuda::device::CudaDevice;
use crate::runner::engine::EngineError;
use ort::AsPointer;
use ort::environment::Environment;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The device of the process: ONNX Runtime's allocation hooks carry no context.
static DEVICE: OnceLock<Arc<CudaDevice>> = OnceLock::new();

thread_local! {
    /// Whether this thread makes a session.
    static MAKING: Cell<bool> = const { Cell::new(false) };
}

/// Makes a device the one of the process.
///
/// # Errors
/// Another one is it.
pub(super) fn adopt(device: CudaDevice) -> Result<Arc<CudaDevice>, EngineError> {
    let index = device.index();
    let device = DEVICE.get_or_init(|| Arc::new(device));
    if device.index() != index {
        let what = format!("device cuda:{index}");
        let reason = format!("this process works on cuda:{}, and a process works on one device", device.index());
        return Err(buffer_error(what, reason));
    }
    Ok(Arc::clone(device))
}

/// Returns the device of the process, where it has one.
pub(super) fn adopted() -> Option<Arc<CudaDevice>> {
    DEVICE.get().cloned()
}

extern "system" fn allocate(_: *mut ort::sys::OrtAllocator, bytes: usize) -> *mut c_void {
    let lent = DEVICE.get().and_then(|device| device.lend(bytes, MAKING.get()));
    lent.map_or(std::ptr::null_mut(), |at| at as *mut c_void)
}

extern "system" fn reserve(_: *const ort::sys::OrtAllocator, bytes: usize) -> *mut c_void {
    let lent = DEVICE.get().and_then(|device| device.lend(bytes, true));
    lent.map_or(std::ptr::null_mut(), |at| at as *mut c_void)
}

extern "system" fn free(_: *mut ort::sys::OrtAllocator, at: *mut c_void) {
    if let Some(device) = DEVICE.get() {
        device.take_back(at as u64);
    }
}

/// What ONNX Runtime allocates on the device with.
#[repr(C)]
struct Lender {
    table: ort::sys::OrtAllocator,
    info: MemoryInfo<'static>,
}

extern "system" fn info(lender: *const ort::sys::OrtAllocator) -> *const ort::sys::OrtMemoryInfo {
    // SAFETY: the table is the first field of a `Lender`, which is never dropped.
    unsafe { (*lender.cast::<Lender>()).info.ptr() }
}

/// Makes the sessions of the process share the device's memory: each would have an arena of its own.
///
/// # Errors
/// ONNX Runtime refuses it.
pub(super) fn share_memory(environment: &Environment, device: &CudaDevice) -> ort::Result<()> {
    static SHARED: Mutex<bool> = Mutex::new(false);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if *shared {
        return Ok(());
    }
    let index = i32::try_from(device.index()).unwrap_or(0);
    let info_of = MemoryInfo::new(AllocationDevice::CUDA, index, AllocatorType::Device, MemoryType::Default)?;
    // SAFETY: the table is complete but for what is optional.
    let rest = unsafe { ort::sys::OrtAllocator::default() };
    let table = ort::sys::OrtAllocator {
        Alloc: Some(allocate),
        Free: Some(free),
        Info: Some(info),
        Reserve: Some(reserve),
        ..rest
    };
    let lender = Box::leak(Box::new(Lender { table, info: info_of }));
    // SAFETY: the environment lives, and the allocator as long as the process.
    unsafe {
        let status = (ort::api().RegisterAllocator)(environment.ptr().cast_mut(), &raw mut lender.table);
        ort::Error::result_from_status(status)?;
    }
    *shared = true;
    Ok(())
}

/// Held by whoever makes a session or captures a run: while a stream is captured, a call such as an allocation of any
/// thread would break the capture.
static GATE: Mutex<()> = Mutex::new(());

/// Keeps sessions from being made, as long as it lives.
pub(super) fn capturing() -> MutexGuard<'static, ()> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that this thread makes a session, as long as it lives; nothing is captured meanwhile.
pub(super) struct Making(#[allow(dead_code)] MutexGuard<'static, ()>);

impl Making {
    pub(super) fn begin() -> Making {
        let gate = capturing();
        MAKING.set(true);
        Making(gate)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        MAKING.set(false);
    }
}
