//! Graphs that are made while the phase before trains: the change adopts them, and no clock has a say in the numbers.

use crate::delegate::{Delegate, Hooks};
use crate::engines::{deviation, golden, onnxruntime};
use crate::runs::{Job, Ran, Watched, in_order};
use freeze_plan::graph::Model;
use freeze_plan::plan::PlanOptions;
use freeze_plan::runner::{Engine, EngineError, Loaded, Loader, RunEvent, SessionId};
use std::time::Duration;

/// Has a loader that takes its time.
struct Slow<'a> {
    inner: &'a mut dyn Engine,
    delay: Duration,
    loads: usize,
    adopted: usize,
}

struct SlowLoader(Box<dyn Loader>, Duration);

impl Loader for SlowLoader {
    fn load(&self, model: &Model) -> Result<Loaded, EngineError> {
        std::thread::sleep(self.1);
        self.0.load(model)
    }
}

impl Hooks for Slow<'_> {
    fn inner(&self) -> &dyn Engine {
        self.inner
    }

    fn inner_mut(&mut self) -> &mut dyn Engine {
        self.inner
    }

    fn loader(&self) -> Option<Box<dyn Loader>> {
        Some(Box::new(SlowLoader(self.inner.loader()?, self.delay)))
    }

    fn adopt(&mut self, loaded: Loaded) -> SessionId {
        self.adopted += 1;
        self.inner.adopt(loaded)
    }

    fn load(&mut self, model: &Model) -> Result<SessionId, EngineError> {
        self.loads += 1;
        self.inner.load(model)
    }
}

/// A perceptron with 6 steps in an epoch, of which layers freeze: the first for long, then both for a short time, then
/// the second alone.
pub fn job() -> Job {
    let golden = golden("freezing/mlp.json");
    let mut options = golden["optimizers"]["adamw"].clone();
    options["kind"] = "adamw".into();
    let mut job = Job::of("freezing/mlp.onnx", "freezing/mlp.npz", ["x", "labels"], in_order(8), options);
    let steps = serde_json::json!([
        {"epoch": 2, "frozen": ["fc1"]},
        {"epoch": 27, "step": 3, "frozen": ["fc1", "fc2"]},
        {"epoch": 28, "frozen": ["fc2"]},
    ]);
    job.options = PlanOptions::of("steps").with("steps", steps);
    job.epochs = 29;
    job
}

/// Returns the steps after which constants took over, with how many there were.
fn constants(ran: &Ran) -> Vec<(usize, usize)> {
    let found = ran.events.iter().filter_map(|event| match event {
        RunEvent::Constants { step, values, .. } => Some((*step, *values)),
        _ => None,
    });
    found.collect()
}

#[test]
fn graphs_made_ahead_train_the_same_however_long_they_take() {
    let mut engine = onnxruntime();
    let job = job();
    let mut run = |delay| {
        let delay = Duration::from_millis(delay);
        let mut slow = Delegate(Slow { inner: &mut engine, delay, loads: 0, adopted: 0 });
        let ran = job.run(&mut slow);
        (ran, slow.loads, slow.adopted)
    };
    let (fast, loads, adopted) = run(0);
    // Evaluation and the first phase; then two graphs for each of three changes and for the constants of the long phase.
    assert_eq!((loads, adopted), (3, 8));
    let (slow, loads, adopted) = run(40);
    assert_eq!((loads, adopted), (3, 8));
    assert_eq!(fast.losses(), slow.losses());
    crate::runs::same_end(&fast, &slow);
    let taken = constants(&fast);
    assert!(matches!(taken[..], [(step, 2)] if step > 6 && step < 6 * 26), "{taken:?}");
    assert_eq!(taken, constants(&slow));
    let stalls = |ran: &Ran| ran.count(|event| matches!(event, RunEvent::Phase { stall_seconds: 0.0, .. }));
    assert_eq!((stalls(&fast), stalls(&slow)), (1, 1), "only the first phase stalls nothing");
}

#[test]
fn graphs_made_ahead_train_as_those_made_at_the_change() {
    let mut engine = onnxruntime();
    let job = job();
    let ahead = job.run(&mut engine);
    let mut watched = Watched::new(&mut engine, None);
    let at_once = job.run(&mut watched);
    assert_eq!(watched.loads, 1 + 2 * 4);
    assert_eq!((constants(&ahead).len(), constants(&at_once).len()), (1, 0));
    assert_eq!(ahead.steps(), at_once.steps());
    for (name, value) in &ahead.outcome().values {
        assert!(deviation(value, &at_once.outcome().values[name]) < 1e-4, "{name}");
    }
}
