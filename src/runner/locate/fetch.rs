//! Fetches the pinned ONNX Runtime: one wheel of PyPI, by pip, under a pinned sha256.
//!
//! The wheel is asked for by platform and for one fixed Python, because every wheel of a platform
//! carries the same library. Only the library and its licence are kept.

use super::{Problem, inspect};
use crate::checkpoint::file_sha256 as sha256;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version that is fetched.
pub const PINNED: &str = "1.32.0";

struct Wheel {
    os: &'static str,
    arch: &'static str,
    platform: &'static str,
    sha256: &'static str,
    library: &'static str,
}

const WHEELS: [Wheel; 5] = [
    Wheel {
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d",
        library: "libonnxruntime.so.1.32.0",
    },
    Wheel {
        os: "linux",
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        sha256: "2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c",
        library: "libonnxruntime.so.1.32.0",
    },
    Wheel {
        os: "macos",
        arch: "aarch64",
        platform: "macosx_14_0_arm64",
        sha256: "366b9e53d07812cc5c92822cecf7563b76a8a0f32ba3bb8dd232a206ac3bcb6c",
        library: "libonnxruntime.1.32.0.dylib",
    },
    Wheel {
        os: "windows",
        arch: "x86_64",
        platform: "win_amd64",
        sha256: "d7e0c45cc5f456ad7805e6dd256a7662736cda9c2fd17becae194eb3c2f6df72",
        library: "onnxruntime.dll",
    },
    Wheel {
        os: "windows",
        arch: "aarch64",
        platform: "win_arm64",
        sha256: "23361cdf98afac352d10aa7d9e0a10ceaeb02d38430fb693c6eff370196db62d",
        library: "onnxruntime.dll",
    },
];

/// The pinned library cannot be fetched.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FetchError {
    #[error("there is no folder to keep it: none of FREEZE_PLAN_CACHE, XDG_CACHE_HOME and HOME is set")]
    NoCache,
    #[error("onnxruntime {PINNED} has no build for {os} on {arch}")]
    Platform { os: &'static str, arch: &'static str },
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

/// Returns the folder of the pinned version in a cache folder.
pub(super) fn folder(cache: &Path) -> PathBuf {
    cache.join("onnxruntime").join(PINNED)
}

/// Fetches the library into the cache and returns the file and its version. Of several processes
/// one fetches and the others wait for it.
pub(super) fn fetch(
    cache: &Path,
    pythons: &[PathBuf],
    say: &mut dyn FnMut(&str),
) -> Result<(PathBuf, String), FetchError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let wheel = WHEELS.iter().find(|wheel| wheel.os == os && wheel.arch == arch);
    let wheel = wheel.ok_or(FetchError::Platform { os, arch })?;
    let target = folder(cache);
    let parent = target.parent().expect("invariant: the folder of a version lies in a folder").to_path_buf();
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |reason| FetchError::Cache { path, reason }
    };
    std::fs::create_dir_all(&parent).map_err(failed(&parent))?;
    let lock = File::create(parent.join(".lock")).map_err(failed(&parent))?;
    // A file system without locks is no reason to stop: the rename below is atomic.
    let _ = lock.lock();
    let library = target.join(wheel.library);
    if let Ok(version) = inspect(&library) {
        return Ok((library, version));
    }
    say(&format!("fetching ONNX Runtime {PINNED} with pip, into {}", target.display()));
    let work = parent.join(format!(".{PINNED}-{}", std::process::id()));
    let result = download(wheel, &work, pythons).and_then(|file| {
        let unpacked = work.join("unpacked");
        unpack(&file, wheel, &unpacked)?;
        if target.exists() {
            std::fs::remove_dir_all(&target).map_err(failed(&target))?;
        }
        std::fs::rename(&unpacked, &target).map_err(failed(&target))
    });
    let _ = std::fs::remove_dir_all(&work);
    result?;
    match inspect(&library) {
        Ok(version) => Ok((library, version)),
        Err(problem) => Err(FetchError::Unusable { path: library, problem }),
    }
}

fn download(wheel: &'static Wheel, work: &Path, pythons: &[PathBuf]) -> Result<PathBuf, FetchError> {
    let failed = |reason| FetchError::Cache { path: work.to_path_buf(), reason };
    std::fs::create_dir_all(work).map_err(failed)?;
    let requirements = work.join("requirements.txt");
    std::fs::write(&requirements, format!("onnxruntime=={PINNED} --hash=sha256:{}\n", wheel.sha256)).map_err(failed)?;
    let mut outcome = Err(FetchError::NoPython);
    for python in pythons {
        outcome = pip(python, wheel, work, &requirements);
        if outcome.is_ok() {
            break;
        }
    }
    outcome?;
    let mut files = work.read_dir().map_err(failed)?.filter_map(Result::ok).map(|entry| entry.path());
    let file = files.find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let file = file.ok_or_else(|| FetchError::Unpack(format!("pip left no wheel in {}", work.display())))?;
    let found = sha256(&file).map_err(failed)?;
    if found != wheel.sha256 {
        return Err(FetchError::Hash { wheel: file, expected: wheel.sha256, found });
    }
    Ok(file)
}

fn pip(python: &Path, wheel: &Wheel, work: &Path, requirements: &Path) -> Result<(), FetchError> {
    let failed = |reason: String| FetchError::Pip { python: python.to_path_buf(), reason };
    let output = Command::new(python)
        .args(["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(["--no-deps", "--only-binary=:all:", "--require-hashes"])
        .args(["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--platform", wheel.platform])
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

fn unpack(file: &Path, wheel: &Wheel, folder: &Path) -> Result<(), FetchError> {
    let failed = |error: &dyn std::fmt::Display| FetchError::Unpack(error.to_string());
    std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    let mut archive = File::open(file)
        .map_err(|error| failed(&error))
        .and_then(|file| zip::ZipArchive::new(file).map_err(|error| failed(&error)))?;
    let members =
        [(format!("onnxruntime/capi/{}", wheel.library), wheel.library), ("onnxruntime/LICENSE".into(), "LICENSE")];
    for (member, name) in members {
        let mut entry = archive.by_name(&member).map_err(|error| failed(&format!("{member}: {error}")))?;
        let mut out = File::create(folder.join(name)).map_err(|error| failed(&error))?;
        std::io::copy(&mut entry, &mut out).map_err(|error| failed(&format!("{member}: {error}")))?;
        out.sync_all().map_err(|error| failed(&error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn every_wheel_is_of_the_pinned_version() {
        for wheel in &WHEELS {
            assert_eq!(wheel.sha256.len(), 64, "{}", wheel.platform);
            assert!(wheel.library.contains(PINNED) || wheel.os == "windows", "{}", wheel.library);
        }
    }

    #[test]
    fn only_library_and_licence_are_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.whl");
        let mut writer = zip::ZipWriter::new(File::create(&file).unwrap());
        let members = ["onnxruntime/capi/libonnxruntime.so.1.32.0", "onnxruntime/LICENSE", "onnxruntime/other.py"];
        for name in members {
            writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(name.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        let out = folder.path().join("out");
        unpack(&file, &WHEELS[0], &out).unwrap();
        assert_eq!(out.read_dir().unwrap().count(), 2);
        assert_eq!(std::fs::read_to_string(out.join("libonnxruntime.so.1.32.0")).unwrap(), members[0]);
        let error = unpack(&file, &WHEELS[2], &out).unwrap_err().to_string();
        assert!(error.contains("libonnxruntime.1.32.0.dylib"), "{error}");
    }

    #[test]
    fn no_python_is_an_error_and_leaves_nothing() {
        let cache = tempfile::tempdir().unwrap();
        let mut lines = Vec::new();
        let error = fetch(cache.path(), &[], &mut |line| lines.push(line.to_string())).unwrap_err();
        assert!(matches!(error, FetchError::NoPython | FetchError::Platform { .. }), "{error}");
        assert!(!folder(cache.path()).exists());
        assert!(lines.len() <= 1);
        assert!(cache.path().join("onnxruntime").read_dir().map_or(0, Iterator::count) <= 1);
    }
}
