//! `freeze-plan doctor`: what there is to run on.

use super::failure::CommandResult;
use super::options::RuntimeArgs;
use super::output;
use crate::error::ErrorKind;
use crate::runner::{LocateError, LocateOptions, locate, survey};
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

/// Shows which ONNX Runtime is found, which devices, which versions
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  freeze-plan doctor
  freeze-plan doctor --runtime /usr/lib/libonnxruntime.so")]
pub struct Args {
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// Runs the command. It fetches nothing, and fails when the library that was asked for cannot be
/// used.
pub fn run(args: &Args) -> CommandResult {
    let embedded = if cfg!(feature = "tract") { "tract 0.23.9" } else { "not built in" };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut text = format!("freeze-plan {}\n", env!("CARGO_PKG_VERSION"));
    let vectors = freeze_plan_kernels::simd::Level::best().name();
    let _ = writeln!(text, "threads     {threads}\nvectors     {vectors}\ndevices     cpu\nembedded    {embedded}");
    let wants_embedded = args.runtime.runtime.as_deref() == Some(Path::new("embedded"));
    let runtime = args.runtime.runtime.clone().filter(|_| !wants_embedded);
    let options = LocateOptions { runtime, offline: true };
    text.push_str("ONNX Runtime libraries, in the order they are taken:\n");
    let candidates = survey(&options);
    if candidates.is_empty() {
        text.push_str("  none\n");
    }
    for candidate in candidates {
        let path = candidate.path.display();
        let _ = match &candidate.outcome {
            Ok(version) => writeln!(text, "  {version}  {path} ({})", candidate.source),
            Err(problem) => writeln!(text, "  unusable  {path} ({}): it {problem}", candidate.source),
        };
    }
    let mut code = ExitCode::SUCCESS;
    let used = match locate(&options, &mut |_| {}) {
        _ if wants_embedded => format!("the embedded executor, {embedded}"),
        Ok(found) => format!("ONNX Runtime {} at {}", found.version, found.path.display()),
        Err(error @ LocateError::Unusable { .. }) => {
            code = ExitCode::from(ErrorKind::BadInput.exit_code());
            format!("none: {error}; {}", error.hint())
        }
        Err(_) if args.runtime.offline => format!("the embedded executor, {embedded}; --offline forbids fetching"),
        Err(_) => "none yet: training fetches onnxruntime with pip, else uses the embedded executor".to_string(),
    };
    let _ = writeln!(text, "used        {used}");
    output::emit(&text, None)?;
    Ok(code)
}
