//! Plans per-epoch layer freezing for any ONNX model and trains it with that plan on ONNX Runtime.
//!
//! Early layers settle first; a frozen layer costs no gradient, no optimizer state and no update, and its weights stay in
//! the model. A [plan](plan::FreezePlan) says which parameters are frozen in which epoch. The planner is what
//! `default-features = false` gives; training needs the feature `runner`, and an ONNX Runtime, which is loaded when a
//! program runs.
//!
//! # A plan
//!
//! [`plan()`] takes a file and what differs from the defaults; `run` makes the plan. It names, for every epoch, what is frozen,
//! by the names of the file's initializers, and says what a step then costs.
//!
//! ```
//! let plan = freeze_plan::plan("fixtures/digits/model.onnx").epochs(10).with("freeze_start", 0.25).batch(64).run()?;
//! for epoch in &plan.epochs {
//!     println!("{}: {} units, {:.2} of a full step", epoch.epoch, epoch.frozen_units, epoch.predicted.step_cost);
//! }
//! assert_eq!(plan.epochs[9].frozen_units, 10);
//! assert!(plan.epochs[9].frozen.contains(&"conv1.weight".to_string()));
//! println!("{}", plan.summary.verdict);
//! # Ok::<(), freeze_plan::planner::PlannerError>(())
//! ```
//!
//! [`planner::Planning::open`] gives what the plan is made from as well: the module tree, the parameters, the units that
//! freeze as one, and their costs. Everything underneath is public, too: [`planner::Analysis`], [`planner::Basis`],
//! [`cost::CostModel`].
//!
//! ```
//! let model = freeze_plan::plan("fixtures/digits/model.onnx").batch(64).policy("budget").with("target", 0.7).open()?;
//! for (unit, cost) in model.units().iter().zip(model.costs()) {
//!     println!("{} {} elements, {} flops", unit.path, cost.elements, cost.flops.total());
//! }
//! let step = model.step_costs().step_while(|name| name.starts_with("conv1"));
//! println!("a step with conv1 frozen takes {} flops", step.flops.total());
//! # Ok::<(), freeze_plan::planner::PlannerError>(())
//! ```
//!
//! # Reading a plan
//!
//! A plan is a file, too. What trains a model elsewhere reads it and asks what is frozen.
//!
//! ```
//! # let folder = std::env::temp_dir().join(format!("freeze-plan-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # let path = folder.join("plan.json");
//! let model = freeze_plan::plan("fixtures/digits/model.onnx").epochs(4).open()?;
//! model.write(&model.plan()?, &path)?;
//!
//! let plan = freeze_plan::plan::read(&path)?;
//! for segment in freeze_plan::plan::segments(&plan) {
//!     println!("epochs {} to {}: {}", segment.first_epoch, segment.last_epoch, segment.frozen.join(", "));
//! }
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A policy of one's own
//!
//! ```
//! use freeze_plan::plan::{Decision, FrozenSet, Moment, Policy};
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
//! let plan = freeze_plan::plan("fixtures/digits/model.onnx").epochs(4).policy(Half).run()?;
//! let frozen: Vec<usize> = plan.epochs.iter().map(|epoch| epoch.frozen_units).collect();
//! assert_eq!(frozen, [0, 0, 6, 6]);
//! # Ok::<(), freeze_plan::planner::PlannerError>(())
//! ```
//!
//! A trainer takes it as one of its parts (`Parts { policy, .. }`, see below). An adaptive policy says what it must know with
//! [`plan::Policy::signals`], and when it is asked with [`plan::Policy::points`]; a run then hands it the [`plan::History`]
//! of what was measured.
//!
//! # Training from a program
//!
//! A [`trainer::Trainer`] does what `freeze-plan train` does. Its run is an iterator over events; it can be stopped at any
//! step and goes on later with the same bits. Packages of ONNX Runtime report to their makers when they start, unless
//! [`runner::disable_telemetry`] was called before.
//!
//! ```no_run
//! # #[cfg(feature = "runner")] {
//! use freeze_plan::data::Dataset;
//! use freeze_plan::graph::Tensor;
//! use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
//! use freeze_plan::losses::{LossKind, LossSpec};
//! use freeze_plan::runner::job::{DataSection, RunSection};
//! use freeze_plan::runner::{Job, LocateOptions, RunEvent};
//! use freeze_plan::trainer::{EngineOptions, Parts, Start, Trainer, engine};
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
//! let mut run = trainer.start(Start::Resume, || engine(&LocateOptions::default(), &EngineOptions::default(), &mut |_| {}));
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
//! # A gradient rule of one's own
//!
//! An operator without a rule is an error only where a gradient must pass it; [`autodiff::coverage`] lists what has one. A
//! [`autodiff::GradientRule`] gives the gradient of one operator, or replaces a built-in rule. It is passed on as a value:
//! here to the graphs of a phase, in a trainer as one of its parts (`Parts { rules, .. }`).
//!
//! ```
//! use freeze_plan::autodiff::{Ctx, GradientRule, RuleError, Rules};
//! use freeze_plan::graph::ValueId;
//!
//! /// The gradient of `tanh`, from its output.
//! struct Tanh;
//!
//! impl GradientRule for Tanh {
//!     fn domain(&self) -> &str {
//!         ""
//!     }
//!
//!     fn op(&self) -> &str {
//!         "Tanh"
//!     }
//!
//!     fn gradient(&self, ctx: &mut Ctx<'_>, _input: usize) -> Result<ValueId, RuleError> {
//!         let (dy, y) = (ctx.dy()?, ctx.y(0)?);
//!         let square = ctx.b.mul(y, y);
//!         let one = ctx.b.like(y, 1.0);
//!         let slope = ctx.b.sub(one, square);
//!         Ok(ctx.b.mul(dy, slope))
//!     }
//! }
//!
//! let model = freeze_plan::plan("fixtures/freezing/mlp.onnx").open()?;
//! let prepared = freeze_plan::training::prepare(model.analysis())?.with_rules(Rules::new().with(Tanh));
//! let notes = prepared.rules.notes(&prepared.model.graph, prepared.model.opset());
//! assert_eq!(notes, ["Tanh has an own gradient rule in place of the built-in one (2 nodes)"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`autodiff::GradCheck`] compares a rule with finite differences. A run remembers which operators had rules, and of which
//! [version](autodiff::GradientRule::version): it goes on with the same ones only.
//!
//! # The way of the data
//!
//! [`planner::Loaded`] is a file that was read: [`onnx::read`] maps it, [`artifacts`] recovers a model from ONNX Runtime's
//! training files, and [`planner::Analysis`] finds its facts ([`facts`]), its module tree and its parameters
//! ([`modules`]). [`plan()`] does all that and asks a policy epoch by epoch ([`mod@plan`]), prices what it answers
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
//! # Features
//!
//! - `tract` (default): facts that need analysis, and with `runner` the embedded executor.
//! - `runner`: training.
//! - `schema`: JSON Schemas of plan, contract, job and event files.
//! - `cli` (default): the program; includes `runner`.
//!
//! With `default-features = false` there are the planner and the graphs, without ONNX Runtime, threads and network.
//! The programs in `examples/` show each of the above as a whole: `plan`, `own_policy`, `train`, `own_gradient`.
//!
//! # Versions
//!
//! Before 1.0 a change of the second number may break; enums that will grow, errors and events among them, are
//! `#[non_exhaustive]`. What is hidden in these pages and public in the source is for the program itself and may change with
//! any version.
//!
//! # Units of numbers
//!
//! Epochs count from 1. A multiply-add is two flops. Bytes are bytes, times are seconds, fractions
//! lie in [0, 1].

#![warn(missing_docs)]

mod analysis;
pub mod artifacts;
pub mod autodiff;
#[cfg(feature = "runner")]
pub mod checkpoint;
pub mod classic;
#[cfg(feature = "cli")]
#[doc(hidden)]
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

pub use planner::Planning;

/// Begins a plan of an ONNX file; see [`Planning`].
pub fn plan(model: impl AsRef<std::path::Path>) -> Planning {
    Planning::of(model)
}
