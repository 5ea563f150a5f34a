//! Loops over the elements of a row, a vector at a time.

use crate::exec::Exec;
use crate::pool::{Pool, Shared, split};
use crate::simd::Simd;
use std::ops::Range;

/// Elements that a task has at least, where there are so many.
const TASK: usize = 1 << 14;
/// Partial sums that a kernel makes at most.
const PARTS: usize = 32;

/// Loads `count` elements at `from + at`.
#[inline(always)]
pub(crate) unsafe fn get<S: Simd>(from: *const f32, at: usize, count: usize) -> S::V {
    if count == S::LANES { S::load(from.add(at)) } else { S::load_first(from.add(at), count) }
}

/// Loads `count` elements at `from + at`, and `fill` in the other lanes.
#[inline(always)]
pub(crate) unsafe fn get_or<S: Simd>(from: *const f32, at: usize, count: usize, fill: f32) -> S::V {
    if count == S::LANES {
        return S::load(from.add(at));
    }
    let mut lanes = [fill; 64];
    for (lane, value) in lanes.iter_mut().enumerate().take(count) {
        *value = *from.add(at + lane);
    }
    S::load(lanes.as_ptr())
}

/// Writes `count` elements to `to + at`.
#[inline(always)]
pub(crate) unsafe fn put<S: Simd>(to: *mut f32, at: usize, count: usize, v: S::V) {
    if count == S::LANES { S::store(to.add(at), v) } else { S::store_first(to.add(at), count, v) }
}

/// Calls the body with the start and the count of each vector of a row.
macro_rules! each {
    ($simd:ident, $len:expr, |$at:ident, $count:ident| $body:block) => {{
        let len = $len;
        let mut $at = 0;
        while $at + $simd::LANES <= len {
            let $count = $simd::LANES;
            $body
            $at += $simd::LANES;
        }
        if $at < len {
            let $count = len - $at;
            $body
        }
    }};
}
pub(crate) use each;

/// Returns into how many tasks `rows` rows of `width` elements are split, at most `most`: a number
/// that does not depend on the threads.
pub(crate) fn tasks(rows: usize, width: usize, most: usize) -> usize {
    (rows.saturating_mul(width) / TASK).clamp(1, most.max(1)).min(rows.max(1))
}

/// Runs a task for each of about equal ranges of `rows` rows of `width` elements.
pub(crate) fn by_rows(pool: &dyn Pool, rows: usize, width: usize, task: &(dyn Fn(Range<usize>) + Sync)) {
    let count = tasks(rows, width, 256);
    pool.run(count, &|index| task(split(rows, 1, count, index)));
}

/// Runs a task for each of about equal ranges of `len` elements, in multiples of 64.
pub(crate) fn by_elements(pool: &dyn Pool, len: usize, task: &(dyn Fn(Range<usize>) + Sync)) {
    let count = (len / TASK).clamp(1, 256);
    pool.run(count, &|index| task(split(len, 64, count, index)));
}

/// Calls `task` with ranges of rows and zeros of `len` each, and writes the sum of what they leave.
pub(crate) fn partial(
    exec: Exec<'_>,
    rows: usize,
    width: usize,
    len: usize,
    sums: &mut [f32],
    task: &(dyn Fn(Range<usize>, &mut [f32]) + Sync),
) {
    let count = tasks(rows, width, PARTS);
    let mut parts = vec![0.0_f32; count * len];
    let shared = Shared::of(&mut parts);
    // SAFETY: every task has a part of its own.
    exec.pool.run(count, &|index| task(split(rows, 1, count, index), unsafe { shared.part(index * len, len) }));
    let (first, rest) = parts.split_at(len);
    sums.copy_from_slice(first);
    for part in rest.chunks_exact(len.max(1)) {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
}
