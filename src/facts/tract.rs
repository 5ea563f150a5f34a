//! Facts from tract's analysis of a copy of the model.
//!
//! The copy holds the nodes around the gaps and is not meant to run: what is known already, and
//! every large constant, is an input of its shape, `BatchNormalization` and `Dropout` pass their
//! input through, and a node that tract refuses to read has an operator it does not know, so that
//! its outputs stay open.

use super::Gap;
use crate::graph::{
    Attribute, Attributes, Builder, DType, Dim, Fact, Graph, Model, Node, NodeId, OpId, Size, ValueId, missing,
};
use crate::onnx::to_bytes;
use std::collections::{HashMap, HashSet};
use tract_onnx::prelude::{DatumType, Framework, InferenceFact, InferenceModel, InferenceModelExt, TDim};
use tract_onnx::tract_hir::internal::{DimFact, Factoid};

/// Values of more elements than this are inputs of the copy.
const LARGE: usize = 256;
/// How many nodes tract may refuse before the whole model is given up.
const ATTEMPTS: usize = 32;
/// Nodes of a copy that is not too large for tract.
const MOST_NODES: usize = 5_000;

/// Name of the thread that tract runs on. A panic on it is handled, so a hook need not tell it.
pub const THREAD: &str = "tract";
/// Stack of that thread, in bytes.
const STACK: usize = 256 << 20;

/// What tract found.
#[derive(Debug, Default)]
pub(super) struct Analysis {
    /// Facts by value.
    pub facts: HashMap<ValueId, Fact>,
    /// Why it is not all, for a person.
    pub note: Option<String>,
}

/// Returns what tract finds out about the gaps of a model whose other facts are known.
pub(super) fn analyse(model: &Model, gaps: &[Gap]) -> Analysis {
    let nothing = |note: Option<String>| Analysis { facts: HashMap::new(), note };
    if gaps.iter().filter(|gap| gap.needed).all(|gap| hopeless(model.graph.node(gap.node))) {
        return nothing(None);
    }
    let region = region(&model.graph, gaps);
    if region.len() > MOST_NODES {
        return nothing(Some(format!("tract's analysis: {} nodes are too many", region.len())));
    }
    let mut symbols = Symbols::default();
    // tract may panic on a model it does not expect, and recurses; its facts are not needed to go on.
    let result = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(THREAD.into()).stack_size(STACK);
        thread.spawn_scoped(scope, || load(model, &region, &mut symbols)).map(|thread| thread.join())
    });
    let (analysed, note) = match result {
        Ok(Ok(Ok(found))) => found,
        Ok(Ok(Err(reason))) => return nothing(Some(format!("tract's analysis: {reason}"))),
        Ok(Err(_)) => return nothing(Some("tract's analysis stopped with a panic".into())),
        Err(error) => return nothing(Some(format!("tract's analysis: {error}"))),
    };
    let facts = analysed.outlet_labels.iter().filter_map(|(outlet, label)| {
        let value = model.graph.find(label).filter(|id| model.graph.producer(*id).is_some())?;
        Some((value, fact(analysed.outlet_fact(*outlet).ok()?, &symbols)))
    });
    Analysis { facts: facts.collect(), note }
}

/// Returns true for nodes of which tract knows no more than we do.
fn hopeless(node: &Node) -> bool {
    let names = ["NonZero", "Unique", "Compress", "NonMaxSuppression", "Loop", "SplitToSequence", "SequenceAt"];
    !node.op.domain.is_empty() || names.contains(&node.op.name.as_str())
}

/// Returns the nodes around the gaps: those that have one, and the arithmetic that they read.
fn region(graph: &Graph, gaps: &[Gap]) -> HashSet<NodeId> {
    let mut wanted: HashSet<ValueId> = gaps.iter().map(|gap| gap.value).collect();
    let mut region = HashSet::new();
    let nodes: Vec<(NodeId, &Node)> = graph.node_ids().collect();
    for (id, node) in nodes.into_iter().rev() {
        if node.outputs.iter().flatten().any(|output| wanted.contains(output)) {
            region.insert(id);
            let captured = node.captured().filter_map(|name| graph.find(name));
            let read = node.inputs.iter().flatten().copied().chain(captured);
            wanted.extend(read.filter(|id| !boundary(graph, *id)));
        }
    }
    region
}

/// Returns true for a value that can be an input of the copy: only its fact matters.
fn boundary(graph: &Graph, id: ValueId) -> bool {
    let fact = graph.fact(id);
    let elements = |sizes: Vec<usize>| sizes.into_iter().try_fold(1usize, usize::checked_mul);
    let large = || fact.sizes().is_some_and(|sizes| elements(sizes).is_none_or(|count| count > LARGE));
    missing(fact).is_none() && (fact.is_float() || large())
}

/// The named sizes of a model under names that tract can read.
#[derive(Debug, Default)]
struct Symbols(Vec<String>);

impl Symbols {
    fn rename(&mut self, fact: &Fact) -> Fact {
        let mut dim = |dim: &Dim| match dim {
            Dim::Symbol(text) => {
                let known = self.0.iter().position(|known| known == text);
                let place = known.unwrap_or_else(|| {
                    self.0.push(text.clone());
                    self.0.len() - 1
                });
                Dim::Symbol(format!("size{place}"))
            }
            dim => dim.clone(),
        };
        Fact { dtype: fact.dtype, shape: fact.shape.as_ref().map(|shape| shape.iter().map(&mut dim).collect()) }
    }

    fn size(&self, name: &str) -> Option<Size> {
        let place: usize = name.strip_prefix("size")?.parse().ok()?;
        self.0.get(place).map(|text| Size::parse(text))
    }
}

fn load(
    model: &Model,
    region: &HashSet<NodeId>,
    symbols: &mut Symbols,
) -> Result<(InferenceModel, Option<String>), String> {
    let mut refused: HashSet<String> = HashSet::new();
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let copy = model.with_graph(analysis_copy(&model.graph, region, &refused, symbols));
        let bytes = to_bytes(&copy);
        let loaded = tract_onnx::onnx()
            .with_ignore_value_info(true)
            .with_ignore_output_shapes(true)
            .model_for_read(&mut bytes.as_slice());
        match loaded {
            Ok(mut loaded) => {
                let note = loaded.analyse(true).err().map(|error| format!("tract's analysis: {}", short(&error)));
                return Ok((loaded, note));
            }
            Err(error) => {
                last = short(&error);
                let text = format!("{error:#}");
                let culprit = copy.graph.nodes().iter().find(|node| {
                    !refused.contains(&node.name)
                        && text.contains(&format!("Building node {} ({})", node.name, node.op.name))
                });
                refused.insert(culprit.ok_or_else(|| last.clone())?.name.clone());
            }
        }
    }
    Err(last)
}

fn short(error: &impl std::fmt::Display) -> String {
    let text = format!("{error:#}");
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(200).collect()
}

fn analysis_copy(graph: &Graph, region: &HashSet<NodeId>, refused: &HashSet<String>, symbols: &mut Symbols) -> Graph {
    let mut builder = Builder::new(graph.name());
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    for (_, node) in graph.node_ids().filter(|(id, _)| region.contains(id)) {
        let captured = node.captured().filter_map(|name| graph.find(name));
        for input in node.inputs.iter().flatten().copied().chain(captured) {
            map.entry(input).or_insert_with(|| outside(&mut builder, graph, input, symbols));
        }
        let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|input| map.get(&(*input)?).copied()).collect();
        let large = node.attributes.iter().any(|(_, value)| matches!(value, Attribute::Tensor(t) if t.len() > LARGE));
        if large && node.op.is("Constant") {
            let fact = node.output(0).map(|output| (output, graph.fact(output).clone()));
            map.extend(fact.map(|(output, fact)| (output, builder.input(graph.value_name(output), fact))));
            continue;
        }
        for (output, standin) in stand_ins(node, refused) {
            let inputs = if standin.inputs.is_empty() { inputs.clone() } else { standin.read(&inputs) };
            let outputs = builder.copy_node(graph, &standin.node, &inputs);
            let old = if let Some(output) = output { vec![node.outputs[output]] } else { node.outputs.clone() };
            map.extend(old.into_iter().zip(outputs).filter_map(|(old, new)| Some((old?, new?))));
        }
        for output in node.outputs.iter().flatten() {
            map.get(output).copied().into_iter().for_each(|output| builder.mark_output(output));
        }
    }
    builder.finish()
}

/// Adds a value that no node of the copy makes: a small initializer with its elements, all else as
/// an input.
fn outside(builder: &mut Builder, graph: &Graph, id: ValueId, symbols: &mut Symbols) -> ValueId {
    let value = graph.value(id);
    match &value.initializer {
        Some(tensor) if tensor.len() <= LARGE => builder.copy_value(graph, id),
        _ => builder.input(&value.name, symbols.rename(&value.fact)),
    }
}

struct StandIn {
    node: Node,
    inputs: Vec<usize>,
}

impl StandIn {
    fn read(&self, inputs: &[Option<ValueId>]) -> Vec<Option<ValueId>> {
        self.inputs.iter().map(|index| inputs.get(*index).copied().flatten()).collect()
    }
}

/// Returns the nodes that stand for a node in the copy, each with the output it makes; without
/// one, all outputs.
fn stand_ins(node: &Node, refused: &HashSet<String>) -> Vec<(Option<usize>, StandIn)> {
    let pass = |output: usize, input: usize, op: &str| {
        let name = if output == 0 { node.name.clone() } else { format!("{}#{output}", node.name) };
        let to = if op == "Cast" {
            Attributes::none().with("to", i64::from(DType::Bool.code()))
        } else {
            Attributes::none()
        };
        let outputs = vec![node.outputs[output]];
        let node = Node { name, op: OpId::standard(op), attributes: to, outputs, ..node.clone() };
        (Some(output), StandIn { node, inputs: vec![input] })
    };
    let present = |count: usize| (0..count.min(node.outputs.len())).filter(|index| node.output(*index).is_some());
    if node.op.is("BatchNormalization") {
        return present(5).map(|output| pass(output, if output == 0 { 0 } else { 3 }, "Identity")).collect();
    }
    if node.op.is("Dropout") {
        return present(2).map(|output| pass(output, 0, if output == 0 { "Identity" } else { "Cast" })).collect();
    }
    let mut copy = node.clone();
    if refused.contains(&node.name) || !node.op.domain.is_empty() {
        copy.op = OpId { domain: String::new(), name: format!("Unread{}", node.op.name) };
    }
    vec![(None, StandIn { node: copy, inputs: Vec::new() })]
}

fn fact(found: &InferenceFact, symbols: &Symbols) -> Fact {
    let dim = |dim: &DimFact| Dim::from(dim.concretize().and_then(|dim| size(&dim, symbols)));
    let shape = (!found.shape.is_open()).then(|| found.shape.dims().map(dim).collect());
    Fact { dtype: found.datum_type.concretize().and_then(dtype), shape }
}

fn size(dim: &TDim, symbols: &Symbols) -> Option<Size> {
    match dim {
        TDim::Val(size) => Some(Size::from(*size)),
        TDim::Sym(symbol) => symbols.size(&symbol.to_string()),
        TDim::Add(terms) => terms.iter().try_fold(Size::from(0), |sum, term| sum.plus(&size(term, symbols)?)),
        TDim::Mul(terms) => terms.iter().try_fold(Size::from(1), |product, term| product.times(&size(term, symbols)?)),
        TDim::MulInt(count, term) => size(term, symbols)?.times(&Size::from(*count)),
        TDim::Div(term, divisor) => size(term, symbols)?.floor_by(i64::try_from(*divisor).ok()?),
        _ => None,
    }
}

fn dtype(found: DatumType) -> Option<DType> {
    Some(match found {
        DatumType::F32 => DType::F32,
        DatumType::F64 => DType::F64,
        DatumType::F16 => DType::F16,
        DatumType::I64 | DatumType::TDim => DType::I64,
        DatumType::I32 => DType::I32,
        DatumType::I16 => DType::I16,
        DatumType::I8 => DType::I8,
        DatumType::U64 => DType::U64,
        DatumType::U32 => DType::U32,
        DatumType::U16 => DType::U16,
        DatumType::U8 => DType::U8,
        DatumType::Bool => DType::Bool,
        _ => return None,
    })
}
