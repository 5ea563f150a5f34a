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
use model::Source;
use pyo3::prelude::*;
use request::Request;
use std::path::{Path, PathBuf};

/// Returns the text of the plan file for a request.
#[pyfunction]
#[pyo3(signature = (path, data, request))]
fn plan(py: Python<'_>, path: PathBuf, data: Option<Vec<u8>>, request: &str) -> PyResult<String> {
    let made = py.detach(|| Request::read(request)?.plan(Source { path, data }));
    made.map_err(|failure: Failure| failure.raise(py))
}

/// Checks the text of a plan file and returns it as this version writes it; `name` is for messages.
#[pyfunction]
fn check(py: Python<'_>, name: &str, text: &str) -> PyResult<String> {
    let plan = py.detach(|| parse(Path::new(name), text).map(|plan| plan.to_json()));
    plan.map_err(|error| Failure::from(error).raise(py))
}

/// Returns the modules of a model as JSON.
#[pyfunction]
#[pyo3(signature = (path, data, request))]
fn tree(py: Python<'_>, path: PathBuf, data: Option<Vec<u8>>, request: &str) -> PyResult<String> {
    let told = py.detach(|| Request::read(request)?.tree(Source { path, data }));
    told.map_err(|failure: Failure| failure.raise(py))
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
    use super::{check, describe_policies, plan, tree};
}
