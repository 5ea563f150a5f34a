//! Files that are written whole or not at all.
//!
//! A link is followed: the file that it leads to is replaced and the link stays. A file keeps its permissions. What is no
//! ordinary file, such as `/dev/null` or a pipe, is written to in place.

use super::TrainerError;
use crate::error::ErrorKind;
use crate::onnx::Encoded;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Writes a file under a temporary name beside it and renames it.
///
/// # Errors
/// The folder cannot be written.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), TrainerError> {
    write_with(&followed(path), &mut |out| out.write_all(bytes))
}

/// Writes a model, made by `encode` for the name of its data file, which lies beside it.
///
/// # Errors
/// The model cannot be encoded, or the folder cannot be written.
pub fn write_model(
    path: &Path,
    encode: impl FnOnce(&str) -> Result<Encoded, crate::onnx::OnnxError>,
) -> Result<(), TrainerError> {
    let path = &followed(path);
    let name = format!("{}.data", path.file_name().unwrap_or_default().to_string_lossy());
    let encoded = encode(&name)?;
    if !encoded.pieces.is_empty() {
        write_with(&path.with_file_name(&name), &mut |out| encoded.write_data(out))?;
    }
    write_file(path, &encoded.bytes)
}

/// Returns where a link to an ordinary file leads, and other paths as they are.
fn followed(path: &Path) -> PathBuf {
    let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    let leads_to_file = is_link && fs::metadata(path).is_ok_and(|found| found.is_file());
    leads_to_file.then(|| fs::canonicalize(path).ok()).flatten().unwrap_or_else(|| path.to_path_buf())
}

fn write_with(path: &Path, write: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>) -> Result<(), TrainerError> {
    let fail = |error: std::io::Error| {
        TrainerError::new(ErrorKind::BadInput, format!("cannot write {}: {error}", path.display()))
    };
    let before = fs::metadata(path).ok();
    if before.as_ref().is_some_and(|before| !before.is_file() && !before.is_dir()) {
        return fs::OpenOptions::new().write(true).open(path).and_then(|mut file| write(&mut file)).map_err(fail);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = fs::File::create(&temporary)
        .and_then(|mut file| {
            if let Some(before) = before.as_ref().map(fs::Metadata::permissions)
                && file.metadata()?.permissions() != before
            {
                file.set_permissions(before)?;
            }
            write(&mut file)?;
            file.sync_all()
        })
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_link_stays_and_a_file_keeps_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let [real, link, other] = ["real", "link", "other"].map(|name| folder.path().join(name));
        fs::write(&real, "before").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
        symlink("real", &link).unwrap();
        write_file(&link, b"after").unwrap();
        assert_eq!((fs::read_link(&link).unwrap(), fs::read(&real).unwrap()), ("real".into(), b"after".to_vec()));
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
        symlink("nowhere", &other).unwrap();
        write_file(&other, b"new").unwrap();
        assert!(fs::symlink_metadata(&other).unwrap().is_file(), "a link that leads nowhere is replaced");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "no temporary file is left");
    }

    #[test]
    fn a_pipe_is_written_to_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut text = String::new();
                fs::File::open(pipe).unwrap().read_to_string(&mut text).map(|_| text)
            }
        });
        write_file(&pipe, b"text").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), "text");
        assert!(!fs::symlink_metadata(&pipe).unwrap().is_file());
    }
}
