//! The tree as PyTorch's `torch.export`-based exporter writes it beside every node.
//!
//! `pkg.torch.onnx.name_scopes` and `pkg.torch.onnx.class_hierarchy` are two aligned Python lists:
//! `['', 'layer1', 'layer1.0', 'layer1.0.conv1', 'conv2d_1']` and the classes. The first entry
//! is the root, the last the node itself. A repeated call of a module has `@1` behind its path.

use super::Scopes;
use crate::graph::{Model, Node};
use std::collections::HashMap;

/// Returns the scopes of every node; `None` when no node has any.
pub(super) fn scopes(model: &Model) -> Option<Scopes> {
    let mut classes = HashMap::new();
    let paths: Vec<Option<String>> = model.graph.nodes().iter().map(|node| scope(node, &mut classes)).collect();
    paths.iter().any(Option::is_some).then_some(Scopes { paths, classes })
}

/// Returns the path of the module that a node runs in.
pub(in crate::modules) fn node_scope(node: &Node) -> Option<String> {
    scope(node, &mut HashMap::new())
}

fn scope(node: &Node, classes: &mut HashMap<String, String>) -> Option<String> {
    let list = |key: &str| {
        let entry = node.metadata.iter().find(|(name, _)| name == key);
        entry.map(|(_, text)| python_list(text))
    };
    let scopes = list("pkg.torch.onnx.name_scopes")?;
    let (_, modules) = scopes.split_last()?;
    if !modules.first()?.is_empty() {
        return None;
    }
    let paths: Vec<&str> = modules.iter().map(|path| path.split('@').next().unwrap_or(path)).collect();
    for (path, class) in paths.iter().zip(list("pkg.torch.onnx.class_hierarchy").unwrap_or_default()) {
        let class = class.rsplit('.').next().unwrap_or_default().to_string();
        classes.entry((*path).to_string()).or_insert(class);
    }
    paths.last().map(|path| (*path).to_string())
}

/// Reads the `repr` of a Python list of strings.
fn python_list(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text.chars();
    while let Some(quote) = rest.find(|c| *c == '\'' || *c == '"') {
        let mut item = String::new();
        while let Some(c) = rest.next() {
            match c {
                '\\' => item.extend(rest.next()),
                c if c == quote => break,
                c => item.push(c),
            }
        }
        found.push(item);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_python_lists() {
        assert_eq!(python_list("['', 'a.0', 'conv']"), ["", "a.0", "conv"]);
        assert_eq!(python_list(r#"["it's", 'q\'s']"#), ["it's", "q's"]);
        assert!(python_list("[]").is_empty());
    }
}
