//! Plan files, read and written.

use super::{FORMAT, FreezePlan, PlanError};
use serde::Deserialize;
use std::collections::HashSet;
use std::path::Path;

/// Reads a plan file. Fields it does not know are ignored.
///
/// # Errors
/// The file cannot be read, is cut short, is no plan, has another format, or contradicts itself.
pub fn read(path: &Path) -> Result<FreezePlan, PlanError> {
    let text = std::fs::read_to_string(path).map_err(|source| PlanError::Read { path: path.into(), source })?;
    parse(path, &text)
}

/// Writes a plan file, one name a line.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, plan: &FreezePlan) -> Result<(), PlanError> {
    std::fs::write(path, plan.to_json()).map_err(|source| PlanError::Write { path: path.into(), source })
}

impl FreezePlan {
    /// Returns the text of the plan file, with a final newline.
    pub fn to_json(&self) -> String {
        let mut text =
            serde_json::to_string_pretty(self).expect("invariant: a plan has string keys and finite numbers");
        text.push('\n');
        text
    }
}

#[derive(Deserialize)]
struct Head {
    format: String,
}

/// Reads the text of a plan file; `path` is its name in errors.
///
/// # Errors
/// As [`read`], but for reading.
pub fn parse(path: &Path, text: &str) -> Result<FreezePlan, PlanError> {
    let json = |source: serde_json::Error| {
        if source.is_eof() {
            PlanError::Truncated { path: path.into(), line: source.line(), column: source.column() }
        } else {
            PlanError::Json { path: path.into(), source }
        }
    };
    let head: Head = serde_json::from_str(text).map_err(json)?;
    if head.format != FORMAT {
        return Err(PlanError::Format { path: path.into(), found: head.format });
    }
    let mut plan: FreezePlan = serde_json::from_str(text).map_err(json)?;
    plan.complete();
    check(&plan).map_err(|reason| PlanError::Invalid { path: path.into(), reason })?;
    Ok(plan)
}

fn check(plan: &FreezePlan) -> Result<(), String> {
    let mut known = HashSet::new();
    for (position, unit) in plan.units.iter().enumerate() {
        if unit.index != position {
            return Err(format!("unit \"{}\" has index {}, expected {position}", unit.path, unit.index));
        }
        if let Some(name) = unit.parameters.iter().find(|name| !known.insert(name.as_str())) {
            return Err(format!("parameter \"{name}\" is in two units"));
        }
    }
    if plan.epochs.is_empty() {
        return Err("it has no epochs".into());
    }
    for (position, epoch) in plan.epochs.iter().enumerate() {
        let expected = position + 1;
        if epoch.epoch != expected {
            return Err(format!("epoch {} stands where epoch {expected} is expected", epoch.epoch));
        }
        let place = format!("epoch {expected}");
        check_frozen(&place, &epoch.frozen, epoch.fraction, &known)?;
        let predicted = &epoch.predicted;
        for (name, cost) in [("step_cost", predicted.step_cost), ("cached_step_cost", predicted.cached_step_cost)] {
            if !(cost.is_finite() && cost >= 0.0) {
                return Err(format!("{place}: {name} is {cost}, expected 0 or more"));
            }
        }
        if let Some((name, scale)) = epoch.lr_scale.iter().find(|(_, scale)| !(scale.is_finite() && **scale >= 0.0)) {
            return Err(format!("{place}: lr_scale of \"{name}\" is {scale}, expected 0 or more"));
        }
    }
    check_frozen("final", &plan.last.frozen, plan.last.fraction, &known)
}

fn check_frozen(place: &str, frozen: &[String], fraction: f64, known: &HashSet<&str>) -> Result<(), String> {
    if !(0.0..=1.0).contains(&fraction) {
        return Err(format!("{place}: fraction is {fraction}, expected one in [0, 1]"));
    }
    let mut seen = HashSet::new();
    for name in frozen {
        if !known.contains(name.as_str()) {
            return Err(format!("{place}: frozen parameter \"{name}\" is in no unit"));
        }
        if !seen.insert(name) {
            return Err(format!("{place}: parameter \"{name}\" is frozen twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{chain, six_units};
    use super::super::{PlanOptions, build};
    use super::*;

    fn plan() -> FreezePlan {
        build(&six_units().inputs(7), &PlanOptions::default().with("freeze_start", 0.1)).unwrap()
    }

    #[test]
    fn a_written_plan_is_read_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        write(&path, &plan()).unwrap();
        assert_eq!(read(&path).unwrap(), plan());
        assert_eq!(read(&path).unwrap().to_json(), std::fs::read_to_string(&path).unwrap());
    }

    #[test]
    fn every_float_is_read_back_bit_for_bit() {
        for tenth in 1..2000 {
            let mut plan = plan();
            plan.summary.cost_ratio = f64::from(tenth) / 1999.0;
            assert_eq!(parse(Path::new("plan.json"), &plan.to_json()).unwrap(), plan);
        }
    }

    #[test]
    fn the_fields_stand_in_the_documented_order() {
        let made = build(&chain(1).inputs(1), &PlanOptions::default()).unwrap();
        let text = serde_json::to_string(&made).unwrap();
        let expected = concat!(
            r#"{"format":"freeze-plan/1","model":{"file":"chain.onnx","sha256":"SHA","opset":17,"#,
            r#""exporter":"pytorch 2.9.0","parameters":1,"bytes":4},"#,
            r#""units":[{"index":0,"path":"u0","class":"Gemm","parameters":["u0.weight"],"elements":1,"#,
            r#""flops":{"forward":1,"input_grad":1,"weight_grad":1},"state_bytes":8,"#,
            r#""backward":[{"from_epoch":1,"input_grad":0,"weight_grad":1}]}],"#,
            r#""policy":{"name":"linear","freeze_start":0.5,"freeze_level":1.0,"arithmetic":"composer"},"#,
            r#""assumed":{"batch":0,"inputs":{},"slots":0,"steps_per_epoch":0},"#,
            r#""epochs":[{"epoch":1,"frozen_units":0,"fraction":0.0,"frozen":[],"lr_scale":{},"#,
            r#""predicted":{"step_cost":1.0,"backward_flops":1,"state_bytes":8,"forward_flops":1,"#,
            r#""input_grad_flops":0,"weight_grad_flops":1,"gradient_bytes":4,"slot_bytes":4,"activation_bytes":1,"#,
            r#""cached_step_cost":1.0,"cut_bytes":0}}],"#,
            r#""final":{"frozen_units":0,"fraction":1.0,"frozen":[]},"#,
            r#""summary":{"cost_ratio":1.0,"ceiling":1.0,"cached_cost_ratio":1.0,"cached_ceiling":1.0,"pays":false,"#,
            r#""verdict":"This schedule cannot pay: nothing is frozen, the model has a single unit.","#,
            r#""nodes":1,"uncounted_nodes":0,"keeps_backward_alive":[],"notes":[]}}"#,
        );
        assert_eq!(text, expected.replace("SHA", &made.model.sha256));
    }

    #[test]
    fn a_file_of_an_older_writer_is_read() {
        let mut value = serde_json::to_value(plan()).unwrap();
        let mut drop = |place: &str, names: &[&str]| {
            let object = value.pointer_mut(place).unwrap().as_object_mut().unwrap();
            names.iter().for_each(|name| drop(object.remove(*name).unwrap()));
        };
        drop("", &["assumed"]);
        (0..6).for_each(|unit| drop(&format!("/units/{unit}"), &["backward"]));
        let added = [
            "forward_flops",
            "input_grad_flops",
            "weight_grad_flops",
            "gradient_bytes",
            "slot_bytes",
            "activation_bytes",
            "cached_step_cost",
            "cut_bytes",
        ];
        (0..7).for_each(|epoch| drop(&format!("/epochs/{epoch}/predicted"), &added));
        let added = ["cached_cost_ratio", "cached_ceiling", "pays", "verdict", "nodes", "uncounted_nodes"];
        drop("/summary", &added);
        let read = parse(Path::new("plan.json"), &value.to_string()).unwrap();
        assert_eq!(read.epochs[6].predicted.cached_step_cost, plan().epochs[6].predicted.step_cost);
        assert_eq!(read.summary.cached_ceiling, plan().summary.ceiling);
        assert_eq!(read.epochs[6].frozen, plan().epochs[6].frozen);
        assert_eq!((read.summary.verdict.as_str(), read.assumed.batch), ("", 0));
    }

    #[test]
    fn fields_of_a_newer_writer_are_ignored() {
        let mut value = serde_json::to_value(plan()).unwrap();
        value["later"] = true.into();
        value["model"]["later"] = true.into();
        value["epochs"][0]["later"] = true.into();
        assert_eq!(parse(Path::new("plan.json"), &value.to_string()).unwrap(), plan());
    }

    #[test]
    fn a_plan_that_contradicts_itself_is_refused() {
        struct Case {
            edit: fn(&mut FreezePlan),
            expected: &'static str,
        }
        let cases = [
            Case {
                edit: |plan| plan.format = "freeze-plan/2".into(),
                expected: "plan.json has format \"freeze-plan/2\", this program reads \"freeze-plan/1\"",
            },
            Case { edit: |plan| plan.epochs.clear(), expected: "plan.json: it has no epochs" },
            Case {
                edit: |plan| drop(plan.epochs.remove(0)),
                expected: "plan.json: epoch 2 stands where epoch 1 is expected",
            },
            Case {
                edit: |plan| plan.epochs.swap(3, 4),
                expected: "plan.json: epoch 5 stands where epoch 4 is expected",
            },
            Case {
                edit: |plan| plan.units.swap(0, 1),
                expected: "plan.json: unit \"stem.bn\" has index 1, expected 0",
            },
            Case {
                edit: |plan| plan.units[1].parameters[0] = "stem.conv.weight".into(),
                expected: "plan.json: parameter \"stem.conv.weight\" is in two units",
            },
            Case {
                edit: |plan| plan.epochs[1].frozen = vec!["fc.weight".into(), "fc.weight".into()],
                expected: "plan.json: epoch 2: parameter \"fc.weight\" is frozen twice",
            },
            Case {
                edit: |plan| plan.last.frozen = vec!["fc.wait".into()],
                expected: "plan.json: final: frozen parameter \"fc.wait\" is in no unit",
            },
            Case {
                edit: |plan| plan.epochs[0].fraction = 1.5,
                expected: "plan.json: epoch 1: fraction is 1.5, expected one in [0, 1]",
            },
        ];
        for Case { edit, expected } in cases {
            let mut plan = plan();
            edit(&mut plan);
            assert_eq!(parse(Path::new("plan.json"), &plan.to_json()).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_damaged_file_says_where() {
        let text = plan().to_json();
        let error = |text: &str| {
            let error = parse(Path::new("plan.json"), text).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::BadInput);
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            format!("{error}{source}")
        };
        assert_eq!(error(&text[..40]), "plan.json ends too early, at line 3 column 9");
        assert_eq!(error(""), "plan.json ends too early, at line 1 column 0");
        assert_eq!(error("{}"), "plan.json is no plan file: missing field `format` at line 1 column 2");
        let head = "plan.json is no plan file: missing field `model` at line 1 column 26";
        assert_eq!(error(r#"{"format":"freeze-plan/1"}"#), head);
        let text = read(Path::new("no/such/plan.json")).unwrap_err().to_string();
        assert_eq!(text, "cannot read no/such/plan.json");
    }
}
