//! `freeze-plan report RUN ..`: one page of a run, or of several beside each other.

use super::failure::{CommandResult, Failure};
use super::output;
use super::printable::line;
use crate::error::ErrorKind;
use crate::report::{RunLog, RunRecord, run_html};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, ErrorKind as IoKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EVENTS: &str = "events.jsonl";
/// The most names that are told of a folder that is no run.
const NAMES: usize = 8;

/// Writes one self-contained HTML page of a run; several runs are compared
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  freeze-plan report runs/first")]
pub struct Args {
    /// Folder of a run; it may still be going, or have been ended from outside
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Write to this file instead of RUN/report.html, or report.html for several runs; - for stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    let mut records = Vec::new();
    for folder in &args.runs {
        let record = read(folder)?;
        for problem in &record.problems {
            eprintln!("warning: {}", line(&format!("{}: {problem}", folder.display())));
        }
        records.push(record);
    }
    shorten(&mut records);
    let page = run_html(&records);
    match &args.output {
        Some(file) if file.as_os_str() == "-" => output::emit(&page, None)?,
        file => {
            let own = match args.runs.as_slice() {
                [folder] => folder.join("report.html"),
                _ => PathBuf::from("report.html"),
            };
            let file = file.clone().unwrap_or(own);
            output::write_file(&file, page.as_bytes())?;
            output::emit(&format!("{}\n", file.display()), None)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the folder of a run. Without its events it is none; the rest may be missing.
fn read(folder: &Path) -> Result<RunRecord, Failure> {
    let path = folder.join(EVENTS);
    let unreadable = |error: std::io::Error| bad(format!("cannot read {}: {error}", path.display()));
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), IoKind::NotFound | IoKind::NotADirectory) => return Err(no_run(folder)),
        Err(error) => return Err(unreadable(error)),
    };
    let log = RunLog::read(BufReader::new(file)).map_err(unreadable)?;
    let mut problems = log.problems();
    if log.is_empty() && !problems.is_empty() {
        return Err(bad(format!("{}: no line is an event of a run; {}", path.display(), problems.join("; "))));
    }
    if log.is_empty() {
        problems.push(format!("{EVENTS} is empty: nothing happened yet"));
    }
    let plan = match crate::plan::read(&folder.join("plan.json")) {
        Ok(plan) => Some(plan),
        Err(error) => {
            problems.push(format!("what was frozen is not shown: {}", Failure::from(error).message()));
            None
        }
    };
    let settings = match fs::read_to_string(folder.join("job.toml")) {
        Ok(text) => RunRecord::settings_of(&text).or_else(|| {
            problems.push("settings are not shown: job.toml is no TOML".to_string());
            None
        }),
        Err(error) => {
            problems.push(format!("settings are not shown: cannot read job.toml: {error}"));
            None
        }
    };
    let settings: BTreeMap<String, String> = settings.unwrap_or_default();
    Ok(RunRecord { label: label(folder), log, plan, settings, problems })
}

/// Returns what a run is called: its path as it was given, or the folder's own name where that says nothing.
fn label(folder: &Path) -> String {
    let given = folder.display().to_string();
    let named = folder.file_name().is_some();
    let own = || Some(folder.canonicalize().ok()?.file_name()?.to_string_lossy().into_owned());
    if named { given } else { own().unwrap_or(given) }
}

/// Leaves out the folders that the names of several runs begin with.
fn shorten(records: &mut [RunRecord]) {
    let Some(first) = records.first().map(|record| PathBuf::from(&record.label)) else { return };
    let folders = first.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
    let of_all = |folder: &&Path| records.iter().all(|record| Path::new(&record.label).strip_prefix(folder).is_ok());
    let Some(folder) = folders.into_iter().find(of_all).map(Path::to_path_buf).filter(|_| records.len() > 1) else {
        return;
    };
    for record in records {
        if let Ok(rest) = Path::new(&record.label).strip_prefix(&folder).map(|rest| rest.display().to_string()) {
            record.label = if rest.is_empty() { record.label.clone() } else { rest };
        }
    }
}

fn bad(text: String) -> Failure {
    Failure::new(ErrorKind::BadInput, text)
}

/// Returns what was expected in a folder and what was found.
fn no_run(folder: &Path) -> Failure {
    let shown = folder.display();
    let expected = format!("expected the folder of a run, with {EVENTS}, plan.json and job.toml");
    let Ok(entries) = fs::read_dir(folder) else {
        let (found, hint) = match folder.metadata() {
            Ok(data) if data.is_file() => ("it is a file", of_file(folder)),
            Ok(_) => ("it cannot be listed", None),
            Err(_) => ("there is nothing of this name", None),
        };
        let failure = bad(format!("{shown} is no run: {expected}, but {found}"));
        return match hint {
            Some(hint) => failure.hint(hint),
            None => failure.hint("a run's folder is run.dir of its job, relative to the job file"),
        };
    };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let runs: Vec<String> = names.iter().filter(|name| folder.join(name).join(EVENTS).exists()).cloned().collect();
    let found = match names.as_slice() {
        [] => "it is empty".to_string(),
        names => {
            let more = names.len().saturating_sub(NAMES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("found {}{more}", names.iter().take(NAMES).cloned().collect::<Vec<_>>().join(", "))
        }
    };
    let failure = bad(format!("{shown} is no run: {expected}, {found}"));
    match runs.first() {
        Some(first) => {
            let count = if runs.len() == 1 { "1 run".into() } else { format!("{} runs", runs.len()) };
            failure.hint(format!("it holds {count}, such as {}", folder.join(first).display()))
        }
        None => failure.hint("a run's folder is run.dir of its job, relative to the job file"),
    }
}

/// Returns the hint for a file in the folder of a run.
fn of_file(file: &Path) -> Option<String> {
    let folder = file.parent().filter(|folder| folder.join(EVENTS).exists())?;
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    Some(format!("give the folder: {}", folder.display()))
}
