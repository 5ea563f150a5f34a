//! The embedded engine: tract, for machines without ONNX Runtime. Slower, and complete.
//!
//! tract needs fixed shapes, so a session keeps the model and prepares one plan for each set of
//! input shapes that is bound to it.

use super::engine::{BindingId, BufferId, Engine, EngineError, EngineInfo, SessionId, Slab, Target};
use super::tract_refused::refused;
use super::tract_stable::stable;
use crate::autodiff::Form;
use crate::graph::{Attribute, DType, Dim, Graph, Model, Node, Tensor};
use crate::onnx::to_bytes;
use crate::training::stage::expand;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use tract_onnx::prelude::{
    DatumType, Framework, InferenceModelExt, IntoArcTensor, IntoRunnable, IntoTValue, TValue, Tensor as TractTensor,
    TypedRunnableModel,
};

const NAME: &str = "tract";

/// Executes graphs with tract.
pub struct Tract {
    info: EngineInfo,
    sessions: Slab<Model>,
    buffers: Slab<Arc<TractTensor>>,
    bindings: Slab<Bound>,
}

struct Bound {
    session: usize,
    plan: Arc<TypedRunnableModel>,
    graph: String,
    inputs: Vec<usize>,
    outputs: Vec<(usize, Target)>,
}

impl Tract {
    /// Returns an engine on the CPU.
    pub fn new() -> Tract {
        let info = EngineInfo {
            name: NAME.into(),
            version: "0.23.9".into(),
            library: String::new(),
            device: "cpu".into(),
            threads: 1,
            form: Form::Portable,
            remote: false,
            recomputes: false,
        };
        Tract { info, sessions: Slab::default(), buffers: Slab::default(), bindings: Slab::default() }
    }
}

impl Default for Tract {
    fn default() -> Self {
        Tract::new()
    }
}

fn datum_type(dtype: DType) -> Option<DatumType> {
    Some(match dtype {
        DType::F32 => DatumType::F32,
        DType::F64 => DatumType::F64,
        DType::F16 => DatumType::F16,
        DType::I64 => DatumType::I64,
        DType::I32 => DatumType::I32,
        DType::I16 => DatumType::I16,
        DType::I8 => DatumType::I8,
        DType::U64 => DatumType::U64,
        DType::U32 => DatumType::U32,
        DType::U16 => DatumType::U16,
        DType::U8 => DatumType::U8,
        DType::Bool => DatumType::Bool,
        DType::BF16 | DType::String | DType::Other(_) => return None,
    })
}

fn upload(tensor: &Tensor) -> Result<TractTensor, EngineError> {
    let what = || format!("{}{:?}", tensor.dtype(), tensor.shape());
    let fail = |reason: String| EngineError::Buffer { engine: NAME, what: what(), reason };
    let datum = datum_type(tensor.dtype()).ok_or_else(|| fail("no such dtype".into()))?;
    // SAFETY: every bit pattern of these plain types is a value; bool bytes come from bool tensors.
    unsafe { TractTensor::from_raw_dt(datum, tensor.shape(), tensor.bytes()) }.map_err(|error| fail(error.to_string()))
}

fn download(tensor: &TractTensor) -> Result<Tensor, EngineError> {
    let fail = |reason: String| EngineError::Buffer { engine: NAME, what: format!("{tensor:?}"), reason };
    let tensor = if tensor.datum_type() == DatumType::TDim {
        &*tensor.cast_to::<i64>().map_err(|error| fail(error.to_string()))?
    } else {
        tensor
    };
    let all = [
        DType::F32,
        DType::F64,
        DType::F16,
        DType::I64,
        DType::I32,
        DType::I16,
        DType::I8,
        DType::U64,
        DType::U32,
        DType::U16,
        DType::U8,
        DType::Bool,
    ];
    let dtype = all.into_iter().find(|dtype| datum_type(*dtype) == Some(tensor.datum_type()));
    let dtype = dtype.ok_or_else(|| fail("this dtype cannot be read back".into()))?;
    Tensor::new(dtype, tensor.shape().to_vec(), Bytes::copy_from_slice(tensor.as_bytes()))
        .map_err(|error| fail(error.to_string()))
}

impl Engine for Tract {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn load(&mut self, model: &Model) -> Result<SessionId, EngineError> {
        Ok(SessionId(self.sessions.insert(model.clone())))
    }

    fn unload(&mut self, session: SessionId) {
        self.bindings.retain(|bound| bound.session != session.0);
        self.sessions.remove(session.0);
    }

    fn allocate(&mut self, tensor: &Tensor) -> Result<BufferId, EngineError> {
        Ok(BufferId(self.buffers.insert(Arc::new(upload(tensor)?))))
    }

    fn write(&mut self, buffer: BufferId, tensor: &Tensor) -> Result<(), EngineError> {
        *self.buffers.get_mut(buffer.0) = Arc::new(upload(tensor)?);
        Ok(())
    }

    fn read(&self, buffer: BufferId) -> Result<Tensor, EngineError> {
        download(self.buffers.get(buffer.0))
    }

    fn free(&mut self, buffer: BufferId) {
        self.buffers.remove(buffer.0);
    }

    fn bind(
        &mut self,
        session: SessionId,
        inputs: &[(&str, BufferId)],
        outputs: &[(&str, Target)],
    ) -> Result<BindingId, EngineError> {
        let model = self.sessions.get(session.0);
        let graph = &model.graph;
        let name = graph.name().to_string();
        let fail = |reason: String| EngineError::Load { engine: NAME, graph: name.clone(), reason };
        if let Some(reason) = graph.nodes().iter().find_map(misread) {
            return Err(fail(reason));
        }
        let mut symbols: HashMap<String, usize> = HashMap::new();
        let mut order = Vec::new();
        for id in graph.inputs() {
            let input = graph.value_name(*id);
            let (_, buffer) = inputs
                .iter()
                .find(|(name, _)| *name == input)
                .ok_or_else(|| fail(format!("input \"{input}\" is not bound")))?;
            let shape = self.buffers.get(buffer.0).shape();
            for (dim, size) in graph.fact(*id).shape.iter().flatten().zip(shape) {
                if let Dim::Symbol(symbol) = dim {
                    symbols.insert(symbol.clone(), *size);
                }
            }
            order.push(buffer.0);
        }
        if let Some(reason) = refused(graph, model.opset()) {
            return Err(fail(reason));
        }
        let plan = prepare(model, &symbols).map_err(|error| fail(format!("{error:#}")))?;
        let mut targets = Vec::new();
        for (output, target) in outputs {
            let id = graph.find(output).ok_or_else(|| fail(format!("there is no output \"{output}\"")))?;
            let position = graph.outputs().iter().position(|other| *other == id);
            let position = position.ok_or_else(|| fail(format!("\"{output}\" is no output")))?;
            targets.push((position, *target));
        }
        let bound = Bound { session: session.0, plan, graph: name, inputs: order, outputs: targets };
        Ok(BindingId(self.bindings.insert(bound)))
    }

    fn unbind(&mut self, binding: BindingId) {
        self.bindings.remove(binding.0);
    }

    fn run(&mut self, binding: BindingId) -> Result<Vec<Tensor>, EngineError> {
        let bound = self.bindings.get(binding.0);
        let inputs = bound.inputs.iter().map(|id| self.buffers.get(*id).clone().into_tvalue()).collect();
        let mut results: Vec<Option<TValue>> = bound
            .plan
            .run(inputs)
            .map_err(|error| EngineError::Run {
                engine: NAME,
                graph: bound.graph.clone(),
                reason: format!("{error:#}"),
            })?
            .into_iter()
            .map(Some)
            .collect();
        let mut host = Vec::new();
        for (position, target) in bound.outputs.clone() {
            let value = results[position].take().expect("invariant: an output is bound once");
            match target {
                Target::Host => host.push(download(&value)?),
                Target::Buffer(id) => *self.buffers.get_mut(id.0) = value.into_arc_tensor(),
            }
        }
        Ok(host)
    }
}

/// Returns why tract would compute something else than a node says: it passes over some attributes
/// of recurrent layers, and goes wrong in a Scan in a Scan.
fn misread(node: &Node) -> Option<String> {
    if node.op.is("Scan") && has_scan(node) {
        return Some(format!("node \"{}\": a Scan in a Scan is not supported", node.name));
    }
    let default: &[&str] = match node.op.name.as_str() {
        "LSTM" => &["sigmoid", "tanh", "tanh"],
        "GRU" => &["sigmoid", "tanh"],
        "RNN" => &["tanh"],
        _ => return None,
    };
    let attributes = &node.attributes;
    let usual = match attributes.get("activations") {
        None => true,
        Some(Attribute::Strings(names)) => {
            names.iter().zip(default.iter().cycle()).all(|(name, usual)| name.eq_ignore_ascii_case(usual.as_bytes()))
        }
        Some(_) => false,
    };
    let what = if !usual {
        "activations"
    } else if attributes.get("clip").is_some() {
        "clip"
    } else if attributes.int("input_forget", 0) != Ok(0) {
        "input_forget"
    } else if attributes.text("direction", "forward").as_deref() == Ok("reverse") {
        "direction"
    } else {
        return None;
    };
    Some(format!("node \"{}\": attribute \"{what}\" of {} is not supported", node.name, node.op))
}

/// Returns true for a node that has a Scan in a subgraph, however deep.
fn has_scan(node: &Node) -> bool {
    node.attributes.iter().any(|(_, value)| match value {
        Attribute::Graph(inner) => inner.graph.nodes().iter().any(|node| node.op.is("Scan") || has_scan(node)),
        _ => false,
    })
}

fn prepare(
    model: &Model,
    symbols: &HashMap<String, usize>,
) -> tract_onnx::prelude::TractResult<Arc<TypedRunnableModel>> {
    let sized = model.graph.with_sizes(symbols);
    // It has no SoftmaxCrossEntropyLoss and no NegativeLogLikelihoodLoss.
    let sized = expand(&sized).map_or(sized, |expanded| expanded.with_sizes(symbols));
    let read = |graph: Graph| {
        let bytes = to_bytes(&model.with_graph(graph));
        let read = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
        read.model_for_read(&mut bytes.as_slice())?.into_typed()
    };
    let typed = match model.opset() {
        // It refuses to be told a size that it does not find itself.
        18.. => read(stable(&sized, true)).or_else(|_| read(stable(&sized, false)))?,
        _ => read(sized)?,
    };
    // Its passes fail on some graphs, and leave a hole in others that would fail when run.
    let optimized = typed.clone().into_decluttered().and_then(|model| model.into_optimized());
    let whole = optimized.ok().filter(|model| model.nodes().iter().all(|node| node.op().name() != "Dummy"));
    let plan = whole.unwrap_or(typed).into_runnable()?;
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::misread;
    use crate::graph::{Attribute, Attributes, Node, OpId, Origin};

    #[test]
    fn what_tract_passes_over_is_refused() {
        struct Case {
            op: &'static str,
            attributes: Attributes,
            refused: Option<&'static str>,
        }
        let none = Attributes::none;
        let names = |names: &[&'static str]| Attribute::Strings(names.iter().map(|name| (*name).into()).collect());
        let cases = [
            Case { op: "LSTM", attributes: none().with("direction", "bidirectional"), refused: None },
            Case { op: "LSTM", attributes: none().with("direction", "reverse"), refused: Some("direction") },
            Case { op: "LSTM", attributes: none().with("input_forget", 1), refused: Some("input_forget") },
            Case { op: "GRU", attributes: none().with("clip", 1.0f32), refused: Some("clip") },
            Case { op: "GRU", attributes: none().with("activations", names(&["Sigmoid", "Tanh"])), refused: None },
            Case { op: "RNN", attributes: none().with("activations", names(&["Relu"])), refused: Some("activations") },
            Case { op: "Conv", attributes: none().with("clip", 1.0f32), refused: None },
        ];
        for Case { op, attributes, refused } in cases {
            let node = Node {
                name: "n".into(),
                op: OpId::standard(op),
                overload: String::new(),
                inputs: Vec::new(),
                outputs: Vec::new(),
                attributes,
                origin: Origin::Forward,
                metadata: Vec::new(),
            };
            let expected = refused.map(|what| format!("node \"n\": attribute \"{what}\" of {op} is not supported"));
            assert_eq!(misread(&node), expected);
        }
    }
}
