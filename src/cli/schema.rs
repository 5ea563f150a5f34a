//! `freeze-plan schema KIND`: the JSON Schema of a kind of file.

use super::failure::CommandResult;
use super::output;
use crate::schemas::{self, FileKind};
use std::path::PathBuf;
use std::process::ExitCode;

/// Prints the JSON Schema of plan, contract, job, event, phase or difference files
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  freeze-plan schema job --output job.schema.json
An editor that reads #:schema (Even Better TOML, taplo) then completes and checks a job that begins with
  #:schema ./job.schema.json")]
pub struct Args {
    /// Which files: those of events hold one JSON object a line, and the schema is that of a line
    #[arg(value_enum, value_name = "KIND")]
    kind: Kind,
    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Kind {
    Plan,
    Contract,
    Job,
    Events,
    Phases,
    Diff,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    let kind = match args.kind {
        Kind::Plan => FileKind::Plan,
        Kind::Contract => FileKind::Contract,
        Kind::Job => FileKind::Job,
        Kind::Events => FileKind::Events,
        Kind::Phases => FileKind::Phases,
        Kind::Diff => FileKind::Diff,
    };
    let schema = schemas::schema(kind);
    output::emit(&format!("{schema:#}\n"), args.output.as_deref())?;
    Ok(ExitCode::SUCCESS)
}
