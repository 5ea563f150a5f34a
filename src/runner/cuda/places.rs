//! The folders in which NVIDIA's libraries can lie.

use crate::runner::surroundings::{Surroundings, subfolders};
use std::path::{Path, PathBuf};

/// Returns the folders, in the order in which they are searched after the system's loader: the Python environment of
/// `provider`, the active Python, CUDA's own folders, our cache.
pub(super) fn places(provider: &Path, surroundings: &Surroundings) -> Vec<PathBuf> {
    let own = provider.parent().and_then(Path::parent).and_then(Path::parent).map(Path::to_path_buf);
    let packages = own.into_iter().chain(surroundings.packages()).flat_map(|folder| of_packages(&folder));
    let toolkits = ["CUDA_HOME", "CUDA_PATH", "CONDA_PREFIX"].into_iter().filter_map(|name| surroundings.get(name));
    let toolkits = toolkits.chain(installed()).flat_map(|folder| of_toolkit(&folder));
    let fetched = surroundings.cache().map(|cache| subfolders(&cache.join(CACHED))).unwrap_or_default();
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in packages.chain(toolkits).chain(fetched) {
        if folder.is_dir() && !found.contains(&folder) {
            found.push(folder);
        }
    }
    found
}

/// The folder of the cache with a folder for each fetched package.
pub(in crate::runner) const CACHED: &str = "nvidia";

/// Returns where libraries lie below a folder of Python packages: each package of NVIDIA for itself, or since CUDA 13 all
/// in one; and PyTorch's.
fn of_packages(folder: &Path) -> Vec<PathBuf> {
    let inner: &[&str] = if cfg!(windows) { &["bin", "bin/x86_64"] } else { &["lib"] };
    let packages = subfolders(&folder.join("nvidia"));
    let found = packages.iter().flat_map(|package| inner.iter().map(|inner| package.join(inner)));
    found.chain([folder.join("torch").join("lib")]).collect()
}

fn of_toolkit(folder: &Path) -> Vec<PathBuf> {
    let inner: &[&str] = if cfg!(windows) { &["bin", "bin/x64"] } else { &["lib64", "lib"] };
    inner.iter().map(|inner| folder.join(inner)).collect()
}

/// Returns CUDA's usual folders on Linux, the newest first.
fn installed() -> Vec<PathBuf> {
    let mut found = subfolders(Path::new("/usr/local"));
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cuda")));
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::super::super::surroundings::surroundings;
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_environment_of_the_provider_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let folders = [
            "site/onnxruntime/capi",
            "site/nvidia/cublas/lib",
            "site/nvidia/cu13/lib",
            "site/torch/lib",
            "toolkit/lib64",
            "cache/nvidia/nvidia-cudnn-cu13-9.1",
        ];
        for path in folders {
            std::fs::create_dir_all(at(path)).unwrap();
        }
        std::fs::write(at("site/nvidia/__init__.py"), "").unwrap();
        let (toolkit, cache) = (at("toolkit"), at("cache"));
        let surroundings = surroundings(&[("CUDA_HOME", &toolkit), ("FREEZE_PLAN_CACHE", &cache)]);
        let found = places(&at("site/onnxruntime/capi/libonnxruntime_providers_cuda.so"), &surroundings);
        let own: Vec<&PathBuf> = found.iter().filter(|path| path.starts_with(folder.path())).collect();
        assert_eq!(own, [2, 1, 3, 4, 5].map(|index| at(folders[index])).iter().collect::<Vec<_>>());
    }
}
