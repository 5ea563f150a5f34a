//! Options that several commands share.

use super::failure::Failure;
use super::sizes::Sizes;
use crate::error::ErrorKind;
use crate::plan::PlanOptions;
use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use std::path::PathBuf;

/// What is frozen when.
#[derive(Args, Clone, Debug)]
pub struct PlanArgs {
    /// Number of epochs
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub epochs: usize,
    /// Freezing policy: linear (default) or none
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Fraction of the run before which nothing freezes, in [0, 1]; default 0.5
    #[arg(long, value_name = "F")]
    freeze_start: Option<f64>,
    /// Fraction of the units frozen at the end of the run, in [0, 1]; default 1
    #[arg(long, value_name = "F")]
    freeze_level: Option<f64>,
    /// Arithmetic of the linear policy: composer (default, bit-exact with Composer) or exact
    #[arg(long, value_name = "KIND")]
    arithmetic: Option<String>,
    /// What freezes as one: leaf (default), composer, block or parameter
    #[arg(long, value_name = "KIND")]
    unit: Option<String>,
    /// Freeze what matches in every epoch: a glob on unit path or parameter name; may be repeated
    #[arg(long, value_name = "PATTERN")]
    freeze: Vec<String>,
    /// Never freeze what matches; may be repeated
    #[arg(long, value_name = "PATTERN")]
    keep: Vec<String>,
    #[command(flatten)]
    pub roles: RoleArgs,
}

/// What trains and what does not, where the file leaves it open.
#[derive(Args, Clone, Debug, Default)]
pub struct RoleArgs {
    /// Take what matches for a parameter: a glob on initializer name or module path; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub parameter: Vec<String>,
    /// Take what matches for a buffer, which never trains; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub buffer: Vec<String>,
}

impl PlanArgs {
    /// Returns true when an option that shapes the plan was given.
    pub fn given(&self) -> bool {
        let named = [&self.policy, &self.arithmetic, &self.unit].into_iter().any(Option::is_some);
        let numbers = self.freeze_start.is_some() || self.freeze_level.is_some();
        named || numbers || !self.freeze.is_empty() || !self.keep.is_empty()
    }

    /// Returns the options, those not given at their defaults.
    pub fn options(&self) -> Result<PlanOptions, Failure> {
        let default = PlanOptions::default();
        Ok(PlanOptions {
            policy: self.policy.clone().unwrap_or(default.policy),
            freeze_start: self.freeze_start.unwrap_or(default.freeze_start),
            freeze_level: self.freeze_level.unwrap_or(default.freeze_level),
            arithmetic: word("--arithmetic", &self.arithmetic)?.unwrap_or(default.arithmetic),
            unit: word("--unit", &self.unit)?.unwrap_or(default.unit),
            freeze: self.freeze.clone(),
            keep: self.keep.clone(),
            parameter: self.roles.parameter.clone(),
            buffer: self.roles.buffer.clone(),
            batch_norm: default.batch_norm,
            dropout: default.dropout,
        })
    }
}

/// Reads a word as the job file would.
pub(super) fn word<T: DeserializeOwned>(option: &str, value: &Option<String>) -> Result<Option<T>, Failure> {
    let Some(value) = value else { return Ok(None) };
    let read = serde_json::from_value(serde_json::Value::from(value.as_str()));
    read.map(Some).map_err(|error| Failure::new(ErrorKind::Usage, format!("{option}: {error}")))
}

/// The sizes that costs are counted for, and graphs built for where they must be fixed.
#[derive(Args, Clone, Debug)]
pub struct ShapeArgs {
    /// Batch size that costs are counted for, 1 by default; graphs are built for it where a gradient
    /// needs a fixed one
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Shape of an input, such as x=1,3,224,224, for the same; may be repeated
    #[arg(long, value_name = "NAME=D,D,..")]
    shape: Vec<String>,
}

impl ShapeArgs {
    /// Returns the sizes.
    pub fn sizes(&self) -> Result<Sizes, Failure> {
        let shapes = self.shape.iter().map(|text| shape_of(text)).collect::<Result<_, _>>()?;
        Ok(Sizes { batch: self.batch, shapes })
    }
}

fn shape_of(text: &str) -> Result<(String, Vec<usize>), Failure> {
    let wrong = || Failure::new(ErrorKind::Usage, format!("--shape \"{text}\" is not NAME=D,D,.."));
    let (name, dims) = text.split_once('=').ok_or_else(wrong)?;
    let dims = dims.split(',').map(|dim| dim.trim().parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
    Ok((name.to_string(), dims))
}

/// Where ONNX Runtime is looked for.
#[derive(Args, Clone, Debug)]
pub struct RuntimeArgs {
    /// ONNX Runtime library to use, or "embedded" for the built-in executor
    #[arg(long, value_name = "PATH")]
    pub runtime: Option<PathBuf>,
    /// Never fetch anything
    #[arg(long)]
    pub offline: bool,
}

/// How a plan is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For reading.
    #[default]
    Table,
    /// The plan file.
    Json,
    /// One row an epoch.
    Csv,
    /// One page.
    Html,
}
