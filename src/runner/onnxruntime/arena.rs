//! What an arena of ONNX Runtime tells of itself.

use super::OnnxRuntime;
use crate::runner::engine::SessionId;
use ort::AsPointer;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use std::ffi::CStr;

/// The memory that a session takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arena {
    /// Given out now.
    pub in_use: u64,
    /// The most that was given out at a time.
    pub most: u64,
    /// Taken from the system.
    pub reserved: u64,
}

impl OnnxRuntime {
    /// Returns what a session takes of memory; `None` where its allocator does not tell.
    pub fn arena(&self, session: SessionId) -> Option<Arena> {
        let device = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default).ok()?;
        arena(&self.sessions.get(session.0).last()?.session, device)
    }
}

/// Returns what a session takes of the memory of a device.
pub(super) fn arena(session: &Session, device: MemoryInfo<'_>) -> Option<Arena> {
    let allocator = Allocator::new(session, device).ok()?;
    let api = ort::api();
    let mut pairs = std::ptr::null_mut();
    // SAFETY: the allocator lives, and `pairs` is a place for the list that is made and released below.
    let status = unsafe { (api.AllocatorGetStats)(allocator.ptr().cast_mut(), &mut pairs) };
    // SAFETY: the status is that of the call before, taken once.
    unsafe { ort::Error::result_from_status(status) }.ok()?;
    let value = |key: &CStr| -> Option<u64> {
        // SAFETY: the list lives until it is released below, and its texts with it.
        let text = unsafe { (api.GetKeyValue)(pairs, key.as_ptr()) };
        // SAFETY: a text that is there ends with a zero and lives as long as the list.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_str().ok()?.parse().ok())?
    };
    let found = (value(c"InUse"), value(c"MaxInUse"), value(c"TotalAllocated"));
    // SAFETY: the list is ours, and nothing of it is used any more.
    unsafe { (api.ReleaseKeyValuePairs)(pairs) };
    let (Some(in_use), Some(most), Some(reserved)) = found else { return None };
    Some(Arena { in_use, most, reserved })
}
