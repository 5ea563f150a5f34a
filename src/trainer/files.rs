//! Files that are written whole or not at all.

use super::TrainerError;
use crate::error::ErrorKind;
use crate::onnx::Encoded;
use std::fs;
use std::io::Write;
use std::path::Path;

/// Writes a file under a temporary name beside it and renames it.
///
/// # Errors
/// The folder cannot be written.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), TrainerError> {
    write_with(path, &mut |out| out.write_all(bytes))
}

/// Writes a model, made by `encode` for the name of its data file, which lies beside it.
///
/// # Errors
/// The model cannot be encoded, or the folder cannot be written.
pub fn write_model(
    path: &Path,
    encode: impl FnOnce(&str) -> Result<Encoded, crate::onnx::OnnxError>,
) -> Result<(), TrainerError> {
    let name = format!("{}.data", path.file_name().unwrap_or_default().to_string_lossy());
    let encoded = encode(&name)?;
    if !encoded.pieces.is_empty() {
        write_with(&path.with_file_name(&name), &mut |out| encoded.write_data(out))?;
    }
    write_file(path, &encoded.bytes)
}

fn write_with(path: &Path, write: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>) -> Result<(), TrainerError> {
    let fail = |error: std::io::Error| {
        TrainerError::new(ErrorKind::BadInput, format!("cannot write {}: {error}", path.display()))
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = fs::File::create(&temporary)
        .and_then(|mut file| write(&mut file).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        fail(error)
    })
}

/// Makes a folder with its parents.
///
/// # Errors
/// It cannot be made.
pub fn make_folder(path: &Path) -> Result<(), TrainerError> {
    fs::create_dir_all(path).map_err(|error| {
        TrainerError::new(ErrorKind::BadInput, format!("cannot make the folder {}: {error}", path.display()))
    })
}
