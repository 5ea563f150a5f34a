//! ConvTranspose whose padding differs between front and back, or follows from sizes: the part of the padding that both
//! sides share stays, what is left is cut off the result.

use super::Call;
use crate::graph::ValueId;

pub(super) fn conv_transpose(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let spatial = usize::try_from(call.rank(0)? - 2).ok()?;
    let (front, back) = padding(call, spatial)?;
    let shared: Vec<i64> = front.iter().zip(&back).map(|(front, back)| *front.min(back)).collect();
    let mut attributes =
        call.node.attributes.clone().with("pads", [shared.clone(), shared.clone()].concat().as_slice());
    attributes.remove("auto_pad");
    let mut y = call.b.ops(&call.node.op, call.inputs, attributes, 1)[0];
    for (at, ((front, back), shared)) in front.iter().zip(&back).zip(&shared).enumerate() {
        let (front, back) = (front - shared, back - shared);
        if front != 0 || back != 0 {
            let end = if back == 0 { i64::MAX } else { -back };
            y = call.slice(y, i64::try_from(at).ok()? + 2, front, end, 1);
        }
    }
    Some(vec![y])
}

/// Returns the padding at the front and at the back of each spatial axis.
fn padding(call: &Call<'_>, spatial: usize) -> Option<(Vec<i64>, Vec<i64>)> {
    let attributes = &call.node.attributes;
    if attributes.get("output_shape").is_some() {
        return None;
    }
    let given = |name: &str, default: i64| -> Option<Vec<i64>> {
        Some(attributes.ints(name).ok()?.unwrap_or_else(|| vec![default; spatial]))
    };
    let upper = match attributes.text("auto_pad", "NOTSET").ok()?.as_str() {
        "NOTSET" => {
            let pads = attributes.ints("pads").ok()?.unwrap_or_else(|| vec![0; 2 * spatial]);
            let fits = pads.len() == 2 * spatial && pads.iter().all(|pad| *pad >= 0);
            return fits.then(|| (pads[..spatial].to_vec(), pads[spatial..].to_vec()));
        }
        "SAME_UPPER" => true,
        "SAME_LOWER" => false,
        _ => return None,
    };
    let kernel: Vec<i64> = call.sizes(1)?.into_iter().skip(2).collect();
    let (strides, dilations) = (given("strides", 1)?, given("dilations", 1)?);
    let added = given("output_padding", 0)?;
    let mut pads = (Vec::new(), Vec::new());
    for at in 0..spatial {
        let reach = dilations.get(at)? * (kernel.get(at)? - 1) + 1;
        let total = (added.get(at)? + reach - strides.get(at)?).max(0);
        let (less, more) = (total / 2, total - total / 2);
        pads.0.push(if upper { less } else { more });
        pads.1.push(if upper { more } else { less });
    }
    Some(pads)
}
