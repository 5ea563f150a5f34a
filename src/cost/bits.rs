//! A set of small numbers, as bits.

/// A set of numbers below a fixed size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// Returns the empty set of numbers below `size`.
    pub fn none(size: usize) -> Bits {
        Bits(vec![0; size.div_ceil(64)])
    }

    /// Returns the set of some numbers below `size`; others are left out.
    pub fn of(size: usize, numbers: impl IntoIterator<Item = usize>) -> Bits {
        let mut bits = Bits::none(size);
        numbers.into_iter().filter(|number| *number < size).for_each(|number| bits.insert(number));
        bits
    }

    /// Adds a number; one past the size is not added.
    pub fn insert(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// Returns whether a number is in the set.
    pub fn contains(&self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Adds the numbers of a set of the same size.
    pub fn join(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    /// Returns whether two sets have a number in common.
    pub fn meets(&self, other: &Bits) -> bool {
        self.0.iter().zip(&other.0).any(|(word, other)| word & other != 0)
    }

    /// Returns whether every number is in another set of the same size.
    pub fn is_within(&self, other: &Bits) -> bool {
        self.0.iter().zip(&other.0).all(|(word, other)| word & !other == 0)
    }

    /// Returns the numbers of the set that are not in another one of the same size.
    pub fn without<'a>(&'a self, other: &'a Bits) -> impl Iterator<Item = usize> + 'a {
        numbers(self.0.iter().zip(&other.0).map(|(word, other)| word & !other))
    }

    /// Returns the numbers of the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        numbers(self.0.iter().copied())
    }

    /// Returns how many numbers are in the set.
    pub fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Returns whether no number is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

fn numbers(words: impl Iterator<Item = u64>) -> impl Iterator<Item = usize> {
    words.enumerate().flat_map(|(index, word)| {
        std::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)))
            .take_while(|word| *word != 0)
            .map(move |word| index * 64 + word.trailing_zeros() as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_those_of_their_numbers() {
        let (a, b) = (Bits::of(130, [0, 63, 64, 129, 500]), Bits::of(130, [63, 129]));
        assert_eq!(a.iter().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert_eq!(a.without(&b).collect::<Vec<_>>(), [0, 64]);
        assert!(b.is_within(&a) && !a.is_within(&b) && a.meets(&b) && !b.meets(&Bits::of(130, [1, 62])));
        assert!(a.contains(64) && !a.contains(65) && !a.contains(500));
        assert_eq!((a.count(), b.count(), Bits::none(130).is_empty()), (4, 2, true));
        let mut joined = Bits::of(130, [1]);
        joined.join(&b);
        assert_eq!(joined, Bits::of(130, [1, 63, 129]));
    }
}
