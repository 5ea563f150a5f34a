//! Where pinned libraries lie in the cache, and what fetches them.

use super::fetch::{FetchError, fetch, size};
use super::wheels::{NVIDIA, ONNXRUNTIME, ONNXRUNTIME_GPU, Release};
use super::{inspect, search::libraries};
use crate::runner::cuda::CACHED;
use crate::runner::device::Device;
use crate::runner::surroundings::Surroundings;
use std::path::{Path, PathBuf};

/// Returns the ONNX Runtime that is fetched for a device.
fn release(device: Device) -> &'static Release {
    match device {
        Device::Cpu => &ONNXRUNTIME,
        Device::Cuda(_) => &ONNXRUNTIME_GPU,
    }
}

/// Returns the folder of the pinned ONNX Runtime in a cache folder.
pub(super) fn folder(cache: &Path, device: Device) -> PathBuf {
    let release = release(device);
    cache.join(release.package).join(release.version)
}

/// Fetches ONNX Runtime into the cache and returns its file and version.
pub(super) fn onnxruntime(
    device: Device,
    surroundings: &Surroundings,
    say: &mut dyn FnMut(&str),
) -> Result<(PathBuf, String), FetchError> {
    let folder = folder(&surroundings.cache().ok_or(FetchError::NoCache)?, device);
    let usable = || libraries(&folder).into_iter().find_map(|path| Some((inspect(&path, device).ok()?, path)));
    fetch(release(device), &folder, &surroundings.pythons(), &|| usable().is_some(), say)?;
    if let Some((version, path)) = usable() {
        return Ok((path, version));
    }
    let path = libraries(&folder).into_iter().next().unwrap_or_else(|| folder.clone());
    let problem = inspect(&path, device).err().unwrap_or(super::Problem::Missing);
    Err(FetchError::Unusable { path, problem })
}

/// Returns what is fetched of these Python packages of NVIDIA; the others are not pinned.
pub(super) fn nvidia(packages: &[String]) -> Vec<&'static Release> {
    NVIDIA.iter().filter(|release| packages.iter().any(|package| package == release.package)).collect()
}

/// Fetches packages of NVIDIA into the cache, each into a folder of its own, saying before how much that is.
pub(super) fn fetch_nvidia(
    releases: &[&Release],
    surroundings: &Surroundings,
    say: &mut dyn FnMut(&str),
) -> Result<(), FetchError> {
    let folder = surroundings.cache().ok_or(FetchError::NoCache)?.join(CACHED);
    let builds = releases.iter().map(|release| release.build_here()).collect::<Result<Vec<_>, _>>()?;
    let total = size(builds.iter().map(|build| build.bytes).sum());
    let names: Vec<&str> = releases.iter().map(|release| release.package).collect();
    say(&format!("{total} of NVIDIA's libraries are fetched once, about twice that on the disk: {}", names.join(", ")));
    for release in releases {
        let target = folder.join(format!("{}-{}", release.package, release.version));
        fetch(release, &target, &surroundings.pythons(), &|| target.is_dir(), say)?;
    }
    Ok(())
}
