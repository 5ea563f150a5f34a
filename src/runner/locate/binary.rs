//! What the name and the first bytes of a library file tell.

use super::Problem;
use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;

/// Returns true when a file's name is that of an ONNX Runtime library on some system.
pub(super) fn is_library(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let Some(rest) = name.strip_prefix("libonnxruntime.") else { return name == "onnxruntime.dll" };
    if cfg!(target_os = "macos") {
        return rest == "dylib" || rest.ends_with(".dylib");
    }
    rest == "so" || rest.starts_with("so.")
}

/// Returns the usual name of the library file on this system.
pub(super) fn file_names() -> &'static str {
    match std::env::consts::OS {
        "windows" => "onnxruntime.dll",
        "macos" => "libonnxruntime.dylib",
        _ => "libonnxruntime.so",
    }
}

/// Returns the numbers in a file name, for order.
pub(super) fn name_version(path: &Path) -> Vec<u32> {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.split('.').filter_map(|part| part.parse().ok()).collect()
}

/// Checks the first bytes on Linux: a shared library of this architecture. Elsewhere the loader
/// is left to say it.
pub(super) fn check(path: &Path) -> Result<(), Problem> {
    let mut head = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(20).read_to_end(&mut head));
    read.map_err(|error| Problem::Unreadable(error.to_string()))?;
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    if !head.starts_with(b"\x7fELF") || head.len() < 20 {
        let found = match head.as_slice() {
            [] => "an empty file",
            [b'M', b'Z', ..] => "a Windows library",
            [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => "a macOS library",
            [b'P', b'K', 3, 4, ..] => "a zip archive or wheel",
            [0x1f, 0x8b, ..] => "a compressed archive",
            _ => "neither a library nor a program",
        };
        return Err(Problem::NotALibrary { found });
    }
    let machine = [head[18], head[19]];
    let machine = if head[5] == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    let found = match machine {
        3 => "x86".to_string(),
        40 => "arm".to_string(),
        62 => "x86_64".to_string(),
        183 => "aarch64".to_string(),
        21 => "powerpc64".to_string(),
        22 => "s390x".to_string(),
        243 => "riscv64".to_string(),
        258 => "loongarch64".to_string(),
        other => format!("machine {other}"),
    };
    let needed = std::env::consts::ARCH;
    if found == needed { Ok(()) } else { Err(Problem::Architecture { found, needed }) }
}
