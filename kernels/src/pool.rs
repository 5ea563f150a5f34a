//! Who runs the parts of a kernel.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs independent tasks, several at the same time where it can.
pub trait Pool: Sync {
    /// Returns the number of tasks that run at the same time.
    fn threads(&self) -> usize;

    /// Calls `task` once with every number below `count`, in any order, and returns when all are done.
    fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync));
}

/// One task after the other.
#[derive(Clone, Copy, Debug)]
pub struct Serial;

impl Pool for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(task);
    }
}

/// Threads made for each call: for tests and benchmarks.
#[derive(Clone, Copy, Debug)]
pub struct Threads(pub usize);

impl Pool for Threads {
    fn threads(&self) -> usize {
        self.0.max(1)
    }

    fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    break;
                }
                task(index);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads() {
                scope.spawn(work);
            }
            work();
        });
    }
}

/// A slice that several tasks write disjoint parts of.
#[derive(Clone, Copy, Debug)]
pub struct Shared<T>(*mut T, usize);

// SAFETY: access goes through the unsafe `part`, whose callers keep the parts disjoint.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Returns the slice as one that tasks can share.
    pub fn of(slice: &mut [T]) -> Shared<T> {
        Shared(slice.as_mut_ptr(), slice.len())
    }

    /// Returns a part of the slice.
    ///
    /// # Safety
    /// No other part in use overlaps it, and the slice outlives it.
    ///
    /// # Panics
    /// When it lies outside the slice.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.1 && len <= self.1 - start, "the part lies inside the slice");
        std::slice::from_raw_parts_mut(self.0.add(start), len)
    }

    /// Returns the pointer to the first element.
    pub fn pointer(&self) -> *mut T {
        self.0
    }
}

/// Returns the bounds of part `index` of `count` about equal parts of `len`, in multiples of `unit`.
pub fn split(len: usize, unit: usize, count: usize, index: usize) -> std::ops::Range<usize> {
    let units = len.div_ceil(unit.max(1));
    let at = |index: usize| (units * index / count.max(1) * unit.max(1)).min(len);
    at(index)..at(index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for pool in [&Serial as &dyn Pool, &Threads(3)] {
            let mut counts = vec![0_usize; 100];
            let shared = Shared::of(&mut counts);
            // SAFETY: every task has its own element.
            pool.run(100, &|index| unsafe { shared.part(index, 1)[0] += index });
            assert!(counts.iter().enumerate().all(|(index, count)| index == *count));
        }
    }

    #[test]
    fn parts_cover_everything() {
        for (len, unit, count) in [(10, 1, 3), (10, 4, 3), (0, 4, 2), (3, 16, 4), (64, 16, 4)] {
            let parts: Vec<_> = (0..count).map(|index| split(len, unit, count, index)).collect();
            assert_eq!((parts[0].start, parts[count - 1].end), (0, len));
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }
}
