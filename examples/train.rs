//! Trains with layers frozen on a schedule.
//!
//! ```console
//! $ cargo run --release --example train
//! ```
//!
//! Needs the feature `runner`, and an ONNX Runtime, which is found or fetched as by the program `freeze-plan`.

use freeze_plan::data::{DataOptions, Dataset};
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::runner::job::{DataSection, RunSection};
use freeze_plan::runner::{Job, LocateOptions, RunEvent};
use freeze_plan::trainer::{EngineOptions, Parts, Start, Trainer, engine};
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    // Packages of ONNX Runtime report to their makers unless the environment forbids it, which must be said first.
    // SAFETY: no other thread has begun.
    unsafe { freeze_plan::runner::disable_telemetry() };

    // A job is what a job file holds. Input `x` of the model reads column `images` of the data, in batches of 64; the run
    // has 5 epochs and a folder of its own. `freeze_plan::trainer::load_job` reads a job file instead.
    let data = DataSection::new([("x", "images")], "labels", 64);
    let run = RunSection::new(5, std::env::temp_dir().join("freeze-plan-example"));
    let mut job = Job::new("fixtures/digits/model.onnx", data, run);
    job.loss = Some(LossSpec::new(LossKind::CrossEntropy));
    job.optimizer =
        Some(OptimizerSpec { lr: Some(0.1), momentum: Some(0.9), ..OptimizerSpec::new(OptimizerKind::Sgd) });
    job.freeze = job.freeze.with("freeze_start", 0.25);

    // Data in memory, here read from files; `Dataset::new` takes tensors. `policy` and `rules` are further parts: a policy
    // and gradient rules of one's own.
    let open = |name: &str| Dataset::open(&Path::new("fixtures/digits").join(name), &DataOptions::default(), None);
    let parts = Parts { train: Some(open("train.npz")?), eval: Some(open("eval.npz")?), ..Parts::default() };

    // Everything that can be refused is refused here: names, shapes, operators without gradients.
    let trainer = Trainer::with(job, parts)?;
    println!("{}", trainer.plan().summary.verdict);

    // The run goes on beside this thread, where it also makes its engine, and tells its events. `Start::Over` replaces what
    // an earlier run left in the folder. `run.stop()` ends it after the step with a checkpoint,
    // from which `Start::Resume` goes on.
    let mut run = trainer.start(Start::Over, || {
        engine(&LocateOptions::default(), &EngineOptions::default(), &mut |note| println!("{note}"))
    });
    for event in run.by_ref() {
        match event {
            RunEvent::Phase { epoch, frozen_units, .. } => {
                println!("from epoch {epoch} on {frozen_units} units are frozen")
            }
            RunEvent::Epoch { epoch, train_loss, metrics, .. } => {
                let accuracy = metrics.get("accuracy").copied().unwrap_or(f64::NAN);
                println!("epoch {epoch}: loss {train_loss:.4}, accuracy {accuracy:.3}");
            }
            _ => {}
        }
    }
    println!("the trained model: {}", run.join()?.model.display());
    Ok(())
}
