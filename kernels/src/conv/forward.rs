//! The forward pass.

use super::axis::Axis;
use super::correlate::{Correlate, Correlation, Part};
use super::fill::Input;
use super::geometry::Conv2d;
use crate::pool::Pool;
use crate::simd::{Level, dispatch_at};

/// Pixels of a row where an image batch is one long line of pixels.
const LINE_PIXELS: usize = 56;

impl Conv2d {
    /// Computes `y` `[N, OH, OW, M]` from `x` `[N, H, W, C]` and the weights `[M, C / groups, kH, kW]`.
    ///
    /// `work` is scratch, which grows as needed.
    ///
    /// # Panics
    /// When [`check`](Conv2d::check) fails or a slice has another length.
    pub fn forward<'a>(
        &self,
        pool: &dyn Pool,
        x: impl Into<Input<'a>>,
        w: &[f32],
        bias: Option<&[f32]>,
        y: &mut [f32],
        work: &mut Vec<f32>,
    ) {
        self.forward_at(Level::best(), pool, x.into(), w, bias, y, work);
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn forward_at(
        &self,
        level: Level,
        pool: &dyn Pool,
        x: Input<'_>,
        w: &[f32],
        bias: Option<&[f32]>,
        y: &mut [f32],
        work: &mut Vec<f32>,
    ) {
        self.require(x.values.len(), w.len(), y.len());
        self.require_channels(&x, bias);
        let plan = self.forward_plan();
        dispatch_at(level, Correlate { plan: &plan, pool, x, w, bias, y, work });
    }

    /// Panics where a slice of a value per channel has another length.
    pub(super) fn require_channels(&self, x: &Input<'_>, bias: Option<&[f32]>) {
        if let Some((scale, shift)) = x.affine {
            assert_eq!([scale.len(), shift.len()], [self.in_channels; 2], "elements of a scale and a shift");
        }
        if let Some(bias) = bias {
            assert_eq!(bias.len(), self.out_channels, "elements of a bias");
        }
    }

    fn forward_plan(&self) -> Correlation {
        let channels = [self.group_inputs(), self.group_outputs()];
        let area = self.kernel[0] * self.kernel[1];
        let weights = [channels[0] * channels[1] * area, channels[0] * area, area];
        if self.is_pointwise() {
            return self.pointwise([self.in_channels, self.out_channels], channels, weights);
        }
        let axis = |axis: usize| {
            Axis::forward(
                self.input[axis],
                self.output[axis],
                self.strides[axis],
                self.pads[axis],
                self.kernel[axis],
                self.dilations[axis],
            )
        };
        let part = Part {
            axes: [axis(0), axis(1)],
            x: 0,
            x_row: self.input[1] * self.in_channels,
            y: 0,
            y_row: self.output[1] * self.out_channels,
            y_pixel: self.out_channels,
            taps: (0..area).collect(),
        };
        Correlation {
            batch: self.batch,
            groups: self.groups,
            x_image: self.input[0] * self.input[1] * self.in_channels,
            x_pixel: self.in_channels,
            y_image: self.output[0] * self.output[1] * self.out_channels,
            channels,
            weights,
            parts: vec![part],
        }
    }

    /// Returns the correlation of a product of matrices: rows of [`LINE_PIXELS`] pixels, and a rest.
    pub(super) fn pointwise(&self, pixel: [usize; 2], channels: [usize; 2], weights: [usize; 3]) -> Correlation {
        let pixels = self.batch * self.input[0] * self.input[1];
        let (rows, rest) = (pixels / LINE_PIXELS, pixels % LINE_PIXELS);
        let part = |rows: usize, columns: usize, start: usize| Part {
            axes: [Axis::pointwise(rows), Axis::pointwise(columns)],
            x: start * pixel[0],
            x_row: columns * pixel[0],
            y: start * pixel[1],
            y_row: columns * pixel[1],
            y_pixel: pixel[1],
            taps: vec![0],
        };
        let mut parts = Vec::new();
        if rows > 0 {
            parts.push(part(rows, LINE_PIXELS, 0));
        }
        if rest > 0 {
            parts.push(part(1, rest, rows * LINE_PIXELS));
        }
        Correlation {
            batch: usize::from(pixels > 0),
            groups: self.groups,
            x_image: pixels * pixel[0],
            x_pixel: pixel[0],
            y_image: pixels * pixel[1],
            channels,
            weights,
            parts,
        }
    }
}
