//! Functions of a model: operators that are defined by a graph in the same file.

use super::{Attributes, Graph, Node};
use std::collections::BTreeMap;
use std::fmt;

/// What a call names a function by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionId {
    /// Domain; the default domain is the empty string.
    pub domain: String,
    /// Name.
    pub name: String,
    /// Which of several functions of that name; mostly empty.
    pub overload: String,
}

impl FunctionId {
    /// Returns the function that a node would call, if the model has it.
    pub fn of(node: &Node) -> FunctionId {
        FunctionId { domain: node.op.domain.clone(), name: node.op.name.clone(), overload: node.overload.clone() }
    }
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.domain, &self.overload].into_iter().filter(|part| !part.is_empty()) {
            write!(f, "{part}.")?;
        }
        f.write_str(&self.name)
    }
}

/// A function of a model.
#[derive(Clone, Debug)]
pub struct Function {
    /// What calls name it by.
    pub id: FunctionId,
    /// Its body. A call may leave inputs and outputs out.
    pub graph: Graph,
    /// Values of the attributes that a call need not give.
    pub defaults: Attributes,
    /// Operator-set version by domain, for the body.
    pub opsets: BTreeMap<String, i64>,
}
