//! Answers what the check of the page asks, by the library alone: a line `{"path": .., "request": ..}` in, the reply of
//! [`freeze_plan_web::Session`] out.

use freeze_plan::plan::PlanOptions;
use freeze_plan::planner::Planning;
use freeze_plan_web::Failure;
use serde_json::{Value, json};
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    for line in std::io::stdin().lines() {
        let case: Value = serde_json::from_str(&line?)?;
        let path = Path::new(case["path"].as_str().unwrap_or_default());
        // Messages then name the file as the page does.
        std::env::set_current_dir(path.parent().ok_or("no folder")?)?;
        let reply = match plan(path, &case["request"])? {
            Ok(text) => json!({ "ok": text }),
            Err(failure) => json!({ "error": failure }),
        };
        println!("{reply}");
    }
    Ok(())
}

fn plan(path: &Path, request: &Value) -> Result<Result<String, Failure>, Box<dyn Error>> {
    let number = |name: &str| request[name].as_u64().map(usize::try_from).transpose();
    let options: PlanOptions = serde_json::from_value(request["options"].clone())?;
    let mut planning = Planning::of_bytes(path.file_name().ok_or("no file")?, std::fs::read(path)?).options(options);
    planning = planning.epochs(number("epochs")?.unwrap_or(10)).batch(number("batch")?.unwrap_or(1));
    if let Some(slots) = request["slots"].as_u64() {
        planning = planning.slots(slots);
    }
    let shapes: Vec<(String, Vec<usize>)> =
        serde_json::from_value(request.get("shapes").cloned().unwrap_or(json!([])))?;
    for (input, shape) in &shapes {
        planning = planning.shape(input, shape);
    }
    let made = planning.open().and_then(|model| model.identified_plan());
    Ok(made.map(|plan| plan.to_json()).map_err(Failure::from))
}
