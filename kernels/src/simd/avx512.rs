//! Sixteen lanes: AVX-512.

use super::{Simd, Task};
use std::arch::x86_64::*;

/// 16 lanes of `f32`.
#[derive(Clone, Copy, Debug)]
pub struct Avx512;

/// Runs a task compiled for this instruction set.
///
/// # Safety
/// The processor has it.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
pub(super) unsafe fn run<T: Task>(task: T) -> T::Output {
    task.run::<Avx512>()
}

#[inline(always)]
fn mask(count: usize) -> __mmask16 {
    ((1_u32 << count.min(16)) - 1) as __mmask16
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
#[inline(never)]
unsafe fn outline<T: Task>(task: T) -> T::Output {
    task.run::<Avx512>()
}

impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    const REGISTERS: usize = 32;

    #[inline(always)]
    unsafe fn outline<T: Task>(task: T) -> T::Output {
        outline(task)
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::V {
        _mm512_set1_ps(value)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        _mm512_loadu_ps(from)
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self::V {
        _mm512_maskz_loadu_ps(mask(count), from)
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        _mm512_storeu_ps(to, v);
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, count: usize, v: Self::V) {
        _mm512_mask_storeu_ps(to, mask(count), v);
    }

    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        _mm512_add_ps(a, b)
    }

    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        _mm512_sub_ps(a, b)
    }

    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        _mm512_mul_ps(a, b)
    }

    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        _mm512_div_ps(a, b)
    }

    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        _mm512_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        _mm512_max_ps(a, b)
    }

    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        _mm512_min_ps(a, b)
    }

    #[inline(always)]
    unsafe fn sqrt(a: Self::V) -> Self::V {
        _mm512_sqrt_ps(a)
    }

    #[inline(always)]
    unsafe fn where_positive(condition: Self::V, value: Self::V) -> Self::V {
        _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(condition, _mm512_setzero_ps()), value)
    }

    #[inline(always)]
    unsafe fn scale2(a: Self::V, n: Self::V) -> Self::V {
        _mm512_scalef_ps(a, n)
    }

    #[inline(always)]
    unsafe fn sum(a: Self::V) -> f32 {
        _mm512_reduce_add_ps(a)
    }
}
