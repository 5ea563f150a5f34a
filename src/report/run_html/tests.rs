use super::*;
use crate::plan::testing::chain;
use crate::plan::{PlanOptions, Signal, build};
use crate::report::plan_html::tests::unbalanced;

fn page(events: Vec<RunEvent>) -> String {
    let plan = build(&chain(3).inputs(4), &PlanOptions::default()).unwrap();
    let timed: Vec<Timed> = events.into_iter().map(|event| Timed { event, time: 1.0 }).collect();
    let page = run_html(&plan, &timed);
    assert_eq!(unbalanced(&page), None);
    page
}

fn phase(epoch: usize, after: usize, frozen: usize, predicted_step_cost: f64) -> RunEvent {
    RunEvent::Phase {
        epoch,
        after,
        frozen,
        frozen_units: frozen,
        seconds: 0.5,
        predicted_step_cost,
        nodes: 1,
        recomputed: Vec::new(),
    }
}

fn step(step: usize, seconds: f64) -> RunEvent {
    RunEvent::Step { epoch: 1, step, loss: 0.5, lr: None, seconds, wait_seconds: 0.0 }
}

#[test]
fn a_phase_shows_measured_beside_predicted_and_its_proof() {
    let hash = "<b>0123456789abcdef".to_string();
    let proof = |from_epoch, parameters, statistics| RunEvent::Proof {
        from_epoch,
        to_epoch: from_epoch,
        parameters,
        statistics,
        sha256: hash.clone(),
    };
    let page = page(vec![
        phase(1, 0, 1, 0.8),
        step(10, 0.010),
        step(20, 0.030),
        proof(1, 1, 0),
        phase(2, 12, 2, 0.6),
        step(30, 0.010),
        proof(2, 2, 1),
    ]);
    let cells = |from: &str| {
        let row =
            page.split("<tr>").find(|row| row.starts_with(from)).unwrap_or_else(|| panic!("{from} is not in {page}"));
        row.replace("</td>", "").split("<td>").skip(1).map(String::from).collect::<Vec<_>>().join("|")
    };
    assert!(
        cells("<td>1</td>")
            .starts_with("1|1 / 1|0.50|2|20.00|30.00|100 %|100 %<td class=\"left\">1 tensor (b0123456789a)")
    );
    let second = cells("<td>2, step 13</td>");
    assert!(second.starts_with("2, step 13|2 / 2|0.50|1|10.00|10.00|50 %|75 %"), "{second}");
    assert!(second.contains("2 tensors, 1 statistic ("), "{second}");
}

#[test]
fn decisions_rollbacks_and_measurements_are_shown() {
    let signals = [(Signal::Cka, vec![Some(0.5), None, Some(0.25)])].into();
    let page = page(vec![
        phase(3, 4, 2, 0.5),
        RunEvent::Observation { step: 40, signals, seconds: 1.5 },
        RunEvent::Decision { epoch: 3, step: 40, frozen: 2, frozen_units: 1 },
        RunEvent::Rollback {
            epoch: 3,
            to_epoch: 3,
            to_step: 40,
            metric: "accuracy".into(),
            before: 0.9,
            after: None,
            delay: 2,
        },
    ]);
    for told in [
        "After step 40, from epoch 3 on: 1 unit and 2 tensors frozen.",
        "Rollback after epoch 3: eval accuracy went from 0.9000 to no finite number. Back to epoch 3, step 40; freezes \
         come 2 epochs later in all.",
        "<td class=\"left\">taken back</td>",
        "They took 1.50 s in all",
        "<td>40</td><td>2</td><td>0.2500</td><td class=\"left\">u2</td><td>0.5000</td><td>0.5000</td>\
         <td class=\"left\">u0</td>",
    ] {
        assert!(page.contains(told), "{told} is not in {page}");
    }
}

#[test]
fn a_run_that_goes_back_is_drawn_within_its_picture() {
    let page = page(vec![phase(1, 0, 0, 1.0), step(1, 0.1), step(9, 0.1), step(2, 0.1)]);
    let points = page.split("<polyline points=\"").nth(1).and_then(|text| text.split('"').next()).unwrap();
    let xs: Vec<f64> = points.split(' ').map(|point| point.split(',').next().unwrap().parse().unwrap()).collect();
    assert!(xs.iter().all(|x| (LEFT..=WIDTH).contains(x)), "{xs:?}");
}
