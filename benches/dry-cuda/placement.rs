//! Tells where the nodes of graphs would run on CUDA, for `compare.py` to hold against the provider.
//!
//!     cargo run --example placement -- OUT GRAPH.onnx ..
//!
//! For each graph, OUT gets it (`N.onnx`) and as it is lowered (`N.lowered.onnx`), each with a JSON file of the nodes that
//! are told to run on the processor.

use freeze_plan::graph::Model;
use freeze_plan::onnx::{read, to_bytes};
use freeze_plan::runner::placement::{lower, on_cpu, on_host};
use std::error::Error;
use std::path::Path;

fn write(out: &Path, name: &str, model: &Model) -> Result<usize, Box<dyn Error>> {
    let misplaced = on_cpu(model, &[]);
    let names: Vec<&str> = misplaced.iter().map(|found| found.node.as_str()).collect();
    let told = serde_json::json!({"on_cpu": names, "on_host": on_host(model, &[])});
    std::fs::write(out.join(format!("{name}.onnx")), to_bytes(model))?;
    std::fs::write(out.join(format!("{name}.json")), told.to_string())?;
    Ok(misplaced.len())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let out = arguments.next().ok_or("expected a folder for the results")?;
    let out = Path::new(&out);
    std::fs::create_dir_all(out)?;
    let (mut before, mut after, mut count) = (0, 0, 0);
    for (number, path) in arguments.enumerate() {
        let model = read(Path::new(&path))?.model;
        before += write(out, &number.to_string(), &model)?;
        after += write(out, &format!("{number}.lowered"), &lower(&model, &[]))?;
        count += 1;
    }
    println!("{count} graphs: {before} nodes told to run on the processor, {after} once lowered");
    Ok(())
}
