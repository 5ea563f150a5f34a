//! A plan as comma-separated values (RFC 4180).

use crate::plan::FreezePlan;

/// Returns one row per epoch: epoch from 1, frozen units, the schedule's value in [0, 1], flops of a
/// step relative to nothing frozen, backward flops, bytes of gradients and optimizer slots, and the
/// frozen initializers with a semicolon between them. Lines end with CR LF.
pub fn plan_csv(plan: &FreezePlan) -> String {
    let mut text = String::from("epoch,frozen_units,fraction,step_cost,backward_flops,state_bytes,frozen\r\n");
    for epoch in &plan.epochs {
        let (predicted, frozen) = (&epoch.predicted, field(&epoch.frozen.join(";")));
        text += &format!("{},{},{},", epoch.epoch, epoch.frozen_units, epoch.fraction);
        text += &format!("{},{},", predicted.step_cost, predicted.backward_flops);
        text += &format!("{},{frozen}\r\n", predicted.state_bytes);
    }
    text
}

/// Returns `text` quoted where a comma, a quote or a line end asks for it.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::six_units;
    use crate::plan::{PlanOptions, build};

    #[test]
    fn one_row_per_epoch_quoted_where_needed() {
        let mut model = six_units();
        model.units[1].parameters = vec!["a,b".into(), "a\"b".into()];
        let plan = build(&model.inputs(4), &PlanOptions { freeze_start: 0.0, ..PlanOptions::default() }).unwrap();
        let expected = [
            "epoch,frozen_units,fraction,step_cost,backward_flops,state_bytes,frozen",
            "1,0,0,1,1174962176,4771136,",
            "2,1,0.25,0.8709306027396065,932511744,4695872,stem.conv.weight",
            r#"3,2,0.5,0.7461350265805506,698089472,4694848,"stem.conv.weight;a,b;a""b""#,
            r#"4,3,0.75,0.4999629311435088,235667456,4399936,"stem.conv.weight;a,b;a""b;layer1.0.conv1.weight""#,
            "",
        ];
        assert_eq!(plan_csv(&plan), expected.join("\r\n"));
    }
}
