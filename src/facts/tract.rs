//! Facts from tract's analysis of a copy of the model.
//!
//! The copy has the shapes of the model and is not meant to run: `BatchNormalization` and
//! `Dropout` pass their input through, large weights are inputs of a fixed shape, and a node that
//! tract refuses to read has an operator it does not know, so that its outputs stay open.

use crate::graph::{Attributes, Builder, DType, Dim, Fact, Graph, Model, Node, OpId, ValueId};
use crate::onnx::to_bytes;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tract_onnx::prelude::{DatumType, Framework, InferenceFact, InferenceModel, InferenceModelExt, TDim};
use tract_onnx::tract_hir::internal::{DimFact, Factoid};

/// Initializers of more elements than this say nothing about a shape.
const LARGE: usize = 256;
/// How many nodes tract may refuse before the whole model is given up.
const ATTEMPTS: usize = 32;

/// What tract found.
#[derive(Debug, Default)]
pub(super) struct Analysis {
    /// Facts by value.
    pub facts: Vec<(ValueId, Fact)>,
    /// Why it is not all, for a person.
    pub note: Option<String>,
}

/// Returns what tract finds out.
pub(super) fn analyse(model: &Model) -> Analysis {
    // tract may panic on a model it does not expect; its facts are not needed to go on.
    let result = catch_unwind(AssertUnwindSafe(|| load(model)));
    let (analysed, note) = match result {
        Ok(Ok(found)) => found,
        Ok(Err(reason)) => return Analysis { facts: Vec::new(), note: Some(format!("tract's analysis: {reason}")) },
        Err(_) => return Analysis { facts: Vec::new(), note: Some("tract's analysis stopped with a panic".into()) },
    };
    let facts = analysed.outlet_labels.iter().filter_map(|(outlet, label)| {
        let value = model.graph.find(label)?;
        Some((value, fact(analysed.outlet_fact(*outlet).ok()?)))
    });
    Analysis { facts: facts.collect(), note }
}

fn load(model: &Model) -> Result<(InferenceModel, Option<String>), String> {
    let mut refused: HashSet<String> = HashSet::new();
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let copy = Model { graph: analysis_copy(&model.graph, &refused), ..model.clone() };
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

fn analysis_copy(graph: &Graph, refused: &HashSet<String>) -> Graph {
    let mut builder = Builder::new(graph.name());
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    for id in graph.inputs() {
        map.insert(*id, builder.input(graph.value_name(*id), graph.fact(*id).clone()));
    }
    for (id, value, tensor) in graph.initializers() {
        let new = if tensor.dtype().is_float() && tensor.len() > LARGE {
            builder.input(&value.name, value.fact.clone())
        } else {
            builder.copy_value(graph, id)
        };
        map.insert(id, new);
    }
    for node in graph.nodes() {
        let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|input| input.map(|id| map[&id])).collect();
        for (output, standin) in stand_ins(node, refused) {
            let inputs = if standin.inputs.is_empty() { inputs.clone() } else { standin.read(&inputs) };
            let outputs = builder.copy_node(graph, &standin.node, &inputs);
            let old = if let Some(output) = output { vec![node.outputs[output]] } else { node.outputs.clone() };
            map.extend(old.into_iter().zip(outputs).filter_map(|(old, new)| Some((old?, new?))));
        }
    }
    let outputs: Vec<ValueId> = graph.outputs().iter().map(|id| map[id]).collect();
    outputs.into_iter().for_each(|id| builder.mark_output(id));
    builder.finish()
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

fn fact(found: &InferenceFact) -> Fact {
    let dim = |dim: &DimFact| match dim.concretize() {
        Some(TDim::Val(size)) => usize::try_from(size).map_or(Dim::Unknown, Dim::Known),
        Some(TDim::Sym(symbol)) => Dim::Symbol(symbol.to_string()),
        _ => Dim::Unknown,
    };
    let shape = (!found.shape.is_open()).then(|| found.shape.dims().map(dim).collect());
    Fact { dtype: found.datum_type.concretize().and_then(dtype), shape }
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
