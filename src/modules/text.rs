//! The tree as text.

use super::names::{dotted_owner, is_state_name, printable};
use super::parameters::{Param, Role};
use super::signature;
use super::tree::{Evidence, Module, ModuleTree};
use crate::graph::{Graph, Model};
use std::collections::{HashMap, HashSet};
use std::fmt::Write;

impl ModuleTree {
    /// Returns the tree as text: a module a line, indented, with its class; below it each parameter,
    /// running statistic and buffer of its author's with dtype, shape and element count.
    pub fn text(&self, model: &Model) -> String {
        let mut text = String::new();
        self.walk(&mut |module, indent| {
            line(&mut text, indent, &title(module));
            for (name, note) in held(module).filter(|(name, note)| *note != " buffer" || is_state_name(name)) {
                if let Some(tensor) = tensor(&model.graph, module, name, note) {
                    line(&mut text, indent + 2, &tensor);
                }
            }
        });
        text
    }

    fn walk(&self, visit: &mut dyn FnMut(&Module, usize)) {
        let mut open = vec![(self.root(), 0)];
        while let Some((id, depth)) = open.pop() {
            let module = self.module(id);
            visit(module, 2 * depth);
            open.extend(module.children.iter().rev().map(|child| (*child, depth + 1)));
        }
    }
}

/// Returns the tree as text with what placed each parameter and decided its role, also for the
/// exporter's own constants of more than one element; behind it how the tree was recovered and what is
/// not shown.
pub fn why(model: &Model, tree: &ModuleTree, params: &[Param]) -> String {
    let graph = &model.graph;
    let by_name: HashMap<&str, &Param> = params.iter().map(|param| (param.name.as_str(), param)).collect();
    let mut text = format!("modules from {}\n", source_of(tree.strategy()));
    tree.walk(&mut |module, indent| {
        line(&mut text, indent, &title(module));
        for (name, note) in held(module) {
            let param = by_name.get(name);
            let Some(tensor) = tensor(graph, module, name, note) else { continue };
            line(&mut text, indent + 2, &tensor);
            if note != " shared" {
                let reason = param.map(|param| param.reason.as_ref()).unwrap_or_default();
                line(&mut text, indent + 6, &format!("role: {}", printable(reason)));
            }
            if let Some(evidence) = tree.evidence(name) {
                line(&mut text, indent + 6, &format!("place: {}", place(graph, tree, evidence)));
            }
        }
    });
    let shown = |param: &&Param| is_shown(graph, param);
    let hidden = graph.initializers().count() - params.iter().filter(shown).count();
    if hidden > 0 {
        let _ = writeln!(text, "{hidden} more initializers are unnamed numbers, integers and shapes");
    }
    for note in notes(model, tree, params) {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

fn is_shown(graph: &Graph, param: &Param) -> bool {
    param.is_named()
        || graph
            .fact(param.value)
            .sizes()
            .is_some_and(|sizes| sizes.iter().fold(1usize, |count, size| count.saturating_mul(*size)) > 1)
}

fn source_of(strategy: &str) -> &'static str {
    match strategy {
        "dynamo" => "the scopes in the metadata of the nodes, and dotted names of initializers",
        "functions" => "the functions that nodes were inlined from, and dotted names of initializers",
        "scoped" => "the names of the nodes, and dotted names of initializers",
        "slash" => "the names of nodes and initializers, as TensorFlow writes them",
        "dotted" => "the dotted names of initializers",
        _ => "the graph alone: a module for each node with parameters",
    }
}

fn place(graph: &Graph, tree: &ModuleTree, evidence: &Evidence) -> String {
    let node = |id: &crate::graph::NodeId| printable(&graph.node(*id).name);
    match evidence {
        Evidence::Name => "its own name".into(),
        Evidence::Root => "its name says no module".into(),
        Evidence::Beside(other) => format!("beside \"{}\"", printable(other)),
        Evidence::Scope(id) => match tree.strategy() {
            "dynamo" => format!("scopes in the metadata of node \"{}\"", node(id)),
            "functions" => format!("function of node \"{}\"", node(id)),
            _ => format!("name of node \"{}\"", node(id)),
        },
        Evidence::Underscores => "the front of its name, shared with what its node and neighbours read".into(),
        Evidence::Node(id) => format!("node \"{}\" reads it", node(id)),
    }
}

fn title(module: &Module) -> String {
    let name = if module.path.is_empty() { "(model)".to_string() } else { printable(&module.name) };
    [name, printable(&module.class)].join(" ").trim_end().to_string()
}

/// Returns what a module holds, with the word that stands behind it.
fn held(module: &Module) -> impl Iterator<Item = (&str, &'static str)> {
    let lists = [
        (&module.shared, " shared"),
        (&module.parameters, ""),
        (&module.statistics, " statistic"),
        (&module.buffers, " buffer"),
    ];
    lists.into_iter().flat_map(|(names, note)| names.iter().map(move |name| (name.as_str(), note)))
}

fn tensor(graph: &Graph, module: &Module, name: &str, note: &str) -> Option<String> {
    let fact = graph.fact(graph.find(name)?);
    let inside = name.strip_prefix(module.path.as_str()).and_then(|rest| rest.strip_prefix('.'));
    let short = printable(inside.filter(|_| !module.path.is_empty()).unwrap_or(name));
    let count = fact.sizes().map_or(0, |sizes| sizes.iter().fold(1usize, |count, size| count.saturating_mul(*size)));
    Some(format!("{short} {fact} {count}{note}"))
}

fn line(text: &mut String, indent: usize, content: &str) {
    let _ = writeln!(text, "{:indent$}{content}", "", indent = indent);
}

/// Returns what a person should know of a model's parameters: weights that are no initializers, and
/// weights that may have been one.
pub fn notes(model: &Model, tree: &ModuleTree, params: &[Param]) -> Vec<String> {
    let graph = &model.graph;
    let mut notes = Vec::new();
    let made: HashSet<_> = graph
        .node_ids()
        .filter(|(_, node)| node.op.is("ConstantOfShape") || node.op.is("RandomNormal") || node.op.is("RandomUniform"))
        .filter_map(|(_, node)| node.output(0))
        .collect();
    let weights = graph.nodes().iter().flat_map(|node| {
        let slots = match node.op.name.as_str() {
            "Conv" | "ConvTranspose" | "Gemm" | "BatchNormalization" => 1..node.inputs.len(),
            "MatMul" => 0..node.inputs.len(),
            _ => 0..0,
        };
        slots.filter_map(|slot| node.input(slot))
    });
    let made: HashSet<_> = weights.filter(|value| made.contains(value)).collect();
    if let Some(first) = made.iter().min() {
        notes.push(format!(
            "{} weights are made by nodes (ConstantOfShape, ..) and not stored, so they cannot train; the first is \"{}\"",
            made.len(),
            printable(graph.value_name(*first))
        ));
    }
    notes.extend(folded(model, tree));
    notes.extend(split_ties(graph, params));
    notes
}

/// Finds an embedding table and a folded, unnamed weight of the transposed shape: an exporter that
/// folds constants splits a tied weight in two.
fn split_ties(graph: &Graph, params: &[Param]) -> Vec<String> {
    let sizes = |value| <[usize; 2]>::try_from(graph.fact(value).sizes()?).ok();
    let gathered = graph.nodes().iter().filter(|node| node.op.is("Gather")).filter_map(|node| node.input(0));
    let gathered: HashSet<_> = gathered.collect();
    let trained = || params.iter().filter(|param| param.role == Role::Trainable);
    let tables = trained().filter(|param| gathered.contains(&param.value));
    let tables: HashMap<[usize; 2], &Param> = tables.filter_map(|param| Some((sizes(param.value)?, param))).collect();
    let folded = trained().filter(|param| !is_state_name(&param.name));
    let pairs = folded.filter_map(|param| {
        let [rows, columns] = sizes(param.value)?;
        Some((tables.get(&[columns, rows])?, param))
    });
    let note = |(table, param): (&&Param, &Param)| {
        format!(
            "\"{}\" has the shape of \"{}\" transposed: if the model ties them, its exporter split them, and they train \
             apart; an export without constant folding keeps one",
            printable(&param.name),
            printable(&table.name)
        )
    };
    pairs.map(note).collect()
}

/// Counts the parameters of the exported program that its exporter folded into others. One of which
/// the module holds or shares another instead, such as a transposed weight, is not lost.
fn folded(model: &Model, tree: &ModuleTree) -> Option<String> {
    let signed = signature::read(model);
    let parameters = || signed.iter().filter(|(_, signed)| signed.parameter);
    let mut expected: HashMap<&str, usize> = HashMap::new();
    for owner in parameters().filter_map(|(name, _)| dotted_owner(name)) {
        *expected.entry(owner).or_default() += 1;
    }
    let complete = |name: &str| {
        let Some(owner) = dotted_owner(name) else { return false };
        let module = tree.get(owner).map(|id| tree.module(id));
        module.is_some_and(|module| module.parameters.len() + module.shared.len() >= expected[owner])
    };
    let lost = parameters().filter(|(name, _)| model.graph.find(name).is_none() && !complete(name));
    let mut lost: Vec<_> = lost.map(|(name, signed)| (signed.index, *name)).collect();
    lost.sort_unstable();
    let (_, first) = lost.first()?;
    let (count, verb) = if lost.len() == 1 {
        ("1 parameter of the exported program is".to_string(), "it")
    } else {
        (format!("{} parameters of the exported program are", lost.len()), "them")
    };
    Some(format!(
        "{count} not in the file (\"{}\"{}): no output needs {verb}, or the exporter folded {verb} into others; an export \
         with optimize=False folds nothing",
        printable(first),
        if lost.len() == 1 { "" } else { ", .." },
    ))
}
