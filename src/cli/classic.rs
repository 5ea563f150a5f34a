//! `freeze-plan graph MODEL --classic DIR`: the training artifacts of ONNX Runtime for every phase of a plan.

use super::failure::{CommandResult, Failure, note};
use super::graph::{Args, Wanted, wanted, with_sizes};
use super::{model, options, output};
use crate::artifacts::{Checkpoint, encode_checkpoint, encode_nominal_checkpoint, read_checkpoint};
use crate::classic::{ClassicError, FileName, Phase, PhaseFolder, Phases, check_optimizer, folders, optimizer};
use crate::error::ErrorKind;
use crate::losses::LossSpec;
use crate::onnx::{LARGEST, encode};
use crate::optim::OptimizerSpec;
use crate::plan::policies::find;
use crate::plan::{self, FreezePlan, OnReturn, Point, Run, Segment, sha256_hex};
use crate::planner::identify;
use crate::training::{PhaseOptions, Prepared, Rates, build};
use std::path::Path;
use std::process::ExitCode;

const PHASES: &str = "phases.json";

/// What artifacts were made with that a device has trained since.
pub(super) struct Before {
    pub plan: FreezePlan,
    pub loss: LossSpec,
    pub optimizer: OptimizerSpec,
    pub dropout: String,
}

impl Before {
    fn read(folder: &Path) -> Result<Option<Before>, Failure> {
        let path = folder.join(PHASES);
        if !path.exists() {
            return Ok(None);
        }
        let wrong =
            |reason: &dyn std::fmt::Display| Failure::new(ErrorKind::BadInput, format!("{}: {reason}", path.display()));
        let text = std::fs::read_to_string(&path).map_err(|error| wrong(&error))?;
        let phases: Phases = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
        let file = folder.join(&phases.plan.file);
        let bytes = std::fs::read(&file).map_err(|error| wrong(&format!("{}: {error}", file.display())))?;
        if sha256_hex(&bytes) != phases.plan.sha256 {
            return Err(wrong(&format!("{} is not the plan that it was written for", file.display())));
        }
        let Phases { loss, optimizer, dropout, .. } = phases;
        Ok(Some(Before { plan: plan::read(&file)?, loss, optimizer, dropout }))
    }
}

/// Writes the artifacts, of every phase or of one.
pub(super) fn run(args: &Args, folder: &Path) -> CommandResult {
    let before = args.from.as_ref().map(|_| Before::read(folder)).transpose()?.flatten();
    let Wanted { mut loaded, mut plan, loss, optimizer: spec, dropout, sizes, dropout_text, .. } =
        wanted(args, before)?;
    check_optimizer(&spec)?;
    if args.plan_file.is_none() && args.from.is_none() {
        warn(args, &plan)?;
    }
    identify(&mut plan, &loaded.file);
    let on_return: Option<OnReturn> = options::word("--on-return", &args.on_return)?;
    let from = args.from.as_deref().map(read_checkpoint).transpose()?;
    let sets = folders(&plan)?;
    let chosen = args.epoch.map(|epoch| chosen(&plan, &sets, epoch)).transpose()?;
    let (prepared, made) = sizes.fixed_where_needed(&mut loaded, "given", &mut note, |loaded| {
        let prepared = model::prepared(loaded, dropout)?;
        let phase = |segments: &Vec<Segment>| phase(&prepared, &segments[0], &loss, &spec, loaded);
        let made = sets.iter().map(phase).collect::<Result<Vec<_>, _>>()?;
        Ok((prepared, made))
    })?;
    let model = FileName {
        file: loaded.file.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        sha256: sha256_hex(&loaded.file.bytes),
    };
    let mut phases = Phases::of(&plan, model, &loss, &spec, &dropout_text);
    let on_return = on_return.unwrap_or(phases.on_return);
    if on_return == OnReturn::WarmUp && from.is_some() {
        note("artifacts have one learning rate for all parameters: warm-up is reset");
    }
    output::make_folder(folder)?;
    let mut written = Vec::new();
    for (index, (segments, phase)) in sets.iter().zip(&made).enumerate() {
        let entry = PhaseFolder::of(segments, phase.as_ref());
        let wanted = chosen.is_none_or(|chosen| chosen == index);
        match (phase, &entry.folder, args.epoch) {
            (Some(phase), Some(name), _) if wanted => {
                let into = folder.join(name);
                let checkpoint = match &from {
                    Some(from) => phase.carried(&spec, from, on_return)?,
                    None => phase.initial(),
                };
                write(&into, phase, &checkpoint, &optimizer(&spec, &prepared.model)?)?;
                let (trains, kept) = (phase.trains.len(), phase.frozen.len());
                eprintln!("{}: {trains} parameters train, {kept} stay or move by themselves", into.display());
                written.push(into);
            }
            (None, _, Some(epoch)) if wanted => return Err(ClassicError::Epoch { epoch }.into()),
            _ => {}
        }
        if let Some(phase) = phase {
            (phases.inputs, phases.outputs) = (phase.inputs.clone(), phase.outputs.clone());
        }
        phases.phases.push(entry);
    }
    if phases.inputs.is_empty() {
        return Err(ClassicError::Nothing.into());
    }
    let text = serde_json::to_string_pretty(&phases).expect("invariant: plain data");
    output::write_file(&folder.join(&phases.plan.file), plan.to_json().as_bytes())?;
    output::write_file(&folder.join(PHASES), format!("{text}\n").as_bytes())?;
    written.push(folder.join(PHASES));
    output::emit(&written.iter().map(|path| format!("{}\n", path.display())).collect::<String>(), None)?;
    Ok(ExitCode::SUCCESS)
}

/// Says what a plan that is made here cannot know of the run on a device.
fn warn(args: &Args, plan: &FreezePlan) -> Result<(), Failure> {
    /// Steps of an epoch, for a policy that acts at some of them.
    const STEPS: usize = 1000;
    let Ok(policy) = find(&args.plan.options()?) else { return Ok(()) };
    let name = &plan.policy.name;
    let run = Run { steps_per_epoch: STEPS, ..args.plan.length() };
    if policy.is_adaptive() {
        note(&format!(
            "policy {name} decides by what a run measures, which artifacts cannot do: they follow what it does without \
             measurements; --plan takes the plan of a run"
        ));
    } else if args.plan.length().steps_per_epoch == 0
        && policy.points(run, plan.units.len()).iter().any(|step| !step.is_multiple_of(STEPS))
    {
        note(&format!(
            "policy {name} acts within epochs too: without --steps what it does there is put off to the next epoch"
        ));
    }
    Ok(())
}

/// Returns the frozen set that holds at the start of an epoch, by its position.
fn chosen(plan: &FreezePlan, sets: &[Vec<Segment>], epoch: usize) -> Result<usize, Failure> {
    let at = Point { epoch, after: 0 };
    let begun =
        sets.iter().enumerate().flat_map(|(index, segments)| segments.iter().map(move |one| (one.start(), index)));
    let last = begun.filter(|(start, _)| *start <= at).max();
    last.filter(|_| (1..=plan.epochs.len()).contains(&epoch)).map(|(_, index)| index).ok_or_else(|| {
        Failure::new(ErrorKind::Usage, format!("--epoch {epoch}: the plan has epochs 1 to {}", plan.epochs.len()))
    })
}

/// Returns the models of a frozen set; `None` where nothing trains.
fn phase(
    prepared: &Prepared,
    segment: &Segment,
    loss: &LossSpec,
    optimizer: &OptimizerSpec,
    loaded: &model::Loaded,
) -> Result<Option<Phase>, Failure> {
    let options = PhaseOptions {
        frozen: segment.held().collect(),
        frozen_inputs: true,
        rates: Rates::new(),
        loss,
        optimizer,
        output: None,
        seed: 0,
    };
    let step = build(prepared, &options).map_err(|error| with_sizes(error, &loaded.analysis.model.graph))?;
    if step.trained.is_empty() {
        return Ok(None);
    }
    Ok(Some(Phase::of(prepared, &step)?))
}

fn write(folder: &Path, phase: &Phase, checkpoint: &Checkpoint, optimizer: &[u8]) -> Result<(), Failure> {
    output::make_folder(folder)?;
    output::write_model(&folder.join("training_model.onnx"), |data| Ok(encode(&phase.training, data, LARGEST)))?;
    output::write_model(&folder.join("eval_model.onnx"), |data| Ok(encode(&phase.eval, data, LARGEST)))?;
    output::write_file(&folder.join("optimizer_model.onnx"), optimizer)?;
    output::write_model(&folder.join("checkpoint"), |_| Ok(encode_checkpoint(checkpoint)))?;
    output::write_file(&folder.join("nominal_checkpoint"), &encode_nominal_checkpoint(checkpoint))?;
    Ok(())
}
