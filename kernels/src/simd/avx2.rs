//! Eight lanes: AVX2 with fused multiply-add.

use super::{Simd, Task};
use std::arch::x86_64::*;

/// 8 lanes of `f32`.
#[derive(Clone, Copy, Debug)]
pub struct Avx2;

/// Runs a task compiled for this instruction set.
///
/// # Safety
/// The processor has it.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run<T: Task>(task: T) -> T::Output {
    task.run::<Avx2>()
}

static FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

#[inline(always)]
unsafe fn mask(count: usize) -> __m256i {
    _mm256_loadu_si256(FIRST.as_ptr().add(8 - count.min(8)).cast())
}

#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn outline<T: Task>(task: T) -> T::Output {
    task.run::<Avx2>()
}

impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn outline<T: Task>(task: T) -> T::Output {
        outline(task)
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::V {
        _mm256_set1_ps(value)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        _mm256_loadu_ps(from)
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self::V {
        _mm256_maskload_ps(from, mask(count))
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        _mm256_storeu_ps(to, v);
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, count: usize, v: Self::V) {
        _mm256_maskstore_ps(to, mask(count), v);
    }

    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        _mm256_add_ps(a, b)
    }

    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        _mm256_sub_ps(a, b)
    }

    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        _mm256_mul_ps(a, b)
    }

    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        _mm256_div_ps(a, b)
    }

    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        _mm256_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        _mm256_max_ps(a, b)
    }

    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        _mm256_min_ps(a, b)
    }

    #[inline(always)]
    unsafe fn sqrt(a: Self::V) -> Self::V {
        _mm256_sqrt_ps(a)
    }

    #[inline(always)]
    unsafe fn where_positive(condition: Self::V, value: Self::V) -> Self::V {
        _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(condition, _mm256_setzero_ps()), value)
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }

    #[inline(always)]
    unsafe fn sum(a: Self::V) -> f32 {
        let half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
    }
}
