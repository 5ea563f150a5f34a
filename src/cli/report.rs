//! `freeze-plan report RUN`: one page of a run.

use super::failure::{CommandResult, Failure};
use super::output;
use crate::error::ErrorKind;
use crate::report::run_html;
use crate::runner::Timed;
use std::path::PathBuf;
use std::process::ExitCode;

/// Writes one self-contained HTML page of a run
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  freeze-plan report runs/first")]
pub struct Args {
    /// Folder of the run
    run: PathBuf,
    /// Write to this file instead of RUN/report.html; - for stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    let plan = crate::plan::read(&args.run.join("plan.json"))?;
    let path = args.run.join("events.jsonl");
    let bad = |text: String| Failure::new(ErrorKind::BadInput, text);
    let text =
        std::fs::read_to_string(&path).map_err(|error| bad(format!("cannot read {}: {error}", path.display())))?;
    let lines: Vec<&str> = text.lines().collect();
    let mut events = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        match serde_json::from_str::<Timed>(line) {
            Ok(event) => events.push(event),
            Err(_) if index + 1 == lines.len() && !text.ends_with('\n') => {
                eprintln!("warning: the last line of {} is cut short and left out", path.display());
            }
            Err(error) => return Err(bad(format!("{}, line {}: {error}", path.display(), index + 1))),
        }
    }
    let page = run_html(&plan, &events);
    match &args.output {
        Some(file) if file.as_os_str() == "-" => output::emit(&page, None)?,
        file => {
            let file = file.clone().unwrap_or_else(|| args.run.join("report.html"));
            output::write_file(&file, page.as_bytes())?;
            output::emit(&format!("{}\n", file.display()), None)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
