//! LpPool, GlobalLpPool, Col2Im and MaxUnpool.

use super::Call;
use crate::graph::{Attributes, DType, Tensor, ValueId};

/// `(sum of |x|^p over the window)^(1/p)`, the sum by a convolution of every channel with ones.
pub(super) fn lp_pool(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let (x, dtype) = (call.input(0)?, call.dtype(0)?);
    let kernel = call.node.attributes.ints("kernel_shape").ok()??;
    let p = call.attribute("p", 2)?;
    let channels = call.fact(0)?.dim(1)?.known()?;
    let mut attributes = call.node.attributes.clone().with("group", i64::try_from(channels).ok()?);
    if call.attribute("ceil_mode", 0)? != 0 {
        attributes = attributes.with("pads", reaching(call, &kernel)?.as_slice());
    }
    attributes.remove("ceil_mode");
    attributes.remove("p");
    let mut shape = vec![channels, 1];
    shape.extend(kernel.iter().map(|size| usize::try_from(*size).ok()).collect::<Option<Vec<usize>>>()?);
    let powers = powers(call, x, p);
    let ones = call.b.constant("ones", Tensor::float_full(dtype, &shape, 1.0));
    let sums = call.b.op("Conv", &[powers, ones], attributes);
    Some(vec![root(call, sums, p)])
}

/// Returns the padding with which the last window that begins before the padding at the back is a whole one.
fn reaching(call: &Call<'_>, kernel: &[i64]) -> Option<Vec<i64>> {
    let attributes = &call.node.attributes;
    if attributes.text("auto_pad", "NOTSET").ok()? != "NOTSET" {
        return None;
    }
    let count = kernel.len();
    let given = |name: &str, default: i64, count: usize| -> Option<Vec<i64>> {
        Some(attributes.ints(name).ok()?.unwrap_or_else(|| vec![default; count]))
    };
    let mut pads = given("pads", 0, 2 * count)?;
    let (strides, dilations) = (given("strides", 1, count)?, given("dilations", 1, count)?);
    let sizes = call.sizes(0)?;
    for (at, kernel) in kernel.iter().enumerate() {
        let reach = dilations.get(at)? * (kernel - 1) + 1;
        let (stride, front) = (*strides.get(at)?, *pads.get(at)?);
        let held = sizes.get(at + 2)? + front;
        let room = held + pads.get(at + count)? - reach;
        let mut last = room.div_euclid(stride) + i64::from(room.rem_euclid(stride) != 0);
        if last * stride >= held {
            last -= 1;
        }
        *pads.get_mut(at + count)? = (last * stride + reach - held).max(0);
    }
    Some(pads)
}

pub(super) fn global_lp_pool(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let (x, rank) = (call.input(0)?, call.rank(0)?);
    let p = call.attribute("p", 2)?;
    let axes: Vec<i64> = (2..rank).collect();
    if let Some(norm) = [(1, "ReduceL1"), (2, "ReduceL2")].iter().find(|(of, _)| *of == p) {
        return Some(vec![call.b.reduce(norm.1, x, &axes, true)]);
    }
    let powers = powers(call, x, p);
    let sums = call.b.reduce("ReduceSum", powers, &axes, true);
    Some(vec![root(call, sums, p)])
}

fn powers(call: &mut Call<'_>, x: ValueId, p: i64) -> ValueId {
    let absolute = call.b.unary("Abs", x);
    let exponent = call.b.like(x, p as f64);
    if p == 1 { absolute } else { call.b.op("Pow", &[absolute, exponent], Attributes::none()) }
}

fn root(call: &mut Call<'_>, sums: ValueId, p: i64) -> ValueId {
    match p {
        1 => call.b.unary("Identity", sums),
        2 => call.b.unary("Sqrt", sums),
        _ => {
            let exponent = call.b.like(sums, 1.0 / p as f64);
            call.b.op("Pow", &[sums, exponent], Attributes::none())
        }
    }
}

/// Each column of a block is put back at its place: a transposed convolution whose weights are ones there.
pub(super) fn col2_im(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let (x, dtype) = (call.input(0)?, call.dtype(0)?);
    let (image, block) = (call.ints(1)?, call.ints(2)?);
    let columns = usize::try_from(call.sizes(0)?.get(1).copied()?).ok()?;
    let spatial = block.len();
    let given = |name: &str, default: i64, count: usize| -> Option<Vec<i64>> {
        Some(call.node.attributes.ints(name).ok()?.unwrap_or_else(|| vec![default; count]))
    };
    let (strides, dilations) = (given("strides", 1, spatial)?, given("dilations", 1, spatial)?);
    let pads = given("pads", 0, 2 * spatial)?;
    let window: Vec<usize> = block.iter().map(|size| usize::try_from(*size).ok()).collect::<Option<_>>()?;
    let elements: usize = window.iter().product();
    let channels = columns.checked_div(elements)?;
    let mut weight = vec![0_f32; columns * elements];
    for column in 0..columns {
        weight[column * elements + column % elements] = 1.0;
    }
    let weight = Tensor::from_vec(&[&[columns, 1], window.as_slice()].concat(), weight);
    let (mut places, mut ends, mut front) = (vec![0, i64::try_from(columns).ok()?], Vec::new(), Vec::new());
    for (at, block) in block.iter().enumerate() {
        let reach = dilations.get(at)? * (block - 1) + 1;
        let padded = image.get(at)? + pads.get(at)? + pads.get(at + spatial)?;
        let count = (padded - reach).checked_div(*strides.get(at)?)? + 1;
        let covered = (count - 1) * strides.get(at)? + reach;
        places.push(count);
        front.push(*pads.get(at)?);
        ends.push((covered, *image.get(at)?));
    }
    let blocks = call.b.reshape(x, &places);
    let weight = call.b.constant("places", weight);
    let weight = if dtype == DType::F32 { weight } else { call.b.cast(weight, dtype) };
    let attributes = Attributes::none()
        .with("group", i64::try_from(channels).ok()?)
        .with("strides", strides.as_slice())
        .with("dilations", dilations.as_slice());
    let mut y = call.b.op("ConvTranspose", &[blocks, weight], attributes);
    let missing: Vec<i64> =
        front.iter().zip(&ends).map(|(front, (covered, image))| (front + image - covered).max(0)).collect();
    if missing.iter().any(|missing| *missing > 0) {
        let amounts = [vec![0; 2 + spatial], vec![0; 2], missing].concat();
        let amounts = call.b.ints("missing", &amounts);
        y = call.b.op("Pad", &[y, amounts], Attributes::none());
    }
    for (at, (front, (_, image))) in front.iter().zip(&ends).enumerate() {
        y = call.slice(y, i64::try_from(at).ok()? + 2, *front, front + image, 1);
    }
    Some(vec![y])
}

/// Puts each element at its index in a flat result of zeros.
pub(super) fn max_unpool(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let (x, indices, dtype) = (call.input(0)?, call.input(1)?, call.dtype(0)?);
    let sizes = call.sizes(0)?;
    let kernel = call.node.attributes.ints("kernel_shape").ok()??;
    let shape = match call.input(2) {
        Some(_) => call.ints(2)?,
        None => {
            let spatial = kernel.len();
            let given = |name: &str, default: i64, count: usize| -> Option<Vec<i64>> {
                Some(call.node.attributes.ints(name).ok()?.unwrap_or_else(|| vec![default; count]))
            };
            let (strides, pads) = (given("strides", 1, spatial)?, given("pads", 0, 2 * spatial)?);
            let mut shape = sizes.get(..2)?.to_vec();
            for (at, kernel) in kernel.iter().enumerate() {
                let grown = (sizes.get(at + 2)? - 1) * strides.get(at)? + kernel;
                shape.push(grown - pads.get(at)? - pads.get(at + spatial)?);
            }
            shape
        }
    };
    let total = usize::try_from(shape.iter().product::<i64>()).ok()?;
    let b = &mut *call.b;
    let size = b.ints("total", &[i64::try_from(total).ok()?]);
    let zeros = b.op("ConstantOfShape", &[size], Attributes::none().with("value", Tensor::zeros(dtype, &[1])));
    let (flat, places) = (b.reshape(x, &[-1]), b.reshape(indices, &[-1]));
    let y = b.op("ScatterElements", &[zeros, places, flat], Attributes::none().with("axis", 0));
    Some(vec![b.reshape(y, &shape)])
}
