//! What a Python program asks for, as JSON.

use crate::failure::Failure;
use crate::model::Source;
use freeze_plan::planner::PlanRequest;

/// Reads a request.
pub fn read(text: &str) -> Result<PlanRequest, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::usage(error.to_string()))
}

/// Returns the text of the plan file, as `freeze-plan MODEL --format json` writes it.
pub fn plan(request: &PlanRequest, source: Source) -> Result<String, Failure> {
    Ok(request.of(source.planning())?.open()?.identified_plan()?.to_json())
}

/// Returns the modules of the model as JSON.
pub fn tree(request: &PlanRequest, source: Source) -> Result<String, Failure> {
    let options = request.options()?;
    let loaded = source.load()?.with_roles(&options.parameter, &options.buffer)?;
    Ok(crate::owners::told(&loaded.analysis).to_string())
}
