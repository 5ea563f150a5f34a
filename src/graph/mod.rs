//! The graph that every other module works on.
//!
//! A [`Model`] is a [`Graph`] with its operator-set versions. Graphs are built through
//! [`Builder`] and changed by building a new one ([`Builder::copy_node`]); nobody edits a node
//! list in place, so a graph's nodes are always in an order in which they can run.
//!
//! What this module does not do: read files (`onnx`), know modules or freezing.

mod attr;
mod builder;
mod check;
mod dump;
mod fact;
mod function;
mod infer;
mod inline;
mod prune;
mod rebuild;
mod require;
mod size;
pub mod tensor;
mod upgrade;
mod within;

pub use attr::{AttrError, Attribute, Attributes, Subgraph};
pub use builder::Builder;
pub use check::{CheckError, check};
#[doc(hidden)]
pub use dump::dump;
pub use fact::{Dim, Fact};
pub use function::{Function, FunctionId};
pub(crate) use infer::{Call, Number, broadcast, infer, join, sliced, small_numbers};
#[doc(hidden)]
pub use inline::{FUNCTION_PATH, InlineError, Inlined, inline};
pub use prune::prune;
#[doc(hidden)]
pub use rebuild::{Replaced, rebuild};
pub use require::{FactError, require};
#[doc(hidden)]
pub use require::{loser, lost, missing};
pub use size::Size;
pub use tensor::{DType, Element, Tensor, TensorError};
pub(crate) use upgrade::READABLE_OPSETS;
pub use upgrade::{UpgradeError, upgrade};

use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Position of a value in [`Graph::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub(crate) usize);

/// Position of a node in [`Graph::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) usize);

/// Domain of the operators that exist only between autodiff and lowering, never in a file.
pub const INTERNAL_DOMAIN: &str = "ai.freeze-plan";

/// Operator name with its domain; the default domain is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId {
    /// Domain, empty for the standard operators.
    pub domain: String,
    /// Operator type, such as `Conv`.
    pub name: String,
}

impl OpId {
    /// Returns the operator of the default domain.
    pub fn standard(name: &str) -> OpId {
        OpId { domain: String::new(), name: name.to_string() }
    }

    /// Returns true for the named operator of the default domain.
    pub fn is(&self, name: &str) -> bool {
        self.domain.is_empty() && self.name == name
    }

    /// Returns true for a standard operator that draws from a generator in the session: it gives another value each time.
    pub fn is_random(&self) -> bool {
        const OPERATORS: [&str; 7] = [
            "Bernoulli",
            "Dropout",
            "Multinomial",
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
        ];
        self.domain.is_empty() && OPERATORS.contains(&self.name.as_str())
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.domain.as_str() {
            "" => f.write_str(&self.name),
            domain => write!(f, "{domain}.{}", self.name),
        }
    }
}

/// What a node was made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The model as it was loaded.
    Forward,
    /// The loss.
    Loss,
    /// The gradient of the named forward node.
    Backward(String),
    /// The update of the named parameter or running statistic.
    Update(String),
}

/// One operator applied to values. An absent optional input or output is `None`.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name, unique in the graph when this program made it.
    pub name: String,
    /// Operator.
    pub op: OpId,
    /// Which of several functions of the operator's name is called; mostly empty.
    pub overload: String,
    /// Inputs by position.
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs by position.
    pub outputs: Vec<Option<ValueId>>,
    /// Attributes in file order.
    pub attributes: Attributes,
    /// What the node was made for.
    pub origin: Origin,
    /// `metadata_props` of the file.
    pub metadata: Vec<(String, String)>,
}

impl Node {
    /// Returns input `index` where it is present.
    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// Returns the names of outer values that the node's subgraphs read.
    pub fn captured(&self) -> impl Iterator<Item = &str> {
        self.attributes
            .iter()
            .flat_map(|(_, value)| match value {
                Attribute::Graph(graph) => graph.captures.as_slice(),
                Attribute::Opaque { captures, .. } => captures.as_slice(),
                _ => &[],
            })
            .map(String::as_str)
    }

    /// Returns output `index` where it is present.
    pub fn output(&self, index: usize) -> Option<ValueId> {
        self.outputs.get(index).copied().flatten()
    }
}

/// A named tensor of a graph: an input, an initializer or the output of a node.
#[derive(Clone, Debug)]
pub struct Value {
    /// Name, unique in the graph.
    pub name: String,
    /// What is known of dtype and shape.
    pub fact: Fact,
    /// The elements, of an initializer.
    pub initializer: Option<Tensor>,
}

/// A graph in evaluation order.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub(crate) name: String,
    pub(crate) values: Vec<Value>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) inputs: Vec<ValueId>,
    pub(crate) outputs: Vec<ValueId>,
    pub(crate) by_name: HashMap<String, ValueId>,
    pub(crate) producers: HashMap<ValueId, NodeId>,
}

impl Graph {
    /// Returns the graph's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the nodes in evaluation order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns every node with its id, in evaluation order.
    pub fn node_ids(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(index, node)| (NodeId(index), node))
    }

    /// Returns the node of an id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Returns a node's position in evaluation order.
    pub fn position(&self, id: NodeId) -> usize {
        id.0
    }

    /// Returns the value of an id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// Returns every value with its id.
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        self.values.iter().enumerate().map(|(index, value)| (ValueId(index), value))
    }

    /// Returns what is known of a value's dtype and shape.
    pub fn fact(&self, id: ValueId) -> &Fact {
        &self.values[id.0].fact
    }

    /// Returns a value's name.
    pub fn value_name(&self, id: ValueId) -> &str {
        &self.values[id.0].name
    }

    /// Returns the graph inputs, without those that only give an initializer a default.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// Returns the graph outputs.
    pub fn outputs(&self) -> &[ValueId] {
        &self.outputs
    }

    /// Returns the value of a name.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.by_name.get(name).copied()
    }

    /// Returns the initializers in file order.
    pub fn initializers(&self) -> impl Iterator<Item = (ValueId, &Value, &Tensor)> {
        self.values().filter_map(|(id, value)| Some((id, value, value.initializer.as_ref()?)))
    }

    /// Returns the node that produces a value; `None` for inputs and initializers.
    pub fn producer(&self, value: ValueId) -> Option<NodeId> {
        self.producers.get(&value).copied()
    }

    /// Returns the nodes that read each value, also in their subgraphs, by value position.
    pub fn consumers(&self) -> Vec<Vec<NodeId>> {
        let mut consumers = vec![Vec::new(); self.values.len()];
        for (id, node) in self.node_ids() {
            let captured: Vec<ValueId> = node.captured().filter_map(|name| self.find(name)).collect();
            for input in node.inputs.iter().flatten().chain(&captured) {
                if consumers[input.0].last() != Some(&id) {
                    consumers[input.0].push(id);
                }
            }
        }
        consumers
    }

    /// Returns this graph with named sizes fixed in every fact, also inside expressions.
    pub fn with_sizes(&self, sizes: &HashMap<String, usize>) -> Graph {
        let mut graph = self.clone();
        graph.fix_sizes(sizes);
        graph
    }

    fn fix_sizes(&mut self, sizes: &HashMap<String, usize>) {
        for dim in self.values.iter_mut().flat_map(|value| value.fact.shape.iter_mut().flatten()) {
            if let Dim::Symbol(text) = dim {
                *dim = match sizes.get(text) {
                    Some(size) => Dim::Known(*size),
                    None => Dim::from(Some(Size::parse_with(text, sizes))),
                };
            }
        }
        for (_, value) in self.nodes.iter_mut().flat_map(|node| node.attributes.iter_mut()) {
            if let Attribute::Graph(inner) = value {
                inner.graph.fix_sizes(sizes);
            }
        }
    }

    /// Returns this graph with other facts, one for each value by its position.
    pub(crate) fn with_facts(&self, facts: Vec<Fact>) -> Graph {
        let mut graph = self.clone();
        graph.values.iter_mut().zip(facts).for_each(|(value, fact)| value.fact = fact);
        graph
    }

    /// Returns this graph with every named size forgotten that is of no graph input: shape inference
    /// makes such names up, a new one for each place that it does not understand.
    pub fn with_sizes_of_inputs(&self) -> Graph {
        let mut graph = self.clone();
        let symbols = |id: &ValueId| self.fact(*id).shape.clone().unwrap_or_default();
        let known: std::collections::HashSet<Dim> = self.inputs.iter().flat_map(symbols).collect();
        for dim in graph.values.iter_mut().flat_map(|value| value.fact.shape.iter_mut().flatten()) {
            if matches!(dim, Dim::Symbol(_)) && !known.contains(dim) {
                *dim = Dim::Unknown;
            }
        }
        graph
    }

    /// Returns this graph with an initializer's elements replaced by others of the same fact.
    ///
    /// # Panics
    /// When there is no such initializer, or dtype or shape differ.
    pub fn with_initializer(mut self, name: &str, tensor: Tensor) -> Graph {
        let id = self.find(name).expect("invariant: the initializer exists");
        let old = self.values[id.0].initializer.as_ref().expect("invariant: it is an initializer");
        assert_eq!((old.dtype(), old.shape()), (tensor.dtype(), tensor.shape()), "the fact of \"{name}\" stays");
        self.values[id.0].initializer = Some(tensor);
        self
    }

    /// Returns this graph with an input as an initializer, for good.
    ///
    /// # Panics
    /// When there is no such input.
    pub fn with_constant(mut self, name: &str, tensor: Tensor) -> Graph {
        let id = self.find(name).expect("invariant: the input exists");
        let position = self.inputs.iter().position(|input| *input == id).expect("invariant: it is an input");
        self.inputs.remove(position);
        self.values[id.0].initializer = Some(tensor);
        self
    }

    /// Returns this graph with inputs as initializers of these elements; positions of values stay.
    pub fn with_inputs_fixed(&self, elements: &BTreeMap<String, Tensor>) -> Graph {
        let mut graph = self.clone();
        for (name, tensor) in elements {
            if let Some(id) = graph.find(name).filter(|id| graph.inputs.contains(id)) {
                graph.inputs.retain(|input| *input != id);
                graph.values[id.0].initializer = Some(tensor.clone());
            }
        }
        graph
    }

    /// Returns the elements of a value that is fixed in the graph: an initializer, or the output
    /// of `Constant` or of `Identity` of one.
    pub fn constant(&self, value: ValueId) -> Option<Tensor> {
        let mut value = value;
        let node = loop {
            if let Some(tensor) = &self.values[value.0].initializer {
                return Some(tensor.clone());
            }
            let node = self.node(self.producer(value)?);
            match node.op.name.as_str() {
                "Identity" => value = node.input(0)?,
                "Constant" => break node,
                _ => return None,
            }
        };
        let attributes = &node.attributes;
        match attributes.iter().next()? {
            (_, Attribute::Tensor(tensor)) => Some(tensor.clone()),
            (_, Attribute::Int(value)) => Some(Tensor::scalar(*value)),
            (_, Attribute::Ints(values)) => Some(Tensor::ints(values)),
            (_, Attribute::Float(value)) => Some(Tensor::scalar(*value)),
            (_, Attribute::Floats(values)) => Some(Tensor::from_vec(&[values.len()], values.clone())),
            _ => None,
        }
    }
}

/// A graph with the versions its operators have.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The main graph.
    pub graph: Graph,
    /// Operator-set version by domain.
    pub opsets: BTreeMap<String, i64>,
    /// ONNX IR version.
    pub ir_version: i64,
    /// Name and version of the program that wrote the file.
    pub producer: String,
    /// `metadata_props` of the file.
    pub metadata: Vec<(String, String)>,
    /// `metadata_props` of the main graph.
    pub graph_metadata: Vec<(String, String)>,
    /// Functions that nodes of the graph call as operators.
    pub functions: Vec<Function>,
}

impl Model {
    /// Returns the version of the default domain's operators.
    pub fn opset(&self) -> i64 {
        self.opsets.get("").copied().unwrap_or(1)
    }

    /// Returns the model with another graph in the place of its own.
    pub fn with_graph(&self, graph: Graph) -> Model {
        Model {
            graph,
            opsets: self.opsets.clone(),
            ir_version: self.ir_version,
            producer: self.producer.clone(),
            metadata: self.metadata.clone(),
            graph_metadata: self.graph_metadata.clone(),
            functions: self.functions.clone(),
        }
    }
}
