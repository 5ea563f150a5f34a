//! Signal processing.

use super::{Call, Dim, Fact, Size, axis_of, dtype};

pub(super) fn infer(call: &Call) -> Option<Vec<Fact>> {
    match call.name() {
        "HannWindow" | "HammingWindow" | "BlackmanWindow" => {
            let dtype = dtype(call.int("output_datatype", 1)?);
            call.give([Fact { dtype, shape: Some(vec![Dim::from(call.scalar(0))]) }])
        }
        "MelWeightMatrix" => {
            let bins = call.scalar(1).and_then(|length| length.floor_by(2)?.plus(&Size::from(1)));
            let dtype = dtype(call.int("output_datatype", 1)?);
            call.give([Fact { dtype, shape: Some(vec![Dim::from(bins), Dim::from(call.scalar(0))]) }])
        }
        "DFT" => call.like(dft(call)),
        "STFT" => call.like(stft(call)),
        _ => None,
    }
}

fn dft(call: &Call) -> Option<Vec<Dim>> {
    let mut shape = call.shape(0)?.to_vec();
    let rank = shape.len();
    let axis = match (call.has(2), call.attributes.get("axis").is_some()) {
        (true, _) => call.scalar(2).and_then(|axis| axis.fixed()),
        (false, true) => call.int("axis", 1),
        (false, false) => Some(if call.opset < 20 { 1 } else { -2 }),
    };
    // A one-sided inverse gives real numbers.
    let (onesided, inverse) = (call.int("onesided", 0)? == 1, call.int("inverse", 0)? == 1);
    *shape.last_mut()? = Dim::Known(if onesided && inverse { 1 } else { 2 });
    let Some(axis) = axis else {
        shape.get_mut(..rank - 1)?.fill(Dim::Unknown);
        return Some(shape);
    };
    let slot = shape.get_mut(axis_of(axis, rank)?)?;
    let size = slot.size();
    let given = call.has(1);
    let length = if given { call.scalar(1) } else { size };
    *slot = Dim::from(match (onesided, inverse) {
        (true, false) => length.and_then(|length| length.floor_by(2)?.plus(&Size::from(1))),
        (true, true) if !given => length.and_then(|length| length.plus(&Size::from(-1))?.times(&Size::from(2))),
        _ => length,
    });
    Some(shape)
}

/// Returns `[batch, frames, bins, 2]`.
fn stft(call: &Call) -> Option<Vec<Dim>> {
    let [batch, samples, ..] = call.shape(0)? else { return None };
    let step = call.scalar(1).and_then(|step| step.fixed());
    let length = if call.has(3) { call.scalar(3) } else { call.shape(2).and_then(|shape| shape.first()?.size()) };
    let frames = || samples.size()?.minus(length.as_ref()?)?.floor_by(step?)?.plus(&Size::from(1));
    let bins = || match call.int("onesided", 1)? {
        1 => length.as_ref()?.floor_by(2)?.plus(&Size::from(1)),
        _ => length.clone(),
    };
    Some(vec![batch.clone(), Dim::from(frames()), Dim::from(bins()), Dim::Known(2)])
}
