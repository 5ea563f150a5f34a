//! A plan as comma-separated values (RFC 4180).

use crate::plan::{EpochPlan, FreezePlan};

/// Returns one row per epoch, and one more for each change within it: epoch from 1, frozen units, the schedule's value in [0, 1], flops of a
/// step relative to nothing frozen, backward flops, bytes of gradients and optimizer slots, the
/// frozen initializers with a semicolon between them, and the further numbers of
/// [`Predicted`](crate::plan::Predicted) under their names, then the steps of the epoch that come before, the statistics
/// that stay, the outputs of Dropout that pass their input on, and the factors on learning rates as `name=factor`, each
/// with a semicolon between them. Where steps were measured, predicted seconds of a step and of its parts follow. Lines end
/// with CR LF.
pub fn plan_csv(plan: &FreezePlan) -> String {
    let mut text = String::from(
        "epoch,frozen_units,fraction,step_cost,backward_flops,state_bytes,frozen,forward_flops,input_grad_flops,\
         weight_grad_flops,gradient_bytes,slot_bytes,activation_bytes,cached_step_cost,cut_bytes,after,\
         statistics,dropout_off,lr_scale",
    );
    let measured = plan.summary.measured.is_some();
    text += if measured { ",step_seconds,forward_seconds,backward_seconds,update_seconds\r\n" } else { "\r\n" };
    for epoch in plan.epochs.iter().flat_map(EpochPlan::stretches) {
        let (predicted, frozen) = (&epoch.predicted, field(&epoch.frozen.join(";")));
        text += &format!("{},{},{},", epoch.epoch, epoch.frozen_units, epoch.fraction);
        text += &format!("{},{},", predicted.step_cost, predicted.backward_flops);
        text += &format!("{},{frozen},{},", predicted.state_bytes, predicted.forward_flops);
        text += &format!("{},{},", predicted.input_grad_flops, predicted.weight_grad_flops);
        text += &format!("{},{},", predicted.gradient_bytes, predicted.slot_bytes);
        text += &format!("{},{},", predicted.activation_bytes, predicted.cached_step_cost);
        let factors: Vec<String> = epoch.lr_scale.iter().map(|(name, factor)| format!("{name}={factor}")).collect();
        text += &format!("{},{},{},", predicted.cut_bytes, epoch.after, field(&epoch.statistics.join(";")));
        text += &format!("{},{}", field(&epoch.dropout_off.join(";")), field(&factors.join(";")));
        if let Some(step) = predicted.seconds.filter(|_| measured) {
            text += &format!(",{},{},{},{}", step.total(), step.forward, step.backward, step.update);
        }
        text += "\r\n";
    }
    text
}

/// Returns `text` quoted where a comma, a quote or a line end asks for it.
pub(super) fn field(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::six_units;
    use crate::plan::{PlanOptions, build};

    #[test]
    fn one_row_per_stretch_quoted_where_needed() {
        let mut model = six_units();
        model.units[1].parameters = vec!["a,b".into(), "a\"b".into()];
        let mut plan = build(&model.inputs(4), &PlanOptions::default().with("freeze_start", 0.0)).unwrap();
        plan.epochs[2].lr_scale = [("u".to_string(), 0.5), ("v".to_string(), 2.0)].into();
        plan.epochs[3].changes.push(EpochPlan {
            epoch: 4,
            after: 7,
            frozen_units: 0,
            fraction: 0.0,
            frozen: Vec::new(),
            statistics: vec!["bn.mean".into(), "bn.var".into()],
            dropout_off: vec!["drop.out".into()],
            lr_scale: Default::default(),
            predicted: Default::default(),
            changes: Vec::new(),
        });
        let expected = [
            "epoch,frozen_units,fraction,step_cost,backward_flops,state_bytes,frozen,forward_flops,input_grad_flops,\
             weight_grad_flops,gradient_bytes,slot_bytes,activation_bytes,cached_step_cost,cut_bytes,after,\
             statistics,dropout_off,lr_scale",
            "1,0,0,1,1174962176,4771136,,703488000,471474176,703488000,2385568,2385568,703488000,1,0,0,,,",
            "2,1,0.25,0.8709306027396065,932511744,4695872,stem.conv.weight,703488000,465051648,467460096,2347936,\
             2347936,467460096,0.8709306027396065,236027904,0,,,",
            "3,2,0.5,0.7461350265805506,698089472,4694848,\"stem.conv.weight;a,b;a\"\"b\",703488000,233840640,464248832,\
             2347424,2347424,464248832,0.6204846862012272,3211264,0,,,u=0.5;v=2",
            "4,3,0.75,0.4999629311435088,235667456,4399936,\"stem.conv.weight;a,b;a\"\"b;layer1.0.conv1.weight\",\
             703488000,2629632,233037824,2199968,2199968,233037824,0.37260306232365037,231211008,0,,,",
            "4,0,0,0,0,0,,0,0,0,0,0,0,0,0,7,bn.mean;bn.var,drop.out,",
            "",
        ];
        assert_eq!(plan_csv(&plan), expected.join("\r\n"));
    }
}
