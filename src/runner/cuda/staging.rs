//! Batches that are copied to a device while it works on the one before.
//!
//! A tensor goes to pinned memory and from there, on a stream of its own, to memory on the device that nothing else uses;
//! when its turn comes, a copy within the device puts it where the graph reads it.

use super::device::{CudaDevice, said};
use cudarc::driver::{result, sys};
use std::sync::Arc;

/// A place through which tensors of one size go.
pub(in crate::runner) struct Stage {
    device: Arc<CudaDevice>,
    bytes: usize,
    pinned: *mut u8,
    shadow: u64,
    /// When the shadow holds what was copied.
    arrived: sys::CUevent,
    /// When the shadow may be overwritten.
    read: sys::CUevent,
}

impl Stage {
    /// Returns a place for tensors of so many bytes.
    ///
    /// # Errors
    /// There is no memory.
    pub(in crate::runner) fn new(device: &Arc<CudaDevice>, bytes: usize) -> Result<Stage, String> {
        device.current()?;
        let event =
            || result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).map_err(said("cuEventCreate"));
        let (arrived, read, shadow) = (event()?, event()?, device.allocate(bytes)?);
        // SAFETY: allocates only.
        let pinned = unsafe { result::malloc_host(bytes.max(1), 0) }.map_err(said("cuMemHostAlloc"))?;
        Ok(Stage { device: Arc::clone(device), bytes, pinned: pinned.cast(), shadow, arrived, read })
    }

    /// Returns the bytes of a tensor that goes through here.
    pub(in crate::runner) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Begins to copy a tensor.
    ///
    /// # Errors
    /// The driver fails.
    pub(in crate::runner) fn begin(&self, data: &[u8]) -> Result<(), String> {
        assert_eq!(data.len(), self.bytes, "bytes of a tensor that goes through a stage");
        self.device.current()?;
        let copies = self.device.copies();
        // SAFETY: the events and streams live; the pinned memory has `bytes` bytes and is written only when the copy
        // before has left it; the shadow has as many, and its last reader is waited for.
        unsafe {
            result::event::synchronize(self.arrived).map_err(said("cuEventSynchronize"))?;
            std::ptr::copy_nonoverlapping(data.as_ptr(), self.pinned, self.bytes);
            let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
            result::stream::wait_event(copies, self.read, flags).map_err(said("cuStreamWaitEvent"))?;
            let pinned = std::slice::from_raw_parts(self.pinned, self.bytes);
            result::memcpy_htod_async(self.shadow, pinned, copies).map_err(said("cuMemcpyHtoDAsync"))?;
            result::event::record(self.arrived, copies).map_err(said("cuEventRecord"))
        }
    }

    /// Puts the tensor that was copied last where it is read, before what is asked for next.
    ///
    /// # Errors
    /// The driver fails.
    pub(in crate::runner) fn end(&self, to: u64) -> Result<(), String> {
        self.device.current()?;
        let stream = self.device.compute_stream();
        // SAFETY: the events and the stream live; both memories have `bytes` bytes.
        unsafe {
            let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
            result::stream::wait_event(stream, self.arrived, flags).map_err(said("cuStreamWaitEvent"))?;
            result::memcpy_dtod_async(to, self.shadow, self.bytes, stream).map_err(said("cuMemcpyDtoDAsync"))?;
            result::event::record(self.read, stream).map_err(said("cuEventRecord"))
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.device.current().is_err() {
            return;
        }
        // SAFETY: nothing is copied any more once both events are done; each handle is destroyed once.
        unsafe {
            let _ = result::event::synchronize(self.arrived);
            let _ = result::free_host(self.pinned.cast());
            self.device.free(self.shadow, self.bytes);
            let _ = result::event::destroy(self.arrived);
            let _ = result::event::destroy(self.read);
        }
    }
}
