//! Fresh weights.

use super::draw::draw;
use super::fan::Reader;
use super::law::{FALLBACK, law};
use super::{InitialError, selected, set, tensor};
use crate::training::Prepared;
use std::collections::BTreeMap;

/// What was drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drawn {
    /// Tensors of each class that a rule knows.
    pub classes: BTreeMap<&'static str, usize>,
    /// Tensors that no rule knows and that were drawn by the fallback.
    pub by_fallback: Vec<String>,
    /// Tensors that keep their value.
    pub kept: Vec<String>,
}

/// Replaces the parameters and running statistics that `only` speaks for (all with no pattern) by fresh ones. Each
/// follows from the seed and its name.
///
/// # Errors
/// A pattern is no glob or matches nothing.
pub fn fresh(prepared: &mut Prepared, seed: u64, only: &[String]) -> Result<Drawn, InitialError> {
    let names = selected(prepared, only)?;
    let reader = Reader::new(prepared);
    let mut drawn = Drawn::default();
    let mut values = Vec::with_capacity(names.len());
    for name in names {
        let held = prepared.model.graph.find(&name).and_then(|id| prepared.model.graph.value(id).initializer.clone());
        let Some(held) = held else { continue };
        let found = law(&reader, &name);
        let made = found.law.and_then(|law| tensor(held.dtype(), held.shape(), draw(law, held.len(), seed, &name)));
        match made {
            None => {
                drawn.kept.push(name);
                continue;
            }
            Some(tensor) => values.push((name.clone(), tensor)),
        }
        match found.class {
            FALLBACK => drawn.by_fallback.push(name),
            class => *drawn.classes.entry(class).or_default() += 1,
        }
    }
    set(prepared, values);
    Ok(drawn)
}
