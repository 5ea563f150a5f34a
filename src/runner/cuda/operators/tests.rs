//! Every operator on the emulated device against its twin on the CPU.

use super::super::gpu::Element;
use super::DEFINITIONS;
use crate::autodiff::own;
use crate::graph::{Attributes, Builder, DType, Fact, INTERNAL_DOMAIN, Model, Tensor};
use crate::runner::{Engine, OnnxRuntime, evaluate, testing};

/// How far results may be apart, relative to the largest element of the CPU's.
pub(super) fn near(element: Element) -> f64 {
    match element {
        Element::F32 => 2e-6,
        Element::F16 => 2e-3,
        Element::BF16 => 1.6e-2,
    }
}

/// A node that is run on both.
pub(super) struct Case {
    pub op: &'static str,
    pub attributes: Attributes,
    /// Inputs, float32 where they are floating-point; `None` for one that is left out.
    pub inputs: Vec<Option<Tensor>>,
    /// Shapes of the outputs.
    pub outputs: Vec<Vec<usize>>,
}

/// Returns numbers in [-1, 1) that depend on nothing but `seed`.
pub(super) fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values = (0..shape.iter().product::<usize>()).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    });
    Tensor::from_vec(shape, values.collect::<Vec<f32>>())
}

/// Returns the tensor in the operator's type where the port holds data.
fn converted(tensor: &Tensor, op: &str, port: usize, element: Element) -> Tensor {
    let definition = DEFINITIONS.iter().find(|definition| definition.name == op).expect("the operator is defined");
    match definition.inputs[port].kind {
        super::Kind::Data => tensor.cast_float(element.dtype()).expect("data is floating-point"),
        super::Kind::Float | super::Kind::Int => tensor.clone(),
    }
}

fn run(engine: &mut dyn Engine, case: &Case, inputs: &[Option<Tensor>], element: Element) -> Vec<Vec<f64>> {
    let definition = DEFINITIONS.iter().find(|definition| definition.name == case.op).expect("the operator is defined");
    let mut b = Builder::new("case");
    let (mut values, mut feeds) = (Vec::new(), Vec::new());
    for (at, input) in inputs.iter().enumerate() {
        values
            .push(input.as_ref().map(|tensor| b.input(&format!("x{at}"), Fact::fixed(tensor.dtype(), tensor.shape()))));
        feeds.extend(input.as_ref().map(|tensor| (format!("x{at}"), tensor)));
    }
    let outputs = b.ops(&own(case.op), &values, case.attributes.clone(), case.outputs.len());
    for (at, (output, shape)) in outputs.iter().zip(&case.outputs).enumerate() {
        let dtype = match definition.outputs[at].kind {
            super::Kind::Data => element.dtype(),
            super::Kind::Float => DType::F32,
            super::Kind::Int => DType::I64,
        };
        b.refine(*output, &Fact::fixed(dtype, shape));
        b.output(*output, &format!("y{at}"));
    }
    let opsets = [(String::new(), 18), (INTERNAL_DOMAIN.to_string(), 1)].into();
    let model = Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() };
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), *tensor)).collect();
    let found = evaluate(engine, &model, &feeds).unwrap_or_else(|error| panic!("{} {element:?}: {error}", case.op));
    found.iter().map(|tensor| tensor.to_f64s().expect("outputs are numbers")).collect()
}

/// Compares a node of every element type with the CPU's, which gets the same rounded inputs.
pub(super) fn check(case: &Case) {
    let definition = DEFINITIONS.iter().find(|definition| definition.name == case.op).expect("the operator is defined");
    let mut engines = vec![("emulated", OnnxRuntime::emulated(&testing::library_path(), 2).running_as_is())];
    match testing::cuda() {
        Ok(engine) => engines.push(("CUDA", engine.running_as_is())),
        Err(reason) => eprintln!("skipped on CUDA: {reason}"),
    }
    for element in definition.elements() {
        let rounded: Vec<Option<Tensor>> = (case.inputs.iter().enumerate())
            .map(|(at, input)| input.as_ref().map(|tensor| converted(tensor, case.op, at, *element)))
            .collect();
        let floats: Vec<Option<Tensor>> = (rounded.iter().zip(&case.inputs))
            .map(|(rounded, input)| match (rounded, input) {
                (Some(rounded), Some(input)) if input.dtype() == DType::F32 => rounded.cast_float(DType::F32),
                _ => rounded.clone(),
            })
            .collect();
        let expected = run(&mut testing::onnxruntime().running_as_is(), case, &floats, Element::F32);
        for (name, engine) in &mut engines {
            let found = run(engine, case, &rounded, *element);
            for (at, (expected, found)) in expected.iter().zip(&found).enumerate() {
                let size = expected.iter().fold(1e-30_f64, |most, value| most.max(value.abs()));
                let far = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                let what = format!("{} {element:?} on {name}: output {at}", case.op);
                eprintln!("{what} is {:.1e} of what is allowed", far / (near(*element) * size));
                assert!(expected.len() == found.len() && far.is_finite(), "{what}");
                assert!(far <= near(*element) * size, "{what}: {far} of {size}");
            }
        }
    }
}

#[test]
fn activations() {
    for (op, attributes) in [
        ("ReluGrad", Attributes::none()),
        ("ClipGrad", Attributes::none().with("min", -0.25_f32).with("max", 0.5_f32)),
        ("ClipGrad", Attributes::none().with("max", 0.5_f32)),
    ] {
        for shape in [vec![3, 5, 4, 7], vec![1], vec![2, 4096]] {
            let inputs = vec![Some(noise(&shape, 1)), Some(noise(&shape, 2))];
            check(&Case { op, attributes: attributes.clone(), inputs, outputs: vec![shape] });
        }
    }
}
