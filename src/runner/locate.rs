//! Finds the ONNX Runtime library to load.
//!
//! The order: `--runtime`, `ORT_DYLIB_PATH`, the cache folder, the active Python environment, the
//! system's library path, and last the pinned wheel (see [`fetch`]). A path that somebody named is
//! used or is an error; what a search finds and cannot use is skipped and remembered.
//!
//! For a device of NVIDIA a library counts that has the CUDA provider beside it, and NVIDIA's own
//! libraries are looked for as well and fetched last.

mod binary;
pub mod fetch;
mod nvidia;
mod pinned;
mod search;
mod wheels;

use super::cuda::{self, CudaError, provider_beside};
use super::device::Device;
use super::onnxruntime::{VersionError, library_version};
use super::surroundings::Surroundings;
use crate::error::ErrorKind;
use std::fmt;
use std::path::{Path, PathBuf};

/// The oldest ONNX Runtime that can be used, as (major, minor).
pub const OLDEST: (u32, u32) = (1, 24);

/// What the user said about the library.
#[derive(Clone, Debug, Default)]
pub struct LocateOptions {
    /// The file given with `--runtime`.
    pub runtime: Option<PathBuf>,
    /// Nothing may be fetched.
    pub offline: bool,
    /// On what it shall compute.
    pub device: Device,
}

/// Where a library was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `--runtime`.
    Flag,
    /// `ORT_DYLIB_PATH`.
    Environment,
    /// Our cache folder.
    Cache,
    /// A package of the active Python environment.
    Python,
    /// The system's library path.
    System,
    /// Fetched now.
    Fetched,
}

/// A library that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// The file, absolute.
    pub path: PathBuf,
    /// Where it was found.
    pub source: Source,
    /// The version it reports.
    pub version: String,
}

/// A library that was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Where it was found.
    pub source: Source,
    /// The file, absolute.
    pub path: PathBuf,
    /// The version it reports, or why it cannot be used.
    pub outcome: Result<String, Problem>,
    /// The CUDA of the provider beside it.
    pub cuda: Option<u32>,
}

/// Why a library cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Problem {
    #[error("does not exist")]
    Missing,
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error("is a folder, expected the library file itself")]
    Folder,
    #[error("is {found}, expected a shared library of this system")]
    NotALibrary { found: &'static str },
    #[error("is built for {found}, this program needs {needed}")]
    Architecture { found: String, needed: &'static str },
    #[error("cannot be loaded: {0}")]
    Load(String),
    #[error("is no ONNX Runtime library")]
    NotOnnxRuntime,
    #[error("is ONNX Runtime {found}, {}.{} or newer is needed", OLDEST.0, OLDEST.1)]
    TooOld { found: String },
    #[error("is the package for the CPU: there is no {provider} beside it")]
    CpuOnly { provider: String },
}

/// No library can be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum LocateError {
    #[error("{} ({source_name}) {problem}", .path.display())]
    Unusable { source_name: Source, path: PathBuf, problem: Problem },
    #[error("no {} was found, and --offline forbids fetching one{}", wanted(*.device), list_skipped(.skipped))]
    Offline { device: Device, skipped: Vec<Candidate> },
    #[error("no {} was found, and fetching one failed: {reason}{}", wanted(*.device), list_skipped(.skipped))]
    Fetch { device: Device, reason: fetch::FetchError, skipped: Vec<Candidate> },
    #[error("{} not found, and fetching failed: {reason}", list(.missing))]
    FetchNvidia { missing: Vec<String>, reason: fetch::FetchError },
    #[error(transparent)]
    Cuda(#[from] CudaError),
}

fn wanted(device: Device) -> String {
    let device = if device == Device::Cpu { "" } else { " for CUDA" };
    format!("ONNX Runtime{device} {}.{} or newer", OLDEST.0, OLDEST.1)
}

fn list(names: &[String]) -> String {
    let verb = if names.len() == 1 { "was" } else { "were" };
    format!("{} {verb}", names.join(", "))
}

impl LocateError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::BadInput
    }

    /// Returns what the user can do.
    pub fn hint(&self) -> String {
        let library = binary::file_names();
        match self {
            LocateError::Unusable { problem: Problem::CpuOnly { .. }, path, .. } => {
                CudaError::NoProvider { provider: provider_beside(path) }.hint()
            }
            LocateError::Unusable { source_name: Source::Environment, .. } => {
                format!("correct ORT_DYLIB_PATH or unset it; it names the file {library}")
            }
            LocateError::Unusable { .. } => format!("--runtime names the file {library} of ONNX Runtime 1.24 or newer"),
            LocateError::Offline { device: Device::Cpu, .. } | LocateError::Fetch { device: Device::Cpu, .. } => {
                format!(
                    "run `pip install onnxruntime`, or unpack a release of \
                 https://github.com/microsoft/onnxruntime/releases and pass --runtime with its {library}"
                )
            }
            LocateError::Offline { .. } | LocateError::Fetch { .. } => {
                "run `pip install \"onnxruntime-gpu[cuda,cudnn]\"`".into()
            }
            LocateError::FetchNvidia { missing, .. } => {
                let mut packages: Vec<String> =
                    missing.iter().filter_map(|name| cuda::package(name, wheels::CUDA)).collect();
                packages.dedup();
                format!("run `pip install {}`", packages.join(" "))
            }
            LocateError::Cuda(error) => error.hint(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Flag => "--runtime",
            Source::Environment => "ORT_DYLIB_PATH",
            Source::Cache => "cache",
            Source::Python => "Python package",
            Source::System => "system library",
            Source::Fetched => "fetched",
        })
    }
}

fn list_skipped(candidates: &[Candidate]) -> String {
    let lines = candidates.iter().filter_map(|candidate| {
        let problem = candidate.outcome.as_ref().err()?;
        Some(format!("; skipped {} ({}): it {problem}", candidate.path.display(), candidate.source))
    });
    lines.collect()
}

/// Returns the library to load; for a device of NVIDIA, one that can be used on it, with all that it needs loaded. `say`
/// gets a line when something is fetched or skipped.
///
/// # Errors
/// A named file cannot be used, nothing was found and nothing may or can be fetched, or CUDA cannot be used.
pub fn locate(options: &LocateOptions, say: &mut dyn FnMut(&str)) -> Result<Located, LocateError> {
    locate_in(options, &Surroundings::of_process(), say)
}

/// Returns our cache folder, which need not exist; `None` where the environment names none.
pub fn cache_folder() -> Option<PathBuf> {
    Surroundings::of_process().cache()
}

/// Returns every library there is, in the order of the search, with its version or why it cannot
/// be used. Fetches nothing.
pub fn survey(options: &LocateOptions) -> Vec<Candidate> {
    let surroundings = Surroundings::of_process();
    let other = if options.device == Device::Cpu { Device::Cuda(0) } else { Device::Cpu };
    let mut seen = Vec::new();
    let all = |device| SEARCHED.iter().flat_map(move |source| [(*source, device)]);
    let places = all(options.device).chain([(Source::Cache, other)]);
    let searched = places
        .flat_map(|(source, device)| surroundings.search(source, device).into_iter().map(move |path| (source, path)));
    surroundings
        .named(options)
        .into_iter()
        .chain(searched)
        .filter(|(_, path)| {
            let real = path.canonicalize().unwrap_or_else(|_| path.clone());
            let new = !seen.contains(&real);
            seen.push(real);
            new
        })
        .map(|(source, path)| Candidate {
            outcome: inspect(&path, Device::Cpu),
            cuda: cuda::cuda_of(&provider_beside(&path)).ok(),
            source,
            path,
        })
        .collect()
}

const SEARCHED: [Source; 3] = [Source::Cache, Source::Python, Source::System];

fn locate_in(
    options: &LocateOptions,
    surroundings: &Surroundings,
    say: &mut dyn FnMut(&str),
) -> Result<Located, LocateError> {
    let (found, skipped) = search(options, surroundings)?;
    if let Device::Cuda(index) = options.device {
        let provider = found.as_ref().map(|found| provider_beside(&found.path));
        nvidia::device(index, provider.as_deref(), surroundings)?;
        for Candidate { source, path, outcome, .. } in &skipped {
            if let Err(problem @ Problem::CpuOnly { .. }) = outcome {
                say(&format!("skipped {} ({source}): it {problem}", path.display()));
            }
        }
    }
    let located = match found {
        Some(found) => found,
        None => fetched(options, surroundings, skipped, say)?,
    };
    if options.device != Device::Cpu {
        nvidia::libraries(&provider_beside(&located.path), options, surroundings, say)?;
    }
    Ok(located)
}

/// Returns the first library that can be used, and those that were skipped before it.
fn search(
    options: &LocateOptions,
    surroundings: &Surroundings,
) -> Result<(Option<Located>, Vec<Candidate>), LocateError> {
    if let Some((source, path)) = surroundings.named(options).into_iter().next() {
        return match inspect(&path, options.device) {
            Ok(version) => Ok((Some(Located { path, source, version }), Vec::new())),
            Err(problem) => Err(LocateError::Unusable { source_name: source, path, problem }),
        };
    }
    let mut skipped = Vec::new();
    for source in SEARCHED {
        for path in surroundings.search(source, options.device) {
            match inspect(&path, options.device) {
                Ok(version) => return Ok((Some(Located { path, source, version }), skipped)),
                Err(problem) => skipped.push(Candidate { source, path, outcome: Err(problem), cuda: None }),
            }
        }
    }
    Ok((None, skipped))
}

fn fetched(
    options: &LocateOptions,
    surroundings: &Surroundings,
    skipped: Vec<Candidate>,
    say: &mut dyn FnMut(&str),
) -> Result<Located, LocateError> {
    let device = options.device;
    if options.offline {
        return Err(LocateError::Offline { device, skipped });
    }
    match pinned::onnxruntime(device, surroundings, say) {
        Ok((path, version)) => Ok(Located { path, source: Source::Fetched, version }),
        Err(reason) => Err(LocateError::Fetch { device, reason, skipped }),
    }
}

/// Returns the version of the library at `path`, when it can be used on the device.
fn inspect(path: &Path, device: Device) -> Result<String, Problem> {
    let found = path.metadata().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Problem::Missing,
        _ => Problem::Unreadable(error.to_string()),
    })?;
    if found.is_dir() {
        return Err(Problem::Folder);
    }
    binary::check(path)?;
    let provider = provider_beside(path);
    if device != Device::Cpu && !provider.is_file() {
        let provider = provider.file_name().map(|name| name.to_string_lossy().into_owned());
        return Err(Problem::CpuOnly { provider: provider.unwrap_or_default() });
    }
    let version = library_version(path).map_err(|error| match error {
        VersionError::Load(reason) => Problem::Load(reason),
        VersionError::NotOnnxRuntime => Problem::NotOnnxRuntime,
    })?;
    if version_numbers(&version) < [OLDEST.0, OLDEST.1] {
        return Err(Problem::TooOld { found: version });
    }
    Ok(version)
}

/// Returns the leading numbers of every dotted part of a version or file name's version.
fn version_numbers(version: &str) -> [u32; 2] {
    let mut parts = version.split('.').map(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    });
    [parts.next().unwrap_or(0), parts.next().unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::super::surroundings::surroundings;
    use super::search::libraries;
    use super::*;

    fn quiet(line: &str) {
        panic!("nothing is said, found {line}");
    }

    #[test]
    fn a_named_file_is_used_or_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("notes.txt");
        std::fs::write(&text, "no library").unwrap();
        let foreign = folder.path().join("libonnxruntime.so");
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        elf[18] = 0xf3;
        std::fs::write(&foreign, elf).unwrap();
        let missing = folder.path().join("none.so");
        let cases: [(&Path, &str); 4] = [
            (&missing, "does not exist"),
            (folder.path(), "is a folder, expected the library file itself"),
            (&text, "is neither a library nor a program, expected a shared library of this system"),
            (&foreign, "is built for riscv64, this program needs"),
        ];
        for (path, expected) in cases.into_iter().take(if cfg!(target_os = "linux") { 4 } else { 2 }) {
            let error = locate_in(
                &LocateOptions::default(),
                &surroundings(&[("ORT_DYLIB_PATH", path), ("HOME", folder.path())]),
                &mut quiet,
            )
            .unwrap_err();
            let text = error.to_string();
            assert!(text.contains(expected) && text.contains("(ORT_DYLIB_PATH)"), "{text}");
            assert!(error.hint().contains("ORT_DYLIB_PATH"));
            let flag = LocateOptions { runtime: Some(path.to_path_buf()), ..LocateOptions::default() };
            let text = locate_in(&flag, &surroundings(&[]), &mut quiet).unwrap_err().to_string();
            assert!(text.contains(expected) && text.contains("(--runtime)"), "{text}");
        }
    }

    #[test]
    fn what_a_search_cannot_use_is_skipped_and_reported() {
        let home = tempfile::tempdir().unwrap();
        let folder = pinned::folder(&home.path().join("freeze-plan"), Device::Cpu);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("libonnxruntime.so.1.32.0"), "half a download").unwrap();
        let options = LocateOptions { offline: true, ..LocateOptions::default() };
        let outcome = locate_in(&options, &surroundings(&[("XDG_CACHE_HOME", home.path())]), &mut quiet);
        if let Err(error) = outcome {
            let text = error.to_string();
            assert!(
                text.contains("--offline forbids") && text.contains("libonnxruntime.so.1.32.0 (cache): it "),
                "{text}"
            );
            assert!(error.hint().contains("pip install onnxruntime`"));
        }
    }

    #[test]
    fn libraries_come_newest_first_and_links_once() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.24.1", "libonnxruntime_providers_shared.so"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink("libonnxruntime.so.1.24.1", folder.path().join("libonnxruntime.so")).unwrap();
        let found: Vec<_> = libraries(folder.path()).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(found, ["libonnxruntime.so.1.24.1", "libonnxruntime.so.1.9.0"]);
    }

    #[test]
    fn versions_compare_by_number() {
        for (version, enough) in
            [("1.9.1", false), ("1.23.2", false), ("1.24.0-dev", true), ("1.32.0", true), ("2.0", true)]
        {
            assert_eq!(version_numbers(version) >= [OLDEST.0, OLDEST.1], enough, "{version}");
        }
    }
}
