//! The tree from the model-local functions that nodes were inlined from.
//!
//! Whoever inlines leaves the calls in the node's metadata, outermost first, each with the name of the
//! calling node and of the function: `Block_0:Block/fc:Linear`.

use super::known::Known;
use super::{Scopes, scoped};
use crate::graph::Model;
use std::collections::{HashMap, HashSet};

/// Key of the metadata that says from which calls a node comes.
pub(super) const KEY: &str = "freeze-plan.function";

/// Returns the scopes of every node; `None` when none comes from a function.
pub(super) fn scopes(model: &Model, known: &Known<'_>) -> Option<Scopes> {
    let calls =
        |metadata: &'_ [(String, String)]| metadata.iter().find(|(key, _)| key == KEY).map(|(_, path)| path.clone());
    let found: Vec<Option<String>> = model.graph.nodes().iter().map(|node| calls(&node.metadata)).collect();
    if found.iter().all(Option::is_none) {
        return None;
    }
    let (mut classes, mut resolved) = (HashMap::new(), HashMap::new());
    let seen = HashSet::new();
    let paths = found.into_iter().map(|calls| {
        let calls = calls?;
        let path = resolved.entry(calls).or_insert_with_key(|calls| {
            let calls: Vec<(&str, &str)> = calls.split('/').filter(|call| !call.is_empty()).map(halves).collect();
            let path = scoped::resolve(calls.iter().map(|(name, _)| *name), known, &seen);
            if let Some((_, class)) = calls.last().filter(|(_, class)| !class.is_empty()) {
                let class = class.rsplit(['.', ':']).next().unwrap_or(class);
                classes.entry(path.clone()).or_insert(class.to_string());
            }
            path
        });
        Some(path.clone())
    });
    let paths = paths.collect();
    Some(Scopes::new("functions", paths, classes))
}

/// Splits a call into the name of the node and the function; a nameless call has the function's name.
fn halves(call: &str) -> (&str, &str) {
    match call.split_once(':') {
        Some(("", function)) => (function, function),
        Some((name, function)) => (name, function),
        None => (call, ""),
    }
}
