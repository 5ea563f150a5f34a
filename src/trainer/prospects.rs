//! What a run would do, told before it begins.

use super::{Start, Trainer, TrainerError, changes};
use crate::error::ErrorKind;
use std::path::Path;

impl Trainer {
    /// Returns in sentences what a run would read, do and write. The run's folder is left as it is.
    ///
    /// # Errors
    /// The folder holds another run, a run cannot go on with the job, or the disk has not the room for the checkpoints and the model.
    pub fn prospects(&self, start: Start) -> Result<Vec<String>, TrainerError> {
        self.check_folder(start)?;
        let job = self.job();
        let steps = self.steps_per_epoch();
        let eval =
            self.eval.as_ref().map_or("no eval data".into(), |eval| format!("{} rows of eval data", eval.rows()));
        let data = format!(
            "{} rows of training data in batches of {}: {steps} steps an epoch, {} in all; {eval}",
            self.train.rows(),
            job.data.batch,
            steps * self.plan.epochs.len()
        );
        let wanted = self.disk_bytes();
        let folder = existing(&job.run.dir);
        let room = fs4::available_space(folder).ok();
        let have = room.map_or_else(String::new, |room| format!(", {} are free", bytes(room)));
        let disk = format!("checkpoints and model in {} take about {}{have}", job.run.dir.display(), bytes(wanted));
        if room.is_some_and(|room| room < wanted) {
            return Err(TrainerError::new(ErrorKind::BadInput, format!("the disk is too full: {disk}"))
                .hint("choose another run.dir, or keep fewer checkpoints with checkpoint.keep"));
        }
        let mut sentences = vec![data, disk];
        if start == Start::Resume {
            let store = crate::checkpoint::Store::new(&job.run.dir.join("checkpoints"), 1);
            match store.latest()? {
                Some(latest) => {
                    sentences.extend(changes::check(&job.run.dir, self, &latest.checkpoint)?);
                    let crate::checkpoint::Checkpoint { epoch, step, .. } = latest.checkpoint;
                    let text =
                        format!("the run would go on from {}: epoch {epoch}, {step} steps done", latest.path.display());
                    sentences.push(text);
                }
                None => sentences.push("there is no checkpoint to go on from: the run would begin".into()),
            }
        }
        Ok(sentences)
    }

    /// Returns the room on the disk that the run needs, in bytes, about: checkpoints and the trained model.
    pub fn disk_bytes(&self) -> u64 {
        let graph = &self.prepared.model.graph;
        let bytes = |name: &&str| {
            graph.find(name).and_then(|id| graph.value(id).initializer.as_ref()).map_or(0, |t| t.bytes().len() as u64)
        };
        let values: u64 = self.prepared.parameters.iter().map(|parameter| bytes(&parameter.name.as_str())).sum();
        let slots = self
            .job
            .optimizer
            .as_ref()
            .map_or(1, |optimizer| optimizer.slots().iter().filter(|slot| !slot.scalar).count() as u64);
        let each = values * (1 + slots + u64::from(self.job.ema.is_some()));
        // One more stands beside the others while it is written.
        let held = self.job.checkpoint.keep + 1 + u64::from(self.job.eval.chooses().is_some());
        each * held + values
    }

    fn steps_per_epoch(&self) -> usize {
        let accumulate = usize::try_from(self.job.run.accumulate).unwrap_or(usize::MAX).max(1);
        self.train.len().div_ceil(accumulate)
    }
}

/// Returns the folder, or the nearest one above it that is there.
fn existing(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."))
}

/// Returns bytes with a decimal prefix.
fn bytes(number: u64) -> String {
    let (mut scaled, mut prefix) = (number as f64, "");
    for next in ["k", "M", "G", "T"] {
        if scaled < 999.5 {
            break;
        }
        (scaled, prefix) = (scaled / 1000.0, next);
    }
    let digits = if scaled < 9.995 { 2 } else { usize::from(scaled < 99.95) };
    if prefix.is_empty() { format!("{number} B") } else { format!("{scaled:.digits$} {prefix}B") }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_have_three_digits() {
        let cases = [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (803_544, "804 kB"), (12_345_678, "12.3 MB")];
        for (number, expected) in cases {
            assert_eq!(bytes(number), expected);
        }
    }
}
