//! `freeze-plan restore MODEL CHECKPOINT --output FILE`: the weights of a checkpoint in the model.

use super::failure::{CommandResult, Failure, note};
use super::options::RoleArgs;
use super::{model, output};
use crate::artifacts::{find, read_checkpoint};
use crate::classic::{names::is_ours, restored};
use crate::graph::Tensor;
use crate::onnx::LARGEST;
use crate::trainer::without_plan;
use crate::training::trained_edits;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// Writes the weights of a checkpoint of ONNX Runtime's training interface into the model
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  freeze-plan restore model.onnx artifacts/epoch-0006/checkpoint --output trained.onnx")]
pub struct Args {
    /// ONNX model that the artifacts were made from
    model: PathBuf,
    /// Checkpoint, or the folder of artifacts that holds it
    checkpoint: PathBuf,
    /// Model file to write: the model with these weights, everything else as it is
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    roles: RoleArgs,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    let loaded = model::load(&args.model, (&args.roles.parameter, &args.roles.buffer))?;
    let files = if args.checkpoint.is_dir() { find(&args.checkpoint)? } else { None };
    let path = files.map_or_else(|| args.checkpoint.clone(), |files| files.checkpoint);
    let checkpoint = read_checkpoint(&path)?;
    let graph = &loaded.analysis.model.graph;
    let own = loaded.analysis.parameters.iter().filter_map(|parameter| {
        let tensor = graph.value(parameter.value).initializer.clone()?;
        Some((parameter.name.clone(), tensor))
    });
    let own: BTreeMap<String, Tensor> = own.collect();
    let values =
        restored(&own, &checkpoint).map_err(|error| Failure::from(error).within(&path.display().to_string()))?;
    let mut edits = trained_edits(&loaded.file.model.graph, &values);
    without_plan(&loaded.file, &mut edits).iter().for_each(|told| note(told));
    if !edits.nodes.is_empty() {
        match loaded.file.training.is_empty() {
            true => note("BatchNormalization and Dropout of the written model are in inference form"),
            // Bindings of training information may name outputs of these nodes.
            false => edits.nodes.clear(),
        }
    }
    output::write_model(&args.output, |data| loaded.file.rewrite_encoded(&edits, data, LARGEST))?;
    let steps = checkpoint.optimizer.first().map_or(0, |group| group.step);
    let left = checkpoint.frozen.iter().filter(|(name, _)| is_ours(name)).count();
    let left = if left > 0 { format!(", {left} tensors of training state are left out") } else { String::new() };
    eprintln!("{} parameters after {steps} optimizer steps{left}", values.len());
    output::emit(&format!("{}\n", args.output.display()), None)?;
    Ok(ExitCode::SUCCESS)
}
