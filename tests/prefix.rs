//! The frozen prefix of a train graph on its own, and what is kept of it for each sample.

use crate::delegate::{Delegate, Hooks};
use crate::engines::{deviation, engines, fixture, onnxruntime};
use crate::models::{case, files, step};
use crate::runs::{Job, Ran};
use freeze_plan::data::{
    self, AugmentOptions, BatchOptions, Batches, DataOptions, Dataset, LastBatch, Sampler, Wanted,
};
use freeze_plan::graph::{DType, Model, Tensor};
use freeze_plan::plan::{BatchNorm, FrozenDropout, PlanOptions, PrefixMode};
use freeze_plan::runner::job::CacheMode;
use freeze_plan::runner::{
    BufferId, Caching, Checkpoints, DeviceMemory, Engine, EngineError, LocateOptions, OnnxRuntime, RunEvent, evaluate,
};
use freeze_plan::trainer::{Start, Trainer};
use freeze_plan::training::prefix::{Prefix, Split};
use freeze_plan::training::{PhaseOptions, Rates, Role, TrainStep, build, names, target_fact};
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
        let Some(prefix) = Prefix::of(&step.train, &data, &wanted, &BTreeMap::new()) else { continue };
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

#[test]
fn what_is_frozen_may_be_an_input_of_the_rest() {
    let job = digits();
    let own = &job.prepared.model.graph;
    let frozen: HashSet<&str> = own
        .initializers()
        .map(|(_, value, _)| value.name.as_str())
        .filter(|name| ["conv1.", "bn1.", "block1.", "conv2.", "bn2."].iter().any(|start| name.starts_with(start)))
        .collect();
    let mut engine = onnxruntime();
    let tensor = |name: &str| own.find(name).and_then(|id| own.value(id).initializer.clone());
    let batch = job.train.batch(1, 0).unwrap();
    let known: BTreeMap<String, Tensor> =
        own.initializers().map(|(_, value, tensor)| (value.name.clone(), tensor.clone())).chain(batch).collect();
    let mut prints = Vec::new();
    for frozen_inputs in [false, true] {
        let options = PhaseOptions {
            frozen: frozen.clone(),
            frozen_inputs,
            rates: Rates::new(),
            loss: &job.loss,
            optimizer: &job.optimizer,
            output: None,
            seed: 0,
        };
        let step = build(&job.prepared, &options).unwrap();
        let inputs_of =
            |name: &str| step.train.graph.inputs().iter().any(|id| step.train.graph.value_name(*id) == name);
        let held = frozen.iter().filter(|name| inputs_of(name));
        let held: BTreeMap<String, Tensor> = held.map(|name| ((*name).to_string(), tensor(name).unwrap())).collect();
        assert_eq!(held.is_empty(), !frozen_inputs);
        let passed = step.passed.iter().map(|(name, _)| name.as_str());
        let wanted: Vec<&str> = passed.chain([names::LOSS]).collect();
        let prefix = Prefix::of(&step.train, &["x"], &wanted, &held).unwrap();
        let cut = prefix.deepest().unwrap();
        prints.push(cut.iter().map(|value| prefix.fingerprint(*value)).collect::<Vec<_>>());
        let split = prefix.split(&cut);
        assert_eq!(split.prefix.graph.inputs().len(), 1, "what is frozen is a constant of the prefix");
        let whole = run(&mut engine, &step.train, &known);
        let mut fed = known.clone();
        fed.extend(run(&mut engine, &split.prefix, &known));
        for (output, found) in run(&mut engine, &split.rest, &fed) {
            let off = deviation(&found, &whole[&output]);
            assert!(off < SAME, "{output} is off by {off:.1e}");
        }
    }
    assert_eq!(prints[0], prints[1], "the same values in both forms");
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
        // The embedded engine is slow on many phases of a transformer.
        for mut engine in engines().into_iter().take(if name == "vit" { 1 } else { 2 }) {
            job.cache = None;
            let plain = job.run(engine.as_mut());
            let mut losses = Vec::new();
            for mode in [CacheMode::Memory, CacheMode::Disk, CacheMode::Device] {
                job.cache = cache(mode, 1 << 30, folder.path());
                let name = format!("{name}, {mode:?}, {}", engine.info().name);
                let ran = job.run(engine.as_mut());
                same(&name, &ran, &plain);
                let told = told(&ran);
                let expected = ["data", "kept", "kept"].map(|from| Ok(from.to_string()));
                assert_eq!(told, expected, "{name}");
                assert_eq!(folder.path().read_dir().unwrap().count(), 0, "{name}: the files are removed at the end");
                losses.push(ran.losses());
            }
            assert!(losses.iter().all(|found| *found == losses[0]), "{name}: what is read back is what was kept");
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

/// A device whose buffers the host cannot look into.
struct Apart {
    inner: OnnxRuntime,
    memory: Option<DeviceMemory>,
    /// Whether there is no memory for what is large.
    full: bool,
}

impl Hooks for Apart {
    fn inner(&self) -> &dyn Engine {
        &self.inner
    }

    fn inner_mut(&mut self) -> &mut dyn Engine {
        &mut self.inner
    }

    fn gives_bytes(&self) -> bool {
        false
    }

    fn device_memory(&self) -> Option<DeviceMemory> {
        self.memory
    }

    fn reserve(&mut self, dtype: DType, shape: &[usize]) -> Result<BufferId, EngineError> {
        let reason = "Failed to allocate memory for requested buffer of size 5".to_string();
        let error = || EngineError::Buffer { engine: "made up", what: "rows".into(), reason };
        if self.full { Err(error()) } else { self.inner.reserve(dtype, shape) }
    }
}

fn apart(memory: Option<DeviceMemory>, full: bool) -> Delegate<Apart> {
    Delegate(Apart { inner: onnxruntime(), memory, full })
}

/// Returns where rows are kept in each phase.
fn places(ran: &Ran) -> Vec<String> {
    let of = |event: &RunEvent| match event {
        RunEvent::Cache { place: Some(place), .. } => Some(place.clone()),
        _ => None,
    };
    ran.events.iter().filter_map(of).collect()
}

#[test]
fn rows_on_a_device_are_never_seen_by_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = digits();
    job.cache = cache(CacheMode::Memory, 1 << 30, folder.path());
    let memory = job.run(&mut apart(None, false));
    job.cache = cache(CacheMode::Device, 1 << 30, folder.path());
    let device = job.run(&mut apart(None, false));
    assert_eq!(memory.losses(), device.losses());
    crate::runs::same_end(&memory, &device);
    assert_eq!((places(&memory), places(&device)), (vec!["memory".into(); 3], vec!["device".into(); 3]));
    assert_eq!(told(&device), ["data", "kept", "kept"].map(|from| Ok(from.to_string())));
    // There is no memory for them: the run goes on without.
    let full = job.run(&mut apart(None, true));
    same("full", &full, &memory);
    assert!(told(&full).iter().all(|told| told.as_ref().is_err_and(|reason| reason.contains("requested buffer"))));
    // The limit holds there as well: the rows of two phases do not fit side by side.
    let bytes = device.events.iter().filter_map(|event| match event {
        RunEvent::Cache { bytes, .. } => Some(*bytes),
        _ => None,
    });
    job.cache = cache(CacheMode::Device, bytes.max().unwrap(), folder.path());
    let bounded = job.run(&mut apart(None, false));
    same("bounded", &bounded, &memory);
    assert!(told(&bounded).contains(&Ok("data".to_string())), "{:?}", told(&bounded));
}

#[test]
fn auto_keeps_on_a_device_that_has_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = digits();
    (job.train, job.epochs) = (batches(8, None), 6);
    job.options = PlanOptions { batch_norm: BatchNorm::Frozen, ..PlanOptions::of("steps") }.with("steps", "1:6,4:9");
    job.cache = cache(CacheMode::Auto, 1 << 30, folder.path());
    let device = |used, full| {
        let ran = job.run(&mut apart(Some(DeviceMemory { used, peak: used, total: 1 << 40 }), full));
        ran.outcome();
        places(&ran)
    };
    assert_eq!(device(1 << 30, false)[0], "device");
    assert_eq!(device((1 << 40) - 1000, false)[0], "memory");
    assert_eq!(device(1 << 30, true)[0], "memory", "it has not what it says");
}

#[test]
fn a_run_that_goes_on_keeps_on_the_device_again() {
    let (folder, saved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut job = digits();
    let stop = 2 * job.steps_per_epoch() + 1;
    let mut rest = Vec::new();
    for mode in [CacheMode::Memory, CacheMode::Device] {
        (job.cache, job.resume) = (cache(mode, 1 << 30, folder.path()), None);
        job.checkpoints = Some(Checkpoints { folder: saved.path().into(), every: None, keep: 1 });
        job.stop_after = Some(stop);
        assert!(job.run(&mut onnxruntime()).outcome().stopped);
        job.resume = Some(crate::runs::newest(saved.path()));
        (job.checkpoints, job.stop_after) = (None, None);
        let ran = job.run(&mut onnxruntime());
        ran.outcome();
        rest.push((ran.losses(), told(&ran)));
    }
    assert_eq!(rest[0], rest[1]);
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
        PlanOptions { batch_norm: BatchNorm::Frozen, ..PlanOptions::of("steps") }.with("steps", "1+1:4,2+1:6,4+1:9");
    (job.accumulate, job.epochs) = (2, 5);
    assert_eq!(reasons(&mut job, folder.path(), 1 << 30), ["data", "kept", "kept"].map(|from| Ok(from.to_string())));
}

#[test]
fn auto_measures_and_then_keeps_or_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = digits();
    (job.train, job.epochs) = (batches(8, None), 6);
    job.options = PlanOptions { batch_norm: BatchNorm::Frozen, ..PlanOptions::of("steps") }.with("steps", "1:6,4:9");
    let plain = job.run(&mut onnxruntime());
    job.cache = cache(CacheMode::Auto, 1 << 30, folder.path());
    let ran = job.run(&mut onnxruntime());
    same("auto", &ran, &plain);
    let measured = ran.events.iter().filter_map(|event| match event {
        RunEvent::Cache { used, reason, compute_seconds: Some(compute), read_seconds: Some(read), .. } => {
            Some((*used, reason.clone(), *compute, *read))
        }
        _ => None,
    });
    let measured: Vec<_> = measured.collect();
    assert!(!measured.is_empty());
    for (used, reason, compute, read) in measured {
        assert!(compute > 0.0 && read > 0.0 && used == reason.is_none(), "{used}, {reason:?}");
        assert!(!used || read < compute, "{read} and {compute}");
    }
}

/// Returns batches of the digits, with what is random about them.
fn batches(size: usize, augment: Option<AugmentOptions>) -> Batches {
    let options = DataOptions { augment, ..DataOptions::default() };
    let dataset = Dataset::open(&fixture("parity/digits.npz"), &options, None).unwrap();
    let job = digits();
    let graph = &job.prepared.model.graph;
    let images = graph.fact(graph.find("x").unwrap()).clone();
    let labels = target_fact(&job.prepared, &job.loss, None).unwrap();
    let wanted = [("images", "x", images), ("labels", names::TARGET, labels)];
    let wanted = wanted.map(|(column, input, fact)| Wanted { column: column.into(), input: input.into(), fact });
    Batches::new(data::check(&dataset, &wanted).unwrap(), shuffled(size)).unwrap()
}

#[test]
fn data_that_differ_from_epoch_to_epoch_are_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let augment = AugmentOptions { column: Some("images".into()), horizontal_flip: 0.5, ..AugmentOptions::default() };
    let mut job = digits();
    job.train = batches(14, Some(augment));
    let told = reasons(&mut job, folder.path(), 1 << 30);
    let reason = "the rows of \"x\" differ from epoch to epoch (data.augment)";
    assert_eq!(told, vec![Err(reason.to_string()); 3]);
}

#[test]
fn a_job_keeps_in_the_folder_of_its_run_and_leaves_nothing_there() {
    let folder = tempfile::tempdir().unwrap();
    let [model, data] = ["digits/model.onnx", "parity/digits.npz"].map(|name| fixture(name).display().to_string());
    let text = format!(
        "model = '{model}'\n[data]\ntrain = '{data}'\ninputs = {{ x = \"images\" }}\ntarget = \"labels\"\nbatch = 14\n\
         workers = 1\n[loss]\nkind = \"cross-entropy\"\n[optimizer]\nkind = \"sgd\"\nlr = 0.05\n[freeze]\n\
         policy = \"steps\"\nsteps = [{{ epoch = 1, frozen = 6 }}]\nbatch_norm = \"frozen\"\n[cache]\nmode = \"disk\"\n\
         limit = \"8MB\"\n[run]\nepochs = 4\ndir = \"run\"\nthreads = 1\nlog_every = 1\nceiling_steps = 0\n"
    );
    let run = |sets: &[&str], start, stop: usize| {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_string()).collect();
        let job = freeze_plan::runner::Job::parse(&folder.path().join("job.toml"), &text, &sets).unwrap();
        let on_cpu = || {
            let one = freeze_plan::trainer::EngineOptions { threads: Some(1), ..Default::default() };
            freeze_plan::trainer::engine(&LocateOptions::default(), &one, &mut |_| {})
        };
        let mut run = Trainer::new(job).unwrap().start(start, on_cpu);
        let mut events = Vec::new();
        while let Some(event) = run.next() {
            if matches!(&event, RunEvent::Step { step, .. } if *step == stop) {
                run.stop();
            }
            events.push(event);
        }
        run.join().unwrap();
        events
    };
    let losses = |events: &[RunEvent]| -> Vec<f64> {
        let loss = |event: &RunEvent| if let RunEvent::Step { loss, .. } = event { Some(*loss) } else { None };
        events.iter().filter_map(loss).collect()
    };
    let from = |events: &[RunEvent]| {
        events.iter().find_map(|event| match event {
            RunEvent::Cache { used: true, from, place, .. } => Some((from.clone().unwrap(), place.clone().unwrap())),
            _ => None,
        })
    };
    let kept = || folder.path().join("run/cache").read_dir().map_or(0, |entries| entries.count());
    let plain = losses(&run(&["cache.mode=off"], Start::New, usize::MAX));
    let events = run(&[], Start::Over, usize::MAX);
    assert_eq!((from(&events), kept()), (Some(("data".into(), "disk".into())), 0));
    let near = |a: &[f64], b: &[f64]| {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() < LOSSES * b.abs().max(0.1), "{a} and {b}"));
    };
    near(&losses(&events), &plain);
    let mut all = losses(&run(&[], Start::Over, 6));
    assert!(all.len() < plain.len() && kept() == 1, "a run that is stopped leaves its file");
    let rest = run(&[], Start::Resume, usize::MAX);
    assert_eq!((from(&rest), kept()), (Some(("file".into(), "disk".into())), 0));
    all.extend(losses(&rest));
    near(&all, &plain);
    let written = std::fs::read_to_string(folder.path().join("run/job.toml")).unwrap();
    assert!(written.contains("[cache]") && written.contains("limit = \"8MB\""), "{written}");
}
