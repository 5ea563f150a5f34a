//! Sampling and detection.

use super::{Call, DType, Dim, Fact, Size, known};

pub(super) fn infer(call: &Call) -> Option<Vec<Fact>> {
    match call.name() {
        "GridSample" => call.like(grid_sample(call)),
        "AffineGrid" => call.like(affine_grid(call)),
        "RoiAlign" => {
            let sides = [known(call.int("output_height", 1)?), known(call.int("output_width", 1)?)];
            call.like(regions(call, sides, 0))
        }
        "MaxRoiPool" => {
            let pooled = call.ints("pooled_shape")??;
            let [height, width] = pooled.as_slice() else { return None };
            call.like(regions(call, [known(*height), known(*width)], 0))
        }
        "Col2Im" => call.like(col2im(call)),
        "NonMaxSuppression" => call.give([Fact::new(DType::I64, vec![Dim::Unknown, Dim::Known(3)])]),
        _ => None,
    }
}

fn grid_sample(call: &Call) -> Option<Vec<Dim>> {
    let (input, grid) = (call.shape(0)?, call.shape(1)?);
    let places = grid.get(1..grid.len().checked_sub(1)?)?;
    Some([input.get(..2)?, places].concat())
}

/// Returns `[N, H, W, 2]`, or `[N, D, H, W, 3]`, for a size `[N, C, ..]`.
fn affine_grid(call: &Call) -> Option<Vec<Dim>> {
    let sizes = call.sizes(1)?;
    let batch = Dim::from(sizes.first()?.clone());
    let places = sizes.get(2..)?;
    let spatial = places.iter().cloned().map(Dim::from);
    Some(std::iter::once(batch).chain(spatial).chain([Dim::Known(places.len())]).collect())
}

fn regions(call: &Call, [height, width]: [Dim; 2], axis: usize) -> Option<Vec<Dim>> {
    let count = call.shape(1).and_then(|shape| shape.get(axis)).cloned().unwrap_or(Dim::Unknown);
    let channels = call.shape(0).and_then(|shape| shape.get(1)).cloned().unwrap_or(Dim::Unknown);
    Some(vec![count, channels, height, width])
}

fn col2im(call: &Call) -> Option<Vec<Dim>> {
    let input = call.shape(0)?;
    let image = call.sizes(1)?;
    let block = call.fixed(2)?.into_iter().try_fold(1i64, i64::checked_mul)?;
    let channels = input.get(1)?.size().and_then(|size| size.exactly_by(&Size::from(block)));
    let head = [input.first()?.clone(), Dim::from(channels)];
    Some(head.into_iter().chain(image.into_iter().map(Dim::from)).collect())
}
