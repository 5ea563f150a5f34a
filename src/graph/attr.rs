//! Typed attributes of nodes.

use super::{Graph, Tensor, ValueId};
use bytes::Bytes;

/// The value of one attribute.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Attribute {
    Float(f32),
    Int(i64),
    String(Bytes),
    Tensor(Tensor),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Strings(Vec<Bytes>),
    /// A graph that the node runs, such as a branch of `If`.
    Graph(Box<Subgraph>),
    /// In a function's body: the value of the named attribute of the call; `kind` is ONNX's code
    /// of its type.
    Reference {
        attribute: String,
        kind: i32,
    },
    /// Anything else (lists of graphs, sparse tensors, types), as encoded in the file, with the
    /// names of the outer values that its subgraphs read.
    Opaque {
        encoded: Bytes,
        captures: Vec<String>,
    },
}

/// A graph inside a node. It is closed: values of outer graphs that it reads are its last inputs,
/// under their outer names.
#[derive(Clone, Debug)]
pub struct Subgraph {
    /// The graph; its inputs are the formal ones, then one for each of `captures`.
    pub graph: Graph,
    /// Names of the outer values that it reads.
    pub captures: Vec<String>,
}

impl Subgraph {
    /// Returns the inputs that the node gives values to.
    pub fn formal_inputs(&self) -> &[ValueId] {
        let inputs = self.graph.inputs();
        &inputs[..inputs.len() - self.captures.len()]
    }
}

impl PartialEq for Subgraph {
    fn eq(&self, other: &Subgraph) -> bool {
        self.captures == other.captures && super::dump(&self.graph) == super::dump(&other.graph)
    }
}

/// An attribute has another type than its operator defines.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("attribute \"{name}\": expected {expected}, found {found}")]
pub struct AttrError {
    /// Attribute name.
    pub name: String,
    /// Expected kind.
    pub expected: &'static str,
    /// Kind found in the file.
    pub found: String,
}

impl From<i64> for Attribute {
    fn from(value: i64) -> Self {
        Attribute::Int(value)
    }
}
impl From<f32> for Attribute {
    fn from(value: f32) -> Self {
        Attribute::Float(value)
    }
}
impl From<&str> for Attribute {
    fn from(value: &str) -> Self {
        Attribute::String(Bytes::copy_from_slice(value.as_bytes()))
    }
}
impl From<Vec<i64>> for Attribute {
    fn from(value: Vec<i64>) -> Self {
        Attribute::Ints(value)
    }
}
impl From<&[i64]> for Attribute {
    fn from(value: &[i64]) -> Self {
        Attribute::Ints(value.to_vec())
    }
}
impl From<Subgraph> for Attribute {
    fn from(value: Subgraph) -> Self {
        Attribute::Graph(Box::new(value))
    }
}
impl From<Tensor> for Attribute {
    fn from(value: Tensor) -> Self {
        Attribute::Tensor(value)
    }
}

/// The attributes of a node, in file order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes(Vec<(String, Attribute)>);

impl Attributes {
    /// Returns no attributes.
    pub fn none() -> Attributes {
        Attributes::default()
    }

    /// Returns attributes of which no two have the same name.
    pub(crate) fn of(entries: Vec<(String, Attribute)>) -> Attributes {
        Attributes(entries)
    }

    /// Returns these attributes and one more.
    pub fn with(mut self, name: &str, value: impl Into<Attribute>) -> Attributes {
        self.set(name, value);
        self
    }

    /// Sets an attribute, replacing one of the same name.
    pub fn set(&mut self, name: &str, value: impl Into<Attribute>) {
        let value = value.into();
        match self.0.iter_mut().find(|entry| entry.0 == name) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name.to_string(), value)),
        }
    }

    /// Removes an attribute.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|entry| entry.0 != name);
    }

    /// Returns the attributes in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Attribute)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Returns the attributes in file order, to change.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Attribute)> {
        self.0.iter_mut().map(|(name, value)| (name.as_str(), value))
    }

    /// Returns the value of a name.
    pub fn get(&self, name: &str) -> Option<&Attribute> {
        self.0.iter().find(|entry| entry.0 == name).map(|entry| &entry.1)
    }

    /// Returns an integer, or `default` when absent.
    ///
    /// # Errors
    /// The attribute is there and is no integer.
    pub fn int(&self, name: &str, default: i64) -> Result<i64, AttrError> {
        match self.get(name) {
            None => Ok(default),
            Some(Attribute::Int(value)) => Ok(*value),
            Some(other) => Err(mismatch(name, "an int", other)),
        }
    }

    /// Returns a float, or `default` when absent.
    ///
    /// # Errors
    /// The attribute is there and is no float.
    pub fn float(&self, name: &str, default: f32) -> Result<f32, AttrError> {
        match self.get(name) {
            None => Ok(default),
            Some(Attribute::Float(value)) => Ok(*value),
            Some(other) => Err(mismatch(name, "a float", other)),
        }
    }

    /// Returns a list of integers when present.
    ///
    /// # Errors
    /// The attribute is there and is no list of integers.
    pub fn ints(&self, name: &str) -> Result<Option<Vec<i64>>, AttrError> {
        match self.get(name) {
            None => Ok(None),
            Some(Attribute::Ints(values)) => Ok(Some(values.clone())),
            Some(other) => Err(mismatch(name, "a list of ints", other)),
        }
    }

    /// Returns text, or `default` when absent.
    ///
    /// # Errors
    /// The attribute is there and is no UTF-8 string.
    pub fn text(&self, name: &str, default: &str) -> Result<String, AttrError> {
        match self.get(name) {
            None => Ok(default.to_string()),
            Some(Attribute::String(value)) => {
                String::from_utf8(value.to_vec()).map_err(|_| mismatch(name, "text", &Attribute::String(value.clone())))
            }
            Some(other) => Err(mismatch(name, "a string", other)),
        }
    }
}

fn mismatch(name: &str, expected: &'static str, found: &Attribute) -> AttrError {
    let found = match found {
        Attribute::Float(_) => "a float",
        Attribute::Int(_) => "an int",
        Attribute::String(_) => "a string",
        Attribute::Tensor(_) => "a tensor",
        Attribute::Floats(_) => "a list of floats",
        Attribute::Ints(_) => "a list of ints",
        Attribute::Strings(_) => "a list of strings",
        Attribute::Graph(_) => "a graph",
        Attribute::Reference { .. } => "a reference to an attribute of the call",
        Attribute::Opaque { .. } => "a list of graphs or a type",
    };
    AttrError { name: name.to_string(), expected, found: found.to_string() }
}
