//! Which files belong together.

use super::ArtifactsError;
use std::path::{Path, PathBuf};

const TRAINING: &str = "training_model.onnx";
const EVAL: &str = "eval_model.onnx";
const OPTIMIZER: &str = "optimizer_model.onnx";
const CHECKPOINT: &str = "checkpoint";

/// The files of one set of artifacts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// `<prefix>training_model.onnx`.
    pub training: PathBuf,
    /// `<prefix>eval_model.onnx`, where it is there.
    pub eval: Option<PathBuf>,
    /// `<prefix>optimizer_model.onnx`, where it is there.
    pub optimizer: Option<PathBuf>,
    /// `<prefix>checkpoint`.
    pub checkpoint: PathBuf,
}

/// Returns the artifacts that a path means: a folder that holds them, or one of their files by its
/// name. `None` for any other file.
///
/// # Errors
/// The path is a folder without artifacts or with several of them, or the checkpoint is missing.
pub fn find(path: &Path) -> Result<Option<Files>, ArtifactsError> {
    if path.is_dir() {
        return of_folder(path).map(Some);
    }
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    let folder = path.parent().unwrap_or(Path::new(""));
    if let Some(prefix) = name.strip_suffix(TRAINING) {
        return if path.exists() { of_prefix(folder, prefix).map(Some) } else { Ok(None) };
    }
    let sibling = [EVAL, OPTIMIZER, CHECKPOINT].into_iter().find_map(|file| name.strip_suffix(file));
    match sibling {
        Some(prefix) if folder.join(format!("{prefix}{TRAINING}")).is_file() => of_prefix(folder, prefix).map(Some),
        _ => Ok(None),
    }
}

fn of_folder(folder: &Path) -> Result<Files, ArtifactsError> {
    let fail = |source| ArtifactsError::Read { path: folder.to_path_buf(), source };
    let mut prefixes = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        prefixes.extend(name.to_str().and_then(|name| name.strip_suffix(TRAINING)).map(str::to_string));
    }
    prefixes.sort();
    match prefixes.as_slice() {
        [] => Err(ArtifactsError::NoModel { path: folder.to_path_buf() }),
        [prefix] => of_prefix(folder, prefix),
        several => {
            let names = several.iter().take(5).map(|prefix| format!("{prefix}{TRAINING}")).collect::<Vec<_>>();
            Err(ArtifactsError::Several { path: folder.to_path_buf(), names: names.join(", ") })
        }
    }
}

fn of_prefix(folder: &Path, prefix: &str) -> Result<Files, ArtifactsError> {
    let at = |name: &str| folder.join(format!("{prefix}{name}"));
    let (training, checkpoint) = (at(TRAINING), at(CHECKPOINT));
    if !checkpoint.exists() {
        return Err(ArtifactsError::NoCheckpoint { model: training, path: checkpoint });
    }
    let present = |name: &str| Some(at(name)).filter(|path| path.exists());
    Ok(Files { training, eval: present(EVAL), optimizer: present(OPTIMIZER), checkpoint })
}
