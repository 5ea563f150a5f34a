//! Plans and runs for a person or another program: a table for a terminal, CSV, HTML pages.
//!
//! Everything here turns data into text. What this module does not do: decide, count, or write
//! files; and the plan file itself is `plan`'s.

mod compare;
mod human;
mod page;
#[cfg(feature = "cli")]
mod plan_brief;
mod plan_csv;
mod plan_diff;
mod plan_html;
#[cfg(feature = "cli")]
mod plan_table;
#[cfg(feature = "cli")]
mod policies_table;
#[cfg(feature = "runner")]
mod run_html;
#[cfg(feature = "cli")]
mod units_table;

#[cfg(feature = "cli")]
pub use compare::compare_table;
pub use compare::{COMPARE_FORMAT, Compared, Known, compare_csv, compare_html, compare_json};
#[cfg(feature = "cli")]
pub use plan_brief::plan_brief;
pub use plan_csv::plan_csv;
#[cfg(feature = "cli")]
pub use plan_diff::diff_table;
pub use plan_diff::{Changed, DIFF_FORMAT, Freezes, PlanDiff, Side, Stretch, StretchSide, plan_diff};
pub use plan_html::plan_html;
#[cfg(feature = "cli")]
pub use plan_table::plan_table;
#[cfg(feature = "cli")]
pub use plan_table::steps_table;
#[cfg(feature = "cli")]
pub use policies_table::policies_table;
#[cfg(feature = "runner")]
pub use run_html::{RunLog, RunRecord, run_html};
#[cfg(feature = "cli")]
pub use units_table::units_table;
