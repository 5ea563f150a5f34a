//! Attention of the default domain and of `com.microsoft`. Queries, keys and values are
//! `[batch, heads, length, size]`, or `[batch, length, heads * size]` with the heads as attributes.

use super::{Call, Dim, Fact, Size, known};

pub(super) fn infer(call: &Call) -> Option<Vec<Fact>> {
    match call.name() {
        "Attention" => attention(call),
        "RotaryEmbedding" => call.give([call.fact(0).clone()]),
        // Written by ONNX Runtime's optimizer under the default domain.
        "SimplifiedLayerNormalization" => call.give([call.fact(0).clone(), super::layers::statistics(call, -1)]),
        _ => None,
    }
}

/// Batch, heads, length and size of one of the three inputs.
fn parts(call: &Call, index: usize, heads: &str) -> Option<[Dim; 4]> {
    match call.shape(index)? {
        [batch, heads, length, size] => Some([batch.clone(), heads.clone(), length.clone(), size.clone()]),
        [batch, length, hidden] => {
            let heads = Size::from(call.int(heads, 0).filter(|heads| *heads > 0)?);
            let size = hidden.size().and_then(|hidden| hidden.exactly_by(&heads));
            Some([batch.clone(), Dim::from(Some(heads)), length.clone(), Dim::from(size)])
        }
        _ => None,
    }
}

fn attention(call: &Call) -> Option<Vec<Fact>> {
    let query = parts(call, 0, "q_num_heads");
    let (key, value) = (parts(call, 1, "kv_num_heads"), parts(call, 2, "kv_num_heads"));
    let fact = |index: usize, shape: Option<Vec<Dim>>| Fact { dtype: call.dtype(index), shape };
    let output = query.as_ref().zip(value.as_ref()).map(|([batch, heads, length, _], [.., size])| {
        if call.rank(0) == Some(4) {
            return vec![batch.clone(), heads.clone(), length.clone(), size.clone()];
        }
        let hidden = heads.size().zip(size.size()).and_then(|(heads, size)| heads.times(&size));
        vec![batch.clone(), length.clone(), Dim::from(hidden)]
    });
    let past =
        if call.has(4) { call.shape(4).and_then(|past| past.get(2)).and_then(Dim::size) } else { Some(Size::from(0)) };
    let total = |length: &Dim| Dim::from(length.size().zip(past.clone()).and_then(|(length, past)| length.plus(&past)));
    let present = |part: &Option<[Dim; 4]>| {
        let [batch, heads, length, size] = part.as_ref()?;
        Some(vec![batch.clone(), heads.clone(), total(length), size.clone()])
    };
    let scores = query.as_ref().zip(key.as_ref()).map(|([batch, heads, length, _], [_, _, other, _])| {
        vec![batch.clone(), heads.clone(), length.clone(), total(other)]
    });
    call.give([fact(0, output), fact(1, present(&key)), fact(2, present(&value)), fact(0, scores)])
}

/// Output and present of queries, keys and values that packed weights `[in, 3 * hidden]` give.
pub(super) fn packed(call: &Call, dtype: usize) -> Option<Vec<Fact>> {
    let [batch, length, _] = call.shape(0)? else { return None };
    let hidden = match call.ints("qkv_hidden_sizes")? {
        Some(sizes) => known(*sizes.get(2)?),
        None => {
            let packed = call.shape(1).and_then(|weights| weights.get(1)?.size());
            Dim::from(packed.and_then(|packed| packed.exactly_by(&Size::from(3))))
        }
    };
    let heads = call.int("num_heads", 0)?;
    let total = joined(length, past_length(call, 4, 3));
    let present = vec![Dim::Known(2), batch.clone(), known(heads), total, part(&hidden, heads)];
    let fact = |shape| Fact { dtype: call.dtype(dtype), shape: Some(shape) };
    call.give([fact(vec![batch.clone(), length.clone(), hidden]), fact(present)])
}

/// Output, keys, values and scores; keys and values may be packed or by head.
pub(super) fn multi_head(call: &Call) -> Option<Vec<Fact>> {
    let heads = call.int("num_heads", 0)?;
    let (query, key) = (call.shape(0)?, call.shape(1));
    let (batch, length) = (query.first()?, query.get(1)?);
    let size = match query {
        [_, _, _, _, size] => size.clone(),
        [_, _, hidden] => part(hidden, heads),
        _ => return None,
    };
    let (keys, width) = match (query.len(), key, call.shape(2)) {
        (5, ..) => (length.clone(), size.clone()),
        (_, Some([_, keys, _, _, _]), _) => (keys.clone(), size.clone()),
        (_, Some([_, _, keys, _]), Some([_, _, _, width])) => (keys.clone(), width.clone()),
        (_, Some([_, keys, _]), Some([_, _, hidden])) => (keys.clone(), part(hidden, heads)),
        (_, _, Some([_, keys, hidden])) => (keys.clone(), part(hidden, heads)),
        // Without a key, or with one of which nothing is known.
        (_, None, None) if !call.has(1) && !call.has(2) => (Dim::Unknown, size.clone()),
        _ => (Dim::Unknown, Dim::Unknown),
    };
    let total = joined(&keys, past_length(call, 6, 2));
    let head = |last: [Dim; 2]| [vec![batch.clone(), known(heads)], last.to_vec()].concat();
    let output = vec![batch.clone(), length.clone(), times(&known(heads), &width)];
    let shapes = [output, head([total.clone(), size]), head([total.clone(), width]), head([length.clone(), total])];
    call.give(shapes.map(|shape| Fact { dtype: call.dtype(0), shape: Some(shape) }))
}

/// Output, keys and values of heads that share keys and values.
pub(super) fn grouped(call: &Call) -> Option<Vec<Fact>> {
    let [batch, length, hidden] = call.shape(0)? else { return None };
    let (heads, groups) = (call.int("num_heads", 0)?, call.int("kv_num_heads", 0)?);
    // Without keys, queries, keys and values lie beside each other.
    let all = if call.has(1) { heads } else { heads.checked_add(groups.checked_mul(2)?)? };
    let size = part(hidden, all);
    let hidden = if call.has(1) { hidden.clone() } else { times(&known(heads), &size) };
    let none = !call.has(3) || past_length(call, 3, 2).and_then(|past| past.fixed()) == Some(0);
    let total = if none { length.clone() } else { Dim::Unknown };
    let dtype = if call.has(3) { call.dtype(3) } else { call.dtype(0) };
    let present = Fact { dtype, shape: Some(vec![batch.clone(), known(groups), total, size]) };
    let output = vec![batch.clone(), length.clone(), hidden];
    call.give([Fact { dtype: call.dtype(0), shape: Some(output) }, present.clone(), present])
}

/// Returns the length of a past at a dimension of an input: 0 where there is none.
fn past_length(call: &Call, index: usize, axis: usize) -> Option<Size> {
    if call.has(index) { call.shape(index)?.get(axis)?.size() } else { Some(Size::from(0)) }
}

fn joined(length: &Dim, past: Option<Size>) -> Dim {
    Dim::from(length.size().zip(past).and_then(|(length, past)| length.plus(&past)))
}

fn part(hidden: &Dim, heads: i64) -> Dim {
    Dim::from(hidden.size().filter(|_| heads > 0).and_then(|hidden| hidden.exactly_by(&Size::from(heads))))
}

fn times(a: &Dim, b: &Dim) -> Dim {
    Dim::from(a.size().zip(b.size()).and_then(|(a, b)| a.times(&b)))
}
