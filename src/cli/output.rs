//! What goes to stdout.

use super::failure::Failure;
use crate::error::ErrorKind;
pub use crate::trainer::files::{make_folder, write_file, write_model};
use std::io::Write;
use std::path::Path;

/// Prints data to stdout, or writes it to a file that is not called `-`.
///
/// # Errors
/// The file cannot be written.
pub fn emit(text: &str, file: Option<&Path>) -> Result<(), Failure> {
    match file.filter(|file| *file != Path::new("-")) {
        Some(path) => write_file(path, text.as_bytes()),
        None => {
            let mut out = std::io::stdout().lock();
            match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                // The reader has seen enough.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                Err(error) => Err(Failure::new(ErrorKind::BadInput, format!("cannot write to stdout: {error}"))),
                Ok(()) => Ok(()),
            }
        }
    }
}
