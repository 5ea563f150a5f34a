//! Operators whose flops are products, and others that need more than an element count.

use crate::graph::{Graph, Node, ValueId};

/// Flops of a node from its shapes; `None` when one of them is not fixed.
pub(super) type Counted = Option<Counts>;

/// Flops of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Forward pass.
    pub(super) forward: u64,
    /// Gradient by input; the last entry stands for all further inputs.
    pub(super) grads: Vec<u64>,
    /// What any of the gradients needs: the way back through time.
    pub(super) through: u64,
}

impl Counts {
    fn flat(flops: u64) -> Counts {
        Counts { forward: flops, grads: vec![flops], through: 0 }
    }

    /// A frozen part: no gradient passes it.
    fn forward(flops: u64) -> Counts {
        Counts { forward: flops, grads: vec![0], through: 0 }
    }
}

/// A node with the shapes of its values.
pub(super) struct Shapes<'a> {
    pub(super) graph: &'a Graph,
    pub(super) node: &'a Node,
}

impl Shapes<'_> {
    fn flag(&self, name: &str, default: i64) -> Option<i64> {
        self.node.attributes.int(name, default).ok()
    }

    fn size(&self, name: &str) -> Option<u64> {
        u64::try_from(self.flag(name, 0)?).ok().filter(|size| *size > 0)
    }

    fn of(&self, value: ValueId) -> Option<Vec<u64>> {
        self.graph.fact(value).sizes()?.into_iter().map(|size| u64::try_from(size).ok()).collect()
    }

    fn sizes(&self, index: usize) -> Option<Vec<u64>> {
        self.of(self.node.input(index)?)
    }

    fn dim(&self, index: usize, axis: i64) -> Option<u64> {
        u64::try_from(self.graph.fact(self.node.input(index)?).dim(axis)?.known()?).ok()
    }

    /// Returns the elements of an input.
    pub(super) fn input(&self, index: usize) -> Option<u64> {
        Some(product(&self.sizes(index)?))
    }

    /// Returns the elements of the first output.
    pub(super) fn output(&self) -> Option<u64> {
        Some(product(&self.of(self.node.output(0)?)?))
    }
}

/// Returns the product of sizes, or the largest number where it would be larger.
pub(super) fn product(sizes: &[u64]) -> u64 {
    sizes.iter().fold(1, |product, size| product.saturating_mul(*size))
}

/// Each of `count` elements meets the weight's elements past its first axis; output 0 gets a bias
/// from input `bias`.
fn windows(s: &Shapes<'_>, count: u64, weight: &[u64], bias: usize) -> Counted {
    let products = count.saturating_mul(product(weight)).saturating_mul(2);
    let bias = if s.node.input(bias).is_some() { s.output()? } else { 0 };
    Some(Counts { forward: products.saturating_add(bias), grads: vec![products, products, bias], through: 0 })
}

pub(super) fn conv(s: &Shapes<'_>) -> Counted {
    windows(s, s.output()?, s.sizes(1)?.get(1..)?, 2)
}

pub(super) fn conv_transpose(s: &Shapes<'_>) -> Counted {
    windows(s, s.input(0)?, s.sizes(1)?.get(1..)?, 2)
}

/// As [`conv`]; the interpolation at the offsets is not counted.
pub(super) fn deform_conv(s: &Shapes<'_>) -> Counted {
    windows(s, s.output()?, s.sizes(1)?.get(1..)?, 3)
}

pub(super) fn quantized_conv(s: &Shapes<'_>) -> Counted {
    Some(Counts::forward(windows(s, s.output()?, s.sizes(3)?.get(1..)?, 8)?.forward))
}

pub(super) fn gemm(s: &Shapes<'_>) -> Counted {
    let inner = s.dim(0, if s.flag("transA", 0)? == 0 { 1 } else { 0 })?;
    let n = s.output()?;
    let products = n.saturating_mul(inner).saturating_mul(2);
    let bias = if s.node.input(2).is_some() { n } else { 0 };
    Some(Counts { forward: products.saturating_add(bias), grads: vec![products, products, bias], through: 0 })
}

pub(super) fn quantized_gemm(s: &Shapes<'_>) -> Counted {
    let inner = s.dim(0, if s.flag("transA", 0)? == 0 { 1 } else { 0 })?;
    Some(Counts::forward(s.output()?.saturating_mul(inner).saturating_mul(2)))
}

pub(super) fn mat_mul(s: &Shapes<'_>) -> Counted {
    Some(Counts::flat(s.output()?.saturating_mul(s.dim(0, -1)?).saturating_mul(2)))
}

pub(super) fn fused_mat_mul(s: &Shapes<'_>) -> Counted {
    let turned = s.flag("transA", 0)? != 0;
    Some(Counts::flat(s.output()?.saturating_mul(s.dim(0, if turned { -2 } else { -1 })?).saturating_mul(2)))
}

/// Weights packed in blocks along the inner axis `K`.
pub(super) fn blocked_mat_mul(s: &Shapes<'_>) -> Counted {
    Some(Counts::forward(s.output()?.saturating_mul(s.size("K")?).saturating_mul(2)))
}

pub(super) fn quantized_mat_mul(s: &Shapes<'_>) -> Counted {
    Some(Counts::forward(mat_mul(s)?.forward))
}

pub(super) fn quantized_global_pool(s: &Shapes<'_>) -> Counted {
    Some(Counts::forward(s.input(0)?))
}

/// The product of all sizes that the equation names, once for each pair of operands.
pub(super) fn einsum(s: &Shapes<'_>) -> Counted {
    let equation = s.node.attributes.text("equation", "").ok()?.replace(' ', "");
    let terms: Vec<&str> = equation.split("->").next()?.split(',').collect();
    let mut sizes: Vec<(String, u64)> = Vec::new();
    for (index, term) in terms.iter().enumerate() {
        let shape = s.sizes(index)?;
        let (before, after) = term.split_once("...").unwrap_or((term, ""));
        let hidden = shape.len().checked_sub(before.chars().count() + after.chars().count())?;
        let hidden = (0..hidden).rev().map(|place| format!(".{place}"));
        let letters = before.chars().map(String::from).chain(hidden).chain(after.chars().map(String::from));
        for (letter, size) in letters.zip(shape) {
            match sizes.iter_mut().find(|(other, _)| *other == letter) {
                Some((_, known)) => *known = size.max(*known),
                None => sizes.push((letter, size)),
            }
        }
    }
    let all = product(&sizes.iter().map(|(_, size)| *size).collect::<Vec<_>>());
    let pairs = u64::try_from(terms.len()).ok()?.saturating_sub(1);
    Some(Counts::flat(if pairs == 0 { all } else { all.saturating_mul(2).saturating_mul(pairs) }))
}

pub(super) fn lstm(s: &Shapes<'_>) -> Counted {
    recurrent(s, 4)
}

pub(super) fn gru(s: &Shapes<'_>) -> Counted {
    recurrent(s, 3)
}

pub(super) fn rnn(s: &Shapes<'_>) -> Counted {
    recurrent(s, 1)
}

/// Products of inputs and of states with `gates` matrices in each step and direction. The gradient
/// passes the state of every step but the first.
fn recurrent(s: &Shapes<'_>, gates: u64) -> Counted {
    let hidden = s.size("hidden_size")?;
    let (data, weight) = (s.sizes(0)?, s.sizes(1)?);
    let length = *data.get(usize::from(s.flag("layout", 0)? == 1))?;
    let steps = product(data.get(..2)?).saturating_mul(*weight.first()?);
    let each = steps.saturating_mul(2 * gates).saturating_mul(hidden);
    let (data, state) = (each.saturating_mul(*data.get(2)?), each.saturating_mul(hidden));
    let bias = if s.node.input(3).is_some() { steps.saturating_mul(gates).saturating_mul(hidden) } else { 0 };
    let forward = data.saturating_add(state).saturating_add(bias);
    let through = (u128::from(state) * u128::from(length.saturating_sub(1)) / u128::from(length.max(1))) as u64;
    Some(Counts { forward, grads: vec![data, data, state, bias, 0], through })
}

/// Scores, softmax and weighted sum. `scores` and `values` are the flops of the two products,
/// `weights` the attention weights.
fn attends(scores: u64, values: u64, weights: u64) -> Counts {
    Counts {
        forward: scores.saturating_add(values).saturating_add(weights.saturating_mul(5)),
        grads: vec![scores, scores, values, 0],
        through: values.saturating_add(weights.saturating_mul(4)),
    }
}

/// Attention of `rows` queries (over batch and length) to `keys` keys, all heads together `width` and
/// `value_width` wide.
fn attention_of(rows: u64, keys: u64, heads: u64, width: u64, value_width: u64) -> Counts {
    let pairs = rows.saturating_mul(keys);
    let flops = |width: u64| pairs.saturating_mul(width).saturating_mul(2);
    attends(flops(width), flops(value_width), pairs.saturating_mul(heads))
}

/// Queries `[B, S, heads D]` or `[B, heads, S, D]`, keys and values alike; input 4 holds past keys.
pub(super) fn attention(s: &Shapes<'_>) -> Counted {
    let (query, key, value) = (s.sizes(0)?, s.sizes(1)?, s.sizes(2)?);
    let past = if s.node.input(4).is_some() { s.dim(4, 2)? } else { 0 };
    match (query.as_slice(), key.as_slice(), value.as_slice()) {
        ([batch, heads, length, width], [_, _, keys, _], [.., value_width]) => {
            let rows = batch.saturating_mul(*length);
            let keys = keys.saturating_add(past);
            let (width, value_width) = (width.saturating_mul(*heads), value_width.saturating_mul(*heads));
            Some(attention_of(rows, keys, *heads, width, value_width))
        }
        ([batch, length, width], [_, keys, _], [.., value_width]) => {
            let (heads, shared) = (s.size("q_num_heads")?, s.size("kv_num_heads")?);
            let value_width = value_width.checked_div(shared)?.saturating_mul(heads);
            Some(attention_of(batch.saturating_mul(*length), keys.saturating_add(past), heads, *width, value_width))
        }
        _ => None,
    }
}

/// ONNX Runtime's attention without projections: `[B, S, W]`, or packed `[B, S, heads, 3, D]`.
pub(super) fn multi_head_attention(s: &Shapes<'_>) -> Counted {
    let heads = s.size("num_heads")?;
    let query = s.sizes(0)?;
    let [batch, length, ..] = query[..] else { return None };
    let rows = batch.saturating_mul(length);
    let Some(key) = s.node.input(1).and_then(|key| s.of(key)) else {
        let width = query.get(2)?.saturating_mul(*query.get(4)?);
        return (s.node.input(1).is_none()).then(|| attention_of(rows, length, heads, width, width));
    };
    let keys = if key.len() == 4 { *key.get(2)? } else { *key.get(1)? };
    let past = if s.node.input(6).is_some() { s.dim(6, 2)? } else { 0 };
    let width = *query.get(2)?;
    let value_width = if s.node.input(2).is_some() && key.len() == 3 { s.dim(2, 2)? } else { width };
    Some(attention_of(rows, keys.saturating_add(past), heads, width, value_width))
}

/// Fewer heads for keys than for queries, with past keys in input 3.
pub(super) fn group_query_attention(s: &Shapes<'_>) -> Counted {
    let (heads, shared) = (s.size("num_heads")?, s.size("kv_num_heads")?);
    let (rows, length) = (s.dim(0, 0)?.saturating_mul(s.dim(0, 1)?), s.dim(0, 1)?);
    let past = if s.node.input(3).is_some() { s.dim(3, 2)? } else { 0 };
    let packed = s.node.input(1).is_none();
    let all = s.dim(0, 2)?;
    let width = if packed {
        all.checked_div(heads.saturating_add(shared.saturating_mul(2)))?.saturating_mul(heads)
    } else {
        all
    };
    Some(attention_of(rows, length.saturating_add(past), heads, width, width))
}

/// ONNX Runtime's attention with the projections of queries, keys and values in one weight.
pub(super) fn projected_attention(s: &Shapes<'_>) -> Counted {
    let heads = s.size("num_heads")?;
    let (rows, length, inner) = (s.dim(0, 0)?.saturating_mul(s.dim(0, 1)?), s.dim(0, 1)?, s.dim(0, 2)?);
    let projected = s.dim(1, 1)?;
    let products = product(&[2, rows, inner, projected]);
    let width = projected.checked_div(3)?;
    let core = attention_of(rows, length, heads, width, width);
    let forward = core.forward.saturating_add(products);
    let through = core.grads.iter().fold(core.through, |sum, flops| sum.saturating_add(*flops));
    Some(Counts { forward, grads: vec![products, products, product(&[rows, projected]), 0], through })
}

/// `5 n log2 n` for a transform of length n.
pub(super) fn dft(s: &Shapes<'_>) -> Counted {
    let n = s.output()?;
    let axis = s.flag("axis", 1)?;
    let length = s.dim(0, axis)?.max(2);
    Some(Counts::flat(n.saturating_mul(5).saturating_mul(u64::from(length.ilog2() + 1)) / 2))
}

/// As [`dft`] for each frame.
pub(super) fn dft_frames(s: &Shapes<'_>) -> Counted {
    let n = s.output()?;
    let length = s.of(s.node.output(0)?)?.get(2).copied()?.max(2);
    Some(Counts::flat(n.saturating_mul(5).saturating_mul(u64::from(length.ilog2() + 1)) / 2))
}

/// Elimination: two thirds of the cube of the size.
pub(super) fn determinant(s: &Shapes<'_>) -> Counted {
    Some(Counts::flat(s.input(0)?.saturating_mul(s.dim(0, -1)?) / 3 * 2))
}

/// Inference form; the training form is counted by [`batch_norm_of`].
pub(super) fn batch_norm(s: &Shapes<'_>) -> Counted {
    batch_norm_of(s, s.flag("training_mode", 0)? == 1)
}

/// `BatchNormalization` by the statistics of the batch, or by the running ones.
pub(super) fn batch_norm_of(s: &Shapes<'_>, of_batch: bool) -> Counted {
    let n = s.output()?;
    let (forward, data) = if of_batch { (5, 8) } else { (2, 1) };
    let grads = vec![n.saturating_mul(data), n.saturating_mul(2), n, 0];
    Some(Counts { forward: n.saturating_mul(forward), grads, through: 0 })
}

pub(super) fn pool(s: &Shapes<'_>) -> Counted {
    let kernel = s.node.attributes.ints("kernel_shape").ok()??;
    let window = kernel.iter().map(|size| u64::try_from(*size).ok()).collect::<Option<Vec<_>>>()?;
    Some(Counts::flat(product(&window).saturating_mul(s.output()?)))
}

pub(super) fn resize(s: &Shapes<'_>) -> Counted {
    let n = s.output()?;
    let forward = match s.node.attributes.text("mode", "nearest").ok()?.as_str() {
        "nearest" => return Some(Counts { forward: 0, grads: vec![n], through: 0 }),
        "cubic" => 35,
        _ => 5,
    };
    Some(Counts::flat(n.saturating_mul(forward)))
}
