//! A device: its streams, memory and modules of kernels.

use super::arena::{Arena, Held, Segments};
use super::compile::Compiler;
use super::cudnn::{Cudnn, Search, Settings};
use super::gpu::{Convolution, Element, Gpu, Launch};
use cudarc::driver::{result, sys};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Most bytes of workspace of a convolution.
const WORKSPACE: usize = 1 << 30;

/// What a device has, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runner) struct Memory {
    /// Of this process: what lives from step to step.
    pub state: usize,
    /// Of this process: what sessions work in.
    pub work: Held,
    /// Free for anybody.
    pub free: usize,
    /// Of the device.
    pub total: usize,
}

/// An NVIDIA device, opened.
pub(in crate::runner) struct CudaDevice {
    index: u32,
    name: String,
    context: sys::CUcontext,
    /// On which everything is computed.
    stream: sys::CUstream,
    /// On which batches are copied ahead.
    copies: sys::CUstream,
    processors: u32,
    compiler: Compiler,
    modules: Mutex<HashMap<(&'static str, Element), sys::CUmodule>>,
    arena: Mutex<Arena<Direct>>,
    /// What was allocated beside the arena.
    direct: Mutex<HashMap<u64, usize>>,
    state: AtomicUsize,
    /// What a node holds of the arena.
    scratch: Mutex<Option<u64>>,
    cudnn: Mutex<HashMap<bool, Arc<Cudnn>>>,
    /// Whether products of float32 may round their factors to TensorFloat-32.
    tf32: AtomicBool,
    /// Bytes that were asked for last and not given; 0 where all was.
    refused: AtomicUsize,
}

// SAFETY: handles of the driver may be used from any thread whose current context is theirs, and `current` sees to that.
unsafe impl Send for CudaDevice {}
// SAFETY: see above.
unsafe impl Sync for CudaDevice {}

/// Segments straight from the driver.
struct Direct;

impl Segments for Direct {
    fn allocate(&mut self, bytes: usize) -> Option<u64> {
        // SAFETY: allocates only; the caller has made the device current.
        unsafe { result::malloc_sync(bytes) }.ok()
    }
}

/// Returns a failure of the driver as a text.
pub(super) fn said(what: &str) -> impl Fn(result::DriverError) -> String + '_ {
    move |error| {
        let name = error.error_name().map_or_else(|_| format!("{:?}", error.0), |name| name.to_string_lossy().into());
        let text = error.error_string().map(|text| format!(" ({})", text.to_string_lossy())).unwrap_or_default();
        format!("{what}: {name}{text}")
    }
}

impl CudaDevice {
    /// Opens a device. The driver must be there. Machine code of kernels is kept in the folder `cache`.
    ///
    /// # Errors
    /// There is no such device, or the driver fails.
    pub(in crate::runner) fn open(index: u32, cache: Option<PathBuf>) -> Result<CudaDevice, String> {
        // SAFETY: this only tries to load the driver.
        if !unsafe { sys::is_culib_present() } {
            return Err("NVIDIA's driver (libcuda) cannot be loaded".into());
        }
        result::init().map_err(said("cuInit"))?;
        let ordinal = i32::try_from(index).map_err(|_| format!("there is no device {index}"))?;
        let device = result::device::get(ordinal).map_err(said("cuDeviceGet"))?;
        let name = result::device::get_name(device).map_err(said("cuDeviceGetName"))?;
        use sys::CUdevice_attribute as Attribute;
        // SAFETY: the device is the one that the driver just gave.
        let attribute = |attribute| unsafe { result::device::get_attribute(device, attribute) };
        let number = |which| attribute(which).map_err(said("cuDeviceGetAttribute"));
        let major = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let processors = number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        // SAFETY: as above. The context is the primary one, which ONNX Runtime uses, too.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(said("cuDevicePrimaryCtxRetain"))?;
        // SAFETY: the context was just given.
        unsafe { result::ctx::set_current(context) }.map_err(said("cuCtxSetCurrent"))?;
        let stream = || result::stream::create(result::stream::StreamKind::NonBlocking).map_err(said("cuStreamCreate"));
        Ok(CudaDevice {
            index,
            name,
            context,
            stream: stream()?,
            copies: stream()?,
            processors: u32::try_from(processors).unwrap_or(1).max(1),
            compiler: Compiler::new((major, minor), cache),
            modules: Mutex::default(),
            arena: Mutex::new(Arena::new(Direct)),
            direct: Mutex::default(),
            state: AtomicUsize::new(0),
            scratch: Mutex::default(),
            cudnn: Mutex::default(),
            tf32: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
        })
    }

    /// Returns the device's number.
    pub(in crate::runner) fn index(&self) -> u32 {
        self.index
    }

    /// Returns the device's name.
    pub(in crate::runner) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the stream on which everything is computed, as a pointer.
    pub(in crate::runner) fn stream(&self) -> u64 {
        self.stream as u64
    }

    /// Makes the device the current one of this thread.
    pub(in crate::runner) fn current(&self) -> Result<(), String> {
        // SAFETY: the context is retained as long as the process lives.
        unsafe { result::ctx::set_current(self.context) }.map_err(said("cuCtxSetCurrent"))
    }

    /// Says whether products of float32 may round their factors to TensorFloat-32, from now on.
    pub(in crate::runner) fn allow_tf32(&self, allowed: bool) {
        self.tf32.store(allowed, Ordering::Relaxed);
    }

    fn cudnn(&self) -> Result<Arc<Cudnn>, String> {
        let tf32 = self.tf32.load(Ordering::Relaxed);
        let mut opened = self.cudnn.lock().map_err(|error| error.to_string())?;
        if let Some(cudnn) = opened.get(&tf32) {
            return Ok(Arc::clone(cudnn));
        }
        let settings = Settings { search: Search::Measured, tf32, deterministic: false, workspace: WORKSPACE };
        let cudnn = Arc::new(Cudnn::new(self.stream(), settings)?);
        opened.insert(tf32, Arc::clone(&cudnn));
        Ok(cudnn)
    }

    /// Returns new memory that lives from step to step.
    ///
    /// # Errors
    /// There is none.
    pub(in crate::runner) fn allocate(&self, bytes: usize) -> Result<u64, String> {
        self.current()?;
        // SAFETY: allocates only.
        let at = unsafe { result::malloc_sync(bytes.max(1)) }
            .map_err(|error| format!("CUDA out of memory: {}", said(&format!("{bytes} bytes"))(error)))?;
        self.state.fetch_add(bytes, Ordering::Relaxed);
        Ok(at)
    }

    /// Gives memory back that [`CudaDevice::allocate`] gave. Nothing that was asked for before may use it afterwards.
    pub(in crate::runner) fn free(&self, at: u64, bytes: usize) {
        if self.current().is_ok() && self.wait().is_ok() {
            // SAFETY: the memory is of this device, and nothing that runs uses it.
            let _ = unsafe { result::free_sync(at) };
            self.state.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Returns room for a session; one that is being made keeps its constants for as long as it lives, so what it takes
    /// then must not lie where captured graphs of others work.
    pub(in crate::runner) fn lend(&self, bytes: usize, making: bool) -> Option<u64> {
        self.current().ok()?;
        let lent = if making { self.lend_for_long(bytes) } else { self.arena.lock().ok()?.allocate(bytes) };
        if lent.is_none() {
            self.refused.store(bytes, Ordering::Relaxed);
        }
        lent
    }

    fn lend_for_long(&self, bytes: usize) -> Option<u64> {
        // SAFETY: allocates only.
        let at = unsafe { result::malloc_sync(bytes.max(1)) }.ok()?;
        self.direct.lock().ok()?.insert(at, bytes);
        self.state.fetch_add(bytes, Ordering::Relaxed);
        Some(at)
    }

    /// Returns the bytes that were asked for last and not given, once.
    pub(in crate::runner) fn refused(&self) -> Option<usize> {
        Some(self.refused.swap(0, Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// Takes room back that [`CudaDevice::lend`] gave.
    pub(in crate::runner) fn take_back(&self, at: u64) {
        if self.arena.lock().is_ok_and(|mut arena| arena.free(at)) {
            return;
        }
        let bytes = self.direct.lock().ok().and_then(|mut direct| direct.remove(&at));
        if let Some(bytes) = bytes {
            self.free(at, bytes);
        }
    }

    /// Returns what memory there is and is used.
    ///
    /// # Errors
    /// The driver fails.
    pub(in crate::runner) fn memory(&self) -> Result<Memory, String> {
        self.current()?;
        let (free, total) = result::mem_get_info().map_err(said("cuMemGetInfo"))?;
        let work = self.arena.lock().map(|arena| arena.held()).unwrap_or_default();
        Ok(Memory { state: self.state.load(Ordering::Relaxed), work, free, total })
    }

    /// Copies bytes to the device, before what is asked for next.
    ///
    /// # Errors
    /// The driver fails.
    pub(in crate::runner) fn upload(&self, bytes: &[u8], to: u64) -> Result<(), String> {
        self.current()?;
        // SAFETY: the destination has so many bytes, by the caller; the driver has read pageable memory when it returns.
        unsafe { result::memcpy_htod_async(to, bytes, self.stream) }.map_err(said("cuMemcpyHtoDAsync"))
    }

    /// Copies bytes from the device, after everything that was asked for.
    ///
    /// # Errors
    /// The driver fails, or something that was asked for did.
    pub(in crate::runner) fn download(&self, from: u64, bytes: &mut [u8]) -> Result<(), String> {
        self.current()?;
        // SAFETY: the source has so many bytes, by the caller; they are there after the wait.
        unsafe { result::memcpy_dtoh_async(bytes, from, self.stream) }.map_err(said("cuMemcpyDtoHAsync"))?;
        self.wait()
    }

    /// Waits until everything is done.
    ///
    /// # Errors
    /// Something that was asked for failed.
    pub(in crate::runner) fn wait(&self) -> Result<(), String> {
        // SAFETY: the stream lives as long as the device.
        unsafe { result::stream::synchronize(self.stream) }.map_err(said("the device"))
    }

    /// Returns the stream for copies that run beside what is computed.
    pub(super) fn copies(&self) -> sys::CUstream {
        self.copies
    }

    pub(super) fn compute_stream(&self) -> sys::CUstream {
        self.stream
    }

    /// Returns room of the arena.
    fn room(&self, bytes: usize) -> Result<u64, String> {
        self.lend(bytes, false).ok_or_else(|| format!("CUDA out of memory: {bytes} bytes of workspace"))
    }

    fn function(&self, launch: &Launch<'_>) -> Result<sys::CUfunction, String> {
        let mut modules = self.modules.lock().map_err(|error| error.to_string())?;
        let key = (launch.source.name, launch.element);
        let module = match modules.entry(key) {
            Entry::Occupied(loaded) => *loaded.get(),
            Entry::Vacant(place) => {
                let code = self.compiler.machine_code(launch.source, launch.element)?;
                // SAFETY: the code is a whole image for this device, which the driver copies.
                let module = unsafe { result::module::load_data(code.as_ptr().cast()) };
                *place.insert(module.map_err(said(&format!("{}.cu", launch.source.name)))?)
            }
        };
        let name = CString::new(launch.kernel).map_err(|error| error.to_string())?;
        // SAFETY: modules stay loaded as long as the device.
        unsafe { result::module::get_function(module, name) }.map_err(said(launch.kernel))
    }
}

impl Gpu for CudaDevice {
    fn processors(&self) -> u32 {
        self.processors
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), String> {
        let function = self.function(launch)?;
        let mut arguments = [launch.arguments.as_ptr().cast_mut().cast()];
        let (grid, block) = ((launch.grid[0], launch.grid[1], 1), (launch.block, 1, 1));
        // SAFETY: the kernel takes one struct, whose bytes these are by `Arguments`; the driver copies them.
        unsafe { result::launch_kernel(function, grid, block, 0, self.stream, &mut arguments) }
            .map_err(said(launch.kernel))
    }

    fn zero(&self, at: u64, bytes: usize) -> Result<(), String> {
        // SAFETY: so many bytes are there, by the caller.
        unsafe { result::memset_d8_async(at, 0, bytes, self.stream) }.map_err(said("cuMemsetD8Async"))
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), String> {
        // SAFETY: so many bytes are at both, by the caller.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) }.map_err(said("cuMemcpyDtoDAsync"))
    }

    fn scratch(&self, bytes: usize) -> Result<u64, String> {
        let mut scratch = self.scratch.lock().map_err(|error| error.to_string())?;
        if let Some(before) = scratch.take() {
            self.take_back(before);
        }
        let at = self.room(bytes)?;
        *scratch = Some(at);
        Ok(at)
    }

    fn convolve(&self, convolution: &Convolution, first: u64, second: u64, output: u64) -> Result<(), String> {
        let cudnn = self.cudnn()?;
        let mut lent: Option<u64> = None;
        let mut workspace = |bytes: usize| {
            if let Some(before) = lent.take() {
                self.take_back(before);
            }
            let at = self.room(bytes)?;
            lent = Some(at);
            Ok(at)
        };
        let result = cudnn.convolve(self, convolution, [first, second, output], &mut workspace);
        // What is asked for next comes after it on the stream.
        if let Some(at) = lent {
            self.take_back(at);
        }
        result
    }
}
