//! Activations as a matrix: datapoints x features.

use super::SignalError;
use super::error::finite;
use crate::graph::Tensor;
use nalgebra::DMatrix;

/// Which axes of an activation tensor are datapoints and which are features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The first axis is the datapoints, all others are features: `[N, C, H, W]` becomes N x C*H*W.
    /// It compares any two layers on the same batch.
    Samples,
    /// Axis 1 is the features, all others are datapoints: `[N, C, H, W]` becomes N*H*W x C. It
    /// compares convolutions with equal N, H and W (SVCCA's comparison within a layer).
    Channels,
    /// The last axis is the features, all others are datapoints: `[N, T, D]` becomes N*T x D.
    Last,
}

/// Finite activations, datapoints x features, with at least one of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Activations {
    matrix: DMatrix<f64>,
}

/// Activations minus the mean of each feature: `matrix * scale`, the largest magnitude in `matrix`
/// being one. Both are zero where nothing varies.
pub(super) struct Centred {
    pub matrix: DMatrix<f64>,
    pub scale: f64,
}

impl Activations {
    /// Returns the activations of a tensor in row-major order.
    ///
    /// # Errors
    /// A shape that does not fit the values, that has a zero or lacks the layout's axis; a NaN or
    /// an infinity.
    pub fn of_slice<T: Copy + Into<f64>>(
        values: &[T],
        shape: &[usize],
        layout: Layout,
    ) -> Result<Activations, SignalError> {
        let product = |axes: &[usize]| axes.iter().try_fold(1usize, |count, axis| count.checked_mul(*axis));
        if product(shape) != Some(values.len()) {
            let expected = product(shape).unwrap_or(usize::MAX);
            return Err(SignalError::Length { what: "activations", expected, found: values.len() });
        }
        let missing = |needed| SignalError::Shape { shape: shape.to_vec(), needed };
        if values.is_empty() {
            return Err(missing("elements"));
        }
        let values = finite("activations", values)?;
        let matrix = match (layout, shape) {
            (_, []) => return Err(missing("axis of datapoints")),
            (Layout::Channels, [_]) => return Err(missing("axis 1")),
            (Layout::Samples, [datapoints, rest @ ..]) => {
                DMatrix::from_row_slice(*datapoints, rest.iter().product(), &values)
            }
            (Layout::Last, [rest @ .., features]) => DMatrix::from_row_slice(rest.iter().product(), *features, &values),
            (Layout::Channels, [samples, channels, spatial @ ..]) => {
                let inner: usize = spatial.iter().product();
                let column = |channel: usize| {
                    let blocks = values.chunks_exact(inner).skip(channel).step_by(*channels);
                    blocks.flatten().copied()
                };
                DMatrix::from_iterator(samples * inner, *channels, (0..*channels).flat_map(column))
            }
        };
        Ok(Activations { matrix })
    }

    /// Returns the activations of a tensor of any numeric dtype.
    ///
    /// # Errors
    /// Those of [`Activations::of_slice`], and a dtype that holds no numbers.
    pub fn of_tensor(tensor: &Tensor, layout: Layout) -> Result<Activations, SignalError> {
        let values = tensor.to_f64s().ok_or(SignalError::NotNumeric { dtype: tensor.dtype() })?;
        Activations::of_slice(&values, tensor.shape(), layout)
    }

    /// Returns the number of datapoints.
    pub fn datapoints(&self) -> usize {
        self.matrix.nrows()
    }

    /// Returns the number of features.
    pub fn features(&self) -> usize {
        self.matrix.ncols()
    }

    /// Returns the matrix and the factor of it, as in [`Centred`], without a mean taken off.
    pub(super) fn scaled(&self) -> Centred {
        unit(self.matrix.clone())
    }

    /// Returns the activations minus the mean of each feature.
    ///
    /// A feature whose spread is at most eight units of rounding of its largest value is constant
    /// and becomes exactly zero.
    pub(super) fn centred(&self) -> Centred {
        let Centred { mut matrix, scale } = self.scaled();
        let count = self.datapoints() as f64;
        for mut column in matrix.column_iter_mut() {
            let rounding = 8.0 * f64::EPSILON * column.amax();
            for _ in 0..2 {
                let mean = column.sum() / count;
                column.add_scalar_mut(-mean);
            }
            if column.amax() <= rounding {
                column.fill(0.0);
            }
        }
        let inner = unit(matrix);
        Centred { matrix: inner.matrix, scale: scale * inner.scale }
    }

    /// Returns the activations minus the mean of each feature, over their largest magnitude.
    ///
    /// # Errors
    /// Nothing varies over the datapoints.
    pub(super) fn varying(&self, set: &'static str) -> Result<DMatrix<f64>, SignalError> {
        let centred = self.centred().matrix;
        if centred.amax() > 0.0 { Ok(centred) } else { Err(SignalError::NoVariance { set }) }
    }
}

fn unit(mut matrix: DMatrix<f64>) -> Centred {
    let scale = matrix.amax();
    if scale > 0.0 {
        matrix.apply(|value| *value /= scale);
    }
    Centred { matrix, scale }
}

/// Checks that two sets were observed on the same datapoints.
pub(super) fn paired(x: &Activations, y: &Activations) -> Result<usize, SignalError> {
    if x.datapoints() != y.datapoints() {
        return Err(SignalError::Datapoints { first: x.datapoints(), second: y.datapoints() });
    }
    Ok(x.datapoints())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_say_which_axes_are_features() {
        let values: Vec<f32> = (0..24).map(|value| value as f32).collect();
        let of = |shape: &[usize], layout| Activations::of_slice(&values, shape, layout).unwrap().matrix;
        let samples = of(&[2, 3, 2, 2], Layout::Samples);
        assert_eq!((samples.nrows(), samples.ncols(), samples[(1, 5)]), (2, 12, 17.0));
        let channels = of(&[2, 3, 2, 2], Layout::Channels);
        assert_eq!(channels.shape(), (8, 3));
        assert_eq!(channels.column(1).as_slice(), [4.0, 5.0, 6.0, 7.0, 16.0, 17.0, 18.0, 19.0]);
        let last = of(&[2, 3, 4], Layout::Last);
        assert_eq!((last.shape(), last[(4, 1)]), ((6, 4), 17.0));
        assert_eq!(of(&[6, 4], Layout::Channels), of(&[6, 4], Layout::Samples));
        assert_eq!(of(&[24], Layout::Samples).shape(), (24, 1));
        let tensor = Tensor::from_vec(&[2, 3, 4], values.clone());
        assert_eq!(Activations::of_tensor(&tensor, Layout::Last).unwrap().matrix, last);
    }

    #[test]
    fn what_is_no_matrix_is_refused() {
        let of = |values: &[f64], shape: &[usize], layout| Activations::of_slice(values, shape, layout).unwrap_err();
        let cases = [
            (of(&[1.0; 5], &[2, 3], Layout::Samples), "activations: expected 6 values, found 5"),
            (of(&[], &[0, 3], Layout::Samples), "shape [0, 3] has no elements"),
            (of(&[], &[usize::MAX, 0], Layout::Last), "shape [18446744073709551615, 0] has no elements"),
            (of(&[1.0], &[], Layout::Last), "shape [] has no axis of datapoints"),
            (of(&[1.0; 3], &[3], Layout::Channels), "shape [3] has no axis 1"),
            (of(&[1.0, f64::NAN], &[2, 1], Layout::Samples), "activations: value 1 is NaN"),
            (of(&[f64::NEG_INFINITY, 0.0], &[2, 1], Layout::Samples), "activations: value 0 is -inf"),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn rounding_is_no_variance() {
        let values: Vec<f64> = (0..30).flat_map(|row| [0.1, 1e6 / 3.0, f64::from(row) * 1e-9]).collect();
        let matrix = Activations::of_slice(&values, &[30, 3], Layout::Samples).unwrap().centred().matrix;
        assert_eq!((matrix.column(0).amax(), matrix.column(1).amax(), matrix.amax()), (0.0, 0.0, 1.0));
        let ulp = Activations::of_slice(&[1.0, 1.0 + f64::EPSILON, 1.0, 1.0], &[4, 1], Layout::Samples).unwrap();
        assert_eq!(ulp.varying("first"), Err(SignalError::NoVariance { set: "first" }));
    }
}
