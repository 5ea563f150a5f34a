//! The C interface of the planner: load a model, plan what freezes in which epoch, read the plan.
//!
//! `include/freeze_plan.h` is made of this crate by cbindgen and says everything a caller must know; this
//! file only says how the crate is built up. One file holds one kind of handle: [`fp_model`], [`fp_options`],
//! [`fp_plan`]. `status` holds what they share: every entry runs inside one guard, which turns an error into
//! an [`fp_status`] with a message for the thread, and a panic into [`fp_status::FP_PANIC`].
//!
//! A pointer that may be NULL is an `Option` of a reference or of a box, which has the same representation.
//! Functions that read text, or write a struct whose size the caller gives, are unsafe: the header says what
//! they take.
//!
//! What this crate does not do: train, or open ONNX Runtime.

#![allow(non_camel_case_types, reason = "these are the names in C")]
#![allow(clippy::missing_safety_doc, reason = "the header states once what every pointer must be")]

mod epoch;
mod lookup;
mod make;
mod model;
mod names;
mod options;
mod out;
mod plan;
mod status;
mod unit;

pub use epoch::{
    fp_epoch, fp_plan_change, fp_plan_dropout_off, fp_plan_dropout_off_at, fp_plan_epoch, fp_plan_epoch_at,
    fp_plan_epochs, fp_plan_frozen, fp_plan_frozen_at, fp_plan_is_frozen, fp_plan_is_frozen_at, fp_plan_lr_scale,
    fp_plan_lr_scale_at, fp_plan_statistic, fp_plan_statistic_at,
};
pub use model::{
    FP_NONE, fp_model, fp_model_free, fp_model_from_bytes, fp_model_module, fp_model_module_parameter,
    fp_model_modules, fp_model_read, fp_model_tensor, fp_model_tensors, fp_model_tree, fp_module, fp_role, fp_tensor,
};
pub use options::{fp_options, fp_options_free, fp_options_new, fp_options_set};
pub use out::fp_string_free;
pub use plan::{
    fp_plan, fp_plan_check, fp_plan_free, fp_plan_from_json, fp_plan_make, fp_plan_note, fp_plan_read, fp_plan_summary,
    fp_plan_to_json, fp_summary,
};
pub use status::{fp_last_error, fp_last_hint, fp_status, fp_version};
pub use unit::{fp_plan_unit, fp_plan_unit_parameter, fp_plan_units, fp_unit};
