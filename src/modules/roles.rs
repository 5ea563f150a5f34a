//! Decides the role of an initializer; the rules are those of `parameters`.

use super::hints::{self, PEEK};
use super::names::{is_state_name, slash_owner};
use super::parameters::Role;
use super::signature::{self, Signed};
use super::uses::{Use, Uses, carries_gradient, is_quantized, source};
use crate::graph::{Attribute, DType, Graph, Model, Node, Tensor, ValueId};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// What decides the roles in one model.
pub(super) struct Roles<'a> {
    graph: &'a Graph,
    uses: Uses,
    signed: HashMap<&'a str, Signed>,
    /// Whether a gradient of an output reaches a value, by position.
    live: Vec<bool>,
    /// Modules with running statistics that no `BatchNormalization` reads.
    written_out: HashSet<&'a str>,
    /// The slots inside of subgraphs that read a value of the graph, by its name.
    inside: HashMap<&'a str, Vec<(&'a Node, usize)>>,
}

type Reason = Cow<'static, str>;

impl<'a> Roles<'a> {
    pub(super) fn new(model: &'a Model) -> Roles<'a> {
        let graph = &model.graph;
        let mut roles = Roles {
            graph,
            uses: Uses::new(graph),
            signed: signature::read(model),
            live: live(graph),
            written_out: HashSet::new(),
            inside: HashMap::new(),
        };
        read_inside(graph, &mut roles.inside);
        for (id, value, _) in graph.initializers() {
            if let Some(path) = value.name.strip_suffix(".running_var")
                && !roles.uses.through_views(graph, id).iter().any(|reader| roles.is_statistic(*reader))
            {
                roles.written_out.insert(path);
            }
        }
        roles
    }

    /// Returns the role of an initializer and why.
    pub(super) fn of(&self, id: ValueId) -> (Role, Reason) {
        let value = self.graph.value(id);
        let Some(tensor) = &value.initializer else { return (Role::Buffer, "it is no initializer".into()) };
        let buffer = |reason: Reason| (Role::Buffer, reason);
        if !tensor.dtype().is_float() {
            return buffer(format!("{} has no gradient", tensor.dtype()).into());
        }
        let name = value.name.as_str();
        let (views, readers) = self.uses.views(self.graph, id);
        let inside = readers_inside(self.graph, &views, &self.inside);
        if readers.is_empty() {
            return self.of_captured(id, tensor, &inside);
        }
        let op = |reader: &Use| self.graph.node(reader.node).op.name.as_str();
        if let Some(reader) = readers.iter().find(|reader| is_quantized(self.graph.node(reader.node))) {
            return buffer(format!("{} reads it as {}", op(reader), ordinal(reader.input)).into());
        }
        let signed = self.signed.get(name);
        let statistic = readers.iter().find(|reader| self.is_statistic(**reader));
        let carried: Vec<Use> = readers.iter().copied().filter(|reader| self.carries(*reader)).collect();
        let Some(first) = carried.first() else {
            return match statistic {
                Some(reader) => (Role::Statistic, self.statistic_of(*reader)),
                None if !inside.is_empty() => self.of_captured(id, tensor, &inside),
                None => buffer(self.no_gradient(&readers)),
            };
        };
        match signed {
            Some(Signed { parameter: true, .. }) => {
                return (Role::Trainable, "the exported program's signature".into());
            }
            Some(_) => return buffer("the exported program's signature".into()),
            None => {}
        }
        let named = is_state_name(name) && (self.signed.is_empty() || name.contains('.'));
        if named && let Some(reason) = self.named_buffer(name, tensor, &carried) {
            return buffer(reason);
        }
        if let Some(reader) =
            carried.iter().find(|reader| is_structural(self.graph.node(reader.node), reader.input, tensor, named))
        {
            return (Role::Trainable, format!("{} of {}", part(op(reader), reader.input), op(reader)).into());
        }
        if named {
            let telling = tensor.len() > 1 || name.contains('.') || hints::is_scale(name);
            let reason = format!("named, and {} passes a gradient to it", op(first));
            return if telling { (Role::Trainable, reason.into()) } else { buffer("a single number".into()) };
        }
        if let Some(reader) = carried.iter().find(|reader| self.is_bias_or_scale(**reader, tensor, name)) {
            return (Role::Trainable, format!("a vector that {} applies as a bias or scale", op(reader)).into());
        }
        buffer("a constant of the exporter".into())
    }

    /// Returns the role of an initializer to which no gradient passes, unless from inside of a subgraph.
    fn of_captured(&self, id: ValueId, tensor: &Tensor, readers: &[(&Node, usize)]) -> (Role, Reason) {
        let name = self.graph.value_name(id);
        if readers.is_empty() {
            return (Role::Buffer, "no node reads it".into());
        }
        let only = || (Role::Buffer, "only a subgraph reads it".into());
        if !self.live[id.0] {
            return (Role::Buffer, "no gradient of an output reaches it".into());
        }
        match self.signed.get(name) {
            Some(Signed { parameter: true, .. }) => {
                return (Role::Trainable, "the exported program's signature".into());
            }
            Some(_) => return (Role::Buffer, "the exported program's signature".into()),
            None => {}
        }
        let named = is_state_name(name) && (self.signed.is_empty() || name.contains('.'));
        let last = name.rsplit_once('.').map_or(name, |(_, last)| last);
        if readers.iter().any(|(node, _)| is_quantized(node)) || named && hints::is_buffer_name(last) {
            return only();
        }
        let mut carried = readers.iter().filter(|(node, input)| carries_gradient(node, *input));
        let structural = carried.clone().find(|(node, input)| is_structural(node, *input, tensor, named));
        if let Some((node, input)) = structural {
            let op = node.op.name.as_str();
            return (Role::Trainable, format!("{} of {op} in a subgraph", part(op, *input)).into());
        }
        let telling = named && (tensor.len() > 1 || name.contains('.') || hints::is_scale(name));
        match carried.next().filter(|_| telling) {
            Some((node, _)) => {
                let op = &node.op.name;
                (Role::Trainable, format!("named, and {op} in a subgraph passes a gradient to it").into())
            }
            None => only(),
        }
    }

    fn is_statistic(&self, reader: Use) -> bool {
        self.graph.node(reader.node).op.is("BatchNormalization") && matches!(reader.input, 3 | 4)
    }

    fn statistic_of(&self, reader: Use) -> Reason {
        let part = if reader.input == 3 { "running mean" } else { "running variance" };
        format!("{part} of BatchNormalization").into()
    }

    /// Returns true when a gradient of an output passes to what the slot reads.
    fn carries(&self, reader: Use) -> bool {
        let node = self.graph.node(reader.node);
        carries_gradient(node, reader.input) && node.outputs.iter().flatten().any(|output| self.live[output.0])
    }

    fn no_gradient(&self, readers: &[Use]) -> Reason {
        let blind = readers.iter().find(|reader| !carries_gradient(self.graph.node(reader.node), reader.input));
        match blind {
            Some(reader) => {
                let op = &self.graph.node(reader.node).op.name;
                format!("{op} reads it as {}, which has no gradient", ordinal(reader.input)).into()
            }
            None => "no gradient of an output reaches it".into(),
        }
    }

    fn named_buffer(&self, name: &str, tensor: &Tensor, readers: &[Use]) -> Option<Reason> {
        let (path, last) = name.rsplit_once('.').unwrap_or(("", name));
        if matches!(last, "weight" | "bias") {
            let written_out = name.contains('.') && self.written_out.contains(path);
            return written_out.then(|| "part of a BatchNorm written out with fixed statistics".into());
        }
        if hints::is_sine_name(last) && tensor.len() <= PEEK {
            return hints::is_sine_table(tensor).then(|| format!("\"{last}\" with the values of sines").into());
        }
        if hints::spectral_original(name).is_some_and(|original| self.graph.find(&original).is_some()) {
            return Some("a vector of spectral normalization".into());
        }
        if hints::is_buffer_name(last) {
            return Some(format!("\"{last}\" is a name of buffers").into());
        }
        let every = |test: &dyn Fn(&Node, usize) -> bool| {
            readers.iter().all(|reader| test(self.graph.node(reader.node), reader.input))
        };
        let other = |node: &Node, input: usize| node.input(1 - input.min(1));
        let shifts = |node: &Node, input: usize| {
            let elementwise = matches!(node.op.name.as_str(), "Sub" | "Div") && input == 1 || node.op.is("Mul");
            elementwise && other(node, input).is_some_and(|value| hints::is_raw_input(self.graph, value))
        };
        if is_vector(tensor) && every(&shifts) {
            return Some("it shifts or scales a graph input".into());
        }
        if tensor.len() == 1 && every(&|node, input| node.op.is("Where") && input > 0) {
            return Some("the number that Where fills in".into());
        }
        let masks = |node: &Node, _| node.op.is("Add") && hints::goes_to_softmax(self.graph, &self.uses, node);
        if hints::is_mask(tensor) && every(&masks) {
            return Some("a mask added before Softmax".into());
        }
        let turns = |node: &Node, _| {
            matches!(node.op.name.as_str(), "Mul" | "Div" | "MatMul" | "Einsum" | "Gemm")
                && hints::goes_to_rotation(self.graph, &self.uses, node)
        };
        every(&turns).then(|| "frequencies: only Cos and Sin read its products".into())
    }

    fn is_bias_or_scale(&self, reader: Use, tensor: &Tensor, name: &str) -> bool {
        let node = self.graph.node(reader.node);
        let elementwise = matches!(node.op.name.as_str(), "Add" | "Sub" | "Mul" | "Div");
        elementwise && is_vector(tensor) && (slash_owner(name).is_some() || self.follows_linear(node, reader.input))
    }

    /// Returns true when the other operand comes from a linear node or a normalisation, also where a
    /// scale or bias is applied in between.
    fn follows_linear(&self, node: &Node, input: usize) -> bool {
        let mut other = node.input(1 - input.min(1));
        for _ in 0..3 {
            let value = other.map(|value| source(self.graph, value));
            let Some(producer) = value.and_then(|value| self.graph.producer(value)) else { return false };
            let node = self.graph.node(producer);
            let op = node.op.name.as_str();
            let linear = matches!(
                op,
                "Conv"
                    | "ConvTranspose"
                    | "Gemm"
                    | "MatMul"
                    | "Einsum"
                    | "FusedMatMul"
                    | "TransposeMatMul"
                    | "FusedConv"
                    | "FusedGemm"
            );
            if linear || op.ends_with("Normalization") {
                return true;
            }
            let fixed = |input: usize| {
                let origin = node.input(input).map(|value| source(self.graph, value));
                let tensor = origin.and_then(|value| self.graph.value(value).initializer.as_ref());
                tensor.is_some_and(is_vector)
            };
            other = match op {
                "Add" | "Sub" | "Mul" | "Div" if fixed(1) => node.input(0),
                "Add" | "Mul" if fixed(0) => node.input(1),
                _ => return false,
            };
        }
        false
    }
}

fn is_structural(node: &Node, input: usize, tensor: &Tensor, named: bool) -> bool {
    let rank = tensor.shape().len();
    let structural = match (node.op.name.as_str(), input) {
        ("Conv" | "ConvTranspose" | "FusedConv", 1 | 2) | ("Gemm" | "MatMul" | "Einsum", _) => true,
        ("FusedMatMul" | "TransposeMatMul" | "FusedGemm", _) | ("MultiHeadAttention", 3) => true,
        ("BiasGelu" | "FastGelu" | "BiasAdd", 1) => true,
        ("Attention", 1 | 2) => !node.op.domain.is_empty(),
        ("EmbedLayerNormalization", 2..=4) => true,
        ("EmbedLayerNormalization", 5 | 6) => named || !hints::is_filled(tensor, f64::from(input == 5)),
        ("SkipLayerNormalization" | "SkipSimplifiedLayerNormalization", 2..) => {
            named || !hints::is_filled(tensor, f64::from(input == 2))
        }
        ("PRelu", 1) | ("LSTM" | "GRU" | "RNN", 1..=3 | 7) => true,
        ("Gather", 0) => rank >= 2,
        (name, 1 | 2) if name.ends_with("Normalization") => {
            named || !hints::is_filled(tensor, if input == 1 { 1.0 } else { 0.0 })
        }
        _ => false,
    };
    structural && (named || rank >= 1)
}

/// Collects which slots inside of a graph's subgraphs read what they capture, views left out.
fn read_inside<'a>(graph: &'a Graph, found: &mut HashMap<&'a str, Vec<(&'a Node, usize)>>) {
    for (_, value) in graph.nodes().iter().flat_map(|node| node.attributes.iter()) {
        let Attribute::Graph(inner) = value else { continue };
        let uses = Uses::new(&inner.graph);
        let mut deeper = HashMap::new();
        read_inside(&inner.graph, &mut deeper);
        for name in &inner.captures {
            let Some(id) = inner.graph.find(name) else { continue };
            let (views, readers) = uses.views(&inner.graph, id);
            let readers = readers.into_iter().map(|reader| (inner.graph.node(reader.node), reader.input));
            let found = found.entry(name.as_str()).or_default();
            found.extend(readers);
            found.extend(readers_inside(&inner.graph, &views, &deeper));
        }
    }
}

/// Returns the slots inside of subgraphs that read one of the values.
fn readers_inside<'a>(
    graph: &Graph,
    values: &[ValueId],
    inside: &HashMap<&'a str, Vec<(&'a Node, usize)>>,
) -> Vec<(&'a Node, usize)> {
    values.iter().filter_map(|value| inside.get(graph.value_name(*value))).flatten().copied().collect()
}

fn is_vector(tensor: &Tensor) -> bool {
    tensor.len() > 1 && tensor.shape().iter().filter(|size| **size != 1).count() == 1
}

fn ordinal(input: usize) -> String {
    format!("input {input}")
}

/// Returns what an input of an operator is called.
fn part(op: &str, input: usize) -> &'static str {
    match (op, input) {
        ("Gather", _) | ("EmbedLayerNormalization", 2..=4) => "table",
        ("LSTM" | "GRU" | "RNN", 2) => "recurrence",
        ("LSTM" | "GRU" | "RNN", 3) => "bias",
        ("PRelu", _) => "slope",
        ("Gemm" | "FusedGemm", 2) | ("BiasGelu" | "FastGelu" | "BiasAdd", _) | ("MultiHeadAttention", _) => "bias",
        ("Gemm" | "MatMul" | "Einsum" | "FusedMatMul" | "TransposeMatMul" | "FusedGemm", _) => "operand",
        ("SkipLayerNormalization" | "SkipSimplifiedLayerNormalization", 2) | ("EmbedLayerNormalization", 5) => "scale",
        ("SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" | "EmbedLayerNormalization", _) => "bias",
        (_, 2) => "bias",
        (name, 1) if name.ends_with("Normalization") => "scale",
        _ => "weight",
    }
}

/// Returns for each value whether a gradient of a floating-point output reaches it; when the model has
/// no such output, whether the value goes anywhere.
fn live(graph: &Graph) -> Vec<bool> {
    let float = |value: &ValueId| graph.fact(*value).dtype.is_none_or(DType::is_float);
    let mut live = vec![false; graph.values().count()];
    if !graph.outputs().iter().any(float) {
        return vec![true; live.len()];
    }
    graph.outputs().iter().filter(|output| float(output)).for_each(|output| live[output.0] = true);
    for node in graph.nodes().iter().rev() {
        if !node.outputs.iter().flatten().any(|output| live[output.0]) {
            continue;
        }
        for (input, value) in node.inputs.iter().enumerate() {
            if let Some(value) = value.filter(|value| carries_gradient(node, input) && float(value)) {
                live[value.0] = true;
            }
        }
        for value in node.captured().filter_map(|name| graph.find(name)) {
            live[value.0] = true;
        }
    }
    live
}
