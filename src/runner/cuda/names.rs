//! Names of NVIDIA's libraries, and the Python packages that hold them.

use std::path::{Path, PathBuf};

/// The CUDA provider of ONNX Runtime.
pub(super) const PROVIDER: &str =
    if cfg!(windows) { "onnxruntime_providers_cuda.dll" } else { "libonnxruntime_providers_cuda.so" };

/// The library of the driver.
pub(super) const DRIVER: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };

/// The parts of cuDNN that its library opens from its own folder.
pub(super) const CUDNN_PARTS: [&str; 7] =
    ["graph", "ops", "cnn", "adv", "heuristic", "engines_precompiled", "engines_runtime_compiled"];

/// Returns the CUDA provider that belongs to an ONNX Runtime library; the file need not exist.
pub fn provider_beside(library: &Path) -> PathBuf {
    let real = library.canonicalize().unwrap_or_else(|_| library.to_path_buf());
    real.with_file_name(PROVIDER)
}

/// What NVIDIA's library `name` is of, without its version: `cublas` for `libcublas.so.13` and for `cublas64_13.dll`.
pub(super) fn stem(name: &str) -> Option<&str> {
    match name.strip_suffix(".dll") {
        Some(name) => name.split_once("64_").map(|(stem, _)| stem),
        None => name.strip_prefix("lib")?.split_once(".so").map(|(stem, _)| stem),
    }
}

/// The packages by the start of a library's name, without the suffix of a CUDA version; and since which CUDA there is no
/// such suffix.
const PACKAGES: [(&str, &str, u32); 9] = [
    ("cublas", "nvidia-cublas", 13),
    ("cudart", "nvidia-cuda-runtime", 13),
    ("curand", "nvidia-curand", 13),
    ("cufft", "nvidia-cufft", 13),
    ("cudnn", "nvidia-cudnn", u32::MAX),
    ("nvrtc", "nvidia-cuda-nvrtc", 13),
    ("nvJitLink", "nvidia-nvjitlink", 13),
    ("cusolver", "nvidia-cusolver", 13),
    ("cusparse", "nvidia-cusparse", 13),
];

/// Returns the Python package that holds the library `name` for this CUDA; `None` of what is not in one.
pub(in crate::runner) fn package(name: &str, cuda: u32) -> Option<String> {
    let stem = stem(name)?;
    let (_, package, plain) = PACKAGES.iter().find(|(start, ..)| stem.starts_with(start))?;
    Some(if cuda >= *plain { (*package).to_string() } else { format!("{package}-cu{cuda}") })
}

/// Returns the CUDA that a provider needs, by what it is linked with.
pub(super) fn cuda_of(needed: &[String]) -> Option<u32> {
    let number = |name: &String| {
        let (_, version) = match name.strip_suffix(".dll") {
            Some(name) => name.rsplit_once("64_")?,
            None => name.rsplit_once(".so.")?,
        };
        version.split('.').next()?.parse().ok()
    };
    let runtime = |name: &&String| matches!(stem(name), Some("cudart" | "cublas" | "cublasLt"));
    needed.iter().filter(runtime).find_map(number)
}

/// Returns the libraries that are opened by name at run time: cuDNN, by ONNX Runtime at its first convolution and by our
/// operators, and NVRTC, which compiles our operators.
pub(super) fn opened(cuda: u32) -> [String; 2] {
    if cfg!(windows) {
        ["cudnn64_9.dll".into(), format!("nvrtc64_{cuda}0_0.dll")]
    } else {
        ["libcudnn.so.9".into(), format!("libnvrtc.so.{cuda}")]
    }
}

/// Returns the library for Fourier transforms, which only graphs with such nodes need.
pub(super) fn transforms(cuda: u32) -> String {
    let version = cuda.saturating_sub(1);
    if cfg!(windows) { format!("cufft64_{version}.dll") } else { format!("libcufft.so.{version}") }
}

/// Returns the oldest driver for a CUDA.
pub(super) fn oldest_driver(cuda: u32) -> Option<&'static str> {
    match cuda {
        12 => Some("525"),
        13 => Some("580"),
        _ => None,
    }
}

/// Returns the oldest compute capability that a CUDA has code for.
pub(super) fn oldest_capability(cuda: u32) -> (u32, u32) {
    if cuda >= 13 { (7, 5) } else { (5, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_lie_in_packages() {
        let cases = [
            ("libcublasLt.so.13", 13, Some("nvidia-cublas")),
            ("libcublas.so.12", 12, Some("nvidia-cublas-cu12")),
            ("cublasLt64_13.dll", 13, Some("nvidia-cublas")),
            ("libcudart.so.13", 13, Some("nvidia-cuda-runtime")),
            ("cudart64_13.dll", 13, Some("nvidia-cuda-runtime")),
            ("libcurand.so.10", 13, Some("nvidia-curand")),
            ("libcudnn.so.9", 13, Some("nvidia-cudnn-cu13")),
            ("libcudnn_ops.so.9", 12, Some("nvidia-cudnn-cu12")),
            ("libnvrtc.so.13", 13, Some("nvidia-cuda-nvrtc")),
            ("nvrtc64_130_0.dll", 13, Some("nvidia-cuda-nvrtc")),
            ("libcufft.so.12", 13, Some("nvidia-cufft")),
            ("libcuda.so.1", 13, None),
            ("libstdc++.so.6", 13, None),
            ("KERNEL32.dll", 13, None),
        ];
        for (name, cuda, expected) in cases {
            assert_eq!(package(name, cuda).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn the_cuda_of_a_provider_is_that_of_its_runtime() {
        let cases: [(&[&str], Option<u32>); 5] = [
            (&["libcurand.so.10", "libcudart.so.13", "libc.so.6"], Some(13)),
            (&["libcublasLt.so.12", "libcudart.so.12"], Some(12)),
            (&["cublas64_13.dll", "curand64_10.dll"], Some(13)),
            (&["libcurand.so.10", "libc.so.6"], None),
            (&[], None),
        ];
        for (names, expected) in cases {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            assert_eq!(cuda_of(&names), expected, "{names:?}");
        }
    }
}
