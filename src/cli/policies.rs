//! `freeze-plan policies`: which freezing policies there are.

use super::failure::CommandResult;
use super::output;
use crate::plan::policies::named;
use crate::report::policies_table;
use std::path::PathBuf;
use std::process::ExitCode;

/// Lists the freezing policies with their settings, or shows the card of one
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  freeze-plan policies
  freeze-plan policies freezeout")]
pub struct Args {
    /// Policy whose card is shown: idea, formula, settings, source and known negative results
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Write to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    let text = match &args.name {
        Some(name) => named(name)?.text(),
        None => policies_table(),
    };
    output::emit(&text, args.output.as_deref())?;
    Ok(ExitCode::SUCCESS)
}
