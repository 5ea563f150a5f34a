//! The places where a library can lie.

use super::{LocateOptions, Source, binary, pinned};
use crate::runner::device::Device;
use crate::runner::surroundings::Surroundings;
use std::path::{Path, PathBuf};
use std::process::Command;

impl Surroundings {
    /// Returns the libraries that somebody named.
    pub fn named(&self, options: &LocateOptions) -> Vec<(Source, PathBuf)> {
        let flag = options.runtime.clone().map(|path| (Source::Flag, path));
        let variable = self.get("ORT_DYLIB_PATH").map(|path| (Source::Environment, path));
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        flag.into_iter().chain(variable).map(|(source, path)| (source, absolute(path))).collect()
    }

    /// Returns the libraries of one kind of place; the cache has one for each kind of device.
    pub fn search(&self, source: Source, device: Device) -> Vec<PathBuf> {
        match source {
            Source::Cache => self.cache().map(|cache| libraries(&pinned::folder(&cache, device))).unwrap_or_default(),
            Source::Python => self.python(),
            Source::System => self.system(),
            _ => Vec::new(),
        }
    }

    fn python(&self) -> Vec<PathBuf> {
        let folders = self.packages();
        folders.iter().flat_map(|folder| libraries(&folder.join("onnxruntime").join("capi"))).collect()
    }

    fn system(&self) -> Vec<PathBuf> {
        let mut folders = self.library_path();
        if cfg!(target_os = "linux") {
            folders.extend(loader_folders());
        }
        if cfg!(unix) {
            folders.extend(["/usr/local/lib", "/usr/lib", "/opt/homebrew/lib"].map(PathBuf::from));
        }
        let mut found: Vec<PathBuf> = Vec::new();
        for path in folders.iter().flat_map(|folder| libraries(folder)) {
            let real = path.canonicalize().unwrap_or(path);
            if !found.contains(&real) {
                found.push(real);
            }
        }
        found
    }
}

/// Returns the folders in which the system's loader knows an ONNX Runtime.
fn loader_folders() -> Vec<PathBuf> {
    let programs = ["/sbin/ldconfig", "/usr/sbin/ldconfig", "ldconfig"];
    let output = programs.iter().find_map(|program| Command::new(program).arg("-p").output().ok());
    let Some(output) = output else { return Vec::new() };
    let text = String::from_utf8_lossy(&output.stdout);
    let paths = text.lines().filter_map(|line| line.split_once(" => ")).map(|(_, path)| Path::new(path.trim()));
    let libraries = paths.filter(|path| path.file_name().is_some_and(binary::is_library));
    libraries.filter_map(Path::parent).map(Path::to_path_buf).collect()
}

/// Returns the ONNX Runtime libraries of a folder, the newest by name first; a file and links to
/// it count once.
pub(super) fn libraries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(binary::is_library))
        .collect();
    found.sort_by_key(|path| std::cmp::Reverse((binary::name_version(path), path.clone())));
    let mut real = Vec::new();
    found.retain(|path| {
        let target = path.canonicalize().unwrap_or_else(|_| path.clone());
        let new = !real.contains(&target);
        real.push(target);
        new
    });
    found
}
