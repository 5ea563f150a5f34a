//! Plans per-epoch layer freezing for any ONNX model and trains it with that plan on ONNX Runtime.
//!
//! # The way of the data
//!
//! [`onnx::read`] maps a file; [`artifacts`] recovers a model from ONNX Runtime's training files.
//! [`planner::Analysis`] finds its facts ([`facts`]), its module tree and its parameters
//! ([`modules`]). [`planner::plan`] asks a policy epoch by epoch ([`plan`]), prices what it answers
//! ([`cost`]) and returns a [`plan::FreezePlan`]: which initializers are frozen in which epoch, and
//! what that saves. None of this needs ONNX Runtime.
//!
//! [`training::prepare`] and [`training::build`] make the graphs of one frozen set: the forward pass
//! with the frozen initializers as constants, a loss ([`losses`]), the gradients of what trains
//! ([`autodiff`]) and its update ([`optim`]), all in standard operators. Where the file carries a
//! training step of its own ([`onnx::TrainingInfo`]), [`training::stage`] makes the same graphs of that. With the feature `runner`,
//! `runner::train` runs them phase by phase on ONNX Runtime or on the embedded tract.
//!
//! [`signals`] holds the numerics of adaptive freezing on plain data: how alike two sets of
//! activations are (SVCCA, PWCCA, CKA, the similarity-preserving loss), how much gradients and
//! weights change. With `runner`, `metrics` sums up what predictions are worth, from accuracy to perplexity.
//!
//! # Example
//!
//! ```
//! use freeze_plan::plan::PlanOptions;
//! use freeze_plan::planner::{Analysis, Request, plan, sizes};
//!
//! let file = freeze_plan::onnx::read("fixtures/digits/model.onnx".as_ref())?;
//! let analysis = Analysis::of(&file.model);
//! let options = PlanOptions::default().with("freeze_start", 0.25);
//! let sizes = sizes(&analysis.model.graph, 64, &[])?;
//! let plan = plan(&file, &analysis, &Request { epochs: 10, steps_per_epoch: 0, options: &options, slots: 1, own_slots: Default::default(), sizes })?;
//! for epoch in &plan.epochs {
//!     println!("{}: {} units, {:?}", epoch.epoch, epoch.frozen_units, epoch.frozen);
//! }
//! assert_eq!(plan.epochs[9].frozen_units, 10);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A policy of one's own
//!
//! ```
//! use freeze_plan::plan::{Decision, FrozenSet, Moment, Policy};
//! use freeze_plan::planner::{Analysis, Basis, Request, sizes};
//!
//! /// Freezes the first half of the units in the second half of the run.
//! struct Half;
//!
//! impl Policy for Half {
//!     fn name(&self) -> &str {
//!         "half"
//!     }
//!
//!     fn decide(&self, at: &Moment<'_>) -> Decision {
//!         let depth = if at.elapsed() < 0.5 { 0 } else { at.units.len() / 2 };
//!         Decision::of(FrozenSet::prefix(at.units.len(), depth))
//!     }
//! }
//!
//! let file = freeze_plan::onnx::read("fixtures/digits/model.onnx".as_ref())?;
//! let analysis = Analysis::of(&file.model);
//! let sizes = sizes(&analysis.model.graph, 64, &[])?;
//! let request = Request { epochs: 4, steps_per_epoch: 0, options: &Default::default(), slots: 1, own_slots: Default::default(), sizes };
//! let basis = Basis::with(&file, &analysis, &request, Box::new(Half))?;
//! let frozen: Vec<usize> = basis.plan()?.epochs.iter().map(|epoch| epoch.frozen_units).collect();
//! assert_eq!(frozen, [0, 0, 6, 6]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An adaptive policy says what it must know with [`plan::Policy::signals`], and when it is asked with
//! [`plan::Policy::points`]; a run then hands it the [`plan::History`] of what was measured.
//!
//! # Training from a program
//!
//! A [`trainer::Trainer`] does what `freeze-plan train` does. Its run is an iterator over events; it can be stopped at any
//! step and goes on later with the same bits.
//!
//! ```no_run
//! # #[cfg(feature = "runner")] {
//! use freeze_plan::data::Dataset;
//! use freeze_plan::graph::Tensor;
//! use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
//! use freeze_plan::losses::{LossKind, LossSpec};
//! use freeze_plan::runner::job::{DataSection, RunSection};
//! use freeze_plan::runner::{Job, LocateOptions, RunEvent};
//! use freeze_plan::trainer::{Parts, Start, Trainer, engine};
//!
//! let mut job = Job::new("model.onnx", DataSection::new([("x", "images")], "labels", 64), RunSection::new(10, "runs/first"));
//! job.loss = Some(LossSpec::new(LossKind::CrossEntropy));
//! job.optimizer = Some(OptimizerSpec { lr: Some(0.05), momentum: Some(0.9), ..OptimizerSpec::new(OptimizerKind::Sgd) });
//! job.freeze = job.freeze.with("freeze_start", 0.25);
//! let images = Tensor::from_vec(&[128, 1, 8, 8], vec![0f32; 128 * 64]);
//! let labels = Tensor::ints(&[0; 128]);
//! let data = Dataset::new("made".as_ref(), vec![("images".into(), images), ("labels".into(), labels)])?;
//! let trainer = Trainer::with(job, Parts { train: Some(data), ..Parts::default() })?;
//! println!("{} epochs", trainer.plan().epochs.len());
//! let mut run = trainer.start(Start::Resume, || engine(&LocateOptions::default(), None, &mut |_| {}));
//! while let Some(event) = run.next() {
//!     if let RunEvent::Epoch { epoch, train_loss, .. } = event {
//!         println!("{epoch}: {train_loss}");
//!         if train_loss < 0.01 {
//!             run.stop();
//!         }
//!     }
//! }
//! println!("{}", run.join()?.model.display());
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! - `tract` (default): facts that need analysis, and with `runner` the embedded executor.
//! - `runner`: training.
//! - `schema`: JSON Schemas of plan, contract, job and event files.
//! - `cli` (default): the program; includes `runner`.
//!
//! # Units of numbers
//!
//! Epochs count from 1. A multiply-add is two flops. Bytes are bytes, times are seconds, fractions
//! lie in [0, 1].

#![warn(missing_docs)]

pub mod artifacts;
pub mod autodiff;
#[cfg(feature = "runner")]
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
pub mod cost;
#[cfg(feature = "runner")]
pub mod data;
pub mod error;
pub mod facts;
pub mod graph;
#[cfg(feature = "runner")]
pub mod initial;
pub mod losses;
#[cfg(feature = "runner")]
pub mod metrics;
pub mod modules;
pub mod onnx;
pub mod optim;
pub mod plan;
pub mod planner;
pub mod report;
#[cfg(feature = "runner")]
pub mod runner;
#[cfg(feature = "schema")]
pub mod schemas;
pub mod signals;
#[cfg(feature = "runner")]
pub mod sinks;
#[cfg(feature = "runner")]
pub mod trainer;
pub mod training;
