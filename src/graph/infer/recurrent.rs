//! Recurrent layers: `Y [seq, directions, batch, hidden]`, `Y_h` and `Y_c [directions, batch, hidden]`.

use super::{Call, Dim, Fact};

pub(super) fn infer(call: &Call) -> Option<Vec<Fact>> {
    if !matches!(call.name(), "RNN" | "GRU" | "LSTM") {
        return None;
    }
    let directions = Dim::Known(if call.text("direction", "forward")? == "bidirectional" { 2 } else { 1 });
    let hidden = match call.int("hidden_size", 0)? {
        0 => call.shape(2).and_then(|shape| shape.get(2)).cloned().unwrap_or(Dim::Unknown),
        size => super::known(size),
    };
    let batch_first = call.int("layout", 0)? == 1;
    let dim = |axis: usize| call.shape(0).and_then(|shape| shape.get(axis)).cloned().unwrap_or(Dim::Unknown);
    let fact = |shape: Vec<Dim>| Fact { dtype: call.dtype(0), shape: Some(shape) };
    let (all, last) = if batch_first {
        (vec![dim(0), dim(1), directions.clone(), hidden.clone()], vec![dim(0), directions, hidden])
    } else {
        (vec![dim(0), directions.clone(), dim(1), hidden.clone()], vec![directions, dim(1), hidden])
    };
    call.give([fact(all), fact(last.clone()), fact(last)])
}
