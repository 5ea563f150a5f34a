//! How long a preview takes, what memory it needs, and how much of the weights it reads.
//!
//! `python benches/make.py` makes the models in `target/preview`; `cargo bench` measures those that
//! are there. Each is measured in a process of its own: load, facts, tree, costs, plan and table,
//! first cold and then warm. A row says the first time, the median and the least of the warm ones,
//! the least time on a processor (which a busy machine does not change), the peak of resident
//! memory, and for each mapped file how much of it is resident.
//!
//! `cargo bench -- MODEL..` measures other models; `--json` prints the plan file instead of the
//! table, which holds a digest of the whole model file.

use freeze_plan::onnx::{self, OnnxFile};
use freeze_plan::plan::PlanOptions;
use freeze_plan::planner::{Analysis, Request, plan, sizes};
use freeze_plan::report;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

/// What the process of one model is started with.
const ONE: &str = "--one";
const JSON: &str = "--json";

/// The program's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let json = arguments.iter().any(|argument| argument == JSON);
    let mut models: Vec<PathBuf> = arguments.iter().filter(|a| !a.starts_with("--")).map(PathBuf::from).collect();
    if arguments.iter().any(|argument| argument == ONE) {
        return models.iter().try_for_each(|path| measure(path, json));
    }
    if models.is_empty() {
        models = made()?;
    }
    println!(
        "{:22} {:>6} {:>9} {:>9} {:>9} {:>9}  resident of mapped",
        "model", "nodes", "first", "median", "least", "peak"
    );
    for model in models {
        let mut command = Command::new(std::env::current_exe()?);
        let status = command.arg(ONE).args(json.then_some(JSON)).arg(&model).status()?;
        if !status.success() {
            return Err(format!("{}: {status}", model.display()).into());
        }
    }
    Ok(())
}

/// Returns the models that `make.py` left.
fn made() -> Result<Vec<PathBuf>, Failure> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/preview");
    let entries = std::fs::read_dir(&folder)
        .map_err(|error| format!("{}: {error}; run python benches/make.py first", folder.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut models: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "onnx")).collect();
    models.sort_by_key(|path| (path.metadata().map_or(0, |data| data.len()), path.clone()));
    Ok(models)
}

fn measure(path: &Path, json: bool) -> Result<(), Failure> {
    let ((file, nodes), first, _) = timed(|| preview(path, json))?;
    let (peak, resident) = (peak()?, resident(path)?);
    drop(file);
    let (mut times, mut busy, start) = (Vec::new(), f64::INFINITY, Instant::now());
    while times.len() < 5 || (times.len() < 50 && start.elapsed().as_secs_f64() < 5.0) {
        let (_, time, processor) = timed(|| preview(path, json))?;
        times.push(time);
        busy = busy.min(processor);
    }
    times.sort_by(f64::total_cmp);
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let [first, median, least, busy] = [first, times[times.len() / 2], times[0], busy].map(|seconds| seconds * 1e3);
    println!(
        "{name:22} {nodes:>6} {first:>6.1} ms {median:>6.1} ms {least:>6.1} ms {busy:>6.1} ms {peak:>6.1} MB  {resident}"
    );
    Ok(())
}

fn preview(path: &Path, json: bool) -> Result<(OnnxFile, usize), Failure> {
    let file = onnx::read(path)?;
    let analysis = Analysis::of(&file.model);
    let options = PlanOptions::default();
    let sizes = sizes(&analysis.model.graph, 1, &[])?;
    let plan = plan(
        &file,
        &analysis,
        &Request { epochs: 10, steps_per_epoch: 0, options: &options, slots: 1, own_slots: Default::default(), sizes },
    )?;
    black_box(if json { plan.to_json() } else { report::plan_table(&plan) });
    let nodes = analysis.model.graph.nodes().len();
    Ok((file, nodes))
}

/// Returns what was made, the seconds that passed, and those on a processor.
fn timed<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<(T, f64, f64), Failure> {
    let (start, before) = (Instant::now(), on_processor()?);
    let made = run()?;
    Ok((made, start.elapsed().as_secs_f64(), on_processor()? - before))
}

/// Returns how long this thread has run on a processor, in seconds.
fn on_processor() -> Result<f64, Failure> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().unwrap_or_default().parse::<f64>()? / 1e9)
}

/// Returns the largest resident memory that this process had, in MB.
fn peak() -> Result<f64, Failure> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    Ok(kilobytes(&text, "VmHWM:") / 1e3)
}

/// Returns how much of the mapped files beside the model is in memory, for a person.
fn resident(model: &Path) -> Result<String, Failure> {
    let folder = model.canonicalize()?.parent().map(|folder| format!("{}/", folder.display())).unwrap_or_default();
    let text = std::fs::read_to_string("/proc/self/smaps")?;
    let mut found = Vec::new();
    for entry in text.split("VmFlags:") {
        if let Some((_, name)) = entry.split_once(&folder) {
            let name = name.lines().next().unwrap_or_default();
            let [resident, size] = ["Rss:", "Size:"].map(|key| kilobytes(entry, key) / 1e3);
            found.push(format!("{name} {resident:.1} of {size:.1} MB"));
        }
    }
    Ok(found.join(", "))
}

fn kilobytes(text: &str, key: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok()).map_or(0.0, |n| n * 1.024)
}
