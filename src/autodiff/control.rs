//! Tests the rules of operators with subgraphs: against finite differences, on every engine.

use super::gradients;
use crate::graph::{
    Attribute, Attributes, Builder, DType, Dim, Fact, Model, OpId, Origin, Subgraph, Tensor, ValueId,
    check as check_graph, prune,
};
use crate::runner::{Engine, evaluate, testing};
use std::collections::BTreeMap;

const STEP: f32 = 1e-2;
const TOLERANCE: f64 = 2e-3;

/// A subgraph while it is made.
pub struct Inner {
    pub b: Builder,
    pub outputs: Vec<ValueId>,
    formal: usize,
    outer: Vec<(String, Fact)>,
    captures: Vec<String>,
    name: String,
}

impl Inner {
    fn make(
        name: &str,
        facts: &[Fact],
        outer: Vec<(String, Fact)>,
        build: impl FnOnce(&mut Inner),
    ) -> (Subgraph, Vec<String>) {
        let mut b = Builder::new(name);
        b.enter(Origin::Forward, name);
        for (index, fact) in facts.iter().enumerate() {
            b.input(&format!("{name}/in{index}"), fact.clone());
        }
        let captures = Vec::new();
        let mut inner = Inner { b, outputs: Vec::new(), formal: facts.len(), outer, captures, name: name.into() };
        build(&mut inner);
        for output in inner.outputs.clone() {
            let copy = inner.b.unary("Identity", output);
            inner.b.mark_output(copy);
        }
        let captures = inner.captures.clone();
        (Subgraph { graph: inner.b.finish(), captures: inner.captures }, captures)
    }

    /// Returns a value that the node gives.
    pub fn formal(&self, index: usize) -> ValueId {
        assert!(index < self.formal);
        self.b.graph().inputs()[index]
    }

    /// Returns a value of the outer graph.
    pub fn captured(&mut self, name: &str) -> ValueId {
        if let Some(known) = self.b.graph().find(name) {
            return known;
        }
        let fact = self.outer.iter().find(|outer| outer.0 == name).expect("an outer value").1.clone();
        self.captures.push(name.to_string());
        self.b.input(name, fact)
    }

    /// Makes a subgraph for a node in this one.
    pub fn nested(&mut self, shapes: &[&[usize]], build: impl FnOnce(&mut Inner)) -> Subgraph {
        let facts: Vec<Fact> = shapes.iter().map(|shape| Fact::fixed(DType::F32, shape)).collect();
        let own = self.b.graph().values().map(|(_, value)| (value.name.clone(), value.fact.clone()));
        let outer = own.chain(self.outer.clone()).collect();
        let name = self.b.unique(&format!("{}.nested", self.name));
        let (graph, captures) = Inner::make(&name, &facts, outer, build);
        for name in &captures {
            self.captured(name);
        }
        graph
    }
}

type Build = Box<dyn Fn(&mut Inner)>;

/// One node with subgraphs to test. Everything that a gradient is wanted for has a number: outer
/// values first, then inputs, in the order in which they are added.
pub struct Case {
    name: &'static str,
    op: OpId,
    attributes: Attributes,
    floats: Vec<(String, Tensor)>,
    outer: usize,
    /// Names of the node's inputs.
    inputs: Vec<Option<String>>,
    fed: Vec<(String, Tensor)>,
    formal: Vec<DType>,
    bodies: Vec<(&'static str, Vec<Vec<usize>>, Build)>,
    outputs: usize,
    in_loss: Option<Vec<usize>>,
    symbols: Vec<(usize, usize)>,
    embedded: bool,
}

impl Case {
    pub fn new(name: &'static str, op: &str) -> Case {
        Case {
            name,
            op: OpId::standard(op),
            attributes: Attributes::none(),
            floats: Vec::new(),
            outer: 0,
            inputs: Vec::new(),
            fed: Vec::new(),
            formal: Vec::new(),
            bodies: Vec::new(),
            outputs: 1,
            in_loss: None,
            symbols: Vec::new(),
            embedded: true,
        }
    }

    /// Adds a value that subgraphs read.
    pub fn outer(mut self, name: &str, shape: &[usize]) -> Case {
        let tensor = random(shape, 31 + self.floats.len() as u64);
        self.floats.push((name.to_string(), tensor));
        self.outer += 1;
        self
    }

    /// Adds an input of the node.
    pub fn input(mut self, shape: &[usize]) -> Case {
        let name = format!("x{}", self.inputs.len());
        self.floats.push((name.clone(), random(shape, 31 + self.floats.len() as u64)));
        self.inputs.push(Some(name));
        self
    }

    /// Adds an input without gradient that is known when the model runs.
    pub fn fed(mut self, tensor: Tensor) -> Case {
        let name = format!("x{}", self.inputs.len());
        self.fed.push((name.clone(), tensor));
        self.inputs.push(Some(name));
        self
    }

    /// Leaves an input out.
    pub fn absent(mut self) -> Case {
        self.inputs.push(None);
        self
    }

    /// Sets the dtypes of the first values that subgraphs are given.
    pub fn formal_types(mut self, dtypes: &[DType]) -> Case {
        self.formal = dtypes.to_vec();
        self
    }

    /// Sets a subgraph which is given values of these shapes.
    pub fn body(mut self, name: &'static str, shapes: &[&[usize]], build: impl Fn(&mut Inner) + 'static) -> Case {
        self.bodies.retain(|body| body.0 != name);
        let shapes = shapes.iter().map(|shape| shape.to_vec()).collect();
        self.bodies.push((name, shapes, Box::new(build)));
        self
    }

    pub fn int(mut self, name: &str, value: i64) -> Case {
        self.attributes.set(name, value);
        self
    }

    pub fn ints(mut self, name: &str, values: &[i64]) -> Case {
        self.attributes.set(name, values);
        self
    }

    pub fn outputs(mut self, count: usize) -> Case {
        self.outputs = count;
        self
    }

    /// Lets only these outputs enter the loss.
    pub fn in_loss(mut self, outputs: &[usize]) -> Case {
        self.in_loss = Some(outputs.to_vec());
        self
    }

    /// Makes a dimension of a differentiable value a symbol.
    pub fn symbol(mut self, value: usize, axis: usize) -> Case {
        self.symbols.push((value, axis));
        self
    }

    pub fn not_embedded(mut self, _reason: &str) -> Case {
        self.embedded = false;
        self
    }

    /// Returns how many nodes the step has, those of subgraphs included.
    pub fn nodes(&self, wanted: &[usize]) -> usize {
        fn count(graph: &crate::graph::Graph) -> usize {
            let inner = |value: &Attribute| if let Attribute::Graph(inner) = value { count(&inner.graph) } else { 0 };
            let node = |node: &crate::graph::Node| node.attributes.iter().map(|(_, value)| inner(value)).sum::<usize>();
            graph.nodes().iter().map(|one| 1 + node(one)).sum()
        }
        count(&self.step(wanted, true).expect("the gradients can be built").graph)
    }

    /// Returns the error that building the gradients ends with.
    pub fn error(&self) -> String {
        self.step(&(0..self.floats.len()).collect::<Vec<_>>(), true).expect_err("it has no gradient")
    }

    /// Builds loss and gradients.
    fn step(&self, wanted: &[usize], grads: bool) -> Result<Model, String> {
        let mut b = Builder::new("case");
        let mut ids = Vec::new();
        for (index, (name, tensor)) in self.floats.iter().enumerate() {
            let mut fact = Fact::fixed(DType::F32, tensor.shape());
            for (_, axis) in self.symbols.iter().filter(|symbol| symbol.0 == index) {
                fact.shape.as_mut().unwrap()[*axis] = Dim::Symbol("n".into());
            }
            let id = b.input(name, fact);
            ids.push(id);
        }
        for (name, tensor) in &self.fed {
            b.input(name, Fact::fixed(tensor.dtype(), tensor.shape()));
        }
        let outer: Vec<(String, Fact)> =
            b.graph().values().map(|(_, value)| (value.name.clone(), value.fact.clone())).collect();
        let mut attributes = self.attributes.clone();
        for (name, shapes, build) in &self.bodies {
            let dtype = |index: usize| self.formal.get(index).copied().unwrap_or(DType::F32);
            let facts = shapes.iter().enumerate().map(|(index, shape)| Fact::fixed(dtype(index), shape));
            let (graph, _) = Inner::make(name, &facts.collect::<Vec<_>>(), outer.clone(), build);
            attributes.set(name, graph);
        }
        let find = |name: &String| b.graph().find(name).expect("an input");
        let inputs: Vec<Option<ValueId>> = self.inputs.iter().map(|name| name.as_ref().map(find)).collect();
        b.enter(Origin::Forward, "");
        let outputs = b.ops(&self.op, &inputs, attributes, self.outputs);
        for output in &outputs {
            let mut fact = b.fact(*output).clone();
            // Names for the sizes that differ from run to run.
            let dims = fact.shape.iter_mut().flatten().filter(|dim| **dim == Dim::Unknown);
            dims.for_each(|dim| *dim = Dim::Symbol("n".into()));
            b.refine(*output, &fact);
        }
        b.enter(Origin::Loss, "loss");
        let mut terms = Vec::new();
        for (index, output) in outputs.iter().enumerate() {
            if self.in_loss.as_ref().is_none_or(|only| only.contains(&index)) {
                let bent = b.unary("Sin", *output);
                let shifted = b.shift(bent, 0.3);
                let product = b.mul(shifted, *output);
                let none = Attributes::none().with("keepdims", 0);
                terms.push(b.op("ReduceSum", &[product], none));
            }
        }
        let loss = b.op("Sum", &terms, Attributes::none());
        b.refine(loss, &Fact::fixed(DType::F32, &[]));
        let mut results = vec![loss];
        if grads {
            let wrt: Vec<ValueId> = wanted.iter().map(|index| ids[*index]).collect();
            let found = gradients(&mut b, 18, loss, &wrt).map_err(|error| chain(&error))?;
            for (grad, index) in found.into_iter().zip(wanted) {
                let name = &self.floats[*index].0;
                let grad = grad.unwrap_or_else(|| {
                    let zero = b.like(ids[*index], 0.0);
                    b.expand_like(zero, ids[*index])
                });
                results.push(b.output(grad, &format!("{name}.grad")));
            }
        }
        let mut graph = b.finish();
        graph.outputs = results;
        let graph = prune(&graph);
        check_graph(&graph).map_err(|error| error.to_string())?;
        let opsets = BTreeMap::from([(String::new(), 18)]);
        Ok(Model { graph, opsets, ir_version: 8, ..Model::default() })
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Runs the cases on every engine and reports every failure.
pub fn check(cases: &[Case]) {
    let mut failures = Vec::new();
    for mut engine in testing::engines() {
        let embedded = engine.info().name == "tract";
        for case in cases.iter().filter(|case| case.embedded || !embedded) {
            if let Err(reason) = check_case(case, engine.as_mut()) {
                failures.push(format!("{} [{}] {}: {reason}", case.op, engine.info().name, case.name));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn check_case(case: &Case, engine: &mut dyn Engine) -> Result<(), String> {
    let all: Vec<usize> = (0..case.floats.len()).collect();
    let forward = case.step(&[], false)?;
    let backward = case.step(&all, true)?;
    let mut run = |model: &Model, floats: &[(String, Tensor)]| -> Result<Vec<Tensor>, String> {
        let feeds: Vec<(&str, &Tensor)> =
            floats.iter().chain(&case.fed).map(|(name, tensor)| (name.as_str(), tensor)).collect();
        evaluate(engine, model, &feeds).map_err(|error| format!("{error}\n{}", crate::graph::dump(&model.graph)))
    };
    let found = run(&backward, &case.floats)?;
    for (index, grad) in all.iter().zip(&found[1..]) {
        let (name, value) = &case.floats[*index];
        if grad.shape() != value.shape() {
            return Err(format!("the gradient of {name} has shape {:?}", grad.shape()));
        }
        let direction = random(value.shape(), 171 + *index as u64).to_f64s().unwrap();
        let mut along = |step: f32| -> Result<f64, String> {
            let mut floats = case.floats.clone();
            let moved = value.to_f64s().unwrap();
            let moved = moved.iter().zip(&direction).map(|(v, d)| *v as f32 + step * *d as f32).collect();
            floats[*index].1 = Tensor::from_vec::<f32>(value.shape(), moved);
            Ok(run(&forward, &floats)?[0].to_f64s().unwrap()[0])
        };
        let numeric = (along(STEP)? - along(-STEP)?) / f64::from(2.0 * STEP);
        let terms: Vec<f64> = grad.to_f64s().unwrap().iter().zip(&direction).map(|(g, d)| g * d).collect();
        let (analytic, size) = (terms.iter().sum::<f64>(), terms.iter().map(|t| t * t).sum::<f64>().sqrt());
        if (numeric - analytic).abs() > TOLERANCE * (size + numeric.abs() + 0.05) || !analytic.is_finite() {
            return Err(format!("the gradient of {name} along a direction is {analytic}, the difference {numeric}"));
        }
    }
    Ok(())
}

/// Returns short decimals in -1..1 from a fixed seed.
fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    let values = (0..shape.iter().product()).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 / (1u64 << 53) as f64 * 2e3 - 1e3).round() as f32 / 1e3
    });
    Tensor::from_vec::<f32>(shape, values.collect())
}
