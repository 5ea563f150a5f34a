//! `freeze-plan operators`: what can be differentiated.

use super::failure::CommandResult;
use super::output;
use crate::autodiff::coverage;
use std::path::PathBuf;
use std::process::ExitCode;

/// Lists the operators of ONNX with the opsets at which they have gradients
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  freeze-plan operators")]
pub struct Args {
    /// Write to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    output::emit(&coverage::table(), args.output.as_deref())?;
    Ok(ExitCode::SUCCESS)
}
