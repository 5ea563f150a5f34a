//! An engine that does as another one does, but for what a test has it do otherwise.

use freeze_plan::graph::{DType, Model, Tensor};
use freeze_plan::runner::precision::{Settings, Summary};
use freeze_plan::runner::{
    BindingId, BufferId, DeviceMemory, Engine, EngineError, EngineInfo, Loaded, Loader, NodeTime, OnProcessor,
    SessionId, Target,
};
use std::ops::{Deref, DerefMut};

/// What a [`Delegate`] does otherwise.
pub trait Hooks {
    fn inner(&self) -> &dyn Engine;

    fn inner_mut(&mut self) -> &mut dyn Engine;

    fn loader(&self) -> Option<Box<dyn Loader>> {
        self.inner().loader()
    }

    fn adopt(&mut self, loaded: Loaded) -> SessionId {
        self.inner_mut().adopt(loaded)
    }

    fn load(&mut self, model: &Model) -> Result<SessionId, EngineError> {
        self.inner_mut().load(model)
    }

    fn unload(&mut self, session: SessionId) {
        self.inner_mut().unload(session);
    }

    fn allocate(&mut self, tensor: &Tensor) -> Result<BufferId, EngineError> {
        self.inner_mut().allocate(tensor)
    }

    fn reserve(&mut self, dtype: DType, shape: &[usize]) -> Result<BufferId, EngineError> {
        self.inner_mut().reserve(dtype, shape)
    }

    fn run(&mut self, binding: BindingId) -> Result<Vec<Tensor>, EngineError> {
        self.inner_mut().run(binding)
    }

    fn device_memory(&self) -> Option<DeviceMemory> {
        self.inner().device_memory()
    }

    /// Whether the bytes of buffers are given out where the other engine does.
    fn gives_bytes(&self) -> bool {
        true
    }
}

/// The engine.
pub struct Delegate<H: Hooks>(pub H);

impl<H: Hooks> Deref for Delegate<H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.0
    }
}

impl<H: Hooks> DerefMut for Delegate<H> {
    fn deref_mut(&mut self) -> &mut H {
        &mut self.0
    }
}

#[deny(clippy::missing_trait_methods)]
impl<H: Hooks> Engine for Delegate<H> {
    fn info(&self) -> &EngineInfo {
        self.0.inner().info()
    }

    fn loader(&self) -> Option<Box<dyn Loader>> {
        self.0.loader()
    }

    fn adopt(&mut self, loaded: Loaded) -> SessionId {
        self.0.adopt(loaded)
    }

    fn load(&mut self, model: &Model) -> Result<SessionId, EngineError> {
        self.0.load(model)
    }

    fn unload(&mut self, session: SessionId) {
        self.0.unload(session);
    }

    fn allocate(&mut self, tensor: &Tensor) -> Result<BufferId, EngineError> {
        self.0.allocate(tensor)
    }

    fn reserve(&mut self, dtype: DType, shape: &[usize]) -> Result<BufferId, EngineError> {
        self.0.reserve(dtype, shape)
    }

    fn device_memory(&self) -> Option<DeviceMemory> {
        self.0.device_memory()
    }

    fn compute_in(&mut self, settings: Option<&Settings>) -> Result<(), EngineError> {
        self.0.inner_mut().compute_in(settings)
    }

    fn computes(&self, session: SessionId) -> Option<&Summary> {
        self.0.inner().computes(session)
    }

    fn ahead(&mut self, batch: Vec<(BufferId, Tensor)>) {
        self.0.inner_mut().ahead(batch);
    }

    fn copy(&mut self, from: BufferId, to: BufferId) -> Result<(), EngineError> {
        self.0.inner_mut().copy(from, to)
    }

    fn on_processor(&self, session: SessionId) -> Vec<OnProcessor> {
        self.0.inner().on_processor(session)
    }

    fn write(&mut self, buffer: BufferId, tensor: &Tensor) -> Result<(), EngineError> {
        self.0.inner_mut().write(buffer, tensor)
    }

    fn read(&self, buffer: BufferId) -> Result<Tensor, EngineError> {
        self.0.inner().read(buffer)
    }

    fn is_finite(&self, buffer: BufferId) -> Result<bool, EngineError> {
        self.0.inner().is_finite(buffer)
    }

    fn bytes(&self, buffer: BufferId) -> Option<&[u8]> {
        if self.0.gives_bytes() { self.0.inner().bytes(buffer) } else { None }
    }

    fn bytes_mut(&mut self, buffer: BufferId) -> Option<&mut [u8]> {
        if self.0.gives_bytes() { self.0.inner_mut().bytes_mut(buffer) } else { None }
    }

    fn free(&mut self, buffer: BufferId) {
        self.0.inner_mut().free(buffer);
    }

    fn bind(
        &mut self,
        session: SessionId,
        inputs: &[(&str, BufferId)],
        outputs: &[(&str, Target)],
    ) -> Result<BindingId, EngineError> {
        self.0.inner_mut().bind(session, inputs, outputs)
    }

    fn unbind(&mut self, binding: BindingId) {
        self.0.inner_mut().unbind(binding);
    }

    fn run(&mut self, binding: BindingId) -> Result<Vec<Tensor>, EngineError> {
        self.0.run(binding)
    }

    fn note_nodes(&mut self, on: bool) -> bool {
        self.0.inner_mut().note_nodes(on)
    }

    fn node_times(&mut self, session: SessionId) -> Result<Vec<NodeTime>, EngineError> {
        self.0.inner_mut().node_times(session)
    }
}
