//! What the page asks.

use freeze_plan::planner::PlanRequest;
use serde::{Deserialize, Serialize};

/// A question.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// The policies and their settings.
    Policies,
    /// Nothing: forget the model.
    Close,
    /// The model that was kept, under this name; answered with the pieces of other files that are worth reading.
    Open(String),
    /// The bytes that were kept, as a piece of another file.
    Piece(Piece),
    /// The model, with the pieces that were given; answered with its inputs.
    Read,
    /// The page of a plan.
    Page(PlanRequest),
    /// The text of a plan file.
    File(PlanRequest),
}

/// Where data of a tensor lie in another file, in bytes.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
pub struct Piece {
    /// The file, relative to the model.
    pub file: String,
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}
