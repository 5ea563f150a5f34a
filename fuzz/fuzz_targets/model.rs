//! Bytes as a model file: load, facts, tree, costs, plan, and the pages made of them.
//!
//! ```text
//! cargo fuzz run model fuzz/corpus/model fixtures/hostile -- -rss_limit_mb=2048 -timeout=10
//! ```
//!
//! The model lies in a folder with everything that an external location may name: a file, a folder,
//! and links that stay and that leave. Half of the mutations change the file as a tree of protobuf
//! fields (`wire`), the other half its bytes.

#![no_main]

mod wire;

use bytes::Bytes;
use freeze_plan::modules::UnitKind;
use freeze_plan::plan::PlanOptions;
use freeze_plan::planner::{Analysis, Request, plan, sizes};
use freeze_plan::{onnx, report};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| surroundings().expect("the temporary folder can be written"));

/// Most nodes of a model that is planned.
const MOST_NODES: usize = 4000;

fuzz_target!(|data: &[u8]| preview(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % 2 == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let changed = wire::mutate(&data[..size], seed, max_size.min(data.len()));
    data[..changed.len()].copy_from_slice(&changed);
    changed.len()
});

fn preview(data: &[u8]) {
    let Ok(file) = onnx::read_bytes(&FOLDER.join("model/model.onnx"), Bytes::copy_from_slice(data)) else { return };
    // Functions that call each other twice: slow under a sanitizer, and nothing new.
    if file.model.graph.nodes().len() > MOST_NODES {
        return;
    }
    let analysis = Analysis::of(&file.model);
    analysis.tree.text(&analysis.model);
    let Ok(sizes) = sizes(&analysis.model.graph, 2, &[]) else { return };
    for unit in [UnitKind::Leaf, UnitKind::Composer, UnitKind::Block, UnitKind::Parameter] {
        let options = PlanOptions { unit, freeze_start: 0.2, ..PlanOptions::default() };
        let request = Request { epochs: 4, options: &options, slots: 1, own_slots: Default::default(), sizes: sizes.clone() };
        let Ok(plan) = plan(&file, &analysis, &request) else { continue };
        plan.to_json();
        report::plan_csv(&plan);
        report::plan_html(&plan);
    }
}

/// Makes the model's folder and what lies around it.
fn surroundings() -> std::io::Result<PathBuf> {
    let folder = tempfile::tempdir()?.keep();
    let model: &Path = &folder.join("model");
    std::fs::create_dir_all(model.join("folder"))?;
    std::fs::write(model.join("weights"), [1; 4096])?;
    std::fs::write(model.join("folder/weights"), [2; 64])?;
    std::fs::write(folder.join("secret"), [3; 64])?;
    #[cfg(unix)]
    for (link, target) in [("in", "weights"), ("out", "../secret"), ("zero", "/dev/zero"), ("up", "..")] {
        std::os::unix::fs::symlink(target, model.join(link))?;
    }
    Ok(folder)
}
