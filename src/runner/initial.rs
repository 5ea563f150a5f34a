//! Starting values: those of the file, or those that a training step of it computes.

use super::engine::{Engine, evaluate};
use super::train::{RunError, Setup};
use crate::graph::{Fact, Model, Tensor, rebuild};
use crate::training::{Objective, Prepared};
use std::collections::BTreeMap;

/// Returns the model with its starting values, and those of slots.
pub(super) fn initialized(
    engine: &mut dyn Engine,
    setup: &Setup<'_>,
) -> Result<(Prepared, BTreeMap<String, Tensor>), RunError> {
    let mut prepared = setup.prepared.clone();
    let mut slots = BTreeMap::new();
    let Objective::Stage { stage, .. } = setup.objective else { return Ok((prepared, slots)) };
    let Some((model, starts)) = stage.initialization() else { return Ok((prepared, slots)) };
    let model = seeded(model, setup.seed);
    let names: Vec<&str> = model.graph.outputs().iter().map(|id| model.graph.value_name(*id)).collect();
    let values = evaluate(engine, &model, &[])?;
    for (key, output) in starts {
        let value = names.iter().position(|name| name == output).and_then(|at| values.get(at));
        let value = value.expect("invariant: bindings name outputs of the initialization");
        let Some(id) = prepared.model.graph.find(key) else { continue };
        let held = prepared.model.graph.fact(id).clone();
        let found = Fact::fixed(value.dtype(), value.shape());
        if held != found {
            let (expected, found) = (held.to_string(), found.to_string());
            return Err(RunError::Initial { name: key.clone(), expected, found });
        }
        if prepared.model.graph.value(id).initializer.is_some() {
            let graph = std::mem::take(&mut prepared.model.graph);
            prepared.model.graph = graph.with_initializer(key, value.clone());
        } else {
            slots.insert(key.clone(), value.clone());
        }
    }
    Ok((prepared, slots))
}

/// Gives random operators without a seed one that follows from the run's.
fn seeded(model: &Model, seed: u64) -> Model {
    let mut count = 0;
    let graph = rebuild(&model.graph, |b, node, inputs| {
        let random = node.op.name.starts_with("Random") || matches!(node.op.name.as_str(), "Bernoulli" | "Multinomial");
        if !random || node.attributes.get("seed").is_some() {
            return None;
        }
        count += 1;
        let mut node = node.clone();
        // A float that holds every value: seeds below 2^24.
        let own = seed.wrapping_mul(1_000_003).wrapping_add(count) & 0xff_ffff;
        node.attributes.set("seed", own as f32);
        Some(b.copy_node(&model.graph, &node, inputs))
    });
    model.with_graph(graph)
}
