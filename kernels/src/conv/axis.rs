//! One axis of a correlation.

/// Output `i` reads the inputs `i * stride + origin + t * step` for `t < taps`; those outside are 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Inputs.
    pub(super) input: usize,
    /// Outputs.
    pub(super) output: usize,
    pub(super) stride: usize,
    pub(super) origin: isize,
    pub(super) taps: usize,
    pub(super) step: usize,
}

impl Axis {
    /// Returns the axis of a convolution's forward pass.
    pub(super) fn forward(input: usize, output: usize, stride: usize, pad: usize, taps: usize, step: usize) -> Axis {
        Axis { input, output, stride, origin: -(pad as isize), taps, step }
    }

    /// Returns one on which every output reads the input at its place.
    pub(super) fn pointwise(size: usize) -> Axis {
        Axis { input: size, output: size, stride: 1, origin: 0, taps: 1, step: 1 }
    }

    /// Whether some output reads an input that does not exist.
    pub(super) fn leaves_input(&self) -> bool {
        let last = (self.output - 1) * self.stride + self.taps.saturating_sub(1) * self.step;
        self.taps > 0 && (self.origin < 0 || self.origin + last as isize >= self.input as isize)
    }

    /// Returns what a copy of the inputs of `outputs` outputs holds: how many inputs, and how many
    /// inputs it goes ahead from one to the next.
    pub(super) fn span(&self, outputs: usize) -> (usize, usize) {
        match self.taps {
            0 => (0, 1),
            1 => (outputs, self.stride),
            taps => ((outputs - 1) * self.stride + (taps - 1) * self.step + 1, 1),
        }
    }

    /// Returns how many elements of such a copy lie between neighbouring outputs.
    pub(super) fn span_stride(&self) -> usize {
        if self.taps == 1 { 1 } else { self.stride }
    }
}
