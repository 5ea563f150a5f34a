//! `freeze-plan compare MODEL`: schedules side by side.

use super::failure::{CommandResult, Failure, note};
use super::frozen_units::FrozenUnitArgs;
use super::model::{self, Loaded};
use super::options::{Format, RoleArgs, ShapeArgs, word};
use super::output;
use super::policy_spec::PolicySpec;
use super::printable::lines;
use crate::error::ErrorKind;
use crate::plan::policies::{POLICIES, find};
use crate::plan::{FreezePlan, PlanOptions, Range, Run};
use crate::planner::{identify, identity, read_plan};
use crate::report::{self, Compared, Known};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Epochs where neither the options nor a plan file say how many.
const EPOCHS: usize = 10;

/// Shows freezing schedules of a model side by side
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  freeze-plan compare model.onnx --epochs 30 --policy linear:freeze_start=0.2 --policy freezeout
  freeze-plan compare model.onnx --plan runs/a/plan.json --plan runs/b/plan.json --format html --output compare.html")]
pub struct Args {
    /// ONNX model, or a folder of training artifacts
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Freezing policy, with settings as NAME:KEY=VALUE,KEY=VALUE; may be repeated, also with one name. A comma starts
    /// the next setting where KEY= follows it; others belong to the value, as in steps:steps=3:4,6:0. Without this,
    /// all policies that need neither settings nor measurements
    #[arg(long, value_name = "NAME[:SETTINGS]")]
    policy: Vec<String>,
    /// Plan file of the same model, model with a plan, or folder of a run; may be repeated. The batch size of the first one is
    /// that of the others where none is given
    #[arg(long, value_name = "FILE")]
    plan: Vec<PathBuf>,
    /// Number of epochs; by default that of the first plan file, else 10
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Steps of an epoch, for policies that act within one; by default those of the first plan file, else such acts
    /// are shown at the start of the next epoch
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// What freezes as one: leaf, composer, block or parameter; by default what each policy is made for
    #[arg(long, value_name = "KIND")]
    unit: Option<String>,
    /// Freeze what matches in every epoch: a glob on unit path or parameter name, or re: and a regular expression;
    /// may be repeated
    #[arg(long, value_name = "PATTERN")]
    freeze: Vec<String>,
    /// Never freeze what matches; may be repeated
    #[arg(long, value_name = "PATTERN")]
    keep: Vec<String>,
    #[command(flatten)]
    roles: RoleArgs,
    #[command(flatten)]
    shape: ShapeArgs,
    #[command(flatten)]
    frozen_units: FrozenUnitArgs,
    /// How the comparison is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    let specs = args.policy.iter().map(|text| PolicySpec::read(text)).collect::<Result<Vec<_>, _>>()?;
    let count = specs.len() + args.plan.len();
    if count == 1 && !specs.is_empty() {
        let text = format!("only \"{}\" is given: a comparison takes two plans or more", args.policy.join(" "));
        return Err(
            Failure::new(ErrorKind::Usage, text).hint("add another --policy, such as --policy none, or --plan FILE")
        );
    }
    let files = args.plan.iter().map(|path| read_plan(path)).collect::<Result<Vec<_>, _>>()?;
    let base = args.options()?;
    for spec in &specs {
        find(&of(spec, &base)).map_err(|error| of_policy(error.into(), spec))?;
    }
    let first = files.first();
    let mut sizes = args.shape.sizes()?;
    if sizes.shapes.is_empty() {
        let batch = first.map(|plan| plan.assumed.batch).filter(|batch| *batch > 0);
        sizes.batch = sizes.batch.or(batch);
    }
    let loaded = model::load_as(&args.model, &sizes, None, (&base.parameter, &base.buffer))?;
    let length = Run {
        epochs: args.epochs.or(first.map(|plan| plan.epochs.len())).unwrap_or(EPOCHS),
        steps_per_epoch: args.steps.or(first.map(|plan| plan.assumed.steps_per_epoch)).unwrap_or(0),
    };
    // What every policy would be refused for is told once, and not as the fault of one.
    let ahead = |options: &PlanOptions| model::ahead(&loaded, options, length, &sizes);
    let nothing = ahead(&PlanOptions { policy: "none".into(), ..base.clone() })?;
    let mut plans = Vec::new();
    for (spec, text) in specs.iter().zip(&args.policy) {
        let options = of(spec, &base);
        let plan = ahead(&options).map_err(|failure| of_policy(failure, spec))?;
        plans.push(compared(text, &options, plan)?);
    }
    // Without --policy it is a choice of ours that does not fit this run, and no mistake.
    let all = if specs.is_empty() { POLICIES } else { &[] };
    for entry in all {
        let options = PlanOptions { policy: entry.name.into(), ..base.clone() };
        let told_by_settings = entry.knobs.iter().any(|knob| knob.range == Range::Any);
        if told_by_settings || find(&options).is_ok_and(|policy| policy.is_adaptive()) {
            continue;
        }
        match ahead(&options) {
            Ok(plan) => plans.push(compared(entry.name, &options, plan)?),
            Err(failure) if failure.is_usage() => note(&format!("{failure}; policy {} is left out", entry.name)),
            Err(failure) => return Err(failure),
        }
    }
    for (plan, path) in files.into_iter().zip(&args.plan) {
        let evidence = same_model(&plan, path, &loaded, &nothing)?;
        let label = format!("{} ({})", path.display(), plan.policy.name);
        plans.push(Compared { label, plan, known: Known::File(evidence) });
    }
    if plans.len() < 2 {
        let text = "fewer than two plans are left to compare";
        return Err(Failure::new(ErrorKind::Usage, text).hint("name them with --policy NAME, or --plan FILE"));
    }
    let text = match args.format {
        Format::Table => lines(&report::compare_table(&plans)).into_owned(),
        Format::Csv => report::compare_csv(&plans),
        Format::Html => report::compare_html(&plans),
        Format::Json => {
            let own = plans.iter_mut().filter(|compared| compared.plan.model.sha256.is_empty());
            own.for_each(|compared| identify(&mut compared.plan, &loaded.file));
            report::compare_json(&plans)
        }
    };
    output::emit(&text, args.output.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Returns the options that all policies share.
    fn options(&self) -> Result<PlanOptions, Failure> {
        let default = PlanOptions::default();
        Ok(PlanOptions {
            unit: word("--unit", &self.unit)?,
            freeze: self.freeze.clone(),
            keep: self.keep.clone(),
            parameter: self.roles.parameter.clone(),
            buffer: self.roles.buffer.clone(),
            batch_norm: self.frozen_units.batch_norm()?.unwrap_or(default.batch_norm),
            dropout: self.frozen_units.dropout()?.unwrap_or(default.dropout),
            ..default
        })
    }
}

fn of(spec: &PolicySpec, base: &PlanOptions) -> PlanOptions {
    PlanOptions { policy: spec.name.clone(), knobs: spec.settings.clone(), ..base.clone() }
}

fn of_policy(failure: Failure, spec: &PolicySpec) -> Failure {
    failure.within(&format!("policy {}", spec.name))
}

fn compared(label: &str, options: &PlanOptions, plan: FreezePlan) -> Result<Compared, Failure> {
    let policy = find(options)?;
    let known = match (policy.is_adaptive(), policy.assumed()) {
        (false, _) => Known::Ahead,
        (true, None) => Known::Measured,
        (true, Some(assumption)) => Known::Assuming(assumption),
    };
    Ok(Compared { label: label.into(), plan, known })
}

/// Returns by which evidence a plan file is for the model, and refuses one that is for another. `own` is a plan of
/// the model.
fn same_model(plan: &FreezePlan, path: &Path, loaded: &Loaded, own: &FreezePlan) -> Result<String, Failure> {
    let sha256 = identity(&loaded.file);
    if plan.model.sha256 == sha256 {
        return Ok("of the same file, by its SHA-256".into());
    }
    if parameters(plan) == parameters(own) && plan.model.parameters == own.model.parameters {
        return Ok("of another file with the same parameters, by their names and number of elements".into());
    }
    let short = |text: &str| text.get(..12).unwrap_or("unknown").to_string();
    let text = format!(
        "{} is a plan for {} (sha256 {}), not for {} (sha256 {}), and their parameters differ",
        path.display(),
        plan.model.file,
        short(&plan.model.sha256),
        loaded.file.path.display(),
        short(&sha256)
    );
    let hint = "where a job decides with parameter = [..] or buffer = [..] what trains, give --parameter and --buffer";
    Err(Failure::new(ErrorKind::BadInput, text).hint(hint))
}

fn parameters(plan: &FreezePlan) -> BTreeSet<&str> {
    plan.units.iter().flat_map(|unit| unit.parameters.iter().map(String::as_str)).collect()
}
