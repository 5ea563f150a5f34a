//! `freeze-plan MODEL --measure`: what the steps of a plan take on this machine.

use super::failure::{Failure, note};
use super::graph::{loss_kind, optimizer_of};
use super::options::RuntimeArgs;
use super::probe::ChildProbe;
use crate::losses::LossSpec;
use crate::plan::{FreezePlan, PlanOptions};
use crate::runner::{Clock, Device};
use crate::trainer::sizes::Sizes;
use crate::trainer::{EngineOptions, MadeUp, Trainer, engine};
use crate::training::Dropout;
use std::path::Path;

/// Steps that are timed.
#[derive(clap::Args, Debug)]
pub struct MeasureArgs {
    /// Time a few steps on this machine, on random data, and predict from them what the steps of every phase take
    #[arg(long)]
    pub measure: bool,
    /// Loss of the measured steps, as for `freeze-plan graph`; cross-entropy by default
    #[arg(long, value_name = "KIND", requires = "measure")]
    loss: Option<String>,
    /// Optimizer of the measured steps: sgd (default, with momentum 0.9), adam, adamw, rmsprop, adagrad, lion or muon
    #[arg(long, value_name = "KIND", requires = "measure")]
    optimizer: Option<String>,
    /// Threads within one operator; all cores by default
    #[arg(long, value_name = "N", requires = "measure")]
    threads: Option<usize>,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

impl MeasureArgs {
    /// Measures steps of the model and completes the plan with what they take.
    pub fn run(&self, path: &Path, options: &PlanOptions, sizes: &Sizes, plan: &mut FreezePlan) -> Result<(), Failure> {
        let wanted = MadeUp {
            loss: self.loss.as_deref().map(loss_kind).transpose()?.map(LossSpec::new),
            optimizer: optimizer_of(self.optimizer.as_deref())?,
            dropout: Dropout::AsExported,
            sizes,
            roles: (&options.parameter, &options.buffer),
            threads: self.threads,
        };
        let mut probe = ChildProbe { runtime: self.runtime.runtime.as_deref() };
        let trainer = Trainer::made_up(path, wanted, Some(&mut probe), &mut note)?;
        let made_for = EngineOptions { threads: self.threads, ..EngineOptions::default() };
        let mut engine = engine(&self.runtime.locate(Device::Cpu), &made_for, &mut |text| eprintln!("{text}"))?;
        trainer.measure(engine.as_mut(), plan, Clock::Wall)
    }
}
