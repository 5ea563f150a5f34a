//! Sums, activations and their gradients, element by element; sums over rows.

use crate::activation::{Activate, Activation, with_activation};
use crate::exec::Exec;
use crate::fold::{Columns, Fold, columns, load, store};
use crate::pool::{Shared, split};
use crate::simd::{Simd, Task, dispatch_at};

const PART: usize = 16384;
const PARTS: usize = 256;

/// Adds `from` to `to`.
///
/// # Panics
/// When the slices differ in length.
pub fn add_into(exec: Exec<'_>, to: &mut [f32], from: &[f32]) {
    assert!(to.len() == from.len(), "both have {} elements", to.len());
    parts(exec, to, |start, to| dispatch_at(exec.level, Zip { to, other: &from[start..], with: Sum }));
}

/// Writes `y = activation(a + b)`.
///
/// # Panics
/// When the slices differ in length.
pub fn add(exec: Exec<'_>, a: &[f32], b: &[f32], activation: Activation, y: &mut [f32]) {
    assert!([a.len(), b.len()] == [y.len(); 2], "all have {} elements", y.len());
    parts(exec, y, |start, to| {
        let len = to.len();
        to.copy_from_slice(&a[start..start + len]);
        with_activation!(activation, activation => {
            dispatch_at(exec.level, Zip { to, other: &b[start..], with: ActivatedSum(activation) });
        });
    });
}

/// Applies an activation in place.
pub fn activate(exec: Exec<'_>, activation: Activation, x: &mut [f32]) {
    parts(exec, x, |_, to| {
        with_activation!(activation, activation => dispatch_at(exec.level, Each { to, activation }));
    });
}

/// Turns `dy`, in place, into the gradient of what the activation was applied to; `y` is what it gave.
///
/// # Panics
/// When the slices differ in length.
pub fn activation_gradient(exec: Exec<'_>, activation: Activation, y: &[f32], dy: &mut [f32]) {
    assert!(y.len() == dy.len(), "y and dy have {} elements", y.len());
    parts(exec, dy, |start, to| {
        with_activation!(activation, activation => {
            dispatch_at(exec.level, Zip { to, other: &y[start..], with: Gated(activation) });
        });
    });
}

/// Writes the sum of all rows, which is the gradient of a bias.
///
/// Sums of blocks are added in `f64`, in an order that follows from the sizes.
///
/// # Panics
/// When a slice has the wrong length.
pub fn sum_rows(exec: Exec<'_>, rows: usize, channels: usize, dy: &[f32], sums: &mut [f32]) {
    assert!(rows.checked_mul(channels) == Some(dy.len()), "dy has {rows} rows of {channels} channels");
    assert!(sums.len() == channels, "sums have {channels} channels");
    sums.fill(0.0);
    if dy.is_empty() {
        return;
    }
    let fold = Fold::new(rows, channels);
    let mut found: Vec<Vec<f64>> = vec![Vec::new(); fold.parts()];
    let shared = Shared::of(&mut found);
    exec.pool.run(fold.parts(), &|part| {
        let sums = dispatch_at(exec.level, PartSums { fold, dy, part });
        // SAFETY: every part has its own element.
        unsafe { shared.part(part, 1)[0] = sums };
    });
    for (channel, sum) in sums.iter_mut().enumerate() {
        let of_part = |wide: &Vec<f64>| wide.iter().skip(channel).step_by(channels).sum::<f64>();
        *sum = found.iter().map(of_part).sum::<f64>() as f32;
    }
}

/// Calls `work` with the parts of `to` and where they start.
fn parts(exec: Exec<'_>, to: &mut [f32], work: impl Fn(usize, &mut [f32]) + Sync) {
    let len = to.len();
    let count = (len / PART).clamp(1, PARTS);
    let to = Shared::of(to);
    exec.pool.run(count, &|part| {
        let range = split(len, 16, count, part);
        // SAFETY: parts do not overlap.
        work(range.start, unsafe { to.part(range.start, range.len()) });
    });
}

/// A function of two elements.
trait Pair: Copy {
    unsafe fn of<S: Simd>(self, to: S::V, other: S::V) -> S::V;
}

#[derive(Clone, Copy)]
struct Sum;

impl Pair for Sum {
    #[inline(always)]
    unsafe fn of<S: Simd>(self, to: S::V, other: S::V) -> S::V {
        S::add(to, other)
    }
}

#[derive(Clone, Copy)]
struct ActivatedSum<A>(A);

impl<A: Activate> Pair for ActivatedSum<A> {
    #[inline(always)]
    unsafe fn of<S: Simd>(self, to: S::V, other: S::V) -> S::V {
        self.0.of::<S>(S::add(to, other))
    }
}

#[derive(Clone, Copy)]
struct Gated<A>(A);

impl<A: Activate> Pair for Gated<A> {
    #[inline(always)]
    unsafe fn of<S: Simd>(self, to: S::V, other: S::V) -> S::V {
        self.0.gate::<S>(other, to)
    }
}

struct Zip<'a, P> {
    to: &'a mut [f32],
    other: &'a [f32],
    with: P,
}

impl<P: Pair> Task for Zip<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self) {
        let width = self.to.len();
        assert!(self.other.len() >= width, "both have {width} elements");
        // SAFETY: both have `width` elements.
        unsafe { columns::<S>(width, &mut self) };
    }
}

impl<P: Pair> Columns for Zip<'_, P> {
    #[inline(always)]
    unsafe fn run<S: Simd, const G: usize, const FULL: bool>(&mut self, at: usize, count: usize) {
        for group in 0..G {
            let to = self.to.as_mut_ptr().add(at + group * S::LANES);
            let other = load::<S, FULL>(self.other.as_ptr().add(at + group * S::LANES), count);
            store::<S, FULL>(to, count, self.with.of::<S>(load::<S, FULL>(to, count), other));
        }
    }
}

struct Each<'a, A> {
    to: &'a mut [f32],
    activation: A,
}

impl<A: Activate> Task for Each<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self) {
        // SAFETY: the columns are those of the slice.
        unsafe { columns::<S>(self.to.len(), &mut self) };
    }
}

impl<A: Activate> Columns for Each<'_, A> {
    #[inline(always)]
    unsafe fn run<S: Simd, const G: usize, const FULL: bool>(&mut self, at: usize, count: usize) {
        for group in 0..G {
            let to = self.to.as_mut_ptr().add(at + group * S::LANES);
            store::<S, FULL>(to, count, self.activation.of::<S>(load::<S, FULL>(to, count)));
        }
    }
}

struct PartSums<'a> {
    fold: Fold,
    dy: &'a [f32],
    part: usize,
}

impl Task for PartSums<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn run<S: Simd>(self) -> Vec<f64> {
        let width = self.fold.width;
        let mut total = vec![0.0; width];
        let mut buffer = vec![0.0; width];
        for index in 0..self.fold.blocks(self.part) {
            let block = self.fold.block(self.part, index);
            let from = self.dy[block.start..][..(block.rows - 1) * width + block.width].as_ptr();
            let mut work = BlockSums { from, rows: block.rows, stride: width, sums: buffer.as_mut_ptr() };
            // SAFETY: the block lies in dy, the buffer has `width` elements.
            unsafe { columns::<S>(block.width, &mut work) };
            for (total, sum) in total.iter_mut().zip(&buffer[..block.width]) {
                *total += f64::from(*sum);
            }
        }
        total
    }
}

struct BlockSums {
    from: *const f32,
    rows: usize,
    stride: usize,
    sums: *mut f32,
}

impl Columns for BlockSums {
    #[inline(always)]
    unsafe fn run<S: Simd, const G: usize, const FULL: bool>(&mut self, at: usize, count: usize) {
        let mut sums = [S::splat(0.0); G];
        for row in 0..self.rows {
            for (group, sum) in sums.iter_mut().enumerate() {
                let from = self.from.add(row * self.stride + at + group * S::LANES);
                *sum = S::add(*sum, load::<S, FULL>(from, count));
            }
        }
        for (group, sum) in sums.into_iter().enumerate() {
            store::<S, FULL>(self.sums.add(at + group * S::LANES), count, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{Serial, Threads};
    use crate::simd::Level;
    use crate::testing::{Random, close};

    fn execs() -> impl Iterator<Item = Exec<'static>> {
        let pools = |level: &Level| [Exec { pool: &Serial, level: *level }, Exec { pool: &Threads(3), level: *level }];
        Level::available().iter().flat_map(pools)
    }

    #[test]
    fn elements_agree_with_plain_loops() {
        let clip = Activation::Clip { min: -0.25, max: 0.5 };
        for (len, activation) in [(1, Activation::None), (37, Activation::Relu), (50_000, clip), (0, clip)] {
            let mut random = Random::new(len as u64);
            let (a, b) = (random.floats(len), random.floats(len));
            let of = |x: f32| match activation {
                Activation::None => x,
                Activation::Relu => x.max(0.0),
                Activation::Clip { min, max } => x.clamp(min, max),
            };
            let passes = |y: f32| match activation {
                Activation::None => true,
                Activation::Relu => y > 0.0,
                Activation::Clip { min, max } => min < y && y < max,
            };
            let pairs = || a.iter().zip(&b).map(|(a, b)| (*a, *b));
            for exec in execs() {
                let mut sum = a.clone();
                add_into(exec, &mut sum, &b);
                assert_eq!(sum, pairs().map(|(a, b)| a + b).collect::<Vec<f32>>());
                let mut y = vec![9.0; len];
                add(exec, &a, &b, activation, &mut y);
                assert_eq!(y, pairs().map(|(a, b)| of(a + b)).collect::<Vec<f32>>());
                let mut x = a.clone();
                activate(exec, activation, &mut x);
                assert_eq!(x, a.iter().map(|a| of(*a)).collect::<Vec<f32>>());
                let mut dy = b.clone();
                activation_gradient(exec, activation, &x, &mut dy);
                let expected = x.iter().zip(&b).map(|(y, dy)| if passes(*y) { *dy } else { 0.0 });
                assert_eq!(dy, expected.collect::<Vec<f32>>());
            }
        }
    }

    #[test]
    fn sums_agree_with_plain_loops() {
        for (rows, channels) in [(1, 1), (5000, 3), (300, 17), (40, 960), (3, 65), (2000, 64), (0, 4)] {
            let dy = Random::new(rows as u64).floats(rows * channels);
            let mut expected = vec![0.0; channels];
            for (at, dy) in dy.iter().enumerate() {
                expected[at % channels] += f64::from(*dy);
            }
            let mut first: Option<Vec<f32>> = None;
            for exec in execs() {
                let mut sums = vec![9.0; channels];
                sum_rows(exec, rows, channels, &dy, &mut sums);
                close("sums", &sums, &expected, 1e-5);
                // The order of additions is the same for vectors of any length.
                assert_eq!(*first.get_or_insert_with(|| sums.clone()), sums);
            }
        }
    }
}
