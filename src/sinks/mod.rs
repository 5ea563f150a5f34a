//! Where the events of a run go: JSON lines, event files of TensorBoard, a display.
//!
//! A sink that cannot take an event any more, for want of disk space say, must not stop a run: it is left out from then
//! on, and the others are told by one warning. What this module does not do: make events (`runner`), or draw on a
//! terminal (`cli`).

mod json_lines;
mod tensorboard;

pub use json_lines::JsonLines;
pub use tensorboard::TensorBoard;

use crate::runner::{RunEvent, Timed};
use std::io;
use std::time::Instant;

/// Something that takes events.
pub trait Sink {
    /// Returns what a warning calls it, such as a file name.
    fn name(&self) -> String;

    /// Takes an event.
    ///
    /// # Errors
    /// It cannot be written. The sink gets no further events.
    fn take(&mut self, event: &Timed) -> io::Result<()>;
}

impl<S: Sink> Sink for &mut S {
    fn name(&self) -> String {
        (**self).name()
    }

    fn take(&mut self, event: &Timed) -> io::Result<()> {
        (**self).take(event)
    }
}

/// Several sinks with one clock.
pub struct Sinks<'a> {
    clock: Instant,
    /// Seconds that the run took before.
    before: f64,
    sinks: Vec<Box<dyn Sink + 'a>>,
}

impl Default for Sinks<'_> {
    fn default() -> Self {
        Sinks { clock: Instant::now(), before: 0.0, sinks: Vec::new() }
    }
}

impl<'a> Sinks<'a> {
    /// Returns no sinks; the time of events counts from now on.
    pub fn new() -> Sinks<'a> {
        Sinks::default()
    }

    /// Counts the time of events from so many seconds on: those that a run took before it was stopped.
    pub fn after(&mut self, seconds: f64) {
        self.before = seconds;
    }

    /// Adds a sink.
    pub fn add(&mut self, sink: impl Sink + 'a) {
        self.sinks.push(Box::new(sink));
    }

    /// Gives an event to every sink.
    pub fn take(&mut self, event: RunEvent) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let timed = Timed { event, time: self.before + self.clock.elapsed().as_secs_f64() };
            self.sinks.retain_mut(|sink| match sink.take(&timed) {
                Ok(()) => true,
                Err(error) => {
                    let message = format!("cannot write {}: {error}; it gets no more events", sink.name());
                    events.push(RunEvent::Warning { message });
                    false
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    struct Listed<'a> {
        name: &'a str,
        room: usize,
        taken: &'a RefCell<Vec<String>>,
    }

    impl Sink for Listed<'_> {
        fn name(&self) -> String {
            self.name.into()
        }

        fn take(&mut self, event: &Timed) -> io::Result<()> {
            let RunEvent::Warning { message } = &event.event else { return Ok(()) };
            self.room = self.room.checked_sub(1).ok_or(io::Error::from(io::ErrorKind::StorageFull))?;
            self.taken.borrow_mut().push(format!("{}: {message}", self.name));
            Ok(())
        }
    }

    #[test]
    fn a_sink_that_fails_is_left_out_and_told_once() {
        let taken = RefCell::new(Vec::new());
        let mut sinks = Sinks::new();
        sinks.add(Listed { name: "a", room: 1, taken: &taken });
        sinks.add(Listed { name: "b", room: 9, taken: &taken });
        for message in ["1", "2", "3"] {
            sinks.take(RunEvent::Warning { message: message.into() });
        }
        drop(sinks);
        let taken = taken.into_inner();
        let expected = ["a: 1", "b: 1", "b: 2", "b: cannot write a: no storage space; it gets no more events", "b: 3"];
        assert_eq!(taken, expected);
    }
}
