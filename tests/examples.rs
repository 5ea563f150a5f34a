//! The examples that need no ONNX Runtime run.

#[path = "../examples/own_policy.rs"]
mod own_policy;
#[path = "../examples/plan.rs"]
mod plan;

#[test]
fn the_examples_of_the_planner_run() {
    plan::main().unwrap();
    own_policy::main().unwrap();
}
