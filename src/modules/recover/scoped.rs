//! The tree from node names that are paths: `/layer1/layer1.0/conv1/Conv`.
//!
//! PyTorch's TorchScript exporter writes one part for each module that was called, and the operator
//! last. The child of a container is written with the container's own part before it
//! (`layer1/layer1.0`), any other child by its attribute name alone. Three things blur that, and
//! the paths known from dotted initializer names decide: a second call of a module has `_1` behind
//! it; the child of a `ModuleDict` is written without the dictionary; a `ModuleList` is never
//! called, so its child stands alone (`blocks.0`).

use super::Scopes;
use super::known::Known;
use crate::graph::Model;
use crate::modules::names::{parent, without_number};
use std::collections::{HashMap, HashSet};

/// Returns the scopes of every node; `None` when at most half of the nodes that compute have a path with
/// a slash in front as their name.
pub(super) fn scopes(model: &Model, known: &Known<'_>) -> Option<Scopes> {
    let nodes = model.graph.nodes();
    let computing = || nodes.iter().filter(|node| !node.op.is("Constant") && !node.op.is("Identity"));
    let is_path = |name: &str| name.starts_with('/') || !known.is_empty() && name.contains('/');
    if computing().filter(|node| is_path(&node.name)).count() * 2 <= computing().count() {
        return None;
    }
    let (mut seen, mut resolved) = (HashSet::new(), HashMap::new());
    let mut found = Vec::with_capacity(nodes.len());
    for node in nodes {
        let Some((scope, _)) = node.name.rsplit_once('/') else {
            found.push(None);
            continue;
        };
        let path = resolved.entry(scope).or_insert_with(|| {
            let path = resolve(scope.split('/').filter(|part| !part.is_empty()), known, &seen);
            let mut above = Some(path.as_str());
            while let Some(next) = above.filter(|path| !path.is_empty() && seen.insert(path.to_string())) {
                above = parent(next);
            }
            path
        });
        found.push(Some(path.clone()));
    }
    Some(Scopes::new("scoped", found, HashMap::new()))
}

/// Returns the module path of the parts of a scope.
pub(super) fn resolve<'a>(parts: impl Iterator<Item = &'a str>, known: &Known<'_>, seen: &HashSet<String>) -> String {
    let (mut path, mut previous) = (String::new(), "");
    for part in parts {
        let exact = candidates(&path, previous, part);
        let call = without_number(part);
        let repeated = call.map(|call| candidates(&path, previous, call)).unwrap_or_default();
        let is_known = |candidate: &&String| known.contains(candidate);
        let found = exact.iter().find(is_known).or_else(|| repeated.iter().find(is_known)).cloned();
        let found = found.or_else(|| known.hidden(&path, part).map(String::from));
        let found = found.or_else(|| known.hidden(&path, call?).map(String::from));
        let found = found.or_else(|| repeated.iter().find(|candidate| seen.contains(*candidate)).cloned());
        path = found.unwrap_or_else(|| exact[0].clone());
        previous = match call {
            Some(call) if !path.ends_with(part) => call,
            _ => part,
        };
    }
    path
}

/// Returns what a part can mean below a path, the more likely first.
fn candidates(path: &str, previous: &str, part: &str) -> Vec<String> {
    let join = |rest: &str| if path.is_empty() { rest.to_string() } else { format!("{path}.{rest}") };
    let inside = part.strip_prefix(previous).and_then(|rest| rest.strip_prefix('.'));
    match inside {
        Some(rest) if !previous.is_empty() => vec![join(rest), join(part)],
        _ => vec![join(part)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_paths() {
        let known = ["layers.0.mlp.0", "layers.0.mlp", "layers.0", "layers", "shared", "heads", "heads.x", "conv_1"];
        let names = known.map(|path| format!("{path}.weight"));
        let known = Known::new(names.iter().map(String::as_str));
        let seen: HashSet<String> = ["relu".to_string()].into();
        let cases = [
            ("layers/layers.0/mlp/mlp.0", "layers.0.mlp.0"),
            ("layers/layers.0/mlp/mlp.1", "layers.0.mlp.1"),
            ("layers.0/mlp", "layers.0.mlp"),
            ("layers.0/mlp_1/mlp.0", "layers.0.mlp.0"),
            ("shared_1", "shared"),
            ("conv_1", "conv_1"),
            ("relu_1", "relu"),
            ("x", "heads.x"),
            ("other_2/fc", "other_2.fc"),
        ];
        let failures: Vec<_> = cases
            .iter()
            .map(|(scope, expected)| (resolve(scope.split('/'), &known, &seen), *expected))
            .filter(|(found, expected)| found != expected)
            .collect();
        assert!(failures.is_empty(), "{failures:?}");
    }
}
