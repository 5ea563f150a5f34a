//! Steps of optimizers over many tensors at once, in place.
//!
//! Every element is computed by the operations of the graphs of `freeze-plan`, each rounded once and in the same order,
//! so that the two agree to the last bit.

mod adam;
mod sgd;

pub use adam::{Adam, AdamTensor, Average};
pub use sgd::{Sgd, SgdTensor};

use crate::pool::Pool;
use std::ops::Range;

/// Elements of a task.
const CHUNK: usize = 1 << 15;

/// Runs `task` with the number of a tensor and a range of its elements, until all are done.
fn by_chunks(pool: &dyn Pool, lengths: impl Iterator<Item = usize>, task: &(dyn Fn(usize, Range<usize>) + Sync)) {
    let mut chunks = Vec::new();
    let mut small = Vec::new();
    let mut held = 0;
    for (tensor, len) in lengths.enumerate() {
        let mut from = 0;
        while len - from > CHUNK {
            chunks.push(vec![(tensor, from..from + CHUNK)]);
            from += CHUNK;
        }
        held += len - from;
        small.push((tensor, from..len));
        if held >= CHUNK {
            chunks.push(std::mem::take(&mut small));
            held = 0;
        }
    }
    chunks.push(small);
    pool.run(chunks.len(), &|index| chunks[index].iter().for_each(|(tensor, range)| task(*tensor, range.clone())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Serial;
    use std::sync::Mutex;

    #[test]
    fn every_element_once() {
        let lengths = [0, 5, CHUNK, 3 * CHUNK + 1, 7, 0, CHUNK - 1, 2];
        let counts = Mutex::new(lengths.map(|len| vec![0; len]));
        by_chunks(&Serial, lengths.into_iter(), &|tensor, range| {
            counts.lock().unwrap()[tensor][range].iter_mut().for_each(|count| *count += 1);
        });
        assert!(counts.into_inner().unwrap().iter().flatten().all(|count| *count == 1));
    }
}
