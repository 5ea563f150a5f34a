//! The maps between images or weights and the values of polynomials.
//!
//! With the points `p` 0, ±a, ±b and infinity, and `N(p)` the product of the differences of `p` to the
//! other finite points:
//!
//! - inputs `d` (6): the coefficients of `prod (x - q)` over the other points `q`, times `d`
//! - weights `g` (3): `sum g[i] p^i / N(p)`; gradients of outputs (4): the same without `N`
//! - outputs (4): `y[i] = sum m(p) p^i`; gradients of weights (3): the same of `m(p) / N(p)`

use crate::activation::{Activate, Activation, Identity, with_activation};
use crate::simd::{Simd, Task};
use std::ops::Range;

/// Points along an axis.
pub(super) const POINTS: usize = 6;

const A: f32 = 0.75;
const B: f32 = 1.25;
const A2: f32 = A * A;
const B2: f32 = B * B;
/// One over the product of differences, of 0, of ±a, of ±b.
const N0: f32 = 1.0 / (A2 * B2);
const NA: f32 = 1.0 / (2.0 * A2 * (A2 - B2));
const NB: f32 = 1.0 / (2.0 * B2 * (B2 - A2));

/// `a * c + b` for a constant `c`.
#[inline(always)]
unsafe fn ahead<S: Simd>(a: S::V, c: f32, b: S::V) -> S::V {
    S::fma(a, S::splat(c), b)
}

#[inline(always)]
unsafe fn input<S: Simd>(d: [S::V; 6]) -> [S::V; 6] {
    let first = ahead::<S>(d[0], A2 * B2, ahead::<S>(d[2], -A2 - B2, d[4]));
    let last = ahead::<S>(d[1], A2 * B2, ahead::<S>(d[3], -A2 - B2, d[5]));
    let (even, odd) = (ahead::<S>(d[2], -B2, d[4]), ahead::<S>(d[1], -B2, d[3]));
    let a = [ahead::<S>(odd, A, even), ahead::<S>(odd, -A, even)];
    let (even, odd) = (ahead::<S>(d[2], -A2, d[4]), ahead::<S>(d[1], -A2, d[3]));
    let b = [ahead::<S>(odd, B, even), ahead::<S>(odd, -B, even)];
    [first, a[0], a[1], b[0], b[1], last]
}

#[inline(always)]
unsafe fn output<S: Simd>(m: [S::V; 6]) -> [S::V; 4] {
    let (even_a, odd_a) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
    let (even_b, odd_b) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
    [
        S::add(m[0], S::add(even_a, even_b)),
        ahead::<S>(odd_a, A, S::mul(odd_b, S::splat(B))),
        ahead::<S>(even_a, A2, S::mul(even_b, S::splat(B2))),
        ahead::<S>(odd_a, A * A2, ahead::<S>(odd_b, B * B2, m[5])),
    ]
}

#[inline(always)]
unsafe fn weight<S: Simd>(g: [S::V; 3]) -> [S::V; 6] {
    let times = |value: S::V, by: f32| S::mul(value, S::splat(by));
    let (even, odd) = (times(ahead::<S>(g[2], A2, g[0]), NA), times(g[1], A * NA));
    let a = [S::add(even, odd), S::sub(even, odd)];
    let (even, odd) = (times(ahead::<S>(g[2], B2, g[0]), NB), times(g[1], B * NB));
    let b = [S::add(even, odd), S::sub(even, odd)];
    [times(g[0], N0), a[0], a[1], b[0], b[1], g[2]]
}

#[inline(always)]
unsafe fn gradient<S: Simd>(g: [S::V; 4]) -> [S::V; 6] {
    let (even, odd) = (ahead::<S>(g[2], A2, g[0]), ahead::<S>(g[3], A2, g[1]));
    let a = [ahead::<S>(odd, A, even), ahead::<S>(odd, -A, even)];
    let (even, odd) = (ahead::<S>(g[2], B2, g[0]), ahead::<S>(g[3], B2, g[1]));
    let b = [ahead::<S>(odd, B, even), ahead::<S>(odd, -B, even)];
    [g[0], a[0], a[1], b[0], b[1], g[3]]
}

#[inline(always)]
unsafe fn weight_gradient<S: Simd>(m: [S::V; 6]) -> [S::V; 3] {
    let times = |value: S::V, by: f32| S::mul(value, S::splat(by));
    let (even_a, odd_a) = (times(S::add(m[1], m[2]), NA), times(S::sub(m[1], m[2]), A * NA));
    let (even_b, odd_b) = (times(S::add(m[3], m[4]), NB), times(S::sub(m[3], m[4]), B * NB));
    [
        ahead::<S>(m[0], N0, S::add(even_a, even_b)),
        S::add(odd_a, odd_b),
        ahead::<S>(even_a, A2, ahead::<S>(even_b, B2, m[5])),
    ]
}

/// Reads a vector, or its first `count` elements where it is not `WHOLE`.
#[inline(always)]
unsafe fn read<S: Simd, const WHOLE: bool>(from: *const f32, count: usize) -> S::V {
    if WHOLE { S::load(from) } else { S::load_first(from, count) }
}

#[inline(always)]
unsafe fn write<S: Simd, const WHOLE: bool>(to: *mut f32, count: usize, value: S::V) {
    if WHOLE {
        S::store(to, value);
    } else {
        S::store_first(to, count, value);
    }
}

/// The 6 x 6 pixels that a tile reads, and what is applied to them.
pub(super) struct Source<'a> {
    /// The first pixel, which need not exist.
    pub(super) from: *const f32,
    /// Distances of rows and pixels.
    pub(super) steps: [usize; 2],
    /// Rows and columns that exist; the others are 0.
    pub(super) exist: [Range<usize>; 2],
    pub(super) channels: usize,
    /// Scale and shift of each channel.
    pub(super) affine: Option<(&'a [f32], &'a [f32])>,
    pub(super) activation: Activation,
}

/// Maps the pixels of a tile, all channels: position `p` of channel `c` goes to `to[p * distance + c]`.
#[inline(always)]
pub(super) unsafe fn inputs<S: Simd>(source: &Source<'_>, to: *mut f32, distance: usize) {
    if source.affine.is_none() && source.activation == Activation::None {
        return S::outline(Inputs::<_, false> { source, activation: Identity, to, distance });
    }
    with_activation!(source.activation, activation => {
        S::outline(Inputs::<_, true> { source, activation, to, distance });
    });
}

struct Inputs<'a, A, const APPLIED: bool> {
    source: &'a Source<'a>,
    activation: A,
    to: *mut f32,
    distance: usize,
}

impl<A: Activate, const APPLIED: bool> Task for Inputs<'_, A, APPLIED> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let channels = self.source.channels;
        let inside = self.source.exist.iter().all(|range| *range == (0..POINTS));
        for start in (0..channels).step_by(S::LANES) {
            let count = (channels - start).min(S::LANES);
            // SAFETY: the caller of `inputs` vouches for the pixels that exist and for `to`.
            unsafe {
                if inside && count == S::LANES {
                    self.vector::<S, true>(start, count);
                } else {
                    self.vector::<S, false>(start, count);
                }
            }
        }
    }
}

impl<A: Activate, const APPLIED: bool> Inputs<'_, A, APPLIED> {
    #[inline(always)]
    unsafe fn vector<S: Simd, const WHOLE: bool>(&self, start: usize, count: usize) {
        let Source { from, steps, exist: [rows, columns], affine, .. } = self.source;
        let (scale, shift) = match affine {
            Some((scale, shift)) if APPLIED => (
                S::load_first(scale[start..start + count].as_ptr(), count),
                S::load_first(shift[start..start + count].as_ptr(), count),
            ),
            _ => (S::splat(1.0), S::splat(0.0)),
        };
        let mut half = [[S::splat(0.0); 6]; 6];
        for column in 0..6 {
            if !WHOLE && !columns.contains(&column) {
                continue;
            }
            let from = from.wrapping_add(start + column * steps[1]);
            let mut d = [S::splat(0.0); 6];
            for (row, d) in d.iter_mut().enumerate() {
                if WHOLE || rows.contains(&row) {
                    let value = read::<S, WHOLE>(from.wrapping_add(row * steps[0]), count);
                    *d = if APPLIED { self.activation.of::<S>(S::fma(value, scale, shift)) } else { value };
                }
            }
            for (row, value) in input::<S>(d).into_iter().enumerate() {
                half[row][column] = value;
            }
        }
        let to = self.to.add(start);
        for (row, half) in half.into_iter().enumerate() {
            for (column, value) in input::<S>(half).into_iter().enumerate() {
                write::<S, WHOLE>(to.add((row * POINTS + column) * self.distance), count, value);
            }
        }
    }
}

/// Maps the gradients of `exist` rows and columns of a tile, one vector with `count` outputs.
#[inline(always)]
pub(super) unsafe fn gradients<S: Simd>(
    from: *const f32,
    steps: [usize; 2],
    exist: [usize; 2],
    count: usize,
    to: *mut f32,
    distance: usize,
) {
    if exist == [4, 4] && count >= S::LANES {
        gradients_vector::<S, true>(from, steps, exist, count, to, distance);
    } else {
        gradients_vector::<S, false>(from, steps, exist, count, to, distance);
    }
}

#[inline(always)]
unsafe fn gradients_vector<S: Simd, const WHOLE: bool>(
    from: *const f32,
    steps: [usize; 2],
    exist: [usize; 2],
    count: usize,
    to: *mut f32,
    distance: usize,
) {
    let mut half = [[S::splat(0.0); 4]; 6];
    for column in 0..4 {
        let mut d = [S::splat(0.0); 4];
        for (row, d) in d.iter_mut().enumerate() {
            if WHOLE || row < exist[0] && column < exist[1] {
                *d = read::<S, WHOLE>(from.add(row * steps[0] + column * steps[1]), count);
            }
        }
        for (row, value) in gradient::<S>(d).into_iter().enumerate() {
            half[row][column] = value;
        }
    }
    for (row, half) in half.into_iter().enumerate() {
        for (column, value) in gradient::<S>(half).into_iter().enumerate() {
            S::store(to.add((row * POINTS + column) * distance), value);
        }
    }
}

/// Where one vector of the outputs of a tile goes.
pub(super) struct Target<S: Simd> {
    pub(super) bias: S::V,
    pub(super) to: *mut f32,
    /// Distances of rows and pixels.
    pub(super) steps: [usize; 2],
    /// Rows and columns that exist.
    pub(super) exist: [usize; 2],
    /// Outputs that exist.
    pub(super) count: usize,
}

/// Sums of outputs less a shift, and of their squares.
pub(super) struct Sums<S: Simd> {
    shift: S::V,
    pub(super) sums: [S::V; 2],
}

impl<S: Simd> Sums<S> {
    #[inline(always)]
    pub(super) unsafe fn new(shift: S::V) -> Sums<S> {
        Sums { shift, sums: [S::splat(0.0); 2] }
    }
}

/// Maps one vector of the products of a tile to its outputs, and sums them where `MOMENTS`.
#[inline(always)]
pub(super) unsafe fn outputs<S: Simd, const MOMENTS: bool>(
    from: *const f32,
    distance: usize,
    target: Target<S>,
    sums: &mut Sums<S>,
) {
    if target.exist == [4, 4] && target.count >= S::LANES {
        outputs_vector::<S, true, MOMENTS>(from, distance, target, sums);
    } else {
        outputs_vector::<S, false, MOMENTS>(from, distance, target, sums);
    }
}

#[inline(always)]
unsafe fn outputs_vector<S: Simd, const WHOLE: bool, const MOMENTS: bool>(
    from: *const f32,
    distance: usize,
    target: Target<S>,
    sums: &mut Sums<S>,
) {
    let mut half = [[S::splat(0.0); 6]; 4];
    for column in 0..6 {
        let m = std::array::from_fn(|row| S::load(from.add((row * POINTS + column) * distance)));
        for (row, value) in output::<S>(m).into_iter().enumerate() {
            half[row][column] = value;
        }
    }
    let Target { bias, to, steps, exist, count } = target;
    for (row, half) in half.into_iter().enumerate() {
        for (column, value) in output::<S>(half).into_iter().enumerate() {
            if WHOLE || row < exist[0] && column < exist[1] {
                let value = S::add(value, bias);
                write::<S, WHOLE>(to.add(row * steps[0] + column * steps[1]), count, value);
                if MOMENTS {
                    let value = S::sub(value, sums.shift);
                    sums.sums = [S::add(sums.sums[0], value), S::fma(value, value, sums.sums[1])];
                }
            }
        }
    }
}

/// Maps packed weights `[9, len]` to `[36, len]`, whose positions are `distance` apart; `len` is a
/// multiple of a vector.
#[inline(always)]
pub(super) unsafe fn weights<S: Simd>(from: *const f32, len: usize, to: *mut f32, distance: usize) {
    for start in (0..len).step_by(S::LANES) {
        let mut half = [[S::splat(0.0); 3]; 6];
        for column in 0..3 {
            let g = std::array::from_fn(|row| S::load(from.add((row * 3 + column) * len + start)));
            for (row, value) in weight::<S>(g).into_iter().enumerate() {
                half[row][column] = value;
            }
        }
        for (row, half) in half.into_iter().enumerate() {
            for (column, value) in weight::<S>(half).into_iter().enumerate() {
                S::store(to.add((row * POINTS + column) * distance + start), value);
            }
        }
    }
}

/// Maps sums at 36 positions, `distance` apart, to the gradients of packed weights: `to[t * step + i]`
/// for `i < len`, a multiple of a vector.
#[inline(always)]
pub(super) unsafe fn weight_gradients<S: Simd>(
    from: *const f32,
    distance: usize,
    len: usize,
    to: *mut f32,
    step: usize,
) {
    for start in (0..len).step_by(S::LANES) {
        let mut half = [[S::splat(0.0); 6]; 3];
        for column in 0..6 {
            let m = std::array::from_fn(|row| S::load(from.add((row * POINTS + column) * distance + start)));
            for (row, value) in weight_gradient::<S>(m).into_iter().enumerate() {
                half[row][column] = value;
            }
        }
        for (row, half) in half.into_iter().enumerate() {
            for (column, value) in weight_gradient::<S>(half).into_iter().enumerate() {
                S::store(to.add((row * 3 + column) * step + start), value);
            }
        }
    }
}
