//! Four lanes: NEON.

use super::{Simd, Task};
use std::arch::aarch64::*;

/// 4 lanes of `f32`.
#[derive(Clone, Copy, Debug)]
pub struct Neon;

/// Runs a task compiled for this instruction set.
///
/// # Safety
/// The processor has it.
#[target_feature(enable = "neon")]
pub(super) unsafe fn run<T: Task>(task: T) -> T::Output {
    task.run::<Neon>()
}

#[target_feature(enable = "neon")]
#[inline(never)]
unsafe fn outline<T: Task>(task: T) -> T::Output {
    task.run::<Neon>()
}

impl Simd for Neon {
    type V = float32x4_t;
    const LANES: usize = 4;
    const REGISTERS: usize = 32;

    #[inline(always)]
    unsafe fn outline<T: Task>(task: T) -> T::Output {
        outline(task)
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::V {
        vdupq_n_f32(value)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        vld1q_f32(from)
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self::V {
        let lanes: [f32; 4] = std::array::from_fn(|lane| if lane < count { *from.add(lane) } else { 0.0 });
        vld1q_f32(lanes.as_ptr())
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        vst1q_f32(to, v);
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, count: usize, v: Self::V) {
        let mut lanes = [0.0; 4];
        vst1q_f32(lanes.as_mut_ptr(), v);
        for (lane, value) in lanes.iter().enumerate().take(count) {
            *to.add(lane) = *value;
        }
    }

    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        vaddq_f32(a, b)
    }

    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        vsubq_f32(a, b)
    }

    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        vmulq_f32(a, b)
    }

    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        vdivq_f32(a, b)
    }

    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        vfmaq_f32(c, a, b)
    }

    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        vbslq_f32(vcgtq_f32(a, b), a, b)
    }

    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        vbslq_f32(vcltq_f32(a, b), a, b)
    }

    #[inline(always)]
    unsafe fn sqrt(a: Self::V) -> Self::V {
        vsqrtq_f32(a)
    }

    #[inline(always)]
    unsafe fn where_positive(condition: Self::V, value: Self::V) -> Self::V {
        vbslq_f32(vcgtq_f32(condition, vdupq_n_f32(0.0)), value, vdupq_n_f32(0.0))
    }

    #[inline(always)]
    unsafe fn sum(a: Self::V) -> f32 {
        vaddvq_f32(a)
    }
}
