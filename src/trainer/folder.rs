//! The folder of a run.

use super::TrainerError;
use super::files::{make_folder, write_file};
use crate::error::ErrorKind;
use crate::runner::job::CACHE;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// What a run writes beside its checkpoints and the event files of TensorBoard.
const WRITTEN: [&str; 5] = ["events.jsonl", "job.toml", "model.onnx", "plan.json", "report.html"];
const LOCK: &str = ".lock";

/// What becomes of an earlier run in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// There must be none.
    New,
    /// It is replaced.
    Over,
    /// It goes on, from its newest checkpoint; where there is none, the run begins.
    Resume,
}

/// The folder of a run, held by this process.
pub(super) struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Refuses a folder that holds another run, or the files that the run reads. Nothing is changed yet.
    pub(super) fn check(
        folder: &Path,
        reads: &[PathBuf],
        weights: Option<&Path>,
        start: Start,
    ) -> Result<(), TrainerError> {
        let bad = |text: String| TrainerError::new(ErrorKind::BadInput, text);
        let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
        for input in reads {
            if let Some(written) = WRITTEN.iter().find(|name| same(&folder.join(name), input)) {
                let text = format!("the run would write {written} over {}, which it reads", input.display());
                return Err(bad(text).hint("choose another folder with --set run.dir=DIR"));
            }
        }
        let inside = |path: &Path| match (folder.canonicalize(), path.canonicalize()) {
            (Ok(folder), Ok(path)) => path.starts_with(folder),
            _ => false,
        };
        if let Some(path) = weights.filter(|path| start != Start::Resume && inside(path)) {
            let text = format!("the run would replace {}, which it takes its weights from", path.display());
            return Err(bad(text).hint("choose another folder with --set run.dir=DIR"));
        }
        if start == Start::New && folder.join("events.jsonl").exists() {
            return Err(bad(format!("{} holds an earlier run", folder.display())).hint(
                "give --resume to go on with it, --overwrite to replace it, or another folder with --set run.dir=DIR",
            ));
        }
        Ok(())
    }

    /// Makes the folder, without what an earlier run left in it unless it goes on, and holds it.
    pub(super) fn open(folder: &Path, start: Start) -> Result<RunFolder, TrainerError> {
        make_folder(folder)?;
        write_file(&folder.join(".writable"), b"")?;
        let _ = fs::remove_file(folder.join(".writable"));
        let path = folder.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|error| {
            TrainerError::new(ErrorKind::BadInput, format!("cannot write {}: {error}", path.display()))
        })?;
        // A file system without locks has no lock to respect.
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            let text = format!("another process trains in {}", folder.display());
            return Err(TrainerError::new(ErrorKind::BadInput, text).hint("wait for it, or choose another folder"));
        }
        let opened = RunFolder { path: folder.to_path_buf(), _lock: lock };
        opened.remove_unfinished();
        if start != Start::Resume {
            opened.clear()?;
        }
        make_folder(&opened.checkpoints())?;
        Ok(opened)
    }

    /// Removes files that a process began to write that was killed.
    fn remove_unfinished(&self) {
        let entries = self.path.read_dir().into_iter().flatten().filter_map(Result::ok);
        let of_ours = |name: &str| name.starts_with('.') && name.ends_with(".tmp");
        for entry in entries.filter(|entry| entry.file_name().to_str().is_some_and(of_ours)) {
            let _ = fs::remove_file(entry.path());
        }
    }

    /// Removes what an earlier run left.
    fn clear(&self) -> Result<(), TrainerError> {
        let cannot = |path: &Path, error: std::io::Error| {
            TrainerError::new(ErrorKind::BadInput, format!("cannot remove {}: {error}", path.display()))
        };
        for name in ["checkpoints", "tensorboard", CACHE] {
            let path = self.path.join(name);
            if path.exists() {
                fs::remove_dir_all(&path).map_err(|error| cannot(&path, error))?;
            }
        }
        WRITTEN.iter().for_each(|name| drop(fs::remove_file(self.path.join(name))));
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }
}

/// Cuts a log of events after the checkpoint with a number, or where that is not in it, after its last whole line, since
/// all that it holds came before. Returns the seconds of the last event that stays, and whether it is the checkpoint's.
pub(super) fn cut_log(path: &Path, sequence: u64) -> std::io::Result<(f64, bool)> {
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((0.0, false)),
        Err(error) => return Err(error),
    };
    let (mut whole, mut seconds) = ((0, 0.0), 0.0);
    let mut cut = None;
    let mut reader = BufReader::new(&file);
    let mut line = Vec::new();
    let mut end = 0u64;
    loop {
        line.clear();
        end += reader.read_until(b'\n', &mut line)? as u64;
        if !line.ends_with(b"\n") {
            break;
        }
        if let Ok(event) = serde_json::from_slice::<serde_json::Value>(&line) {
            seconds = event["time"].as_f64().unwrap_or(seconds);
            if event["event"] == "checkpoint" && event["sequence"].as_u64() == Some(sequence) {
                cut = Some((end, seconds));
            }
        }
        whole = (end, seconds);
    }
    let (length, seconds) = cut.unwrap_or(whole);
    file.set_len(length)?;
    Ok((seconds, cut.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_ends_with_the_checkpoint_that_the_run_goes_on_from() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        assert_eq!(cut_log(&path, 1).unwrap(), (0.0, false));
        let lines = [
            r#"{"event":"step","step":1,"time":0.5}"#,
            r#"{"event":"checkpoint","step":1,"sequence":1,"time":0.75}"#,
            r#"{"event":"step","step":2,"time":1.5}"#,
            r#"{"event":"checkpoint","step":2,"sequence":2,"time":2.5}"#,
            r#"{"event":"step","step":3,"time":3.5}"#,
        ];
        let text = |count: usize| lines[..count].iter().map(|line| format!("{line}\n")).collect::<String>();
        // Of checkpoint 3 the event was not written any more, of 1 and 2 it was.
        for (sequence, count, seconds) in [(1, 2, 0.75), (2, 4, 2.5), (3, 5, 3.5)] {
            fs::write(&path, text(5) + r#"{"event":"step","st"#).unwrap();
            assert_eq!(cut_log(&path, sequence).unwrap(), (seconds, sequence < 3));
            assert_eq!(fs::read_to_string(&path).unwrap(), text(count), "{sequence}");
        }
    }
}
