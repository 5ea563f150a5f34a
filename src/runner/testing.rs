//! The engines that tests run on.

use super::engine::Engine;
use super::locate::{LocateOptions, locate};
use std::path::PathBuf;
use std::sync::OnceLock;

/// Returns every engine that tests run on: ONNX Runtime, and tract where it is compiled in.
/// With `FREEZE_PLAN_TEST_ENGINES=embedded` a machine without ONNX Runtime tests tract alone.
pub fn engines() -> Vec<Box<dyn Engine>> {
    let mut engines: Vec<Box<dyn Engine>> = Vec::new();
    match library() {
        Ok(path) => engines.push(Box::new(open(path))),
        Err(_) if cfg!(feature = "tract") && embedded_is_enough() => {}
        Err(reason) => panic!("{reason}"),
    }
    #[cfg(feature = "tract")]
    engines.push(Box::new(super::Tract::new()));
    engines
}

/// Returns ONNX Runtime.
pub fn onnxruntime() -> super::OnnxRuntime {
    match library() {
        Ok(path) => open(path),
        Err(reason) => panic!("{reason}"),
    }
}

/// Returns the library of ONNX Runtime.
pub fn library_path() -> PathBuf {
    match library() {
        Ok(path) => path.to_path_buf(),
        Err(reason) => panic!("{reason}"),
    }
}

fn open(path: &std::path::Path) -> super::OnnxRuntime {
    super::OnnxRuntime::new(path, 2).expect("ONNX Runtime loads")
}

fn embedded_is_enough() -> bool {
    std::env::var_os("FREEZE_PLAN_TEST_ENGINES").is_some_and(|engines| engines == "embedded")
}

fn library() -> Result<&'static std::path::Path, &'static str> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let options = LocateOptions { offline: embedded_is_enough(), ..LocateOptions::default() };
        locate(&options, &mut |line| eprintln!("{line}"))
            .map(|located| located.path)
            .map_err(|error| format!("tests need ONNX Runtime: {error}\nhint: {}", error.hint()))
    });
    found.as_deref().map_err(String::as_str)
}
