//! The places where a library can lie.

use super::{LocateOptions, Source, binary, fetch};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the value of an environment variable.
type Variable = dyn Fn(&str) -> Option<OsString>;

/// What the search depends on: environment variables.
pub(super) struct Surroundings {
    pub variable: Box<Variable>,
}

impl Surroundings {
    pub fn of_process() -> Surroundings {
        Surroundings { variable: Box::new(|name| std::env::var_os(name)) }
    }

    fn get(&self, name: &str) -> Option<PathBuf> {
        (self.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    pub fn named(&self, options: &LocateOptions) -> Vec<(Source, PathBuf)> {
        let flag = options.runtime.clone().map(|path| (Source::Flag, path));
        let variable = self.get("ORT_DYLIB_PATH").map(|path| (Source::Environment, path));
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        flag.into_iter().chain(variable).map(|(source, path)| (source, absolute(path))).collect()
    }

    pub fn search(&self, source: Source) -> Vec<PathBuf> {
        match source {
            Source::Cache => self.cache().map(|cache| libraries(&fetch::folder(&cache))).unwrap_or_default(),
            Source::Python => self.python(),
            Source::System => self.system(),
            _ => Vec::new(),
        }
    }

    /// Returns our cache folder, which need not exist.
    pub fn cache(&self) -> Option<PathBuf> {
        if let Some(folder) = self.get("FREEZE_PLAN_CACHE") {
            return std::path::absolute(folder).ok();
        }
        if let Some(folder) = self.get("XDG_CACHE_HOME").filter(|folder| folder.is_absolute()) {
            return Some(folder.join("freeze-plan"));
        }
        if cfg!(windows)
            && let Some(folder) = self.get("LOCALAPPDATA")
        {
            return Some(folder.join("freeze-plan"));
        }
        self.get("HOME").or_else(|| self.get("USERPROFILE")).map(|home| home.join(".cache").join("freeze-plan"))
    }

    /// Returns the Python programs, the active environment's first.
    pub fn pythons(&self) -> Vec<PathBuf> {
        let bin = if cfg!(windows) { "Scripts" } else { "bin" };
        let active = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(|name| self.get(name));
        let mut folders: Vec<PathBuf> = active.map(|folder| folder.join(bin)).collect();
        if let Some(path) = self.get("PATH") {
            folders.extend(std::env::split_paths(&path));
        }
        let names: &[&str] = if cfg!(windows) { &["python.exe", "python3.exe"] } else { &["python3"] };
        let mut programs: Vec<PathBuf> = Vec::new();
        for program in folders.iter().flat_map(|folder| names.iter().map(move |name| folder.join(name))) {
            if program.is_file() && !programs.contains(&program) {
                programs.push(program);
            }
        }
        programs
    }

    fn python(&self) -> Vec<PathBuf> {
        let script = "import sys\nfor folder in sys.path:\n    if folder: print(folder)";
        let Some(python) = self.pythons().into_iter().next() else { return Vec::new() };
        let output = Command::new(python).args(["-c", script]).env("PYTHONIOENCODING", "utf-8").output();
        let Ok(output) = output else { return Vec::new() };
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().flat_map(|folder| libraries(&Path::new(folder).join("onnxruntime").join("capi"))).collect()
    }

    fn system(&self) -> Vec<PathBuf> {
        let variable = match std::env::consts::OS {
            "windows" => "PATH",
            "macos" => "DYLD_LIBRARY_PATH",
            _ => "LD_LIBRARY_PATH",
        };
        let paths = self.get(variable).map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>());
        let mut folders: Vec<PathBuf> = paths.unwrap_or_default();
        if cfg!(target_os = "linux") {
            folders.extend(loader_folders());
        }
        if cfg!(unix) {
            folders.extend(["/usr/local/lib", "/usr/lib", "/opt/homebrew/lib"].map(PathBuf::from));
        }
        let mut found: Vec<PathBuf> = Vec::new();
        for path in folders.iter().filter(|folder| folder.is_absolute()).flat_map(|folder| libraries(folder)) {
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
