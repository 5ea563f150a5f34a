//! Which distribution a parameter is drawn from.
//!
//! | class | weight | bias |
//! |---|---|---|
//! | `Linear` (`Gemm`, `MatMul`, `Einsum`) | `U(-1/sqrt(fan_in), 1/sqrt(fan_in))` | the same |
//! | `Conv`, `ConvTranspose` | the same, `fan_in` = elements of one entry of axis 0 of the weight | the same |
//! | normalizations | 1 | 0; running mean 0, running variance 1 |
//! | `Embedding` (`Gather`) | `N(0, 1)` | |
//! | `RNN`, `LSTM`, `GRU` | `U(-1/sqrt(hidden), 1/sqrt(hidden))` | the same |
//! | `MultiheadAttention` | in-projections Xavier-uniform; the output projection as `Linear` | 0 |
//! | `PReLU` | 0.25 | |
//! | anything else (fallback) | a matrix or more `N(0, 0.02^2)`; a vector that is multiplied 1, one that is added 0; a single number and any other vector keep their values | |
//!
//! `U(-1/sqrt(fan_in), ..)` is PyTorch's `kaiming_uniform_(a=sqrt(5))`. A tensor that two operators read, such as tied
//! embeddings, is an embedding. What a model's author draws in another way cannot be seen in a file: the fallback names
//! what it was used for.

use super::fan::{Fan, Reader};
use crate::graph::Node;

/// A distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Law {
    /// All elements have this value.
    Fill(f64),
    /// Uniform in `[-bound, bound)`.
    Uniform(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
}

/// What a parameter is, for a person, and its law; no law keeps the value that it has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    /// Class.
    pub class: &'static str,
    /// Distribution.
    pub law: Option<Law>,
}

/// The name of the class of everything that no rule knows.
pub const FALLBACK: &str = "fallback";

const NORMALIZATIONS: [&str; 8] = [
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "LpNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
];

fn chosen(class: &'static str, law: Law) -> Option<Chosen> {
    Some(Chosen { class, law: Some(law) })
}

/// Returns the uniform law of a fan.
fn uniform(fan: usize) -> Law {
    if fan == 0 { Law::Fill(0.0) } else { Law::Uniform(1.0 / (fan as f64).sqrt()) }
}

/// Returns the law of a parameter or statistic of a name.
pub(super) fn law(reader: &Reader<'_>, name: &str) -> Chosen {
    let known = attention(reader, name).or_else(|| by_operator(reader, name)).or_else(|| beside(reader, name));
    known.or_else(|| by_module(reader, name)).unwrap_or_else(|| {
        let shape = reader.shape(name);
        let vector = shape.iter().filter(|size| **size != 1).count() <= 1;
        let uses = reader.uses(name);
        let read = |ops: [&str; 2]| uses.iter().any(|used| ops.contains(&reader.op(used)));
        let law = match vector {
            _ if shape.iter().product::<usize>() == 1 => None,
            false => Some(Law::Normal(0.02)),
            true if read(["Mul", "Div"]) => Some(Law::Fill(1.0)),
            true if read(["Add", "Sub"]) => Some(Law::Fill(0.0)),
            true => None,
        };
        Chosen { class: FALLBACK, law }
    })
}

/// Returns the law of the parameters that `torch.nn.MultiheadAttention` has itself, which their names tell.
fn attention(reader: &Reader<'_>, name: &str) -> Option<Chosen> {
    const CLASS: &str = "MultiheadAttention";
    let (path, last) = name.rsplit_once('.').unwrap_or(("", name));
    let shape = reader.shape(name);
    let beside = |path: &str, last: &str| {
        let name = if path.is_empty() { last.to_string() } else { format!("{path}.{last}") };
        reader.has(&name)
    };
    let holds = |path: &str| beside(path, "in_proj_weight") || beside(path, "q_proj_weight");
    match (last, shape.as_slice()) {
        ("in_proj_weight" | "q_proj_weight" | "k_proj_weight" | "v_proj_weight", [rows, columns]) => {
            chosen(CLASS, Law::Uniform((6.0 / (rows + columns).max(1) as f64).sqrt()))
        }
        ("in_proj_bias", _) => chosen(CLASS, Law::Fill(0.0)),
        ("bias_k" | "bias_v", [1, 1, size]) if holds(path) => {
            chosen(CLASS, Law::Normal((1.0 / (*size).max(1) as f64).sqrt()))
        }
        ("bias", _) => {
            let (above, module) = path.rsplit_once('.').unwrap_or(("", path));
            if module == "out_proj" && holds(above) { chosen(CLASS, Law::Fill(0.0)) } else { None }
        }
        _ => None,
    }
}

fn by_operator(reader: &Reader<'_>, name: &str) -> Option<Chosen> {
    let uses = reader.uses(name);
    let table = uses.iter().find(|used| reader.op(used) == "Gather" && used.input == 0);
    if table.is_some() && reader.shape(name).len() == 2 && !name.ends_with("relative_position_bias_table") {
        return chosen("Embedding", Law::Normal(1.0));
    }
    uses.iter().find_map(|used| {
        let node: &Node = reader.node(used);
        match (node.op.name.as_str(), used.input) {
            ("BatchNormalization", 1 | 4) => chosen("BatchNorm", Law::Fill(1.0)),
            ("BatchNormalization", 2 | 3) => chosen("BatchNorm", Law::Fill(0.0)),
            ("SkipLayerNormalization" | "SkipSimplifiedLayerNormalization", 2) => chosen("Norm", Law::Fill(1.0)),
            (op, 1) if NORMALIZATIONS.contains(&op) => chosen("Norm", Law::Fill(1.0)),
            (op, _) if NORMALIZATIONS.contains(&op) => chosen("Norm", Law::Fill(0.0)),
            ("PRelu", 1) => chosen("PReLU", Law::Fill(0.25)),
            ("RNN" | "LSTM" | "GRU", 1 | 2 | 3 | 7) => {
                let hidden = usize::try_from(node.attributes.int("hidden_size", 0).ok()?).ok()?;
                let class = match node.op.name.as_str() {
                    "RNN" => "RNN",
                    "GRU" => "GRU",
                    _ => "LSTM",
                };
                chosen(class, uniform(hidden))
            }
            _ => {
                let Fan { class, fan } = reader.weight_fan(used).or_else(|| reader.bias_fan(used, name))?;
                chosen(class, uniform(fan))
            }
        }
    })
}

/// Returns the law of a scale or shift of a module whose class is a normalization, written out in other operators.
fn by_module(reader: &Reader<'_>, name: &str) -> Option<Chosen> {
    let norm = reader.class(name).is_some_and(|class| class.contains("Norm"));
    let uses = reader.uses(name);
    let read = |ops: [&str; 2]| uses.iter().any(|used| ops.contains(&reader.op(used)));
    match norm {
        true if read(["Mul", "Div"]) => chosen("Norm", Law::Fill(1.0)),
        true if read(["Add", "Sub"]) => chosen("Norm", Law::Fill(0.0)),
        _ => None,
    }
}

/// Returns the law of a bias whose module has one weight that a rule knows.
fn beside(reader: &Reader<'_>, name: &str) -> Option<Chosen> {
    let shape = reader.shape(name);
    if shape.len() != 1 || !(name == "bias" || name.ends_with(".bias")) {
        return None;
    }
    let mut fans = reader.siblings(name).into_iter().filter_map(|other| {
        let uses = reader.uses(&other);
        uses.iter().find_map(|used| reader.weight_fan(used))
    });
    let found = fans.next()?;
    match fans.next() {
        None => chosen(found.class, uniform(found.fan)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attributes, Builder, DType, Fact, Model, Tensor};
    use crate::planner::Analysis;
    use crate::training::prepare;

    /// A model of operators whose readers tell what a parameter is, written by hand.
    fn model() -> Model {
        let mut b = Builder::new("net");
        let input = |b: &mut Builder, name: &str, dtype, shape: &[usize]| b.input(name, Fact::fixed(dtype, shape));
        let weight = |b: &mut Builder, name: &str, shape: &[usize]| {
            let count: usize = shape.iter().product();
            let values = (0..count).map(|index| (index % 7) as f32 / 10.0 + 0.05).collect();
            b.initializer(name, Tensor::from_vec(shape, values))
        };
        let x = input(&mut b, "x", DType::F32, &[2, 3, 6]);
        let tokens = input(&mut b, "tokens", DType::I64, &[2, 3]);
        let (w, bias) = (weight(&mut b, "linear.w", &[6, 4]), weight(&mut b, "linear.b", &[4]));
        let product = b.op("MatMul", &[x, w], Attributes::none());
        let h = b.add(bias, product);
        let positions = weight(&mut b, "positions", &[1, 3, 4]);
        let h = b.add(h, positions);
        let table = weight(&mut b, "table", &[9, 4]);
        let embedded = b.op("Gather", &[table, tokens], Attributes::none());
        let h = b.add(h, embedded);
        let scale = weight(&mut b, "scale", &[4]);
        let h = b.mul(h, scale);
        let temperature = weight(&mut b, "temperature", &[]);
        let h = b.mul(h, temperature);
        let heads = weight(&mut b, "heads", &[4, 2, 5]);
        let h = b.op("Einsum", &[h, heads], Attributes::none().with("equation", "bsd,dhk->bshk"));
        let h = b.reshape(h, &[2, 3, 10]);
        let (w, bias) = (weight(&mut b, "out.weight", &[4, 10]), weight(&mut b, "out.bias", &[4]));
        let turned = b.transpose(w, &[1, 0]);
        let product = b.op("MatMul", &[h, turned], Attributes::none());
        let h = b.add(product, bias);
        let tied = b.transpose(table, &[1, 0]);
        let y = b.op("MatMul", &[h, tied], Attributes::none());
        b.output(y, "y");
        Model { graph: b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() }
    }

    #[test]
    fn the_operator_that_reads_a_parameter_tells_its_law() {
        let prepared = prepare(&Analysis::of(&model())).unwrap();
        let reader = Reader::new(&prepared);
        let root = |fan: f64| Some(Law::Uniform(1.0 / fan.sqrt()));
        let cases = [
            ("linear.w", "Linear", root(6.0)),
            ("linear.b", "Linear", root(6.0)),
            ("positions", FALLBACK, Some(Law::Normal(0.02))),
            ("table", "Embedding", Some(Law::Normal(1.0))),
            ("scale", FALLBACK, Some(Law::Fill(1.0))),
            ("temperature", FALLBACK, None),
            ("heads", "Linear", root(4.0)),
            ("out.weight", "Linear", root(10.0)),
            ("out.bias", "Linear", root(10.0)),
        ];
        let trainable = prepared.trainable();
        for (name, class, expected) in cases {
            assert!(trainable.contains(&name), "{name} of {trainable:?}");
            assert_eq!(law(&reader, name), Chosen { class, law: expected }, "{name}");
        }
        assert_eq!(trainable.len(), cases.len());
    }
}
