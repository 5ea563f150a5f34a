//! The settings that the groups of an optimizer give each parameter.

use super::{Prepared, TrainingError};
use crate::graph::Fact;
use crate::optim::{OptimizerSpec, Parameter};
use crate::plan::spoken_for;
use std::collections::HashSet;

/// Returns the trainable parameters with their settings, in file order.
///
/// # Errors
/// A pattern of a group is no glob or matches nothing.
pub(super) fn parameters(prepared: &Prepared, optimizer: &OptimizerSpec) -> Result<Vec<Parameter>, TrainingError> {
    let graph = &prepared.model.graph;
    let mut members: Vec<HashSet<String>> = Vec::with_capacity(optimizer.groups.len());
    for group in &optimizer.groups {
        members.push(spoken_for(&prepared.units, "group", &group.parameters)?);
    }
    let parameter = |name: &str| {
        let fact = graph.find(name).map_or_else(Fact::default, |id| graph.fact(id).clone());
        let mut parameter = Parameter::new(name, fact);
        for (group, _) in optimizer.groups.iter().zip(&members).filter(|(_, members)| members.contains(name)) {
            parameter.lr_scale = group.lr_scale.unwrap_or(parameter.lr_scale);
            parameter.weight_decay = group.weight_decay.or(parameter.weight_decay);
            parameter.fallback = group.fallback.unwrap_or(parameter.fallback);
        }
        parameter
    };
    Ok(prepared.trainable().into_iter().map(parameter).collect())
}
