//! The frozen prefix of a train graph on its own, and what is kept of it for each sample.

use crate::engines::{deviation, engines, onnxruntime};
use crate::models::{case, files, step};
use crate::runs::{Job, Ran};
use freeze_plan::data::{BatchOptions, LastBatch, Sampler};
use freeze_plan::graph::{Model, Tensor};
use freeze_plan::plan::{BatchNorm, FrozenDropout, PlanOptions, PrefixMode};
use freeze_plan::runner::job::CacheMode;
use freeze_plan::runner::{Caching, Checkpoints, Engine, RunEvent, evaluate};
use freeze_plan::training::prefix::{Prefix, Split};
use freeze_plan::training::{Role, TrainStep, names};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// Of the largest element of a tensor, between one graph and two.
const SAME: f64 = 2e-4;
/// Between the losses of a run that keeps what is frozen and of one that does not.
const LOSSES: f64 = 2e-5;

/// Returns the inputs of a role.
fn inputs(step: &TrainStep, role: Role) -> Vec<&str> {
    let ports = step.contract.train.inputs.iter().filter(|port| port.role == role);
    ports.map(|port| port.name.as_str()).collect()
}

fn outputs(model: &Model) -> Vec<&str> {
    model.graph.outputs().iter().map(|id| model.graph.value_name(*id)).collect()
}

/// Runs a graph and returns its outputs by name.
fn run(engine: &mut dyn Engine, model: &Model, known: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let names = model.graph.inputs().iter().map(|id| model.graph.value_name(*id));
    let feeds: Vec<(&str, &Tensor)> = names.map(|name| (name, known.get(name).expect("fed"))).collect();
    let found = evaluate(engine, model, &feeds).unwrap();
    outputs(model).into_iter().map(String::from).zip(found).collect()
}

/// Returns the rows of a batch in reverse.
fn reversed(tensor: &Tensor, samples: usize) -> Tensor {
    let bytes = tensor.bytes();
    let each = bytes.len() / samples;
    let rows: Vec<u8> = bytes.chunks(each.max(1)).rev().flatten().copied().collect();
    Tensor::new(tensor.dtype(), tensor.shape().to_vec(), rows.into()).unwrap()
}

#[test]
fn a_prefix_and_the_rest_compute_what_the_graph_does_and_samples_stay_apart() {
    let mut engine = onnxruntime();
    let (mut split_files, mut kept_files, mut wrong) = (0, 0, Vec::new());
    // As the exporters write them now; older ways differ in shape arithmetic.
    for (model, way, entry, file) in files().into_iter().filter(|(_, way, ..)| !way.contains('_')) {
        let name = format!("{model}.{way}");
        let case = case(&model, &way, &entry, &file).unwrap();
        let first = case.units.iter().take(case.units.len() / 2).flatten().map(String::as_str);
        let frozen: HashSet<&str> = first.chain(case.prepared.statistics()).collect();
        let step = step(&case, frozen).unwrap();
        let data = inputs(&step, Role::Data);
        let moving: Vec<String> = step.moving.iter().map(|name| names::next(name)).collect();
        let passed = step.passed.iter().map(|(name, _)| name.as_str());
        let wanted: Vec<&str> = passed.chain([names::LOSS]).chain(moving.iter().map(String::as_str)).collect();
        let Some(prefix) = Prefix::of(&step.train, &data, &wanted) else { continue };
        let own = &case.prepared.model.graph;
        let mut known: BTreeMap<String, Tensor> = own
            .initializers()
            .map(|(_, value, tensor)| (value.name.clone(), tensor.clone()))
            .chain(case.data.iter().map(|(name, tensor)| (name.clone(), tensor.clone())))
            .collect();
        if let Some(cut) = prefix.deepest() {
            split_files += 1;
            let Split { prefix, rest, .. } = prefix.split(&cut);
            let whole = run(&mut engine, &step.train, &known);
            let mut fed = known.clone();
            fed.extend(run(&mut engine, &prefix, &known));
            let found = run(&mut engine, &rest, &fed);
            assert_eq!(found.len(), wanted.len(), "{name}");
            for (output, found) in found {
                // Of a gradient that is 0 but for rounding nothing is left.
                let size = whole[&output].to_f64s().unwrap().iter().fold(0f64, |size, value| size.max(value.abs()));
                if size > 1e-5 && deviation(&found, &whole[&output]) > SAME {
                    wrong.push(format!("{name}: {output} is off by {:.1e}", deviation(&found, &whole[&output])));
                }
            }
        }
        let samples = prefix.samples();
        if samples.is_empty() {
            continue;
        }
        let split = prefix.split(&samples);
        kept_files += usize::from(split.cut.iter().any(|crossing| crossing.part.is_some()));
        let count = known[data[0]].shape()[0];
        let plain = run(&mut engine, &split.prefix, &known);
        for input in &data {
            let other = reversed(&known[*input], count);
            known.insert((*input).to_string(), other);
        }
        let turned = run(&mut engine, &split.prefix, &known);
        for crossing in &split.cut {
            let Some(part) = &crossing.part else { continue };
            let (plain, turned) = (&plain[&crossing.name], &turned[&crossing.name]);
            assert_eq!(plain.shape(), part.of(count), "{name}: {}", crossing.name);
            if plain.dtype().is_float() && deviation(&reversed(turned, count), plain) > SAME {
                wrong.push(format!("{name}: the samples of \"{}\" depend on each other", crossing.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{split_files} prefixes, {kept_files} with values of samples");
    assert!(split_files > 50 && kept_files > 40, "{split_files} prefixes, {kept_files} with values of samples");
}

/// Returns a cache of these bytes in a folder.
fn cache(mode: CacheMode, limit: u64, folder: &Path) -> Option<Caching> {
    Some(Caching { mode, limit, dir: folder.into(), stays: false })
}

fn shuffled(size: usize) -> BatchOptions {
    BatchOptions { size, seed: 3, sampler: Sampler::Shuffle, last_batch: LastBatch::Keep }
}

/// A convolutional net whose frozen BatchNormalization keeps its statistics. Its set grows in epochs 2, 4 and 6.
fn digits() -> Job {
    let options = serde_json::json!({"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4});
    let mut job = Job::of("digits/model.onnx", "parity/digits.npz", ["images", "labels"], shuffled(14), options);
    job.options =
        PlanOptions { batch_norm: BatchNorm::Frozen, ..PlanOptions::of("steps") }.with("steps", "2:4,4:6,6:9");
    job.epochs = 7;
    job
}

/// A vision transformer with Dropout, which is off in what is frozen.
fn vit() -> Job {
    let options = serde_json::json!({"kind": "adamw", "lr": 2e-3, "weight_decay": 0.05});
    let mut job = Job::of("digits_vit/model.onnx", "parity/digits.npz", ["images", "labels"], shuffled(14), options);
    job.options =
        PlanOptions { dropout: FrozenDropout::Off, ..PlanOptions::of("steps") }.with("steps", "2:8,4:16,6:20");
    job.epochs = 7;
    job
}

/// Returns the events `cache`, as `used` with where it is filled from, or the reason why not.
fn told(ran: &Ran) -> Vec<Result<String, String>> {
    let of = |event: &RunEvent| match event {
        RunEvent::Cache { used: true, from, .. } => Some(Ok(from.clone().unwrap_or_default())),
        RunEvent::Cache { reason, .. } => Some(Err(reason.clone().unwrap_or_default())),
        _ => None,
    };
    ran.events.iter().filter_map(of).collect()
}

fn same(name: &str, found: &Ran, expected: &Ran) {
    found.outcome();
    let (found, expected) = (found.losses(), expected.losses());
    assert_eq!(found.len(), expected.len(), "{name}");
    for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let off = (found - expected).abs() / expected.abs().max(0.1);
        assert!(off < LOSSES, "{name}: the loss of step {} is {found}, without a cache {expected}", step + 1);
    }
}

#[test]
fn a_run_that_keeps_what_is_frozen_has_the_losses_of_one_that_does_not() {
    let folder = tempfile::tempdir().unwrap();
    for (name, mut job) in [("digits", digits()), ("vit", vit())] {
        for mut engine in engines() {
            job.cache = None;
            let plain = job.run(engine.as_mut());
            for mode in [CacheMode::Memory, CacheMode::Disk] {
                job.cache = cache(mode, 1 << 30, folder.path());
                let name = format!("{name}, {mode:?}, {}", engine.info().name);
                let ran = job.run(engine.as_mut());
                same(&name, &ran, &plain);
                let told = told(&ran);
                let expected = ["data", "kept", "kept"].map(|from| Ok(from.to_string()));
                assert_eq!(told, expected, "{name}");
                assert_eq!(folder.path().read_dir().unwrap().count(), 0, "{name}: the files are removed at the end");
            }
        }
    }
}

#[test]
fn a_prefix_of_its_own_changes_no_loss() {
    for (name, mut job) in [("digits", digits()), ("vit", vit())] {
        let mut engine = onnxruntime();
        job.options.prefix = PrefixMode::Off;
        let whole = job.run(&mut engine);
        job.options.prefix = PrefixMode::Auto;
        same(name, &job.run(&mut engine), &whole);
    }
}

fn reasons(job: &mut Job, folder: &Path, limit: u64) -> Vec<Result<String, String>> {
    job.cache = None;
    let plain = job.run(&mut onnxruntime());
    job.cache = cache(CacheMode::Memory, limit, folder);
    let ran = job.run(&mut onnxruntime());
    same("with a reason", &ran, &plain);
    told(&ran)
}

#[test]
fn a_run_that_goes_on_uses_its_file_and_never_a_torn_or_another_one() {
    let (folder, saved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut job = digits();
    let plain = job.run(&mut onnxruntime());
    // In the middle of epoch 3, when all rows are kept.
    let per_epoch = job.steps_per_epoch();
    let stop = 2 * per_epoch + 1;
    job.cache = cache(CacheMode::Disk, 1 << 30, folder.path());
    job.checkpoints = Some(Checkpoints { folder: saved.path().into(), every: None, keep: 1 });
    job.stop_after = Some(stop);
    let first = job.run(&mut onnxruntime());
    assert!(first.outcome().stopped);
    let files = || folder.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let [file] = &files()[..] else { panic!("{:?}", files()) };
    let whole = std::fs::read(file).unwrap();
    job.resume = Some(crate::runs::newest(saved.path()));
    (job.checkpoints, job.stop_after) = (None, None);
    let rest = plain.losses()[stop..].to_vec();
    let goes_on = |name: &str, from: &str, left: &[u8]| {
        std::fs::write(file, left).unwrap();
        let again = job.run(&mut onnxruntime());
        again.outcome();
        assert_eq!(told(&again)[0], Ok(from.to_string()), "{name}");
        let off = |(found, expected): (&f64, &f64)| (found - expected).abs() / expected.abs().max(0.1);
        let worst = again.losses().iter().zip(&rest).map(off).fold(0f64, f64::max);
        assert!(again.losses().len() == rest.len() && worst < LOSSES, "{name}: {worst:.1e}");
    };
    goes_on("whole", "file", &whole);
    // Elements that are not those of the rows, as of a process that was killed before it wrote them.
    let mut torn = whole.clone();
    let middle = torn.len() / 2;
    torn[middle..].fill(0);
    goes_on("torn", "file", &torn);
    goes_on("cut", "data", &whole[..middle]);
    let mut other = whole.clone();
    other[9] ^= 1;
    goes_on("another key", "data", &other);
}

#[test]
fn what_cannot_be_kept_is_told_and_the_run_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let said = |told: &[Result<String, String>], text: &str| {
        let all = !told.is_empty() && told.iter().all(|told| told.as_ref().is_err_and(|reason| reason.contains(text)));
        assert!(all, "{told:?}, expected \"{text}\"");
    };
    // Statistics of the batch: only what comes before the first of them could be kept.
    let mut job = digits();
    job.options = PlanOptions { batch_norm: BatchNorm::Train, ..job.options };
    said(&reasons(&mut job, folder.path(), 1 << 30), "brings the samples of a batch together");
    said(&reasons(&mut digits(), folder.path(), 1000), "and cache.limit is 1000");
    // What is frozen only in the last epoch is read by no other.
    let mut job = digits();
    job.options = PlanOptions { batch_norm: BatchNorm::Frozen, ..PlanOptions::of("steps") }.with("steps", "7:6");
    said(&reasons(&mut job, folder.path(), 1 << 30), "no later epoch");
    // A frozen set that comes back.
    job.options =
        PlanOptions { batch_norm: BatchNorm::Frozen, ..PlanOptions::of("steps") }.with("steps", "2:6,3:0,4:6,5:0,6:6");
    said(&reasons(&mut job, folder.path(), 1 << 30), "comes again later");
}

#[test]
fn dropout_ends_what_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = vit();
    job.options = PlanOptions { dropout: FrozenDropout::Train, ..job.options };
    job.cache = cache(CacheMode::Memory, 1 << 30, folder.path());
    let with = job.run(&mut onnxruntime());
    job.cache = None;
    same("dropout", &with, &job.run(&mut onnxruntime()));
    job = vit();
    job.cache = cache(CacheMode::Memory, 1 << 30, folder.path());
    let off = job.run(&mut onnxruntime());
    let bytes = |ran: &Ran| {
        let of = |event: &RunEvent| match event {
            RunEvent::Cache { values, .. } => Some(values.clone()),
            _ => None,
        };
        ran.events.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_ne!(bytes(&with), bytes(&off), "what is random is not kept");
}

#[test]
fn phases_within_an_epoch_and_batches_of_one_update_are_kept_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = digits();
    job.options =
        PlanOptions { batch_norm: BatchNorm::Frozen, ..PlanOptions::of("steps") }.with("steps", "1+2:4,2+1:6,4+1:9");
    (job.accumulate, job.epochs) = (2, 5);
    assert_eq!(reasons(&mut job, folder.path(), 1 << 30), ["data", "kept", "kept"].map(|from| Ok(from.to_string())));
}
