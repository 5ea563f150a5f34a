//! The native part of the Python package `freeze_plan`: models in, plan files out.
//!
//! Everything that crosses the border is text: a request is JSON with the keys of the table `[freeze]`, a plan is the
//! text of a plan file. The classes that a Python program sees are made of that in `freeze_plan/_plan.py`.

mod failure;
mod model;
mod owners;
mod request;

use failure::Failure;
use freeze_plan::plan::{parse, policies};
use freeze_plan::report::plan_html;
use model::Source;
use pyo3::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Runs a call without the lock of the interpreter. A panic in it is an exception like every failure.
fn call<T: Send>(py: Python<'_>, body: impl FnOnce() -> Result<T, Failure> + Send) -> PyResult<T> {
    let run = || catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(Failure::panic(payload)));
    py.detach(run).map_err(|failure| failure.raise(py))
}

/// Returns the text of the plan file for a request.
#[pyfunction]
#[pyo3(signature = (path, data, request))]
fn plan(py: Python<'_>, path: PathBuf, data: Option<Vec<u8>>, request: &str) -> PyResult<String> {
    call(py, || request::plan(&request::read(request)?, Source { path, data }))
}

/// Checks the text of a plan file and returns it as this version writes it; `name` is for messages.
#[pyfunction]
fn check(py: Python<'_>, name: &str, text: &str) -> PyResult<String> {
    call(py, || Ok(parse(Path::new(name), text)?.to_json()))
}

/// Returns the text of a plan file as one HTML page.
#[pyfunction]
fn page(py: Python<'_>, text: &str) -> PyResult<String> {
    call(py, || Ok(plan_html(&parse(Path::new("plan"), text)?)))
}

/// Returns the modules of a model as JSON.
#[pyfunction]
#[pyo3(signature = (path, data, request))]
fn tree(py: Python<'_>, path: PathBuf, data: Option<Vec<u8>>, request: &str) -> PyResult<String> {
    call(py, || request::tree(&request::read(request)?, Source { path, data }))
}

/// Returns name, first sentence, card, and settings of every policy as JSON.
#[pyfunction]
fn describe_policies() -> String {
    let told = policies::POLICIES.iter().map(|entry| {
        let settings: Vec<&str> = entry.knobs.iter().map(|knob| knob.name).collect();
        serde_json::json!({
            "name": entry.name, "about": entry.about(), "card": entry.text(), "settings": settings,
        })
    });
    serde_json::Value::Array(told.collect()).to_string()
}

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::{check, describe_policies, page, plan, tree};

    /// The version of the package.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
