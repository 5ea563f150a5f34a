//! Facts of the layers that only loaded models contain: convolutions, pools, and what stands
//! between them.

use super::{Attribute, Attributes, DType, Dim, Fact};

/// Returns the fact of the first output; `None` where this file does not know the operator.
pub(super) fn first(
    op: &str,
    fact: &dyn Fn(usize) -> Fact,
    ints: &dyn Fn(usize) -> Option<Vec<i64>>,
    attributes: &Attributes,
) -> Option<Fact> {
    let input = fact(0);
    let shape = match op {
        "Conv" => conv(&input, &fact(1), attributes),
        "ConvTranspose" => conv_transpose(&input, &fact(1), attributes),
        "MaxPool" | "AveragePool" | "LpPool" => pool(&input, attributes),
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => global(&input),
        "Flatten" => flatten(&input, attributes),
        "Slice" => slice(&input, [ints(1), ints(2), ints(3), ints(4)], fact(3), fact(4)),
        "Pad" => pad(&input, ints(1), ints(3)),
        "Einsum" => einsum(&[input.clone(), fact(1)], attributes),
        "CastLike" => return Some(Fact { dtype: fact(1).dtype, shape: input.shape }),
        "Size" => return Some(Fact::fixed(DType::I64, &[])),
        "Constant" => return constant(attributes),
        "InstanceNormalization"
        | "GroupNormalization"
        | "RMSNormalization"
        | "LpNormalization"
        | "LRN"
        | "Gelu"
        | "Mish"
        | "Selu"
        | "Celu"
        | "ThresholdedRelu"
        | "Softsign"
        | "Hardmax"
        | "Swish"
        | "Atan"
        | "Tan"
        | "Sinh"
        | "Cosh"
        | "Asin"
        | "Acos"
        | "MeanVarianceNormalization" => input.shape.clone(),
        _ => return None,
    };
    Some(Fact { dtype: input.dtype, shape })
}

/// Fills in outputs that are not like the first: those of `Split`, the mask of `Dropout`, the next
/// statistics of `BatchNormalization`, and what `Squeeze` leaves without axes.
pub(super) fn further(
    op: &str,
    fact: &dyn Fn(usize) -> Fact,
    ints: &dyn Fn(usize) -> Option<Vec<i64>>,
    attributes: &Attributes,
    outputs: &mut [Fact],
) {
    match op {
        "Split" => {
            let sizes = ints(1).or_else(|| attributes.ints("split").ok().flatten());
            let axis = attributes.int("axis", 0).unwrap_or_default();
            if let Some(parts) = split(&fact(0), axis, sizes, fact(1) == Fact::default(), outputs.len()) {
                outputs.iter_mut().zip(parts).for_each(|(output, part)| *output = part);
            }
        }
        "Dropout" if outputs.len() > 1 => outputs[1] = Fact { dtype: Some(DType::Bool), shape: fact(0).shape },
        "BatchNormalization" => outputs.iter_mut().skip(1).for_each(|output| *output = fact(3)),
        "Squeeze" if outputs.len() == 1 && outputs[0].shape.is_none() && fact(1) == Fact::default() => {
            outputs[0].shape = squeeze(&fact(0), attributes);
        }
        _ => {}
    }
}

fn split(input: &Fact, axis: i64, sizes: Option<Vec<i64>>, equal: bool, count: usize) -> Option<Vec<Fact>> {
    let shape = input.shape.as_ref()?;
    let axis = usize::try_from(if axis < 0 { axis + i64::try_from(shape.len()).ok()? } else { axis }).ok()?;
    let whole = shape.get(axis)?.known();
    let size = |index: usize| match (&sizes, whole) {
        (Some(sizes), _) => sizes.get(index).and_then(|size| usize::try_from(*size).ok()),
        (None, Some(whole)) if equal => {
            let part = whole.div_ceil(count);
            Some(part.min(whole.saturating_sub(index * part)))
        }
        _ => None,
    };
    let part = |index: usize| {
        let mut shape = shape.clone();
        shape[axis] = size(index).map_or(Dim::Unknown, Dim::Known);
        Fact { dtype: input.dtype, shape: Some(shape) }
    };
    Some((0..count).map(part).collect())
}

fn squeeze(input: &Fact, attributes: &Attributes) -> Option<Vec<Dim>> {
    let shape = input.shape.as_ref()?;
    let Some(axes) = attributes.ints("axes").ok()? else {
        input.sizes()?;
        return Some(shape.iter().filter(|dim| **dim != Dim::Known(1)).cloned().collect());
    };
    let rank = i64::try_from(shape.len()).ok()?;
    let gone =
        |axis: usize| axes.iter().any(|gone| usize::try_from(if *gone < 0 { gone + rank } else { *gone }) == Ok(axis));
    Some(shape.iter().enumerate().filter(|(axis, _)| !gone(*axis)).map(|(_, dim)| dim.clone()).collect())
}

/// The sizes of a sliding window along every spatial axis.
struct Window {
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<usize>,
    auto: String,
}

impl Window {
    fn new(kernel: Vec<usize>, attributes: &Attributes) -> Option<Window> {
        let rank = kernel.len();
        let list = |name: &str, count: usize, default: usize| -> Option<Vec<usize>> {
            let Some(values) = attributes.ints(name).ok()? else { return Some(vec![default; count]) };
            let values: Option<Vec<usize>> = values.iter().map(|value| usize::try_from(*value).ok()).collect();
            values.filter(|values| values.len() == count)
        };
        let (strides, dilations) = (list("strides", rank, 1)?, list("dilations", rank, 1)?);
        let auto = attributes.text("auto_pad", "NOTSET").ok()?;
        let window = Window { pads: list("pads", 2 * rank, 0)?, kernel, strides, dilations, auto };
        window.strides.iter().all(|stride| *stride > 0).then_some(window)
    }

    fn span(&self, axis: usize) -> usize {
        self.kernel[axis].saturating_sub(1) * self.dilations[axis] + 1
    }

    /// Returns the number of windows along an axis.
    fn count(&self, axis: usize, size: usize, ceil: bool) -> Option<usize> {
        let (stride, begin) = (self.strides[axis], self.pads[axis]);
        let end = self.pads[self.kernel.len() + axis];
        let padded = match self.auto.as_str() {
            "SAME_UPPER" | "SAME_LOWER" => return Some(size.div_ceil(stride)),
            "VALID" => size,
            _ => size + begin + end,
        };
        let room = padded.checked_sub(self.span(axis))?;
        let count = if ceil { room.div_ceil(stride) + 1 } else { room / stride + 1 };
        // A window that would start in the end padding does not exist.
        Some(if ceil && (count - 1) * stride >= size + begin { count - 1 } else { count })
    }

    fn counts(&self, sizes: &[Dim], ceil: bool) -> Vec<Dim> {
        let count = |(axis, size): (usize, &Dim)| {
            size.known().and_then(|size| self.count(axis, size, ceil)).map_or(Dim::Unknown, Dim::Known)
        };
        sizes.iter().enumerate().map(count).collect()
    }
}

fn conv(input: &Fact, weight: &Fact, attributes: &Attributes) -> Option<Vec<Dim>> {
    let (input, weight) = (input.shape.as_ref()?, weight.sizes()?);
    let (sizes, kernel) = (input.get(2..)?, weight.get(2..)?);
    if sizes.len() != kernel.len() {
        return None;
    }
    let window = Window::new(kernel.to_vec(), attributes)?;
    Some([&[input[0].clone(), Dim::Known(weight[0])], window.counts(sizes, false).as_slice()].concat())
}

fn conv_transpose(input: &Fact, weight: &Fact, attributes: &Attributes) -> Option<Vec<Dim>> {
    let (input, weight) = (input.shape.as_ref()?, weight.sizes()?);
    let (sizes, kernel) = (input.get(2..)?, weight.get(2..)?);
    if sizes.len() != kernel.len() {
        return None;
    }
    let window = Window::new(kernel.to_vec(), attributes)?;
    let groups = usize::try_from(attributes.int("group", 1).ok()?).ok()?;
    let extra = attributes.ints("output_padding").ok()?.unwrap_or_else(|| vec![0; sizes.len()]);
    let asked = attributes.ints("output_shape").ok()?;
    let size = |axis: usize| -> Option<usize> {
        if let Some(asked) = &asked {
            return usize::try_from(*asked.get(axis)?).ok();
        }
        let size = sizes[axis].known()?;
        let reach = window.strides[axis] * size.checked_sub(1)? + window.span(axis);
        match window.auto.as_str() {
            "SAME_UPPER" | "SAME_LOWER" => Some(size * window.strides[axis]),
            _ => {
                let extra = usize::try_from(*extra.get(axis)?).ok()?;
                (reach + extra).checked_sub(window.pads[axis] + window.pads[sizes.len() + axis])
            }
        }
    };
    let rest = (0..sizes.len()).map(|axis| size(axis).map_or(Dim::Unknown, Dim::Known));
    Some([input[0].clone(), Dim::Known(weight[1].checked_mul(groups)?)].into_iter().chain(rest).collect())
}

fn pool(input: &Fact, attributes: &Attributes) -> Option<Vec<Dim>> {
    let shape = input.shape.as_ref()?;
    let kernel = attributes.ints("kernel_shape").ok()??;
    let kernel: Vec<usize> = kernel.iter().map(|size| usize::try_from(*size).ok()).collect::<Option<_>>()?;
    if shape.len() != kernel.len() + 2 {
        return None;
    }
    let ceil = attributes.int("ceil_mode", 0).ok()? == 1;
    Some([&shape[..2], &Window::new(kernel, attributes)?.counts(&shape[2..], ceil)].concat())
}

fn global(input: &Fact) -> Option<Vec<Dim>> {
    let shape = input.shape.as_ref()?;
    Some(shape.iter().enumerate().map(|(axis, dim)| if axis < 2 { dim.clone() } else { Dim::Known(1) }).collect())
}

fn product(dims: &[Dim]) -> Dim {
    let known = dims.iter().filter_map(Dim::known).try_fold(1usize, usize::checked_mul);
    let mut open = dims.iter().filter(|dim| dim.known().is_none());
    match (known, open.next(), open.next()) {
        (Some(known), None, _) => Dim::Known(known),
        (Some(1), Some(dim), None) => dim.clone(),
        _ => Dim::Unknown,
    }
}

fn flatten(input: &Fact, attributes: &Attributes) -> Option<Vec<Dim>> {
    let shape = input.shape.as_ref()?;
    let axis = attributes.int("axis", 1).ok()?;
    let axis = usize::try_from(if axis < 0 { axis + i64::try_from(shape.len()).ok()? } else { axis }).ok()?;
    Some(vec![product(shape.get(..axis)?), product(shape.get(axis..)?)])
}

fn slice(input: &Fact, lists: [Option<Vec<i64>>; 4], axes: Fact, steps: Fact) -> Option<Vec<Dim>> {
    let mut shape = input.shape.clone()?;
    let [starts, ends, given_axes, given_steps] = lists;
    let (starts, ends) = (starts?, ends?);
    let axes = match given_axes {
        Some(axes) => axes,
        None if axes == Fact::default() => (0..i64::try_from(starts.len()).ok()?).collect(),
        None => return None,
    };
    let steps = match given_steps {
        Some(steps) => steps,
        None if steps == Fact::default() => vec![1; starts.len()],
        None => return None,
    };
    for (index, axis) in axes.iter().enumerate() {
        let rank = i64::try_from(shape.len()).ok()?;
        let slot = shape.get_mut(usize::try_from(if *axis < 0 { axis + rank } else { *axis }).ok()?)?;
        let (start, end, step) = (*starts.get(index)?, *ends.get(index)?, *steps.get(index)?);
        *slot = match slot.known().and_then(|size| i64::try_from(size).ok()) {
            Some(size) => slice_size(size, start, end, step).map_or(Dim::Unknown, Dim::Known),
            None if start == 0 && step == 1 && end >= i64::from(i32::MAX) => continue,
            None => Dim::Unknown,
        };
    }
    Some(shape)
}

fn slice_size(size: i64, start: i64, end: i64, step: i64) -> Option<usize> {
    let at = |index: i64| if index < 0 { index.saturating_add(size) } else { index };
    let count = match step {
        1.. => (at(end).clamp(0, size) - at(start).clamp(0, size) + step - 1).div_euclid(step),
        0 => return None,
        _ => (at(start).clamp(-1, size - 1) - at(end).clamp(-1, size - 1) - step - 1).div_euclid(-step),
    };
    usize::try_from(count.max(0)).ok()
}

fn pad(input: &Fact, pads: Option<Vec<i64>>, axes: Option<Vec<i64>>) -> Option<Vec<Dim>> {
    let shape = input.shape.as_ref()?;
    let pads = pads?;
    if axes.is_some() || pads.len() != 2 * shape.len() {
        return None;
    }
    let dim = |(axis, dim): (usize, &Dim)| match (dim.known(), pads[axis] + pads[shape.len() + axis]) {
        (_, 0) => dim.clone(),
        (Some(size), more) => {
            let size = i64::try_from(size).ok().and_then(|size| usize::try_from(size + more).ok());
            size.map_or(Dim::Unknown, Dim::Known)
        }
        (None, _) => Dim::Unknown,
    };
    Some(shape.iter().enumerate().map(dim).collect())
}

fn einsum(inputs: &[Fact], attributes: &Attributes) -> Option<Vec<Dim>> {
    let equation = attributes.text("equation", "").ok()?.replace(' ', "");
    let (terms, output) = equation.split_once("->")?;
    let terms: Vec<&str> = terms.split(',').collect();
    if equation.contains('.') || terms.len() > inputs.len() {
        return None;
    }
    let find = |letter: char| {
        let dims = terms.iter().zip(inputs).filter_map(|(term, fact)| {
            let place = term.chars().position(|other| other == letter)?;
            fact.shape.as_ref()?.get(place).cloned()
        });
        dims.max_by_key(|dim| dim.known().is_some()).unwrap_or(Dim::Unknown)
    };
    Some(output.chars().map(find).collect())
}

fn constant(attributes: &Attributes) -> Option<Fact> {
    Some(match attributes.iter().next()?.1 {
        Attribute::Tensor(tensor) => Fact::fixed(tensor.dtype(), tensor.shape()),
        Attribute::Float(_) => Fact::fixed(DType::F32, &[]),
        Attribute::Int(_) => Fact::fixed(DType::I64, &[]),
        Attribute::Floats(values) => Fact::fixed(DType::F32, &[values.len()]),
        Attribute::Ints(values) => Fact::fixed(DType::I64, &[values.len()]),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(dims: &[i64]) -> Fact {
        let dim = |size: &i64| usize::try_from(*size).map_or(Dim::Symbol("N".into()), Dim::Known);
        Fact { dtype: Some(DType::F32), shape: Some(dims.iter().map(dim).collect()) }
    }

    fn text(shape: Option<Vec<Dim>>) -> String {
        shape.map_or("none".into(), |dims| dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn shapes() {
        let with = |pairs: &[(&str, &[i64])]| {
            pairs.iter().fold(Attributes::none(), |attributes, (name, values)| attributes.with(name, *values))
        };
        let image = fact(&[-1, 3, 32, 31]);
        let strided = with(&[("strides", &[2, 2]), ("pads", &[1, 1, 1, 1])]);
        let pooled = with(&[("kernel_shape", &[2, 2]), ("strides", &[2, 2])]);
        let cases = [
            ("conv", text(conv(&image, &fact(&[8, 3, 3, 3]), &strided)), "N 8 16 16"),
            (
                "conv same",
                text(conv(&image, &fact(&[8, 3, 3, 3]), &strided.clone().with("auto_pad", "SAME_UPPER"))),
                "N 8 16 16",
            ),
            ("conv too large", text(conv(&image, &fact(&[8, 3, 40, 3]), &Attributes::none())), "N 8 ? 29"),
            ("transposed", text(conv_transpose(&image, &fact(&[3, 5, 4, 4]), &strided)), "N 5 64 62"),
            ("pool", text(pool(&image, &pooled)), "N 3 16 15"),
            ("pool ceil", text(pool(&image, &pooled.with("ceil_mode", 1))), "N 3 16 16"),
            ("flatten", text(flatten(&image, &Attributes::none())), "N 2976"),
            (
                "slice",
                text(slice(&image, [Some(vec![1]), Some(vec![-1]), Some(vec![2]), None], fact(&[1]), Fact::default())),
                "N 3 30 31",
            ),
            (
                "slice back",
                text(slice(
                    &image,
                    [Some(vec![-1]), Some(vec![i64::MIN]), Some(vec![3]), Some(vec![-1])],
                    fact(&[1]),
                    fact(&[1]),
                )),
                "N 3 32 31",
            ),
            ("pad", text(pad(&image, Some(vec![0, 0, 1, 0, 0, 0, 1, 2]), None)), "N 3 34 33"),
            (
                "einsum",
                text(einsum(&[fact(&[-1, 4, 5]), fact(&[5, 6])], &Attributes::none().with("equation", "bij, jk->bik"))),
                "N 4 6",
            ),
        ];
        let failures: Vec<_> = cases.iter().filter(|(_, found, expected)| found != expected).collect();
        assert!(failures.is_empty(), "{failures:?}");
    }
}
