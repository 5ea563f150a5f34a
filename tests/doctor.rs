//! What `doctor` and `train` say of CUDA, on machines made of small libraries with NVIDIA's names.
//!
//! The libraries are of a CUDA 97, which no machine has, so that none is found where it was not put.

#![cfg(target_os = "linux")]

use crate::cli::{digits_job, path, text};
use freeze_plan::runner::cuda::{CudaError, Driver};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output};
use tempfile::TempDir;

const DRIVER: &str = r#"
#include <stdio.h>
#include <stddef.h>
static int context;
int cuInit(unsigned flags) { return DEVICES ? 0 : 100; }
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuDeviceGetCount(int *count) { *count = DEVICES; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return index < DEVICES ? 0 : 101; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Made-up %d", device); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 85000000000; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 9 : 0; return 0; }
int cuDevicePrimaryCtxRetain(void **out, int device) { *out = &context; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
int cuCtxGetCurrent(void **out) { *out = NULL; return 0; }
int cuCtxSetCurrent(void *in) { return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 84000000000; *total = 85000000000; return 0; }
"#;
const RUNTIME: &str = "int cudaRuntimeGetVersion(int *version) { *version = 97020; return 0; }";
const CUDNN: &str = "unsigned long cudnnGetVersion(void) { return 92601; }";
const ONNXRUNTIME: &str = r#"
static const void *api(unsigned version) { return 0; }
static const char *version(void) { return VERSION; }
static const struct { const void *(*api)(unsigned); const char *(*version)(void); } base = { api, version };
const void *OrtGetApiBase(void) { return &base; }
"#;
const PARTS: [&str; 7] = ["graph", "ops", "cnn", "adv", "heuristic", "engines_precompiled", "engines_runtime_compiled"];

/// A folder that stands for a machine: a driver, a Python environment, a cache.
struct Machine {
    root: TempDir,
}

impl Machine {
    /// Returns a machine with a driver for CUDA `version / 1000`, and an environment with onnxruntime-gpu and NVIDIA's
    /// libraries.
    fn new(version: u32, devices: u32) -> Machine {
        let machine = Machine { root: tempfile::tempdir().unwrap() };
        let options = [format!("-DVERSION={version}"), format!("-DDEVICES={devices}")];
        machine.library("driver/libcuda.so.1", DRIVER, &[], &options);
        symlink("libcuda.so.1", machine.at("driver/libcuda.so")).unwrap();
        let script = format!("#!/bin/sh\n[ \"$1\" = -c ] && echo \"{}\"\n", machine.at("site").display());
        let python = machine.at("env/bin/python3");
        std::fs::create_dir_all(python.parent().unwrap()).unwrap();
        std::fs::write(&python, script).unwrap();
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
        machine.nvidia("site/nvidia/cu97/lib", "site/nvidia/cudnn/lib");
        machine.onnxruntime("site/onnxruntime/capi", "1.31.1");
        machine.provider("site/onnxruntime/capi");
        machine
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn library(&self, file: &str, source: &str, linked: &[&str], options: &[String]) {
        let file = self.at(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let code = file.with_extension("c");
        std::fs::write(&code, source).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-Wl,--no-as-needed,--allow-shlib-undefined"]);
        compiler.arg(format!("-Wl,-soname,{name}")).arg("-o").arg(&file).arg(&code).args(options);
        compiler.args(linked.iter().map(|other| self.at(other)));
        let output = compiler.output().expect("a C compiler, which linking Rust needs as well");
        assert!(output.status.success(), "{}", text(&output.stderr));
        std::fs::remove_file(code).unwrap();
    }

    fn nvidia(&self, cuda: &str, cudnn: &str) {
        let cublas = format!("{cuda}/libcublasLt.so.97");
        self.library(&format!("{cuda}/libcudart.so.97"), RUNTIME, &[], &[]);
        self.library(&cublas, "", &[], &[]);
        self.library(&format!("{cuda}/libcublas.so.97"), "", &[&cublas], &[]);
        self.library(&format!("{cuda}/libcurand.so.97"), "", &[], &[]);
        self.library(&format!("{cuda}/libnvrtc.so.97"), "", &[], &[]);
        self.library(&format!("{cudnn}/libcudnn.so.9"), CUDNN, &[], &[]);
        for part in PARTS {
            std::fs::write(self.at(&format!("{cudnn}/libcudnn_{part}.so.9")), "").unwrap();
        }
    }

    fn onnxruntime(&self, folder: &str, version: &str) {
        let options = [format!("-DVERSION=\"{version}\"")];
        self.library(&format!("{folder}/libonnxruntime.so.{version}"), ONNXRUNTIME, &[], &options);
    }

    /// Puts the provider for CUDA into a folder. It is linked with libcublas before libcublasLt.
    fn provider(&self, folder: &str) {
        let names = ["cublas", "cublasLt", "curand", "cudart"];
        let linked = names.map(|name| format!("site/nvidia/cu97/lib/lib{name}.so.97"));
        let linked: Vec<&str> = linked.iter().map(String::as_str).chain(["driver/libcuda.so.1"]).collect();
        self.library(&format!("{folder}/libonnxruntime_providers_cuda.so"), "", &linked, &[]);
    }

    fn remove(&self, file: &str) {
        std::fs::remove_file(self.at(file)).unwrap();
    }

    fn run(&self, args: &[&str], library_path: &[&str]) -> Output {
        let folders = library_path.iter().map(|folder| self.at(folder));
        let mut program = Command::new(env!("CARGO_BIN_EXE_freeze-plan"));
        program.args(args).env_clear().env("VIRTUAL_ENV", self.at("env")).env("FREEZE_PLAN_CACHE", self.at("cache"));
        program.env("LD_LIBRARY_PATH", std::env::join_paths(folders).unwrap()).output().unwrap()
    }

    /// Returns what doctor says of a run on CUDA, which must end with this code.
    fn doctor(&self, args: &[&str], library_path: &[&str], code: i32) -> String {
        let args = [&["doctor", "--device", "cuda"], args].concat();
        let output = self.run(&args, library_path);
        assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout).replace(path(self.root.path()), "ROOT")
    }
}

fn line<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no line starts with {start}:\n{text}"))
}

#[test]
fn all_of_cuda_is_found_without_a_library_path() {
    let machine = Machine::new(97_010, 2);
    let found = machine.doctor(&[], &["driver"], 0);
    for expected in [
        "\ndevices     cpu\n            cuda:0  Made-up 0, compute capability 9.0, 85.0 GB, 84.0 GB free\n            cuda:1  Made-up 1",
        "for CUDA 97.1 and older\n",
        "  1.31.1  ROOT/site/onnxruntime/capi/libonnxruntime.so.1.31.1 (Python package, for CUDA 97)\n",
        "NVIDIA's libraries for CUDA 97:\n",
        "  libcublas.so.97  ROOT/site/nvidia/cu97/lib/libcublas.so.97\n",
        "  libcublasLt.so.97  ROOT/site/nvidia/cu97/lib/libcublasLt.so.97\n",
        "  libcudart.so.97 97.2  ROOT/site/nvidia/cu97/lib/libcudart.so.97\n",
        "  libcudnn.so.9 9.26.1  ROOT/site/nvidia/cudnn/lib/libcudnn.so.9\n",
        "  libnvrtc.so.97  ROOT/site/nvidia/cu97/lib/libnvrtc.so.97\n",
    ] {
        assert!(found.contains(expected), "{expected} is not in\n{found}");
    }
    let used = "ONNX Runtime 1.31.1 at ROOT/site/onnxruntime/capi/libonnxruntime.so.1.31.1, on cuda:0 (Made-up 0)";
    assert_eq!(line(&found, "cuda   "), format!("cuda        {used}"));
    assert_eq!(line(&found, "used   "), format!("used        {used}"));
    let second = text(&machine.run(&["doctor", "--device", "cuda:1"], &["driver"]).stdout);
    assert!(line(&second, "used   ").ends_with("on cuda:1 (Made-up 1)"), "{second}");
}

#[test]
fn what_is_missing_is_named() {
    let machine = Machine::new(97_000, 1);
    let not = |text: &str| format!("cuda        not usable: {text}");
    let (lib, capi) = ("site/nvidia/cu97/lib", "site/onnxruntime/capi");

    let found = text(&machine.run(&["doctor", "--device", "cuda:3"], &["driver"]).stdout);
    let expected = not("there is no device cuda:3: the driver finds one, cuda:0");
    assert!(line(&found, "cuda   ").starts_with(&expected), "{found}");

    std::fs::write(machine.at("site/nvidia/cudnn/lib/libcudnn.so.9"), "broken").unwrap();
    let found = machine.doctor(&[], &["driver"], 1);
    assert!(line(&found, "cuda   ").contains("ROOT/site/nvidia/cudnn/lib/libcudnn.so.9"), "{found}");
    machine.library("site/nvidia/cudnn/lib/libcudnn.so.9", CUDNN, &[], &[]);

    let other = machine.at("site/nvidia_cudnn_cu12-9.1.0.dist-info");
    std::fs::create_dir(&other).unwrap();
    let found = machine.doctor(&[], &["driver"], 1);
    assert!(
        line(&found, "cuda   ").starts_with(&not("libcudnn.so.9, which a run on CUDA needs, was not found")),
        "{found}"
    );
    std::fs::remove_dir(&other).unwrap();

    let foreign = format!("{CUDNN} unsigned long cudnnGetCudartVersion(void) {{ return 12080; }}");
    machine.library("foreign/libcudnn.so.9", &foreign, &[], &[]);
    let found = machine.doctor(&[], &["driver", "foreign"], 1);
    let expected = not("ROOT/foreign/libcudnn.so.9 cannot be loaded: it is for CUDA 12, CUDA 97 is needed");
    assert!(line(&found, "cuda   ").starts_with(&expected), "{found}");

    machine.remove("site/nvidia/cudnn/lib/libcudnn_ops.so.9");
    let found = machine.doctor(&[], &["driver"], 1);
    let expected = not("libcudnn_ops.so.9, which libcudnn.so.9 needs, was not found");
    assert!(line(&found, "cuda   ").starts_with(&expected), "{found}");
    assert!(line(&found, "cuda   ").contains("run `pip install nvidia-cudnn-cu97`"), "{found}");
    assert_eq!(line(&found, "used   "), "used        none: cuda cannot be used");

    machine.remove(&format!("{lib}/libcublasLt.so.97"));
    let found = machine.doctor(&[], &["driver"], 1);
    let expected = not("libcublasLt.so.97, which libcublas.so.97 needs, was not found");
    let line_of_cuda = line(&found, "cuda   ");
    assert!(line_of_cuda.starts_with(&expected), "{found}");
    assert!(line_of_cuda.contains("ROOT/site/nvidia/cu97/lib") && line_of_cuda.contains("nvidia-cublas`"), "{found}");

    machine.remove(&format!("{capi}/libonnxruntime_providers_cuda.so"));
    let found = machine.doctor(&[], &["driver"], 1);
    assert!(
        line(&found, "cuda   ").starts_with("cuda        not usable yet: there is no ONNX Runtime for CUDA"),
        "{found}"
    );
    let named = machine.at(&format!("{capi}/libonnxruntime.so.1.31.1"));
    let found = machine.doctor(&["--runtime", path(&named)], &["driver"], 1);
    let reason = "(--runtime) is the package for the CPU: there is no libonnxruntime_providers_cuda.so beside it";
    assert!(line(&found, "cuda   ").contains(reason) && found.contains("onnxruntime-gpu"), "{found}");
    let found = text(&machine.run(&["doctor"], &["driver"]).stdout);
    assert!(line(&found, "used   ").starts_with("used        ONNX Runtime 1.31.1 at "), "{found}");
}

#[test]
fn a_driver_that_is_too_old_or_has_no_device_is_an_error() {
    let cases: [(u32, u32, &[&str]); 2] = [
        (12_040, 1, &["NVIDIA's driver is too old: it is ", "for CUDA 12.4, CUDA 97 is needed"]),
        (97_000, 0, &["NVIDIA's driver finds no device; see whether nvidia-smi lists one"]),
    ];
    for (version, devices, expected) in cases {
        let found = Machine::new(version, devices).doctor(&[], &["driver"], 1);
        let reason = line(&found, "cuda   ");
        assert!(reason.starts_with("cuda        not usable: "), "{found}");
        assert!(expected.iter().all(|part| reason.contains(part)), "{reason}");
    }
}

#[test]
fn a_library_for_the_cpu_is_skipped_and_the_order_stays() {
    let machine = Machine::new(97_000, 1);
    machine.remove("site/onnxruntime/capi/libonnxruntime_providers_cuda.so");
    machine.onnxruntime("system", "1.30.0");
    machine.provider("system");
    let found = machine.doctor(&[], &["driver", "system"], 0);
    assert!(line(&found, "used   ").contains("ONNX Runtime 1.30.0 at ROOT/system/"), "{found}");
    machine.onnxruntime("cache/onnxruntime-gpu/1.31.1", "1.31.1");
    machine.provider("cache/onnxruntime-gpu/1.31.1");
    let found = machine.doctor(&[], &["driver", "system"], 0);
    assert!(line(&found, "used   ").contains("ONNX Runtime 1.31.1 at ROOT/cache/"), "{found}");
    let cpu = text(&machine.run(&["doctor"], &["driver", "system"]).stdout);
    assert!(line(&cpu, "used   ").contains("/site/onnxruntime/capi/"), "{cpu}");
}

#[test]
fn training_on_cuda_never_becomes_training_on_the_cpu() {
    let machine = Machine::new(97_000, 1);
    machine.remove("site/onnxruntime/capi/libonnxruntime_providers_cuda.so");
    machine.onnxruntime("system", "1.30.0");
    machine.provider("system");
    machine.remove("site/nvidia/cu97/lib/libcurand.so.97");
    let folder = tempfile::tempdir().unwrap();
    let job = digits_job(folder.path(), |job| job.replace("device = \"cpu\"", "device = \"cuda\""));
    let skipped =
        "site/onnxruntime/capi/libonnxruntime.so.1.31.1 (Python package): it is the package for the CPU: there is no";
    let cases: [(&[&str], i32, &str); 4] = [
        (&[], 1, skipped),
        (&[], 1, "error: libcurand.so.97, which libonnxruntime_providers_cuda.so needs, was not found"),
        (&["--set", "run.device=cuda:1"], 1, "error: there is no device cuda:1: the driver finds one, cuda:0"),
        (&["--runtime", "embedded"], 2, "error: the embedded executor computes on the CPU, the device is cuda"),
    ];
    for (more, code, expected) in cases {
        let output = machine.run(&[&["train", path(&job), "--offline"], more].concat(), &["driver", "system"]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{more:?}\n{stderr}");
        assert!(stderr.contains(expected) && stderr.contains("hint: "), "{more:?}\n{stderr}");
        assert!(!folder.path().join("runs").exists());
    }
}

#[test]
fn a_machine_without_a_driver_says_so() {
    if !matches!(Driver::read(), Err(CudaError::NoDriver { .. })) {
        eprintln!("skipped: this machine has a driver of NVIDIA");
        return;
    }
    let machine = Machine::new(97_000, 1);
    let found = machine.doctor(&[], &[], 1);
    assert_eq!(line(&found, "driver "), "driver      none");
    let expected = "cuda        not usable: NVIDIA's driver is not installed: libcuda.so.1 cannot be loaded: ";
    assert!(line(&found, "cuda   ").starts_with(expected), "{found}");
    let plain = machine.run(&["doctor"], &[]);
    assert!(plain.status.success() && text(&plain.stdout).contains(&expected[..40]));
}
