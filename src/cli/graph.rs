//! `freeze-plan graph MODEL --out DIR`: the graphs of one phase as files.

use super::failure::{CommandResult, Failure};
use super::options::{PlanArgs, ShapeArgs};
use super::{model, output};
use crate::error::ErrorKind;
use crate::losses::{LossKind, LossSpec};
use crate::onnx::{LARGEST, encode, to_bytes};
use crate::optim::{OptimizerKind, OptimizerSpec};
use crate::plan::{self, FreezePlan};
use crate::training::{BatchNorm, Dropout, PhaseOptions, build};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Writes the train, optimizer and eval graphs of one phase
#[derive(clap::Args, Debug)]
pub struct Args {
    /// ONNX model, or a folder of training artifacts
    model: PathBuf,
    /// Folder for train.onnx, optimizer.onnx, eval.onnx and contract.json
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Plan file to take the frozen set from
    #[arg(long = "plan", value_name = "FILE", requires = "epoch")]
    plan_file: Option<PathBuf>,
    /// Epoch whose frozen set is built; without it only what training artifacts keep frozen
    #[arg(long, value_name = "N")]
    epoch: Option<usize>,
    /// Loss: cross-entropy (default), binary-cross-entropy, mse, l1 or huber; training artifacts say their
    /// own
    #[arg(long, value_name = "KIND")]
    loss: Option<String>,
    /// Axis of the classes for cross-entropy
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    class_axis: Option<i64>,
    /// Optimizer: sgd (with momentum 0.9), adam or adamw
    #[arg(long, value_name = "KIND", default_value = "sgd")]
    optimizer: String,
    /// BatchNormalization of frozen units: train (default, batch statistics) or frozen; a plan file says
    /// its own
    #[arg(long, value_name = "KIND")]
    batch_norm: Option<String>,
    /// Dropout while training: as-exported (default), on, or a ratio for every Dropout of the model
    #[arg(long, value_name = "KIND", default_value = "as-exported")]
    dropout: String,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    let kinds = LossKind::ALL.map(LossKind::name);
    let loss = args.loss.as_deref().map(|loss| one_of("--loss", loss, kinds, LossKind::from_name)).transpose()?;
    let kinds = OptimizerKind::ALL.map(OptimizerKind::name);
    let mut optimizer = OptimizerSpec::new(one_of("--optimizer", &args.optimizer, kinds, OptimizerKind::from_name)?);
    if optimizer.kind == OptimizerKind::Sgd {
        optimizer.momentum = Some(0.9);
    }
    let dropout: Dropout =
        args.dropout.parse().map_err(|error| Failure::new(ErrorKind::Usage, format!("--dropout: {error}")))?;
    let planned = args.plan_file.as_deref().map(plan::read).transpose()?;
    let patterns = |name: &str, given: &[String]| match &planned {
        Some(plan) => plan.policy.patterns(name),
        None => given.to_vec(),
    };
    let roles = &args.plan.roles;
    if planned.is_some() && !(roles.parameter.is_empty() && roles.buffer.is_empty()) {
        let text = "--parameter and --buffer go without --plan: a plan file says its own";
        return Err(Failure::new(ErrorKind::Usage, text));
    }
    let (parameter, buffer) = (patterns("parameter", &roles.parameter), patterns("buffer", &roles.buffer));
    let loaded = model::load(&args.model, (&parameter, &buffer))?;
    if args.plan.given() && (args.epoch.is_none() || args.plan_file.is_some()) {
        let text = "plan options need --epoch N and no --plan: they choose the frozen set of that epoch";
        return Err(Failure::new(ErrorKind::Usage, text));
    }
    let plan = match (planned, &args.plan_file) {
        (Some(plan), Some(path)) => of_this_model(plan, path, &loaded)?,
        _ => model::plan(&loaded, &args.plan.options()?, args.plan.epochs, &optimizer, &args.shape)?,
    };
    let planned = plan.policy.settings.get("batch_norm").and_then(|value| value.as_str()).unwrap_or("train");
    let batch_norm = args.batch_norm.as_deref().unwrap_or(planned);
    let batch_norm = one_of("--batch-norm", batch_norm, ["train", "frozen"], |name| match name {
        "train" => Some(BatchNorm::Train),
        "frozen" => Some(BatchNorm::Frozen),
        _ => None,
    })?;
    let frozen: Vec<String> = match args.epoch {
        None => loaded.frozen(),
        Some(epoch) => match plan.epochs.get(epoch.wrapping_sub(1)) {
            Some(entry) => entry.frozen.clone(),
            None => {
                let text = format!("--epoch {epoch}: the plan has epochs 1 to {}", plan.epochs.len());
                return Err(Failure::new(ErrorKind::Usage, text));
            }
        },
    };
    let prepared = model::prepared(&loaded, dropout)?;
    let known: HashSet<&str> = prepared.trainable().into_iter().collect();
    if let Some(stranger) = frozen.iter().find(|name| !known.contains(name.as_str())) {
        let text = format!("the plan freezes \"{stranger}\", which is no parameter of {}", args.model.display());
        return Err(Failure::new(ErrorKind::BadInput, text));
    }
    let found = loaded.artifacts.as_ref().and_then(|artifacts| artifacts.loss.as_ref());
    let mut loss = match (loss, found) {
        (Some(kind), _) => LossSpec::new(kind),
        (None, found) => found.map_or_else(LossSpec::default, |found| found.spec.clone()),
    };
    loss.class_axis = args.class_axis.or(loss.class_axis);
    let options = PhaseOptions {
        frozen: frozen.iter().map(String::as_str).collect(),
        batch_norm,
        loss: &loss,
        optimizer: &optimizer,
        output: None,
        seed: 0,
    };
    let step = build(&prepared, &options)?;
    output::make_folder(&args.out)?;
    let mut written = vec!["train.onnx", "eval.onnx", "contract.json"];
    output::write_model(&args.out.join("train.onnx"), |data| Ok(encode(&step.train, data, LARGEST)))?;
    output::write_model(&args.out.join("eval.onnx"), |data| Ok(encode(&step.eval, data, LARGEST)))?;
    match &step.optimizer {
        Some(optimizer) => {
            output::write_file(&args.out.join("optimizer.onnx"), &to_bytes(optimizer))?;
            written.insert(1, "optimizer.onnx");
        }
        None => {
            let _ = std::fs::remove_file(args.out.join("optimizer.onnx"));
            eprintln!("warning: every parameter is frozen, there is no optimizer.onnx");
        }
    }
    let contract = serde_json::to_string_pretty(&step.contract).expect("invariant: plain data");
    output::write_file(&args.out.join("contract.json"), contract.as_bytes())?;
    eprintln!(
        "{}: {} of {} parameters train, {} frozen, {} nodes in train.onnx",
        args.out.display(),
        step.trained.len(),
        known.len(),
        frozen.len(),
        step.train.graph.nodes().len()
    );
    let lines = written.into_iter().map(|name| format!("{}\n", args.out.join(name).display()));
    output::emit(&lines.collect::<String>(), None)?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses a plan of another model.
fn of_this_model(plan: FreezePlan, path: &Path, loaded: &model::Loaded) -> Result<FreezePlan, Failure> {
    let sha256 = plan::sha256_hex(&loaded.file.bytes);
    if plan.model.sha256 != sha256 {
        let text = format!(
            "{} is a plan for {} (sha256 {}), not for {} (sha256 {})",
            path.display(),
            plan.model.file,
            plan.model.sha256.get(..12).unwrap_or_default(),
            loaded.file.path.display(),
            &sha256[..12]
        );
        return Err(Failure::new(ErrorKind::BadInput, text));
    }
    Ok(plan)
}

fn one_of<T, const N: usize>(
    option: &str,
    value: &str,
    known: [&str; N],
    find: impl Fn(&str) -> Option<T>,
) -> Result<T, Failure> {
    find(value).ok_or_else(|| {
        Failure::new(ErrorKind::Usage, format!("{option} is \"{value}\", expected one of {}", known.join(", ")))
    })
}
