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
    unsafe fn prefetch(at: *const f32) {
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }

    #[inline(always)]
    unsafe fn sum(a: Self::V) -> f32 {
        _mm512_reduce_add_ps(a)
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        let pair = |low: __m512, high: __m512| {
            let (low, high) = (_mm512_castps_pd(low), _mm512_castps_pd(high));
            [_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)), _mm512_castpd_ps(_mm512_unpackhi_pd(low, high))]
        };
        // Squares of 4 x 4: `quarters[r][c]` holds column `4 k + c` of rows `4 r..4 r + 4` in part `k`.
        let mut quarters = [[_mm512_setzero_ps(); 4]; 4];
        for (index, quarter) in quarters.iter_mut().enumerate() {
            let row = |row: usize| _mm512_loadu_ps(from.add((4 * index + row) * from_row));
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let low = pair(_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
            let high = pair(_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
            *quarter = [low[0], low[1], high[0], high[1]];
        }
        for column in 0..4 {
            let [a, b, c, d] = quarters.map(|quarter| quarter[column]);
            let (ab_even, ab_odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
            let (cd_even, cd_odd) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
            let parts = [
                _mm512_shuffle_f32x4::<0x88>(ab_even, cd_even),
                _mm512_shuffle_f32x4::<0x88>(ab_odd, cd_odd),
                _mm512_shuffle_f32x4::<0xdd>(ab_even, cd_even),
                _mm512_shuffle_f32x4::<0xdd>(ab_odd, cd_odd),
            ];
            for (part, value) in parts.into_iter().enumerate() {
                _mm512_storeu_ps(to.add((4 * part + column) * to_row), value);
            }
        }
    }
}
