//! `freeze-plan graph MODEL --out DIR`: the graphs of one phase as files. With `--classic DIR` the training artifacts of
//! every phase, see [`classic`].

use super::failure::{CommandResult, Failure, note};
use super::frozen_units::{FrozenUnitArgs, Still};
use super::options::{PlanArgs, ShapeArgs, setting};
use super::{classic, model, output};
use crate::error::ErrorKind;
use crate::graph::{Graph, Model, upgrade};
use crate::losses::{LossKind, LossSpec};
use crate::onnx::{Edits, Encoded, LARGEST, encode, to_bytes, with_training_info};
use crate::optim::{OptimizerKind, OptimizerSpec};
use crate::plan::FreezePlan;
use crate::planner::{ATTACHED, identity, read_plan};
use crate::trainer::sizes::{Sizes, how_to_give};
use crate::trainer::{attached_note, without_plan};
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
  freeze-plan graph model.onnx --out graphs --epochs 20 --epoch 15 --loss mse --optimizer adamw
  freeze-plan graph model.onnx --classic artifacts --epochs 20 --optimizer adamw --optimizer-set clip_norm=1
  freeze-plan graph model.onnx --classic artifacts --epoch 11 --from trained/checkpoint")]
pub struct Args {
    /// ONNX model, or a folder of training artifacts
    pub(super) model: PathBuf,
    /// Folder for train.onnx, optimizer.onnx, eval.onnx and contract.json
    #[arg(long, value_name = "DIR", required_unless_present = "classic", conflicts_with = "classic")]
    out: Option<PathBuf>,
    /// Folder for the training artifacts of ONNX Runtime (training_model.onnx, eval_model.onnx, optimizer_model.onnx,
    /// checkpoint), one folder in it for each frozen set of the plan, and phases.json, which says which epochs train
    /// with which
    #[arg(long, value_name = "DIR", conflicts_with_all = ["training_info", "stage"])]
    pub(super) classic: Option<PathBuf>,
    /// Checkpoint that a device has trained: the artifacts of --epoch go on from its weights and its optimizer state;
    /// plan, loss and optimizer are those of phases.json where it is there
    #[arg(long, value_name = "CHECKPOINT", requires = "classic", requires = "epoch")]
    pub(super) from: Option<PathBuf>,
    /// What the averages of parameters are that train again: reset or keep; default what the plan says
    #[arg(long, value_name = "KIND", requires = "from")]
    pub(super) on_return: Option<String>,
    #[command(flatten)]
    pub(super) plan: PlanArgs,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Plan file, model with a plan, or folder of a run to take the frozen set and learning-rate factors from
    #[arg(long = "plan", value_name = "FILE")]
    pub(super) plan_file: Option<PathBuf>,
    /// Epoch whose frozen set is built; without it only what training artifacts keep frozen, with --classic every set
    #[arg(long, value_name = "N")]
    pub(super) epoch: Option<usize>,
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
    /// Optimizer: sgd (default, with momentum 0.9), adam, adamw, rmsprop, adagrad, lion or muon; with --classic adamw
    /// (default) or sgd, without momentum
    #[arg(long, value_name = "KIND")]
    optimizer: Option<String>,
    /// Setting of the optimizer, such as weight_decay=0.1; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    optimizer_set: Vec<String>,
    /// Training information of the model to take loss and optimizer from, where neither is given;
    /// default 1, the first that it carries
    #[arg(long, value_name = "N", conflicts_with_all = ["loss", "optimizer", "optimizer_set", "class_axis", "loss_output"])]
    stage: Option<usize>,
    /// Also write training.onnx: the model with loss, gradients and update of the phase as training
    /// information of the ONNX standard
    #[arg(long)]
    training_info: bool,
    /// Learning rate in training.onnx or phases.json; default that of the optimizer
    #[arg(long, value_name = "F")]
    lr: Option<f64>,
    #[command(flatten)]
    frozen_units: FrozenUnitArgs,
    /// Dropout while training: as-exported (default), on, or a ratio for every Dropout of the model
    #[arg(long, value_name = "KIND")]
    dropout: Option<String>,
}

/// The kind of loss that only a job can describe.
const SUM: &str = "sum";

/// What is built.
pub(super) struct Wanted {
    pub loaded: model::Loaded,
    stage: Option<model::Staged>,
    pub plan: FreezePlan,
    pub loss: LossSpec,
    pub optimizer: OptimizerSpec,
    pub dropout: Dropout,
    pub dropout_text: String,
    pub sizes: Sizes,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    match (&args.classic, &args.out) {
        (Some(folder), _) => classic::run(args, folder),
        (None, Some(out)) => graphs(args, out),
        (None, None) => Err(Failure::new(ErrorKind::Usage, "neither --out nor --classic is given")),
    }
}

/// Returns what the options ask for; `before` is what artifacts were made with that go on.
pub(super) fn wanted(args: &Args, before: Option<classic::Before>) -> Result<Wanted, Failure> {
    let loss = args.loss.as_deref().map(loss_kind).transpose()?;
    let (own, earlier) = (args.dropout.clone(), before.as_ref().map(|before| before.dropout.clone()));
    let dropout_text = own.or(earlier).unwrap_or_else(|| "as-exported".into());
    let dropout: Dropout =
        dropout_text.parse().map_err(|error| Failure::new(ErrorKind::Usage, format!("--dropout: {error}")))?;
    let usage = |text| Err(Failure::new(ErrorKind::Usage, text));
    if args.lr.is_some() && !args.training_info && args.classic.is_none() {
        return usage("--lr goes with --training-info or --classic: optimizer.onnx reads it with each step");
    }
    if args.plan_file.is_some() && args.epoch.is_none() && args.classic.is_none() {
        return usage("--plan needs --epoch N, whose frozen set is built");
    }
    let given = args.plan_file.as_deref().map(read_plan).transpose()?;
    let (mut planned, path) = (given, args.plan_file.clone());
    let (mut before_loss, mut before_optimizer) = (None, None);
    if let Some(before) = before.filter(|_| planned.is_none()) {
        (planned, before_loss, before_optimizer) = (Some(before.plan), Some(before.loss), Some(before.optimizer));
    }
    let path = path.or_else(|| Some(args.classic.as_ref()?.join("plan.json")));
    let patterns = |name: &str, given: &[String]| match &planned {
        Some(plan) => plan.policy.patterns(name),
        None => given.to_vec(),
    };
    let roles = &args.plan.roles;
    if planned.is_some() && !(roles.parameter.is_empty() && roles.buffer.is_empty()) {
        return usage("--parameter and --buffer go without --plan: a plan file says its own");
    }
    let (parameter, buffer) = (patterns("parameter", &roles.parameter), patterns("buffer", &roles.buffer));
    let sizes = args.shape.sizes()?;
    let loaded = model::load(&args.model, (&parameter, &buffer))?;
    let optimizer = optimizer(args, &loaded, before_optimizer)?;
    let stage = match args.classic {
        Some(_) => None,
        None => stage(args, &loaded, dropout)?,
    };
    let free = args.epoch.is_some() || args.classic.is_some();
    let makes = free && planned.is_none();
    if args.plan.given() && (!free || planned.is_some()) {
        return usage("plan options need --epoch N or --classic and no plan: they choose what is frozen");
    }
    if args.classic.is_some() && planned.is_some() && args.frozen_units.given() {
        return usage("--batch-norm and --frozen-dropout go without a plan file: it says them");
    }
    let mut options = args.plan.options()?;
    options.batch_norm = args.frozen_units.batch_norm()?.unwrap_or(options.batch_norm);
    options.dropout = args.frozen_units.dropout()?.unwrap_or(options.dropout);
    let wanted = model::Wanted { options: &options, length: args.plan.length(), sizes: &sizes, policy: None };
    let plan = match (planned, path, &stage) {
        (Some(plan), Some(path), _) => of_this_model(plan, &path, &loaded)?,
        (_, _, Some(stage)) => stage.plan(&loaded, wanted)?.plan,
        _ => {
            let slots = model::slots(&loaded, &optimizer, &mut note)?;
            model::plan(&loaded, wanted, slots)?.plan
        }
    };
    if makes {
        attached_note(&loaded.file, &plan).iter().for_each(|told| note(&format!("{told} (--plan MODEL takes it)")));
    }
    let found = loaded.artifacts.as_ref().and_then(|artifacts| artifacts.loss.as_ref());
    let mut loss = match (loss, before_loss, found) {
        (Some(kind), ..) => LossSpec::new(kind),
        (None, Some(before), _) => before,
        (None, None, found) => found.map_or_else(LossSpec::default, |found| found.spec.clone()),
    };
    loss.class_axis = args.class_axis.or(loss.class_axis);
    match args.loss_output.as_slice() {
        [] => {}
        [output] if loss.kind.outputs() == 1 => loss.output = Some(output.clone()),
        outputs => loss.outputs = Some(outputs.to_vec()),
    }
    Ok(Wanted { loaded, stage, plan, loss, optimizer, dropout, dropout_text, sizes })
}

/// Returns the optimizer with its settings; of artifacts theirs, where none is given.
fn optimizer(args: &Args, loaded: &model::Loaded, before: Option<OptimizerSpec>) -> Result<OptimizerSpec, Failure> {
    let theirs = loaded.artifacts.as_ref().and_then(|artifacts| artifacts.optimizer.clone());
    let spec = match (&args.classic, args.optimizer.as_deref()) {
        (None, kind) => optimizer_of(kind)?,
        (Some(_), Some(kind)) => OptimizerSpec { momentum: None, ..optimizer_of(Some(kind))? },
        (Some(_), None) => before.or(theirs).unwrap_or_else(|| OptimizerSpec::new(OptimizerKind::AdamW)),
    };
    let spec = OptimizerSpec { lr: args.lr.or(spec.lr), ..spec };
    let wrong = |error: &dyn std::fmt::Display| Failure::new(ErrorKind::Usage, format!("--optimizer-set: {error}"));
    let mut table = serde_json::to_value(&spec).map_err(|error| wrong(&error))?;
    for text in &args.optimizer_set {
        let (name, value) = setting(text).map_err(|error| wrong(&error))?;
        table[name.as_str()] = value;
    }
    let spec: OptimizerSpec = serde_json::from_value(table).map_err(|error| wrong(&error))?;
    spec.validate().map_err(TrainingError::from)?;
    Ok(spec)
}

/// Writes the graphs of one phase.
fn graphs(args: &Args, out: &Path) -> CommandResult {
    let Wanted { mut loaded, stage, plan, loss, optimizer, dropout, sizes, .. } = wanted(args, None)?;
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
    output::make_folder(out)?;
    let mut written = vec!["train.onnx", "eval.onnx", "contract.json"];
    output::write_model(&out.join("train.onnx"), |data| Ok(encode(&step.train, data, LARGEST)))?;
    output::write_model(&out.join("eval.onnx"), |data| Ok(encode(&step.eval, data, LARGEST)))?;
    match &step.optimizer {
        Some(optimizer) => {
            output::write_file(&out.join("optimizer.onnx"), &to_bytes(optimizer))?;
            written.insert(1, "optimizer.onnx");
        }
        None => {
            let _ = std::fs::remove_file(out.join("optimizer.onnx"));
            eprintln!("warning: every parameter is frozen, there is no optimizer.onnx");
        }
    }
    if args.training_info {
        write_training(
            &out.join("training.onnx"),
            &loaded,
            &prepared,
            &PhaseOptions { frozen: still.names(), ..options },
            &step,
            args.epoch,
        )?;
        written.push("training.onnx");
    }
    let contract = serde_json::to_string_pretty(&step.contract).expect("invariant: plain data");
    output::write_file(&out.join("contract.json"), contract.as_bytes())?;
    eprintln!(
        "{}: {} of {} parameters train, {} frozen, {} nodes in train.onnx",
        out.display(),
        step.trained.len(),
        known,
        still.parameters.len(),
        step.train.graph.nodes().len()
    );
    let lines = written.into_iter().map(|name| format!("{}\n", out.join(name).display()));
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
pub(super) fn with_sizes(error: TrainingError, graph: &Graph) -> Failure {
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
    let mut base = if as_is {
        file.model.clone()
    } else {
        let upgraded = upgrade(&analysis.model).map_err(TrainingError::from)?;
        Model { ir_version: upgraded.ir_version.clamp(8, 10), ..upgraded }
    };
    base.metadata.retain(|entry| entry.0 != ATTACHED);
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
        let mut edits = Edits { embed_external: true, ..Edits::default() };
        without_plan(file, &mut edits);
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
