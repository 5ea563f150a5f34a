//! What several sources say of one value, and which of them is believed.
//!
//! In falling order: a probing run, our own inference, tract's analysis, the file's `value_info`. A
//! dtype, a rank or a size that a lower source gives otherwise is a [`Contradiction`], and so is a
//! fixed size in the file where inference finds a named one: exporters leave such sizes behind when
//! the batch is made symbolic. Names may differ freely.

use crate::graph::{Dim, Fact};
use std::fmt;

/// Where a fact comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Nothing is known.
    Nothing,
    /// The file: an input, an initializer or `value_info`.
    File,
    /// The operators' own rules, from the facts of their inputs.
    Inference,
    /// tract's analysis.
    Tract,
    /// A run of the model.
    Probe,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Nothing => "nothing",
            Source::File => "the file",
            Source::Inference => "inference",
            Source::Tract => "tract",
            Source::Probe => "a probing run",
        })
    }
}

/// Two sources that say different things of one value.
#[derive(Clone, Debug, PartialEq)]
pub struct Contradiction {
    /// Value.
    pub value: String,
    /// What is used.
    pub used: (Source, Fact),
    /// What is not.
    pub dropped: (Source, Fact),
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((used, fact), (dropped, other)) = (&self.used, &self.dropped);
        write!(f, "\"{}\" is {fact} by {used} and {other} by {dropped}: the first is used", self.value)
    }
}

/// Joins what sources say, the most trusted first. Returns the fact, the source that gave the most
/// of it, and the pairs of places in `said` that contradict each other.
pub(super) fn join(said: &[(Source, &Fact)]) -> (Fact, Source, Vec<(usize, usize)>) {
    let mut joined = Fact::default();
    let mut source = Source::Nothing;
    let mut against = Vec::new();
    for (index, (from, fact)) in said.iter().enumerate() {
        let earlier = |wrong: &dyn Fn(&Fact) -> bool| said[..index].iter().position(|(_, other)| wrong(other));
        if differs(&joined, fact)
            && let Some(other) = earlier(&|other| differs(other, fact)).or(earlier(&|other| *other != NOTHING))
        {
            against.push((other, index));
            continue;
        }
        if adds(&joined, fact) {
            source = *from;
            joined = joined.or(fact);
        }
    }
    (joined, source, against)
}

static NOTHING: Fact = Fact { dtype: None, shape: None };

/// Returns true when a fact contradicts a more trusted one.
pub(super) fn differs(trusted: &Fact, other: &Fact) -> bool {
    let dtype = trusted.dtype.zip(other.dtype).is_some_and(|(a, b)| a != b);
    let (Some(a), Some(b)) = (&trusted.shape, &other.shape) else { return dtype };
    let size = |(a, b): (&Dim, &Dim)| matches!(b, Dim::Known(_)) && *a != Dim::Unknown && a != b;
    dtype || a.len() != b.len() || a.iter().zip(b).any(size)
}

/// Returns true when a fact knows something that a more trusted one leaves open.
fn adds(trusted: &Fact, other: &Fact) -> bool {
    let dtype = trusted.dtype.is_none() && other.dtype.is_some();
    match (&trusted.shape, &other.shape) {
        (None, Some(_)) => true,
        (Some(a), Some(b)) => dtype || a.iter().zip(b).any(|(a, b)| *a == Dim::Unknown && *b != Dim::Unknown),
        _ => dtype,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::DType;

    fn fact(text: &str) -> Fact {
        if text == "none" {
            return Fact::default();
        }
        let dims = text.split_whitespace().map(|word| match word.parse() {
            Ok(size) => Dim::Known(size),
            Err(_) if word == "?" => Dim::Unknown,
            Err(_) => Dim::Symbol(word.to_string()),
        });
        Fact { dtype: Some(DType::F32), shape: Some(dims.collect()) }
    }

    #[test]
    fn the_most_trusted_source_wins() {
        let cases = [
            ("N 4", "1 4", "N 4", true),
            ("N 4", "M 4", "N 4", false),
            ("? 4", "1 4", "1 4", false),
            ("2 4", "N 4", "2 4", false),
            ("2 4", "3 4", "2 4", true),
            ("2 4", "2 4 1", "2 4", true),
            ("none", "N 4", "N 4", false),
        ];
        for (a, b, expected, contradiction) in cases {
            let (first, second) = (fact(a), fact(b));
            let (joined, _, against) = join(&[(Source::Inference, &first), (Source::File, &second)]);
            assert_eq!((joined, against.len() == 1), (fact(expected), contradiction), "{a} and {b}");
        }
        let other = Fact { dtype: Some(DType::I64), shape: None };
        let shaped = fact("2");
        let (_, source, against) =
            join(&[(Source::Inference, &shaped), (Source::Tract, &NOTHING), (Source::File, &other)]);
        assert_eq!((source, against), (Source::Inference, vec![(0, 2)]));
    }
}
