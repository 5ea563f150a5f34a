//! Exponential moving averages as one graph.
//!
//! `a = a + weight (p - a)` for each of the given tensors, as `torch.lerp`. Inputs `weight` (a float32 scalar),
//! `p0`, `a0`, `p1`, `a1`, ..; outputs `n0`, `n1`, .., which may be the memory of `a0`, `a1`, ...

use super::{TrainingError, check_in_place};
use crate::graph::{Builder, DType, Fact, Model, Origin, check};

/// Input: what an average takes of the new value, in (0, 1].
pub const WEIGHT: &str = "weight";

/// Returns the names of the value, its average and its next average at a position.
pub fn ports(position: usize) -> [String; 3] {
    ["p", "a", "n"].map(|kind| format!("{kind}{position}"))
}

/// Builds the graph of tensors of these facts.
///
/// # Errors
/// A graph that is inconsistent, which is a fault of this program.
pub fn average(facts: &[Fact]) -> Result<Model, TrainingError> {
    let mut b = Builder::new("average");
    let weight = b.input(WEIGHT, Fact::fixed(DType::F32, &[]));
    let mut pairs = Vec::with_capacity(facts.len());
    for (position, fact) in facts.iter().enumerate() {
        let [value, average, next] = ports(position);
        b.enter(Origin::Update(value.clone()), &value);
        let (new, old) = (b.input(&value, fact.clone()), b.input(&average, fact.clone()));
        let dtype = b.dtype(new);
        let share = if dtype == DType::F32 { weight } else { b.cast(weight, dtype) };
        let way = b.sub(new, old);
        let part = b.mul(way, share);
        let moved = b.add(old, part);
        b.refine(moved, fact);
        b.output(moved, &next);
        pairs.push((average, next));
    }
    let graph = b.finish();
    check(&graph).map_err(|source| TrainingError::Check { graph: "average", source })?;
    check_in_place(&graph, &pairs)?;
    Ok(Model { graph, opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() })
}
