use super::*;
use crate::plan::testing::six_units;
use crate::plan::{Inputs, PlanOptions, build};

fn side(label: &str, epochs: usize, options: PlanOptions) -> Side {
    let model = six_units();
    let inputs: Inputs<'_> = model.inputs(epochs);
    Side { label: label.into(), plan: build(&inputs, &options).unwrap(), settings: None }
}

fn linear(start: f64) -> PlanOptions {
    PlanOptions::default().with("freeze_start", start)
}

#[test]
fn a_plan_does_not_differ_from_itself() {
    let (a, b) = (side("a.json", 12, linear(0.1)), side("b.json", 12, linear(0.1)));
    let diff = plan_diff(&a, &b);
    assert!(diff.same);
    assert_eq!(diff_table(&diff), "a: a.json\nb: b.json\n\nnothing differs\n");
    for list in ["model", "policy", "assumed", "units", "summary", "freezes", "epochs", "job"] {
        assert_eq!(serde_json::to_value(&diff).unwrap()[list], serde_json::json!([]), "{list}");
    }
}

#[test]
fn what_freezes_earlier_later_and_never_is_told() {
    let keep = vec!["stem.conv".to_string()];
    let (a, b) = (side("a", 12, linear(0.1)), side("b", 12, PlanOptions { keep, ..linear(0.3) }));
    let diff = plan_diff(&a, &b);
    let changes: Vec<(&str, &str, &str, &str)> = diff
        .freezes
        .iter()
        .map(|row| (row.unit.as_deref().unwrap_or_default(), row.a.as_str(), row.b.as_str(), row.change))
        .collect();
    let first = |plan: &FreezePlan, name: &str| {
        plan.epochs.iter().find(|epoch| epoch.frozen.iter().any(|frozen| frozen == name)).map(|epoch| epoch.epoch)
    };
    assert_eq!(first(&b.plan, "stem.conv.weight"), None);
    let from = first(&a.plan, "stem.conv.weight").unwrap();
    assert!(changes.contains(&("stem.conv", format!("{from}-12").as_str(), "", "never")), "{changes:?}");
    let name = "layer1.0.conv1.weight";
    let (before, after) = (first(&a.plan, name).unwrap(), first(&b.plan, name).unwrap());
    assert!(after > before);
    let expected = ("layer1.0.conv1", format!("{before}-12"), format!("{after}-12"));
    assert!(changes.contains(&(expected.0, &expected.1, &expected.2, "later")), "{changes:?}");
    let back: Vec<&str> = plan_diff(&b, &a).freezes.iter().map(|row| row.change).collect();
    assert!(back.contains(&"too") && back.contains(&"earlier") && !back.contains(&"later"), "{back:?}");
    let policy: Vec<&str> = diff.policy.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(policy, ["freeze_start"]);
    assert!(diff.summary.iter().any(|row| row.name == "cost_ratio" && row.b.as_f64() > row.a.as_f64()));
    assert!(!diff.same && diff.model.is_empty() && diff.units.is_empty());
}

#[test]
fn units_lengths_and_settings_differ_by_name() {
    let mut a = side("a", 4, linear(0.1));
    let mut b = side("b", 6, linear(0.1));
    b.plan.units.remove(5);
    b.plan.units[4].parameters.push("extra".into());
    b.plan.model.sha256 = "0".repeat(64);
    let setting =
        |value: &str| Some(BTreeMap::from([("run.seed".to_string(), value.to_string()), ("x".into(), "1".into())]));
    (a.settings, b.settings) = (setting("0"), setting("1"));
    let diff = plan_diff(&a, &b);
    let names = |rows: &[Changed]| rows.iter().map(|row| row.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&diff.model), ["sha256"]);
    assert_eq!(names(&diff.job), ["run.seed"]);
    assert_eq!(names(&diff.units), ["layer1.0.bn2", "fc"]);
    assert_eq!(diff.units[1].b, Value::Null);
    assert_eq!(diff.summary[0], Changed { name: "epochs".into(), a: 4.into(), b: 6.into() });
    let last = diff.epochs.last().unwrap();
    assert_eq!((last.to_epoch, last.a.is_none(), last.b.is_some()), (6, true, true));
    for line in diff_table(&diff).lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn within_an_epoch_steps_are_told() {
    let mut a = side("a", 3, linear(0.9));
    let b = a.clone();
    let mut change = a.plan.epochs[1].clone();
    (change.after, change.frozen, change.frozen_units) = (20, vec!["stem.conv.weight".into()], 1);
    a.plan.epochs[1].changes.push(change);
    let rows = plan_diff(&a, &b).freezes;
    assert_eq!((rows[0].a.as_str(), rows[0].b.as_str(), rows[0].change), ("2+20-2", "", "never"));
    assert_eq!((rows[0].whole, rows.len()), (true, 1));
}
