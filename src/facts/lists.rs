//! Lists that a `Loop` fills: a tensor that every step appends to an empty sequence becomes a scan
//! output, which stacks the same tensors.
//!
//! It is what exporters make of `parts.append(part)` in a loop and `torch.stack(parts)` or
//! `torch.cat(parts)` behind it. The tensors of a scan output are all of one shape. A sequence that is
//! concatenated along an axis that it has need not be of such, so there the size along it must be known.

use super::steps;
use super::walk::Known;
use crate::graph::{
    Attribute, Attributes, Builder, Dim, Fact, Graph, Model, Node, Replaced, Subgraph, ValueId, prune, rebuild,
};
use std::collections::{HashMap, HashSet};

/// A list of one `Loop`.
struct List {
    /// Position among the states of the loop.
    state: usize,
    /// What a step appends, in the body.
    item: ValueId,
    fact: Fact,
}

/// Returns the model without the lists that loops of the main graph fill; `None` when it has none.
pub(super) fn stacked(model: &Model) -> Option<Model> {
    let graph = &model.graph;
    if !graph.nodes().iter().any(|node| node.op.is("Loop") && node.inputs.iter().flatten().any(|id| empty(graph, *id)))
    {
        return None;
    }
    let known = Known::of(model, &[], &[]);
    let readers = Readers::of(graph);
    let lists: HashMap<ValueId, Vec<List>> = graph
        .nodes()
        .iter()
        .filter_map(|node| Some((first_output(node)?, lists(&known, graph, &readers, node)?)))
        .filter(|(_, lists)| !lists.is_empty())
        .collect();
    // What stands in for each sequence, with the fact of its tensors.
    let mut made: HashMap<ValueId, (ValueId, Fact)> = HashMap::new();
    let rebuilt = rebuild(graph, |b, node, inputs| {
        if let Some((stack, item)) = node.input(0).and_then(|sequence| made.get(&sequence)) {
            return taken(b, graph, node, inputs, *stack, item);
        }
        let lists = lists.get(&first_output(node)?)?;
        let Some(Attribute::Graph(body)) = node.attributes.get("body") else { return None };
        let states = node.inputs.len() - 2;
        let dropped = |index: usize| lists.iter().any(|list| list.state == index);
        let kept = |index: usize| index < 2 || !dropped(index - 2);
        let inputs: Vec<_> = inputs.iter().enumerate().filter(|(index, _)| kept(*index)).map(|(_, id)| *id).collect();
        let mut attributes = node.attributes.clone();
        attributes.set("body", Attribute::Graph(Box::new(without(b, body, states, lists))));
        let outputs: Vec<_> =
            node.outputs.iter().enumerate().filter(|(index, _)| !dropped(*index)).map(|(_, id)| *id).collect();
        let loop_node = Node { attributes, outputs, ..node.clone() };
        let more: Vec<(String, Fact)> = lists.iter().map(|list| (b.unique("stacked"), stack_of(&list.fact))).collect();
        let mut outputs = b.copy_node_with(graph, &loop_node, &inputs, &more).into_iter();
        let mut replaced = Replaced::new();
        for index in 0..node.outputs.len() {
            replaced.push(if dropped(index) { None } else { outputs.next().flatten() });
        }
        for (list, stack) in lists.iter().zip(outputs) {
            made.insert(node.output(list.state)?, (stack?, list.fact.clone()));
        }
        Some(replaced)
    });
    if lists.is_empty() {
        return None;
    }
    // Behind a sequence nothing was known.
    let model = model.with_graph(prune(&rebuilt));
    let facts = Known::of(&model, &[], &[]).facts;
    Some(model.with_graph(model.graph.with_facts(facts)))
}

fn first_output(node: &Node) -> Option<ValueId> {
    node.outputs.iter().flatten().next().copied()
}

fn empty(graph: &Graph, value: ValueId) -> bool {
    graph.producer(value).is_some_and(|id| graph.node(id).op.is("SequenceEmpty"))
}

/// Who reads each value of a graph.
struct Readers<'a> {
    nodes: HashMap<ValueId, Vec<&'a Node>>,
    /// Values that are read otherwise: as outputs of the graph or inside of subgraphs.
    others: HashSet<ValueId>,
}

impl<'a> Readers<'a> {
    fn of(graph: &'a Graph) -> Readers<'a> {
        let mut nodes: HashMap<ValueId, Vec<&Node>> = HashMap::new();
        let mut others: HashSet<ValueId> = graph.outputs().iter().copied().collect();
        for node in graph.nodes() {
            node.inputs.iter().flatten().for_each(|id| nodes.entry(*id).or_default().push(node));
            others.extend(node.captured().filter_map(|name| graph.find(name)));
        }
        Readers { nodes, others }
    }

    fn nodes(&self, value: ValueId) -> &[&'a Node] {
        self.nodes.get(&value).map_or(&[], Vec::as_slice)
    }
}

/// Returns the lists that a loop fills and that only stacking and indexing read.
fn lists(known: &Known, graph: &Graph, readers: &Readers<'_>, node: &Node) -> Option<Vec<List>> {
    let Some(Attribute::Graph(body)) = node.attributes.get("body") else { return None };
    if !node.op.is("Loop") || body.formal_inputs().len() != node.inputs.len() {
        return None;
    }
    let inner = &body.graph;
    let within = known.inside(graph, body, &steps::formal(known, graph, node, body)?)?;
    let inside = Readers::of(inner);
    let list = |state: usize| -> Option<List> {
        let formal = *body.formal_inputs().get(2 + state)?;
        let result = *inner.outputs().get(1 + state)?;
        let insert = inner.node(inner.producer(result)?);
        let appends = insert.op.is("SequenceInsert") && insert.input(0) == Some(formal) && insert.input(2).is_none();
        let once = inner.outputs().iter().filter(|output| **output == result).count() == 1;
        let alone = inside.nodes(formal).len() == 1 && !inside.others.contains(&formal);
        if !appends || !once || !alone || !inside.nodes(result).is_empty() || !empty(graph, node.input(2 + state)?) {
            return None;
        }
        let item = insert.input(1)?;
        let fact = within.facts[item.0].or(inner.fact(item));
        let sequence = node.output(state)?;
        let fits = readers.nodes(sequence).iter().all(|reader| can_take(reader, sequence, &fact));
        (fits && !readers.others.contains(&sequence)).then_some(List { state, item, fact })
    };
    Some((0..node.inputs.len() - 2).filter_map(list).collect())
}

fn can_take(reader: &Node, sequence: ValueId, item: &Fact) -> bool {
    match reader.op.name.as_str() {
        "SequenceAt" => reader.input(0) == Some(sequence),
        "ConcatFromSequence" => {
            let Some((axis, new)) = join(reader, item) else { return false };
            new || matches!(item.shape.as_ref().and_then(|shape| shape.get(axis)), Some(Dim::Known(_)))
        }
        _ => false,
    }
}

/// Returns the axis of the result along which tensors are joined, and whether it is a new one.
fn join(node: &Node, item: &Fact) -> Option<(usize, bool)> {
    let new = node.attributes.int("new_axis", 0).ok()? == 1;
    let rank = item.shape.as_ref()?.len() + usize::from(new);
    let axis = node.attributes.int("axis", 0).ok()?;
    let axis = if axis < 0 { axis + i64::try_from(rank).ok()? } else { axis };
    usize::try_from(axis).ok().filter(|axis| *axis < rank).map(|axis| (axis, new))
}

fn stack_of(item: &Fact) -> Fact {
    let shape = item.shape.as_ref().map(|shape| std::iter::once(Dim::Unknown).chain(shape.iter().cloned()).collect());
    Fact { shape, ..item.clone() }
}

/// Returns what a reader of a sequence takes from its stacked tensors.
fn taken(
    b: &mut Builder,
    graph: &Graph,
    node: &Node,
    inputs: &[Option<ValueId>],
    stack: ValueId,
    item: &Fact,
) -> Option<Replaced> {
    let value = if node.op.is("SequenceAt") {
        b.op("Gather", &[stack, inputs.get(1).copied().flatten()?], Attributes::none().with("axis", 0))
    } else {
        let (axis, new) = join(node, item)?;
        let rank = item.shape.as_ref()?.len();
        let order = (1..=axis).chain([0]).chain(axis + 1..=rank);
        let order: Vec<i64> = order.filter_map(|axis| i64::try_from(axis).ok()).collect();
        let moved = b.transpose(stack, &order);
        if new { moved } else { merged(b, moved, i64::try_from(axis).ok()?) }
    };
    b.rename(value, graph.value_name(node.output(0)?));
    Some(vec![Some(value)])
}

/// Joins an axis with the next one.
fn merged(b: &mut Builder, value: ValueId, axis: i64) -> ValueId {
    let before = b.op("Shape", &[value], Attributes::none().with("start", 0).with("end", axis));
    let both = b.ints("both", &[-1]);
    let after = b.op("Shape", &[value], Attributes::none().with("start", axis + 2));
    let shape = b.op("Concat", &[before, both, after], Attributes::none().with("axis", 0));
    b.op("Reshape", &[value, shape], Attributes::none())
}

/// Returns a loop's body of which the lists are scan outputs.
fn without(outer: &mut Builder, body: &Subgraph, states: usize, lists: &[List]) -> Subgraph {
    let inner = &body.graph;
    let dropped = |index: usize| lists.iter().any(|list| list.state == index);
    let mut b = Builder::new(inner.name());
    b.reserve(inner.values().map(|(_, value)| value.name.clone()));
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    for (index, id) in inner.inputs().iter().enumerate() {
        if !(2..2 + states).contains(&index) || !dropped(index - 2) {
            map.insert(*id, b.input(inner.value_name(*id), inner.fact(*id).clone()));
        }
    }
    for (id, ..) in inner.initializers() {
        map.insert(id, b.copy_value(inner, id));
    }
    let results: HashSet<ValueId> =
        lists.iter().filter_map(|list| inner.outputs().get(1 + list.state)).copied().collect();
    for node in inner.nodes() {
        if node.outputs.iter().flatten().any(|output| results.contains(output)) {
            continue;
        }
        let inputs: Vec<_> = node.inputs.iter().map(|input| map.get(&(*input)?).copied()).collect();
        let outputs = b.copy_node(inner, node, &inputs);
        map.extend(node.outputs.iter().zip(outputs).filter_map(|(old, new)| Some(((*old)?, new?))));
    }
    for output in inner.outputs().iter().filter(|output| !results.contains(output)) {
        b.mark_output(map[output]);
    }
    for list in lists {
        let item = b.op("Identity", &[map[&list.item]], Attributes::none());
        b.rename(item, &outer.unique("appended"));
        b.refine(item, &list.fact);
        b.mark_output(item);
    }
    Subgraph { graph: b.finish(), captures: body.captures.clone() }
}
