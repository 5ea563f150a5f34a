//! `freeze-plan tree MODEL`: the ownership tree.

use super::failure::CommandResult;
use super::options::RoleArgs;
use super::printable::lines;
use super::{model, output};
use crate::modules;
use std::path::PathBuf;
use std::process::ExitCode;

/// Shows the model's modules with their parameters
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  freeze-plan tree model.onnx --why")]
pub struct Args {
    /// ONNX model, or a folder of training artifacts
    model: PathBuf,
    /// Say what placed each parameter and what tells it from a buffer
    #[arg(long)]
    why: bool,
    #[command(flatten)]
    roles: RoleArgs,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    let analysis = model::load(&args.model, (&args.roles.parameter, &args.roles.buffer))?.analysis;
    let text = match args.why {
        true => modules::why(&analysis.model, &analysis.tree, &analysis.parameters),
        false => analysis.tree.text(&analysis.model),
    };
    output::emit(&lines(&text), None)?;
    if !args.why {
        modules::notes(&analysis.model, &analysis.tree, &analysis.parameters)
            .iter()
            .for_each(|note| eprintln!("note: {note}"));
    }
    Ok(ExitCode::SUCCESS)
}
