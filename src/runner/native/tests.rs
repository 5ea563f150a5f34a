//! Train graphs in operators of our own against their portable twins, on ONNX Runtime.

use super::Target;
use crate::autodiff::Form;
use crate::graph::{Attributes, Builder, DType, Dim, Fact, INTERNAL_DOMAIN, Model, Node, OpId, Tensor, ValueId};
use crate::losses::{LossKind, LossSpec};
use crate::optim::{OptimizerKind, OptimizerSpec};
use crate::planner::Analysis;
use crate::runner::{Engine, evaluate, testing};
use crate::training::{PhaseOptions, Rates, TrainStep, build, prepare};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashSet};

const BATCH: usize = 3;

/// Draws models.
pub(super) struct Draw(pub ChaCha8Rng);

impl Draw {
    pub fn below(&mut self, count: usize) -> usize {
        self.0.next_u32() as usize % count
    }

    pub fn among<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    pub fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let count = shape.iter().product();
        let values = (0..count).map(|_| (self.0.next_u32() % 2001) as f32 / 1000.0 - 1.0).collect();
        Tensor::from_vec(shape, values)
    }
}

/// A network of images under construction.
struct Net {
    b: Builder,
    draw: Draw,
    count: usize,
}

impl Net {
    fn name(&mut self, part: &str) -> String {
        self.count += 1;
        format!("layer{}.{part}", self.count)
    }

    fn shape(&self, value: ValueId) -> [usize; 3] {
        let shape = self.b.fact(value).shape.clone().unwrap();
        [1, 2, 3].map(|axis| shape[axis].known().unwrap())
    }

    fn convolution(
        &mut self,
        x: ValueId,
        channels: usize,
        kernel: [usize; 2],
        strides: [usize; 2],
        group: usize,
    ) -> ValueId {
        let [inputs, height, width] = self.shape(x);
        let pads: Vec<i64> = (0..4).map(|side| self.draw.below(kernel[side % 2]) as i64).collect();
        let dilation = [height, width].map(|size| if size > 6 { self.draw.among(&[1, 2]) } else { 1 });
        let name = self.name("conv.weight");
        let weight = self.draw.tensor(&[channels, inputs / group, kernel[0], kernel[1]]);
        let w = self.b.initializer(&name, weight);
        let mut all = vec![x, w];
        if self.draw.below(2) == 0 {
            let bias = self.draw.tensor(&[channels]);
            all.push(self.b.initializer(&name.replace("weight", "bias"), bias));
        }
        let ints = |pair: [usize; 2]| pair.map(|size| size as i64).to_vec();
        let attributes = Attributes::none()
            .with("kernel_shape", ints(kernel))
            .with("strides", ints(strides))
            .with("dilations", dilation.to_vec())
            .with("pads", pads)
            .with("group", group as i64);
        self.b.op("Conv", &all, attributes)
    }

    fn normalization(&mut self, x: ValueId) -> ValueId {
        let channels = self.shape(x)[0];
        let name = self.name("bn");
        let mut inputs = vec![Some(x)];
        for part in ["weight", "bias", "running_mean"] {
            let values = self.draw.tensor(&[channels]);
            inputs.push(Some(self.b.initializer(&format!("{name}.{part}"), values)));
        }
        let ones = Tensor::float_full(DType::F32, &[channels], 1.0);
        inputs.push(Some(self.b.initializer(&format!("{name}.running_var"), ones)));
        let like = self.b.fact(x).clone();
        let attributes = Attributes::none().with("epsilon", 1e-3_f32);
        let y = self.b.ops(&OpId::standard("BatchNormalization"), &inputs, attributes, 1)[0];
        self.b.refine(y, &like);
        y
    }

    fn activation(&mut self, x: ValueId) -> ValueId {
        match self.draw.below(4) {
            0 => x,
            1 => {
                let bounds = [-0.5_f32, 0.75].map(Tensor::scalar);
                let bounds = bounds.map(|bound| self.b.constant("bound", bound));
                self.b.op("Clip", &[x, bounds[0], bounds[1]], Attributes::none())
            }
            2 => self.b.unary("Sigmoid", x),
            _ => self.b.unary("Relu", x),
        }
    }

    /// Two convolutions, normalized, and perhaps what went in added.
    fn block(&mut self, x: ValueId) -> ValueId {
        let [inputs, height, width] = self.shape(x);
        let channels = self.draw.among(&[3, 8, 16, 20]);
        let kernel = [height, width].map(|size| self.draw.among(&[1, 2, 3]).min(size));
        let strides = [self.draw.among(&[1, 1, 2]), self.draw.among(&[1, 1, 2, 3])];
        let mut y = self.convolution(x, channels, kernel, strides, 1);
        if self.draw.below(4) > 0 {
            y = self.normalization(y);
        }
        y = self.activation(y);
        if self.draw.below(3) == 0 {
            let group = self.shape(y)[0];
            let channels = group * self.draw.among(&[1, 1, 2]);
            let [_, height, width] = self.shape(y);
            let kernel = [height, width].map(|size| self.draw.among(&[1, 3]).min(size));
            let strides = [1, self.draw.among(&[1, 2])];
            y = self.convolution(y, channels, kernel, strides, group);
            if self.draw.below(2) == 0 {
                y = self.normalization(y);
                y = self.activation(y);
                y = self.convolution(y, 12, [1, 1], [1, 1], 1);
            }
        }
        let group = self.draw.among(&[1, inputs]);
        let mut z = self.convolution(x, inputs, [1, 1], [1, 1], group);
        if self.shape(z) == [inputs, height, width] {
            z = self.normalization(z);
            z = if self.draw.below(2) == 0 { self.b.add(z, x) } else { self.b.add(x, z) };
            z = self.activation(z);
            z = self.convolution(z, channels, kernel, strides, 1);
            z = if self.draw.below(2) == 0 { self.normalization(z) } else { z };
            if self.shape(z) == self.shape(y) {
                y = self.b.add(y, z);
                y = self.activation(y);
            }
        }
        y
    }

    fn pool(&mut self, x: ValueId) -> ValueId {
        let [_, height, width] = self.shape(x);
        if height < 3 || width < 3 {
            return x;
        }
        let op = self.draw.among(&["MaxPool", "AveragePool", ""]);
        let kernel = [self.draw.among(&[2, 3]), self.draw.among(&[2, 3])];
        let pads: Vec<i64> = (0..4).map(|side| self.draw.below(kernel[side % 2] as usize) as i64).collect();
        let strides = vec![self.draw.among(&[1, 2]), self.draw.among(&[1, 2])];
        let mut attributes =
            Attributes::none().with("kernel_shape", kernel.to_vec()).with("strides", strides).with("pads", pads);
        match op {
            "" => return x,
            "AveragePool" => attributes.set("count_include_pad", self.draw.below(2) as i64),
            _ => {}
        }
        self.b.op(op, &[x], attributes)
    }
}

fn model(seed: u64) -> Model {
    let mut net = Net { b: Builder::new("images"), draw: Draw(ChaCha8Rng::seed_from_u64(seed)), count: 0 };
    let channels = net.draw.among(&[1, 3, 4, 16]);
    let mut shape = vec![Dim::Symbol("batch".into()), Dim::Known(channels)];
    shape.extend([net.draw.among(&[5, 8, 11]), net.draw.among(&[4, 9, 12])].map(Dim::Known));
    let mut y = net.b.input("x", Fact::new(DType::F32, shape));
    for _ in 0..2 {
        y = net.block(y);
        y = net.pool(y);
    }
    finish(net, y)
}

/// Adds what turns images into classes.
fn finish(mut net: Net, y: ValueId) -> Model {
    let pooled = match net.draw.below(3) {
        0 => net.b.op("GlobalAveragePool", &[y], Attributes::none()),
        1 => net.b.reduce("ReduceMean", y, &[2, 3], true),
        _ => net.b.op("GlobalMaxPool", &[y], Attributes::none()),
    };
    let features = net.shape(pooled)[0];
    let flat = net.b.op("Flatten", &[pooled], Attributes::none());
    let weight = net.draw.tensor(&[5, features]);
    let w = net.b.initializer("head.weight", weight);
    let logits = net.b.op("Gemm", &[flat, w], Attributes::none().with("transB", 1));
    net.b.output(logits, "logits");
    Model { graph: net.b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() }
}

pub(super) fn step(model: &Model, form: Form, frozen: &[&str]) -> TrainStep {
    let mut prepared = prepare(&Analysis::of(model)).unwrap();
    prepared.form = form;
    let options = PhaseOptions {
        frozen: frozen.iter().copied().collect::<HashSet<_>>(),
        frozen_inputs: false,
        rates: Rates::new(),
        loss: &LossSpec::new(LossKind::CrossEntropy),
        optimizer: &OptimizerSpec::new(OptimizerKind::Sgd),
        output: None,
        seed: 0,
    };
    build(&prepared, &options).unwrap()
}

fn outputs(engine: &mut dyn Engine, model: &Model, step: &TrainStep, draw: &mut Draw) -> BTreeMap<String, Vec<f64>> {
    let x = model.graph.fact(model.graph.inputs()[0]).shape.clone().unwrap();
    let x: Vec<usize> = x.iter().map(|dim| dim.known().unwrap_or(BATCH)).collect();
    let x = draw.tensor(&x);
    let target = Tensor::from_vec(&[BATCH], (0..BATCH as i64).map(|row| row * 2 % 5).collect::<Vec<_>>());
    let graph = &step.train.graph;
    let mut feeds: Vec<(&str, Tensor)> = vec![("x", x), ("target", target)];
    for (_, value, tensor) in model.graph.initializers() {
        if graph.find(&value.name).is_some_and(|id| graph.inputs().contains(&id)) {
            feeds.push((&value.name, tensor.clone()));
        }
    }
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let found = evaluate(engine, &step.train, &feeds);
    let found = found.unwrap_or_else(|error| panic!("{error}\n{}", crate::graph::dump(graph)));
    let names = graph.outputs().iter().map(|id| graph.value_name(*id).to_string());
    names.zip(found.iter().map(|tensor| tensor.to_f64s().unwrap())).collect()
}

#[test]
fn both_forms_compute_the_same() {
    let mut failures = Vec::new();
    for seed in 0..60 {
        let model = model(seed);
        let parameters: Vec<&str> = model.graph.initializers().map(|(_, value, _)| value.name.as_str()).collect();
        let frozen = if seed % 3 == 0 { &parameters[..parameters.len() / 3] } else { &[] };
        let frozen: Vec<&str> =
            frozen.iter().copied().filter(|name| seed % 2 == 0 || !name.contains("running")).collect();
        let steps = [Form::Portable, Form::Native].map(|form| step(&model, form, &frozen));
        failures.extend(differences(&format!("model {seed}"), &model, steps));
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Returns which outputs of the portable and the native form differ.
fn differences(what: &str, model: &Model, steps: [TrainStep; 2]) -> Vec<String> {
    differences_on(&mut testing::onnxruntime(), what, model, steps)
}

/// Returns which outputs of the portable form on the processor and of the native form on an engine differ.
fn differences_on(engine: &mut dyn Engine, what: &str, model: &Model, steps: [TrainStep; 2]) -> Vec<String> {
    let mut failures = Vec::new();
    let own = |step: &TrainStep| step.train.graph.nodes().iter().any(|node| node.op.domain == INTERNAL_DOMAIN);
    assert!(!own(&steps[0]) && own(&steps[1]), "{what}");
    let draw = || Draw(ChaCha8Rng::seed_from_u64(99));
    let expected = outputs(&mut testing::onnxruntime(), model, &steps[0], &mut draw());
    let found = outputs(engine, model, &steps[1], &mut draw());
    assert!(expected.keys().eq(found.keys()), "{what}");
    let largest = |values: &[f64]| values.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
    // What normalization follows has gradients that cancel.
    let floor =
        0.2 * expected.iter().filter(|(name, _)| name.ends_with("grad")).map(|g| largest(g.1)).fold(0.0, f64::max);
    for (name, expected) in &expected {
        let found = &found[name];
        let size = largest(expected).max(floor);
        let far = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        if far.is_nan() || far > 2e-4 * size || expected.len() != found.len() {
            failures.push(format!("{what}: {name}: {far} of {size}"));
        }
    }
    failures
}

/// Convolution, depthwise convolution and convolution, with a normalization and an activation between.
fn chain(kinds: [&str; 2]) -> Model {
    let mut net = Net { b: Builder::new("images"), draw: Draw(ChaCha8Rng::seed_from_u64(7)), count: 0 };
    let shape = [Dim::Symbol("batch".into()), Dim::Known(3), Dim::Known(9), Dim::Known(6)].to_vec();
    let mut y = net.b.input("x", Fact::new(DType::F32, shape));
    y = net.convolution(y, 20, [3, 3], [1, 1], 1);
    for (kind, channels, kernel, group) in [(kinds[0], 20, [3, 3], 20), (kinds[1], 8, [1, 1], 1)] {
        y = net.normalization(y);
        y = match kind {
            "Clip" => {
                let bounds = [-0.5_f32, 0.75].map(|bound| net.b.constant("bound", Tensor::scalar(bound)));
                net.b.op("Clip", &[y, bounds[0], bounds[1]], Attributes::none())
            }
            "" => y,
            kind => net.b.unary(kind, y),
        };
        y = net.convolution(y, channels, kernel, [1, 1], group);
    }
    finish(net, y)
}

#[test]
fn convolutions_absorb_normalizations() {
    for (kinds, given) in
        [(["Clip", "Relu"], false), (["", "Clip"], false), (["Clip", "Clip"], true), (["Relu", ""], true)]
    {
        let model = chain(kinds);
        let frozen: Vec<&str> = model.graph.initializers().map(|(_, value, _)| value.name.as_str()).collect();
        let frozen: Vec<&str> = frozen.into_iter().filter(|name| given && name.contains(".bn.")).collect();
        let steps = [Form::Portable, Form::Native].map(|form| step(&model, form, &frozen));
        let optimized = super::optimize(&steps[1].train, Target::Processor).into_owned();
        let count = |name: &str, fits: fn(&Node) -> bool| {
            optimized.graph.nodes().iter().filter(|node| super::is_own(node, name) && fits(node)).count()
        };
        let absorbs = |node: &Node| node.attributes.get("activation").is_some();
        let dump = || crate::graph::dump(&optimized.graph);
        assert_eq!([count("Conv", absorbs), count("ConvWeightGrad", absorbs)], [2, 2], "{}", dump());
        assert_eq!(count("BatchNormalization", |_| true), if given { 0 } else { 2 }, "{}", dump());
        assert_eq!(count("BatchNormalization", |node| node.output(0).is_some()), 0, "{}", dump());
        assert_eq!(count("FixedNormalization", |_| true), 0, "{}", dump());
        assert_eq!(count("RunningStatistics", |_| true), if given { 0 } else { 2 }, "{}", dump());
        let sized = optimized.graph.nodes().iter().any(|node| node.op.is("Size"));
        assert!(!sized, "{}", dump());
        let failures = differences(&format!("{kinds:?}"), &model, steps);
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }
}

/// Models as they are trained on a device, on the emulated one.
#[cfg(unix)]
mod device {
    use super::*;
    use crate::runner::OnnxRuntime;

    impl Net {
        fn conv(
            &mut self,
            x: ValueId,
            channels: usize,
            kernel: i64,
            stride: i64,
            pads: [i64; 4],
            group: usize,
        ) -> ValueId {
            let inputs = self.shape(x)[0];
            let name = self.name("conv.weight");
            let shape = [channels, inputs / group, kernel as usize, kernel as usize];
            let scale = 1.0 / ((shape[1] * shape[2] * shape[3]) as f32).sqrt();
            let weight = self.draw.tensor(&shape).to_f64s().unwrap();
            let weight = Tensor::from_vec(&shape, weight.iter().map(|w| *w as f32 * scale).collect::<Vec<_>>());
            let w = self.b.initializer(&name, weight);
            let attributes = Attributes::none()
                .with("kernel_shape", vec![kernel; 2])
                .with("strides", vec![stride; 2])
                .with("pads", pads.to_vec())
                .with("group", group as i64);
            self.b.op("Conv", &[x, w], attributes)
        }

        fn clip(&mut self, x: ValueId) -> ValueId {
            let bounds = [0.0_f32, 1.5].map(|bound| self.b.constant("bound", Tensor::scalar(bound)));
            self.b.op("Clip", &[x, bounds[0], bounds[1]], Attributes::none())
        }
    }

    fn start(size: usize) -> (Net, ValueId) {
        let mut net = Net { b: Builder::new("images"), draw: Draw(ChaCha8Rng::seed_from_u64(5)), count: 0 };
        let shape = [Dim::Symbol("batch".into()), Dim::Known(3), Dim::Known(size), Dim::Known(size)].to_vec();
        let x = net.b.input("x", Fact::new(DType::F32, shape));
        (net, x)
    }

    fn end(mut net: Net, y: ValueId) -> Model {
        let pooled = net.b.op("GlobalAveragePool", &[y], Attributes::none());
        let features = net.shape(pooled)[0];
        let flat = net.b.op("Flatten", &[pooled], Attributes::none());
        let weight = net.draw.tensor(&[5, features]);
        let w = net.b.initializer("head.weight", weight);
        let logits = net.b.op("Gemm", &[flat, w], Attributes::none().with("transB", 1));
        net.b.output(logits, "logits");
        Model { graph: net.b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() }
    }

    /// Three blocks of residuals after a stem with a pool.
    fn resnet() -> Model {
        let (mut net, x) = start(16);
        let around = [1; 4];
        let mut y = net.conv(x, 16, 3, 1, around, 1);
        y = net.normalization(y);
        y = net.b.unary("Relu", y);
        let window = Attributes::none()
            .with("kernel_shape", vec![3; 2])
            .with("strides", vec![2; 2])
            .with("pads", around.to_vec());
        y = net.b.op("MaxPool", &[y], window);
        for (channels, stride) in [(16, 1), (32, 2), (64, 2)] {
            let mut z = net.conv(y, channels, 3, stride, around, 1);
            z = net.normalization(z);
            z = net.b.unary("Relu", z);
            z = net.conv(z, channels, 3, 1, around, 1);
            z = net.normalization(z);
            if stride > 1 {
                y = net.conv(y, channels, 1, stride, [0; 4], 1);
                y = net.normalization(y);
            }
            y = net.b.add(z, y);
            y = net.b.unary("Relu", y);
        }
        end(net, y)
    }

    /// Blocks of a wide depthwise convolution between narrow ones, with padding as TensorFlow has it.
    fn mobilenet() -> Model {
        let (mut net, x) = start(12);
        let mut y = net.conv(x, 8, 3, 2, [0, 0, 1, 1], 1);
        y = net.normalization(y);
        y = net.clip(y);
        for (channels, stride) in [(8, 1), (12, 2), (12, 1)] {
            let inputs = net.shape(y)[0];
            let wide = inputs * 4;
            let mut z = net.conv(y, wide, 1, 1, [0; 4], 1);
            z = net.normalization(z);
            z = net.clip(z);
            let pads = if stride == 2 { [0, 0, 1, 1] } else { [1; 4] };
            z = net.conv(z, wide, 3, stride, pads, wide);
            z = net.normalization(z);
            z = net.clip(z);
            z = net.conv(z, channels, 1, 1, [0; 4], 1);
            z = net.normalization(z);
            y = if inputs == channels { net.b.add(z, y) } else { z };
        }
        end(net, y)
    }

    fn check(what: &str, model: &Model, frozen: &[&str]) -> Vec<String> {
        let mut engine = OnnxRuntime::emulated(&testing::library_path(), 2);
        let steps = [Form::Portable, Form::Native].map(|form| step(model, form, frozen));
        let optimized = super::super::optimize(&steps[1].train, Target::Device).into_owned();
        let absorbs = |node: &Node| super::super::is_own(node, "Conv") && node.attributes.get("activation").is_some();
        assert!(!optimized.graph.nodes().iter().any(absorbs), "{}", crate::graph::dump(&optimized.graph));
        differences_on(&mut engine, what, model, steps)
    }

    #[test]
    fn a_device_computes_the_same() {
        let mut failures = Vec::new();
        for (what, model) in [("resnet", resnet()), ("mobilenet", mobilenet())] {
            let parameters: Vec<&str> = model.graph.initializers().map(|(_, value, _)| value.name.as_str()).collect();
            failures.extend(check(what, &model, &[]));
            failures.extend(check(&format!("{what}, frozen"), &model, &parameters[..parameters.len() / 2]));
        }
        for seed in 0..12 {
            failures.extend(check(&format!("model {seed}"), &model(seed), &[]));
        }
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }
}
