//! What a job keeps in float32.

use super::table;
use crate::error::ErrorKind;
use crate::graph::{Node, Origin};
use crate::plan::{Pattern, PlanError, nearby};
use crate::training::Prepared;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Patterns that keep nothing.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum KeepError {
    #[error("keep_float32: pattern \"{pattern}\" matches no operator and no module{}", nearest(.near))]
    NoMatch { pattern: String, near: Vec<String> },
    #[error(transparent)]
    Pattern(#[from] PlanError),
}

impl KeepError {
    /// Returns the group this error belongs to.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Usage
    }
}

fn nearest(near: &[String]) -> String {
    let names: Vec<String> = near.iter().map(|name| format!("\"{name}\"")).collect();
    if names.is_empty() { String::new() } else { format!(" (near: {})", names.join(", ")) }
}

/// What a job keeps in float32: operators by name, and nodes of modules.
#[derive(Clone, Debug, Default)]
pub struct Keep {
    operators: Vec<Pattern>,
    /// Nodes of the model, with whether they are kept.
    nodes: Arc<HashMap<String, bool>>,
}

impl Keep {
    /// Returns what patterns keep of a model. A pattern matches an operator by its type, or a module by its path or that
    /// of a module that it is in.
    ///
    /// # Errors
    /// A pattern is no glob or matches nothing.
    pub fn of(texts: &[String], prepared: &Prepared) -> Result<Keep, KeepError> {
        const ARGUMENT: &str = "keep_float32";
        if texts.is_empty() {
            return Ok(Keep::default());
        }
        let patterns: Vec<Pattern> = texts.iter().map(|text| Pattern::new(ARGUMENT, text)).collect::<Result<_, _>>()?;
        let mut operators: BTreeSet<&str> = table::names().collect();
        operators.extend(prepared.model.graph.nodes().iter().map(|node| node.op.name.as_str()));
        let paths: BTreeSet<&str> = prepared.modules.values().map(String::as_str).flat_map(enclosing).collect();
        for (pattern, text) in patterns.iter().zip(texts) {
            if !operators.iter().chain(&paths).any(|name| pattern.matches(name)) {
                let near = nearby(paths.iter().chain(&operators).copied(), text);
                return Err(KeepError::NoMatch { pattern: text.clone(), near });
            }
        }
        let kept = |path: &str| enclosing(path).any(|path| patterns.iter().any(|pattern| pattern.matches(path)));
        let nodes = prepared.modules.iter().map(|(node, path)| (node.clone(), kept(path))).collect();
        let by_type = |pattern: &Pattern| operators.iter().any(|name| pattern.matches(name));
        Ok(Keep { operators: patterns.into_iter().filter(by_type).collect(), nodes: Arc::new(nodes) })
    }

    /// Returns true for a node that is kept, or is the gradient of one that is.
    pub(super) fn keeps(&self, node: &Node) -> bool {
        if self.operators.iter().any(|pattern| pattern.matches(&node.op.name)) {
            return true;
        }
        let mut name = match &node.origin {
            Origin::Backward(of) => of.as_str(),
            _ => node.name.as_str(),
        };
        // A node may stand for a part of one of the model's.
        while !self.nodes.is_empty() {
            match (self.nodes.get(name), name.rsplit_once('/')) {
                (Some(kept), _) => return *kept,
                (None, Some((front, _))) => name = front,
                (None, None) => return false,
            }
        }
        false
    }
}

/// Returns the path of a module and those of the modules that it is in.
fn enclosing(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('.').map(|(dot, _)| &path[..dot]).chain([path])
}
