//! Train graphs of transformers in operators of our own against their portable twins, on ONNX Runtime.

use super::tests::{Draw, step};
use super::{Target, optimize, rows};
use crate::autodiff::Form;
use crate::graph::{Attributes, Builder, DType, Dim, Fact, INTERNAL_DOMAIN, Model, OpId, Tensor, ValueId};
use crate::runner::{evaluate, testing};
use crate::training::names;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::BTreeMap;

const BATCH: usize = 3;
const WORDS: usize = 11;

struct Net {
    b: Builder,
    draw: Draw,
    width: usize,
    count: usize,
}

impl Net {
    fn weight(&mut self, part: &str, shape: &[usize]) -> ValueId {
        self.count += 1;
        let values = self.draw.tensor(shape);
        self.b.initializer(&format!("layer{}.{part}", self.count), values)
    }

    fn normalized(&mut self, x: ValueId) -> ValueId {
        let mut inputs = vec![x, self.weight("norm.weight", &[self.width])];
        if self.draw.below(3) > 0 {
            inputs.push(self.weight("norm.bias", &[self.width]));
        }
        let axis = self.draw.among(&[-1, 2]);
        let attributes = Attributes::none().with("axis", axis).with("epsilon", 1e-3_f32);
        self.b.op("LayerNormalization", &inputs, attributes)
    }

    fn linear(&mut self, x: ValueId, from: usize, to: usize) -> ValueId {
        let weight = self.weight("weight", &[from, to]);
        let bias = self.weight("bias", &[to]);
        let y = self.b.op("MatMul", &[x, weight], Attributes::none());
        self.b.add(y, bias)
    }

    fn dropped(&mut self, x: ValueId) -> ValueId {
        match self.draw.below(3) {
            0 => x,
            drawn => {
                let ratio = self.b.constant("ratio", Tensor::scalar(if drawn == 1 { 0.1_f32 } else { 0.5 }));
                let training = self.b.constant("training", Tensor::scalar(true));
                let inputs = [Some(x), Some(ratio), Some(training)];
                let like = self.b.fact(x).clone();
                let y = self.b.ops(&OpId::standard("Dropout"), &inputs, Attributes::none(), 1)[0];
                self.b.refine(y, &like);
                y
            }
        }
    }

    fn attention(&mut self, x: ValueId) -> ValueId {
        let width = self.width;
        let [q, k, v] = [(); 3].map(|()| self.linear(x, width, width));
        let k = self.b.transpose(k, &[0, 2, 1]);
        let scores = self.b.op("MatMul", &[q, k], Attributes::none());
        let scores = self.b.scale(scores, 0.3);
        let axis = self.draw.among(&[-1, 2, 1]);
        let weights = self.b.op("Softmax", &[scores], Attributes::none().with("axis", axis));
        let weights = self.dropped(weights);
        let y = self.b.op("MatMul", &[weights, v], Attributes::none());
        let y = self.linear(y, width, width);
        self.dropped(y)
    }

    /// Gelu as exporters write it below opset 20.
    fn gelu(&mut self, x: ValueId) -> ValueId {
        let root = self.b.like(x, std::f64::consts::SQRT_2);
        let inner = self.b.div(x, root);
        let erf = self.b.unary("Erf", inner);
        let shifted = self.b.shift(erf, 1.0);
        let product = self.b.mul(x, shifted);
        self.b.scale(product, 0.5)
    }

    fn feed_forward(&mut self, x: ValueId) -> ValueId {
        let wide = 2 * self.width;
        let y = self.linear(x, self.width, wide);
        let y = self.gelu(y);
        self.linear(y, wide, self.width)
    }
}

fn model(seed: u64) -> Model {
    let mut draw = Draw(ChaCha8Rng::seed_from_u64(seed));
    let (width, tokens) = (draw.among(&[4, 16, 19, 40]), draw.among(&[1, 5, 17]));
    let mut net = Net { b: Builder::new("text"), draw, width, count: 0 };
    let batch = if seed.is_multiple_of(2) { Dim::Symbol("batch".into()) } else { Dim::Known(BATCH) };
    let ids = net.b.input("x", Fact::new(DType::I64, vec![batch, Dim::Known(tokens)]));
    let table = net.weight("words", &[WORDS, width]);
    let mut x = net.b.op("Gather", &[table, ids], Attributes::none().with("axis", 0));
    x = net.dropped(x);
    for _ in 0..2 {
        let (y, post) = (net.normalized(x), net.draw.below(2) == 0);
        let y = net.attention(y);
        let y = net.dropped(y);
        x = net.b.add(y, x);
        let y = net.normalized(x);
        let y = net.feed_forward(y);
        let y = net.dropped(y);
        x = net.b.add(x, y);
        x = if post { net.normalized(x) } else { x };
    }
    let pooled = net.b.reduce("ReduceMean", x, &[1], false);
    let logits = net.linear(pooled, width, 5);
    net.b.output(logits, "logits");
    Model { graph: net.b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() }
}

fn outputs(source: &Model, train: &Model) -> BTreeMap<String, Vec<f64>> {
    let tokens = source.graph.fact(source.graph.inputs()[0]).dim(1).and_then(Dim::known).unwrap();
    let ids = (0..BATCH * tokens).map(|at| (at * 7 % WORDS) as i64 - 2).collect::<Vec<_>>();
    let target = (0..BATCH as i64).map(|row| row * 2 % 5).collect::<Vec<_>>();
    let mut feeds: Vec<(&str, Tensor)> = vec![
        ("x", Tensor::from_vec(&[BATCH, tokens], ids)),
        ("target", Tensor::from_vec(&[BATCH], target)),
        (names::STEP, Tensor::scalar(12_i64)),
    ];
    feeds.extend(source.graph.initializers().map(|(_, value, tensor)| (value.name.as_str(), tensor.clone())));
    let graph = &train.graph;
    feeds.retain(|(name, _)| graph.find(name).is_some_and(|id| graph.inputs().contains(&id)));
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let found = evaluate(&mut testing::onnxruntime(), train, &feeds);
    let found = found.unwrap_or_else(|error| panic!("{error}\n{}", crate::graph::dump(graph)));
    let names = graph.outputs().iter().map(|id| graph.value_name(*id).to_string());
    names.zip(found.iter().map(|tensor| tensor.to_f64s().unwrap())).collect()
}

#[test]
fn both_forms_compute_the_same() {
    let mut failures = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for seed in 0..16 {
        let model = model(seed);
        let parameters: Vec<&str> = model.graph.initializers().map(|(_, value, _)| value.name.as_str()).collect();
        let frozen: Vec<&str> =
            parameters.iter().copied().filter(|name| name.contains("layer") && seed % 3 == 0).take(9).collect();
        let steps = [Form::Portable, Form::Native].map(|form| step(&model, form, &frozen));
        for node in optimize(&steps[1].train, Target::Processor)
            .graph
            .nodes()
            .iter()
            .filter(|node| node.op.domain == INTERNAL_DOMAIN)
        {
            *seen.entry(node.op.name.clone()).or_default() += 1;
        }
        let rest = optimize(&steps[1].train, Target::Processor);
        assert!(!rows::concerned(&rest.graph), "model {seed}: a mask stays");
        let [expected, found] = steps.map(|step| outputs(&model, &step.train));
        assert!(expected.keys().eq(found.keys()), "model {seed}");
        let largest = |values: &[f64]| values.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
        let floor =
            0.02 * expected.iter().filter(|(name, _)| name.ends_with("grad")).map(|g| largest(g.1)).fold(0.0, f64::max);
        for (name, expected) in &expected {
            let found = &found[name];
            let size = largest(expected).max(floor);
            let far = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            if far.is_nan() || far > 5e-5 * size || expected.len() != found.len() {
                failures.push(format!("model {seed}: {name}: {far} of {size}"));
            }
        }
    }
    let expected = ["Dropout", "EmbeddingGrad", "Gelu", "GeluGrad", "LayerNormalization", "LayerNormalizationGrad"];
    for op in expected.into_iter().chain(["Softmax", "SoftmaxGrad"]) {
        assert!(seen.contains_key(op), "no {op} among {seen:?}");
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
