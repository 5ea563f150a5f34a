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
use crate::graph::{AttrError, Attributes, Builder, DType, Dim, Fact, Graph, Node, Origin, Tensor, ValueId};

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

impl Random {
    /// Prepares the random values of the nodes of `graph`: from the step number of input
    /// [`names::STEP`], which is added, or of step 0 for `fixed` ones. `None` where nothing is random.
    pub(super) fn new(b: &mut Builder, graph: &Graph, seed: u64, fixed: bool) -> Result<Option<Random>, TrainingError> {
        let random = graph.nodes().iter().filter(|node| node.op.is_random());
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
mod tests;
