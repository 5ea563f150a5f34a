//! The command line: one file a command, nothing computed here.
//!
//! stdout is data, everything else goes to stderr. Exit codes: 0 done, 1 bad input, 2 usage,
//! 3 model not supported, 4 a check failed, 70 a defect of this program, 130 stopped by
//! Ctrl-C and 143 by SIGTERM, both with a checkpoint.

mod attach;
mod classic;
mod compare;
mod completions;
mod diff;
mod doctor;
mod failure;
mod frozen_units;
mod graph;
mod init;
mod man;
mod measure;
mod model;
mod operators;
mod options;
mod output;
mod policies;
mod policy_spec;
mod preview;
mod printable;
mod probe;
mod progress;
mod report;
mod restore;
mod schema;
mod signals;
mod train;
mod tree;

use crate::error::{ErrorKind, nearest};
use clap::{CommandFactory, Parser, Subcommand};
use failure::Failure;

use std::process::ExitCode;

/// Exit code of a run that Ctrl-C ended after a step.
pub const STOPPED: u8 = 130;

/// Plans per-epoch layer freezing for any ONNX model, and trains it with that plan on ONNX Runtime.
///
/// `freeze-plan model.onnx` previews the schedule and what it saves.
#[derive(Parser)]
#[command(name = "freeze-plan", version, max_term_width = 100)]
#[command(after_help = "\
Examples:
  freeze-plan model.onnx --epochs 90 --freeze-start 0.3
  freeze-plan init model.onnx --data train.npz
  freeze-plan train job.toml")]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    preview: preview::Args,
}

#[derive(Subcommand)]
#[allow(clippy::large_enum_variant, reason = "parsed once")]
enum Command {
    Tree(tree::Args),
    Compare(compare::Args),
    Diff(diff::Args),
    Attach(attach::Args),
    Graph(graph::Args),
    Init(init::Args),
    Train(train::Args),
    Report(report::Args),
    Restore(restore::Args),
    Doctor(doctor::Args),
    Operators(operators::Args),
    Policies(policies::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    Man(man::Args),
    #[command(name = probe::COMMAND, hide = true)]
    Probe(probe::Args),
}

/// Runs the program on the process's arguments. A panic is a defect of this program and gives its
/// exit code.
pub fn main() -> ExitCode {
    if let Some(failure) = misspelt(std::env::args().nth(1)) {
        return failure::print(&failure);
    }
    let cli = Cli::parse();
    quiet_tract();
    match std::panic::catch_unwind(|| dispatch(cli)) {
        Ok(code) => code,
        Err(_) => {
            eprintln!("error: this is a defect of freeze-plan; please report it with the model and the command");
            ExitCode::from(ErrorKind::Internal.exit_code())
        }
    }
}

/// Keeps to itself what tract says when it gives up a model: the planner goes on without it.
fn quiet_tract() {
    #[cfg(feature = "tract")]
    {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() != Some(crate::facts::TRACT_THREAD) {
                tell(panic);
            }
        }));
    }
}

/// Returns the description of the command line.
fn command() -> clap::Command {
    Cli::command()
}

/// Refuses a first word that is no file and nearly a command.
fn misspelt(word: Option<String>) -> Option<Failure> {
    let word = word.filter(|word| !word.starts_with('-') && !std::path::Path::new(word).exists())?;
    let command = command();
    let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).chain(["help"]).collect();
    let near = nearest(&word, names.iter().copied()).filter(|_| !names.contains(&word.as_str()))?;
    let text = format!("there is neither a file nor a command \"{word}\", did you mean \"{near}\"?");
    Some(Failure::new(ErrorKind::Usage, text))
}

fn dispatch(cli: Cli) -> ExitCode {
    let result = match cli.command {
        None => preview::run(&cli.preview),
        Some(Command::Tree(args)) => tree::run(&args),
        Some(Command::Compare(args)) => compare::run(&args),
        Some(Command::Diff(args)) => diff::run(&args),
        Some(Command::Attach(args)) => attach::run(&args),
        Some(Command::Graph(args)) => graph::run(&args),
        Some(Command::Init(args)) => init::run(&args),
        Some(Command::Train(args)) => train::run(&args),
        Some(Command::Report(args)) => report::run(&args),
        Some(Command::Restore(args)) => restore::run(&args),
        Some(Command::Doctor(args)) => doctor::run(&args),
        Some(Command::Operators(args)) => operators::run(&args),
        Some(Command::Policies(args)) => policies::run(&args),
        Some(Command::Schema(args)) => schema::run(&args),
        Some(Command::Completions(args)) => completions::run(&args),
        Some(Command::Man(args)) => man::run(&args),
        Some(Command::Probe(args)) => probe::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(failure) => failure::print(&failure),
    }
}
