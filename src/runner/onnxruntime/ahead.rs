//! Batches that go to the device while it works on the one before.

use super::buffer_error;
use super::device::DeviceBuffer;
use crate::graph::Tensor;
use crate::runner::cuda::device::CudaDevice;
use crate::runner::cuda::staging::Stage;
use crate::runner::engine::{BufferId, EngineError};
use std::collections::HashMap;
use std::sync::Arc;

/// What the engine was told to copy ahead, and what it has begun to.
#[derive(Default)]
pub(super) struct Ahead {
    told: Vec<(BufferId, Tensor)>,
    stages: HashMap<BufferId, (Stage, Option<Tensor>)>,
}

/// Bytes from which on a tensor goes through pinned memory.
const LARGE: usize = 1 << 16;

impl Ahead {
    /// Notes what will be written next.
    pub(super) fn tell(&mut self, batch: Vec<(BufferId, Tensor)>) {
        self.told = batch;
        self.told.retain(|(_, tensor)| tensor.bytes().len() >= LARGE);
    }

    /// Begins to copy it.
    ///
    /// # Errors
    /// The device fails.
    pub(super) fn begin(&mut self, device: &Arc<CudaDevice>) -> Result<(), EngineError> {
        let fail = |reason: String| buffer_error("batches".into(), reason);
        for (buffer, tensor) in self.told.drain(..) {
            let bytes = tensor.bytes().len();
            if self.stages.get(&buffer).is_none_or(|(stage, _)| stage.bytes() != bytes) {
                self.stages.insert(buffer, (Stage::new(device, bytes).map_err(fail)?, None));
            }
            if let Some((stage, staged)) = self.stages.get_mut(&buffer) {
                stage.begin(tensor.bytes()).map_err(fail)?;
                *staged = Some(tensor);
            }
        }
        Ok(())
    }

    /// Writes a tensor that has been copied ahead; returns false where it has not.
    ///
    /// # Errors
    /// The device fails.
    pub(super) fn end(&mut self, id: BufferId, buffer: &DeviceBuffer, tensor: &Tensor) -> Result<bool, EngineError> {
        let Some((stage, staged)) = self.stages.get_mut(&id) else { return Ok(false) };
        let same = |staged: &Tensor| {
            let (staged, bytes) = (staged.bytes(), tensor.bytes());
            staged.as_ptr() == bytes.as_ptr() && staged.len() == bytes.len()
        };
        if !staged.take().is_some_and(|staged| same(&staged)) || buffer.bytes() != stage.bytes() {
            return Ok(false);
        }
        stage.end(buffer.at).map_err(|reason| buffer_error(buffer.what(), reason))?;
        Ok(true)
    }

    /// Forgets a buffer.
    pub(super) fn forget(&mut self, id: BufferId) {
        self.stages.remove(&id);
    }
}
