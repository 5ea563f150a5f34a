//! The tree from node names that are paths: `/layer1/layer1.0/conv1/Conv`.
//!
//! PyTorch's TorchScript exporter writes one part for each module that was called, and the operator
//! last. The child of a container is written with the container's own part before it
//! (`layer1/layer1.0`), any other child by its attribute name alone. Three things blur that, and
//! the paths known from dotted initializer names decide: a second call of a module has `_1` behind
//! it; the child of a `ModuleDict` is written without the dictionary; a `ModuleList` is never
//! called, so its child stands alone (`blocks.0`).
//!
//! Names of other exporters (`model/dense/MatMul`) are read the same way.

use crate::graph::Model;
use std::collections::HashSet;

/// Returns the module path of every node; `None` when at most half of the nodes that compute have
/// a path as their name. `known` holds the paths that own a dotted initializer and those above.
pub(super) fn paths(model: &Model, known: &HashSet<String>) -> Option<Vec<Option<String>>> {
    let nodes = model.graph.nodes();
    let computing = || nodes.iter().filter(|node| !node.op.is("Constant") && !node.op.is("Identity"));
    if computing().filter(|node| node.name.contains('/')).count() * 2 <= computing().count() {
        return None;
    }
    let mut seen = HashSet::new();
    let mut found = Vec::with_capacity(nodes.len());
    for node in nodes {
        let path = node
            .name
            .rsplit_once('/')
            .map(|(scope, _)| resolve(scope.split('/').filter(|part| !part.is_empty()), known, &seen));
        let mut above = path.as_deref().unwrap_or_default();
        while !above.is_empty() && seen.insert(above.to_string()) {
            above = above.rsplit_once('.').map_or("", |(parent, _)| parent);
        }
        found.push(path);
    }
    Some(found)
}

fn resolve<'a>(parts: impl Iterator<Item = &'a str>, known: &HashSet<String>, seen: &HashSet<String>) -> String {
    let (mut path, mut previous) = (String::new(), "");
    for part in parts {
        let exact = candidates(&path, previous, part);
        let call = without_number(part);
        let repeated = call.map(|call| candidates(&path, previous, call)).unwrap_or_default();
        let is_known = |candidate: &&String| known.contains(*candidate);
        let found = exact.iter().find(is_known).or_else(|| repeated.iter().find(is_known)).cloned();
        let found = found.or_else(|| hidden(&path, part, known));
        let found = found.or_else(|| hidden(&path, call?, known));
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

/// Returns the only known path that lies deeper below `path` and ends in `part`.
fn hidden(path: &str, part: &str, known: &HashSet<String>) -> Option<String> {
    let below = |candidate: &&String| {
        let rest = if path.is_empty() { Some(candidate.as_str()) } else { candidate.strip_prefix(path) };
        rest.is_some_and(|rest| rest.strip_suffix(part).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')))
            && (path.is_empty() || candidate[path.len()..].starts_with('.'))
    };
    let mut found = known.iter().filter(below);
    match (found.next(), found.next()) {
        (Some(only), None) => Some(only.clone()),
        _ => None,
    }
}

fn without_number(part: &str) -> Option<&str> {
    let (stem, number) = part.rsplit_once('_')?;
    (!stem.is_empty() && !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())).then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_paths() {
        let known = ["layers.0.mlp.0", "layers.0.mlp", "layers.0", "layers", "shared", "heads", "heads.x", "conv_1"];
        let known: HashSet<String> = known.map(String::from).into();
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
