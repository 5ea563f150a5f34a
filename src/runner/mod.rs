//! Runs graphs: ONNX Runtime or the embedded tract behind one [`Engine`], state in their buffers,
//! and the train loop on top.
//!
//! The `ort` crate is used in `onnxruntime` only. What this module does not do: build graphs.

mod ahead;
mod cache;
mod calibrate;
mod ceiling;
mod clock;
#[doc(hidden)]
pub mod cuda;
mod device;
mod ema;
mod engine;
mod estimate;
mod evaluation;
mod evaluator;
mod event;
mod exhausted;
mod front;
mod guard;
mod improvement;
mod initial;
pub mod job;
pub mod locate;
mod memory;
mod native;
mod nonfinite;
mod observe;
mod onnxruntime;
mod operators;
mod pace;
mod phase;
mod phases;
#[doc(hidden)]
pub mod placement;
#[doc(hidden)]
pub mod precision;
mod probe;
mod proof;
mod rates;
mod recipe;
mod run;
mod save;
pub mod schedule;
mod sessions;
mod state;
mod steps;
mod surroundings;
#[cfg(test)]
pub mod testing;
mod timing;
#[cfg(feature = "tract")]
mod tract;
#[cfg(feature = "tract")]
mod tract_einsum;
#[cfg(feature = "tract")]
mod tract_integers;
#[cfg(feature = "tract")]
mod tract_refused;
#[cfg(feature = "tract")]
mod tract_special;
#[cfg(feature = "tract")]
mod tract_stable;
#[cfg(all(test, feature = "tract"))]
mod tract_sweep;
mod train;

pub use cache::Caching;
#[doc(hidden)]
pub use cache::what_is_kept;
#[doc(hidden)]
pub use calibrate::{Timings, measure, timings};
pub use ceiling::Ceiling;
pub use clock::Clock;
pub use device::{Device, NoDevice};
pub use ema::{Ema, UPDATES};
pub use engine::{
    BindingId, BufferId, DeviceMemory, Engine, EngineError, EngineInfo, Loaded, Loader, NodeTime, OnProcessor,
    SessionId, Target, evaluate,
};
pub use estimate::{Consumer, MemoryEstimate};
pub use evaluation::Evaluation;
pub use event::{RunEvent, Timed};
pub use exhausted::{Exhausted, OutOfMemory};
pub use improvement::{EarlyStopping, Stall};
#[doc(hidden)]
pub use improvement::{best, stops};
#[doc(hidden)]
pub use job::Gaps;
pub use job::{Job, JobError, Targets};
#[doc(hidden)]
pub use locate::survey;
pub use locate::{LocateError, LocateOptions, locate};
pub use nonfinite::{Cause, CauseKind, InputRange, Nonfinite, OnNonfinite, what_is_not_finite};
pub(crate) use onnxruntime::telemetry_is_undecided;
pub use onnxruntime::{Arena, Cuda, OnnxRuntime, disable_telemetry};
pub use operators::Operators;
pub use phase::{Phase, Share};
pub use precision::{Computing, Precision};
pub use probe::EngineProbe;
pub use run::Run;
pub(crate) use save::changed_rules;
pub use schedule::{Schedule, lr_at};
pub use state::{Snapshot, State};
#[cfg(feature = "tract")]
pub use tract::Tract;
pub use train::{Checked, Checkpoints, Freezing, Outcome, RunError, Setup, check_ceiling, train};
