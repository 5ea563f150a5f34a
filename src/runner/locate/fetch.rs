//! Fetches pinned libraries: wheels of PyPI, by pip, each under a pinned sha256.
//!
//! A wheel is asked for by platform and for one fixed Python. Only libraries and licences are kept.

use super::Problem;
use super::wheels::{Build, Release};
use crate::checkpoint::file_sha256 as sha256;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A pinned library cannot be fetched.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum FetchError {
    #[error("there is no folder to keep it: none of FREEZE_PLAN_CACHE, XDG_CACHE_HOME and HOME is set")]
    NoCache,
    #[error("{package} {version} has no build for {os} on {arch}")]
    Platform { package: &'static str, version: &'static str, os: &'static str, arch: &'static str },
    #[error("there is no python3 whose pip could fetch it")]
    NoPython,
    #[error("pip of {} failed: {reason}", .python.display())]
    Pip { python: PathBuf, reason: String },
    #[error("the wheel {} has sha256 {found}, expected {expected}", .wheel.display())]
    Hash { wheel: PathBuf, expected: &'static str, found: String },
    #[error("the wheel cannot be unpacked: {0}")]
    Unpack(String),
    #[error("{}: {reason}", .path.display())]
    Cache { path: PathBuf, reason: std::io::Error },
    #[error("{} {problem}", .path.display())]
    Unusable { path: PathBuf, problem: Problem },
}

impl Release {
    /// Returns the wheel for this system.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn build_here(&self) -> Result<&'static Build, FetchError> {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        let found = self.builds.iter().find(|build| build.os == os && build.arch == arch);
        found.ok_or(FetchError::Platform { package: self.package, version: self.version, os, arch })
    }
}

/// Fetches what a release keeps into the folder `target`, unless `complete` finds that it is there. Of several processes
/// one fetches and the others wait for it.
pub(super) fn fetch(
    release: &Release,
    target: &Path,
    pythons: &[PathBuf],
    complete: &dyn Fn() -> bool,
    say: &mut dyn FnMut(&str),
) -> Result<(), FetchError> {
    let build = release.build_here()?;
    let parent = target.parent().expect("invariant: the folder of a release lies in a folder").to_path_buf();
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |reason| FetchError::Cache { path, reason }
    };
    std::fs::create_dir_all(&parent).map_err(failed(&parent))?;
    let lock = File::create(parent.join(".lock")).map_err(failed(&parent))?;
    // A file system without locks is no reason to stop: the rename below is atomic.
    let _ = lock.lock();
    if complete() {
        return Ok(());
    }
    let (package, version, size) = (release.package, release.version, size(build.bytes));
    say(&format!("fetching {package} {version} ({size}) with pip, into {}", target.display()));
    let work = parent.join(format!(".{package}-{version}-{}", std::process::id()));
    let result = download(release, build, &work, pythons).and_then(|file| {
        let unpacked = work.join("unpacked");
        unpack(&file, build.keep, &unpacked)?;
        if target.exists() {
            std::fs::remove_dir_all(target).map_err(failed(target))?;
        }
        std::fs::rename(&unpacked, target).map_err(failed(target))
    });
    let _ = std::fs::remove_dir_all(&work);
    result
}

/// Writes a size in MB (10^6 bytes), or in GB from a thousand of them.
pub(super) fn size(bytes: u64) -> String {
    match bytes.div_ceil(1_000_000) {
        megabytes @ 0..1000 => format!("{megabytes} MB"),
        megabytes => format!("{}.{} GB", megabytes.div_ceil(100) / 10, megabytes.div_ceil(100) % 10),
    }
}

fn download(release: &Release, build: &'static Build, work: &Path, pythons: &[PathBuf]) -> Result<PathBuf, FetchError> {
    let failed = |reason| FetchError::Cache { path: work.to_path_buf(), reason };
    std::fs::create_dir_all(work).map_err(failed)?;
    let requirements = work.join("requirements.txt");
    let line = format!("{}=={} --hash=sha256:{}\n", release.package, release.version, build.sha256);
    std::fs::write(&requirements, line).map_err(failed)?;
    let mut outcome = Err(FetchError::NoPython);
    for python in pythons {
        outcome = pip(python, build, work, &requirements);
        if outcome.is_ok() {
            break;
        }
    }
    outcome?;
    let mut files = work.read_dir().map_err(failed)?.filter_map(Result::ok).map(|entry| entry.path());
    let file = files.find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let file = file.ok_or_else(|| FetchError::Unpack(format!("pip left no wheel in {}", work.display())))?;
    let found = sha256(&file).map_err(failed)?;
    if found != build.sha256 {
        return Err(FetchError::Hash { wheel: file, expected: build.sha256, found });
    }
    Ok(file)
}

fn pip(python: &Path, build: &Build, work: &Path, requirements: &Path) -> Result<(), FetchError> {
    let failed = |reason: String| FetchError::Pip { python: python.to_path_buf(), reason };
    let output = Command::new(python)
        .args(["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir"])
        .args(["--no-deps", "--only-binary=:all:", "--require-hashes"])
        .args(["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--platform", build.platform])
        .arg("--dest")
        .arg(work)
        .arg("--requirement")
        .arg(requirements)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let errors: Vec<&str> = lines.iter().copied().filter(|line| line.starts_with("ERROR:")).collect();
    let line = errors.first().or(lines.last()).copied().unwrap_or("it said nothing");
    Err(failed(line.trim_start_matches("ERROR:").trim().to_string()))
}

/// Writes the members of a wheel that match a pattern into a folder, by their file names.
fn unpack(file: &Path, keep: &[&str], folder: &Path) -> Result<(), FetchError> {
    let failed = |error: &dyn std::fmt::Display| FetchError::Unpack(error.to_string());
    std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    let mut archive = File::open(file)
        .map_err(|error| failed(&error))
        .and_then(|file| zip::ZipArchive::new(file).map_err(|error| failed(&error)))?;
    let members = archive.file_names().map(|name| name.map(|name| name.into_owned()));
    let members: Vec<String> = members.collect::<Result<_, _>>().map_err(|error| failed(&error))?;
    for pattern in keep {
        let matching = glob::Pattern::new(pattern).map_err(|error| failed(&error))?;
        let mut found = members.iter().filter(|member| matching.matches(member)).peekable();
        if found.peek().is_none() {
            return Err(failed(&format!("it has no {pattern}")));
        }
        for member in found {
            let mut entry = archive.by_name(member).map_err(|error| failed(&format!("{member}: {error}")))?;
            let Some(name) = Path::new(member).file_name() else { continue };
            let mut out = File::create(folder.join(name)).map_err(|error| failed(&error))?;
            std::io::copy(&mut entry, &mut out).map_err(|error| failed(&format!("{member}: {error}")))?;
            out.sync_all().map_err(|error| failed(&error))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::wheels::{NVIDIA, ONNXRUNTIME};
    use super::*;
    use std::io::Write;

    #[test]
    fn only_what_is_kept_is_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.whl");
        let mut writer = zip::ZipWriter::new(File::create(&file).unwrap());
        let members = [
            "nvidia/cudnn/lib/libcudnn.so.9",
            "nvidia/cudnn/lib/libcudnn_ops.so.9",
            "nvidia/cudnn/include/cudnn.h",
            "nvidia_cudnn_cu13-9.26.0.51.dist-info/licenses/License.txt",
            "nvidia_cudnn_cu13-9.26.0.51.dist-info/METADATA",
        ];
        for name in members {
            writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(name.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        let out = folder.path().join("out");
        let build = &NVIDIA.iter().find(|release| release.package == "nvidia-cudnn-cu13").unwrap().builds[0];
        unpack(&file, build.keep, &out).unwrap();
        let mut found: Vec<_> = out.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        found.sort();
        assert_eq!(found, ["License.txt", "libcudnn.so.9", "libcudnn_ops.so.9"]);
        assert_eq!(std::fs::read_to_string(out.join("libcudnn.so.9")).unwrap(), members[0]);
        let error = unpack(&file, ONNXRUNTIME.builds[2].keep, &out).unwrap_err().to_string();
        assert!(error.contains("it has no onnxruntime/capi/libonnxruntime.1.32.0.dylib"), "{error}");
    }

    #[test]
    fn no_python_is_an_error_and_leaves_nothing() {
        let cache = tempfile::tempdir().unwrap();
        let target = cache.path().join("onnxruntime").join("1");
        let mut lines = Vec::new();
        let mut say = |line: &str| lines.push(line.to_string());
        let error = fetch(&ONNXRUNTIME, &target, &[], &|| false, &mut say).unwrap_err();
        assert!(matches!(error, FetchError::NoPython | FetchError::Platform { .. }), "{error}");
        assert!(!target.exists());
        assert!(lines.len() <= 1);
        assert!(cache.path().join("onnxruntime").read_dir().map_or(0, Iterator::count) <= 1);
    }

    #[test]
    fn sizes_are_rounded_up() {
        for (bytes, expected) in
            [(1, "1 MB"), (255_560_985, "256 MB"), (1_000_000_000, "1.0 GB"), (1_092_036_275, "1.1 GB")]
        {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn what_is_complete_is_not_fetched() {
        let cache = tempfile::tempdir().unwrap();
        let target = cache.path().join("onnxruntime").join("1");
        let outcome = fetch(&ONNXRUNTIME, &target, &[], &|| true, &mut |line| panic!("found {line}"));
        assert!(matches!(outcome, Ok(()) | Err(FetchError::Platform { .. })));
    }
}
