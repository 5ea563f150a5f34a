//! Files that outlive a crash.

use super::CheckpointError;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Returns the error of writing a file.
pub(super) fn failed(path: &Path) -> impl Fn(std::io::Error) -> CheckpointError {
    move |source| CheckpointError::Write { path: path.to_path_buf(), source }
}

/// Writes a file.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    File::create(path).and_then(|mut file| file.write_all(bytes)).map_err(failed(path))
}

/// Syncs a file that was written, and returns the SHA-256 of what it holds.
pub(super) fn synced(path: &Path) -> Result<String, CheckpointError> {
    let sync = || File::options().write(true).open(path)?.sync_all();
    sync().map_err(failed(path))?;
    sha256(path).map_err(failed(path))
}

/// Makes the names in a folder last; systems that cannot open a folder need no such call.
pub(super) fn sync_folder(folder: &Path) -> Result<(), CheckpointError> {
    if !cfg!(unix) {
        return Ok(());
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))
}

/// Returns the SHA-256 of a file.
pub(crate) fn sha256(path: &Path) -> std::io::Result<String> {
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
