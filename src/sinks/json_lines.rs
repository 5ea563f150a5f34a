//! JSON lines: one object an event, flushed.

use super::Sink;
use crate::runner::{RunEvent, Timed};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Writes each event as one line of JSON.
pub struct JsonLines<W> {
    name: String,
    out: W,
    every: usize,
}

impl<W: Write> JsonLines<W> {
    /// Returns a sink that writes to `out`, which warnings call `name`; of the steps only every `every`-th.
    pub fn to(name: &str, out: W, every: usize) -> JsonLines<W> {
        JsonLines { name: name.into(), out, every: every.max(1) }
    }
}

impl JsonLines<File> {
    /// Returns a sink that writes a new file; of the steps only every `every`-th.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path, every: usize) -> io::Result<JsonLines<File>> {
        Ok(JsonLines::to(&path.display().to_string(), File::create(path)?, every))
    }

    /// Returns a sink that goes on with a file. A last line that was cut short is dropped.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn append(path: &Path, every: usize) -> io::Result<JsonLines<File>> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let end = end_of_lines(&mut file)?;
        file.set_len(end)?;
        file.seek(SeekFrom::End(0))?;
        Ok(JsonLines::to(&path.display().to_string(), file, every))
    }
}

/// Returns the length of a file up to its last line end.
fn end_of_lines(file: &mut File) -> io::Result<u64> {
    const BLOCK: u64 = 1 << 16;
    let mut end = file.seek(SeekFrom::End(0))?;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        let mut block = Vec::new();
        Read::by_ref(file).take(end - start).read_to_end(&mut block)?;
        if let Some(position) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + position as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

impl<W: Write> Sink for JsonLines<W> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn take(&mut self, event: &Timed) -> io::Result<()> {
        if matches!(&event.event, RunEvent::Step { step, .. } if step % self.every != 0) {
            return Ok(());
        }
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.out.write_all(&line)?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: usize) -> Timed {
        Timed {
            event: RunEvent::Step { epoch: 1, step, loss: 0.5, lr: None, seconds: 0.25, wait_seconds: 0.0 },
            time: step as f64,
        }
    }

    #[test]
    fn steps_are_thinned_and_a_line_cut_short_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut sink = JsonLines::create(&path, 2).unwrap();
        (1..=4).for_each(|number| sink.take(&step(number)).unwrap());
        let mut text = std::fs::read_to_string(&path).unwrap();
        text += "{\"event\":\"step\",\"ep";
        std::fs::write(&path, text).unwrap();
        JsonLines::append(&path, 2).unwrap().take(&step(6)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let read = |line: &str| match serde_json::from_str::<Timed>(line).unwrap().event {
            RunEvent::Step { step, .. } => step,
            other => panic!("{other:?}"),
        };
        assert_eq!(text.lines().map(read).collect::<Vec<_>>(), [2, 4, 6]);
        let none = folder.path().join("none.jsonl");
        std::fs::write(&none, "cut").unwrap();
        JsonLines::append(&none, 1).unwrap().take(&step(1)).unwrap();
        assert!(std::fs::read_to_string(&none).unwrap().starts_with("{\"event\":\"step\""));
    }
}
