//! A run on a thread of its own.

use super::{Start, Trained, Trainer, TrainerError};
use crate::error::ErrorKind;
use crate::runner::{Engine, RunEvent};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// Events that wait for whoever iterates; a run waits for them beyond that.
const WAITING: usize = 1024;

/// A run that goes on beside the caller: an iterator over its events, which ends with the run.
///
/// A run that is dropped is asked to stop, and waited for.
pub struct Running {
    events: Receiver<RunEvent>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Trained, TrainerError>>>,
}

impl Trainer {
    /// Trains on a thread of its own, on the engine that `engine` makes there.
    pub fn start<F>(self, start: Start, engine: F) -> Running
    where
        F: FnOnce() -> Result<Box<dyn Engine>, TrainerError> + Send + 'static,
    {
        let (sender, events) = sync_channel(WAITING);
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut engine = engine()?;
            // Nobody listens any more where sending fails.
            self.run(engine.as_mut(), start, &mut |event| drop(sender.send(event)), &asked)
        });
        Running { events, stop, thread: Some(thread) }
    }
}

impl Running {
    /// Asks the run to stop after the step; a checkpoint is written.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the end of the run.
    ///
    /// # Errors
    /// As [`Trainer::run`].
    pub fn join(mut self) -> Result<Trained, TrainerError> {
        self.by_ref().for_each(drop);
        let panicked = |text: &str| TrainerError::new(ErrorKind::Internal, format!("the run panicked{text}"));
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                Err(panicked(&text.map_or_else(String::new, |text| format!(": {text}"))))
            }
            None => Err(panicked("")),
        }
    }
}

impl Iterator for Running {
    type Item = RunEvent;

    fn next(&mut self) -> Option<RunEvent> {
        self.events.recv().ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        self.by_ref().for_each(drop);
        self.thread.take().map(JoinHandle::join);
    }
}
