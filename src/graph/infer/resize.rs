//! Resizing of images.

use super::{Call, Dim, Fact, Number, Size, axes_of};

pub(super) fn infer(call: &Call) -> Option<Vec<Fact>> {
    match call.name() {
        "Upsample" => {
            let scales = match call.attributes.get("scales") {
                Some(super::Attribute::Floats(scales)) => {
                    Some(scales.iter().map(|scale| Number::of_real(f64::from(*scale))).collect())
                }
                _ => (call.numbers)(1),
            };
            call.like(scaled(call, scales))
        }
        // Opset 10 has no region of interest.
        "Resize" if call.inputs.len() == 2 => call.like(scaled(call, (call.numbers)(1))),
        "Resize" if call.has(3) => call.like(sized(call)),
        "Resize" => call.like(scaled(call, (call.numbers)(2))),
        _ => None,
    }
}

fn axes(call: &Call, rank: usize) -> Option<Vec<usize>> {
    match call.ints("axes")? {
        Some(axes) => axes_of(&axes, rank),
        None => Some((0..rank).collect()),
    }
}

/// Returns `floor(size * scale)` for every axis.
fn scaled(call: &Call, scales: Option<Vec<Number>>) -> Option<Vec<Dim>> {
    let mut shape = call.shape(0)?.to_vec();
    let axes = axes(call, shape.len())?;
    let scales = scales.unwrap_or_else(|| vec![Number::Unknown; axes.len()]);
    if scales.len() != axes.len() || call.text("coordinate_transformation_mode", "")? == "tf_crop_and_resize" {
        return Some(vec![Dim::Unknown; shape.len()]);
    }
    for (axis, scale) in axes.into_iter().zip(scales) {
        let dim = shape.get_mut(axis)?;
        *dim = match (dim.known(), scale) {
            (_, Number::Size(one)) if one == Size::from(1) => continue,
            (_, Number::Size(scale)) => Dim::from(dim.size().and_then(|size| size.times(&scale))),
            (Some(size), Number::Real(scale)) => {
                // The runtime multiplies in single precision.
                whole(f64::from((size as f32 * scale as f32).floor()))
            }
            _ => Dim::Unknown,
        };
    }
    Some(shape)
}

/// Returns a size that was computed as a real number.
fn whole(size: f64) -> Dim {
    if (0.0..1e15).contains(&size) { Dim::Known(size as usize) } else { Dim::Unknown }
}

fn sized(call: &Call) -> Option<Vec<Dim>> {
    let mut shape = call.shape(0)?.to_vec();
    let axes = axes(call, shape.len())?;
    let policy = call.text("keep_aspect_ratio_policy", "stretch")?;
    let sizes = call.sizes(3).filter(|sizes| sizes.len() == axes.len());
    let sizes = sizes.unwrap_or_else(|| vec![None; axes.len()]);
    if policy == "stretch" {
        for (axis, size) in axes.into_iter().zip(sizes) {
            *shape.get_mut(axis)? = Dim::from(size);
        }
        return Some(shape);
    }
    let ratio = || -> Option<f64> {
        let ratios = axes.iter().zip(&sizes).map(|(axis, size)| {
            let old = shape.get(*axis)?.known().filter(|old| *old > 0)?;
            Some(size.as_ref()?.fixed()? as f64 / old as f64)
        });
        let ratios = ratios.collect::<Option<Vec<f64>>>()?;
        ratios.into_iter().reduce(if policy == "not_smaller" { f64::max } else { f64::min })
    };
    let ratio = ratio();
    for axis in axes {
        let dim = shape.get_mut(axis)?;
        let size = ratio.zip(dim.known()).map(|(ratio, old)| (old as f64 * ratio).round());
        *dim = size.map_or(Dim::Unknown, whole);
    }
    Some(shape)
}
