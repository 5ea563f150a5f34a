//! Facts from runs of the model at several sizes.
//!
//! A dimension that is the same in every run is fixed, one that grows as a product of named sizes
//! is that product, any other stays unknown. What the elements of the data decide (`NonZero`, a
//! `Reshape` to a computed shape, ..) is not asked: a run would find one of many answers.

use super::Gap;
use crate::graph::{Dim, Fact, Graph, Model, Node, Size, ValueId, missing};
use std::collections::{HashMap, HashSet};

/// Most bytes of initializers of a model that is run for its facts.
pub const MOST_WEIGHTS: usize = 200_000_000;
/// Most named sizes that are varied, each in a run of its own.
const MOST_SYMBOLS: usize = 4;
/// Most elements of all values of a model that is run.
const MOST_ELEMENTS: usize = 1 << 30;
/// Most turns of a loop of a model that is run.
const MOST_TURNS: i64 = 1 << 16;
/// Size of a named first dimension.
const BATCH: usize = 2;
/// Size of any other named dimension that the caller gives no size for.
const OTHER: usize = 8;

/// Runs models, to look at the values inside.
pub trait Probe {
    /// Returns dtype and shape of the asked values in one run on made-up data, in the order asked.
    /// `sizes` has a number for every named size of the inputs.
    ///
    /// # Errors
    /// In words, why there was no run.
    fn run(&mut self, model: &Model, ask: &[ValueId], sizes: &HashMap<String, usize>) -> Result<Vec<Fact>, String>;
}

/// Returns what runs find out about the gaps.
pub(super) fn ask(
    model: &Model,
    gaps: &[Gap],
    sizes: &HashMap<String, usize>,
    probe: &mut dyn Probe,
) -> Result<HashMap<ValueId, Fact>, String> {
    let graph = &model.graph;
    let tainted = data_dependent(graph);
    // The values that were lost first; inference goes on from them.
    let first = |gap: &&Gap| graph.producer(gap.value) == Some(gap.node);
    let asked = gaps.iter().filter(|gap| gap.needed && !tainted[gap.value.0]);
    let ask: Vec<ValueId> = asked.filter(first).map(|gap| gap.value).collect();
    if ask.is_empty() {
        return Ok(HashMap::new());
    }
    let weights: usize = graph.initializers().map(|(_, _, tensor)| tensor.bytes().len()).sum();
    if weights > MOST_WEIGHTS {
        return Err(format!("the model has {weights} bytes of weights, more than {MOST_WEIGHTS}"));
    }
    let standard = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];
    if let Some(node) = graph.nodes().iter().find(|node| !standard.contains(&node.op.domain.as_str())) {
        return Err(format!("node \"{}\" has the custom operator {}", node.name, node.op));
    }
    let base = symbols(graph, sizes)?;
    bounded(graph, &base)?;
    let at = |sizes: &[(String, usize)]| sizes.iter().cloned().collect::<HashMap<String, usize>>();
    let found = probe.run(model, &ask, &at(&base))?;
    let mut varied = Vec::new();
    for index in 0..base.len().min(MOST_SYMBOLS) {
        let mut changed = base.clone();
        changed[index].1 = if changed[index].1 == BATCH { BATCH + 1 } else { 2 * changed[index].1 };
        varied.push(probe.run(model, &ask, &at(&changed)).ok().map(|facts| (changed[index].1, facts)));
    }
    let complete = varied.len() == base.len() && varied.iter().all(Option::is_some);
    let mut facts = HashMap::new();
    for (place, (id, fact)) in ask.iter().zip(&found).enumerate() {
        let runs: Vec<Option<(usize, &Fact)>> =
            varied.iter().map(|run| run.as_ref().and_then(|(size, facts)| Some((*size, facts.get(place)?)))).collect();
        if runs.iter().flatten().any(|(_, other)| other.rank() != fact.rank() || other.dtype != fact.dtype) {
            continue;
        }
        let dims = fact.shape.as_ref().map(|shape| {
            (0..shape.len()).map(|axis| if complete { dim(axis, fact, &base, &runs) } else { Dim::Unknown }).collect()
        });
        facts.insert(*id, Fact { dtype: fact.dtype, shape: dims });
    }
    Ok(facts)
}

/// Refuses a model of which a run could take more time or memory than its facts are worth.
fn bounded(graph: &Graph, base: &[(String, usize)]) -> Result<(), String> {
    let sized = graph.with_sizes(&base.iter().cloned().collect());
    let elements = |fact: &Fact| fact.sizes()?.into_iter().try_fold(1usize, usize::checked_mul);
    let known = sized.values().filter(|(_, value)| value.fact.sizes().is_some());
    let total = known.map(|(_, value)| elements(&value.fact)).try_fold(0usize, |sum, count| sum.checked_add(count?));
    if total.is_none_or(|total| total > MOST_ELEMENTS) {
        return Err(format!("the values of a run have more than {MOST_ELEMENTS} elements"));
    }
    let few = |id: ValueId| graph.constant(id)?.to_ints()?.first().map(|count| *count <= MOST_TURNS);
    let endless = |node: &&Node| node.op.is("Loop") && !node.input(0).and_then(few).unwrap_or(false);
    match graph.nodes().iter().find(endless) {
        Some(node) => Err(format!("node \"{}\" (Loop) may take more than {MOST_TURNS} turns", node.name)),
        None => Ok(()),
    }
}

/// Returns the named sizes of the inputs with the numbers of the first run.
fn symbols(graph: &Graph, sizes: &HashMap<String, usize>) -> Result<Vec<(String, usize)>, String> {
    let mut symbols: Vec<(String, usize)> = Vec::new();
    for id in graph.inputs() {
        let fact = graph.fact(*id);
        if let Some(missing) = missing(fact) {
            return Err(format!("the {missing} of input \"{}\" is not known", graph.value_name(*id)));
        }
        for (axis, dim) in fact.shape.iter().flatten().enumerate() {
            let Dim::Symbol(name) = dim else { continue };
            let size = if axis == 0 { BATCH } else { sizes.get(name).copied().unwrap_or(OTHER) };
            if !symbols.iter().any(|known| known.0 == *name) {
                symbols.push((name.clone(), size));
            }
        }
    }
    Ok(symbols)
}

/// Returns what a dimension is, from its size in the first run and in the run of each symbol.
fn dim(axis: usize, first: &Fact, base: &[(String, usize)], runs: &[Option<(usize, &Fact)>]) -> Dim {
    let size = |fact: &Fact| fact.shape.as_ref().and_then(|shape| shape.get(axis)?.known());
    let find = || -> Option<Dim> {
        let start = size(first)?;
        let mut factor = start;
        let mut product = Size::from(1);
        for ((name, number), run) in base.iter().zip(runs) {
            let (changed, fact) = run.as_ref()?;
            let found = size(fact)?;
            if found == start {
                continue;
            }
            // Only what grows as the named size does is that size.
            if start.checked_mul(*changed)? != found.checked_mul(*number)? || !factor.is_multiple_of(*number) {
                return None;
            }
            factor /= number;
            product = product.times(&Size::parse(name))?;
        }
        Some(Dim::from(product.times(&Size::from(i64::try_from(factor).ok()?))))
    };
    find().unwrap_or(Dim::Unknown)
}

/// Returns, for each value, whether the elements of the data decide its shape.
fn data_dependent(graph: &Graph) -> Vec<bool> {
    let count = graph.values().count();
    let (mut content, mut shape) = (vec![false; count], vec![false; count]);
    graph.inputs().iter().for_each(|id| content[id.0] = true);
    for node in graph.nodes() {
        let captured: Vec<ValueId> = node.captured().filter_map(|name| graph.find(name)).collect();
        let read: Vec<ValueId> = node.inputs.iter().flatten().copied().chain(captured).collect();
        let any = |flags: &[bool]| read.iter().any(|id| flags[id.0]);
        let operands = operands(graph, node);
        let decided = node
            .inputs
            .iter()
            .enumerate()
            .any(|(index, input)| input.is_some_and(|id| content[id.0] && operands.contains(&index)));
        let by_data = any(&shape) || decided || (counts(node) && any(&content));
        let elements =
            if matches!(node.op.name.as_str(), "Shape" | "Size") { any(&shape) } else { any(&content) || by_data };
        for output in node.outputs.iter().flatten() {
            shape[output.0] = by_data;
            content[output.0] = elements || node.op.name.starts_with("Random");
        }
    }
    shape
}

/// Returns true for operators that count elements of their inputs, or run a subgraph.
fn counts(node: &Node) -> bool {
    let names = ["NonZero", "Unique", "Compress", "NonMaxSuppression", "StringSplit", "SequenceMap"];
    names.contains(&node.op.name.as_str()) || matches!(node.op.name.as_str(), "If" | "Loop" | "Scan")
}

/// Returns the places of the inputs whose elements decide the shape of an output.
fn operands(graph: &Graph, node: &Node) -> HashSet<usize> {
    let places: &[usize] = match node.op.name.as_str() {
        _ if !node.op.domain.is_empty() => {
            let list = |input: &Option<ValueId>| {
                input.is_some_and(|id| {
                    let fact = graph.fact(id);
                    !fact.is_float() && fact.rank().is_none_or(|rank| rank <= 1)
                })
            };
            return (0..node.inputs.len()).filter(|index| list(&node.inputs[*index])).collect();
        }
        "ConstantOfShape" | "HannWindow" | "HammingWindow" | "BlackmanWindow" => &[0],
        "Range" | "MelWeightMatrix" => &[0, 1, 2],
        "Reshape" | "Expand" | "Tile" | "TopK" | "Upsample" | "OneHot" | "Split" | "SplitToSequence" | "Squeeze"
        | "Unsqueeze" | "CenterCropPad" | "AffineGrid" | "SequenceAt" | "SequenceErase" => &[1],
        "Slice" => &[1, 2, 3, 4],
        "Resize" | "DFT" | "STFT" | "Pad" => &[1, 2, 3],
        "Col2Im" => &[1, 2],
        "MaxUnpool" | "SequenceInsert" => &[2],
        name if name.starts_with("Reduce") => &[1],
        _ => &[],
    };
    places.iter().copied().collect()
}
