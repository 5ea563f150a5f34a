//! Attention of the default domain. Queries, keys and values are `[batch, heads, length, size]`, or
//! `[batch, length, heads * size]` with the heads as attributes.

use super::{Call, Dim, Fact, Size};

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
