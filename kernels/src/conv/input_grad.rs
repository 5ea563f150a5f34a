//! The gradient of the input.
//!
//! `dx[i] = sum over u of dy[(i + pad - u * dilation) / stride] * w[u]`, over the `u` that divide evenly.
//! Inputs at the same place modulo the stride have the same `u`: one correlation each, of `dy`, with a
//! stride of 1.

use super::axis::Axis;
use super::correlate::{Correlate, Correlation, Part};
use super::geometry::Conv2d;
use crate::pool::Pool;
use crate::simd::{Level, dispatch_at};

/// The inputs `start + i * stride` of one axis, and which taps of the window read them.
struct Phase {
    start: usize,
    axis: Axis,
    taps: Vec<usize>,
}

impl Conv2d {
    /// Computes `dx` `[N, H, W, C]` from `dy` `[N, OH, OW, M]` and the weights `[M, C / groups, kH, kW]`.
    ///
    /// # Panics
    /// When [`check`](Conv2d::check) fails or a slice has another length.
    pub fn input_grad(&self, pool: &dyn Pool, dy: &[f32], w: &[f32], dx: &mut [f32], work: &mut Vec<f32>) {
        self.input_grad_at(Level::best(), pool, dy, w, dx, work);
    }

    pub(super) fn input_grad_at(
        &self,
        level: Level,
        pool: &dyn Pool,
        dy: &[f32],
        w: &[f32],
        dx: &mut [f32],
        work: &mut Vec<f32>,
    ) {
        self.require(dx.len(), w.len(), dy.len());
        let plan = self.input_grad_plan();
        dispatch_at(level, Correlate { plan: &plan, pool, x: dy.into(), w, bias: None, y: dx, work });
    }

    fn input_grad_plan(&self) -> Correlation {
        let channels = [self.group_outputs(), self.group_inputs()];
        let area = self.kernel[0] * self.kernel[1];
        let weights = [channels[0] * channels[1] * area, area, channels[1] * area];
        if self.is_pointwise() {
            return self.pointwise([self.out_channels, self.in_channels], channels, weights);
        }
        let mut parts = Vec::new();
        for h in self.phases(0) {
            for w in self.phases(1) {
                let taps: Vec<_> =
                    h.taps.iter().flat_map(|u| w.taps.iter().map(move |v| u * self.kernel[1] + v)).collect();
                // A window without taps on one axis has none at all.
                let mut axes = [h.axis, w.axis];
                if taps.is_empty() {
                    axes[0].taps = 0;
                    axes[1].taps = 0;
                }
                let y_row = self.input[1] * self.in_channels;
                parts.push(Part {
                    axes,
                    x: 0,
                    x_row: self.output[1] * self.out_channels,
                    y: h.start * y_row + w.start * self.in_channels,
                    y_row: self.strides[0] * y_row,
                    y_pixel: self.strides[1] * self.in_channels,
                    taps,
                });
            }
        }
        Correlation {
            batch: self.batch,
            groups: self.groups,
            x_image: self.output[0] * self.output[1] * self.out_channels,
            x_pixel: self.out_channels,
            y_image: self.input[0] * self.input[1] * self.in_channels,
            channels,
            weights,
            parts,
        }
    }

    /// Returns the phases of an axis that have inputs.
    fn phases(&self, axis: usize) -> Vec<Phase> {
        let (stride, dilation, pad) = (self.strides[axis], self.dilations[axis], self.pads[axis]);
        let input = self.input[axis];
        let mut phases = Vec::new();
        for start in 0..stride.min(input) {
            let mut taps: Vec<_> =
                (0..self.kernel[axis]).filter(|tap| (start + pad) % stride == tap * dilation % stride).collect();
            // Higher taps read lower outputs.
            taps.reverse();
            let read = |tap: usize| ((start + pad) as isize - (tap * dilation) as isize) / stride as isize;
            let phase = Axis {
                input: self.output[axis],
                output: (input - start).div_ceil(stride),
                stride: 1,
                origin: taps.first().map_or(0, |tap| read(*tap)),
                taps: taps.len(),
                step: if taps.len() > 1 { (read(taps[1]) - read(taps[0])) as usize } else { 1 },
            };
            phases.push(Phase { start, axis: phase, taps });
        }
        phases
    }
}
