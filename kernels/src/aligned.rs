//! Buffers whose vectors do not cross cache lines.

use std::ops::{Deref, DerefMut};

const LINE: usize = 64;

/// Elements that start at a cache line.
#[derive(Debug)]
pub(crate) struct Aligned {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub fn zeros(len: usize) -> Aligned {
        let spare = LINE / size_of::<f32>();
        let values = vec![0.0; len + spare];
        // The offset is larger where it cannot be found, as under Miri.
        let start = values.as_ptr().align_offset(LINE).min(spare);
        Aligned { values, start, len }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..self.start + self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_start_at_a_line() {
        for len in [0, 1, 17, 100_000] {
            let mut buffer = Aligned::zeros(len);
            assert!(buffer.len() == len && buffer.as_ptr().addr().is_multiple_of(LINE));
            buffer.fill(1.0);
            assert!(buffer.iter().all(|value| *value == 1.0));
        }
    }
}
