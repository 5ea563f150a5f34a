//! `freeze-plan diff A B`: what differs between two plans.

use super::failure::{CommandResult, Failure};
use super::output;
use super::printable::lines;
use crate::error::ErrorKind;
use crate::planner::read_plan;
use crate::report::{RunRecord, Side, diff_table, plan_diff};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Tells what differs between two plans: model, policy, when parameters freeze, what it costs
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  freeze-plan diff runs/a runs/b
  freeze-plan diff plan.json runs/a --format json
  freeze-plan diff --exit-code plan.json planned.onnx")]
pub struct Args {
    /// Plan file, model with a plan, or folder of a run
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The one to compare with; of two runs the settings of their jobs are compared as well
    #[arg(value_name = "B")]
    b: PathBuf,
    /// How the difference is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Exit with code 4 where something differs, 0 where nothing does
    #[arg(long)]
    exit_code: bool,
    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, Default)]
enum Format {
    /// For a terminal of 80 columns
    #[default]
    Table,
    /// For another program
    Json,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    let diff = plan_diff(&side(&args.a)?, &side(&args.b)?);
    let text = match args.format {
        Format::Table => lines(&diff_table(&diff)).into_owned(),
        Format::Json => serde_json::to_string_pretty(&diff).expect("invariant: plain data with string keys") + "\n",
    };
    output::emit(&text, args.output.as_deref())?;
    let differs = args.exit_code && !diff.same;
    Ok(if differs { ExitCode::from(ErrorKind::Check.exit_code()) } else { ExitCode::SUCCESS })
}

fn side(path: &Path) -> Result<Side, Failure> {
    let plan = read_plan(path).map_err(|error| {
        let failure = Failure::from(error);
        if path.is_dir() { failure.hint("a folder is that of a run, with plan.json") } else { failure }
    })?;
    let job = path.join("job.toml");
    let settings = match std::fs::read_to_string(&job) {
        Ok(text) => Some(
            RunRecord::settings_of(&text)
                .ok_or_else(|| Failure::new(ErrorKind::BadInput, format!("{} is no TOML", job.display())))?,
        ),
        Err(_) => None,
    };
    Ok(Side { label: path.display().to_string(), plan, settings })
}
