//! The numbers and sentences of a prediction, without a clock.

use super::*;

const STEP: StepSeconds = StepSeconds { data: 0.001, forward: 0.003, backward: 0.008, update: 0.001, rest: 0.0 };
const MEASURED: Measured = Measured { step: STEP, first_phase: 0.3, frozen_phase: 0.1, ahead: (0.0, 0.0) };

fn cost(backward: f64, trained: f64) -> Relative {
    Relative { backward, trained, forward: 1.0 }
}

fn stretch(steps: usize, backward: f64, trained: f64, builds: bool) -> Stretch {
    Stretch { steps, cost: cost(backward, trained), builds }
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
}

#[test]
fn a_step_costs_less_by_its_backward_pass_and_its_update_alone() {
    close(STEP.total(), 0.013);
    close(STEP.of(Relative::FIRST), 0.013);
    close(STEP.of(cost(0.5, 0.25)), 0.001 + 0.003 + 0.004 + 0.00025);
    close(STEP.of(cost(0.0, 0.0)), 0.004);
    close(STEP.share(), 9.0 / 13.0);
    assert_eq!(StepSeconds::default().share(), 0.0);
}

#[test]
fn a_run_is_the_sum_of_its_stretches_and_changes() {
    let plan = [stretch(100, 1.0, 1.0, false), stretch(50, 0.5, 0.5, true), stretch(50, 0.0, 0.0, true)];
    let found = MEASURED.predict(Relative::FIRST, &plan);
    close(found.without, 200.0 * 0.013);
    close(found.steps, 100.0 * 0.013 + 50.0 * 0.0085 + 50.0 * 0.004);
    assert_eq!(found.changes, 2);
    close(found.change_seconds, 0.2 + 0.1);
    close(found.steps_gain(), (2.6 - 1.925) / 2.6);
    close(found.gain(), (2.6 - 1.925 - 0.3) / 2.6);
}

#[test]
fn what_is_made_ahead_costs_no_change_where_the_phase_before_is_long_enough() {
    let measured = Measured { ahead: (0.25, 0.08), ..MEASURED };
    let plan = [stretch(100, 1.0, 1.0, false), stretch(10, 0.5, 0.5, true), stretch(50, 0.0, 0.0, true)];
    // Of 0.2 s the last 0.035 s; of 0.1 s all but the 0.08 s that fit into 0.085 s; then the same with shorter steps.
    close(measured.predict(Relative::FIRST, &plan).change_seconds, 0.035 + 0.02);
    let plan = [stretch(10, 1.0, 1.0, false), stretch(5, 0.5, 0.5, true), stretch(50, 0.0, 0.0, true)];
    close(measured.predict(Relative::FIRST, &plan).change_seconds, (0.2 - 0.13) + (0.1 - 0.0425));
}

#[test]
fn a_first_phase_with_something_frozen_is_compared_with_nothing_frozen() {
    let found = MEASURED.predict(cost(2.0, 4.0), &[stretch(10, 1.0, 1.0, false)]);
    close(found.without, 10.0 * (0.001 + 0.003 + 0.016 + 0.004));
    close(found.steps, 0.13);
    assert_eq!((found.changes, found.change_seconds), (0, 0.0));
    let none = MEASURED.predict(Relative::FIRST, &[]);
    assert_eq!((none.gain(), none.steps_gain()), (0.0, 0.0));
}

#[test]
fn phases_that_come_back_cost_no_change() {
    let plan = [stretch(10, 1.0, 1.0, false), stretch(10, 0.5, 0.5, true), stretch(10, 1.0, 1.0, false)];
    let found = MEASURED.predict(Relative::FIRST, &plan);
    assert_eq!(found.changes, 1);
    close(found.change_seconds, 0.2);
}

#[test]
fn medians_are_those_of_statistics() {
    assert_eq!(median(&[]), 0.0);
    assert_eq!(median(&[3.0]), 3.0);
    assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
    assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), 3.0);
}

fn why(prediction: Prediction, step: StepSeconds) -> Why<'static> {
    Why { prediction, step, flops_gain: 0.2, alive: None, first_freeze: (6, 10), best: 0.4 }
}

#[test]
fn the_reason_of_a_poor_gain_is_named() {
    let prediction = |without, steps, changes, change_seconds| Prediction { without, steps, changes, change_seconds };
    assert_eq!(why(prediction(10.0, 8.0, 3, 0.5), STEP).reason(), None);
    let expected = "3 phase changes cost 2.50 s, more than the 2.00 s that its steps save";
    assert_eq!(why(prediction(10.0, 8.0, 3, 2.5), STEP).reason().as_deref(), Some(expected));
    let expected = "1 phase change costs 1.90 s, most of the 2.00 s that its steps save";
    assert_eq!(why(prediction(10.0, 8.0, 1, 1.9), STEP).reason().as_deref(), Some(expected));
    let poor = prediction(10.0, 9.9, 1, 0.0);
    let alive = Why { alive: Some("parameter \"pos_embed\" keeps"), ..why(poor, STEP) };
    assert_eq!(alive.reason().as_deref(), Some("parameter \"pos_embed\" keeps the backward pass alive"));
    assert_eq!(why(poor, STEP).reason().as_deref(), Some("the first freeze comes in epoch 6 of 10"));
    let slow = StepSeconds { data: 0.09, forward: 0.005, backward: 0.002, update: 0.002, rest: 0.001 };
    let data = Why { best: 0.01, ..why(poor, slow) };
    let expected = "the backward pass is 2.0 % of a step, making the batch 90 %";
    assert_eq!(data.reason().as_deref(), Some(expected));
    let update = StepSeconds { data: 0.001, update: 0.091, ..slow };
    let expected = "the backward pass is 2.0 % of a step, the update 91 %";
    assert_eq!(Why { best: 0.01, ..why(poor, update) }.reason().as_deref(), Some(expected));
    let little = Why { best: 0.01, flops_gain: 0.01, ..why(poor, STEP) };
    assert_eq!(little.reason().as_deref(), Some("what it freezes costs little"));
}

fn found() -> Ceiling {
    Ceiling {
        measured_steps: 5,
        check_seconds: 0.31,
        step_seconds: 0.0123,
        parts: StepSeconds { data: 0.0004, forward: 0.0031, backward: 0.0079, update: 0.0009, rest: 0.0 },
        share: 0.715,
        seconds_without: 22.1,
        seconds_with: 19.8,
        changes: 11,
        change_seconds: 0.8,
        gain: 0.104,
        steps_gain: 0.14,
        flops_gain: 0.22,
        uncounted_nodes: 0,
        upper_bound: false,
        reason: None,
        alive: None,
    }
}

#[test]
fn sentences_say_what_a_step_takes_and_what_is_saved() {
    let step = "a step takes 12.3 ms: data 0.40, forward 3.10, backward 7.90, update 0.90 (checked in 0.31 s)";
    let saves = "this schedule saves at most 14 % of the 22.1 s of the steps (22 % of the flops): 3.09 s, less 0.80 s \
                 for 11 phase changes, 10 % in all";
    assert_eq!(found().sentences(), [step, saves]);
    let one = Ceiling { changes: 0, change_seconds: 0.0, uncounted_nodes: 1, ..found() };
    let saves = "a partial estimate, 1 node has no count: this schedule saves at most 14 % of the 22.1 s of the steps \
                 (22 % of the flops): 3.09 s";
    assert_eq!(one.sentences(), [step, saves]);
    let alive = Ceiling {
        alive: Some("parameter \"pos_embed\" keeps".into()),
        reason: Some("parameter \"pos_embed\" keeps the backward pass alive".into()),
        steps_gain: 0.011,
        flops_gain: 0.03,
        gain: -0.025,
        ..found()
    };
    let expected = [
        step,
        "this schedule cannot save more than 1.1 % of the 22.1 s of the steps here because parameter \"pos_embed\" \
         keeps the backward pass alive (3.0 % of the flops), less 0.80 s for 11 phase changes, -2.5 % in all",
        "this schedule is not worth it here: parameter \"pos_embed\" keeps the backward pass alive",
    ];
    assert_eq!(alive.sentences(), expected);
    let adaptive = Ceiling { upper_bound: true, ..found() };
    let expected = "this policy decides by what the run measures: were all units but the last frozen from its first \
                    decision on, that would save 10 % of the 22.1 s of the steps; it cannot save more";
    assert_eq!(adaptive.sentences()[1], expected);
    let parts = StepSeconds { backward: 2.0, rest: 1.0, ..StepSeconds::default() };
    let slow = Ceiling { step_seconds: 3.0, parts, ..found() };
    let expected = "a step takes 3.00 s: data 0.000, forward 0.000, backward 2.00, update 0.000, rest 1.00 (checked in \
                    0.31 s)";
    assert_eq!(slow.sentences()[0], expected);
}

#[test]
fn events_come_back_from_their_lines() {
    use crate::runner::{RunEvent, Timed};
    let speed = RunEvent::Speed {
        epoch: 3,
        after: 2,
        steps: 40,
        predicted_seconds: 0.01,
        median_seconds: 0.012,
        predicted_change_seconds: 0.3,
        change_seconds: 0.25,
    };
    let gain = RunEvent::Gain {
        predicted: 0.12,
        predicted_steps: 0.14,
        steps: 0.1,
        gain: 0.07,
        seconds_without: 10.0,
        seconds_with: 9.3,
        change_seconds: 0.3,
    };
    let reason = Ceiling { reason: Some("late".into()), upper_bound: true, uncounted_nodes: 2, ..found() };
    for event in [RunEvent::Ceiling(found()), RunEvent::Ceiling(reason), speed, gain] {
        let line = serde_json::to_string(&Timed { event: event.clone(), time: 1.5 }).unwrap();
        let back: Timed = serde_json::from_str(&line).unwrap();
        assert_eq!(back.event, event, "{line}");
    }
    let line = serde_json::to_string(&RunEvent::Ceiling(found())).unwrap();
    assert!(line.starts_with("{\"event\":\"ceiling\",\"measured_steps\":5,") && !line.contains("reason"), "{line}");
}
