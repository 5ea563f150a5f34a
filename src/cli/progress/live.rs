//! One live line at the bottom of a terminal, and lines above it.
//!
//! The cursor stays right behind the live line: a terminal that writes `^C` there does not break it.

use console::Term;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two drawings of the live line.
const BETWEEN: Duration = Duration::from_millis(125);

/// A terminal with a live line.
#[derive(Clone)]
pub struct Live {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    term: Term,
    /// The live line, and whether it is on the terminal.
    text: String,
    drawn: Option<String>,
    last: Option<Instant>,
    closed: bool,
}

impl Live {
    /// Returns a terminal without a live line so far.
    pub fn new(term: Term) -> Live {
        let shared = Shared { term, text: String::new(), drawn: None, last: None, closed: false };
        Live { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Changes the live line, which must have room in one line of the terminal.
    pub fn set(&self, text: String) {
        self.with(|shared| {
            shared.text = text;
            if shared.last.is_none_or(|last| last.elapsed() >= BETWEEN) {
                shared.erase()?;
                shared.draw()?;
            }
            Ok(())
        });
    }

    /// Prints ended lines above the live line.
    pub fn print(&self, lines: &str) {
        self.with(|shared| {
            shared.erase()?;
            shared.term.write_str(lines)?;
            shared.draw()
        });
    }

    /// Takes the live line away for good.
    pub fn close(&self) {
        self.with(|shared| {
            shared.closed = true;
            shared.erase()
        });
    }

    /// That the terminal is gone is no reason to stop.
    fn with(&self, act: impl FnOnce(&mut Shared) -> io::Result<()>) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = act(&mut shared);
    }
}

impl Shared {
    fn erase(&mut self) -> io::Result<()> {
        let Some(drawn) = self.drawn.take() else { return Ok(()) };
        // A terminal that became narrower broke the line.
        let columns = usize::from(self.term.size().1).max(1);
        let above = console::measure_text_width(&drawn).saturating_sub(1) / columns;
        if above > 0 {
            self.term.move_cursor_up(above)?;
            self.term.write_str("\r")?;
            return self.term.clear_to_end_of_screen();
        }
        self.term.clear_line()
    }

    fn draw(&mut self) -> io::Result<()> {
        if self.closed || self.text.is_empty() {
            return Ok(());
        }
        self.last = Some(Instant::now());
        self.drawn = Some(self.text.clone());
        self.term.write_str(&self.text)?;
        self.term.flush()
    }
}
