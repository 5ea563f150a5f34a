//! What a library is linked with, as its file says.

use super::CudaError;
use memmap2::Mmap;
use object::read::elf::ElfFile64;
use object::{Endianness, Object, elf};
use std::fs::File;
use std::path::Path;

/// Returns the names of the libraries that the loader looks for when it loads `path`, in the order of the file: the NEEDED
/// entries of an ELF file, the imported libraries of a Windows one.
///
/// # Errors
/// The file cannot be read or is no library.
pub(super) fn requires(path: &Path) -> Result<Vec<String>, CudaError> {
    let fail = |reason: String| CudaError::Unreadable { path: path.to_path_buf(), reason };
    let file = File::open(path).map_err(|error| fail(error.to_string()))?;
    // SAFETY: the mapping is private and read-only; like every reader of mapped files this assumes that nobody truncates
    // the file while it is in use.
    let data = unsafe { Mmap::map(&file) }.map_err(|error| fail(error.to_string()))?;
    let names = if data.starts_with(b"MZ") { imported(&data) } else { needed(&data) };
    names.map_err(|error| fail(format!("is no library that can be read: {error}")))
}

fn needed(data: &[u8]) -> Result<Vec<String>, object::Error> {
    let file = ElfFile64::<Endianness>::parse(data)?;
    let table = file.elf_dynamic_table()?;
    let entries = table.iter().filter(|entry| entry.tag == elf::DT_NEEDED);
    entries.map(|entry| Ok(String::from_utf8_lossy(table.string(entry)?).into_owned())).collect()
}

fn imported(data: &[u8]) -> Result<Vec<String>, object::Error> {
    let mut names: Vec<String> = Vec::new();
    for import in object::File::parse(data)?.imports()? {
        let name = String::from_utf8_lossy(import.library()).into_owned();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn a_program_requires_the_libraries_it_is_linked_with() {
        let names = requires(&std::env::current_exe().unwrap()).unwrap();
        assert!(names.iter().any(|name| name == "libc.so.6"), "{names:?}");
    }

    #[test]
    fn what_is_no_library_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libcublas.so.13");
        for bytes in [&b""[..], b"MZ", b"\x7fELF", b"text"] {
            std::fs::write(&file, bytes).unwrap();
            let error = requires(&file).unwrap_err().to_string();
            assert!(error.contains("libcublas.so.13"), "{error}");
        }
        assert!(requires(&folder.path().join("none")).is_err());
    }
}
