//! Hints that memory will be read.

use std::ops::Range;

const LINE: usize = 16;

/// Memory that the next row needs, asked for bit by bit while this one is worked on.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    from: *const f32,
    elements: usize,
    /// In how many shares.
    shares: usize,
}

impl Ahead {
    pub fn of(slice: &[f32], range: Range<usize>, shares: usize) -> Ahead {
        let part = slice.get(range).unwrap_or_default();
        Ahead { from: part.as_ptr(), elements: part.len(), shares: shares.max(1) }
    }

    /// Asks for one of the shares.
    #[inline(always)]
    pub fn share(&self, index: usize) {
        let lines = self.elements / LINE;
        for line in lines * index / self.shares..lines * (index + 1) / self.shares {
            hint(self.from.wrapping_add(line * LINE));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn hint(from: *const f32) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: every processor of this architecture has it, and it may be given any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn hint(_: *const f32) {}
