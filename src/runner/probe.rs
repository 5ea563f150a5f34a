//! Runs of a model on made-up data, for facts that analysis does not find.

use super::engine::{Engine, Target};
use crate::facts::Probe;
use crate::graph::{Builder, DType, Fact, Model, Tensor, ValueId};
use std::collections::HashMap;

/// Looks at values inside a model by running it on an engine.
pub struct EngineProbe<'a> {
    engine: &'a mut dyn Engine,
}

impl<'a> EngineProbe<'a> {
    /// Returns a probe that runs on this engine.
    pub fn new(engine: &'a mut dyn Engine) -> EngineProbe<'a> {
        EngineProbe { engine }
    }

    fn attempt(&mut self, model: &Model, names: &[&str], feed: &Feed) -> Result<Vec<Fact>, String> {
        let engine = &mut *self.engine;
        let session = engine.load(model).map_err(|error| error.to_string())?;
        let mut buffers = Vec::new();
        let mut run = || -> Result<Vec<Fact>, String> {
            let mut inputs = Vec::new();
            for (name, tensor) in feed {
                let buffer = engine.allocate(tensor).map_err(|error| error.to_string())?;
                buffers.push(buffer);
                inputs.push((name.as_str(), buffer));
            }
            let outputs: Vec<(&str, Target)> = names.iter().map(|name| (*name, Target::Host)).collect();
            let binding = engine.bind(session, &inputs, &outputs).map_err(|error| error.to_string())?;
            let tensors = engine.run(binding).map_err(|error| error.to_string())?;
            Ok(tensors.iter().map(|tensor| Fact::fixed(tensor.dtype(), tensor.shape())).collect())
        };
        let facts = run();
        engine.unload(session);
        buffers.into_iter().for_each(|buffer| engine.free(buffer));
        facts
    }
}

type Feed = Vec<(String, Tensor)>;

impl Probe for EngineProbe<'_> {
    fn run(&mut self, model: &Model, ask: &[ValueId], sizes: &HashMap<String, usize>) -> Result<Vec<Fact>, String> {
        let names: Vec<&str> = ask.iter().map(|id| model.graph.value_name(*id)).collect();
        let mut builder = Builder::extend(model.graph.clone());
        for id in ask.iter().filter(|id| !model.graph.outputs().contains(id)) {
            builder.mark_output(*id);
        }
        let exposed = model.with_graph(builder.finish());
        // Zeros are indices and masks that every model takes; a model that does not may take ones.
        self.attempt(&exposed, &names, &feed(model, sizes, 0)?)
            .or_else(|first| self.attempt(&exposed, &names, &feed(model, sizes, 1)?).map_err(|_| first))
    }
}

/// Returns a tensor for each input: floats are one half, everything else is `number`.
fn feed(model: &Model, sizes: &HashMap<String, usize>, number: u8) -> Result<Feed, String> {
    let graph = model.graph.with_sizes(sizes);
    let tensor = |id: &ValueId| {
        let fact = graph.fact(*id);
        let unknown = || format!("input \"{}\" is {fact}", graph.value_name(*id));
        let (dtype, shape) = fact.dtype.zip(fact.sizes()).ok_or_else(unknown)?;
        let count =
            shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size)).filter(|count| *count < 1 << 28);
        let count = count.ok_or_else(unknown)?;
        let tensor = match dtype {
            dtype if dtype.is_float() => Tensor::float_full(dtype, &shape, 0.5),
            DType::Bool => Tensor::from_vec(&shape, vec![number > 0; count]),
            DType::I64 | DType::I32 => Tensor::float_full(dtype, &shape, f64::from(number)),
            dtype if dtype.size() > 0 => Tensor::zeros(dtype, &shape),
            _ => return Err(unknown()),
        };
        Ok((graph.value_name(*id).to_string(), tensor))
    };
    graph.inputs().iter().map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Source, complete_with};
    use crate::graph::{Attributes, Dim, OpId};
    use crate::runner::testing::onnxruntime;

    /// A model with an operator that has no rule for shapes, and one whose output the data decide.
    fn model() -> (Model, ValueId, ValueId) {
        let mut b = Builder::new("probe");
        let dims = |dims: &[&str]| {
            let dim = |text: &&str| text.parse().map_or_else(|_| Dim::Symbol((*text).into()), Dim::Known);
            Fact::new(DType::F32, dims.iter().map(dim).collect())
        };
        let image = b.input("image", dims(&["batch", "3", "6", "6"]));
        let grid = b.input("grid", dims(&["batch", "height", "5", "2"]));
        let op = OpId { domain: "com.microsoft".into(), name: "GridSample".into() };
        let sampled = b.ops(&op, &[Some(image), Some(grid)], Attributes::none(), 1)[0];
        let flat = b.op("Flatten", &[sampled], Attributes::none());
        let rows = b.op("NonZero", &[sampled], Attributes::none());
        let rows = b.transpose(rows, &[1, 0]);
        let picked = b.op("GatherND", &[sampled, rows], Attributes::none());
        b.mark_output(flat);
        b.mark_output(picked);
        let opsets = [(String::new(), 17), ("com.microsoft".into(), 1)].into();
        (Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() }, flat, picked)
    }

    #[test]
    fn a_run_tells_what_analysis_does_not() {
        let (model, flat, picked) = model();
        let mut engine = onnxruntime();
        let completed = complete_with(&model, &HashMap::new(), Some(&mut EngineProbe::new(&mut engine)));
        let graph = &completed.model.graph;
        let sampled = graph.node(graph.producer(flat).unwrap()).input(0).unwrap();
        assert_eq!(graph.fact(sampled).to_string(), "float32[batch,3,height,5]", "{:?}", completed.notes);
        assert_eq!(completed.source(sampled), Source::Probe);
        assert_eq!(graph.fact(flat).to_string(), "float32[batch,15*height]");
        // A run would say one of many numbers.
        assert_eq!(graph.fact(picked).to_string(), "float32[?]");
        assert!(completed.gaps.iter().any(|gap| gap.value == picked && gap.op == "NonZero"), "{:?}", completed.gaps);
    }

    #[test]
    fn a_run_is_not_tried_where_it_cannot_help_or_costs_too_much() {
        struct Never;
        impl Probe for Never {
            fn run(&mut self, _: &Model, _: &[ValueId], _: &HashMap<String, usize>) -> Result<Vec<Fact>, String> {
                panic!("the model is run")
            }
        }
        let mut large = Builder::extend(model().0.graph);
        large.constant("weight", Tensor::zeros(DType::I8, &[crate::facts::MOST_WEIGHTS + 1]));
        let mut custom = Builder::extend(model().0.graph);
        let x = custom.input("x", Fact::fixed(DType::F32, &[2]));
        let op = OpId { domain: "org.example".into(), name: "Mystery".into() };
        custom.ops(&op, &[Some(x)], Attributes::none(), 1);
        let cases = [("bytes of weights", large.finish()), ("custom operator org.example.Mystery", custom.finish())];
        for (expected, graph) in cases {
            let model = Model { graph, ..model().0 };
            let notes = complete_with(&model, &HashMap::new(), Some(&mut Never)).notes;
            assert!(notes.iter().any(|note| note.contains(expected)), "{expected}: {notes:?}");
        }
    }
}
