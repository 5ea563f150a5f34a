//! `freeze-plan man --out DIR`: manual pages.

use super::failure::{CommandResult, Failure};
use super::{command, output};
use crate::error::ErrorKind;
use clap::Command;
use clap_mangen::Man;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Writes the manual pages, one for each command
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  freeze-plan man --out ~/.local/share/man/man1")]
pub struct Args {
    /// Folder for freeze-plan.1, freeze-plan-train.1 and the others
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    output::make_folder(&args.out)?;
    let mut root = command().disable_help_subcommand(true);
    root.build();
    page(&root, &args.out)?;
    for inner in root.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        page(inner, &args.out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of a command and prints where it lies.
fn page(command: &Command, folder: &Path) -> Result<(), Failure> {
    let man = Man::new(command.clone());
    let path = folder.join(man.get_filename());
    let mut text = Vec::new();
    man.render(&mut text).map_err(|error| Failure::new(ErrorKind::Internal, error.to_string()))?;
    output::write_file(&path, &text)?;
    output::emit(&format!("{}\n", path.display()), None)
}
