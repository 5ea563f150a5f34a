//! Makes batches ahead of the step that reads them, on threads of its own.

use super::{Batch, Batches, DataError, Elsewhere};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// How far ahead batches are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loading {
    /// Threads that make batches; 0 makes each where it is read.
    pub workers: usize,
    /// The most batches that are ready or being made, at least as many as there are threads.
    pub prefetch: usize,
}

impl Loading {
    /// Returns what suits batches: none ahead where making one is no more than copying rows, else a thread for every two
    /// cores, at most 8, and twice as many batches.
    pub fn suiting(batches: &Batches) -> Loading {
        if batches.is_cheap() {
            return Loading::default();
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = (cores / 2).clamp(1, 8);
        Loading { workers, prefetch: 2 * workers }
    }
}

/// The batches of the epochs of a run, one after another.
#[derive(Debug)]
pub struct Loader {
    batches: Batches,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// Where a batch stands: epoch and index.
type Place = (u64, usize);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something was taken, or the loader goes: threads may go on.
    taken: Condvar,
    /// A batch is ready.
    made: Condvar,
    /// Batches of an epoch.
    count: usize,
    prefetch: usize,
    /// What need not be read.
    elsewhere: Mutex<Option<Elsewhere>>,
}

#[derive(Debug, Default)]
struct State {
    /// The next batch that a thread makes; `None` before the first is asked for.
    next: Option<Place>,
    /// The batch after the one that was asked for last.
    expected: Option<Place>,
    /// Batches that are being made or are ready.
    pending: usize,
    ready: BTreeMap<Place, Result<Batch, DataError>>,
    /// Rises when what is being made is of no use any more.
    generation: usize,
    closed: bool,
}

impl Shared {
    /// Returns what need not be read of the next batch that is made.
    fn elsewhere(&self) -> Option<Elsewhere> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the batch that is wanted next. Epoch 0 is evaluation, which comes again as it is.
    fn after(&self, (epoch, index): Place) -> Place {
        match (index + 1 < self.count, epoch) {
            (true, _) => (epoch, index + 1),
            (false, 0) => (0, 0),
            (false, _) => (epoch + 1, 0),
        }
    }
}

impl Loader {
    /// Returns a loader, which makes nothing until it is asked for a first batch.
    pub fn new(batches: &Batches, loading: Loading) -> Loader {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            taken: Condvar::new(),
            made: Condvar::new(),
            count: batches.len(),
            prefetch: loading.prefetch.max(loading.workers),
            elsewhere: Mutex::default(),
        });
        let worker = |_| {
            let (shared, batches) = (Arc::clone(&shared), batches.clone());
            std::thread::spawn(move || work(&shared, &batches))
        };
        let workers = (0..loading.workers).map(worker).collect();
        Loader { batches: batches.clone(), shared, workers }
    }

    /// Returns the batches that are loaded.
    pub fn batches(&self) -> &Batches {
        &self.batches
    }

    /// Says which inputs need not be read for which rows, of batches that are not being made yet.
    pub fn leave_out(&self, elsewhere: Option<Elsewhere>) {
        *self.shared.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = elsewhere;
    }

    /// Returns batch `index` (from 0) of an epoch with the seconds that it was waited for. The one after it is made next;
    /// asking for another one starts from there.
    ///
    /// # Errors
    /// A row cannot be read.
    ///
    /// # Panics
    /// When there is no batch of that index.
    pub fn take(&self, epoch: u64, index: usize) -> (Result<Batch, DataError>, f64) {
        let clock = Instant::now();
        let batch = match self.workers.is_empty() {
            true => self.batches.without(epoch, index, self.shared.elsewhere().as_ref()),
            false => self.wait((epoch, index)),
        };
        (batch, clock.elapsed().as_secs_f64())
    }

    /// Returns the batch after the one that was taken last, where it is made; it is still there to be taken.
    pub fn next(&self) -> Option<Batch> {
        let state = self.shared.lock();
        state.ready.get(&state.expected?)?.as_ref().ok().cloned()
    }

    fn wait(&self, place: Place) -> Result<Batch, DataError> {
        let mut state = self.shared.lock();
        if state.expected.replace(self.shared.after(place)) != Some(place) {
            state.generation += 1;
            state.ready.clear();
            state.pending = 0;
            state.next = Some(place);
            self.shared.taken.notify_all();
        }
        loop {
            if let Some(batch) = state.ready.remove(&place) {
                state.pending -= 1;
                self.shared.taken.notify_one();
                return batch;
            }
            state = self.shared.made.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.taken.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, batches: &Batches) {
    let mut state = shared.lock();
    loop {
        let Some(place) = state.next.filter(|_| !state.closed && state.pending < shared.prefetch) else {
            if state.closed {
                return;
            }
            state = shared.taken.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        state.next = Some(shared.after(place));
        state.pending += 1;
        let generation = state.generation;
        drop(state);
        let elsewhere = shared.elsewhere();
        let make = || batches.without(place.0, place.1, elsewhere.as_ref());
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(make));
        let batch = made.unwrap_or_else(|_| Err(DataError::Panicked { epoch: place.0, index: place.1 }));
        state = shared.lock();
        if state.generation == generation {
            state.ready.insert(place, batch);
            shared.made.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{BatchOptions, Column, Draw, LastBatch, Sample, Sampler, Source, check};
    use crate::graph::{DType, Tensor};
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// Rows that are their own numbers, read slowly; the row `bad` cannot be read, the row after it panics.
    #[derive(Debug)]
    struct Slow {
        columns: Vec<Column>,
        bad: usize,
        read: Arc<AtomicUsize>,
    }

    impl Source for Slow {
        fn path(&self) -> &Path {
            Path::new("slow")
        }
        fn rows(&self) -> usize {
            20
        }
        fn columns(&self) -> &[Column] {
            &self.columns
        }
        fn read(&self, _: &[usize], samples: &[Sample], _: Draw) -> Result<Vec<Tensor>, DataError> {
            self.read.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(samples[0].row as u64 % 3));
            let path = self.path().to_path_buf();
            if let Some(sample) = samples.iter().find(|sample| sample.row == self.bad) {
                return Err(DataError::Row { path, row: sample.row, reason: "is broken".into() });
            }
            assert!(samples.iter().all(|sample| sample.row != self.bad + 1), "a row that breaks the source");
            Ok(vec![Tensor::ints(&samples.iter().map(|sample| sample.row as i64).collect::<Vec<_>>())])
        }
    }

    fn slow(bad: usize) -> (Batches, Arc<AtomicUsize>) {
        let read = Arc::new(AtomicUsize::new(0));
        let columns = vec![Column { name: "x".into(), dtype: DType::I64, shape: vec![] }];
        let source = Arc::new(Slow { columns, bad, read: Arc::clone(&read) });
        let feed = check::Feed { input: "x".into(), source, column: 0, dtype: DType::I64, pad: None, classes: None };
        let sampler = Sampler::Sequential;
        let options = BatchOptions { size: 3, seed: 0, sampler, last_batch: LastBatch::Keep };
        (Batches::new(vec![feed], options).unwrap(), read)
    }

    fn rows(batch: Result<Batch, DataError>) -> String {
        match batch {
            Ok(batch) => format!("{:?}", batch[0].1.to_ints().unwrap()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn batches_come_in_order_from_any_number_of_threads_and_from_anywhere() {
        for workers in [0, 1, 3] {
            let (batches, _) = slow(100);
            let loader = Loader::new(&batches, Loading { workers, prefetch: 4 });
            let places = (1..3).flat_map(|epoch| (0..7).map(move |index| (epoch, index)));
            // A jump back and one ahead.
            let places: Vec<Place> = places.chain([(1, 3), (1, 4), (5, 0), (5, 1), (5, 3), (5, 3)]).collect();
            for (epoch, index) in places {
                let expected = rows(batches.batch(epoch, index));
                assert_eq!(rows(loader.take(epoch, index).0), expected, "{workers} workers, {epoch} {index}");
            }
        }
    }

    #[test]
    fn no_more_is_made_than_asked_for() {
        let (batches, read) = slow(100);
        let loader = Loader::new(&batches, Loading { workers: 2, prefetch: 3 });
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(read.load(Ordering::SeqCst), 0);
        let (batch, seconds) = loader.take(1, 0);
        assert!(batch.is_ok() && seconds > 0.0);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(read.load(Ordering::SeqCst), 4);
    }

    #[test]
    fn what_was_made_ahead_of_the_next_evaluation_is_used_by_it() {
        let (batches, read) = slow(100);
        let loader = Loader::new(&batches, Loading { workers: 2, prefetch: 3 });
        for _ in 0..3 {
            for index in 0..batches.len() {
                let (batch, _) = loader.take(0, index);
                assert_eq!(rows(batch), rows(batches.in_file_order(index)));
            }
        }
        std::thread::sleep(Duration::from_millis(100));
        // Each of them is made once, beside what is ahead and what this test reads to compare.
        assert_eq!(read.load(Ordering::SeqCst), 2 * 3 * batches.len() + 3);
    }

    #[test]
    fn inputs_are_left_out_where_all_rows_of_a_batch_are_elsewhere() {
        for workers in [0, 2] {
            let (batches, _) = slow(100);
            let loader = Loader::new(&batches, Loading { workers, prefetch: 2 });
            let elsewhere = Elsewhere::new(vec!["x".into()], 20);
            (3..8).for_each(|row| elsewhere.set(row, true));
            loader.leave_out(Some(elsewhere.clone()));
            // Batches of three rows in order; evaluation leaves nothing out.
            let lens = |epoch| (0..4).map(|index| loader.take(epoch, index).0.unwrap().len()).collect::<Vec<_>>();
            assert_eq!((lens(1), lens(0)), (vec![1, 0, 1, 1], vec![1; 4]), "{workers} workers");
            elsewhere.set(4, false);
            assert_eq!(lens(2), [1; 4]);
            loader.leave_out(None);
            elsewhere.set(4, true);
            assert_eq!(lens(4), [1; 4]);
        }
    }

    #[test]
    fn a_batch_that_fails_says_so_and_the_others_come() {
        let (batches, _) = slow(7);
        let loader = Loader::new(&batches, Loading { workers: 2, prefetch: 4 });
        assert_eq!(rows(loader.take(1, 1).0), "[3, 4, 5]");
        assert_eq!(rows(loader.take(1, 2).0), "slow: row 7 (from 0) is broken");
        assert_eq!(rows(loader.take(1, 3).0), "[9, 10, 11]");
        let (batches, _) = slow(8);
        let loader = Loader::new(&batches, Loading { workers: 1, prefetch: 1 });
        assert_eq!(rows(loader.take(1, 3).0), "batch 3 of epoch 1 could not be made: its source panicked");
        assert_eq!(rows(loader.take(1, 4).0), "[12, 13, 14]");
    }
}
