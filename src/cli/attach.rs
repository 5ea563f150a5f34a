//! `freeze-plan attach MODEL PLAN`: a plan in the metadata of its model.

use super::failure::{CommandResult, Failure, note};
use super::output;
use crate::artifacts::find;
use crate::error::ErrorKind;
use crate::onnx::{OnnxFile, read};
use crate::planner::{ATTACHED, PlannerError, attach, attached, identity, read_plan, retargeted};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Stores a plan in the metadata of its model, shows it or takes it out
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  freeze-plan model.onnx --epochs 20 --format json --output plan.json
  freeze-plan attach model.onnx plan.json --output planned.onnx
  freeze-plan graph planned.onnx --plan planned.onnx --epoch 15 --out graphs
  freeze-plan attach --show planned.onnx")]
pub struct Args {
    /// ONNX model
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Plan file, model with a plan, or folder of a run
    #[arg(value_name = "PLAN", required_unless_present_any = ["show", "remove"], conflicts_with_all = ["show", "remove"])]
    plan: Option<PathBuf>,
    /// Print the plan that is attached, as JSON
    #[arg(long, conflicts_with = "remove")]
    show: bool,
    /// Take the plan out
    #[arg(long)]
    remove: bool,
    /// Attach the plan also to another file of the same model, such as the trained one of a run: parameters must have
    /// the names and sizes of the plan, which then says that it is for this file
    #[arg(long, conflicts_with_all = ["show", "remove"])]
    retarget: bool,
    /// Write to this file; by default the model is replaced, with --show stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    let file = read(&args.model)?;
    let missing = || PlannerError::NotAttached { path: args.model.clone() };
    if args.show {
        let plan = attached(&file)?.ok_or_else(missing)?;
        output::emit(&plan.to_json(), args.output.as_deref())?;
        return Ok(ExitCode::SUCCESS);
    }
    let out = args.output.as_deref().unwrap_or(&args.model);
    beside(&file, out)?;
    let bytes = match &args.plan {
        Some(path) => {
            let mut plan = read_plan(path)?;
            if args.retarget && plan.model.sha256 != identity(&file) {
                plan = retargeted(&plan, &file)?;
            }
            attach(&file, &plan).map_err(|error| match error {
                error @ PlannerError::OtherModel { .. } if is_artifact(&args.model) => Failure::from(error)
                    .hint("the plan of training artifacts is for the model in them; it stays a file beside them"),
                error @ PlannerError::OtherModel { .. } => Failure::from(error)
                    .hint("where it is the same model with other weights, such as the trained one, add --retarget"),
                error => error.into(),
            })?
        }
        None if file.model.metadata.iter().any(|entry| entry.0 == ATTACHED) => file.without_metadata(ATTACHED).to_vec(),
        None => return Err(missing().into()),
    };
    if bytes.len() > MOST {
        let text = format!("{} with the plan has {} bytes, expected at most {MOST}", out.display(), bytes.len());
        return Err(
            Failure::new(ErrorKind::Unsupported, text).hint("a model of this size keeps its data in other files")
        );
    }
    output::write_file(out, &bytes)?;
    match args.plan {
        Some(_) if out == args.model => note("the model was replaced; --output FILE writes another one"),
        _ => {}
    }
    output::emit(&format!("{}\n", out.display()), None)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns true for one of the files of training artifacts.
fn is_artifact(model: &Path) -> bool {
    find(model).is_ok_and(|files| files.is_some())
}

/// The most bytes of a protobuf message.
const MOST: usize = i32::MAX as usize;

/// Refuses another folder for a model whose data lie in files beside it.
fn beside(file: &OnnxFile, out: &Path) -> Result<(), Failure> {
    let folder = |path: &Path| {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        parent.canonicalize().unwrap_or(parent.to_path_buf())
    };
    if folder(&file.path) == folder(out) || !file.has_external_data() {
        return Ok(());
    }
    let text = format!("{} cannot be written: data of {} lie in files beside it", out.display(), file.path.display());
    Err(Failure::new(ErrorKind::BadInput, text).hint("write it into the folder of the model"))
}
