//! `GraphProto` and the bodies of functions to [`Graph`].

use super::external::External;
use super::import::{domain, pairs};
use super::{OnnxError, order, proto, sparse, tensor};
use crate::graph::{
    Attribute, Attributes, Builder, CheckError, DType, Dim, Fact, Graph, Node, OpId, Origin, Subgraph, ValueId, check,
};
use prost::Message;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// What a graph and the body of a function have in common.
pub(super) struct Parts<'a> {
    name: &'a str,
    inputs: Vec<&'a str>,
    outputs: Vec<&'a str>,
    initializers: &'a [proto::Tensor],
    sparse: &'a [proto::SparseTensor],
    nodes: &'a [proto::Node],
    infos: Vec<&'a proto::ValueInfo>,
}

impl<'a> Parts<'a> {
    pub fn of_graph(graph: &'a proto::Graph) -> Parts<'a> {
        let infos = graph.value_info.iter().chain(&graph.input).chain(&graph.output);
        Parts {
            name: graph.name(),
            inputs: graph.input.iter().map(proto::ValueInfo::name).collect(),
            outputs: graph.output.iter().map(proto::ValueInfo::name).collect(),
            initializers: &graph.initializer,
            sparse: &graph.sparse_initializer,
            nodes: &graph.node,
            infos: infos.collect(),
        }
    }

    pub fn of_function(function: &'a proto::Function) -> Parts<'a> {
        Parts {
            name: function.name(),
            inputs: function.input.iter().map(String::as_str).collect(),
            outputs: function.output.iter().map(String::as_str).collect(),
            initializers: &[],
            sparse: &[],
            nodes: &function.node,
            infos: function.value_info.iter().collect(),
        }
    }
}

/// The graphs that a subgraph lies in, for what is known of the values it captures.
pub(super) struct Scope<'a> {
    graph: &'a Graph,
    outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn fact(&self, name: &str) -> Option<&Fact> {
        match self.graph.find(name) {
            Some(id) => Some(self.graph.fact(id)),
            None => self.outer?.fact(name),
        }
    }
}

/// A graph that was read.
pub(super) struct Read {
    pub graph: Graph,
    /// Names of the outer values that it reads: its last inputs.
    pub captures: Vec<String>,
    /// Where in the file each node stands; empty when they are in evaluation order.
    pub order: Vec<usize>,
}

/// Reads the graphs of one file.
pub(super) struct Importer<'a> {
    path: &'a Path,
    external: RefCell<External>,
}

impl<'a> Importer<'a> {
    pub fn new(path: &'a Path, external: External) -> Importer<'a> {
        Importer { path, external: RefCell::new(external) }
    }

    /// Reads a graph; with a scope it is a subgraph and may read values of it.
    pub fn graph(&self, parts: &Parts<'_>, scope: Option<&Scope<'_>>) -> Result<Read, OnnxError> {
        let mut reader = Reader {
            importer: self,
            scope,
            facts: facts(&parts.infos),
            builder: Builder::new(parts.name),
            captures: Vec::new(),
        };
        let order = reader.read(parts)?;
        let (graph, captures) = (reader.builder.finish(), reader.captures);
        check(&graph).map_err(|source| self.wrong(source))?;
        Ok(Read { graph, captures, order })
    }

    /// Reads an attribute of a node in the scope.
    pub fn attribute(&self, proto: &proto::Attribute, scope: Option<&Scope<'_>>) -> Result<Attribute, OnnxError> {
        if let Some(attribute) = proto.ref_attr_name.as_ref().filter(|name| !name.is_empty()) {
            return Ok(Attribute::Reference { attribute: attribute.clone(), kind: proto.r#type() });
        }
        let empty = proto::Tensor::default();
        Ok(match kind(proto) {
            1 => Attribute::Float(proto.f()),
            2 => Attribute::Int(proto.i()),
            3 => Attribute::String(proto.s.clone().unwrap_or_default()),
            4 => Attribute::Tensor(tensor::import(
                self.path,
                proto.t.as_ref().unwrap_or(&empty),
                &mut self.external.borrow_mut(),
            )?),
            5 if proto.g.is_some() => {
                let parts = Parts::of_graph(proto.g.as_ref().expect("invariant: it is there"));
                let nothing = Graph::default();
                let Read { graph, captures, .. } =
                    self.graph(&parts, Some(scope.unwrap_or(&Scope { graph: &nothing, outer: None })))?;
                Attribute::Graph(Box::new(Subgraph { graph, captures }))
            }
            6 => Attribute::Floats(proto.floats.clone()),
            7 => Attribute::Ints(proto.ints.clone()),
            8 => Attribute::Strings(proto.strings.clone()),
            _ => Attribute::Opaque { encoded: proto.encode_to_vec().into(), captures: order::captures(proto) },
        })
    }

    fn wrong(&self, source: CheckError) -> OnnxError {
        OnnxError::Graph { path: self.path.to_path_buf(), source }
    }

    fn duplicate(&self, value: &str) -> OnnxError {
        OnnxError::Duplicate { path: self.path.to_path_buf(), value: value.to_string() }
    }
}

/// Returns the type of an attribute, also where a file of IR version 1 leaves it out.
fn kind(proto: &proto::Attribute) -> i32 {
    match proto.r#type() {
        0 if proto.f.is_some() => 1,
        0 if proto.i.is_some() => 2,
        0 if proto.s.is_some() => 3,
        0 if proto.t.is_some() => 4,
        0 if proto.g.is_some() => 5,
        0 if !proto.floats.is_empty() => 6,
        0 if !proto.ints.is_empty() => 7,
        0 if !proto.strings.is_empty() => 8,
        kind => kind,
    }
}

struct Reader<'a, 'p> {
    importer: &'a Importer<'a>,
    scope: Option<&'a Scope<'a>>,
    facts: HashMap<&'p str, Fact>,
    builder: Builder,
    captures: Vec<String>,
}

impl<'p> Reader<'_, 'p> {
    fn read(&mut self, parts: &Parts<'p>) -> Result<Vec<usize>, OnnxError> {
        let initialized: HashSet<&str> =
            parts.initializers.iter().map(proto::Tensor::name).chain(parts.sparse.iter().map(sparse::name)).collect();
        for name in parts.inputs.iter().filter(|name| !initialized.contains(*name)) {
            self.unused(name)?;
            self.builder.input(name, self.fact(name));
        }
        let path = self.importer.path;
        for initializer in parts.initializers {
            let tensor = tensor::import(path, initializer, &mut self.importer.external.borrow_mut())?;
            self.initializer(initializer.name(), tensor)?;
        }
        for initializer in parts.sparse {
            let tensor = sparse::import(path, initializer, &mut self.importer.external.borrow_mut())?;
            self.initializer(sparse::name(initializer), tensor)?;
        }
        let order = order::of(parts.nodes, |name| self.builder.graph().find(name).is_some()).map_err(|index| {
            let node = parts.nodes[index].name().to_string();
            self.importer.wrong(CheckError::Cycle { node, op: parts.nodes[index].op_type().to_string() })
        })?;
        match &order {
            None => (0..parts.nodes.len()).try_for_each(|index| self.node(index, &parts.nodes[index]))?,
            Some(order) => order.iter().try_for_each(|index| self.node(*index, &parts.nodes[*index]))?,
        }
        for name in &parts.outputs {
            let id = match self.builder.graph().find(name) {
                Some(id) => id,
                None => self
                    .capture(name)
                    .ok_or_else(|| self.importer.wrong(CheckError::NoOutput { value: name.to_string() }))?,
            };
            self.builder.mark_output(id);
        }
        Ok(order.unwrap_or_default())
    }

    fn initializer(&mut self, name: &'p str, tensor: crate::graph::Tensor) -> Result<(), OnnxError> {
        self.unused(name)?;
        self.builder.initializer(name, tensor);
        Ok(())
    }

    fn node(&mut self, index: usize, node: &'p proto::Node) -> Result<(), OnnxError> {
        let read = |this: &mut Self, name: &'p str| -> Result<Option<ValueId>, OnnxError> {
            match this.builder.graph().find(name) {
                _ if name.is_empty() => Ok(None),
                Some(id) => Ok(Some(id)),
                None => Ok(Some(this.capture(name).ok_or_else(|| this.missing(node, name))?)),
            }
        };
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            inputs.push(read(self, name)?);
        }
        let name = match node.name() {
            "" => format!("{}_{index}", node.op_type()),
            name => name.to_string(),
        };
        let wrong = |reason: String| {
            let (path, node) = (self.importer.path.to_path_buf(), name.clone());
            Err(OnnxError::Node { path, node, reason })
        };
        if node.op_type().is_empty() {
            return wrong("it has no operator".into());
        }
        let (mut attributes, mut known) = (Vec::with_capacity(node.attribute.len()), HashSet::new());
        for attribute in &node.attribute {
            if !known.insert(attribute.name()) {
                return wrong(format!("attribute \"{}\" is there twice", attribute.name()));
            }
            let scope = Scope { graph: self.builder.graph(), outer: self.scope };
            let value = self.importer.attribute(attribute, Some(&scope))?;
            attributes.push((attribute.name().to_string(), value));
        }
        let attributes = Attributes::of(attributes);
        let mut outputs = Vec::with_capacity(node.output.len());
        for name in &node.output {
            if name.is_empty() {
                outputs.push(None);
                continue;
            }
            self.unused(name)?;
            outputs.push(Some(self.builder.declare(name, self.fact(name))));
        }
        let made = Node {
            name,
            op: OpId { domain: domain(node.domain()), name: node.op_type().to_string() },
            overload: node.overload().to_string(),
            inputs,
            outputs,
            attributes,
            origin: Origin::Forward,
            metadata: pairs(&node.metadata_props),
        };
        let captured: Vec<String> = made.captured().map(str::to_string).collect();
        self.builder.push_node(made);
        for name in captured {
            let own = self.builder.graph().find(&name).is_some();
            if !own && self.capture(&name).is_none() {
                return Err(self.missing(node, &name));
            }
        }
        Ok(())
    }

    /// Returns the input that stands for a value of an outer graph; none where there is no outer
    /// graph, or it has no such value.
    fn capture(&mut self, name: &str) -> Option<ValueId> {
        let fact = self.scope?.fact(name).cloned();
        // A value that a function leaves to its caller, or that stands later in the file, has no fact.
        let id = self.builder.input(name, fact.unwrap_or_default());
        self.captures.push(name.to_string());
        Some(id)
    }

    fn fact(&self, name: &str) -> Fact {
        self.facts.get(name).cloned().unwrap_or_default()
    }

    fn unused(&self, name: &str) -> Result<(), OnnxError> {
        match self.builder.graph().find(name) {
            Some(_) => Err(self.importer.duplicate(name)),
            None => Ok(()),
        }
    }

    fn missing(&self, node: &proto::Node, value: &str) -> OnnxError {
        self.importer.wrong(CheckError::ReadBeforeProduced {
            node: node.name().to_string(),
            op: node.op_type().to_string(),
            value: value.to_string(),
        })
    }
}

fn facts<'p>(infos: &[&'p proto::ValueInfo]) -> HashMap<&'p str, Fact> {
    let mut facts: HashMap<&str, Fact> = HashMap::with_capacity(infos.len());
    for info in infos {
        let found = fact(info.r#type.as_ref());
        facts.entry(info.name()).and_modify(|known| *known = known.or(&found)).or_insert(found);
    }
    facts
}

fn fact(info: Option<&proto::Type>) -> Fact {
    let Some(proto::r#type::Value::TensorType(tensor)) = info.and_then(|info| info.value.as_ref()) else {
        return Fact::default();
    };
    let shape = tensor.shape.as_ref().map(|shape| {
        let dim = |dim: &proto::tensor_shape::Dimension| match &dim.value {
            Some(proto::tensor_shape::dimension::Value::DimValue(size)) => {
                usize::try_from(*size).map_or(Dim::Unknown, Dim::Known)
            }
            Some(proto::tensor_shape::dimension::Value::DimParam(name)) if !name.is_empty() => {
                Dim::Symbol(name.clone())
            }
            _ => Dim::Unknown,
        };
        shape.dim.iter().map(dim).collect()
    });
    let dtype = tensor.elem_type.filter(|code| *code != 0).map(DType::from_code);
    Fact { dtype, shape }
}
