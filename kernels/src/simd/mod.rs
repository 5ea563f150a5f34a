//! Vectors of `f32`, in the widest form that the processor has.
//!
//! A [`Task`] is written once, generic over [`Simd`]; [`dispatch`] compiles it for every instruction
//! set and runs the best one. Everything between `dispatch` and the vector operations must be
//! `#[inline(always)]`, or it is compiled without the instruction set.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use scalar::Scalar;

use std::sync::OnceLock;

/// An instruction set.
///
/// # Safety
/// Every function may be called only where the processor has the instruction set.
#[allow(clippy::missing_safety_doc)]
pub trait Simd: Copy + Send + Sync + 'static {
    /// [`Simd::LANES`] elements.
    type V: Copy;
    /// Elements of a vector.
    const LANES: usize;
    /// Vectors that the processor holds in registers.
    const REGISTERS: usize;
    /// Runs a task in a function of its own: a loop that needs all the registers.
    unsafe fn outline<T: Task>(task: T) -> T::Output;
    /// Returns a vector of one value.
    unsafe fn splat(value: f32) -> Self::V;
    /// Returns the elements at `from`, which need not be aligned.
    unsafe fn load(from: *const f32) -> Self::V;
    /// Returns the first `count` elements at `from` (at most a vector of them) and zeros.
    unsafe fn load_first(from: *const f32, count: usize) -> Self::V;
    /// Writes the elements to `to`.
    unsafe fn store(to: *mut f32, v: Self::V);
    /// Writes the first `count` elements (at most a vector of them) to `to`.
    unsafe fn store_first(to: *mut f32, count: usize, v: Self::V);
    /// `a + b`
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the instruction set can.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The greater of each pair; of a pair with NaN, `b`.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of each pair; of a pair with NaN, `b`.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// The square root of each.
    unsafe fn sqrt(a: Self::V) -> Self::V;
    /// `value` where `condition > 0`, else 0.
    unsafe fn where_positive(condition: Self::V, value: Self::V) -> Self::V;
    /// The sum of all elements.
    unsafe fn sum(a: Self::V) -> f32;
    /// Asks for the cache line of an address, which need not be one of memory.
    unsafe fn prefetch(_at: *const f32) {}
    /// Copies a square of [`Simd::LANES`] rows and columns and exchanges them; rows are `from_row` and
    /// `to_row` elements apart.
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        for row in 0..Self::LANES {
            for column in 0..Self::LANES {
                *to.add(column * to_row + row) = *from.add(row * from_row + column);
            }
        }
    }
}

/// Something to compute, for any instruction set.
pub trait Task {
    /// What it gives.
    type Output;
    /// Computes it. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self) -> Self::Output;
}

/// The instruction sets that tasks are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// No vectors but those of the compiler.
    Scalar,
    /// Eight lanes and fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Sixteen lanes.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Four lanes.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Level {
    /// Returns those that this processor has, the best one last.
    pub fn available() -> &'static [Level] {
        static LEVELS: OnceLock<Vec<Level>> = OnceLock::new();
        LEVELS.get_or_init(|| {
            #[allow(unused_mut)]
            let mut levels = vec![Level::Scalar];
            #[cfg(target_arch = "x86_64")]
            {
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    levels.push(Level::Avx2);
                    if is_x86_feature_detected!("avx512f")
                        && is_x86_feature_detected!("avx512dq")
                        && is_x86_feature_detected!("avx512vl")
                        && is_x86_feature_detected!("avx512bw")
                    {
                        levels.push(Level::Avx512);
                    }
                }
            }
            #[cfg(target_arch = "aarch64")]
            levels.push(Level::Neon);
            levels
        })
    }

    /// Returns the best one that this processor has.
    pub fn best() -> Level {
        *Level::available().last().unwrap_or(&Level::Scalar)
    }

    /// Returns its name, as `doctor` and a run's events show it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
        }
    }
}

/// Runs a task with the best instruction set.
#[inline]
pub fn dispatch<T: Task>(task: T) -> T::Output {
    dispatch_at(Level::best(), task)
}

/// Runs a task with one instruction set, as tests do.
///
/// # Panics
/// When the processor lacks it.
#[inline]
pub fn dispatch_at<T: Task>(level: Level, task: T) -> T::Output {
    assert!(Level::available().contains(&level), "the processor has no {}", level.name());
    match level {
        Level::Scalar => task.run::<Scalar>(),
        // SAFETY: the processor has the instruction set.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2::run(task) },
        // SAFETY: the processor has the instruction set.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512::run(task) },
        // SAFETY: every processor of this architecture has it.
        #[cfg(target_arch = "aarch64")]
        Level::Neon => unsafe { neon::run(task) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Every<'a> {
        a: &'a [f32],
        b: &'a [f32],
    }

    impl Task for Every<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self) -> Vec<f32> {
            let mut found = Vec::new();
            let mut at = 0;
            // SAFETY: `dispatch_at` checks the instruction set; loads stay within the slices.
            unsafe {
                while at < self.a.len() {
                    let count = (self.a.len() - at).min(S::LANES);
                    let (a, b) =
                        (S::load_first(self.a.as_ptr().add(at), count), S::load_first(self.b.as_ptr().add(at), count));
                    let one = S::splat(1.0);
                    let parts = [
                        S::fma(a, b, one),
                        S::sub(S::add(a, b), S::mul(a, a)),
                        S::div(a, S::add(S::mul(b, b), one)),
                        S::max(a, b),
                        S::min(a, b),
                        S::sqrt(S::mul(b, b)),
                        S::where_positive(a, b),
                    ];
                    for part in parts {
                        let mut out = vec![7.0; S::LANES];
                        S::store_first(out.as_mut_ptr(), count, part);
                        assert!(out[count..].iter().all(|value| *value == 7.0));
                        found.extend_from_slice(&out[..count]);
                        let mut whole = vec![0.0; S::LANES];
                        S::store(whole.as_mut_ptr(), part);
                        assert_eq!(whole[..count], out[..count]);
                        assert!((S::sum(S::load(whole.as_ptr())) - whole.iter().sum::<f32>()).abs() < 1e-4);
                    }
                    at += count;
                }
            }
            found
        }
    }

    struct Turn<'a>(&'a [f32], usize);

    impl Task for Turn<'_> {
        type Output = (usize, Vec<f32>);

        #[inline(always)]
        fn run<S: Simd>(self) -> (usize, Vec<f32>) {
            let mut turned = vec![0.0; S::LANES * (S::LANES + 3)];
            // SAFETY: `dispatch_at` checks the instruction set; both squares lie inside the slices.
            unsafe { S::transpose(self.0.as_ptr(), self.1, turned.as_mut_ptr(), S::LANES + 3) };
            (S::LANES, turned)
        }
    }

    #[test]
    fn squares_are_transposed() {
        let from: Vec<f32> = (0..16 * 18).map(|index| index as f32).collect();
        for level in Level::available() {
            let (lanes, found) = dispatch_at(*level, Turn(&from, 18));
            for (index, found) in found.iter().enumerate() {
                let (row, column) = (index / (lanes + 3), index % (lanes + 3));
                let expected = if column < lanes { (column * 18 + row) as f32 } else { 0.0 };
                assert_eq!(*found, expected, "{} {row} {column}", level.name());
            }
        }
    }

    #[test]
    fn every_level_computes_the_same() {
        let a: Vec<f32> = (0..37).map(|index| ((index * 7) % 11) as f32 - 5.0).collect();
        let b: Vec<f32> = (0..37).map(|index| ((index * 5) % 13) as f32 - 6.0).collect();
        for level in Level::available() {
            let found = dispatch_at(*level, Every { a: &a, b: &b });
            let mut sorted = found.clone();
            let mut expected = Vec::new();
            for (a, b) in a.iter().zip(&b) {
                let picked = if *a > 0.0 { *b } else { 0.0 };
                expected.extend([a * b + 1.0, a + b - a * a, a / (b * b + 1.0), a.max(*b), a.min(*b), b.abs(), picked]);
            }
            sorted.sort_by(f32::total_cmp);
            expected.sort_by(f32::total_cmp);
            let close = sorted.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-5);
            assert!(close && sorted.len() == expected.len(), "{}", level.name());
        }
    }
}
