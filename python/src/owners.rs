//! The ownership tree as JSON.

use freeze_plan::modules::{ModuleId, ModuleTree, notes};
use freeze_plan::planner::Analysis;
use serde_json::{Value, json};

/// Returns the modules of a model, nested, with the text that `freeze-plan tree` shows.
pub fn told(analysis: &Analysis) -> Value {
    let Analysis { model, tree, parameters, .. } = analysis;
    json!({
        "text": tree.text(model),
        "notes": notes(model, tree, parameters),
        "root": module(tree, tree.root()),
    })
}

fn module(tree: &ModuleTree, id: ModuleId) -> Value {
    let this = tree.module(id);
    json!({
        "path": this.path,
        "class": this.class,
        "parameters": this.parameters,
        "statistics": this.statistics,
        "buffers": this.buffers,
        "shared": this.shared,
        "children": this.children.iter().map(|child| module(tree, *child)).collect::<Vec<_>>(),
    })
}
