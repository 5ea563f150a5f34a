//! The tree as PyTorch's `torch.export`-based exporter writes it beside every node.
//!
//! `pkg.torch.onnx.name_scopes` and `pkg.torch.onnx.class_hierarchy` are two aligned Python lists:
//! `['', 'layer1', 'layer1.0', 'layer1.0.conv1', 'conv2d_1']` and the classes. The first entry
//! is the root, the last the node itself. A repeated call of a module has `@1` behind its path. The same
//! lists stand in `namespace` as `: Model/layer1: Sequential/../conv2d_1: aten.conv2d.default`.

use super::Scopes;
use crate::graph::{Model, Node};
use std::collections::HashMap;

/// Returns the scopes of every node; `None` when no node has any.
pub(super) fn scopes(model: &Model) -> Option<Scopes> {
    let mut classes = HashMap::new();
    let paths: Vec<Option<String>> = model.graph.nodes().iter().map(|node| scope(node, &mut classes)).collect();
    paths.iter().any(Option::is_some).then(|| Scopes::new("dynamo", paths, classes))
}

/// Returns the path of the module that a node runs in.
pub(in crate::modules) fn node_scope(node: &Node) -> Option<String> {
    scope(node, &mut HashMap::new())
}

fn scope(node: &Node, classes: &mut HashMap<String, String>) -> Option<String> {
    let entry = |key: &str| node.metadata.iter().find(|(name, _)| name == key).map(|(_, text)| text.as_str());
    let (scopes, hierarchy) = match (entry("pkg.torch.onnx.name_scopes"), entry("namespace")) {
        (Some(scopes), _) => {
            let classes = entry("pkg.torch.onnx.class_hierarchy").map(python_list).unwrap_or_default();
            (python_list(scopes), classes)
        }
        (None, Some(namespace)) => namespace.split('/').map(|level| level.split_once(": ")).map(halves).unzip(),
        (None, None) => return None,
    };
    let (_, modules) = scopes.split_last()?;
    if !modules.first()?.is_empty() {
        return None;
    }
    let bare = |path: &String| path.split('@').next().unwrap_or(path).to_string();
    for (path, class) in modules.iter().zip(hierarchy) {
        let path = bare(path);
        classes.entry(path).or_insert_with(|| class.rsplit('.').next().unwrap_or_default().to_string());
    }
    modules.last().map(bare)
}

fn halves(level: Option<(&str, &str)>) -> (String, String) {
    level.map_or_else(Default::default, |(name, class)| (name.to_string(), class.to_string()))
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
    fn a_namespace_says_the_same() {
        let text = ": __main__.M/fc@1: torch.nn.modules.linear.Linear/linear: aten.linear.default";
        let node = Node {
            name: String::new(),
            op: crate::graph::OpId::standard("Gemm"),
            overload: String::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            attributes: crate::graph::Attributes::none(),
            origin: crate::graph::Origin::Forward,
            metadata: vec![("namespace".into(), text.into())],
        };
        let mut classes = HashMap::new();
        assert_eq!(scope(&node, &mut classes).as_deref(), Some("fc"));
        assert_eq!((classes[""].as_str(), classes["fc"].as_str()), ("M", "Linear"));
    }

    #[test]
    fn reads_python_lists() {
        assert_eq!(python_list("['', 'a.0', 'conv']"), ["", "a.0", "conv"]);
        assert_eq!(python_list(r#"["it's", 'q\'s']"#), ["it's", "q's"]);
        assert!(python_list("[]").is_empty());
    }
}
