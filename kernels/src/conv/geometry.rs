//! The sizes of a convolution.

use std::fmt;

/// A 2-D convolution of channels-last images. Spatial pairs are height, then width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// Images.
    pub batch: usize,
    /// Size of an input image.
    pub input: [usize; 2],
    /// Channels of an input pixel.
    pub in_channels: usize,
    /// Size of an output image.
    pub output: [usize; 2],
    /// Channels of an output pixel.
    pub out_channels: usize,
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Input pixels between neighbouring output pixels.
    pub strides: [usize; 2],
    /// Input pixels between neighbouring pixels of a window.
    pub dilations: [usize; 2],
    /// Zeros around the input: top, left, bottom, right.
    pub pads: [usize; 4],
    /// Groups of channels, each convolved for itself.
    pub groups: usize,
}

/// Why sizes are not those of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// A size is 0 that must not be.
    Zero(&'static str),
    /// The groups do not divide the channels.
    Groups {
        /// Groups.
        groups: usize,
        /// Channels of the input and of the output.
        channels: [usize; 2],
    },
    /// The output has another size than the window, strides and pads give.
    Output {
        /// 0 is the height, 1 the width.
        axis: usize,
        /// The size that they give; 0 where the window exceeds the padded input.
        expected: usize,
        /// The size.
        found: usize,
    },
    /// There are more elements than addresses.
    TooLarge,
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GeometryError::Zero(what) => write!(f, "{what} of a convolution is 0"),
            GeometryError::Groups { groups, channels: [input, output] } => {
                write!(f, "{groups} groups do not divide {input} input and {output} output channels")
            }
            GeometryError::Output { axis, expected, found } => {
                let axis = if *axis == 0 { "height" } else { "width" };
                write!(f, "the output of a convolution has {axis} {found}, expected {expected}")
            }
            GeometryError::TooLarge => write!(f, "a convolution has more elements than addresses"),
        }
    }
}

impl std::error::Error for GeometryError {}

impl Conv2d {
    /// Returns an error where the sizes are not those of a convolution.
    ///
    /// # Errors
    /// See [`GeometryError`].
    pub fn check(&self) -> Result<(), GeometryError> {
        let sizes = [
            (self.in_channels.min(self.out_channels), "the number of channels"),
            (self.input[0].min(self.input[1]), "the input size"),
            (self.output[0].min(self.output[1]), "the output size"),
            (self.kernel[0].min(self.kernel[1]), "the window size"),
            (self.strides[0].min(self.strides[1]), "a stride"),
            (self.dilations[0].min(self.dilations[1]), "a dilation"),
            (self.groups, "the number of groups"),
        ];
        if let Some((_, what)) = sizes.iter().find(|(size, _)| *size == 0) {
            return Err(GeometryError::Zero(what));
        }
        let channels = [self.in_channels, self.out_channels];
        if channels.iter().any(|channels| channels % self.groups != 0) {
            return Err(GeometryError::Groups { groups: self.groups, channels });
        }
        for axis in 0..2 {
            let window = (self.kernel[axis] - 1).checked_mul(self.dilations[axis]).ok_or(GeometryError::TooLarge)?;
            let padded = self.input[axis]
                .checked_add(self.pads[axis])
                .and_then(|size| size.checked_add(self.pads[axis + 2]))
                .filter(|size| isize::try_from(*size).is_ok())
                .ok_or(GeometryError::TooLarge)?;
            let expected = if padded > window { (padded - window - 1) / self.strides[axis] + 1 } else { 0 };
            if expected != self.output[axis] {
                return Err(GeometryError::Output { axis, expected, found: self.output[axis] });
            }
        }
        let elements = |parts: [usize; 4]| {
            let count = parts.iter().try_fold(4_usize, |product, part| product.checked_mul(*part));
            count.filter(|bytes| isize::try_from(*bytes).is_ok()).ok_or(GeometryError::TooLarge)
        };
        let padded = [0, 1].map(|axis| self.input[axis] + self.pads[axis] + self.pads[axis + 2]);
        elements([self.batch, padded[0], padded[1], self.in_channels])?;
        elements([self.batch, self.output[0], self.output[1], self.out_channels])?;
        elements([self.in_channels, self.out_channels, self.kernel[0], self.kernel[1]])?;
        Ok(())
    }

    /// Returns the number of elements of the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.input[0] * self.input[1] * self.in_channels
    }

    /// Returns the number of elements of the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.output[0] * self.output[1] * self.out_channels
    }

    /// Returns the number of elements of the weights `[M, C / groups, kH, kW]`.
    pub fn weight_len(&self) -> usize {
        self.out_channels * self.group_inputs() * self.kernel[0] * self.kernel[1]
    }

    /// Returns the input channels of a group.
    pub(super) fn group_inputs(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Returns the output channels of a group.
    pub(super) fn group_outputs(&self) -> usize {
        self.out_channels / self.groups
    }

    /// Whether every output pixel is computed from the input pixel at its place alone.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.strides == [1, 1] && self.pads == [0; 4]
    }

    /// Panics where the sizes are wrong or a slice has another length than they give.
    pub(super) fn require(&self, input: usize, weights: usize, output: usize) {
        if let Err(error) = self.check() {
            panic!("{error}");
        }
        assert_eq!(input, self.input_len(), "elements of a convolution's input");
        assert_eq!(weights, self.weight_len(), "elements of a convolution's weights");
        assert_eq!(output, self.output_len(), "elements of a convolution's output");
    }
}
