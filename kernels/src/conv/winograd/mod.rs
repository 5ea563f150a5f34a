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
mod transform;
mod weight_grad;

pub(super) use forward::Fast;
pub(super) use weight_grad::FastWeightGrad;

use super::axis::Axis;
use super::correlate::LINE;
use super::fill::{Input, Pixels, fill};
use crate::simd::Simd;
use transform::{POINTS, inputs};

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
    /// The instruction set is there; the pixels lie inside the input, `patch` has room for the inputs of
    /// a tile, and `to` for all positions.
    #[inline(always)]
    unsafe fn inputs<S: Simd>(
        &self,
        input: &Input<'_>,
        at: &Pixels,
        index: usize,
        patch: &mut [f32],
        to: *mut f32,
        distance: usize,
    ) {
        let [image, row, column] = self.place(index);
        let [h, w] = &self.axes;
        let (top, left) = (row as isize + h.origin, column as isize + w.origin);
        let inside = |from: isize, size: usize| from >= 0 && from as usize + POINTS <= size;
        if input.is_plain() && inside(top, h.input) && inside(left, w.input) {
            let start = at.start + image * at.image + top as usize * at.row + left as usize * at.pixel;
            // The pixels that the second tile from here adds.
            let ahead = input.values.as_ptr().wrapping_add(start + 2 * TILE * at.pixel);
            for row in 0..POINTS {
                for element in (2 * at.pixel..POINTS * at.pixel).step_by(LINE) {
                    S::prefetch(ahead.wrapping_add(row * at.row + element));
                }
            }
            inputs::<S>(input.values.as_ptr().add(start), [at.row, at.pixel], at.channels, to, distance);
        } else {
            let w = Axis { output: TILE, origin: left, ..*w };
            fill::<S>(patch, input, at, image, [h, &w], row..row + TILE);
            inputs::<S>(patch.as_ptr(), [POINTS * at.channels, at.channels], at.channels, to, distance);
        }
    }
}
