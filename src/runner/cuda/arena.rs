//! Room for activations, shared by all sessions.
//!
//! Segments of a device's memory are divided as sessions ask, the smallest free piece that fits first, and joined again
//! when they give back. All sessions work on one stream, so a piece can be given again at once. Segments stay until the
//! arena is dropped: captured graphs hold addresses.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What pieces are multiples of, in bytes; it is also their alignment.
const GRAIN: usize = 512;
/// Least bytes of a segment.
const SEGMENT: usize = 32 << 20;

/// Gives segments.
pub(super) trait Segments: Send {
    /// Returns new memory of so many bytes, aligned to 512; `None` where there is none.
    fn allocate(&mut self, bytes: usize) -> Option<u64>;
}

/// What an arena holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::runner) struct Held {
    /// Of all segments.
    pub segments: usize,
    /// Of what is given out.
    pub used: usize,
    /// The most that was given out.
    pub peak: usize,
}

/// The arena.
pub(super) struct Arena<S> {
    segments: S,
    /// Free pieces by size and place.
    free: BTreeSet<(usize, u64)>,
    /// Free pieces by place.
    places: BTreeMap<u64, usize>,
    /// Segments by their start.
    starts: BTreeMap<u64, usize>,
    /// What is given out.
    used: HashMap<u64, usize>,
    held: Held,
}

impl<S: Segments> Arena<S> {
    pub(super) fn new(segments: S) -> Arena<S> {
        let (free, places, starts, used) = Default::default();
        Arena { segments, free, places, starts, used, held: Held::default() }
    }

    pub(super) fn held(&self) -> Held {
        self.held
    }

    /// Returns room for so many bytes; `None` where the device has none.
    pub(super) fn allocate(&mut self, bytes: usize) -> Option<u64> {
        let size = bytes.max(1).checked_next_multiple_of(GRAIN)?;
        let found = self.free.range((size, 0)..).next().copied();
        let (length, at) = match found {
            Some(piece) => piece,
            None => {
                let length = size.max(SEGMENT);
                // A device that is nearly full may still have what is needed now.
                let (length, at) = match self.segments.allocate(length) {
                    Some(at) => (length, at),
                    None => (size, self.segments.allocate(size)?),
                };
                self.starts.insert(at, length);
                self.held.segments += length;
                self.insert(at, length);
                (length, at)
            }
        };
        self.remove(at, length);
        if length > size {
            self.insert(at + size as u64, length - size);
        }
        self.used.insert(at, size);
        self.held.used += size;
        self.held.peak = self.held.peak.max(self.held.used);
        Some(at)
    }

    /// Takes room back; returns false for what the arena has not given.
    pub(super) fn free(&mut self, at: u64) -> bool {
        let Some(mut size) = self.used.remove(&at) else { return false };
        self.held.used -= size;
        let (mut at, end) = (at, at + size as u64);
        if let Some(length) = self.places.get(&end).copied().filter(|_| !self.starts.contains_key(&end)) {
            self.remove(end, length);
            size += length;
        }
        let before = self.places.range(..at).next_back().map(|(at, length)| (*at, *length));
        if let Some((start, length)) = before
            && start + length as u64 == at
            && !self.starts.contains_key(&at)
        {
            self.remove(start, length);
            at = start;
            size += length;
        }
        self.insert(at, size);
        true
    }

    fn insert(&mut self, at: u64, length: usize) {
        self.free.insert((length, at));
        self.places.insert(at, length);
    }

    fn remove(&mut self, at: u64, length: usize) {
        self.free.remove(&(length, at));
        self.places.remove(&at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments one behind the other, of at most so many bytes together.
    struct Counted {
        next: u64,
        left: usize,
    }

    impl Segments for Counted {
        fn allocate(&mut self, bytes: usize) -> Option<u64> {
            self.left = self.left.checked_sub(bytes)?;
            let at = self.next;
            self.next += bytes as u64;
            Some(at)
        }
    }

    #[test]
    fn pieces_do_not_overlap_and_are_joined_within_their_segment() {
        let mut arena = Arena::new(Counted { next: 1 << 20, left: 1 << 30 });
        let mut held: Vec<(u64, usize)> = Vec::new();
        let mut state = 7_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = usize::try_from(state >> 33).unwrap();
            if held.len() > 40 || (number % 3 == 0 && !held.is_empty()) {
                let (at, _) = held.swap_remove(number % held.len());
                assert!(arena.free(at) && !arena.free(at));
            } else {
                let size = 1 + number % (6 << 20);
                let at = arena.allocate(size).unwrap();
                assert!(at.is_multiple_of(GRAIN as u64));
                assert!(held.iter().all(|(other, length)| at + size as u64 <= *other || other + *length as u64 <= at));
                held.push((at, size));
            }
            let used: usize = held.iter().map(|(_, size)| size.next_multiple_of(GRAIN)).sum();
            assert_eq!(arena.held().used, used);
        }
        held.iter().for_each(|(at, _)| assert!(arena.free(*at)));
        let Held { segments, used, peak } = arena.held();
        assert!(used == 0 && peak > 0 && peak <= segments);
        assert!(arena.places == arena.starts, "all pieces are whole segments again");
    }

    #[test]
    fn a_device_that_is_nearly_full_gives_what_is_needed() {
        let mut arena = Arena::new(Counted { next: 0, left: SEGMENT + 4096 });
        let first = arena.allocate(SEGMENT).unwrap();
        let second = arena.allocate(4000).unwrap();
        assert_eq!(arena.allocate(1), None);
        assert!(arena.free(second) && arena.free(first));
        // Neighbours of different segments stay apart.
        assert_eq!(arena.allocate(SEGMENT + 1), None);
        assert_eq!(arena.allocate(SEGMENT), Some(first));
        assert_eq!(arena.allocate(usize::MAX), None);
    }
}
