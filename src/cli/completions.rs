//! `freeze-plan completions SHELL`: what a shell completes.

use super::failure::CommandResult;
use super::{command, output};
use clap_complete::{Shell, generate};
use std::process::ExitCode;

/// Writes a shell's completion script to stdout
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  freeze-plan completions bash > ~/.local/share/bash-completion/completions/freeze-plan
  freeze-plan completions zsh > ~/.zfunc/_freeze-plan")]
pub struct Args {
    /// Shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    let mut script = Vec::new();
    generate(args.shell, &mut command(), "freeze-plan", &mut script);
    output::emit(&String::from_utf8_lossy(&script), None)?;
    Ok(ExitCode::SUCCESS)
}
