//! `freeze-plan MODEL`: the plan, and what it saves.

use super::failure::{CommandResult, Failure, note};
use super::frozen_units::FrozenUnitArgs;
use super::measure::MeasureArgs;
use super::options::{Format, PlanArgs, ShapeArgs};
use super::printable::lines;
use super::{model, output};
use crate::error::ErrorKind;
use crate::planner::identify;
use crate::report;
use crate::trainer::attached_note;
use std::path::PathBuf;
use std::process::ExitCode;

/// Shows which parameters freeze in which epoch and what that saves.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// ONNX model, or a folder of training artifacts
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    shape: ShapeArgs,
    #[command(flatten)]
    frozen_units: FrozenUnitArgs,
    #[command(flatten)]
    measure: MeasureArgs,
    /// How the plan is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    let path = args.model.as_ref();
    let path = path.ok_or_else(|| Failure::new(ErrorKind::Usage, "no model given").hint("freeze-plan model.onnx"))?;
    let mut options = args.plan.options()?;
    options.batch_norm = args.frozen_units.batch_norm()?.unwrap_or(options.batch_norm);
    options.dropout = args.frozen_units.dropout()?.unwrap_or(options.dropout);
    let sizes = args.shape.sizes()?;
    let loaded = model::load_as(path, &sizes, None, (&options.parameter, &options.buffer))?;
    let mut plan = model::ahead(&loaded, &options, args.plan.length(), &sizes)?;
    attached_note(&loaded.file, &plan)
        .iter()
        .for_each(|told| note(&format!("{told} (freeze-plan attach --show MODEL prints it)")));
    if args.measure.measure {
        args.measure.run(path, &options, &sizes, &mut plan)?;
    }
    let text = match args.format {
        Format::Table => lines(&report::plan_table(&plan)).into_owned(),
        Format::Json => {
            identify(&mut plan, &loaded.file);
            plan.to_json()
        }
        Format::Csv => report::plan_csv(&plan),
        Format::Html => report::plan_html(&plan),
    };
    output::emit(&text, args.output.as_deref())?;
    Ok(ExitCode::SUCCESS)
}
