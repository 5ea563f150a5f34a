#[cfg(feature = "cli")]
use super::numbers::resampled;
use super::*;
use crate::plan::testing::{Chain, chain, six_units};
use crate::plan::{PlanOptions, build};
use crate::report::plan_html::tests::unbalanced;

fn compared(model: &Chain, epochs: usize, options: &PlanOptions, label: &str) -> Compared {
    let plan = build(&model.inputs(epochs), options).unwrap();
    Compared { label: label.into(), plan, known: Known::Ahead }
}

fn four() -> Vec<Compared> {
    let model = Chain { alive: Some("stem.bn.bias"), ..six_units() };
    let early = PlanOptions::default().with("freeze_start", 0.1);
    let keep = PlanOptions { keep: vec!["stem.bn.bias".into()], ..early.clone() };
    let gradient = compared(&model, 12, &PlanOptions::of("gradient"), "gradient");
    vec![
        compared(&model, 12, &early, "linear:freeze_start=0.1"),
        compared(&model, 12, &keep, "linear:freeze_start=0.1"),
        Compared { known: Known::Measured, ..gradient },
        compared(&model, 12, &PlanOptions::of("none"), "none"),
    ]
}

#[cfg(feature = "cli")]
#[test]
fn the_table_of_a_small_model() {
    let expected = r#"
small.onnx: 596,392 parameters, 4 plans compared over 12 epochs

#  policy    frozen  first   saved  cached  ceiling     kept  grad+opt
1  linear       4/6      5  25.1 %  36.6 %    1.34x  1.83 MB   4.11 MB
2  linear       3/6      5  14.8 %  22.1 %    1.17x  5.04 MB   4.11 MB
3  gradient       ?      ?       ?       ?        ?        ?         ?
4  none         0/6  never   0.0 %   0.0 %    1.00x   703 MB   4.77 MB

frozen share of the units, one character an epoch, from . none to █ all:
1  linear:freeze_start=0.1  ....▁▁▃▃▄▄▅▅
2  linear:freeze_start=0.1  ....▁▁▁▁▃▃▄▄
3  gradient                 decides by what the run measures
4  none                     ............

1, 2: stem.bn.bias keeps the backward pass alive below frozen parts
3: decides by what the run measures: what it freezes is not known ahead
frozen: units at the end. first: epoch of the first freeze, +N where N steps of
  it come before. saved: of the flops of a run with nothing frozen; cached: the
  same with a cached prefix. ceiling: the speedup if nothing else took time.
  kept, grad+opt: the lowest bytes of a step at the sizes of the file, for the
  backward pass and for gradients and optimizer slots.
"#;
    let found = compare_table(&four());
    assert_eq!(found, expected.trim_start_matches('\n'), "found\n{found}");
}

#[cfg(feature = "cli")]
#[test]
fn no_line_is_wider_than_the_terminal() {
    let mut plans = four();
    for (index, compared) in plans.iter_mut().enumerate() {
        compared.label = "folder/of/runs/".repeat(9) + "plan.json \u{1b}[2J";
        compared.plan.policy.name = "a-policy-with-a-long-name".repeat(3);
        compared.plan.model.file = "a".repeat(70) + ".onnx";
        compared.plan.summary.keeps_backward_alive = vec!["encoder.layers.".repeat(12)];
        compared.plan.assumed.batch = 1000 + index;
    }
    for epochs in [12, 900] {
        plans.push(compared(&chain(160), epochs, &PlanOptions::default(), "long"));
    }
    for line in compare_table(&plans).lines() {
        assert!(line.chars().count() <= 80, "{line}");
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
}

#[cfg(feature = "cli")]
#[test]
fn many_epochs_are_means_over_columns() {
    let values: Vec<f64> = (0..10).map(f64::from).collect();
    assert_eq!(resampled(&values, 10, 20), values);
    assert_eq!(resampled(&values, 10, 5), [0.5, 2.5, 4.5, 6.5, 8.5]);
    let thirds = resampled(&values, 10, 3);
    let expected = [(0.0 + 1.0 + 2.0 + 1.0) / (10.0 / 3.0), 4.5, (2.0 + 7.0 + 8.0 + 9.0) / (10.0 / 3.0)];
    let expected = [expected[0], expected[1], expected[2]];
    for (found, expected) in thirds.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-9, "{thirds:?}");
    }
    assert_eq!(resampled(&values[..4], 10, 5), [0.5, 2.5], "a shorter plan ends earlier");
}

#[test]
fn means_are_over_the_steps_of_an_epoch() {
    let model = chain(4);
    let mut inputs = model.inputs(4);
    inputs.steps_per_epoch = 10;
    let plan = build(&inputs, &PlanOptions::of("svcca-linear")).unwrap();
    let within = build(
        &inputs,
        &PlanOptions::of("steps").with("steps", serde_json::json!([{"epoch": 2, "step": 5, "frozen": 2}])),
    )
    .unwrap();
    assert_eq!(within.epochs[1].changes.len(), 1, "{:?}", plan.epochs);
    let numbers = numbers::Numbers::of(&within);
    assert_eq!((numbers.first, numbers.frozen), (Some(crate::plan::Point { epoch: 2, after: 5 }), 2));
    assert_eq!(numbers.shares, [0.0, 0.25, 0.5, 0.5]);
    let csv = compare_csv(&[Compared { label: "a,b".into(), plan: within, known: Known::Ahead }]);
    assert!(csv.lines().nth(2).unwrap().starts_with("1,\"a,b\",steps,ahead,2,2,4,0.25,"), "{csv}");
    assert_eq!(csv.lines().count(), 5);
}

#[test]
fn pages_are_well_formed_and_fetch_nothing() {
    let hostile = "<script>alert(\"&'\")</script>\u{1b}";
    let mut named = four();
    for compared in &mut named {
        compared.label = hostile.into();
        compared.plan.model.file = hostile.into();
        compared.plan.summary.keeps_backward_alive = vec![hostile.into()];
        compared.plan.assumed.inputs.insert(hostile.into(), vec![1]);
    }
    let no_unit = vec![compared(&chain(0), 1, &PlanOptions::default(), "none"); 2];
    let large = vec![compared(&chain(160), 300, &PlanOptions::default().with("freeze_start", 0.0), "linear"); 8];
    for (name, plans) in [("four", four()), ("hostile", named), ("no unit", no_unit), ("large", large)] {
        let page = compare_html(&plans);
        assert_eq!(unbalanced(&page), None, "{name}");
        for forbidden in ["<script", "http", "src=", "href=", "url(", "@import", "NaN", "inf%", "\u{1b}"] {
            assert!(!page.contains(forbidden), "{name}: {forbidden}");
        }
        assert!(page.len() < 500_000, "{name}: {} bytes", page.len());
    }
}

#[test]
fn what_is_not_known_ahead_is_said_and_not_drawn() {
    let page = compare_html(&four());
    assert!(page.contains("decides by what the run measures") && page.contains("not known ahead"), "{page}");
    assert_eq!(page.matches("class=\"units\"").count(), 3);
    assert_eq!(page.matches("<b class=\"end\"").count() % 3, 0);
}

#[test]
fn json_holds_the_plan_files() {
    let value: serde_json::Value = serde_json::from_str(&compare_json(&four())).unwrap();
    assert_eq!(value["format"], "freeze-plan-compare/1");
    let plans: Vec<crate::plan::FreezePlan> = serde_json::from_value(value["plans"].clone()).unwrap();
    let expected: Vec<_> = four().into_iter().map(|compared| compared.plan).collect();
    assert_eq!(plans, expected);
}
