//! `freeze-plan graph MODEL --out DIR`: the graphs of one phase as files.

use super::failure::{CommandResult, Failure, note};
use super::frozen_units::{FrozenUnitArgs, Still};
use super::options::{PlanArgs, ShapeArgs};
use super::{model, output};
use crate::error::ErrorKind;
use crate::graph::{Graph, Model, upgrade};
use crate::losses::{LossKind, LossSpec};
use crate::onnx::{Edits, Encoded, LARGEST, encode, to_bytes, with_training_info};
use crate::optim::{OptimizerKind, OptimizerSpec};
use crate::plan::FreezePlan;
use crate::planner::{identity, read_plan};
use crate::trainer::sizes::how_to_give;
use crate::training::stage::training_info;
use crate::training::{Dropout, Objective, PhaseOptions, Prepared, Rate, Rates, TrainStep, TrainingError, build};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Writes the train, optimizer and eval graphs of one phase
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  freeze-plan graph model.onnx --out graphs
  freeze-plan graph model.onnx --out graphs --epochs 20 --epoch 15 --loss mse --optimizer adamw")]
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
    /// Plan file, model with a plan, or folder of a run to take the frozen set and learning-rate factors from
    #[arg(long = "plan", value_name = "FILE", requires = "epoch")]
    plan_file: Option<PathBuf>,
    /// Epoch whose frozen set is built; without it only what training artifacts keep frozen
    #[arg(long, value_name = "N")]
    epoch: Option<usize>,
    /// Loss: cross-entropy (default), nll, binary-cross-entropy, kl, mse, l1, huber, smooth-l1,
    /// hinge-embedding, cosine-embedding, margin-ranking, triplet, contrastive, ctc or output; training
    /// artifacts say their own
    #[arg(long, value_name = "KIND")]
    loss: Option<String>,
    /// Model output that the loss reads, the first by default; several for a loss of two or three
    #[arg(long, value_name = "NAME")]
    loss_output: Vec<String>,
    /// Axis of the classes for cross-entropy
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    class_axis: Option<i64>,
    /// Optimizer: sgd (default, with momentum 0.9), adam, adamw, rmsprop, adagrad, lion or muon
    #[arg(long, value_name = "KIND")]
    optimizer: Option<String>,
    /// Training information of the model to take loss and optimizer from, where neither is given;
    /// default 1, the first that it carries
    #[arg(long, value_name = "N", conflicts_with_all = ["loss", "optimizer", "class_axis", "loss_output"])]
    stage: Option<usize>,
    /// Also write training.onnx: the model with loss, gradients and update of the phase as training
    /// information of the ONNX standard
    #[arg(long)]
    training_info: bool,
    /// Learning rate in training.onnx; default that of the optimizer
    #[arg(long, value_name = "F", requires = "training_info")]
    lr: Option<f64>,
    #[command(flatten)]
    frozen_units: FrozenUnitArgs,
    /// Dropout while training: as-exported (default), on, or a ratio for every Dropout of the model
    #[arg(long, value_name = "KIND", default_value = "as-exported")]
    dropout: String,
}

/// The kind of loss that only a job can describe.
const SUM: &str = "sum";

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    let loss = args.loss.as_deref().map(loss_kind).transpose()?;
    let optimizer = OptimizerSpec { lr: args.lr, ..optimizer_of(args.optimizer.as_deref())? };
    let dropout: Dropout =
        args.dropout.parse().map_err(|error| Failure::new(ErrorKind::Usage, format!("--dropout: {error}")))?;
    let planned = args.plan_file.as_deref().map(read_plan).transpose()?;
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
    let sizes = args.shape.sizes()?;
    let mut loaded = model::load(&args.model, (&parameter, &buffer))?;
    let stage = stage(args, &loaded, dropout)?;
    if args.plan.given() && (args.epoch.is_none() || args.plan_file.is_some()) {
        let text = "plan options need --epoch N and no --plan: they choose the frozen set of that epoch";
        return Err(Failure::new(ErrorKind::Usage, text));
    }
    let mut options = args.plan.options()?;
    options.batch_norm = args.frozen_units.batch_norm()?.unwrap_or(options.batch_norm);
    options.dropout = args.frozen_units.dropout()?.unwrap_or(options.dropout);
    let plan = match (planned, &args.plan_file, &stage) {
        (Some(plan), Some(path), _) => of_this_model(plan, path, &loaded)?,
        (_, _, Some(stage)) => stage.plan(&loaded, &options, args.plan.length(), &sizes)?.plan,
        _ => {
            let slots = model::slots(&loaded, &optimizer, &mut note)?;
            model::plan(&loaded, &options, args.plan.length(), slots, &sizes)?.plan
        }
    };
    let (frozen, lr_scale, entry) = match args.epoch {
        None => (loaded.frozen(), BTreeMap::new(), None),
        Some(epoch) => match plan.epochs.get(epoch.wrapping_sub(1)) {
            Some(entry) => (entry.frozen.clone(), entry.lr_scale.clone(), Some(entry)),
            None => {
                let text = format!("--epoch {epoch}: the plan has epochs 1 to {}", plan.epochs.len());
                return Err(Failure::new(ErrorKind::Usage, text));
            }
        },
    };
    let parameters = loaded.analysis.trainable();
    if let Some(stranger) = frozen.iter().find(|name| !parameters.contains(&name.as_str())) {
        let text = format!("the plan freezes \"{stranger}\", which is no parameter of {}", args.model.display());
        return Err(Failure::new(ErrorKind::BadInput, text));
    }
    if let Some(stranger) = lr_scale.keys().find(|name| !parameters.contains(&name.as_str())) {
        let text =
            format!("the plan scales the rate of \"{stranger}\", which is no parameter of {}", args.model.display());
        return Err(Failure::new(ErrorKind::BadInput, text));
    }
    let scaled = lr_scale.iter().filter(|(_, factor)| **factor != 1.0);
    let rates: Rates<'_> = scaled.map(|(name, factor)| (name.as_str(), Rate::Fixed(*factor))).collect();
    let still = match entry.filter(|_| args.plan_file.is_none() || !args.frozen_units.given()) {
        Some(entry) => Still::planned(entry),
        None => Still::of(&args.frozen_units, &loaded, &plan, frozen, dropout != Dropout::AsExported)?,
    };
    let found = loaded.artifacts.as_ref().and_then(|artifacts| artifacts.loss.as_ref());
    let mut loss = match (loss, found) {
        (Some(kind), _) => LossSpec::new(kind),
        (None, found) => found.map_or_else(LossSpec::default, |found| found.spec.clone()),
    };
    loss.class_axis = args.class_axis.or(loss.class_axis);
    match args.loss_output.as_slice() {
        [] => {}
        [output] if loss.kind.outputs() == 1 => loss.output = Some(output.clone()),
        outputs => loss.outputs = Some(outputs.to_vec()),
    }
    let options = PhaseOptions {
        frozen: HashSet::new(),
        frozen_inputs: false,
        rates,
        loss: &loss,
        optimizer: &optimizer,
        output: None,
        seed: 0,
    };
    let (prepared, step) = sizes.fixed_where_needed(&mut loaded, "given", &mut note, |loaded| {
        let staged = stage.as_ref().map(|_| model::staged(loaded, args.stage.unwrap_or(1), dropout)).transpose()?;
        let (prepared, built) = match staged {
            Some(model::Staged { prepared, stage }) => {
                let objective = Objective::Stage { stage: &stage, lr: None };
                let built = objective.build(&prepared, still.names(), false, options.rates.clone(), 0);
                (prepared, built)
            }
            None => {
                let prepared = model::prepared(loaded, dropout)?;
                let built = build(&prepared, &PhaseOptions { frozen: still.names(), ..options.clone() });
                (prepared, built)
            }
        };
        Ok((prepared, built.map_err(|error| with_sizes(error, &loaded.analysis.model.graph))?))
    })?;
    let known = prepared.trainable().len();
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
    if args.training_info {
        write_training(
            &args.out.join("training.onnx"),
            &loaded,
            &prepared,
            &PhaseOptions { frozen: still.names(), ..options },
            &step,
            args.epoch,
        )?;
        written.push("training.onnx");
    }
    let contract = serde_json::to_string_pretty(&step.contract).expect("invariant: plain data");
    output::write_file(&args.out.join("contract.json"), contract.as_bytes())?;
    eprintln!(
        "{}: {} of {} parameters train, {} frozen, {} nodes in train.onnx",
        args.out.display(),
        step.trained.len(),
        known,
        still.parameters.len(),
        step.train.graph.nodes().len()
    );
    let lines = written.into_iter().map(|name| format!("{}\n", args.out.join(name).display()));
    output::emit(&lines.collect::<String>(), None)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the training step of the model that the graphs are made of; `None` where a loss or an
/// optimizer is given, or the model carries none.
fn stage(args: &Args, loaded: &model::Loaded, dropout: Dropout) -> Result<Option<model::Staged>, Failure> {
    let loss = args.loss.is_some() || args.class_axis.is_some() || !args.loss_output.is_empty();
    let own = loss || args.optimizer.is_some();
    if own || loaded.file.training.is_empty() && args.stage.is_none() {
        return Ok(None);
    }
    if args.training_info {
        let text = format!("{} carries training information already", args.model.display());
        let hint = "give --loss and --optimizer to write another one in its place";
        return Err(Failure::new(ErrorKind::Usage, text).hint(hint));
    }
    let staged = model::staged(loaded, args.stage.unwrap_or(1), dropout)?;
    eprintln!("{}", staged.stage.describe());
    Ok(Some(staged))
}

/// Returns the failure with how to give the sizes that are open, where that is what it is about.
fn with_sizes(error: TrainingError, graph: &Graph) -> Failure {
    let failure = Failure::from(error);
    match how_to_give(graph).filter(|_| failure.is_open_size()) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Writes the model with the phase as its training information. The file stays as it is where its
/// operators allow that; otherwise it is written anew at an opset that the loss needs.
fn write_training(
    path: &Path,
    loaded: &model::Loaded,
    prepared: &Prepared,
    options: &PhaseOptions<'_>,
    step: &TrainStep,
    epoch: Option<usize>,
) -> Result<(), Failure> {
    let (file, analysis) = (&loaded.file, &loaded.analysis);
    let as_is = file.model.opset() == prepared.model.opset()
        && file.model.ir_version >= 7
        && file.model.graph.nodes().len() == analysis.model.graph.nodes().len();
    let base = if as_is {
        file.model.clone()
    } else {
        let upgraded = upgrade(&analysis.model).map_err(TrainingError::from)?;
        Model { ir_version: upgraded.ir_version.clamp(8, 10), ..upgraded }
    };
    let mut info = training_info(&base, prepared, options, step)?;
    let mut phase = serde_json::json!({
        "epoch": epoch,
        "frozen": step.contract.frozen,
        "trained": step.trained,
        "loss": options.loss,
        "optimizer": options.optimizer,
    });
    for (name, rate) in &options.rates {
        if let Rate::Fixed(factor) = rate {
            phase["lr_scale"][*name] = (*factor).into();
        }
    }
    info.metadata.push(("freeze-plan.phase".into(), phase.to_string()));
    output::write_model(path, |data| {
        let edits = Edits { embed_external: true, ..Edits::default() };
        let encoded = if as_is { file.rewrite_encoded(&edits, data, LARGEST)? } else { encode(&base, data, LARGEST) };
        Ok(Encoded { bytes: with_training_info(encoded.bytes.into(), info), pieces: encoded.pieces })
    })
}

/// Refuses a plan of another model.
fn of_this_model(plan: FreezePlan, path: &Path, loaded: &model::Loaded) -> Result<FreezePlan, Failure> {
    let sha256 = identity(&loaded.file);
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

/// Returns the loss of a name.
pub(super) fn loss_kind(name: &str) -> Result<LossKind, Failure> {
    let kinds: Vec<&str> = LossKind::ALL.map(LossKind::name).into_iter().filter(|name| *name != SUM).collect();
    let kind = |name: &str| LossKind::from_name(name).filter(|kind| kind.name() != SUM);
    one_of("--loss", name, &kinds, kind)
}

/// Returns the optimizer of a name; SGD with momentum by default.
pub(super) fn optimizer_of(name: Option<&str>) -> Result<OptimizerSpec, Failure> {
    let kinds = OptimizerKind::ALL.map(OptimizerKind::name);
    let mut optimizer =
        OptimizerSpec::new(one_of("--optimizer", name.unwrap_or("sgd"), &kinds, OptimizerKind::from_name)?);
    if optimizer.kind == OptimizerKind::Sgd {
        optimizer.momentum = Some(0.9);
    }
    Ok(optimizer)
}

fn one_of<T>(option: &str, value: &str, known: &[&str], find: impl Fn(&str) -> Option<T>) -> Result<T, Failure> {
    find(value).ok_or_else(|| {
        Failure::new(ErrorKind::Usage, format!("{option} is \"{value}\", expected one of {}", known.join(", ")))
    })
}
