//! What a run takes of memory: the estimate beside what is taken, and what is said where there is not enough.

use crate::delegate::{Delegate, Hooks};
use crate::engines::onnxruntime;
use crate::runs::{Job, Ran, in_order};
use freeze_plan::error::ErrorKind;
use freeze_plan::graph::{Model, Tensor};
use freeze_plan::plan::{BatchNorm, FrozenDropout, PlanOptions, PrefixMode};
use freeze_plan::runner::{
    BindingId, DeviceMemory, Engine, EngineError, Loader, MemoryEstimate, OnnxRuntime, RunError, RunEvent, SessionId,
};
use freeze_plan::trainer::TrainerError;

/// The bytes that arenas of a phase gave out at their peak, over those of the estimate: ONNX Runtime folds transpositions
/// into products and ours does not know, operators of ONNX Runtime take workspace, and what crosses from a frozen prefix
/// lies beside the arenas.
const ARENA: std::ops::RangeInclusive<f64> = 0.75..=1.15;

/// Notes what the sessions take of memory.
struct Gauge {
    inner: OnnxRuntime,
    live: Vec<(usize, SessionId)>,
    /// Graphs in the order in which they were loaded, with the most bytes that their arena gave out.
    found: Vec<(String, u64)>,
}

impl Hooks for Gauge {
    fn inner(&self) -> &dyn Engine {
        &self.inner
    }

    fn inner_mut(&mut self) -> &mut dyn Engine {
        &mut self.inner
    }

    fn loader(&self) -> Option<Box<dyn Loader>> {
        None
    }

    fn load(&mut self, model: &Model) -> Result<SessionId, EngineError> {
        let session = self.inner.load(model)?;
        self.live.push((self.found.len(), session));
        self.found.push((model.graph.name().to_string(), 0));
        Ok(session)
    }

    fn unload(&mut self, session: SessionId) {
        self.live.retain(|(_, live)| *live != session);
        self.inner.unload(session);
    }

    fn run(&mut self, binding: BindingId) -> Result<Vec<Tensor>, EngineError> {
        let outputs = self.inner.run(binding)?;
        for (position, session) in &self.live {
            let arena = self.inner.arena(*session).expect("an arena that tells");
            self.found[*position].1 = arena.most;
        }
        Ok(outputs)
    }
}

/// Runs a job and returns the estimate of each phase with what its sessions took.
fn phases(job: &Job) -> Vec<(MemoryEstimate, u64)> {
    let mut gauge = Delegate(Gauge { inner: onnxruntime(), live: Vec::new(), found: Vec::new() });
    let ran = job.run(&mut gauge);
    ran.outcome();
    let estimates: Vec<MemoryEstimate> = estimates(&ran);
    // The graph of evaluation comes first, then each phase begins with its train graph.
    let mut taken: Vec<u64> = Vec::new();
    for (name, bytes) in &gauge.found {
        match name.as_str() {
            "eval" => {}
            "train" => taken.push(*bytes),
            "optimizer" => {}
            _ => *taken.last_mut().unwrap() += bytes,
        }
    }
    assert_eq!(taken.len(), estimates.len());
    estimates.into_iter().zip(taken).collect()
}

fn estimates(ran: &Ran) -> Vec<MemoryEstimate> {
    let of = |event: &RunEvent| match event {
        RunEvent::Phase { memory_estimate, .. } => memory_estimate.clone(),
        _ => None,
    };
    ran.events.iter().filter_map(of).collect()
}

fn sgd() -> serde_json::Value {
    serde_json::json!({"kind": "sgd", "lr": 0.01, "momentum": 0.9})
}

/// Jobs on the fixtures whose set grows.
fn jobs(batch: usize) -> Vec<(&'static str, Job)> {
    let mut digits = Job::of("digits/model.onnx", "parity/digits.npz", ["images", "labels"], in_order(batch), sgd());
    digits.options = PlanOptions { batch_norm: BatchNorm::Frozen, ..PlanOptions::of("steps") }.with("steps", "2:4,3:9");
    let mut resnet = Job::of("parity/resnet8.onnx", "parity/resnet8.npz", ["images", "labels"], in_order(batch), sgd());
    resnet.options = PlanOptions { prefix: PrefixMode::Off, ..PlanOptions::of("steps") }.with("steps", "2:5,3:12");
    let adam = serde_json::json!({"kind": "adamw", "lr": 2e-3});
    let mut vit = Job::of("digits_vit/model.onnx", "parity/digits.npz", ["images", "labels"], in_order(batch), adam);
    vit.options = PlanOptions { dropout: FrozenDropout::Off, ..PlanOptions::of("steps") }.with("steps", "2:8,3:20");
    let mut jobs = vec![("digits", digits), ("resnet8", resnet), ("vit", vit)];
    jobs.iter_mut().for_each(|(_, job)| job.epochs = 3);
    jobs
}

#[test]
fn estimates_are_what_the_sessions_take() {
    let mut wrong = Vec::new();
    for batch in [4, 32] {
        for (name, job) in jobs(batch) {
            let found = phases(&job);
            let mut before = u64::MAX;
            for (phase, (estimate, taken)) in found.into_iter().enumerate() {
                // Constants are held where they were when the session was made.
                let ratio = taken as f64 / estimate.activations as f64;
                println!("{name}, batch {batch}, phase {phase}: {ratio:.3} {taken} of {estimate:?}");
                if !ARENA.contains(&ratio) {
                    wrong.push(format!("{name}, batch {batch}, phase {phase}: {ratio:.2}"));
                }
                assert_eq!(estimate.unknown, 0, "{name}");
                assert!(estimate.total <= before, "{name}: a phase that freezes more takes less");
                before = estimate.total;
                let MemoryEstimate { weights, frozen, slots, gradients, activations, workspace, other, .. } = estimate;
                let parts = [weights, frozen, slots, gradients, activations, workspace, other];
                assert_eq!(parts.iter().sum::<u64>(), estimate.total, "{name}");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The bytes by which the peak of a process grows with the batch, over those of the estimate: the regions of an arena double,
/// and what does not fit into the rest of one begins the next.
const PROCESS: std::ops::RangeInclusive<f64> = 0.8..=1.8;

#[test]
#[cfg(target_os = "linux")]
fn the_peak_of_a_process_grows_with_the_batch_as_the_estimate_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = crate::cli::digits_job(folder.path(), |text| text);
    let run = |batch: usize| {
        let sets = [
            format!("data.batch={batch}"),
            "run.epochs=2".into(),
            "run.ceiling_steps=0".into(),
            "freeze.policy=\"none\"".into(),
        ];
        let mut args = vec!["train", crate::cli::path(&file), "--json", "--quiet", "--overwrite"];
        args.extend(sets.iter().flat_map(|set| ["--set", set]));
        let output = crate::cli::freeze_plan(&args);
        assert!(output.status.success(), "{}", crate::cli::text(&output.stderr));
        let events: Vec<serde_json::Value> =
            crate::cli::text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |event: &str, value: &dyn Fn(&serde_json::Value) -> Option<f64>| {
            events.iter().filter(|line| line["event"] == event).filter_map(value).fold(0.0, f64::max)
        };
        let estimate = of("phase", &|phase| phase["memory_estimate"]["total"].as_f64());
        assert!(events.iter().all(|event| event.get("device_peak_bytes").is_none()), "the CPU is no device apart");
        (of("epoch", &|epoch| epoch["peak_bytes"].as_f64()), estimate)
    };
    let (small, large) = (run(16), run(1024));
    let (grown, expected) = (large.0 - small.0, large.1 - small.1);
    println!("{:.1} MB of {:.1} MB", grown / 1e6, expected / 1e6);
    assert!(PROCESS.contains(&(grown / expected)), "{grown} of {expected}: {small:?}, {large:?}");
    assert!(large.0 > large.1, "a process takes what is estimated, and more");
}

/// A device that has no memory left in a run.
struct Full {
    inner: OnnxRuntime,
    /// Runs until then.
    left: usize,
    memory: Option<DeviceMemory>,
}

impl Hooks for Full {
    fn inner(&self) -> &dyn Engine {
        &self.inner
    }

    fn inner_mut(&mut self) -> &mut dyn Engine {
        &mut self.inner
    }

    fn device_memory(&self) -> Option<DeviceMemory> {
        self.memory
    }

    fn run(&mut self, binding: BindingId) -> Result<Vec<Tensor>, EngineError> {
        if self.left == 0 {
            let reason = "Non-zero status code returned while running Conv node. Name:'layer1.0/conv' Status Message: \
                          Failed to allocate memory for requested buffer of size 402653184";
            return Err(EngineError::Run { engine: "made up", graph: "train".into(), reason: reason.into() });
        }
        self.left -= 1;
        self.inner.run(binding)
    }
}

fn full(left: usize, memory: Option<DeviceMemory>) -> Delegate<Full> {
    Delegate(Full { inner: onnxruntime(), left, memory })
}

#[test]
fn a_device_without_memory_is_told_with_what_takes_it_and_what_would_help() {
    let (_, mut job) = jobs(32).swap_remove(1);
    let plain = job.run(&mut onnxruntime());
    let now = estimates(&plain)[0].clone();
    // Room for somewhat more than half of what a batch of 32 takes.
    let room = now.total - now.activations * 45 / 100;
    let memory = DeviceMemory { used: room, peak: room, total: room };
    let ran = job.run(&mut full(4, Some(memory)));
    let error = ran.result.unwrap_err();
    let RunError::OutOfMemory(found) = &error else { panic!("{error}") };
    assert_eq!(error.kind(), ErrorKind::BadInput);
    assert_eq!((found.cause.wanted, found.epoch, found.memory), (Some(402_653_184), Some(1), Some(memory)));
    assert_eq!(found.estimate.as_ref(), Some(&now));
    let text = error.to_string();
    let start = "cpu is out of memory: Conv \"layer1.0/conv\" in \"train\" wants 402.7 MB, 0 B of ";
    assert!(text.starts_with(start), "{text}");
    assert!(text.contains("in epoch 1; with batches of 32 the estimate is "), "{text}");
    assert!(text.contains(", most of it for evaluation ("), "{text}");
    let told = found.remedies.join("; ");
    let rows = told.split("data.batch = ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    let rows = rows.unwrap_or_else(|| panic!("{told}"));
    assert!((12..32).contains(&rows) && told.contains("the largest that fits"), "{told}");
    // By the estimate of a run with it, it fits, and one row more does not.
    let total = |batch: usize| estimates(&jobs(batch).swap_remove(1).1.run(&mut onnxruntime()))[0].total;
    assert!(total(rows) <= room && total(rows + 1) > room, "{rows}");
    assert!(told.contains("freezing earlier what freezes in epoch 3 ("), "{told}");
    let end = ran.events.iter().find_map(|event| match event {
        RunEvent::End { error, .. } => error.clone(),
        _ => None,
    });
    assert_eq!(end.as_ref(), Some(&text));
    let shown = TrainerError::from(error);
    assert!(shown.remedy().unwrap().contains("data.batch"), "{:?}", shown.remedy());
    assert_eq!((shown.kind().exit_code(), shown.message()), (1, text.as_str()));
    // Nothing is known of the device.
    job.epochs = 1;
    job.options = PlanOptions::of("none");
    let error = job.run(&mut full(0, None)).result.unwrap_err();
    assert!(matches!(error, RunError::OutOfMemory(_)), "{error}");
}
