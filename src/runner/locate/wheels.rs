//! The wheels that can be fetched, as PyPI has them.
//!
//! Every wheel of a platform carries the same libraries, whatever Python it is for, so one is named for each platform.
//! NVIDIA's libraries are those of CUDA 13.0, for which the provider is built: any driver for CUDA 13 runs them.

/// A package in one version.
#[derive(Debug)]
pub(super) struct Release {
    pub package: &'static str,
    pub version: &'static str,
    pub builds: &'static [Build],
}

/// The wheel of a package for one platform.
#[derive(Debug)]
pub(super) struct Build {
    /// As [`std::env::consts::OS`].
    pub os: &'static str,
    /// As [`std::env::consts::ARCH`].
    pub arch: &'static str,
    /// As pip names it.
    pub platform: &'static str,
    pub sha256: &'static str,
    /// The wheel's size in bytes.
    pub bytes: u64,
    /// What is kept of it: patterns of paths, each of which must match; `*` also matches `/`.
    pub keep: &'static [&'static str],
}

/// ONNX Runtime for the CPU.
pub(super) const ONNXRUNTIME: Release = Release {
    package: "onnxruntime",
    version: "1.32.0",
    builds: &[
        Build {
            os: "linux",
            arch: "x86_64",
            platform: "manylinux_2_28_x86_64",
            sha256: "5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d",
            bytes: 27_773_237,
            keep: &["onnxruntime/capi/libonnxruntime.so.1.32.0", "onnxruntime/LICENSE"],
        },
        Build {
            os: "linux",
            arch: "aarch64",
            platform: "manylinux_2_28_aarch64",
            sha256: "2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c",
            bytes: 23_195_070,
            keep: &["onnxruntime/capi/libonnxruntime.so.1.32.0", "onnxruntime/LICENSE"],
        },
        Build {
            os: "macos",
            arch: "aarch64",
            platform: "macosx_14_0_arm64",
            sha256: "366b9e53d07812cc5c92822cecf7563b76a8a0f32ba3bb8dd232a206ac3bcb6c",
            bytes: 22_506_162,
            keep: &["onnxruntime/capi/libonnxruntime.1.32.0.dylib", "onnxruntime/LICENSE"],
        },
        Build {
            os: "windows",
            arch: "x86_64",
            platform: "win_amd64",
            sha256: "d7e0c45cc5f456ad7805e6dd256a7662736cda9c2fd17becae194eb3c2f6df72",
            bytes: 16_695_880,
            keep: &["onnxruntime/capi/onnxruntime.dll", "onnxruntime/LICENSE"],
        },
        Build {
            os: "windows",
            arch: "aarch64",
            platform: "win_arm64",
            sha256: "23361cdf98afac352d10aa7d9e0a10ceaeb02d38430fb693c6eff370196db62d",
            bytes: 16_027_290,
            keep: &["onnxruntime/capi/onnxruntime.dll", "onnxruntime/LICENSE"],
        },
    ],
};

/// ONNX Runtime with the provider for CUDA.
pub(super) const ONNXRUNTIME_GPU: Release = Release {
    package: "onnxruntime-gpu",
    version: "1.31.1",
    builds: &[
        Build {
            os: "linux",
            arch: "x86_64",
            platform: "manylinux_2_28_x86_64",
            sha256: "e26c475fe361b2015f45b4b824bd13f0bb20204e59b62814e6f0acd5f3d491a6",
            bytes: 255_560_985,
            keep: &[
                "onnxruntime/capi/libonnxruntime.so.1.31.1",
                "onnxruntime/capi/libonnxruntime_providers_cuda.so",
                "onnxruntime/capi/libonnxruntime_providers_shared.so",
                "onnxruntime/LICENSE",
            ],
        },
        Build {
            os: "linux",
            arch: "aarch64",
            platform: "manylinux_2_34_aarch64",
            sha256: "dc878916611b8a816000ffedacc5f5988f77bb93bf9655ad20144ee3acb08e55",
            bytes: 212_349_085,
            keep: &[
                "onnxruntime/capi/libonnxruntime.so.1.31.1",
                "onnxruntime/capi/libonnxruntime_providers_cuda.so",
                "onnxruntime/capi/libonnxruntime_providers_shared.so",
                "onnxruntime/LICENSE",
            ],
        },
        Build {
            os: "windows",
            arch: "x86_64",
            platform: "win_amd64",
            sha256: "fd98341ba71c093153f0dcfc53eb69d57f706866fb45e94e5b0cde5d97a50dbf",
            bytes: 168_096_711,
            keep: &[
                "onnxruntime/capi/onnxruntime.dll",
                "onnxruntime/capi/onnxruntime_providers_cuda.dll",
                "onnxruntime/capi/onnxruntime_providers_shared.dll",
                "onnxruntime/LICENSE",
            ],
        },
    ],
};

/// The CUDA of the packages below and of [`ONNXRUNTIME_GPU`].
pub(super) const CUDA: u32 = 13;

/// What a run on CUDA needs of NVIDIA beside the driver.
pub(super) const NVIDIA: [Release; 5] = [
    Release {
        package: "nvidia-cublas",
        version: "13.0.2.14",
        builds: &[
            Build {
                os: "linux",
                arch: "x86_64",
                platform: "manylinux_2_27_x86_64",
                sha256: "0cf238ffdbe46c00cb9aa98e7bca745c223a5ca5a53e686ac8b3e5a08fe80d6c",
                bytes: 420_882_912,
                keep: &["nvidia/*/lib/libcublas*.so.13", "*.dist-info/licenses/*"],
            },
            Build {
                os: "linux",
                arch: "aarch64",
                platform: "manylinux_2_27_aarch64",
                sha256: "17165c296de689662b96e0ef4f21dfbff3092ff00d0e3e59470f5acb08c0f87d",
                bytes: 540_253_486,
                keep: &["nvidia/*/lib/libcublas*.so.13", "*.dist-info/licenses/*"],
            },
            Build {
                os: "windows",
                arch: "x86_64",
                platform: "win_amd64",
                sha256: "5f7a90456b1392db60e28719547ba6e00696bfa81304b6887cf287f9edf2c1d7",
                bytes: 401_887_280,
                keep: &["nvidia/*/bin/*.dll", "*.dist-info/licenses/*"],
            },
        ],
    },
    Release {
        package: "nvidia-cuda-runtime",
        version: "13.0.96",
        builds: &[
            Build {
                os: "linux",
                arch: "x86_64",
                platform: "manylinux2014_x86_64",
                sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
                bytes: 2_243_632,
                keep: &["nvidia/*/lib/libcudart.so.13", "*.dist-info/licenses/*"],
            },
            Build {
                os: "linux",
                arch: "aarch64",
                platform: "manylinux2014_aarch64",
                sha256: "ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55",
                bytes: 2_261_060,
                keep: &["nvidia/*/lib/libcudart.so.13", "*.dist-info/licenses/*"],
            },
            Build {
                os: "windows",
                arch: "x86_64",
                platform: "win_amd64",
                sha256: "f79298c8a098cec150a597c8eba58ecdab96e3bdc4b9bc4f9983635031740492",
                bytes: 2_927_037,
                keep: &["nvidia/*/bin/*.dll", "*.dist-info/licenses/*"],
            },
        ],
    },
    Release {
        package: "nvidia-cuda-nvrtc",
        version: "13.0.88",
        builds: &[
            Build {
                os: "linux",
                arch: "x86_64",
                platform: "manylinux2010_x86_64",
                sha256: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
                bytes: 90_215_200,
                keep: &[
                    "nvidia/*/lib/libnvrtc.so.13",
                    "nvidia/*/lib/libnvrtc-builtins.so.13.0",
                    "*.dist-info/licenses/*",
                ],
            },
            Build {
                os: "linux",
                arch: "aarch64",
                platform: "manylinux2014_aarch64",
                sha256: "d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b",
                bytes: 43_015_449,
                keep: &[
                    "nvidia/*/lib/libnvrtc.so.13",
                    "nvidia/*/lib/libnvrtc-builtins.so.13.0",
                    "*.dist-info/licenses/*",
                ],
            },
            Build {
                os: "windows",
                arch: "x86_64",
                platform: "win_amd64",
                sha256: "6bcd4e7f8e205cbe644f5a98f2f799bef9556fefc89dd786e79a16312ce49872",
                bytes: 76_807_835,
                keep: &["nvidia/*/bin/*.dll", "*.dist-info/licenses/*"],
            },
        ],
    },
    Release {
        package: "nvidia-curand",
        version: "10.4.0.35",
        builds: &[
            Build {
                os: "linux",
                arch: "x86_64",
                platform: "manylinux_2_27_x86_64",
                sha256: "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
                bytes: 59_544_258,
                keep: &["nvidia/*/lib/libcurand.so.10", "*.dist-info/licenses/*"],
            },
            Build {
                os: "linux",
                arch: "aarch64",
                platform: "manylinux_2_27_aarch64",
                sha256: "133df5a7509c3e292aaa2b477afd0194f06ce4ea24d714d616ff36439cee349a",
                bytes: 61_962_106,
                keep: &["nvidia/*/lib/libcurand.so.10", "*.dist-info/licenses/*"],
            },
            Build {
                os: "windows",
                arch: "x86_64",
                platform: "win_amd64",
                sha256: "65b1710aa6961d326b411e314b374290904c5ddf41dc3f766ebc3f1d7d4ca69f",
                bytes: 55_242_481,
                keep: &["nvidia/*/bin/*.dll", "*.dist-info/licenses/*"],
            },
        ],
    },
    Release {
        package: "nvidia-cudnn-cu13",
        version: "9.26.0.51",
        builds: &[
            Build {
                os: "linux",
                arch: "x86_64",
                platform: "manylinux_2_27_x86_64",
                sha256: "9c976d539786698c71d6bcdbe2053b7485fae062ff7e1215d2f2ff67b1a2149a",
                bytes: 519_150_073,
                keep: &["nvidia/*/lib/libcudnn*.so.9", "*.dist-info/licenses/*"],
            },
            Build {
                os: "linux",
                arch: "aarch64",
                platform: "manylinux_2_27_aarch64",
                sha256: "8e5b4f5eccff721416f70ecf4353172fc4d5cdd8ca869fe6f983a4a5b0147b20",
                bytes: 595_329_497,
                keep: &["nvidia/*/lib/libcudnn*.so.9", "*.dist-info/licenses/*"],
            },
            Build {
                os: "windows",
                arch: "x86_64",
                platform: "win_amd64",
                sha256: "8e37a83d7dd7c2663afcae38b1c95c5e9e7c9754f313800da95ca81439fa37f9",
                bytes: 419_603_885,
                keep: &["nvidia/*/bin/*.dll", "*.dist-info/licenses/*"],
            },
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wheel_is_pinned_and_says_what_is_kept() {
        for release in [&ONNXRUNTIME, &ONNXRUNTIME_GPU].into_iter().chain(&NVIDIA) {
            for build in release.builds {
                let name = format!("{} for {}", release.package, build.platform);
                assert!(
                    build.sha256.len() == 64 && build.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()),
                    "{name}"
                );
                assert!(build.keep.iter().all(|pattern| glob::Pattern::new(pattern).is_ok()), "{name}");
                assert!(build.keep.iter().any(|pattern| pattern.to_lowercase().contains("licen")), "{name}");
                let versioned = build.keep.iter().any(|pattern| pattern.contains(release.version));
                assert!(versioned || !release.package.starts_with("onnxruntime") || build.os == "windows", "{name}");
            }
        }
    }
}
