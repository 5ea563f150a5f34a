//! `freeze-plan train JOB.toml`: trains a model with a freezing plan.

use super::failure::{CommandResult, Failure};
use super::feeds::batches;
use super::model::Loaded;
use super::options::RuntimeArgs;
use super::printable::lines;
use super::progress::{Progress, metric};
use super::sizes::Sizes;
use super::{STOPPED, model, output};
use crate::artifacts;
use crate::data::{Batches, Dataset, LastBatch};
use crate::error::ErrorKind;
use crate::graph::{Graph, ValueId};
use crate::losses::LossSpec;
use crate::onnx::LARGEST;
use crate::plan::{FreezePlan, Run, segments};
use crate::planner::identify;
use crate::report;
use crate::runner::{
    Checkpoints, Engine, Freezing, Gaps, Job, LocateError, LocateOptions, OnnxRuntime, Outcome, RunEvent, Setup, Timed,
    check_ceiling, locate, train,
};
use crate::training::stage::{Stage, StageError};
use crate::training::{Objective, Own, Prepared, Rates, TrainingError, trained_edits};
use std::collections::HashSet;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Trains a model as a job file says
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Job file
    job: PathBuf,
    /// Set a key of the job, such as freeze.freeze_level=0.8; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Replace what an earlier run left in the run's folder
    #[arg(long)]
    overwrite: bool,
    /// Do not show the plan first
    #[arg(long)]
    no_plan: bool,
    /// Measure a few steps, print what the freezing can save, and stop before the first step; the run's folder is
    /// left as it is
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// Runs the command. Everything that can be refused is refused before the run's folder is touched.
pub fn run(args: &Args) -> CommandResult {
    let mut job = Job::load(&args.job, &settings(args)?)?;
    let mut sizes = Sizes { batch: Some(job.data.batch), shapes: Vec::new() };
    let options = job.freeze.clone();
    let roles = (options.parameter.as_slice(), options.buffer.as_slice());
    let mut loaded = model::load_as(&job.model, &sizes, args.runtime.runtime.as_deref(), roles)?;
    sizes.shapes = shapes(&job, &loaded.analysis.model.graph);
    let sizes = sizes.that_fit(&loaded.analysis.model.graph);
    let length = Run { epochs: job.run.epochs as usize, steps_per_epoch: steps(&job) };
    let loss = job.objective();
    let stage = stage(&args.job, &job, &loss, &loaded)?;
    let schedule = job.schedule.clone().unwrap_or_default();
    if stage.is_none() {
        job.schedule = Some(schedule.clone());
    }
    let planned = match (&stage, &job.optimizer) {
        (Some(staged), _) => staged.plan(&loaded, &options, length, &sizes)?,
        (None, Some(optimizer)) => model::plan(&loaded, &options, length, model::slots(&loaded, optimizer)?, &sizes)?,
        _ => unreachable!("invariant: without a stage the job has both sections"),
    };
    let model::Planned { mut plan, basis } = planned;
    let planner = basis.planner()?;
    identify(&mut plan, &loaded.file);
    let fitted = sizes.fixed_where_needed(&mut loaded, "of the data", |loaded| fit(&job, &loss, loaded, &plan))?;
    let Fitted { prepared, stage, train: train_data, eval: eval_data } = fitted;
    let objective = objective(&job, &loss, stage.as_ref())?;
    if !args.dry_run {
        RunFolder::check(&job, args)?;
    }
    if !args.no_plan {
        eprint!("{}", lines(&report::plan_table(&plan)));
        eprintln!();
    }
    let mut engine = engine(&args.runtime, job.run.threads)?;
    let mut setup = Setup {
        prepared: &prepared,
        freezing: Freezing::with(&plan, &planner, &options).checked_on(job.run.ceiling_steps as usize),
        objective,
        schedule: &schedule,
        train: &train_data,
        eval: eval_data.as_ref(),
        loading: job.data.loading(),
        evaluation: &job.eval,
        checkpoints: None,
        resume: None,
        seed: job.run.seed,
        recompute: &job.run.recompute,
        log_every: 1,
        accumulate: job.run.accumulate as usize,
        nonfinite: job.run.nonfinite(),
        ema: job.ema,
    };
    setup.check()?;
    if args.dry_run {
        return dry_run(engine.as_mut(), &setup);
    }
    let folder = RunFolder::open(&job.run.dir)?;
    output::write_file(&folder.path.join("plan.json"), plan.to_json().as_bytes())?;
    output::write_file(&folder.path.join("job.toml"), job.resolved().as_bytes())?;
    setup.checkpoints = Some(Checkpoints::after_epochs(folder.path.join("checkpoints")));
    let stop = on_interrupt();
    let outcome = run_job(engine.as_mut(), &setup, &folder, job.run.log_every as usize, &stop)?;
    output::write_file(&folder.path.join("plan.json"), outcome.plan.to_json().as_bytes())?;
    let path = folder.path.join("model.onnx");
    let mut edits = trained_edits(&loaded.file.model.graph, &outcome.values);
    if stage.is_some() {
        edits.training.extend(outcome.slots.clone());
    }
    if !edits.nodes.is_empty() {
        // Bindings of training information may name outputs of these nodes.
        let (form, why) = match loaded.file.training.is_empty() {
            true => ("are in inference form", ""),
            false => ("stay in training form", ", as its training information needs"),
        };
        eprintln!("note: BatchNormalization and Dropout of the trained model {form}{why}");
        edits.nodes.retain(|_, _| loaded.file.training.is_empty());
    }
    output::write_model(&path, |data| loaded.file.rewrite_encoded(&edits, data, LARGEST))?;
    finish(&outcome, &path)
}

/// Prints what the freezing can save.
fn dry_run(engine: &mut dyn Engine, setup: &Setup<'_>) -> CommandResult {
    let found = check_ceiling(engine, setup, &mut |event| {
        if let RunEvent::Warning { message } = event {
            eprintln!("warning: {message}");
        }
    })?;
    let sentences = match (found, setup.freezing.ceiling_steps) {
        (Some(ceiling), _) => ceiling.sentences(),
        (None, 0) => vec!["nothing is measured: ceiling_steps is 0".into()],
        (None, _) => vec!["nothing is frozen in any epoch: there is nothing to save".into()],
    };
    output::emit(&format!("{}\n", sentences.join("\n")), None)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the settings over the job file: where it has no section `[loss]` or `[optimizer]` and its
/// model are training artifacts, theirs; then those of the command line.
fn settings(args: &Args) -> Result<Vec<String>, Failure> {
    let mut settings = Vec::new();
    if let Some(gaps) = Gaps::of(&args.job, &args.set)?
        && let Some(files) = artifacts::find(&gaps.model).ok().flatten()
    {
        let found = artifacts::read(&files)?;
        let loss = found.loss.filter(|_| gaps.loss).and_then(|loss| toml::Value::try_from(&loss.spec).ok());
        let optimizer = found.optimizer.filter(|_| gaps.optimizer).and_then(|spec| toml::Value::try_from(&spec).ok());
        settings.extend(loss.map(|value| format!("loss={value}")));
        settings.extend(optimizer.map(|value| format!("optimizer={value}")));
        for setting in &settings {
            eprintln!("from the training artifacts: {setting}");
        }
    }
    settings.extend(args.set.iter().cloned());
    Ok(settings)
}

/// Returns the shape of a batch of each input, from the columns of the training data; none where the
/// model leaves no size open but the batch. What is wrong with the data is told later.
fn shapes(job: &Job, graph: &Graph) -> Vec<(String, Vec<usize>)> {
    let open = |id: &ValueId| match &graph.fact(*id).shape {
        Some(shape) => shape.iter().skip(1).any(|dim| dim.known().is_none()),
        None => true,
    };
    if !graph.inputs().iter().any(open) {
        return Vec::new();
    }
    let columns: Vec<&str> = job.data.inputs.values().map(String::as_str).collect();
    let Ok(data) = Dataset::open(&job.data.train, &job.data.options(), Some(&columns)) else { return Vec::new() };
    let shape = |(input, column): (&String, &String)| {
        Some((input.clone(), [&[job.data.batch], data.column(column).ok()?.shape.as_slice()].concat()))
    };
    job.data.inputs.iter().filter_map(shape).collect()
}

/// Returns the steps of an epoch; 0 where the data cannot tell. What is wrong with the data is told later.
fn steps(job: &Job) -> usize {
    let Some(column) = job.data.inputs.values().next() else { return 0 };
    let Ok(data) = Dataset::open(&job.data.train, &job.data.options(), Some(&[column.as_str()])) else { return 0 };
    let rows = data.rows();
    let batches = match job.data.last_batch {
        LastBatch::Keep | LastBatch::Pad => rows.div_ceil(job.data.batch),
        LastBatch::Drop => rows / job.data.batch,
    };
    batches.div_ceil(usize::try_from(job.run.accumulate).unwrap_or(usize::MAX))
}

/// What a job trains, with its data.
struct Fitted {
    prepared: Prepared,
    stage: Option<Stage>,
    train: Batches,
    eval: Option<Batches>,
}

/// Prepares the model and reads the data. What cannot be trained is refused.
fn fit(job: &Job, loss: &Option<LossSpec>, loaded: &Loaded, plan: &FreezePlan) -> Result<Fitted, Failure> {
    let (prepared, stage) = match loss {
        Some(_) => (model::prepared(loaded, job.dropout)?, None),
        None => {
            let staged = model::staged(loaded, job.stage.unwrap_or(1), job.dropout)?;
            (staged.prepared, Some(staged.stage))
        }
    };
    let objective = objective(job, loss, stage.as_ref())?;
    let train = batches(job, &prepared, &objective, &job.data.train, true)?;
    let eval = job.data.eval.as_ref().map(|path| batches(job, &prepared, &objective, path, false)).transpose()?;
    try_graphs(job, &prepared, &objective, plan)?;
    Ok(Fitted { prepared, stage, train, eval })
}

/// Returns what is minimized and how.
fn objective<'a>(job: &'a Job, loss: &'a Option<LossSpec>, stage: Option<&'a Stage>) -> Result<Objective<'a>, Failure> {
    match (stage, loss, &job.optimizer) {
        (Some(stage), ..) => {
            let rate = || stage.rate.ok_or(StageError::Rate).map_err(TrainingError::from);
            Ok(Objective::Stage { stage, lr: job.schedule.as_ref().map(|_| rate()).transpose()? })
        }
        (None, Some(loss), Some(optimizer)) => {
            Ok(Objective::Own(Own { loss, output: job.output.as_deref(), optimizer }))
        }
        _ => unreachable!("invariant: without a stage the job has both sections"),
    }
}

/// Builds the graphs once with only that frozen which is frozen in every epoch: they need every
/// gradient that some phase needs, so what cannot be trained is refused now.
fn try_graphs(job: &Job, prepared: &Prepared, objective: &Objective<'_>, plan: &FreezePlan) -> Result<(), Failure> {
    let parts = segments(plan);
    let trainable = prepared.trainable();
    if parts.iter().all(|part| trainable.iter().all(|name| part.frozen.iter().any(|frozen| frozen == name))) {
        let text = "the plan freezes every parameter in every epoch: nothing trains";
        return Err(Failure::new(ErrorKind::BadInput, text));
    }
    let mut always: HashSet<&str> = parts.first().map(|part| part.held().collect()).unwrap_or_default();
    for part in parts.iter().skip(1) {
        let held: HashSet<&str> = part.held().collect();
        always.retain(|name| held.contains(name));
    }
    let mut step = objective.build(prepared, always, false, Rates::new(), job.run.seed)?;
    step.recompute(prepared, &job.run.recompute)?;
    if job.run.accumulate > 1 {
        objective.accumulating(step)?;
    }
    Ok(())
}

/// Returns the training step of the model that the job runs; `None` where it has a loss and an
/// optimizer of its own.
fn stage(
    file: &Path,
    job: &Job,
    loss: &Option<LossSpec>,
    loaded: &model::Loaded,
) -> Result<Option<model::Staged>, Failure> {
    let carries = !loaded.file.training.is_empty();
    let wrong = |text: String| Err(Failure::new(ErrorKind::Usage, format!("{}: {text}", file.display())));
    match (loss, &job.optimizer) {
        (None, None) if carries => Ok(Some(model::staged(loaded, job.stage.unwrap_or(1), job.dropout)?)),
        (Some(_), Some(_)) if job.stage.is_some() => wrong("`stage` needs a job without [loss] and [optimizer]".into()),
        (Some(_), Some(_)) if carries => {
            eprintln!("note: the job has a [loss] and an [optimizer]: the model's training information is not used");
            Ok(None)
        }
        (Some(_), Some(_)) => Ok(None),
        (loss, _) => {
            let (missing, given) = if loss.is_none() { ("loss", "optimizer") } else { ("optimizer", "loss") };
            let text = match carries {
                true => format!("[{given}] needs [{missing}], or neither to run the model's training information"),
                false => format!("missing section [{missing}]"),
            };
            wrong(text)
        }
    }
}

fn run_job(
    engine: &mut dyn Engine,
    setup: &Setup<'_>,
    folder: &RunFolder,
    log_every: usize,
    stop: &AtomicBool,
) -> Result<Outcome, Failure> {
    let mut log = EventLog::create(&folder.path.join("events.jsonl"))?;
    let mut progress = Progress::new();
    let mut report = |event: RunEvent| {
        progress.show(&event);
        let skip = matches!(&event, RunEvent::Step { step, .. } if step % log_every.max(1) != 0);
        if !skip {
            log.append(event);
        }
    };
    let outcome = train(engine, setup, &mut report, stop);
    progress.clear();
    log.finish()?;
    Ok(outcome?)
}

fn finish(outcome: &Outcome, model: &Path) -> CommandResult {
    let metrics: Vec<String> = outcome.metrics.iter().map(|(name, value)| metric(name, *value)).collect();
    if outcome.stopped {
        eprintln!("stopped before the end of the plan; the weights of the last step are kept");
    }
    let state = if outcome.stopped { "partly trained" } else { "trained" };
    output::emit(&format!("{}\n{state} model: {}\n", metrics.join(", "), model.display()), None)?;
    Ok(if outcome.stopped { ExitCode::from(STOPPED) } else { ExitCode::SUCCESS })
}

/// Finds ONNX Runtime, or falls back to the embedded executor, saying so.
fn engine(args: &RuntimeArgs, threads: Option<usize>) -> Result<Box<dyn Engine>, Failure> {
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    if args.runtime.as_deref() == Some(Path::new("embedded")) {
        eprintln!("note: the embedded executor (tract) runs on one thread and is several times slower");
        return embedded();
    }
    let options = LocateOptions { runtime: args.runtime.clone(), offline: args.offline };
    match locate(&options, &mut |text| eprintln!("{text}")) {
        Ok(found) => Ok(Box::new(OnnxRuntime::new(&found.path, threads)?)),
        Err(error) if !matches!(error, LocateError::Unusable { .. }) && cfg!(feature = "tract") => {
            eprintln!("warning: {error}");
            eprintln!("warning: training on the embedded executor (tract), which is several times slower");
            embedded()
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(feature = "tract")]
fn embedded() -> Result<Box<dyn Engine>, Failure> {
    Ok(Box::new(crate::runner::Tract::new()))
}

#[cfg(not(feature = "tract"))]
fn embedded() -> Result<Box<dyn Engine>, Failure> {
    Err(Failure::new(ErrorKind::Usage, "this build has no embedded executor (feature \"tract\")"))
}

/// Returns a flag that Ctrl-C sets; a second Ctrl-C ends the process.
fn on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let _ = ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(STOPPED));
        }
        let clear = if std::io::stderr().is_terminal() { "\r\x1b[2K" } else { "" };
        eprintln!("{clear}stopping after this step (Ctrl-C again ends at once)");
    });
    stop
}

/// What a run writes beside its checkpoints.
const WRITTEN: [&str; 5] = ["events.jsonl", "job.toml", "model.onnx", "plan.json", "report.html"];

struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Refuses a folder that holds another run, or the files that this one reads. Nothing is
    /// changed yet.
    fn check(job: &Job, args: &Args) -> Result<(), Failure> {
        let folder = &job.run.dir;
        let bad = |text: String| Failure::new(ErrorKind::BadInput, text);
        let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
        let data = [Some(&job.model), Some(&job.data.train), job.data.eval.as_ref(), Some(&args.job)];
        for input in data.into_iter().flatten() {
            if let Some(written) = WRITTEN.iter().find(|name| same(&folder.join(name), input)) {
                let text = format!("the run would write {written} over {}, which it reads", input.display());
                return Err(bad(text).hint("choose another folder with --set run.dir=DIR"));
            }
        }
        if folder.join("events.jsonl").exists() && !args.overwrite {
            return Err(bad(format!("{} holds an earlier run", folder.display()))
                .hint("give --overwrite to replace it, or another folder with --set run.dir=DIR"));
        }
        Ok(())
    }

    /// Makes the folder, without what an earlier run left in it.
    fn open(folder: &Path) -> Result<RunFolder, Failure> {
        output::make_folder(folder)?;
        output::write_file(&folder.join(".writable"), b"")?;
        let _ = std::fs::remove_file(folder.join(".writable"));
        let _ = std::fs::remove_dir_all(folder.join("checkpoints"));
        for name in WRITTEN {
            let _ = std::fs::remove_file(folder.join(name));
        }
        output::make_folder(&folder.join("checkpoints"))?;
        Ok(RunFolder { path: folder.to_path_buf() })
    }
}

/// `events.jsonl`: one object a line, flushed.
struct EventLog {
    file: File,
    path: PathBuf,
    clock: Instant,
    failed: Option<std::io::Error>,
}

impl EventLog {
    fn create(path: &Path) -> Result<EventLog, Failure> {
        let file = File::create(path)
            .map_err(|error| Failure::new(ErrorKind::BadInput, format!("cannot write {}: {error}", path.display())))?;
        Ok(EventLog { file, path: path.to_path_buf(), clock: Instant::now(), failed: None })
    }

    fn append(&mut self, event: RunEvent) {
        let timed = Timed { event, time: self.clock.elapsed().as_secs_f64() };
        let mut line = serde_json::to_vec(&timed).expect("invariant: plain data");
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line).and_then(|()| self.file.flush()) {
            self.failed.get_or_insert(error);
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self.failed {
            None => Ok(()),
            Some(error) => {
                Err(Failure::new(ErrorKind::BadInput, format!("cannot write {}: {error}", self.path.display())))
            }
        }
    }
}
