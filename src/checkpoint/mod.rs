//! Checkpoints: every tensor of a run at one step, so that nothing is lost when it stops.
//!
//! A checkpoint is a folder: `checkpoint.json` says what it is and names the tensor file with its
//! sha256, `tensors-<hash>.safetensors` holds the tensors. Both are written under a temporary name,
//! synced and renamed, the JSON last: at any moment the folder holds the old checkpoint or the new
//! one. What this module does not do: decide when to save, or what a tensor means.

use crate::data::safetensors;
use crate::error::ErrorKind;
use crate::graph::Tensor;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The format that is written.
pub const FORMAT: &str = "freeze-plan-checkpoint/1";

const INDEX: &str = "checkpoint.json";

/// The state of a run between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The epoch that is being trained, from 1.
    pub epoch: u64,
    /// Steps done over the run.
    pub step: u64,
    /// Identifies the plan that the run follows.
    pub plan_hash: String,
    /// What the run measured and decided, as it needs it to go on.
    pub run: serde_json::Value,
    /// Parameters, statistics and slots by name.
    pub tensors: BTreeMap<String, Tensor>,
}

/// `checkpoint.json`. Fields are only ever added; a reader skips those it does not know.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    format: String,
    epoch: u64,
    step: u64,
    plan_hash: String,
    #[serde(default)]
    run: serde_json::Value,
    tensors: TensorFile,
}

#[derive(Debug, Serialize, Deserialize)]
struct TensorFile {
    file: String,
    sha256: String,
    count: usize,
}

/// A checkpoint that cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CheckpointError {
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}: {reason}", .path.display())]
    Tensors { path: PathBuf, reason: String },
    #[error("{} holds no checkpoint", .folder.display())]
    None { folder: PathBuf },
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is no checkpoint: {reason}", .path.display())]
    NotCheckpoint { path: PathBuf, reason: String },
    #[error("{} has format \"{found}\", this version reads \"{FORMAT}\"", .path.display())]
    Format { path: PathBuf, found: String },
    #[error("{} is damaged: its sha256 is {found}, expected {expected}", .path.display())]
    Hash { path: PathBuf, expected: String, found: String },
    #[error("{} is damaged: it holds {found} tensors, expected {expected}", .path.display())]
    Count { path: PathBuf, expected: usize, found: usize },
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
}

impl CheckpointError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::BadInput
    }
}

/// Writes a checkpoint into a folder, which is made; a checkpoint that is there is replaced.
///
/// # Errors
/// The disk refuses, or a tensor has a dtype that cannot be stored.
pub fn save(folder: &Path, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| CheckpointError::Write { path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let temporary = folder.join(".tensors.tmp");
    let tensors = checkpoint.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    safetensors::write(&temporary, tensors)
        .map_err(|reason| CheckpointError::Tensors { path: temporary.clone(), reason })?;
    File::options().write(true).open(&temporary).and_then(|file| file.sync_all()).map_err(failed(&temporary))?;
    let sha256 = hash(&temporary).map_err(failed(&temporary))?;
    let file = format!("tensors-{}.safetensors", &sha256[..16]);
    let path = folder.join(&file);
    std::fs::rename(&temporary, &path).map_err(failed(&path))?;
    sync_folder(folder).map_err(failed(folder))?;

    let index = Index {
        format: FORMAT.into(),
        epoch: checkpoint.epoch,
        step: checkpoint.step,
        plan_hash: checkpoint.plan_hash.clone(),
        run: checkpoint.run.clone(),
        tensors: TensorFile { file: file.clone(), sha256, count: checkpoint.tensors.len() },
    };
    let text = serde_json::to_string_pretty(&index).expect("invariant: strings and numbers are JSON");
    let temporary = folder.join(".checkpoint.tmp");
    let path = folder.join(INDEX);
    let written = File::create(&temporary).and_then(|mut out| {
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.sync_all()
    });
    written.map_err(failed(&temporary))?;
    std::fs::rename(&temporary, &path).map_err(failed(&path))?;
    sync_folder(folder).map_err(failed(folder))?;
    remove_others(folder, &file);
    Ok(())
}

/// Reads the checkpoint of a folder. Its tensors are mapped, not copied.
///
/// # Errors
/// There is none, it is damaged, or it has another format.
pub fn load(folder: &Path) -> Result<Checkpoint, CheckpointError> {
    let path = folder.join(INDEX);
    let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => CheckpointError::None { folder: folder.to_path_buf() },
        _ => CheckpointError::Read { path: path.clone(), source },
    })?;
    let broken = |reason: String| CheckpointError::NotCheckpoint { path: path.clone(), reason };
    // The format decides how the rest is read, so it is looked at alone.
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
    let format = value.get("format").and_then(serde_json::Value::as_str).unwrap_or_default();
    if format != FORMAT {
        return Err(match format.split_once('/') {
            Some(("freeze-plan-checkpoint", _)) => CheckpointError::Format { path, found: format.into() },
            _ => broken(format!("its format is not \"{FORMAT}\"")),
        });
    }
    let index: Index = serde_json::from_value(value).map_err(|error| broken(error.to_string()))?;
    if Path::new(&index.tensors.file).file_name() != Some(index.tensors.file.as_ref()) {
        return Err(broken(format!("\"{}\" is no file name", index.tensors.file)));
    }
    let path = folder.join(&index.tensors.file);
    let found = hash(&path).map_err(|source| CheckpointError::Read { path: path.clone(), source })?;
    if found != index.tensors.sha256 {
        return Err(CheckpointError::Hash { path, expected: index.tensors.sha256, found });
    }
    let tensors: BTreeMap<String, Tensor> = safetensors::read(&path, None)?.into_iter().collect();
    if tensors.len() != index.tensors.count {
        return Err(CheckpointError::Count { path, expected: index.tensors.count, found: tensors.len() });
    }
    Ok(Checkpoint { epoch: index.epoch, step: index.step, plan_hash: index.plan_hash, run: index.run, tensors })
}

/// Removes the tensor files of earlier checkpoints; one that cannot be removed does no harm.
fn remove_others(folder: &Path, keep: &str) {
    let Ok(entries) = folder.read_dir() else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with("tensors-") && name.ends_with(".safetensors") && name != keep {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Makes the names in a folder last; systems that cannot open a folder need no such call.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn hash(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::DType;

    fn checkpoint(step: u64) -> Checkpoint {
        let weight = Tensor::from_vec(&[2, 2], vec![step as f32, -0.0, f32::MIN_POSITIVE, 3.5]);
        let tensors = [
            ("layer.weight", weight),
            ("layer.weight.step", Tensor::scalar(step as i64)),
            ("empty", Tensor::zeros(DType::F16, &[0, 3])),
        ];
        let tensors = tensors.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect();
        Checkpoint { epoch: 2, step, plan_hash: "abc".into(), run: serde_json::json!({"delay": 1}), tensors }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }

    #[test]
    fn a_checkpoint_round_trips_and_replaces_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("checkpoints").join("last");
        let first = checkpoint(7);
        save(&folder, &first).unwrap();
        let loaded = load(&folder).unwrap();
        assert_eq!(loaded, first);
        save(&folder, &checkpoint(8)).unwrap();
        assert_eq!(load(&folder).unwrap(), checkpoint(8));
        assert_eq!(loaded, first, "a mapped checkpoint outlives its file");
        assert_eq!(names(&folder).len(), 2, "{:?}", names(&folder));
        save(&folder, &checkpoint(8)).unwrap();
        assert_eq!(load(&folder).unwrap(), checkpoint(8));
    }

    #[test]
    fn an_interrupted_save_leaves_the_last_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &checkpoint(7)).unwrap();
        std::fs::write(folder.path().join(".tensors.tmp"), "half").unwrap();
        std::fs::write(folder.path().join("tensors-0123456789abcdef.safetensors"), "whole, not yet named").unwrap();
        std::fs::write(folder.path().join(".checkpoint.tmp"), "{").unwrap();
        assert_eq!(load(folder.path()).unwrap(), checkpoint(7));
        save(folder.path(), &checkpoint(8)).unwrap();
        assert_eq!(load(folder.path()).unwrap(), checkpoint(8));
        assert_eq!(names(folder.path()).len(), 2, "{:?}", names(folder.path()));
    }

    #[test]
    fn damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let reads = || load(path).unwrap_err().to_string().replace(&path.display().to_string(), "DIR");
        assert_eq!(reads(), "DIR holds no checkpoint");
        save(path, &checkpoint(7)).unwrap();
        let index = std::fs::read_to_string(path.join(INDEX)).unwrap();
        let file = names(path).into_iter().find(|name| name.starts_with("tensors-")).unwrap();
        let bytes = std::fs::read(path.join(&file)).unwrap();

        let mut flipped = bytes.clone();
        *flipped.last_mut().unwrap() ^= 1;
        std::fs::write(path.join(&file), &flipped).unwrap();
        let text = reads();
        assert!(text.starts_with(&format!("DIR/{file} is damaged: its sha256 is ")), "{text}");
        std::fs::remove_file(path.join(&file)).unwrap();
        assert_eq!(reads(), format!("cannot read DIR/{file}"));
        std::fs::write(path.join(&file), &bytes).unwrap();

        let cases = [
            (
                index.replace(FORMAT, "freeze-plan-checkpoint/9"),
                "DIR/checkpoint.json has format \"freeze-plan-checkpoint/9\", this version reads \"freeze-plan-checkpoint/1\"",
            ),
            (
                index.replace(FORMAT, "other/1"),
                "DIR/checkpoint.json is no checkpoint: its format is not \"freeze-plan-checkpoint/1\"",
            ),
            (
                index.replace("\"plan_hash\"", "\"plan\""),
                "DIR/checkpoint.json is no checkpoint: missing field `plan_hash`",
            ),
            (
                index.replace(&file, "../x.safetensors"),
                "DIR/checkpoint.json is no checkpoint: \"../x.safetensors\" is no file name",
            ),
            (
                index.replace("\"count\": 3", "\"count\": 4"),
                &format!("DIR/{file} is damaged: it holds 3 tensors, expected 4"),
            ),
            (String::new(), "DIR/checkpoint.json is no checkpoint: EOF while parsing"),
        ];
        for (text, expected) in cases {
            std::fs::write(path.join(INDEX), text).unwrap();
            let found = reads();
            assert!(found.starts_with(expected), "{found}");
        }
        std::fs::write(path.join(INDEX), index.replace("\"epoch\"", "\"added later\": 1, \"epoch\"")).unwrap();
        assert_eq!(load(path).unwrap(), checkpoint(7));
    }

    #[test]
    fn a_dtype_that_cannot_be_stored_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut bad = checkpoint(1);
        bad.tensors.insert("words".into(), Tensor::new(DType::String, vec![1], bytes::Bytes::new()).unwrap());
        let error = save(folder.path(), &bad).unwrap_err().to_string();
        assert!(error.ends_with("\"words\" has dtype string, which cannot be stored"), "{error}");
        assert!(load(folder.path()).is_err());
    }
}
