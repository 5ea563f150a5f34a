//! Options that several commands share.

use super::failure::Failure;
use crate::error::ErrorKind;
use crate::plan::{PlanOptions, Run};
use crate::runner::{Device, LocateOptions};
use crate::trainer::sizes::Sizes;
use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::PathBuf;

/// What is frozen when.
#[derive(Args, Clone, Debug)]
pub struct PlanArgs {
    /// Number of epochs
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub epochs: usize,
    /// Steps of an epoch, for policies that act within one; by default such acts are shown at the start of the
    /// next epoch
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Freezing policy, linear by default; `freeze-plan policies` lists them
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Setting of the policy, such as t_0=0.5; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
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
    /// Freeze what matches in every epoch: a glob on unit path or parameter name, or re: and a regular expression;
    /// may be repeated
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
        let listed = [&self.freeze, &self.keep, &self.set].into_iter().any(|list| !list.is_empty());
        named || numbers || listed
    }

    /// Returns how long the run is; 0 steps in an epoch where they were not given.
    pub fn length(&self) -> Run {
        Run { epochs: self.epochs, steps_per_epoch: self.steps.unwrap_or(0) }
    }

    /// Returns the options, those not given at their defaults.
    pub fn options(&self) -> Result<PlanOptions, Failure> {
        let default = PlanOptions::default();
        let mut options = PlanOptions {
            policy: self.policy.clone().unwrap_or(default.policy),
            unit: word("--unit", &self.unit)?,
            freeze: self.freeze.clone(),
            keep: self.keep.clone(),
            parameter: self.roles.parameter.clone(),
            buffer: self.roles.buffer.clone(),
            ..PlanOptions::default()
        };
        for text in &self.set {
            let (name, value) = setting(text)?;
            options.knobs.insert(name, value);
        }
        let named = [
            ("freeze_start", self.freeze_start.map(Value::from)),
            ("freeze_level", self.freeze_level.map(Value::from)),
            ("arithmetic", self.arithmetic.clone().map(Value::from)),
        ];
        for (name, value) in named {
            options.knobs.extend(value.map(|value| (name.to_string(), value)));
        }
        Ok(options)
    }
}

/// Reads `KEY=VALUE`: a value is JSON, or a word as it stands.
pub(super) fn setting(text: &str) -> Result<(String, Value), Failure> {
    let wrong = || Failure::new(ErrorKind::Usage, format!("--set \"{text}\" is not KEY=VALUE"));
    let (name, value) = text.split_once('=').ok_or_else(wrong)?;
    Ok((name.trim().to_string(), value_of(value)))
}

/// Returns a value, which is JSON or a word as it stands.
pub(super) fn value_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
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

impl RuntimeArgs {
    /// Returns what is looked for on a device.
    pub fn locate(&self, device: Device) -> LocateOptions {
        LocateOptions { runtime: self.runtime.clone(), offline: self.offline, device }
    }
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
