//! Plans a run and reads the plan: which parameters are frozen in which epoch, and what that saves.
//!
//! ```console
//! $ cargo run --example plan
//! ```
//!
//! Needs no ONNX Runtime: `freeze-plan = { version = "0.1", default-features = false }` is enough.

use std::error::Error;

pub fn main() -> Result<(), Box<dyn Error>> {
    // The schedule of Composer's LayerFreezing over ten epochs: freezing starts after a quarter of the run.
    // Other policies have other settings; `freeze-plan policies` lists them.
    let model = freeze_plan::plan("fixtures/digits/model.onnx")
        .epochs(10)
        .batch(64)
        .policy("linear")
        .with("freeze_start", 0.25)
        .open()?;

    // What is frozen as one is a unit, here a leaf module. Units are in order from the input side.
    for (unit, cost) in model.units().iter().zip(model.costs()) {
        println!("{:<13} {:<18} {:>5} parameters  {}", unit.path, unit.class, cost.elements, unit.parameters.join(" "));
    }

    // The plan is plain data. What is frozen in an epoch is named as the ONNX file names its initializers.
    let plan = model.plan()?;
    for epoch in &plan.epochs {
        println!(
            "epoch {:>2}: {:>2} units frozen, {:>2} parameters, a step costs {:>5.1} % of a full one",
            epoch.epoch,
            epoch.frozen_units,
            epoch.frozen.len(),
            100.0 * epoch.predicted.step_cost,
        );
    }
    println!("{}", plan.summary.verdict);

    // The plan file says the same to other programs.
    let path = std::env::temp_dir().join("freeze-plan-example.json");
    model.write(&plan, &path)?;
    println!("the plan file: {}", path.display());
    Ok(())
}
