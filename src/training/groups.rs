//! The settings that the groups of an optimizer give each parameter.

use super::{Prepared, TrainingError};
use crate::graph::{Fact, Graph};
use crate::modules::Unit;
use crate::optim::{OptimizerSpec, Parameter};
use crate::plan::spoken_for;
use std::collections::{HashMap, HashSet};

/// What the learning rate of single parameters is multiplied with in a phase, by name. One that does
/// not train in the phase has no effect.
pub type Rates<'a> = HashMap<&'a str, Rate>;

/// A factor of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// The same in all steps of the phase.
    Fixed(f64),
    /// Given with each step: this element of the optimizer graph's input `lr_scale`, whose length is
    /// the largest of these in the phase and one.
    Varies(usize),
}

/// Returns the length of `lr_scale`; 0 where no rate varies.
pub(super) fn scales(rates: &Rates<'_>) -> usize {
    let length = |rate: &Rate| match rate {
        Rate::Varies(element) => element.saturating_add(1),
        Rate::Fixed(_) => 0,
    };
    rates.values().map(length).max().unwrap_or(0)
}

/// Returns the trainable parameters with their settings and rates, in file order.
///
/// # Errors
/// A pattern of a group is no glob or matches nothing.
pub(super) fn parameters(
    prepared: &Prepared,
    optimizer: &OptimizerSpec,
    rates: &Rates<'_>,
) -> Result<Vec<Parameter>, TrainingError> {
    let mut found = grouped(&prepared.model.graph, &prepared.units, &prepared.trainable(), optimizer)?;
    for parameter in &mut found {
        match rates.get(parameter.name.as_str()) {
            Some(Rate::Fixed(factor)) => parameter.lr_scale *= factor,
            Some(Rate::Varies(element)) => parameter.element = Some(*element),
            None => {}
        }
    }
    Ok(found)
}

/// Returns parameters of a graph with their settings; `units` are its leaf units.
///
/// # Errors
/// A pattern of a group is no glob or matches nothing.
pub fn grouped(
    graph: &Graph,
    units: &[Unit],
    trainable: &[&str],
    optimizer: &OptimizerSpec,
) -> Result<Vec<Parameter>, TrainingError> {
    let mut members: Vec<HashSet<String>> = Vec::with_capacity(optimizer.groups.len());
    for group in &optimizer.groups {
        members.push(spoken_for(units, "group", &group.parameters)?);
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
    Ok(trainable.iter().map(|name| parameter(name)).collect())
}
