//! `freeze-plan doctor`: what there is to run on.

mod cuda;

use super::failure::CommandResult;
use super::options::RuntimeArgs;
use super::output;
use crate::error::ErrorKind;
use crate::runner::{Device, LocateError, LocateOptions, locate, survey};
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

/// Shows which ONNX Runtime is found, which devices, which versions
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  freeze-plan doctor
  freeze-plan doctor --device cuda
  freeze-plan doctor --runtime /usr/lib/libonnxruntime.so")]
pub struct Args {
    /// Device of the run, cpu (default), cuda or cuda:N; fails when it cannot be used
    #[arg(long, value_name = "DEVICE", default_value = "cpu", hide_default_value = true)]
    device: Device,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// Runs the command. It fetches nothing, and fails when the library or the device that was asked for cannot be used.
pub fn run(args: &Args) -> CommandResult {
    let embedded = if cfg!(feature = "tract") { "tract 0.23.9" } else { "not built in" };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut text = format!("freeze-plan {}\n", env!("CARGO_PKG_VERSION"));
    let vectors = freeze_plan_kernels::simd::Level::best().name();
    let _ = writeln!(text, "threads     {threads}\nvectors     {vectors}\nembedded    {embedded}");
    text.push_str(&cuda::devices());
    let wants_embedded = args.runtime.runtime.as_deref() == Some(Path::new("embedded"));
    let runtime = args.runtime.runtime.clone().filter(|_| !wants_embedded);
    let options = LocateOptions { runtime, offline: true, device: args.device };
    let candidates = survey(&options);
    text.push_str("ONNX Runtime libraries, in the order they are taken:\n");
    if candidates.is_empty() {
        text.push_str("  none\n");
    }
    for candidate in &candidates {
        let (path, source) = (candidate.path.display(), candidate.source);
        let cuda = candidate.cuda.map(|cuda| format!(", for CUDA {cuda}")).unwrap_or_default();
        let _ = match &candidate.outcome {
            Ok(version) => writeln!(text, "  {version}  {path} ({source}{cuda})"),
            Err(problem) => writeln!(text, "  unusable  {path} ({source}{cuda}): it {problem}"),
        };
    }
    text.push_str(&cuda::libraries(&candidates));
    let usable = cuda::usable(&options);
    let _ = writeln!(text, "cuda        {}", usable.as_ref().unwrap_or_else(|reason| reason));
    let used = match args.device {
        Device::Cuda(_) if wants_embedded => Err("none: the embedded executor computes on the CPU".to_string()),
        Device::Cuda(_) => usable.map_err(|_| format!("none: {} cannot be used", args.device)),
        Device::Cpu if wants_embedded => Ok(format!("the embedded executor, {embedded}")),
        Device::Cpu => on_cpu(&options, args.runtime.offline, embedded),
    };
    let _ = writeln!(text, "used        {}", used.as_ref().unwrap_or_else(|reason| reason));
    output::emit(&text, None)?;
    Ok(used.map_or_else(|_| ExitCode::from(ErrorKind::BadInput.exit_code()), |_| ExitCode::SUCCESS))
}

/// Returns what a run on the CPU uses, or why the library that somebody named cannot be used.
fn on_cpu(options: &LocateOptions, offline: bool, embedded: &str) -> Result<String, String> {
    match locate(options, &mut |_| {}) {
        Ok(found) => Ok(format!("ONNX Runtime {} at {}", found.version, found.path.display())),
        Err(error @ LocateError::Unusable { .. }) => Err(format!("none: {error}; {}", error.hint())),
        Err(_) if offline => Ok(format!("the embedded executor, {embedded}; --offline forbids fetching")),
        Err(_) => Ok("none yet: training fetches onnxruntime with pip, else uses the embedded executor".to_string()),
    }
}
