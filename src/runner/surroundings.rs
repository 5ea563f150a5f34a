//! What a search for libraries depends on: environment variables, the folders they lead to, and NVIDIA's driver.

use super::cuda::{CudaError, Driver};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the value of an environment variable.
type Variable = dyn Fn(&str) -> Option<OsString>;

/// Asks NVIDIA's driver.
type Ask = dyn Fn() -> Result<Driver, CudaError>;

/// Environment variables and the driver.
pub(super) struct Surroundings {
    pub variable: Box<Variable>,
    pub driver: Box<Ask>,
}

impl Surroundings {
    /// Returns those of this process.
    pub fn of_process() -> Surroundings {
        Surroundings { variable: Box::new(|name| std::env::var_os(name)), driver: Box::new(Driver::read) }
    }

    /// Returns the path that a variable names, if it is set.
    pub fn get(&self, name: &str) -> Option<PathBuf> {
        (self.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
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

    /// Returns the folders in which the active Python looks for packages.
    pub fn packages(&self) -> Vec<PathBuf> {
        let script = "import sys\nfor folder in sys.path:\n    if folder: print(folder)";
        let Some(python) = self.pythons().into_iter().next() else { return Vec::new() };
        let output = Command::new(python).args(["-c", script]).env("PYTHONIOENCODING", "utf-8").output();
        let Ok(output) = output else { return Vec::new() };
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(PathBuf::from).collect()
    }

    /// Returns the folders of the variable that the system's loader searches.
    pub fn library_path(&self) -> Vec<PathBuf> {
        let variable = match std::env::consts::OS {
            "windows" => "PATH",
            "macos" => "DYLD_LIBRARY_PATH",
            _ => "LD_LIBRARY_PATH",
        };
        let paths = self.get(variable).map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>());
        paths.unwrap_or_default().into_iter().filter(|folder| folder.is_absolute()).collect()
    }
}

/// Returns the folders in a folder, by name, without hidden ones.
pub(super) fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    found.retain(|path| path.is_dir() && !hidden(path));
    found.sort();
    found
}

#[cfg(test)]
pub(super) fn surroundings(variables: &[(&str, &Path)]) -> Surroundings {
    let owned: Vec<(String, OsString)> =
        variables.iter().map(|(name, value)| ((*name).to_string(), value.as_os_str().to_owned())).collect();
    Surroundings {
        variable: Box::new(move |name| owned.iter().find(|entry| entry.0 == name).map(|entry| entry.1.clone())),
        driver: Box::new(|| Err(CudaError::NoDevice)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_folder_follows_the_variables() {
        let home = Path::new("/home/a");
        type Case<'a> = (&'a [(&'a str, &'a Path)], Option<&'a str>);
        let cases: [Case; 4] = [
            (&[("FREEZE_PLAN_CACHE", Path::new("/c")), ("HOME", home)], Some("/c")),
            (&[("XDG_CACHE_HOME", Path::new("/x")), ("HOME", home)], Some("/x/freeze-plan")),
            (&[("XDG_CACHE_HOME", Path::new("relative")), ("HOME", home)], Some("/home/a/.cache/freeze-plan")),
            (&[], None),
        ];
        for (variables, expected) in cases {
            assert_eq!(surroundings(variables).cache(), expected.map(PathBuf::from), "{variables:?}");
        }
    }
}
