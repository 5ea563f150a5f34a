//! The checkpoints of a run: which there are, which stay.

use super::{Checkpoint, CheckpointError, files, load, write};
use std::path::{Path, PathBuf};

/// Begins the name of a folder that is being written.
const UNFINISHED: &str = ".unfinished-";
/// Names the checkpoint of the best epoch.
const BEST: &str = "best";

/// The folder of a run's checkpoints.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    keep: usize,
}

/// The newest checkpoint that can be read.
#[derive(Debug)]
pub struct Latest {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Its folder.
    pub path: PathBuf,
    /// Newer ones that are damaged, the newest first.
    pub damaged: Vec<CheckpointError>,
}

impl Store {
    /// Returns the checkpoints in a folder, which need not be there yet; of those written later the last `keep`, at least
    /// 1, and the best stay.
    pub fn new(folder: &Path, keep: usize) -> Store {
        Store { folder: folder.to_path_buf(), keep: keep.max(1) }
    }

    /// Returns the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the checkpoints that are there, the newest first, with their sequence numbers.
    pub fn list(&self) -> Vec<(u64, PathBuf)> {
        let entries = self.folder.read_dir().into_iter().flatten().filter_map(Result::ok);
        let numbered = |name: &str| name.split_once("-step-")?.0.parse().ok();
        let mut found: Vec<(u64, PathBuf)> =
            entries.filter_map(|entry| Some((numbered(entry.file_name().to_str()?)?, entry.path()))).collect();
        found.sort();
        found.reverse();
        found
    }

    /// Writes a checkpoint as the newest one, which numbers it, and removes those that need not stay; returns its folder.
    /// With `best` it is the best one from now on. Where it fails, all earlier ones are still there.
    ///
    /// # Errors
    /// The disk refuses, or a tensor has a dtype that cannot be stored.
    pub fn save(&self, checkpoint: &mut Checkpoint, best: bool) -> Result<PathBuf, CheckpointError> {
        std::fs::create_dir_all(&self.folder).map_err(files::failed(&self.folder))?;
        self.remove_unfinished();
        checkpoint.sequence = self.list().first().map_or(0, |(newest, _)| *newest) + 1;
        let name = format!("{:06}-step-{}", checkpoint.sequence, checkpoint.step);
        let (unfinished, path) = (self.folder.join(format!("{UNFINISHED}{name}")), self.folder.join(&name));
        let written = std::fs::create_dir(&unfinished)
            .map_err(files::failed(&unfinished))
            .and_then(|()| write(&unfinished, checkpoint))
            .and_then(|()| files::sync_folder(&unfinished))
            .and_then(|()| std::fs::rename(&unfinished, &path).map_err(files::failed(&path)))
            .and_then(|()| files::sync_folder(&self.folder));
        if let Err(error) = written {
            // What was written is of no use and takes room.
            self.remove_unfinished();
            return Err(error);
        }
        if best {
            self.mark_best(&name)?;
        }
        self.remove_old();
        Ok(path)
    }

    /// Returns the newest checkpoint that is whole; `None` where there is none at all.
    ///
    /// # Errors
    /// There are checkpoints, and none can be read: the error of the newest.
    pub fn latest(&self) -> Result<Option<Latest>, CheckpointError> {
        let mut damaged = Vec::new();
        for (_, path) in self.list() {
            match load(&path) {
                Ok(checkpoint) => return Ok(Some(Latest { checkpoint, path, damaged })),
                Err(error) => damaged.push(error),
            }
        }
        if damaged.is_empty() { Ok(None) } else { Err(damaged.swap_remove(0)) }
    }

    /// Returns the folder of the best checkpoint, where one was marked and is there.
    pub fn best(&self) -> Option<PathBuf> {
        let name = std::fs::read_to_string(self.folder.join(BEST)).ok()?;
        let path = self.folder.join(Path::new(name.trim()).file_name()?);
        path.is_dir().then_some(path)
    }

    fn mark_best(&self, name: &str) -> Result<(), CheckpointError> {
        let (unfinished, path) = (self.folder.join(format!("{UNFINISHED}{BEST}")), self.folder.join(BEST));
        files::write(&unfinished, format!("{name}\n").as_bytes())?;
        files::synced(&unfinished)?;
        std::fs::rename(&unfinished, &path).map_err(files::failed(&path))?;
        files::sync_folder(&self.folder)
    }

    /// Removes what need not stay; one that cannot be removed does no harm.
    fn remove_old(&self) {
        let best = self.best();
        for (_, path) in self.list().into_iter().skip(self.keep).filter(|(_, path)| Some(path) != best.as_ref()) {
            // Under another name it is no checkpoint any more, whatever is left of it.
            let gone = self.folder.join(format!("{UNFINISHED}old"));
            if std::fs::rename(&path, &gone).is_ok() {
                let _ = std::fs::remove_dir_all(gone);
            }
        }
    }

    /// Removes what a save left that did not end.
    fn remove_unfinished(&self) {
        let Ok(entries) = self.folder.read_dir() else { return };
        for entry in entries.filter_map(Result::ok) {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED)) {
                let path = entry.path();
                let _ = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            }
        }
    }
}
