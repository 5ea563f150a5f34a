//! Random operators as functions of the step number.
//!
//! An operator of ONNX draws from a generator inside the session: its position can neither be
//! saved nor restored. Here every random value is computed from the seed of the run, the number of
//! the step (an input of the train graph) and the name of the node's output, in integer operators
//! of the default domain. So a run that is resumed draws what it would have drawn, on any engine,
//! and a frozen unit does not change what the others draw.
//!
//! With `P = 2^31 - 1`, three rounds of `h(x) = x^2 + a x + b mod P` make odd 31-bit numbers `r[i]`
//! of the rows of a tensor and `c[j]` of its columns; element `[i, j]` is `u = (r[i] c[j] mod 2^32) / 2^32`.
//!
//! Dropout:  `drop = u < ratio`, `y = drop ? 0 : x / (1 - ratio)`.
//! RandomUniform(Like): `low + (high - low) u`. Bernoulli: `u < x`.
//! RandomNormal(Like): `mean + scale sqrt(-2 ln(1 - u)) cos(2 pi u')`.
//! Multinomial: `argmax(x - ln(-ln u))`.

use super::{TrainingError, names};
use crate::graph::{AttrError, Attributes, Builder, DType, Dim, Fact, Graph, Node, OpId, Origin, Tensor, ValueId};

/// `2^31 - 1`, a prime.
const P: i64 = (1 << 31) - 1;
/// Multiplier and summand of each round.
const ROUNDS: [(i64, i64); 3] = [(1_103_515_245, 12_345), (48_271, 9_176_219), (69_621, 1_013_904_223)];
/// `2^32`: random integers lie below.
const RANGE: f64 = 4_294_967_296.0;
/// What a size that is not fixed is taken for when rows and columns are told apart.
const TYPICAL: usize = 32;

/// Makes the random values of one graph.
pub(super) struct Random {
    /// `[2 K]`, two numbers below P for each random node.
    seeds: ValueId,
    /// Names of the random nodes' first outputs.
    nodes: Vec<String>,
}

/// How the elements of a random tensor are laid out.
enum Shape<'a> {
    Fixed(&'a [i64]),
    Like(ValueId),
}

/// Returns true for an operator that draws from a generator in the session.
pub(super) fn is_random(op: &OpId) -> bool {
    const OPERATORS: [&str; 7] = [
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    ];
    op.domain.is_empty() && OPERATORS.contains(&op.name.as_str())
}

impl Random {
    /// Prepares the random values of the nodes of `graph`: from the step number of input
    /// [`names::STEP`], which is added, or of step 0 for `fixed` ones. `None` where nothing is random.
    pub(super) fn new(b: &mut Builder, graph: &Graph, seed: u64, fixed: bool) -> Result<Option<Random>, TrainingError> {
        let random = graph.nodes().iter().filter(|node| is_random(&node.op));
        let named = random.filter_map(|node| Some((graph.value_name(node.output(0)?).to_string(), node)));
        let (nodes, salts): (Vec<String>, Vec<[i64; 2]>) = named
            .map(|(name, node)| {
                let own = node.attributes.float("seed", 0.0).map_or(0, |seed| u64::from(seed.to_bits()));
                let salt = hash(&name) ^ own;
                (name, [reduced(salt), reduced(salt >> 32)])
            })
            .unzip();
        if nodes.is_empty() {
            return Ok(None);
        }
        if graph.find(names::STEP).is_some() {
            let meaning = "the step number, which random operators need".into();
            return Err(TrainingError::Collision { name: names::STEP.into(), meaning });
        }
        let step = match fixed {
            true => b.constant("step", Tensor::scalar(0_i64)),
            false => b.input(names::STEP, Fact::fixed(DType::I64, &[])),
        };
        b.enter(Origin::Forward, "random");
        let step = modulo(b, step);
        let salted = added(b, step, reduced(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        let base = mixed(b, salted);
        let salts = b.ints("salts", salts.as_flattened());
        let all = b.add(base, salts);
        let reduced = modulo(b, all);
        let seeds = mixed(b, reduced);
        Ok(Some(Random { seeds, nodes }))
    }

    /// Appends what stands for a random node and returns its outputs; Dropout must be a random one.
    ///
    /// # Errors
    /// An attribute has the wrong type.
    pub(super) fn node(
        &self,
        b: &mut Builder,
        graph: &Graph,
        node: &Node,
        inputs: &[Option<ValueId>],
    ) -> Result<Vec<ValueId>, TrainingError> {
        let fail = |reason: String| TrainingError::Node { node: node.name.clone(), reason };
        let attribute = |error: AttrError| fail(error.to_string());
        let input = |index: usize| {
            let found = inputs.get(index).copied().flatten();
            found.ok_or_else(|| fail(format!("lacks input {index}")))
        };
        let at = node.output(0).map(|id| graph.value_name(id));
        let at = self.nodes.iter().position(|name| Some(name.as_str()) == at);
        let at = 2 * at.ok_or_else(|| fail("has no output".into()))? as i64;
        let a = &node.attributes;
        let dtype = |default: DType| -> Result<DType, TrainingError> {
            let code = a.int("dtype", i64::from(default.code())).map_err(attribute)?;
            Ok(i32::try_from(code).map_or(default, DType::from_code))
        };
        let float = |name: &str, default: f32| a.float(name, default).map(f64::from).map_err(attribute);
        let fixed = a.ints("shape").map_err(attribute)?.unwrap_or_default();
        let shape = match node.op.name.as_str() {
            "RandomUniform" | "RandomNormal" => Shape::Fixed(&fixed),
            "Multinomial" => Shape::Fixed(&[]),
            _ => Shape::Like(input(0)?),
        };
        let like = |b: &Builder, inputs: &[Option<ValueId>]| {
            inputs.first().copied().flatten().map_or(DType::F32, |x| b.dtype(x))
        };
        match node.op.name.as_str() {
            "Dropout" => {
                let ratio = inputs.get(1).copied().flatten();
                Ok(self.dropout(b, at, input(0)?, ratio))
            }
            "Bernoulli" => {
                let x = input(0)?;
                let u = self.uniform(b, at, &shape, b.dtype(x));
                let drawn = b.op("Less", &[u, x], Attributes::none());
                let to = dtype(b.dtype(x))?;
                Ok(vec![b.cast(drawn, to)])
            }
            "RandomUniform" | "RandomUniformLike" => {
                let (low, high) = (float("low", 0.0)?, float("high", 1.0)?);
                let u = self.uniform(b, at, &shape, dtype(like(b, inputs))?);
                let wide = b.scale(u, high - low);
                Ok(vec![b.shift(wide, low)])
            }
            "RandomNormal" | "RandomNormalLike" => {
                let (mean, scale) = (float("mean", 0.0)?, float("scale", 1.0)?);
                let u = self.uniform(b, at, &shape, dtype(like(b, inputs))?);
                let angle = self.uniform(b, at + 1, &shape, dtype(like(b, inputs))?);
                let normal = normal(b, u, angle);
                let wide = b.scale(normal, scale);
                Ok(vec![b.shift(wide, mean)])
            }
            _ => {
                let x = input(0)?;
                let count = a.int("sample_size", 1).map_err(attribute)?;
                let drawn = self.multinomial(b, at, x, count);
                let to = dtype(DType::I32)?;
                Ok(vec![b.cast(drawn, to)])
            }
        }
    }

    fn dropout(&self, b: &mut Builder, at: i64, x: ValueId, ratio: Option<ValueId>) -> Vec<ValueId> {
        let known = match ratio {
            None => Some(0.5),
            Some(ratio) => b.graph().constant(ratio).and_then(|tensor| tensor.to_f64s()?.first().copied()),
        };
        let mut bits = self.bits(b, at, &Shape::Like(x));
        let (least, factor) = match (known, ratio) {
            (Some(known), _) => {
                let least = b.constant("least", Tensor::scalar((known * RANGE) as i64));
                let kept = 1.0 - known;
                (least, b.like(x, if kept > 0.0 { 1.0 / kept } else { 0.0 }))
            }
            (None, None) => unreachable!("invariant: an absent ratio is known"),
            (None, Some(ratio)) => {
                let wide = b.cast(ratio, DType::F64);
                let least = b.scale(wide, RANGE);
                bits = b.cast(bits, DType::F64);
                let to = b.dtype(x);
                let ratio = b.cast(ratio, to);
                let one = b.like(x, 1.0);
                let kept = b.sub(one, ratio);
                (least, b.unary("Reciprocal", kept))
            }
        };
        let drop = b.op("Less", &[bits, least], Attributes::none());
        let scaled = b.mul(x, factor);
        let zero = b.like(x, 0.0);
        vec![b.select(drop, zero, scaled), b.unary("Not", drop)]
    }

    fn multinomial(&self, b: &mut Builder, at: i64, x: ValueId, count: i64) -> ValueId {
        let scores = b.unsqueeze(x, &[1]);
        let shape = b.shape_of(x);
        let (first, second) = (b.ints("row", &[0]), b.ints("column", &[1]));
        let [rows, classes] = [first, second].map(|index| b.op("Gather", &[shape, index], Attributes::none()));
        let samples = b.ints("samples", &[count]);
        let shape = b.op("Concat", &[rows, samples, classes], Attributes::none().with("axis", 0));
        let zero = b.like(x, 0.0);
        let room = b.op("Expand", &[zero, shape], Attributes::none());
        let u = self.uniform(b, at, &Shape::Like(room), b.dtype(x));
        let inside = b.shift(u, 1.0 / RANGE);
        let log = b.unary("Log", inside);
        let positive = b.unary("Neg", log);
        let log = b.unary("Log", positive);
        let noisy = b.sub(scores, log);
        b.op("ArgMax", &[noisy], Attributes::none().with("axis", 2).with("keepdims", 0))
    }

    /// Returns numbers in [0, 1) with 24 random bits.
    fn uniform(&self, b: &mut Builder, at: i64, shape: &Shape<'_>, dtype: DType) -> ValueId {
        let bits = self.bits(b, at, shape);
        let upper = b.constant("upper", Tensor::scalar(0xffff_ff00_i64));
        let bits = b.op("BitwiseAnd", &[bits, upper], Attributes::none());
        let number = b.cast(bits, dtype);
        b.scale(number, 1.0 / RANGE)
    }

    /// Returns integers in [0, 2^32) of stream `at`.
    fn bits(&self, b: &mut Builder, at: i64, shape: &Shape<'_>) -> ValueId {
        let fact = match shape {
            Shape::Fixed(sizes) => {
                let sizes = sizes.iter().map(|size| Dim::Known(usize::try_from(*size).unwrap_or(0)));
                Fact::new(DType::I64, sizes.collect())
            }
            Shape::Like(value) => Fact { dtype: Some(DType::I64), ..b.fact(*value).clone() },
        };
        let rank = fact.rank().unwrap_or(0);
        let split = fact.shape.as_deref().map_or(0, balanced);
        let sizes = fact.sizes().map(|sizes| sizes.into_iter().map(|size| size as i64).collect::<Vec<_>>());
        let (rows, columns) = match (sizes, shape) {
            (Some(sizes), _) => {
                let [front, back] = [&sizes[..split], &sizes[split..]];
                let rows = b.constant("rows", Tensor::scalar(front.iter().product::<i64>()));
                let columns = b.constant("columns", Tensor::scalar(back.iter().product::<i64>()));
                let padded = [front, &vec![1; rank - split]].concat();
                ((rows, b.ints("front", &padded)), (columns, b.ints("back", back)))
            }
            (None, Shape::Like(value)) => dynamic(b, *value, split, rank),
            (None, Shape::Fixed(_)) => unreachable!("invariant: a given shape is known"),
        };
        let rows = self.vector(b, at, 0, rows);
        let columns = self.vector(b, at, P / 3, columns);
        let product = b.mul(rows, columns);
        let range = b.constant("range", Tensor::scalar(RANGE as i64 - 1));
        let bits = b.op("BitwiseAnd", &[product, range], Attributes::none());
        b.refine(bits, &fact);
        bits
    }

    /// Returns odd numbers below 2^31, as many as `count` says, in a shape.
    fn vector(&self, b: &mut Builder, at: i64, salt: i64, (count, shape): (ValueId, ValueId)) -> ValueId {
        let index = b.constant("stream", Tensor::scalar(at));
        let seed = b.op("Gather", &[self.seeds, index], Attributes::none());
        let seed = if salt == 0 { seed } else { added(b, seed, salt) };
        let (from, by) = (b.constant("from", Tensor::scalar(0_i64)), b.constant("by", Tensor::scalar(1_i64)));
        let positions = b.op("Range", &[from, count, by], Attributes::none());
        let spread = times(b, positions, 1_664_525);
        let own = b.add(spread, seed);
        let own = modulo(b, own);
        let mixed = mixed(b, own);
        let one = b.constant("odd", Tensor::scalar(1_i64));
        let odd = b.op("BitwiseOr", &[mixed, one], Attributes::none());
        b.op("Reshape", &[odd, shape], Attributes::none().with("allowzero", 1))
    }
}

/// Returns after how many dimensions the product of the first and that of the others sum to least.
fn balanced(dims: &[Dim]) -> usize {
    let size = |dims: &[Dim]| dims.iter().map(|dim| dim.known().unwrap_or(TYPICAL)).fold(1, usize::saturating_mul);
    let cost = |split: &usize| size(&dims[..*split]).saturating_add(size(&dims[*split..]));
    (0..dims.len().max(1)).min_by_key(cost).unwrap_or(0)
}

/// Counts and shapes of the rows and columns of a value whose sizes are known only while it runs.
fn dynamic(b: &mut Builder, value: ValueId, split: usize, rank: usize) -> ((ValueId, ValueId), (ValueId, ValueId)) {
    let part = |b: &mut Builder, start: usize, end: Option<usize>| {
        let attributes = Attributes::none().with("start", start as i64);
        let attributes = match end {
            Some(end) => attributes.with("end", end as i64),
            None => attributes,
        };
        b.op("Shape", &[value], attributes)
    };
    let whole = Attributes::none().with("keepdims", 0);
    let back = part(b, split, None);
    let columns = b.op("ReduceProd", &[back], whole.clone());
    if split == 0 {
        let one = b.constant("rows", Tensor::scalar(1_i64));
        return ((one, b.ints("front", &[])), (columns, back));
    }
    let front = part(b, 0, Some(split));
    let rows = b.op("ReduceProd", &[front], whole);
    let ones = b.ints("ones", &vec![1; rank - split]);
    let padded = b.op("Concat", &[front, ones], Attributes::none().with("axis", 0));
    ((rows, padded), (columns, back))
}

fn normal(b: &mut Builder, u: ValueId, angle: ValueId) -> ValueId {
    let one = b.like(u, 1.0);
    let rest = b.sub(one, u);
    let log = b.unary("Log", rest);
    let square = b.scale(log, -2.0);
    let radius = b.unary("Sqrt", square);
    let turned = b.scale(angle, std::f64::consts::TAU);
    let cos = b.unary("Cos", turned);
    b.mul(radius, cos)
}

fn added(b: &mut Builder, x: ValueId, number: i64) -> ValueId {
    let number = b.constant("add", Tensor::scalar(number));
    b.add(x, number)
}

fn times(b: &mut Builder, x: ValueId, number: i64) -> ValueId {
    let number = b.constant("times", Tensor::scalar(number));
    b.mul(x, number)
}

fn modulo(b: &mut Builder, x: ValueId) -> ValueId {
    let p = b.constant("p", Tensor::scalar(P));
    b.op("Mod", &[x, p], Attributes::none())
}

/// The rounds: of numbers in [0, 2 P) others in [0, P).
fn mixed(b: &mut Builder, x: ValueId) -> ValueId {
    let mut x = x;
    for (a, c) in ROUNDS {
        let sum = added(b, x, a);
        let product = b.mul(x, sum);
        let shifted = added(b, product, c);
        x = modulo(b, shifted);
    }
    x
}

/// FNV-1a of 64 bits.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The lower 31 bits, below P.
fn reduced(number: u64) -> i64 {
    (number & 0x7fff_ffff) as i64 % P
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use super::*;
    use crate::graph::Model;
    use crate::runner::{evaluate, testing};

    struct Case {
        name: &'static str,
        op: &'static str,
        inputs: Vec<Tensor>,
        attributes: Attributes,
        /// Mean of the first output, and its variance.
        moments: (f64, f64),
        /// Whether the first dimension of the first input is a symbol.
        symbolic: bool,
    }

    fn model(case: &Case, seed: u64, fixed: bool) -> Model {
        let mut source = Builder::new("source");
        let mut inputs = Vec::new();
        for (index, tensor) in case.inputs.iter().enumerate() {
            let mut fact = Fact::fixed(tensor.dtype(), tensor.shape());
            if case.symbolic && index == 0 {
                fact.shape.as_mut().unwrap()[0] = Dim::Symbol("batch".into());
            }
            inputs.push(Some(source.input(&format!("x{index}"), fact)));
        }
        let made = source.ops(&OpId::standard(case.op), &inputs, case.attributes.clone(), 1)[0];
        source.rename(made, "y");
        source.mark_output(made);
        let graph = source.finish();
        let mut b = Builder::new("drawn");
        let inputs: Vec<_> = graph.inputs().iter().map(|id| Some(b.copy_value(&graph, *id))).collect();
        b.enter(Origin::Forward, "");
        let random = Random::new(&mut b, &graph, seed, fixed).unwrap().unwrap();
        let y = random.node(&mut b, &graph, &graph.nodes()[0], &inputs).unwrap()[0];
        b.output(y, "y");
        let mut drawn = b.finish();
        drawn.inputs.extend(inputs.into_iter().flatten());
        let opsets = [(String::new(), 18)].into_iter().collect();
        Model { graph: drawn, opsets, ir_version: 8, ..Model::default() }
    }

    fn cases() -> Vec<Case> {
        let ones = |shape: &[usize], value: f64| Tensor::float_full(DType::F32, shape, value);
        let case = |name, op, inputs, moments| Case {
            name,
            op,
            inputs,
            attributes: Attributes::none(),
            moments,
            symbolic: false,
        };
        let dropout = |name, shape: &[usize], ratio: f64| {
            let inputs = vec![ones(shape, 1.0), Tensor::float_scalar(DType::F32, ratio)];
            case(name, "Dropout", inputs, (1.0, ratio / (1.0 - ratio)))
        };
        let logits: Vec<f32> = [0.5f32, 0.2, 0.3].iter().map(|p| p.ln()).collect::<Vec<_>>().repeat(40);
        let shape: &[i64] = &[90, 80];
        vec![
            dropout("matrix", &[64, 128], 0.25),
            dropout("vector", &[6000], 0.5),
            Case { symbolic: true, ..dropout("symbolic batch", &[40, 4, 6, 10], 0.1) },
            case("probabilities", "Bernoulli", vec![ones(&[80, 90], 0.3)], (0.3, 0.21)),
            Case {
                attributes: Attributes::none().with("low", -1.0f32).with("high", 3.0f32),
                ..case("range", "RandomUniformLike", vec![ones(&[80, 90], 0.0)], (1.0, 16.0 / 12.0))
            },
            Case {
                attributes: Attributes::none().with("shape", shape),
                ..case("shape", "RandomUniform", vec![], (0.5, 1.0 / 12.0))
            },
            Case {
                attributes: Attributes::none().with("mean", 2.0f32).with("scale", 0.5f32),
                ..case("like", "RandomNormalLike", vec![ones(&[80, 90], 0.0)], (2.0, 0.25))
            },
            Case {
                attributes: Attributes::none().with("shape", shape),
                ..case("shape", "RandomNormal", vec![], (0.0, 1.0))
            },
            Case {
                attributes: Attributes::none().with("sample_size", 100),
                ..case("three classes", "Multinomial", vec![Tensor::from_vec(&[40, 3], logits)], (0.8, 0.76))
            },
        ]
    }

    #[test]
    fn moments_are_those_of_the_distribution_on_every_engine_and_follow_step_and_seed() {
        for mut engine in testing::engines() {
            let who = engine.info().name.clone();
            for case in cases() {
                let mut draw = |seed: u64, step: i64| -> Vec<f64> {
                    let model = model(&case, seed, false);
                    let step = Tensor::scalar(step);
                    let names: Vec<String> = (0..case.inputs.len()).map(|index| format!("x{index}")).collect();
                    let mut feeds: Vec<(&str, &Tensor)> = vec![(names::STEP, &step)];
                    feeds.extend(names.iter().map(String::as_str).zip(&case.inputs));
                    let at = format!("{} {} [{who}]", case.op, case.name);
                    let outputs = evaluate(engine.as_mut(), &model, &feeds);
                    outputs.unwrap_or_else(|error| panic!("{at}: {error}"))[0].to_f64s().unwrap()
                };
                let values = draw(7, 12);
                let at = format!("{} {} [{who}]", case.op, case.name);
                let count = values.len() as f64;
                let mean = values.iter().sum::<f64>() / count;
                let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
                let (expected, spread) = case.moments;
                let error = 4.0 * (spread / count).sqrt();
                assert!((mean - expected).abs() < error, "{at}: mean {mean}, expected {expected}");
                assert!((variance / spread - 1.0).abs() < 0.12, "{at}: variance {variance}, expected {spread}");
                assert_eq!(draw(7, 12), values, "{at}: the same step draws the same");
                assert_ne!(draw(7, 13), values, "{at}: another step draws others");
                assert_ne!(draw(8, 12), values, "{at}: another seed draws others");
            }
        }
    }

    #[test]
    fn rows_columns_and_steps_are_independent() {
        let (rows, columns) = (256, 512);
        let shape: &[i64] = &[rows, columns];
        let case = Case {
            attributes: Attributes::none().with("shape", shape).with("low", -1.0f32),
            name: "uniform",
            op: "RandomUniform",
            inputs: vec![],
            moments: (0.0, 1.0 / 3.0),
            symbolic: false,
        };
        let mut engine = testing::onnxruntime();
        let model = model(&case, 3, false);
        let mut draw = |step: i64| {
            let step = Tensor::scalar(step);
            evaluate(&mut engine, &model, &[(names::STEP, &step)]).unwrap()[0].to_f64s().unwrap()
        };
        let (one, two) = (draw(1), draw(2));
        let (rows, columns) = (rows as usize, columns as usize);
        let correlation = |pairs: &mut dyn Iterator<Item = (f64, f64)>| {
            let (sum, count) = pairs.fold((0.0, 0), |(sum, count), (a, b)| (sum + 3.0 * a * b, count + 1));
            sum / f64::from(count).sqrt()
        };
        let at = |row: usize, column: usize| one[row * columns + column];
        assert!(correlation(&mut one.iter().copied().zip(two.iter().copied())).abs() < 4.0, "steps");
        for gap in [1, 2, 16, 128] {
            let mut pairs = (0..rows).flat_map(|r| (gap..columns).map(move |c| (at(r, c), at(r, c - gap))));
            assert!(correlation(&mut pairs).abs() < 4.0, "columns {gap} apart");
            let mut pairs = (gap..rows).flat_map(|r| (0..columns).map(move |c| (at(r, c), at(r - gap, c))));
            assert!(correlation(&mut pairs).abs() < 4.0, "rows {gap} apart");
        }
        let worst = (0..columns)
            .flat_map(|a| (0..a).map(move |b| (a, b)))
            .map(|(a, b)| correlation(&mut (0..rows).map(|row| (at(row, a), at(row, b)))).abs())
            .fold(0.0, f64::max);
        assert!(worst < 6.0, "of 131,000 pairs of columns the most alike correlate by {worst} standard deviations");
    }

    #[test]
    fn bits_are_those_of_the_formula() {
        let mix = |x: i64| ROUNDS.iter().fold(x, |x, (a, c)| (x * (x + a) + c) % P);
        let salts = [hash("y"), hash("y") >> 32].map(reduced);
        let base = mix(5 % P + reduced(9_u64.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        let stream = mix((base + salts[0]) % P);
        let row = |index: i64| mix((index * 1_664_525 + stream) % P) | 1;
        let column = |index: i64| mix((index * 1_664_525 + stream + P / 3) % P) | 1;
        let shape: &[i64] = &[3, 4];
        let case = Case {
            name: "formula",
            op: "RandomUniform",
            inputs: vec![],
            attributes: Attributes::none().with("shape", shape),
            moments: (0.5, 1.0 / 12.0),
            symbolic: false,
        };
        for mut engine in testing::engines() {
            let step = Tensor::scalar(5_i64);
            let found = evaluate(engine.as_mut(), &model(&case, 9, false), &[(names::STEP, &step)]).unwrap();
            let expected = (0..12).map(|at| ((row(at / 4) * column(at % 4)) & 0xffff_ff00) as f64 / RANGE);
            let name = engine.info().name.clone();
            assert_eq!(found[0].to_f64s().unwrap(), expected.collect::<Vec<_>>(), "[{name}]");
        }
    }
}
