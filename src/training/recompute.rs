//! Activation checkpointing: what a module keeps for its backward pass is computed a second time
//! instead, which trades time for memory.
//!
//! For a module that is recomputed, the values that other modules read stay; the others are freed
//! after the forward pass, and copies of the nodes that make them run just before the backward
//! pass of the module. The copies read the module's inputs through a `Reshape` to `shape + 0 * g`, with
//! `g` from the gradient that arrives: so they cannot run earlier, and ONNX Runtime's elimination
//! of common subexpressions cannot merge them with the first ones. A `Reshape` copies nothing. The
//! result is the same but for rounding: the first nodes have fewer readers, so more of them are
//! fused. Random values are functions of the step, so a mask comes out as before.

use super::{Prepared, TrainStep, TrainingError};
use crate::error::nearest;
use crate::graph::{Attributes, Builder, DType, Graph, Node, Origin, Tensor, ValueId};
use globset::GlobBuilder;
use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

/// Which modules are recomputed: the key `recompute` of a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Recompute {
    /// None: `"none"`.
    #[default]
    None,
    /// Every repeated block but the last, which would be needed again at once: `"auto"`.
    Auto,
    /// The modules whose paths match one of these patterns.
    Modules(Vec<String>),
}

const WORDS: [&str; 2] = ["none", "auto"];

impl Serialize for Recompute {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Recompute::None => serializer.serialize_str(WORDS[0]),
            Recompute::Auto => serializer.serialize_str(WORDS[1]),
            Recompute::Modules(patterns) => patterns.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Recompute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Recompute, D::Error> {
        struct Words;

        impl<'de> Visitor<'de> for Words {
            type Value = Recompute;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\", \"none\" or a list of module patterns")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Recompute, E> {
                match text {
                    "none" => Ok(Recompute::None),
                    "auto" => Ok(Recompute::Auto),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Recompute, A::Error> {
                let mut patterns = Vec::new();
                while let Some(pattern) = list.next_element()? {
                    patterns.push(pattern);
                }
                Ok(Recompute::Modules(patterns))
            }
        }

        deserializer.deserialize_any(Words)
    }
}

/// Fewest forward nodes of a block that [`Recompute::Auto`] takes.
const FEWEST: usize = 6;

impl TrainStep {
    /// Recomputes modules of the train graph and returns their paths.
    ///
    /// # Errors
    /// A pattern is no glob or matches no module of the model.
    pub fn recompute(&mut self, prepared: &Prepared, wanted: &Recompute) -> Result<Vec<String>, TrainingError> {
        let paths = match wanted {
            Recompute::None => return Ok(Vec::new()),
            Recompute::Auto => blocks(prepared, &self.train.graph),
            Recompute::Modules(patterns) => matching(prepared, patterns)?,
        };
        let graph = &self.train.graph;
        let modules = node_modules(prepared, graph);
        let known: HashMap<&str, &String> = paths.iter().map(|path| (path.as_str(), path)).collect();
        let segment = |name: &str| {
            let module = modules.get(name).copied().or_else(|| module_of(prepared, name))?;
            fronts(module).find_map(|front| known.get(front).copied())
        };
        let places = graph.nodes().iter().map(|node| match &node.origin {
            Origin::Forward => Some((segment(&node.name)?, true)),
            Origin::Backward(of) => Some((segment(of)?, false)),
            _ => None,
        });
        let places: Vec<Option<(&String, bool)>> = places.collect();
        let plans = plans(graph, &paths, &places);
        let done = plans.iter().map(|plan| plan.path.clone()).collect();
        self.train.graph = rewrite(graph, &plans, &places);
        super::check_in_place(&self.train.graph, &self.moving_pairs())?;
        Ok(done)
    }

    fn moving_pairs(&self) -> Vec<(String, String)> {
        self.moving.iter().map(|name| (name.clone(), super::names::next(name))).collect()
    }
}

/// Returns the module of a node of a train graph: nodes that were put in the place of a node of the
/// model have names below its name.
fn module_of<'a>(prepared: &'a Prepared, name: &str) -> Option<&'a str> {
    let mut name = name;
    loop {
        if let Some(module) = prepared.modules.get(name) {
            return Some(module);
        }
        name = name.rsplit_once('/')?.0;
    }
}

/// Returns the module of each node of the forward pass by its name. A node that came with a pass over
/// the model is of the module that makes its first input.
fn node_modules<'a>(prepared: &'a Prepared, graph: &'a Graph) -> HashMap<&'a str, &'a str> {
    let mut modules: HashMap<&str, &str> = HashMap::new();
    for node in graph.nodes().iter().filter(|node| node.origin == Origin::Forward) {
        let inherited = || {
            let maker = node.inputs.iter().flatten().find_map(|input| graph.producer(*input))?;
            modules.get(graph.node(maker).name.as_str()).copied()
        };
        if let Some(module) = module_of(prepared, &node.name).or_else(inherited) {
            modules.insert(&node.name, module);
        }
    }
    modules
}

/// Returns the outermost module paths that match a pattern.
fn matching(prepared: &Prepared, patterns: &[String]) -> Result<Vec<String>, TrainingError> {
    let known: BTreeSet<&str> = prepared.modules.values().flat_map(|path| fronts(path)).collect();
    let mut found: BTreeSet<String> = BTreeSet::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern)
            .backslash_escape(true)
            .build()
            .map_err(|error| TrainingError::Recompute { pattern: pattern.clone(), reason: error.kind().to_string() })?;
        let glob = glob.compile_matcher();
        let matched: Vec<&str> = known.iter().copied().filter(|path| *path == pattern || glob.is_match(path)).collect();
        if matched.is_empty() {
            let near = nearest(pattern, known.iter().copied());
            let near = near.map_or_else(String::new, |near| format!(", did you mean \"{near}\"?"));
            return Err(TrainingError::Recompute {
                pattern: pattern.clone(),
                reason: format!("it matches no module{near}"),
            });
        }
        found.extend(matched.into_iter().map(String::from));
    }
    let inside = |path: &String| found.iter().any(|outer| path.starts_with(&format!("{outer}.")));
    Ok(found.iter().filter(|path| !inside(path)).cloned().collect())
}

/// A path and those of the modules around it, the root left out.
fn fronts(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
    ends.map(|end| &path[..end]).filter(|front| !front.is_empty())
}

/// Returns the repeated blocks in order of execution, without the last.
fn blocks(prepared: &Prepared, graph: &Graph) -> Vec<String> {
    let forward = graph.nodes().iter().filter(|node| node.origin == Origin::Forward);
    let paths: Vec<&str> = forward.filter_map(|node| module_of(prepared, &node.name)).collect();
    let mut counts: HashMap<&str, (usize, HashSet<&str>)> = HashMap::new();
    for path in &paths {
        for front in fronts(path).filter(|front| front.ends_with(|c: char| c.is_ascii_digit())) {
            let entry = counts.entry(front).or_default();
            entry.0 += 1;
            entry.1.insert(path);
        }
    }
    let is_block = |front: &str| counts.get(front).is_some_and(|(nodes, parts)| *nodes >= FEWEST && parts.len() > 1);
    let mut found: Vec<String> = Vec::new();
    let mut seen: HashSet<&str> = HashSet::new();
    for path in paths.iter().filter(|path| seen.insert(path)) {
        let mut numbered = fronts(path).filter(|front| is_block(front));
        let Some(mut block) = numbered.next() else { continue };
        for inner in numbered {
            let held: usize = siblings(&counts, inner, &is_block);
            if 5 * held < 4 * counts[block].0 {
                break;
            }
            block = inner;
        }
        if !found.iter().any(|known| known == block) {
            found.push(block.to_string());
        }
    }
    found.pop();
    found
}

/// Returns how many nodes a block and the blocks beside it hold.
fn siblings(counts: &HashMap<&str, (usize, HashSet<&str>)>, path: &str, is_block: &dyn Fn(&str) -> bool) -> usize {
    let parent = |path: &str| path.rsplit_once('.').map_or(0, |(front, _)| front.len());
    let beside = |other: &&str| parent(other) == parent(path) && other[..parent(path)] == path[..parent(path)];
    counts.iter().filter(|(other, _)| beside(other) && is_block(other)).map(|(_, entry)| entry.0).sum()
}

/// How one module is recomputed.
struct Plan {
    path: String,
    /// Positions of the forward nodes that run again, in order.
    again: Vec<usize>,
    /// What they read of other modules that depends on the data.
    entries: BTreeSet<ValueId>,
    /// Position of the backward node before which they run.
    before: usize,
    /// The gradient that they wait for.
    gradient: ValueId,
}

/// What is known of one module before its plan is made.
#[derive(Default)]
struct Segment {
    /// Positions of its forward nodes.
    forward: Vec<usize>,
    /// Positions of its backward nodes, from the first that reads a value of its forward nodes.
    backward: Vec<usize>,
    /// Values of its forward nodes that its backward nodes read.
    needed: BTreeSet<ValueId>,
}

/// Returns the plans of the modules for which something is gained, in time linear in the graph.
fn plans(graph: &Graph, paths: &[String], places: &[Option<(&String, bool)>]) -> Vec<Plan> {
    let varies = varying(graph);
    let mut segments: HashMap<&String, Segment> = HashMap::new();
    let mut owners: HashMap<ValueId, &String> = HashMap::new();
    for (at, node) in graph.nodes().iter().enumerate() {
        if let Some((path, true)) = places[at] {
            segments.entry(path).or_default().forward.push(at);
            owners.extend(node.outputs.iter().flatten().filter(|id| varies.contains(id)).map(|id| (*id, path)));
        }
    }
    let mut kept: HashSet<ValueId> = graph.outputs().iter().copied().collect();
    for (at, node) in graph.nodes().iter().enumerate() {
        kept.extend(node.captured().filter_map(|name| graph.find(name)));
        for input in node.inputs.iter().flatten() {
            let Some(owner) = owners.get(input) else { continue };
            match places[at] {
                Some((path, true)) if path == *owner => {}
                Some((path, false)) if path == *owner => {
                    segments.entry(path).or_default().needed.insert(*input);
                }
                _ => {
                    kept.insert(*input);
                }
            }
        }
        if let Some((path, false)) = places[at] {
            let segment = segments.entry(path).or_default();
            if !segment.needed.is_empty() {
                segment.backward.push(at);
            }
        }
    }
    let stays = |id: &ValueId, path: &String| kept.contains(id) || owners.get(id) != Some(&path);
    let plan = |path: &String| Plan::of(graph, path, segments.get(path)?, &varies, &|id| stays(id, path));
    paths.iter().filter_map(plan).collect()
}

impl Plan {
    /// Returns the plan of a module; `None` where nothing would be gained. `stays` tells the values
    /// that are kept or made elsewhere.
    fn of(
        graph: &Graph,
        path: &str,
        segment: &Segment,
        varies: &HashSet<ValueId>,
        stays: &dyn Fn(&ValueId) -> bool,
    ) -> Option<Plan> {
        let before = *segment.backward.first()?;
        let mut wanted: BTreeSet<ValueId> = segment.needed.iter().filter(|id| !stays(id)).copied().collect();
        let mut again = Vec::new();
        let mut entries = BTreeSet::new();
        for at in segment.forward.iter().rev() {
            let node = &graph.nodes()[*at];
            if !node.outputs.iter().flatten().any(|output| wanted.contains(output)) {
                continue;
            }
            again.push(*at);
            for input in node.inputs.iter().flatten().filter(|input| varies.contains(input)) {
                let place = if stays(input) { &mut entries } else { &mut wanted };
                place.insert(*input);
            }
        }
        again.reverse();
        let arrived = |value: &ValueId| {
            let made = graph.producer(*value).filter(|id| graph.position(*id) < before);
            let back = made.is_some_and(|id| matches!(graph.node(id).origin, Origin::Backward(_)));
            back && graph.fact(*value).is_float()
        };
        let mut read = segment.backward.iter().flat_map(|at| graph.nodes()[*at].inputs.iter().copied().flatten());
        let gradient = read.find(arrived)?;
        let plan = Plan { path: path.to_string(), again, entries, before, gradient };
        (!plan.again.is_empty() && !plan.entries.is_empty()).then_some(plan)
    }
}

/// Returns the values that depend on the data or the step.
fn varying(graph: &Graph) -> HashSet<ValueId> {
    let mut read: HashSet<ValueId> = graph.inputs().iter().copied().collect();
    let updated = graph.outputs().iter().map(|id| graph.value_name(*id));
    for name in updated.filter_map(|name| name.strip_suffix(".grad").or(name.strip_suffix(".next"))) {
        graph.find(name).map(|id| read.remove(&id));
    }
    for node in graph.nodes() {
        if node.inputs.iter().flatten().any(|input| read.contains(input)) {
            read.extend(node.outputs.iter().flatten());
        }
    }
    read
}

/// Returns the graph with the copies, and the backward nodes of their modules reading them.
fn rewrite(graph: &Graph, plans: &[Plan], places: &[Option<(&String, bool)>]) -> Graph {
    let mut b = Builder::new(graph.name());
    b.reserve(graph.values().map(|(_, value)| value.name.clone()));
    b.reserve(graph.nodes().iter().map(|node| node.name.clone()));
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    for id in graph.inputs() {
        map.insert(*id, b.input(graph.value_name(*id), graph.fact(*id).clone()));
    }
    for (id, ..) in graph.initializers() {
        map.insert(id, b.copy_value(graph, id));
    }
    let by_start: BTreeMap<usize, &Plan> = plans.iter().map(|plan| (plan.before, plan)).collect();
    let mut again: HashMap<&String, HashMap<ValueId, ValueId>> = HashMap::new();
    for (at, node) in graph.nodes().iter().enumerate() {
        if let Some(plan) = by_start.get(&at) {
            again.insert(&plan.path, copies(&mut b, graph, plan, &map));
        }
        let redone = match places[at] {
            Some((path, false)) => again.get(path),
            _ => None,
        };
        let place = |id: ValueId| redone.and_then(|redone| redone.get(&id)).unwrap_or(&map[&id]);
        let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|input| input.map(|id| *place(id))).collect();
        let outputs = b.copy_node(graph, node, &inputs);
        map.extend(node.outputs.iter().zip(outputs).filter_map(|(old, new)| Some(((*old)?, new?))));
    }
    for output in graph.outputs() {
        b.mark_output(map[output]);
    }
    b.finish()
}

/// Appends the nodes of a plan once more and returns what their outputs became.
fn copies(b: &mut Builder, graph: &Graph, plan: &Plan, map: &HashMap<ValueId, ValueId>) -> HashMap<ValueId, ValueId> {
    let mut new: HashMap<ValueId, ValueId> = HashMap::new();
    b.enter(Origin::Backward(graph.nodes()[plan.again[0]].name.clone()), &format!("{}/again", plan.path));
    let flat = b.reshape(map[&plan.gradient], &[-1]);
    let first = b.constant("first", Tensor::scalar(0_i64));
    let element = b.op("Gather", &[flat, first], Attributes::none());
    let flag = b.unary("IsNaN", element);
    let flag = b.cast(flag, DType::I64);
    let zero = b.constant("zero", Tensor::scalar(0_i64));
    let nothing = b.mul(flag, zero);
    for entry in &plan.entries {
        let shape = b.unary("Shape", map[entry]);
        let shape = b.add(shape, nothing);
        let late = b.op("Reshape", &[map[entry], shape], Attributes::none().with("allowzero", 1));
        b.refine(late, graph.fact(*entry));
        new.insert(*entry, late);
    }
    for at in &plan.again {
        let node = &graph.nodes()[*at];
        let inputs: Vec<Option<ValueId>> =
            node.inputs.iter().map(|input| input.map(|id| new.get(&id).copied().unwrap_or(map[&id]))).collect();
        b.enter(Origin::Backward(node.name.clone()), &format!("{}/again", node.name));
        let (name, origin) = (b.unique(&node.op.name), Origin::Backward(node.name.clone()));
        let mut outputs = Vec::new();
        for (index, old) in node.outputs.iter().enumerate() {
            outputs.push(old.map(|old| {
                let output = b.declare(&format!("{name}:{index}"), graph.fact(old).clone());
                new.insert(old, output);
                output
            }));
        }
        b.push_node(Node { name, inputs, outputs, origin, ..node.clone() });
    }
    plan.entries.iter().for_each(|entry| {
        new.remove(entry);
    });
    new
}
