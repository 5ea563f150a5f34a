//! `freeze-plan init MODEL`: a commented job file that fits a model.

mod attached;
mod columns;
mod draft;
mod keys;
mod loss;
mod optimizer;
mod render;

use super::failure::{CommandResult, Failure};
use super::printable::line;
use super::{model, output};
use crate::data::{DataOptions, Dataset};
use crate::error::ErrorKind;
use crate::runner::Job;
use draft::{Draft, Paths};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Writes a commented job file that fits a model
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  freeze-plan init model.onnx --data train.npz
  freeze-plan init model.onnx --out jobs/first.toml && freeze-plan train jobs/first.toml")]
pub struct Args {
    /// ONNX model, or a folder of training artifacts
    model: PathBuf,
    /// Data to train on: its columns are matched with the model's inputs, and the loss with what is left
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Job file to write; - for stdout
    #[arg(long, value_name = "FILE", default_value = "job.toml")]
    out: PathBuf,
    /// Replace a file that exists
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> CommandResult {
    let to_stdout = args.out.as_os_str() == "-";
    if !to_stdout && !args.force && args.out.exists() {
        let text = format!("{} exists already", args.out.display());
        return Err(Failure::new(ErrorKind::BadInput, text).hint("give --force to replace it, or another --out FILE"));
    }
    let parent = args.out.parent().filter(|parent| !to_stdout && !parent.as_os_str().is_empty());
    let folder = parent.unwrap_or(Path::new("."));
    let mut loaded = model::load(&args.model, (&[], &[]))?;
    let made = attached::made(&loaded.file);
    if let Some(options) = made.as_ref().map(|made| &made.options) {
        loaded = model::load(&args.model, (&options.parameter, &options.buffer))?;
    }
    let options = DataOptions { classify: true, ..DataOptions::default() };
    let data = args.data.as_deref().map(|path| Dataset::open(path, &options, None)).transpose()?;
    let paths = Paths {
        model: between(folder, &args.model)?,
        train: args.data.as_deref().map(|path| between(folder, path)).transpose()?,
    };
    let draft = Draft::of(&loaded, &paths, data.as_ref(), made)?;
    let text = render::text(&draft)?;
    let file = if to_stdout { Path::new("job.toml") } else { &args.out };
    Job::parse(file, &text, &[])
        .map_err(|error| Failure::new(ErrorKind::Internal, format!("the job that was written is refused: {error}")))?;
    for problem in &draft.problems {
        eprintln!("warning: {}", line(problem));
    }
    if to_stdout {
        output::emit(&text, None)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::make_folder(folder)?;
    output::write_file(&args.out, text.as_bytes())?;
    output::emit(&format!("{}\n", args.out.display()), None)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns a path as a job file in `folder` names it: without `..` where it lies within, else as short as it can be.
fn between(folder: &Path, path: &Path) -> Result<String, Failure> {
    let whole = |path: &Path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        path.canonicalize().or_else(|_| std::path::absolute(path))
    };
    let bad =
        |error: std::io::Error| Failure::new(ErrorKind::BadInput, format!("cannot read {}: {error}", path.display()));
    let (from, to) = (whole(folder).map_err(bad)?, whole(path).map_err(bad)?);
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    // Without anything in common but the root a relative path says less than the whole one.
    let relative = if common < 2 {
        to.clone()
    } else {
        let up = from.components().skip(common).map(|_| std::path::Component::ParentDir);
        up.chain(to.components().skip(common)).collect()
    };
    let text = relative.to_str().ok_or_else(|| {
        Failure::new(ErrorKind::BadInput, format!("{} is not UTF-8: a job file cannot name it", path.display()))
    })?;
    Ok(if text.is_empty() { ".".into() } else { text.replace('\\', "/") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_job() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir_all(at("jobs/a")).unwrap();
        std::fs::create_dir_all(at("models")).unwrap();
        std::fs::write(at("models/m.onnx"), "").unwrap();
        let cases = [
            ("models", "models/m.onnx", "m.onnx"),
            ("jobs/a", "models/m.onnx", "../../models/m.onnx"),
            ("", "models/m.onnx", "models/m.onnx"),
            ("models", "models", "."),
        ];
        for (folder, path, expected) in cases {
            assert_eq!(between(&at(folder), &at(path)).unwrap(), expected, "{path} from {folder}");
        }
    }
}
