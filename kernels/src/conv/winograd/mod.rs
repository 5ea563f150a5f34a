//! Windows of 3 x 3 pixels by fast convolution: 36 products for 16 outputs instead of 144.
//!
//! A tile of 4 x 4 outputs reads 6 x 6 inputs. Both inputs and weights are mapped to the values of
//! polynomials at the points 0, ±3/4, ±5/4 and infinity along each axis ([`transform`]); there the
//! correlation is a product, so that each of 36 *positions* is a product of matrices (tiles x channels
//! times channels x outputs), and the outputs are mapped back. The gradient of the weights is the same
//! with the roles of outputs and weights exchanged.
//!
//! The points are exact and near 1 in absolute value, which keeps the error at about twice that of the
//! plain sum.

mod forward;
// Squares are indexed by column in one step and by row in the next.
#[allow(clippy::needless_range_loop)]
mod transform;
mod weight_grad;

pub(super) use forward::Fast;
pub(super) use weight_grad::FastWeightGrad;

use super::axis::Axis;
use super::correlate::LINE;
use super::fill::Pixels;
use crate::input::Input;
use crate::simd::Simd;
use transform::{POINTS, Source, inputs};

/// Positions of a tile.
const POSITIONS: usize = POINTS * POINTS;
/// Outputs of a tile along an axis.
const TILE: usize = 4;

/// Whether a correlation has the windows that this is for, and enough pixels and channels to pay.
pub(super) fn suits(axes: &[Axis; 2], batch: usize, channels: [usize; 2]) -> bool {
    let [h, w] = axes;
    let window = axes.iter().all(|axis| axis.taps == 3 && axis.stride == 1 && axis.step == 1);
    let pixels = batch * h.output * w.output;
    let tiles = batch * h.output.div_ceil(TILE) * w.output.div_ceil(TILE);
    // Products of tiles against those of pixels: 36 of each tile, 9 of each pixel.
    window && channels.iter().all(|channels| *channels >= 12) && pixels >= 128 && tiles * 36 * 5 <= pixels * 9 * 3
}

/// Returns a distance of at least `len` elements, by which many vectors do not compete for one place of
/// a cache.
fn spread(len: usize) -> usize {
    (len.div_ceil(LINE) | 1) * LINE
}

/// The tiles of an image batch.
#[derive(Clone, Copy, Debug)]
struct Tiles {
    axes: [Axis; 2],
    rows: usize,
    columns: usize,
}

impl Tiles {
    fn new(axes: [Axis; 2]) -> Tiles {
        let [rows, columns] = axes.map(|axis| axis.output.div_ceil(TILE));
        Tiles { axes, rows, columns }
    }

    /// Returns the number of tiles.
    fn count(&self, batch: usize) -> usize {
        batch * self.rows * self.columns
    }

    /// Returns image, first output row and first output column of a tile.
    fn place(&self, index: usize) -> [usize; 3] {
        let image = index / (self.rows * self.columns);
        [image, index / self.columns % self.rows * TILE, index % self.columns * TILE]
    }

    /// Returns how many rows and columns of a tile exist.
    fn exist(&self, row: usize, column: usize) -> [usize; 2] {
        [TILE.min(self.axes[0].output - row), TILE.min(self.axes[1].output - column)]
    }

    /// Maps the inputs of one tile: position `p` of channel `c` goes to `to[p * distance + c]`.
    ///
    /// # Safety
    /// The instruction set is there; the pixels lie inside the input, and `to` has room for all positions.
    #[inline(always)]
    unsafe fn inputs<S: Simd>(&self, input: &Input<'_>, at: &Pixels, index: usize, to: *mut f32, distance: usize) {
        let [image, row, column] = self.place(index);
        let [h, w] = &self.axes;
        let (top, left) = (row as isize + h.origin, column as isize + w.origin);
        let start = (at.start + image * at.image) as isize + top * at.row as isize + left * at.pixel as isize;
        let from = input.values.as_ptr().wrapping_offset(start);
        // The pixels that the second tile from here adds.
        let ahead = from.wrapping_add(2 * TILE * at.pixel);
        for row in 0..POINTS {
            for element in (2 * at.pixel..POINTS * at.pixel).step_by(LINE) {
                S::prefetch(ahead.wrapping_add(row * at.row + element));
            }
        }
        let exist = |first: isize, size: usize| {
            let [start, end] = [-first, size as isize - first].map(|at| at.clamp(0, POINTS as isize) as usize);
            start..end
        };
        let source = Source {
            from,
            steps: [at.row, at.pixel],
            exist: [exist(top, h.input), exist(left, w.input)],
            channels: at.channels,
            affine: input.affine.map(|(scale, shift)| (&scale[at.channel..], &shift[at.channel..])),
            activation: input.activation,
        };
        inputs::<S>(&source, to, distance);
    }
}
