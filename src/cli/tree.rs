//! `freeze-plan tree MODEL`: the ownership tree.

use super::failure::CommandResult;
use super::printable::lines;
use super::{model, output};
use std::path::PathBuf;
use std::process::ExitCode;

/// Shows the model's modules with their parameters
#[derive(clap::Args, Debug)]
pub struct Args {
    /// ONNX model
    model: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    let analysis = model::load(&args.model)?.analysis;
    output::emit(&lines(&analysis.tree.text(&analysis.model)), None)?;
    Ok(ExitCode::SUCCESS)
}
