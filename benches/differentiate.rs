//! How long it takes to make the graphs of a phase, by size of the model.
//!
//! `python benches/make_decoders.py` makes decoders of GPT's kind with 12 to 96 layers in `target/differentiate`;
//! `cargo bench --bench differentiate` measures those that are there, or the models that are named.
//! A row says the nodes of the model and of its train graph, and the median seconds of five runs:
//! to bring the model into the form that gradients are defined for, and to build train, optimizer and
//! eval graph with everything training.

use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::planner::Analysis;
use freeze_plan::training::{PhaseOptions, Rates, build, prepare};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

/// The program's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Failure> {
    let named: Vec<PathBuf> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).map(PathBuf::from).collect();
    let mut models = if named.is_empty() { made()? } else { named };
    models.sort_by_key(|path| (path.to_string_lossy().len(), path.clone()));
    println!("{:24} {:>7} {:>7} {:>8} {:>8}", "model", "nodes", "train", "prepare", "build");
    models.iter().try_for_each(|path| measure(path))
}

fn made() -> Result<Vec<PathBuf>, Failure> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/differentiate");
    let entries = std::fs::read_dir(&folder)
        .map_err(|error| format!("{}: {error}; run python benches/make_decoders.py first", folder.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "onnx")).collect())
}

fn measure(path: &Path) -> Result<(), Failure> {
    let file = freeze_plan::onnx::read(path)?;
    let analysis = Analysis::of(&file.model);
    let loss = LossSpec::new(LossKind::Mse);
    let optimizer = OptimizerSpec::new(OptimizerKind::AdamW);
    let (mut preparing, mut building, mut nodes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..5 {
        let clock = Instant::now();
        let prepared = prepare(&analysis)?;
        preparing.push(clock.elapsed().as_secs_f64());
        let options = PhaseOptions {
            frozen: HashSet::new(),
            frozen_inputs: false,
            rates: Rates::new(),
            loss: &loss,
            optimizer: &optimizer,
            output: None,
            seed: 0,
        };
        let clock = Instant::now();
        nodes = build(&prepared, &options)?.train.graph.nodes().len();
        building.push(clock.elapsed().as_secs_f64());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let own = file.model.graph.nodes().len();
    println!("{name:24} {own:>7} {nodes:>7} {:>8.3} {:>8.3}", median(&mut preparing), median(&mut building));
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
