//! Every rewrite against the operator itself on ONNX Runtime's CPU provider.

use super::super::on_cpu;
use super::lower;
use crate::graph::{Attributes, Builder, DType, Fact, Model, Origin, Subgraph, Tensor, ValueId, check};
use crate::runner::{Engine, evaluate, testing};
use std::collections::BTreeMap;

/// Relative to the size of the number, at least one.
const TOLERANCE: [(DType, f64); 2] = [(DType::F32, 3e-6), (DType::F64, 1e-12)];

struct Case {
    op: &'static str,
    opset: i64,
    attributes: Attributes,
    inputs: Vec<Input>,
}

enum Input {
    Given(Tensor),
    Constant(Tensor),
    Absent,
}
use Input::{Absent, Constant, Given};

fn case(op: &'static str, inputs: Vec<Input>, attributes: Attributes) -> Case {
    Case { op, opset: 21, attributes, inputs }
}

fn none() -> Attributes {
    Attributes::none()
}

fn floats(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let value = |at: usize| ((at * 7919 + 13) % 401) as f32 / 100.0 - 2.0;
    Tensor::from_vec(shape, (0..count).map(value).collect())
}

fn doubles(shape: &[usize]) -> Tensor {
    Tensor::from_vec(shape, floats(shape).to_f64s().unwrap())
}

fn numbers(values: &[f32]) -> Tensor {
    Tensor::from_vec(&[values.len()], values.to_vec())
}

/// Inputs at which formulas fail first.
fn special() -> Tensor {
    let small = [0.0, -0.0, 1e-30, 1e-8, -1e-8, 1e-4, -3e-3, 0.1, 0.3, -0.41, 0.42, 0.5, -0.5, 0.500_001, 0.75, -0.9];
    let middle =
        [0.999_999_9, 1.0, -1.0, 1.000_000_1, 1.000_1, 1.5, -2.4, 2.42, 5.0, -7.5, 20.0, -40.0, 88.0, -88.5, 89.2];
    let large = [1e3, -1e4, 1e8, 2e9, -1e10, 3e19, -3e30, 3e38, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    numbers(&[small.as_slice(), &middle, &large].concat())
}

fn ints(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::from_vec(shape, values.to_vec())
}

fn opset(opset: i64, case: Case) -> Case {
    Case { opset, ..case }
}

impl Case {
    fn model(&self) -> Model {
        let mut b = Builder::new("case");
        b.enter(Origin::Forward, "");
        let mut values = Vec::new();
        for (index, input) in self.inputs.iter().enumerate() {
            let name = format!("x{index}");
            values.push(match input {
                Given(tensor) => Some(b.input(&name, Fact::fixed(tensor.dtype(), tensor.shape()))),
                Constant(tensor) => Some(b.initializer(&name, tensor.clone())),
                Absent => None,
            });
        }
        let op = crate::graph::OpId::standard(self.op);
        let y = b.ops(&op, &values, self.attributes.clone(), 1)[0];
        b.output(y, "y");
        let opsets = BTreeMap::from([(String::new(), self.opset)]);
        Model { opsets, ir_version: 10, ..Model::default() }.with_graph(b.finish())
    }

    fn feeds(&self) -> Vec<(String, &Tensor)> {
        let given = self.inputs.iter().enumerate().filter_map(|(index, input)| match input {
            Given(tensor) => Some((format!("x{index}"), tensor)),
            _ => None,
        });
        given.collect()
    }

    fn check(&self, engine: &mut dyn Engine) -> Result<(), String> {
        let model = self.model();
        if on_cpu(&model, &[]).is_empty() {
            return Err("it is on the device already".into());
        }
        let lowered = lower(&model, &[]);
        let left = on_cpu(&lowered, &[]);
        if !left.is_empty() {
            return Err(left.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        }
        check(&lowered.graph).map_err(|error| error.to_string())?;
        let feeds = self.feeds();
        let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), *tensor)).collect();
        let expected = evaluate(engine, &model, &feeds).map_err(|error| format!("as it is: {error}"))?;
        let found = evaluate(engine, &lowered, &feeds).map_err(|error| format!("lowered: {error}"))?;
        same(&expected[0], &found[0])
    }
}

fn same(expected: &Tensor, found: &Tensor) -> Result<(), String> {
    if expected.shape() != found.shape() || expected.dtype() != found.dtype() {
        let facts = [expected, found].map(|tensor| Fact::fixed(tensor.dtype(), tensor.shape()).to_string());
        return Err(format!("expected {}, found {}", facts[0], facts[1]));
    }
    let Some((_, tolerance)) = TOLERANCE.iter().find(|(dtype, _)| *dtype == expected.dtype()) else {
        return if expected.bytes() == found.bytes() { Ok(()) } else { Err(format!("{expected:?}\nfound {found:?}")) };
    };
    let (expected, found) = (expected.to_f64s().unwrap(), found.to_f64s().unwrap());
    for (at, (expected, found)) in expected.iter().zip(&found).enumerate() {
        let equal = expected == found || expected.is_nan() && found.is_nan();
        let close = (expected - found).abs() <= tolerance * expected.abs().max(1.0);
        if !equal && !close {
            return Err(format!("element {at}: expected {expected:e}, found {found:e}"));
        }
    }
    Ok(())
}

#[track_caller]
fn run(cases: Vec<Case>) {
    let mut engine = testing::onnxruntime();
    let mut failures = Vec::new();
    for case in &cases {
        if let Err(reason) = case.check(&mut engine) {
            failures.push(format!("{} {:?}: {reason}", case.op, case.attributes));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn elementwise() {
    let mut cases = Vec::new();
    for op in ["Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Celu", "Cosh", "Sinh"] {
        cases.push(case(op, vec![Given(special())], none()));
        cases.push(opset(18, case(op, vec![Given(floats(&[40, 11]))], none())));
    }
    cases.push(case("Tan", vec![Given(floats(&[40, 11]))], none()));
    cases.push(case("Tan", vec![Given(numbers(&[0.0, -0.0, 1e-20, -1.55, 1.5625, 30.0, -99.0, f32::NAN]))], none()));
    cases.push(case("Celu", vec![Given(special())], none().with("alpha", 0.7_f32)));
    cases.push(case("Mean", vec![Given(floats(&[3, 4])), Given(floats(&[4])), Given(floats(&[3, 1]))], none()));
    cases.push(case("Mean", vec![Given(special())], none()));
    run(cases);
}

#[test]
fn normalization() {
    let ties = Tensor::from_vec(&[2, 3], vec![1_f32, 1.0, 0.5, -1.0, 2.0, 2.0]);
    run(vec![
        case("Hardmax", vec![Given(floats(&[2, 3, 4]))], none()),
        case("Hardmax", vec![Given(floats(&[2, 3, 4]))], none().with("axis", 0)),
        case("Hardmax", vec![Given(ties.clone())], none().with("axis", 1)),
        case("Hardmax", vec![Given(ties)], none().with("axis", -2)),
        case("MeanVarianceNormalization", vec![Given(floats(&[2, 3, 4, 5]))], none()),
        case(
            "MeanVarianceNormalization",
            vec![Given(floats(&[2, 3, 4, 5]))],
            none().with("axes", vec![0_i64, 1, 2, 3]),
        ),
    ]);
}

#[test]
fn bits() {
    let wide = ints(&[6], &[0, 5, -1, -256, i64::MAX, 0x1234_5678_9abc_def0]);
    let narrow = Tensor::from_vec(&[5], vec![0_i32, 5, -1, -256, 0x1234_5678]);
    let mut cases = Vec::new();
    for op in ["BitwiseAnd", "BitwiseOr", "BitwiseXor"] {
        for mask in [0, 1, 0xff, 0xff00_ff00, 0xffff_ffff, -1, -256, 0x5a5a, i64::MAX - 1 - (1 << 62)] {
            cases.push(case(op, vec![Given(wide.clone()), Constant(Tensor::scalar(mask))], none()));
        }
        for mask in [0, 1, 0xf0f0, -1, -16] {
            cases.push(case(op, vec![Constant(Tensor::scalar(mask)), Given(narrow.clone())], none()));
        }
    }
    cases.push(case("BitwiseNot", vec![Given(wide)], none()));
    cases.push(case("BitwiseNot", vec![Given(narrow)], none()));
    for direction in ["LEFT", "RIGHT"] {
        let attributes = || none().with("direction", direction);
        let bytes = Tensor::from_vec(&[4], vec![0_u8, 1, 129, 255]);
        let words = Tensor::from_vec(&[3], vec![0_u32, 77, u32::MAX]);
        cases.push(case("BitShift", vec![Given(bytes), Constant(Tensor::scalar(3_u8))], attributes()));
        cases.push(case("BitShift", vec![Given(words), Constant(Tensor::scalar(31_u32))], attributes()));
    }
    run(cases);
}

#[test]
fn choices() {
    let narrow = Tensor::from_vec(&[2, 4], vec![3_i32, 9, 9, -1, i32::MAX, i32::MAX - 1, i32::MAX, 0]);
    let wide = ints(&[2, 3], &[i64::MAX - 1, i64::MAX, i64::MAX, -5, -5, -9]);
    let bytes = Tensor::from_vec(&[4], vec![3_u8, 255, 255, 0]);
    let mut cases = Vec::new();
    for op in ["ArgMax", "ArgMin"] {
        for last in [0, 1] {
            let attributes = |axis: i64| none().with("select_last_index", last).with("axis", axis);
            cases.push(case(op, vec![Given(narrow.clone())], attributes(1)));
            cases.push(case(op, vec![Given(narrow.clone())], attributes(0).with("keepdims", 0)));
            cases.push(case(op, vec![Given(wide.clone())], attributes(-1)));
            cases.push(case(op, vec![Given(bytes.clone())], attributes(0)));
        }
        cases.push(case(op, vec![Given(floats(&[5, 9]))], none().with("axis", 1).with("select_last_index", 1)));
    }
    let places = Tensor::from_vec(&[3], vec![0_f32, 2.0, -1.0]);
    cases.push(case(
        "OneHot",
        vec![Given(places), Constant(Tensor::scalar(4_f32)), Given(numbers(&[-1.0, 5.0]))],
        none().with("axis", 0),
    ));
    run(cases);
}

/// ONNX Runtime has no kernel at all for this one.
#[test]
fn truth_values_are_chosen() {
    let truths = |values: &[bool], shape: &[usize]| Tensor::from_vec(shape, values.to_vec());
    let condition = truths(&[true, false], &[2, 1]);
    let (a, b) = (truths(&[true, false, true, false], &[2, 2]), truths(&[false, true], &[2]));
    let expected = truths(&[true, false, false, true], &[2, 2]);
    let case = case("Where", vec![Given(condition), Given(a), Given(b)], none());
    let lowered = lower(&case.model(), &[]).into_owned();
    assert!(on_cpu(&lowered, &[]).is_empty());
    let feeds = case.feeds();
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), *tensor)).collect();
    let found = evaluate(&mut testing::onnxruntime(), &lowered, &feeds).unwrap();
    same(&expected, &found[0]).unwrap();
}

#[test]
fn wider() {
    let words = Tensor::from_vec(&[5], vec![0_i32, -7, 9, i32::MAX, i32::MIN]);
    let unsigned = Tensor::from_vec(&[3], vec![0_u32, 9, u32::MAX]);
    let truths = Tensor::from_vec(&[2, 2], vec![true, false, false, false]);
    run(vec![
        case(
            "Clip",
            vec![Given(words.clone()), Constant(Tensor::scalar(-3_i32)), Given(Tensor::scalar(8_i32))],
            none(),
        ),
        case("Clip", vec![Given(unsigned), Constant(Tensor::scalar(3_u32))], none()),
        case("ReduceMax", vec![Given(truths.clone()), Constant(ints(&[1], &[1]))], none()),
        case("ReduceMin", vec![Given(truths.clone()), Constant(ints(&[1], &[0]))], none()),
        case("Tile", vec![Given(truths), Constant(ints(&[2], &[2, 3]))], none()),
        case("GatherND", vec![Given(words), Given(ints(&[2, 1], &[3, -2]))], none()),
    ]);
}

/// ONNX Runtime's kernels read float32 alone.
#[test]
fn regions_are_read_in_float32() {
    let narrow = numbers(&[0.0, 0.0, 0.125, 0.25, 1.0, 1.0, 0.875, 0.75]);
    let wide = Tensor::from_vec(&[8], narrow.to_f64s().unwrap());
    let x = floats(&[1, 2, 6, 5]);
    let of = |regions: Tensor| {
        let sizes = Constant(ints(&[4], &[1, 2, 4, 9]));
        let mode = none().with("mode", "linear").with("coordinate_transformation_mode", "tf_crop_and_resize");
        case("Resize", vec![Given(x.clone()), Constant(regions), Absent, sizes], mode).model()
    };
    let (expected, wide) = (of(narrow), of(wide));
    assert_eq!((on_cpu(&expected, &[]).len(), on_cpu(&wide, &[]).len()), (0, 1));
    let lowered = lower(&wide, &[]);
    assert!(on_cpu(&lowered, &[]).is_empty());
    let mut engine = testing::onnxruntime();
    let [expected, found] = [&expected, &*lowered].map(|model| evaluate(&mut engine, model, &[("x0", &x)]).unwrap());
    same(&expected[0], &found[0]).unwrap();
}

/// No processor of ours computes in bfloat16: only that the graph is right is checked.
#[test]
fn narrow_floats_are_computed_with_in_float32() {
    let mut b = Builder::new("case");
    let x = b.input("x", Fact::fixed(DType::BF16, &[2, 3]));
    let log = b.unary("Log", x);
    let sine = b.unary("Sinh", log);
    b.output(sine, "y");
    let opsets = BTreeMap::from([(String::new(), 21)]);
    let model = Model { opsets, ir_version: 10, ..Model::default() }.with_graph(b.finish());
    assert_eq!(on_cpu(&model, &[]).len(), 2);
    let lowered = lower(&model, &[]);
    assert!(on_cpu(&lowered, &[]).is_empty(), "{:?}", on_cpu(&lowered, &[]));
    check(&lowered.graph).unwrap();
    let y = lowered.graph.find("y").unwrap();
    assert_eq!(lowered.graph.fact(y).dtype, Some(DType::BF16));
}

#[test]
fn pads() {
    let words = ints(&[2, 3], &[1, 2, 3, 4, 5, i64::MAX]);
    let bytes = Tensor::from_vec(&[2, 3], vec![1_u8, 2, 3, 4, 5, 6]);
    let amounts = |values: &[i64]| Constant(ints(&[values.len()], values));
    let mut cases = vec![
        case("Pad", vec![Given(words.clone()), amounts(&[1, 0, 2, 3])], none()),
        case("Pad", vec![Given(words.clone()), amounts(&[1, -1, -1, 3]), Constant(Tensor::scalar(-9_i64))], none()),
        case("Pad", vec![Given(bytes.clone()), amounts(&[2, 1]), Given(Tensor::scalar(7_u8)), amounts(&[-1])], none()),
        case("Pad", vec![Given(words.clone()), amounts(&[0, 0, 0, 0])], none()),
    ];
    for mode in ["edge", "reflect", "wrap"] {
        let inputs = vec![Given(words.clone()), amounts(&[1, 2, 0, 1])];
        cases.push(case("Pad", inputs, none().with("mode", mode)));
        let inputs = vec![Given(bytes.clone()), amounts(&[1, 1]), Absent, amounts(&[1])];
        cases.push(case("Pad", inputs, none().with("mode", mode)));
    }
    run(cases);
}

#[test]
fn scatter() {
    let places = ints(&[3, 2], &[0, 1, 0, 1, 2, -4]);
    let wide = ints(&[4, 2], &[1, i64::MAX - 5, -3, 4, 1 << 40, 6, i64::MIN + 9, 8]);
    let updates = ints(&[3, 2], &[i64::MAX / 4, 3, 2, -1, -(1 << 50), 7]);
    let narrow = Tensor::from_vec(&[4, 2], vec![1_i32, i32::MAX - 5, -3, 4, 1 << 20, 6, 7, 8]);
    let by = Tensor::from_vec(&[3, 2], vec![5_i32, 3, 2, -1, -9, 7]);
    let mut cases = Vec::new();
    let add = || none().with("reduction", "add");
    cases.push(case("ScatterElements", vec![Given(wide.clone()), Given(places.clone()), Given(updates)], add()));
    for reduction in ["add", "min", "max"] {
        let inputs = vec![Given(narrow.clone()), Given(places.clone()), Given(by.clone())];
        cases.push(case("ScatterElements", inputs, none().with("reduction", reduction)));
    }
    let at = ints(&[3, 2], &[0, 1, -1, 2, 2, 0]);
    let inputs = vec![Given(doubles(&[3, 4, 2])), Given(at.clone()), Given(doubles(&[3, 2]))];
    cases.push(case("ScatterND", inputs, add()));
    let inputs = vec![Given(wide), Given(ints(&[2, 1], &[0, -1])), Given(ints(&[2, 2], &[1, 2, 3, 4]))];
    cases.push(case("ScatterND", inputs, add()));
    let inputs =
        vec![Given(narrow), Given(ints(&[2, 1], &[1, 2])), Given(Tensor::from_vec(&[2, 2], vec![1_i32, 2, 3, 4]))];
    cases.push(case("ScatterND", inputs, none().with("reduction", "max")));
    run(cases);
}

#[test]
fn pooling() {
    let image = || Given(floats(&[2, 3, 7, 6]));
    let window = || none().with("kernel_shape", vec![3_i64, 2]);
    let sides = || vec![1_i64, 0, 0, 1];
    let mut cases = Vec::new();
    for p in [1, 2, 3] {
        cases.push(case("LpPool", vec![image()], window().with("p", p)));
        let attributes = window().with("p", p).with("strides", vec![2_i64, 3]).with("pads", sides());
        cases.push(case("LpPool", vec![image()], attributes));
        cases.push(case("GlobalLpPool", vec![image()], none().with("p", p)));
    }
    cases.push(case("LpPool", vec![image()], window().with("dilations", vec![2_i64, 1])));
    cases.push(case("LpPool", vec![image()], window().with("strides", vec![2_i64, 3]).with("ceil_mode", 1)));
    cases.push(case("LpPool", vec![image()], window().with("strides", vec![2_i64, 2]).with("auto_pad", "SAME_UPPER")));
    cases.push(case("LpPool", vec![Given(floats(&[2, 3, 9]))], none().with("kernel_shape", vec![4_i64])));
    let columns = |rows: usize, count: usize| Given(floats(&[2, rows, count]));
    let sizes = |values: &[i64]| Constant(ints(&[values.len()], values));
    cases.push(case("Col2Im", vec![columns(10, 5), sizes(&[5, 5]), sizes(&[1, 5])], none()));
    cases.push(case("Col2Im", vec![columns(8, 16), sizes(&[5, 5]), sizes(&[2, 2])], none()));
    let attributes = none().with("strides", vec![2_i64, 2]).with("pads", vec![1_i64, 0, 1, 0]);
    cases.push(case("Col2Im", vec![columns(12, 9), sizes(&[5, 6]), sizes(&[3, 2])], attributes.clone()));
    cases.push(case(
        "Col2Im",
        vec![columns(12, 4), sizes(&[6, 5]), sizes(&[3, 2])],
        none().with("strides", vec![3_i64, 3]),
    ));
    let attributes = none().with("dilations", vec![1_i64, 2]);
    cases.push(case("Col2Im", vec![columns(8, 12), sizes(&[5, 5]), sizes(&[2, 2])], attributes));
    let places = ints(&[1, 1, 2, 2], &[5, 7, 13, 15]);
    let pooled = || Given(floats(&[1, 1, 2, 2]));
    let window = || none().with("kernel_shape", vec![2_i64, 2]).with("strides", vec![2_i64, 2]);
    cases.push(case("MaxUnpool", vec![pooled(), Given(places.clone())], window()));
    cases.push(case("MaxUnpool", vec![pooled(), Given(places), sizes(&[1, 1, 5, 5])], window()));
    run(cases);
}

#[test]
fn transposed_convolutions() {
    let image = || Given(floats(&[2, 4, 5, 3]));
    let weight = || Given(floats(&[4, 3, 3, 2]));
    let mut cases = Vec::new();
    for pads in [vec![1_i64, 0, 0, 0], vec![0, 0, 1, 0], vec![2, 1, 1, 0], vec![0, 1, 2, 1]] {
        cases.push(case("ConvTranspose", vec![image(), weight()], none().with("pads", pads.clone())));
        let attributes = none().with("pads", pads).with("strides", vec![2_i64, 3]).with("dilations", vec![2_i64, 1]);
        let attributes = attributes.with("output_padding", vec![1_i64, 2]).with("group", 2);
        cases.push(case("ConvTranspose", vec![image(), weight(), Given(floats(&[6]))], attributes));
    }
    for auto_pad in ["SAME_UPPER", "SAME_LOWER"] {
        for strides in [vec![1_i64, 1], vec![2, 1], vec![2, 2]] {
            let attributes = none().with("auto_pad", auto_pad).with("strides", strides);
            cases.push(case("ConvTranspose", vec![image(), Given(floats(&[4, 3, 3, 4]))], attributes));
        }
    }
    cases.push(case(
        "ConvTranspose",
        vec![Given(floats(&[1, 2, 6])), Given(floats(&[2, 3, 4]))],
        none().with("pads", vec![0_i64, 3]),
    ));
    run(cases);
}

/// The lengths of inverse transforms are powers of two: ONNX Runtime divides by others in float32.
#[test]
fn spectra() {
    let axis = |axis: i64| Constant(Tensor::scalar(axis));
    let length = |length: i64| Constant(Tensor::scalar(length));
    let real = || Given(doubles(&[2, 6, 5, 1]));
    let complex = || Given(doubles(&[2, 6, 4, 2]));
    let inverse = || none().with("inverse", 1);
    let mut cases = vec![
        case("DFT", vec![real(), Absent, axis(1)], none()),
        case("DFT", vec![complex(), Absent, axis(-2)], none()),
        case("DFT", vec![complex()], inverse()),
        case("DFT", vec![real(), length(4), axis(2)], none()),
        case("DFT", vec![complex(), length(9), axis(1)], none()),
        case("DFT", vec![real(), Absent, axis(1)], none().with("onesided", 1)),
        opset(18, case("DFT", vec![complex()], inverse().with("axis", 2))),
        opset(18, case("DFT", vec![real(), length(7)], none().with("axis", 1).with("onesided", 1))),
    ];
    for aligned in [0, 1] {
        let attributes = || none().with("align_corners", aligned);
        let size = |values: &[i64]| Constant(ints(&[values.len()], values));
        cases.push(case("AffineGrid", vec![Given(floats(&[2, 2, 3])), size(&[2, 3, 4, 5])], attributes()));
        cases.push(case("AffineGrid", vec![Given(floats(&[1, 3, 4])), size(&[1, 2, 2, 3, 4])], attributes()));
    }
    run(cases);
}

#[test]
fn what_only_graph_inputs_feed_stays_on_the_device() {
    let (y, mut engine) = (floats(&[3, 4]), testing::onnxruntime());
    for x in [floats(&[20, 20]), ints(&[20, 20], &(0..400).collect::<Vec<i64>>())] {
        let mut b = Builder::new("case");
        let given = b.input("x", Fact::fixed(x.dtype(), x.shape()));
        let other = b.input("y", Fact::fixed(DType::F32, &[3, 4]));
        let size = b.unary("Size", other);
        let size = b.cast(size, x.dtype());
        let z = b.mul(given, size);
        b.output(z, "z");
        let opsets = BTreeMap::from([(String::new(), 21)]);
        let model = Model { opsets, ir_version: 10, ..Model::default() }.with_graph(b.finish());
        assert_eq!(on_cpu(&model, &[]).len(), 1);
        let lowered = lower(&model, &[]);
        assert!(on_cpu(&lowered, &[]).is_empty(), "{:?}", on_cpu(&lowered, &[]));
        let feeds = [("x", &x), ("y", &y)];
        let [expected, found] = [&model, &*lowered].map(|model| evaluate(&mut engine, model, &feeds).unwrap());
        same(&expected[0], &found[0]).unwrap();
    }
}

#[test]
fn subgraphs_are_lowered() {
    let branch = |name: &str, f: &dyn Fn(&mut Builder, ValueId) -> ValueId| {
        let mut b = Builder::new(name);
        b.enter(Origin::Forward, name);
        let x = b.input("x", Fact::fixed(DType::F32, &[3]));
        let y = f(&mut b, x);
        b.mark_output(y);
        Subgraph { graph: b.finish(), captures: vec!["x".into()] }
    };
    let mut b = Builder::new("case");
    let c = b.input("c", Fact::fixed(DType::Bool, &[]));
    let x = b.input("x", Fact::fixed(DType::F32, &[3]));
    let yes = branch("yes", &|b, x| b.unary("Cosh", x));
    let no = branch("no", &|b, x| b.unary("Neg", x));
    let attributes = none().with("then_branch", yes).with("else_branch", no);
    let y = b.op("If", &[c], attributes);
    let _ = x;
    b.output(y, "y");
    let opsets = BTreeMap::from([(String::new(), 21)]);
    let model = Model { opsets, ir_version: 10, ..Model::default() }.with_graph(b.finish());
    let found: Vec<String> = on_cpu(&model, &[]).into_iter().map(|found| found.operator.to_string()).collect();
    assert_eq!(found, ["Cosh"]);
    let lowered = lower(&model, &[]);
    assert!(on_cpu(&lowered, &[]).is_empty());
    let (x, truth) = (numbers(&[0.5, -1.0, 3.0]), Tensor::scalar(true));
    let feeds = [("c", &truth), ("x", &x)];
    let mut engine = testing::onnxruntime();
    let [expected, found] = [&model, &*lowered].map(|model| evaluate(&mut engine, model, &feeds).unwrap());
    same(&expected[0], &found[0]).unwrap();
}
