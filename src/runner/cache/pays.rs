//! Whether keeping what a prefix makes pays, from a few batches.

use super::super::engine::Engine;
use super::super::event::RunEvent;
use super::super::run::Run;
use super::Cache;

/// Batches that are measured; the first one, in which sessions grow their memory, comes before them.
const BATCHES: usize = 3;

/// Seconds of batches of the same number of rows.
pub(super) struct Trial {
    rows: usize,
    /// Epochs that are left, with the one that keeps.
    left: f64,
    compute: Vec<f64>,
    keep: Vec<f64>,
    read: Vec<f64>,
    warm: bool,
    /// What is told when it is known.
    pub(super) event: RunEvent,
}

/// What was measured: seconds of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seconds {
    pub(super) compute: f64,
    pub(super) keep: f64,
    pub(super) read: f64,
}

impl Seconds {
    /// Returns why keeping does not pay over so many epochs; `None` where it does.
    pub(super) fn problem(&self, left: f64) -> Option<String> {
        let Seconds { compute, keep, read } = *self;
        let ms = |seconds: f64| format!("{:.2} ms", 1e3 * seconds);
        if read >= compute {
            return Some(format!("reading a batch back takes {}, computing it {}", ms(read), ms(compute)));
        }
        let epochs = 1.0 + keep / (compute - read);
        (left <= epochs).then(|| {
            format!(
                "keeping a batch takes {}, reading it back {}, computing it {}: that pays after {epochs:.1} epochs, and \
                 {left:.1} are left",
                ms(keep),
                ms(read),
                ms(compute)
            )
        })
    }
}

impl Trial {
    pub(super) fn new(left: f64, event: RunEvent) -> Trial {
        let (compute, keep, read) = Default::default();
        Trial { rows: 0, left, compute, keep, read, warm: false, event }
    }

    pub(super) fn add(&mut self, rows: usize, compute: f64, keep: f64, read: f64) {
        if !std::mem::replace(&mut self.warm, true) || rows < self.rows {
            return;
        }
        self.rows = rows;
        self.compute.push(compute);
        self.keep.push(keep);
        self.read.push(read);
    }

    /// Returns the fastest of what was measured, once that is enough.
    fn seconds(&self) -> Option<Seconds> {
        let fastest = |seconds: &[f64]| seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let enough = self.compute.len() >= BATCHES;
        enough.then(|| Seconds {
            compute: fastest(&self.compute),
            keep: fastest(&self.keep),
            read: fastest(&self.read),
        })
    }
}

impl Run<'_> {
    /// Decides whether the phase that trains goes on keeping what its prefix makes, once that was measured.
    pub(in crate::runner) fn judge_cache(&mut self, engine: &mut dyn Engine, report: &mut dyn FnMut(RunEvent)) {
        let Some(Cache { trial: Some(trial), .. }) = &self.cache else { return };
        let Some(seconds) = trial.seconds() else { return };
        let problem = seconds.problem(trial.left);
        let Some(cache) = &mut self.cache else { return };
        let Some(Trial { event, .. }) = cache.trial.take() else { return };
        let unused = problem.is_some();
        report(match event {
            RunEvent::Cache { epoch, after, place, values, sample_bytes, bytes, from, .. } => RunEvent::Cache {
                epoch,
                after,
                used: !unused,
                reason: problem,
                place,
                values,
                sample_bytes,
                bytes,
                from,
                compute_seconds: Some(seconds.compute),
                read_seconds: Some(seconds.read),
            },
            other => other,
        });
        if unused {
            cache.clear(engine);
            self.loader.leave_out(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_pays_after_as_many_epochs_as_the_formula_says() {
        let seconds = Seconds { compute: 0.010, keep: 0.004, read: 0.002 };
        // 1 + 4 / (10 - 2) = 1.5
        assert!(seconds.problem(1.5).is_some() && seconds.problem(1.6).is_none());
        let slow = Seconds { compute: 0.002, ..seconds };
        let text = slow.problem(1000.0).unwrap();
        assert_eq!(text, "reading a batch back takes 2.00 ms, computing it 2.00 ms");
    }
}
