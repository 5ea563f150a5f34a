//! Keeps what the frozen prefix makes of each sample, so that it is computed once.
//!
//! The prefix of a phase ends at a cut ([`Prefix::cheapest`](crate::training::prefix::Prefix::cheapest)). Its values are
//! kept for each row of the training data as batches come: a batch of which every row is kept is read back, another one
//! is computed and kept. They are kept in memory, in a file, or in buffers of the engine ([`device`]). When the prefix grows, what the phase before kept takes the place of the data: only the new
//! part of the prefix runs on it, a batch at a time, and its rows are given up as they are taken over.
//!
//! Rows are known by a key: the SHA-256 of the operators and constants that lead to the cut, of what tells the training
//! data from others, and of the engine. So a file of another prefix or of other data is never read. What is kept is only
//! what depends on one sample each; a prefix with statistics of the batch, random numbers or data that differ from epoch to epoch
//! ends before them or is not kept at all, and the event `cache` says why.
//!
//! With `auto` the first batches of a phase are measured: what computing and keeping them takes, and reading them back. It
//! is worth it when reading is faster and `epochs left > 1 + keep / (compute - read)`.

mod device;
mod enter;
mod pays;
mod store;

use super::engine::{BufferId, Engine, EngineError};
use super::event::RunEvent;
use super::front::Front;
use super::job::CacheMode;
use super::memory::readable;
use super::phase::{Feed, Phase};
use crate::data::Elsewhere;
use crate::graph::Tensor;
use crate::training::prefix::Part;
pub(super) use enter::{Fresh, Fronted};
use pays::Trial;
use std::path::PathBuf;
use std::time::Instant;
use store::Store;

/// How the outputs of the frozen prefix are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caching {
    /// Where.
    pub mode: CacheMode,
    /// The most bytes.
    pub limit: u64,
    /// The folder of files.
    pub dir: PathBuf,
    /// Whether files stay when the run is done.
    pub stays: bool,
}

/// Returns in words what [`RunEvent::Cache`] says of a phase; `None` for other events.
pub fn what_is_kept(event: &RunEvent) -> Option<String> {
    let RunEvent::Cache {
        used, reason, place, values, sample_bytes, bytes, from, compute_seconds, read_seconds, ..
    } = event
    else {
        return None;
    };
    if !used {
        return Some(format!("no cache of what is frozen: {}", reason.as_deref().unwrap_or("it is not used")));
    }
    let many = if values.len() == 1 { "1 value".into() } else { format!("{} values", values.len()) };
    let from = match from.as_deref() {
        Some("kept") => ", grown from what was kept",
        Some("file") => ", going on with its file",
        _ => "",
    };
    let seconds = compute_seconds.zip(*read_seconds).map_or_else(String::new, |(compute, read)| {
        format!("; a batch takes {:.2} ms to compute and {:.2} ms to read", 1e3 * compute, 1e3 * read)
    });
    Some(format!(
        "cache of what is frozen: {many}, {} a row, {} in {}{from}{seconds}",
        readable(*sample_bytes),
        readable(*bytes),
        place.as_deref().unwrap_or("memory")
    ))
}

/// What a run keeps.
pub(super) struct Cache {
    caching: Caching,
    /// What tells the training data from others, once it was asked for.
    data: Option<[u8; 32]>,
    kept: Option<Kept>,
    /// What the phase before kept, until it is taken over.
    before: Option<Kept>,
    /// Measures whether it pays, until that is known.
    trial: Option<Trial>,
    /// The last epoch that reads what is kept now.
    last_epoch: usize,
}

/// Rows of the values of a cut.
struct Kept {
    key: [u8; 32],
    prints: Vec<[u8; 32]>,
    parts: Vec<Part>,
    row: usize,
    store: Store,
    /// Rows that are there.
    count: usize,
    /// The rows that need not be read from the data.
    elsewhere: Elsewhere,
}

/// Where the values of a batch come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Kept,
    Before,
    Data,
}

impl Cache {
    pub(super) fn new(caching: Caching) -> Cache {
        Cache { caching, data: None, kept: None, before: None, trial: None, last_epoch: 0 }
    }

    /// Returns true where the phase that trains keeps what its prefix makes.
    pub(super) fn is_used(&self) -> bool {
        self.kept.is_some()
    }

    /// Returns the bytes that are kept where graphs run.
    pub(super) fn on_device(&self) -> u64 {
        let stores = self.kept.iter().chain(&self.before).map(|kept| &kept.store);
        stores.map(|store| if let Store::Device(device) = store { device.bytes() } else { 0 }).sum()
    }

    /// Drops what is bound to buffers of a phase, which are about to be freed.
    pub(super) fn unbind(&mut self, engine: &mut dyn Engine) {
        for kept in self.kept.iter_mut().chain(&mut self.before) {
            if let Store::Device(device) = &mut kept.store {
                device.unbind(engine);
            }
        }
    }

    /// Returns true where a batch of these rows needs nothing from the data but what the train graph itself reads.
    pub(super) fn has(&mut self, phase: &mut Phase, rows: &[usize]) -> bool {
        phase.front().is_some_and(|front| self.source(front, rows) != Source::Data)
    }

    fn source(&mut self, front: &Front, rows: &[usize]) -> Source {
        let all = |kept: &mut Kept| rows.iter().all(|row| kept.store.has(*row));
        if !front.is_complete(rows.len()) {
            return Source::Data;
        }
        if self.kept.as_mut().is_some_and(all) {
            return Source::Kept;
        }
        match front.grows() && self.before.as_mut().is_some_and(all) {
            true => Source::Before,
            false => Source::Data,
        }
    }

    /// Runs the train graph on a batch of these rows, with what is kept of them.
    pub(super) fn backward(
        &mut self,
        engine: &mut dyn Engine,
        phase: &mut Phase,
        feed: &Feed<'_>,
        epoch: usize,
        rows: &[usize],
    ) -> Result<f64, EngineError> {
        let Some(front) = phase.front() else { return phase.backward(engine, feed.at, feed.batch, feed.share) };
        let source = self.source(front, rows);
        let bound = phase.place(engine, feed.at, feed.batch, feed.share, source == Source::Data)?;
        let clock = Instant::now();
        match (source, phase.front()) {
            (Source::Kept, Some(front)) => {
                if let Some(kept) = &mut self.kept {
                    fill(engine, kept, &front.parts(rows.len()), rows)?;
                }
            }
            (Source::Before, Some(front)) => {
                if let (Some((binding, parts)), Some(before)) = (front.growing(engine, rows.len())?, &mut self.before) {
                    let parts: Vec<(&Part, BufferId)> = parts.iter().map(|(part, buffer)| (part, *buffer)).collect();
                    fill(engine, before, &parts, rows)?;
                    engine.run(binding)?;
                }
            }
            _ => phase.run_front(engine, &bound)?,
        }
        let computed = clock.elapsed().as_secs_f64();
        if source != Source::Kept && epoch < self.last_epoch {
            self.keep(engine, phase, rows, source)?;
            let kept = clock.elapsed().as_secs_f64() - computed;
            if self.trial.is_some() {
                self.measure(engine, phase, rows, computed, kept)?;
            }
        }
        phase.finish(engine, &bound)
    }

    /// Keeps the values of a batch.
    fn keep(
        &mut self,
        engine: &mut dyn Engine,
        phase: &mut Phase,
        rows: &[usize],
        source: Source,
    ) -> Result<(), EngineError> {
        let (Some(kept), Some(front)) = (&mut self.kept, phase.front()) else { return Ok(()) };
        let mut values: Vec<Tensor> = Vec::new();
        let parts = front.parts(rows.len());
        if let Store::Device(device) = &mut kept.store {
            let buffers: Vec<BufferId> = parts.iter().map(|(_, buffer)| *buffer).collect();
            let new = device.enter(engine, &buffers, rows)?;
            kept.count += new.len();
            for row in new {
                kept.elsewhere.set(row, true);
                if let (Some(before), Source::Before) = (&mut self.before, source) {
                    before.store.forget(row);
                }
            }
            self.take_over(engine, phase);
            return Ok(());
        }
        if parts.iter().any(|(_, buffer)| engine.bytes(*buffer).is_none()) {
            values = parts.iter().map(|(_, buffer)| engine.read(*buffer)).collect::<Result<_, _>>()?;
        }
        let value = |place: usize, buffer: BufferId| -> &[u8] {
            engine.bytes(buffer).or_else(|| values.get(place).map(|tensor| &tensor.bytes()[..])).unwrap_or_default()
        };
        let parts: Vec<(usize, &[u8])> =
            parts.iter().enumerate().map(|(place, (part, buffer))| (part.bytes(), value(place, *buffer))).collect();
        for (place, row) in rows.iter().enumerate() {
            if kept.store.has(*row) {
                continue;
            }
            kept.store.put(*row, kept.row, |to| {
                let mut from = 0;
                for (bytes, value) in &parts {
                    to[from..from + bytes].copy_from_slice(&value[place * bytes..(place + 1) * bytes]);
                    from += bytes;
                }
            });
            kept.count += 1;
            kept.elsewhere.set(*row, true);
            if let (Some(before), Source::Before) = (&mut self.before, source) {
                before.store.forget(*row);
            }
        }
        self.take_over(engine, phase);
        Ok(())
    }

    /// Gives up what the phase before kept once everything of it was taken over.
    fn take_over(&mut self, engine: &mut dyn Engine, phase: &mut Phase) {
        let all = self.kept.as_ref().is_some_and(|kept| kept.is_whole());
        if all && let Some(before) = self.before.take() {
            before.store.remove(engine);
            phase.front().into_iter().for_each(|front| front.stop_growing(engine));
        }
    }

    /// Measures a batch, and gives up where it does not pay.
    fn measure(
        &mut self,
        engine: &mut dyn Engine,
        phase: &mut Phase,
        rows: &[usize],
        computed: f64,
        kept: f64,
    ) -> Result<(), EngineError> {
        let (Some(trial), Some(store), Some(front)) = (&mut self.trial, &mut self.kept, phase.front()) else {
            return Ok(());
        };
        let clock = Instant::now();
        fill(engine, store, &front.parts(rows.len()), rows)?;
        trial.add(rows.len(), computed, kept, clock.elapsed().as_secs_f64());
        Ok(())
    }

    /// Drops everything, with the files that do not stay.
    pub(super) fn clear(&mut self, engine: &mut dyn Engine) {
        for kept in [self.kept.take(), self.before.take()].into_iter().flatten() {
            kept.give_up(engine, self.caching.stays);
        }
        self.trial = None;
    }
}

impl Kept {
    fn is_whole(&self) -> bool {
        self.count >= self.store.rows()
    }

    /// Drops the rows; a file of them may stay.
    fn give_up(self, engine: &mut dyn Engine, stays: bool) {
        if !stays || self.store.path().is_none() {
            self.store.remove(engine);
        }
    }
}

/// Fills buffers with rows that are there.
fn fill(
    engine: &mut dyn Engine,
    kept: &mut Kept,
    parts: &[(&Part, BufferId)],
    rows: &[usize],
) -> Result<(), EngineError> {
    if let Store::Device(device) = &mut kept.store {
        let buffers: Vec<BufferId> = parts.iter().map(|(_, buffer)| *buffer).collect();
        return device.fetch(engine, &buffers, rows);
    }
    let mut from = 0;
    for (part, buffer) in parts {
        let bytes = part.bytes();
        let mut write = |to: &mut [u8]| {
            for (row, to) in rows.iter().zip(to.chunks_exact_mut(bytes.max(1))) {
                if let Some(data) = kept.store.get(*row) {
                    to.copy_from_slice(&data[from..from + bytes]);
                }
            }
        };
        match engine.bytes_mut(*buffer) {
            Some(to) => write(to),
            None => {
                let mut data = vec![0; bytes * rows.len()];
                write(&mut data);
                let tensor = Tensor::new(part.dtype, part.of(rows.len()), data.into());
                engine.write(*buffer, &tensor.expect("invariant: as many bytes as the shape has"))?;
            }
        }
        from += bytes;
    }
    Ok(())
}
