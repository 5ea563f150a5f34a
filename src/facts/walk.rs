//! One pass over a graph in evaluation order: facts, small values and sequences.

use super::agree::{Contradiction, Source, join};
use super::branch;
use super::sequences::{Given, Sequences};
use super::small::{Question, Small, evaluate};
use super::steps;
use crate::graph::{Call, DType, Dim, Fact, Graph, Model, Node, NodeId, Number, Subgraph, ValueId, infer};
use std::collections::HashMap;

static NOTHING: Fact = Fact { dtype: None, shape: None };

/// What a source besides inference says, by value.
#[derive(Debug)]
pub(super) struct Evidence {
    pub source: Source,
    pub facts: HashMap<ValueId, Fact>,
}

/// What is known of the values of a graph.
#[derive(Debug)]
pub(super) struct Known {
    pub facts: Vec<Fact>,
    pub sources: Vec<Source>,
    pub contradictions: Vec<Contradiction>,
    pub sequences: Sequences,
    opset: i64,
    /// How many branches this graph is inside of.
    depth: usize,
    smalls: HashMap<ValueId, Small>,
}

impl Known {
    /// Returns what inference finds with the facts of the file and of further sources: `above` are
    /// trusted more than inference, `below` less, but more than the file.
    pub fn of(model: &Model, above: &[Evidence], below: &[Evidence]) -> Known {
        let mut known = Known::start(&model.graph, model.opset(), 0);
        known.follow(&model.graph, above, below);
        known
    }

    /// Returns how many subgraphs this graph is inside of.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Returns what is known inside a subgraph that reads values of this graph and is given values of
    /// which facts hold; `None` where subgraphs nest too deep.
    pub fn inside(&self, graph: &Graph, branch: &Subgraph, formal: &[Fact]) -> Option<Known> {
        let depth = self.depth + 1;
        if depth > branch::DEEPEST {
            return None;
        }
        let inner = &branch.graph;
        let mut known = Known::start(inner, self.opset, depth);
        let given = branch.formal_inputs();
        for (id, fact) in given.iter().zip(formal) {
            known.facts[id.0] = fact.or(&Fact { dtype: inner.fact(*id).dtype, shape: None });
        }
        for id in &inner.inputs()[given.len()..] {
            let outer = graph.find(inner.value_name(*id))?;
            known.facts[id.0] = self.facts[outer.0].clone();
            if let Some(small) = self.small(graph, outer) {
                known.smalls.insert(*id, small);
            }
        }
        known.follow(inner, &[], &[]);
        Some(known)
    }

    fn start(graph: &Graph, opset: i64, depth: usize) -> Known {
        Known {
            facts: named_inputs(graph),
            sources: vec![Source::Nothing; graph.values().count()],
            contradictions: Vec::new(),
            sequences: Sequences::default(),
            opset,
            depth,
            smalls: HashMap::new(),
        }
    }

    fn follow(&mut self, graph: &Graph, above: &[Evidence], below: &[Evidence]) {
        for (id, value) in graph.values() {
            if value.fact != Fact::default() && graph.producer(id).is_none() {
                self.sources[id.0] = Source::File;
            }
        }
        for (id, node) in graph.node_ids() {
            self.learn(graph, (id, node), above, below);
        }
    }

    /// Returns the elements of a small value.
    pub fn small(&self, graph: &Graph, value: ValueId) -> Option<Small> {
        if let Some(small) = self.smalls.get(&value) {
            return Some(small.clone());
        }
        Small::of(graph.value(value).initializer.as_ref()?)
    }

    fn has(&self, graph: &Graph, value: ValueId) -> bool {
        let initializer = || graph.value(value).initializer.as_ref();
        self.smalls.contains_key(&value)
            || initializer().is_some_and(|tensor| tensor.len() <= Small::limit(Some(tensor.dtype())))
    }

    fn learn(&mut self, graph: &Graph, (id, node): (NodeId, &Node), above: &[Evidence], below: &[Evidence]) {
        let mut sequences = std::mem::take(&mut self.sequences);
        let given = sequences.learn((id, node), &|id| self.facts[id.0].clone(), &|id| self.small(graph, id));
        self.sequences = sequences;
        let branches = || branch::outputs(self, graph, node).map(|outputs| outputs.into_iter().unzip());
        let (facts, mut small) = match given {
            Some(Given::Sequence) => return,
            Some(Given::Tensor(fact, small)) => (vec![fact], small.map(|small| vec![Some(small)])),
            None if node.op.is("If") => {
                let (facts, smalls): (Vec<Fact>, Vec<Option<Small>>) = branches().unwrap_or_default();
                (facts, Some(smalls))
            }
            None if node.op.is("Scan") || node.op.is("Loop") => {
                (steps::outputs(self, graph, node).unwrap_or_else(|| self.infer(graph, node)), None)
            }
            None => (self.infer(graph, node), None),
        };
        for (index, output) in node.outputs.iter().enumerate() {
            if let Some(output) = output {
                self.agree(graph, *output, facts.get(index).unwrap_or(&NOTHING), above, below);
            }
        }
        if small.is_none() {
            small = self.evaluate(graph, node);
        }
        for (output, small) in node.outputs.iter().zip(small.into_iter().flatten()) {
            if let (Some(output), Some(small)) = (output, small) {
                let sizes: Vec<Dim> = small.shape().iter().map(|size| Dim::Known(*size)).collect();
                let found = Fact { dtype: None, shape: Some(sizes) };
                self.facts[output.0] = self.facts[output.0].or(&found);
                if small.data().is_empty() || small.data().iter().any(|number| *number != Number::Unknown) {
                    self.smalls.insert(*output, small);
                }
            }
        }
    }

    fn infer(&self, graph: &Graph, node: &Node) -> Vec<Fact> {
        if node.op.is("OptionalGetElement") {
            return node.input(0).map(|input| self.facts[held(graph, input).0].clone()).into_iter().collect();
        }
        let numbers = |index: usize| {
            let small = self.small(graph, node.input(index)?)?;
            Some(small.data().to_vec())
        };
        infer(&Call {
            op: &node.op,
            opset: self.opset,
            attributes: &node.attributes,
            inputs: node.inputs.iter().map(|input| input.map(|id| &self.facts[id.0])).collect(),
            outputs: node.outputs.len(),
            numbers: &numbers,
        })
    }

    fn agree(&mut self, graph: &Graph, output: ValueId, fact: &Fact, above: &[Evidence], below: &[Evidence]) {
        let file = normal(graph.fact(output));
        let mut said: Vec<(Source, &Fact)> = Vec::with_capacity(2 + above.len() + below.len());
        said.extend(above.iter().filter_map(|evidence| Some((evidence.source, evidence.facts.get(&output)?))));
        said.push((Source::Inference, fact));
        said.extend(below.iter().filter_map(|evidence| Some((evidence.source, evidence.facts.get(&output)?))));
        said.push((Source::File, &file));
        let (joined, source, against) = join(&said);
        for (used, dropped) in against {
            let copy = |index: usize| (said[index].0, said[index].1.clone());
            let value = graph.value_name(output).to_string();
            self.contradictions.push(Contradiction { value, used: copy(used), dropped: copy(dropped) });
        }
        self.facts[output.0] = joined;
        self.sources[output.0] = source;
    }

    fn evaluate(&self, graph: &Graph, node: &Node) -> Option<Vec<Option<Small>>> {
        let outputs: Vec<Fact> = node
            .outputs
            .iter()
            .map(|output| output.map_or_else(Fact::default, |id| self.facts[id.0].clone()))
            .collect();
        evaluate(&Question {
            node,
            facts: &|index| node.input(index).map_or(&NOTHING, |id| &self.facts[id.0]),
            outputs: &outputs,
            has: &|index| node.input(index).is_some_and(|id| self.has(graph, id)),
            small: &|index| self.small(graph, node.input(index)?),
        })
    }
}

/// Returns the tensor that is in an optional value; a tensor is itself.
fn held(graph: &Graph, value: ValueId) -> ValueId {
    let maker = graph.producer(value).map(|id| graph.node(id));
    let input = maker.filter(|node| node.op.is("Optional")).and_then(|node| node.input(0));
    input.unwrap_or(value)
}

/// Returns a fact with expressions in their normal form.
fn normal(fact: &Fact) -> Fact {
    let dim = |dim: &Dim| match dim {
        Dim::Symbol(_) => Dim::from(dim.size()),
        dim => dim.clone(),
    };
    Fact { dtype: fact.dtype, shape: fact.shape.as_ref().map(|shape| shape.iter().map(dim).collect()) }
}

/// Returns the file's facts of inputs and initializers, with a name for every unnamed dimension of
/// an input; the outputs of nodes have none.
fn named_inputs(graph: &Graph) -> Vec<Fact> {
    let produced = |id: ValueId| graph.producer(id).is_some();
    let mut facts: Vec<Fact> =
        graph.values().map(|(id, value)| if produced(id) { Fact::default() } else { value.fact.clone() }).collect();
    let symbols: Vec<String> = facts
        .iter()
        .flat_map(|fact| fact.shape.iter().flatten())
        .filter_map(|dim| if let Dim::Symbol(name) = dim { Some(name.clone()) } else { None })
        .collect();
    for id in graph.inputs() {
        let word: String =
            graph.value_name(*id).chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        for (axis, dim) in facts[id.0].shape.iter_mut().flatten().enumerate() {
            let mut name =
                format!("{}{word}.{axis}", if word.starts_with(|c: char| c.is_ascii_digit()) { "_" } else { "" });
            while symbols.contains(&name) {
                name.push('_');
            }
            if *dim == Dim::Unknown {
                *dim = Dim::Symbol(name);
            }
        }
    }
    facts
}

/// Returns true for a fact that somebody may need: of a floating-point value, or one that may be.
pub(super) fn may_be_float(fact: &Fact) -> bool {
    fact.dtype.is_none_or(DType::is_float)
}
