//! Convolutions, pools and normalizations.

use super::window::Window;
use super::{Call, DType, Dim, Fact, Size, axis_of, dtype};

pub(super) fn infer(call: &Call) -> Option<Vec<Fact>> {
    match call.name() {
        "Conv" => call.like(conv(call, call.shape(0), call.shape(1))),
        "ConvInteger" => call.give([Fact { dtype: Some(DType::I32), shape: conv(call, call.shape(0), call.shape(1)) }]),
        "QLinearConv" => call.give([Fact { dtype: call.dtype(7), shape: conv(call, call.shape(0), call.shape(3)) }]),
        "DeformConv" => call.like(conv(call, call.shape(0), call.shape(1))),
        "ConvTranspose" => call.like(conv_transpose(call)),
        "MaxPool" => {
            let shape = pool(call);
            call.give([Fact { dtype: call.dtype(0), shape: shape.clone() }, Fact { dtype: Some(DType::I64), shape }])
        }
        "AveragePool" | "LpPool" => call.like(pool(call)),
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => call.like(global(call)),
        "MaxUnpool" => call.like(unpool(call)),
        "LayerNormalization" | "RMSNormalization" => {
            let statistics = statistics(call, -1);
            call.give([call.fact(0).clone(), statistics.clone(), statistics])
        }
        _ => None,
    }
}

/// Returns `[N, C, ..]` of a convolution, or what is known of it when the weight or the input is not.
pub(super) fn conv(call: &Call, input: Option<&[Dim]>, weight: Option<&[Dim]>) -> Option<Vec<Dim>> {
    let rank = input.or(weight)?.len();
    let batch = input.map_or(Some(&Dim::Unknown), <[Dim]>::first)?.clone();
    let channels = weight.map_or(Some(&Dim::Unknown), <[Dim]>::first)?.clone();
    let kernel = match (call.ints("kernel_shape")?, weight) {
        (Some(kernel), _) => Some(kernel),
        (None, Some(weight)) => weight.get(2..)?.iter().map(|dim| i64::try_from(dim.known()?).ok()).collect(),
        (None, None) => None,
    };
    let spatial = match (input, kernel) {
        (Some(input), Some(kernel)) if kernel.len() + 2 == rank => {
            Window::new(call, kernel)?.counts(input.get(2..)?, false)
        }
        _ => vec![Dim::Unknown; rank.checked_sub(2)?],
    };
    Some([batch, channels].into_iter().chain(spatial).collect())
}

fn conv_transpose(call: &Call) -> Option<Vec<Dim>> {
    let (input, weight) = (call.shape(0)?, call.shape(1)?);
    let sizes = input.get(2..)?;
    let channels = weight.get(1)?.size().and_then(|size| size.times(&Size::from(call.int("group", 1)?)));
    let head = [input.first()?.clone(), Dim::from(channels)];
    let kernel = match call.ints("kernel_shape")? {
        Some(kernel) => Some(kernel),
        None => weight.get(2..)?.iter().map(|dim| i64::try_from(dim.known()?).ok()).collect(),
    };
    let Some(kernel) = kernel.filter(|kernel| kernel.len() == sizes.len()) else {
        return Some(head.into_iter().chain(vec![Dim::Unknown; sizes.len()]).collect());
    };
    let window = Window::new(call, kernel)?;
    let extra = call.ints("output_padding")?.unwrap_or_else(|| vec![0; sizes.len()]);
    let asked = call.ints("output_shape")?;
    let size = |axis: usize| -> Option<Size> {
        if let Some(asked) = &asked {
            // Some files list batch and channels too.
            return asked.get(axis + asked.len().checked_sub(sizes.len())?).map(|size| Size::from(*size));
        }
        let stride = Size::from(window.strides[axis]);
        let size = sizes[axis].size()?;
        if window.same() {
            return size.times(&stride);
        }
        let more = window.span(axis).checked_add(*extra.get(axis)?)?.checked_sub(window.padding(axis))?;
        size.plus(&Size::from(-1))?.times(&stride)?.plus(&Size::from(more))
    };
    Some(head.into_iter().chain((0..sizes.len()).map(|axis| Dim::from(size(axis)))).collect())
}

pub(super) fn pool(call: &Call) -> Option<Vec<Dim>> {
    let shape = call.shape(0)?;
    let kernel = call.ints("kernel_shape")??;
    if shape.len() != kernel.len() + 2 {
        return None;
    }
    let ceil = call.int("ceil_mode", 0)? == 1;
    Some([&shape[..2], &Window::new(call, kernel)?.counts(&shape[2..], ceil)].concat())
}

pub(super) fn global(call: &Call) -> Option<Vec<Dim>> {
    let shape = call.shape(0)?;
    Some(shape.iter().enumerate().map(|(axis, dim)| if axis < 2 { dim.clone() } else { Dim::Known(1) }).collect())
}

fn unpool(call: &Call) -> Option<Vec<Dim>> {
    let shape = call.shape(0)?;
    if call.has(2) {
        let sizes = call.sizes(2);
        return Some(sizes.map_or_else(|| vec![Dim::Unknown; shape.len()], |s| s.into_iter().map(Dim::from).collect()));
    }
    let window = Window::new(call, call.ints("kernel_shape")??)?;
    let (head, sizes) = (shape.get(..2)?, shape.get(2..)?);
    let side = |(axis, dim): (usize, &Dim)| {
        let stride = Size::from(*window.strides.get(axis)?);
        let more = window.span(axis).checked_sub(window.padding(axis))?;
        Some(Dim::from(dim.size().and_then(|size| size.plus(&Size::from(-1))?.times(&stride)?.plus(&Size::from(more)))))
    };
    (window.kernel.len() == sizes.len()).then_some(())?;
    Some([head, &sizes.iter().enumerate().map(side).collect::<Option<Vec<Dim>>>()?].concat())
}

/// Returns the fact of the mean and the inverse standard deviation of a layer normalization.
pub(super) fn statistics(call: &Call, axis: i64) -> Fact {
    let shape = call.shape(0).and_then(|shape| {
        let mut shape = shape.to_vec();
        let first = axis_of(call.int("axis", axis)?, shape.len())?;
        shape.get_mut(first..)?.fill(Dim::Known(1));
        Some(shape)
    });
    Fact { dtype: call.int("stash_type", 1).and_then(dtype), shape }
}
