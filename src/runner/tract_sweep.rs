//! Whether tract computes what ONNX Runtime computes, over many small graphs.
//!
//! tract picks its kernels by shape, by dtype and by where an operand comes from, and goes wrong
//! in some of the combinations. Each graph here must run on tract and agree.

use super::testing::engines;
use super::{Engine, EngineError, Tract, evaluate};
use crate::graph::{Attributes, Builder, DType, Fact, Model, OpId, Tensor, ValueId};
use std::collections::BTreeMap;

/// Where an operand comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    Input,
    Constant,
    /// A sum of two inputs.
    Computed,
    /// A cast of a wider input.
    Cast,
    /// A sum over an axis.
    Reduced,
}

/// Pairs of sources that differ in what tract makes of them.
const PAIRS: [(Source, Source); 7] = [
    (Source::Input, Source::Input),
    (Source::Input, Source::Constant),
    (Source::Constant, Source::Input),
    (Source::Computed, Source::Cast),
    (Source::Cast, Source::Computed),
    (Source::Input, Source::Reduced),
    (Source::Reduced, Source::Input),
];

const SOURCES: [Source; 5] = [Source::Input, Source::Constant, Source::Computed, Source::Cast, Source::Reduced];

/// Pairs of shapes, tried in both orders; 32 elements and more reach other kernels.
const SHAPES: [(&[usize], &[usize]); 12] = [
    (&[3, 64], &[]),
    (&[3, 64], &[1]),
    (&[3, 64], &[1, 1]),
    (&[3, 64], &[64]),
    (&[3, 64], &[3, 1]),
    (&[3, 64], &[3, 64]),
    (&[64, 8], &[64, 1]),
    (&[64, 1], &[1, 8]),
    (&[5], &[]),
    (&[], &[]),
    (&[1], &[]),
    (&[2, 3, 4], &[3, 1]),
];

/// A graph under construction and what is fed to it.
struct Sweep {
    b: Builder,
    fed: Vec<(String, Tensor)>,
}

impl Sweep {
    fn new() -> Sweep {
        Sweep { b: Builder::new("sweep"), fed: Vec::new() }
    }

    fn input(&mut self, tensor: Tensor) -> ValueId {
        let name = format!("x{}", self.fed.len());
        let value = self.b.input(&name, Fact::fixed(tensor.dtype(), tensor.shape()));
        self.fed.push((name, tensor));
        value
    }

    /// An operand of the given dtype and shape that holds `values`, cut or repeated.
    fn operand(&mut self, source: Source, dtype: DType, shape: &[usize], values: &[f64]) -> ValueId {
        let tensor = |dtype| filled(dtype, shape, values);
        match source {
            Source::Input => self.input(tensor(dtype)),
            Source::Constant => self.b.constant("constant", tensor(dtype)),
            Source::Computed if dtype == DType::Bool => {
                let x = self.input(tensor(dtype));
                self.b.unary("Not", x)
            }
            Source::Computed => {
                let (x, zero) = (self.input(tensor(dtype)), self.input(filled(dtype, shape, &[0.0])));
                self.b.add(x, zero)
            }
            Source::Cast => {
                let wide = if dtype == DType::F64 { DType::F32 } else { DType::F64 };
                let x = self.input(tensor(wide));
                self.b.cast(x, dtype)
            }
            Source::Reduced => {
                let rows: usize = shape.iter().product();
                let values: Vec<f64> = (0..rows).flat_map(|row| [values[row % values.len()], 0.0]).collect();
                let x = self.input(filled(dtype, &[shape, &[2]].concat(), &values));
                self.b.reduce("ReduceSum", x, &[-1], false)
            }
        }
    }

    /// Returns how the engines differ, or the reason for which tract refuses.
    fn compare(self, ort: &mut dyn Engine) -> Result<Vec<String>, EngineError> {
        let Sweep { b, fed } = self;
        let opsets = BTreeMap::from([(String::new(), 18)]);
        let model = Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() };
        let inputs: Vec<(&str, &Tensor)> = fed.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let right = evaluate(ort, &model, &inputs).unwrap_or_else(|error| panic!("the sweep has no meaning: {error}"));
        let found = evaluate(&mut Tract::new(), &model, &inputs)?;
        let names = model.graph.outputs().iter().map(|id| model.graph.value_name(*id));
        let pairs = names.zip(right.iter().zip(&found));
        Ok(pairs.filter_map(|(name, (right, found))| Some(format!("{name}: {}", difference(right, found)?))).collect())
    }
}

/// What was found to differ. Without ONNX Runtime nothing is compared.
struct Wrong {
    ort: Option<Box<dyn Engine>>,
    found: Vec<String>,
}

impl Default for Wrong {
    fn default() -> Wrong {
        Wrong { ort: engines().into_iter().find(|engine| engine.info().name != "tract"), found: Vec::new() }
    }
}

impl Wrong {
    fn compare(&mut self, sweep: Sweep, what: &str) {
        let Some(ort) = &mut self.ort else { return };
        match sweep.compare(ort.as_mut()) {
            Ok(all) => self.found.extend(all.into_iter().map(|reason| format!("{what} {reason}"))),
            Err(error) => self.found.push(format!("{what} {error}")),
        }
    }

    fn none(self) {
        assert!(self.found.is_empty(), "{} wrong:\n{}", self.found.len(), self.found.join("\n"));
    }
}

fn filled(dtype: DType, shape: &[usize], values: &[f64]) -> Tensor {
    let count: usize = shape.iter().product();
    let all = values.iter().copied().cycle().take(count);
    match dtype {
        DType::F32 => Tensor::from_vec::<f32>(shape, all.map(|x| x as f32).collect()),
        DType::F64 => Tensor::from_vec::<f64>(shape, all.collect()),
        DType::I32 => Tensor::from_vec::<i32>(shape, all.map(|x| x as i32).collect()),
        DType::I64 => Tensor::from_vec::<i64>(shape, all.map(|x| x as i64).collect()),
        DType::U8 => Tensor::from_vec::<u8>(shape, all.map(|x| x as u8).collect()),
        DType::Bool => Tensor::from_vec::<bool>(shape, all.map(|x| x > 0.0).collect()),
        other => panic!("the sweep has no {other}"),
    }
}

/// Returns where two tensors differ, if they do.
fn difference(right: &Tensor, found: &Tensor) -> Option<String> {
    if (right.dtype(), right.shape()) != (found.dtype(), found.shape()) {
        let [right, found] = [right, found].map(|tensor| format!("{}{:?}", tensor.dtype(), tensor.shape()));
        return Some(format!("{found} instead of {right}"));
    }
    let close = if right.dtype() == DType::F64 { 1e-12 } else { 1e-5 };
    let [right, found] = [right, found].map(|tensor| tensor.to_f64s().unwrap_or_default());
    let apart = |a: f64, b: f64| !(a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= close * a.abs().max(1e-3));
    let at = right.iter().zip(&found).position(|(right, found)| apart(*right, *found))?;
    Some(format!("{} instead of {} at {at}", found[at], right[at]))
}

struct Binary {
    op: &'static str,
    attributes: Attributes,
    dtypes: &'static [DType],
    first: &'static [f64],
    second: &'static [f64],
}

const FLOATS: [DType; 2] = [DType::F32, DType::F64];
const INTS: [DType; 2] = [DType::I32, DType::I64];
const NUMBERS: [DType; 4] = [DType::F32, DType::F64, DType::I32, DType::I64];
const SIGNED: [f64; 7] = [3.0, -5.0, 7.0, 2.0, -1.0, 0.0, 11.0];
const NO_ZERO: [f64; 5] = [2.0, -3.0, 5.0, -1.0, 4.0];

fn binary() -> Vec<Binary> {
    let none = Attributes::none;
    let numbers = |op, attributes, dtypes| Binary { op, attributes, dtypes, first: &SIGNED, second: &NO_ZERO };
    let rest =
        |attributes, dtypes| Binary { op: "Mod", attributes, dtypes, first: &[7.0, -5.0, 9.0], second: &NO_ZERO };
    let small: &[f64] = &[2.0, 0.0, 3.0, 1.0];
    let bits = |op| Binary { op, attributes: none(), dtypes: &INTS, first: &[5.0, 12.0, 0.0], second: &[6.0, 3.0] };
    let flags =
        |op| Binary { op, attributes: none(), dtypes: &[DType::Bool], first: &[1.0, 1.0, 0.0], second: &[0.0, 1.0] };
    let shift = |way: &'static str| Binary {
        op: "BitShift",
        attributes: none().with("direction", way),
        dtypes: &[DType::U8],
        first: &[5.0, 12.0, 3.0],
        second: &[1.0, 0.0, 2.0],
    };
    let mut all: Vec<Binary> =
        ["Add", "Sub", "Mul", "Div", "Min", "Max"].map(|op| numbers(op, none(), &NUMBERS)).into();
    all.extend(["Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal"].map(|op| numbers(op, none(), &NUMBERS)));
    all.push(numbers("Sum", none(), &FLOATS));
    all.push(numbers("Mean", none(), &[DType::F32]));
    all.push(rest(none(), &INTS));
    all.push(rest(none().with("fmod", 1), &NUMBERS));
    all.push(Binary { op: "Pow", attributes: none(), dtypes: &NUMBERS, first: &NO_ZERO, second: small });
    all.extend(["BitwiseAnd", "BitwiseOr", "BitwiseXor"].map(bits));
    all.extend(["And", "Or", "Xor"].map(flags));
    all.extend(["LEFT", "RIGHT"].map(shift));
    all
}

/// Values at which kernels part ways; every operator sees them in float32 and float64.
const SPECIAL: [f64; 10] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.5, -2.5, 200.0, -200.0, 0.5];

#[test]
fn special_values() {
    const OPERATORS: [&str; 27] = [
        "Abs",
        "Ceil",
        "Clip",
        "Cos",
        "Exp",
        "Floor",
        "IsInf",
        "IsNaN",
        "Log",
        "LogSoftmax",
        "Max",
        "Min",
        "Neg",
        "Reciprocal",
        "ReduceL2",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMin",
        "ReduceSum",
        "Relu",
        "Round",
        "Sigmoid",
        "Sign",
        "Sin",
        "Softmax",
        "Sqrt",
        "Tanh",
    ];
    let mut wrong = Wrong::default();
    for (dtype, op) in FLOATS.iter().flat_map(|dtype| OPERATORS.map(|op| (*dtype, op))) {
        if dtype == DType::F64 && ["LogSoftmax", "ReduceMax", "ReduceMin", "Round"].contains(&op) {
            // ONNX Runtime takes NaN and inf there in its own ways; tract refuses Round.
            continue;
        }
        for values in
            SPECIAL.iter().map(|value| vec![*value, 1.0, -1.0]).chain([vec![f64::INFINITY, f64::NEG_INFINITY]])
        {
            let mut sweep = Sweep::new();
            let x = sweep.operand(Source::Input, dtype, &[4, values.len()], &values);
            let inputs = match op {
                "Max" | "Min" => vec![x, sweep.operand(Source::Input, dtype, &[1], &[0.0])],
                "Clip" => vec![x, sweep.b.scalar(dtype, -1.5), sweep.b.scalar(dtype, 1.25)],
                _ if op.starts_with("Reduce") => vec![x, sweep.b.ints("axes", &[1])],
                _ => vec![x],
            };
            let y = sweep.b.op(op, &inputs, Attributes::none());
            sweep.b.output(y, "y");
            let what = format!("{op}({dtype} {values:?})");
            wrong.compare(sweep, &what);
        }
    }
    wrong.none();
}

#[test]
fn integers_beyond_32_bits() {
    let mut wrong = Wrong::default();
    let large = [5e9, -7e9, 4_294_967_297.0, 3e9];
    let other = [5e9, 3e9, -4e9, 1_000_000_007.0];
    for (a, b) in SOURCES.iter().flat_map(|a| SOURCES.iter().map(move |b| (*a, *b))) {
        for op in ["Add", "Sub", "Div", "Mod", "Max", "Min", "Less", "Greater", "Equal", "Mul"] {
            let mut sweep = Sweep::new();
            let x = sweep.operand(a, DType::I64, &[4], &large);
            let y = sweep.operand(
                b,
                DType::I64,
                if op == "Mul" { &[] } else { &[4] },
                if op == "Mul" { &[3.0] } else { &other },
            );
            let z = sweep.b.op(op, &[x, y], Attributes::none());
            sweep.b.output(z, "z");
            let what = format!("{op}({a:?}, {b:?})");
            wrong.compare(sweep, &what);
        }
    }
    wrong.none();
}

#[test]
fn mean_of_squares() {
    let mut sweep = Sweep::new();
    let x = sweep.operand(Source::Input, DType::F64, &[2, 3], &[0.1, 0.2, 0.7]);
    let square = sweep.b.mul(x, x);
    let sum = sweep.b.reduce("ReduceSum", square, &[-1], true);
    let mean = sweep.b.scale(sum, 1.0 / 3.0);
    sweep.b.output(mean, "mean");
    let two = sweep.b.like(x, 2.0);
    let square = sweep.b.op("Pow", &[x, two], Attributes::none());
    let axes = sweep.b.ints("axes", &[0]);
    let mean = sweep.b.op("ReduceMean", &[square, axes], Attributes::none());
    sweep.b.output(mean, "other mean");
    let mut wrong = Wrong::default();
    wrong.compare(sweep, "all");
    wrong.none();
}

/// Contractions that tract joins with what follows.
#[test]
fn after_a_product() {
    let mut wrong = Wrong::default();
    const FIRST: [&str; 5] = ["Neg", "Abs", "Mul", "Add", "Sub"];
    const SECOND: [&str; 8] = ["none", "Neg", "Abs", "Relu", "Mul", "Sub", "Div", "ReduceSum"];
    for (dtype, first) in FLOATS.iter().flat_map(|dtype| FIRST.map(|first| (*dtype, first))) {
        for (second, einsum) in SECOND.iter().flat_map(|second| [(*second, false), (*second, true)]) {
            let mut sweep = Sweep::new();
            let x = sweep.operand(Source::Input, dtype, &[5, 3], &SIGNED);
            let w = sweep.operand(Source::Input, dtype, &[3, 4], &NO_ZERO);
            let c = sweep.operand(Source::Input, dtype, &[5, 4], &NO_ZERO);
            let mut y = match einsum {
                true => sweep.b.op("Einsum", &[x, w], Attributes::none().with("equation", "ij,jk->ik")),
                false => sweep.b.op("MatMul", &[x, w], Attributes::none()),
            };
            for op in [first, second] {
                y = match op {
                    "none" => y,
                    "Mul" | "Add" | "Sub" | "Div" => sweep.b.op(op, &[y, c], Attributes::none()),
                    "ReduceSum" => sweep.b.reduce(op, y, &[0], true),
                    _ => sweep.b.unary(op, y),
                };
            }
            sweep.b.output(y, "y");
            let what = format!("{dtype} {first} {second} {einsum}");
            wrong.compare(sweep, &what);
        }
    }
    wrong.none();
}

#[test]
fn integer_products() {
    let mut sweep = Sweep::new();
    for dtype in INTS {
        let x = sweep.operand(Source::Input, dtype, &[2, 3], &[1001.0, 103.0, 1009.0]);
        let axes = sweep.b.ints("axes", &[1]);
        let product = sweep.b.op("ReduceProd", &[x, axes], Attributes::none());
        sweep.b.output(product, &format!("product{dtype}"));
        let square = sweep.b.mul(x, x);
        sweep.b.output(square, &format!("square{dtype}"));
    }
    let mut wrong = Wrong::default();
    wrong.compare(sweep, "all");
    wrong.none();
}

#[test]
fn selections_by_position() {
    let mut wrong = Wrong::default();
    let comparisons = ["Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal"];
    for (op, from_shape, swapped, limit) in comparisons.iter().flat_map(|op| {
        let ways = [(false, false), (false, true), (true, false), (true, true)];
        ways.into_iter().flat_map(move |(a, b)| [0_i64, 2, 5].map(|limit| (*op, a, b, limit)))
    }) {
        let mut sweep = Sweep::new();
        let x = sweep.operand(Source::Input, DType::F32, &[6], &SIGNED);
        let count = if from_shape {
            let shape = sweep.b.unary("Shape", x);
            let first = sweep.b.constant("first", Tensor::scalar(0_i64));
            sweep.b.op("Gather", &[shape, first], Attributes::none())
        } else {
            sweep.input(Tensor::scalar(6_i64))
        };
        let [from, by] = [0_i64, 1].map(|number| sweep.b.constant("number", Tensor::scalar(number)));
        let places = sweep.b.op("Range", &[from, count, by], Attributes::none());
        let limit_at = sweep.b.constant("limit", Tensor::scalar(limit));
        let sides = if swapped { [limit_at, places] } else { [places, limit_at] };
        let hit = sweep.b.op(op, &sides, Attributes::none());
        let zero = sweep.b.like(x, 0.0);
        let selected = sweep.b.select(hit, x, zero);
        let factor = sweep.b.cast(hit, DType::F32);
        let product = sweep.b.mul(x, factor);
        let distance = sweep.b.sub(sides[0], sides[1]);
        let distance = sweep.b.cast(distance, DType::F32);
        let moved = sweep.b.mul(x, distance);
        for (value, name) in [(selected, "selected"), (product, "product"), (moved, "moved")] {
            sweep.b.output(value, name);
        }
        let what = format!("{op}, {limit}, from shape {from_shape}, swapped {swapped}:");
        wrong.compare(sweep, &what);
    }
    wrong.none();
}

#[test]
fn einsum() {
    let cases: [(&str, &[&[usize]]); 19] = [
        ("ij,jk->ik", &[&[2, 3], &[3, 4]]),
        ("ij,jk", &[&[2, 3], &[3, 4]]),
        ("bij,bjk->bik", &[&[5, 2, 3], &[5, 3, 4]]),
        ("...d,de->...e", &[&[2, 3, 4], &[4, 5]]),
        ("...d,de->...e", &[&[3, 4], &[4, 5]]),
        ("...ij,...jk->...ik", &[&[2, 3, 4], &[2, 4, 5]]),
        ("...ij,...jk", &[&[2, 3, 4], &[2, 4, 5]]),
        ("ij->", &[&[2, 3]]),
        ("i,i->", &[&[4], &[4]]),
        ("i,i", &[&[4], &[4]]),
        ("ij->ji", &[&[2, 3]]),
        ("ij->j", &[&[2, 3]]),
        ("ba", &[&[2, 3]]),
        ("i,j->ij", &[&[2], &[3]]),
        ("ii->i", &[&[3, 3]]),
        ("ii", &[&[3, 3]]),
        ("bhqd,bhkd->bhqk", &[&[2, 3, 4, 5], &[2, 3, 6, 5]]),
        ("bij, bjk -> bik", &[&[5, 2, 3], &[5, 3, 4]]),
        ("i...->...", &[&[3, 2, 2]]),
    ];
    let mut wrong = Wrong::default();
    for ((equation, shapes), dtype) in cases.iter().flat_map(|case| FLOATS.map(|dtype| (*case, dtype))) {
        let mut sweep = Sweep::new();
        let inputs: Vec<ValueId> =
            shapes.iter().map(|shape| sweep.operand(Source::Input, dtype, shape, &SIGNED)).collect();
        let y = sweep.b.op("Einsum", &inputs, Attributes::none().with("equation", equation));
        sweep.b.output(y, "y");
        let what = format!("{dtype} {equation} {shapes:?}:");
        wrong.compare(sweep, &what);
    }
    wrong.none();
}

#[test]
fn binary_operators() {
    let mut wrong = Wrong::default();
    for (a, b) in PAIRS {
        for case in binary() {
            for dtype in case.dtypes {
                let no_sum = *dtype == DType::Bool || *dtype == DType::U8;
                if no_sum && [a, b].contains(&Source::Reduced) {
                    continue;
                }
                let mut sweep = Sweep::new();
                for ((large, little), swapped) in SHAPES.iter().flat_map(|pair| [false, true].map(|way| (pair, way))) {
                    if swapped && large == little {
                        continue;
                    }
                    let (first, second) = if swapped { (little, large) } else { (large, little) };
                    let x = sweep.operand(a, *dtype, first, case.first);
                    let y = sweep.operand(b, *dtype, second, case.second);
                    let z = sweep.b.ops(&OpId::standard(case.op), &[Some(x), Some(y)], case.attributes.clone(), 1)[0];
                    sweep.b.output(z, &format!("{first:?} {second:?}"));
                }
                let what = format!("{}({dtype} {a:?}, {b:?})", case.op);
                wrong.compare(sweep, &what);
            }
        }
    }
    wrong.none();
}
