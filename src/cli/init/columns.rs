//! Which column of the data feeds which input.

use crate::data::{Column, Dataset, Wanted, check};
use crate::graph::{Dim, Fact};
use std::collections::BTreeMap;

/// Names that targets usually have.
const TARGETS: [&str; 8] = ["target", "targets", "label", "labels", "y", "class", "classes", "truth"];

/// Returns the column of each input that one fits, but for those in `taken`, best names first: the same name, nearly the
/// same, one within the other, and then by dtype and shape alone.
pub fn matched(inputs: &[(String, Fact)], data: &Dataset, taken: &[String]) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for likeness in [3, 2, 1, 0] {
        for (input, fact) in inputs {
            if found.contains_key(input) {
                continue;
            }
            let free = |name: &str| !found.values().chain(taken).any(|taken| taken == name);
            let mut columns: Vec<&str> = data.columns().iter().map(|column| column.name.as_str()).collect();
            columns.retain(|name| free(name) && like(input, name) >= likeness && fits(data, name, fact));
            columns.sort_by_key(|name| (std::cmp::Reverse(like(input, name)), is_target(name)));
            if let Some(column) = columns.first() {
                found.insert(input.clone(), (*column).to_string());
            }
        }
    }
    found
}

/// Returns the columns of one number each that together are a row of an input without a column, where there are just as
/// many of them as it is wide.
pub fn joined(
    inputs: &[(String, Fact)],
    data: &Dataset,
    matched: &BTreeMap<String, String>,
) -> BTreeMap<String, Vec<String>> {
    let number = |(position, column): &(usize, &Column)| {
        let text = data.source().classes(*position).is_some();
        let free = !matched.values().any(|taken| *taken == column.name);
        column.shape.is_empty() && !text && free && !is_target(&column.name)
    };
    let numbers = data.columns().iter().enumerate().filter(number).map(|(_, column)| column.name.clone());
    let numbers: Vec<String> = numbers.collect();
    let mut without = inputs.iter().filter(|(name, _)| !matched.contains_key(name));
    let (Some((input, fact)), None) = (without.next(), without.next()) else { return BTreeMap::new() };
    let wide = fact.rank() == Some(2) && fact.dim(1).and_then(Dim::known) == Some(numbers.len());
    if wide && fact.is_float() { [(input.clone(), numbers)].into() } else { BTreeMap::new() }
}

/// Returns true where a column fits what an input or a target wants.
pub fn fits(data: &Dataset, column: &str, fact: &Fact) -> bool {
    check(data, &[Wanted { column: column.into(), input: column.into(), fact: fact.clone() }]).is_ok()
}

/// Returns a column with its dtype and shape.
pub fn described(data: &Dataset, column: &Column) -> String {
    format!("{} {}", column.name, Fact::fixed(column.dtype, &[&[data.rows()], column.shape.as_slice()].concat()))
}

/// Returns true for a name that targets usually have.
pub fn is_target(name: &str) -> bool {
    TARGETS.contains(&plain(name).as_str())
}

/// Returns how alike two names are, from 3, the same, to 0.
fn like(input: &str, column: &str) -> u8 {
    let (a, b) = (plain(input), plain(column));
    match () {
        () if input == column => 3,
        () if a == b => 2,
        // One letter is in every name.
        () if a.len().min(b.len()) > 1 && (a.contains(&b) || b.contains(&a)) => 1,
        () => 0,
    }
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{DType, Dim, Tensor};
    use std::path::Path;

    fn data(columns: &[(&str, DType, &[usize])]) -> Dataset {
        let columns = columns.iter().map(|(name, dtype, shape)| ((*name).to_string(), Tensor::zeros(*dtype, shape)));
        Dataset::new(Path::new("a.npz"), columns.collect()).unwrap()
    }

    fn input(name: &str, dtype: DType, rest: &[usize]) -> (String, Fact) {
        let dims = std::iter::once(Dim::Symbol("batch".into())).chain(rest.iter().map(|size| Dim::Known(*size)));
        (name.into(), Fact::new(dtype, dims.collect()))
    }

    #[test]
    fn names_decide_before_shapes() {
        let (ints, floats) = (DType::I64, DType::F32);
        type Columns<'a> = &'a [(&'a str, DType, &'a [usize])];
        type Case<'a> = (&'a [(String, Fact)], Columns<'a>, &'a [(&'a str, &'a str)]);
        let cases: [Case; 6] = [
            (
                &[input("a", floats, &[3]), input("b", floats, &[3])],
                &[("b", floats, &[4, 3]), ("other", floats, &[4, 3])],
                &[("a", "other"), ("b", "b")],
            ),
            (
                &[input("x", floats, &[1, 8, 8])],
                &[("labels", ints, &[4]), ("images", floats, &[4, 1, 8, 8])],
                &[("x", "images")],
            ),
            (
                &[input("input_ids", ints, &[7]), input("attention_mask", ints, &[7])],
                &[("labels", ints, &[4, 7]), ("mask", ints, &[4, 7]), ("InputIds", ints, &[4, 7])],
                &[("attention_mask", "mask"), ("input_ids", "InputIds")],
            ),
            (
                &[input("a", floats, &[3]), input("b", floats, &[3])],
                &[("target", floats, &[4, 3]), ("one", floats, &[4, 3]), ("two", floats, &[4, 3])],
                &[("a", "one"), ("b", "two")],
            ),
            (
                &[input("b", floats, &[3]), input("a", floats, &[3])],
                &[("b", floats, &[4, 3]), ("a", floats, &[4, 3])],
                &[("a", "a"), ("b", "b")],
            ),
            (&[input("x", floats, &[3])], &[("x", floats, &[4, 5])], &[]),
        ];
        for (inputs, columns, expected) in cases {
            let found = matched(inputs, &data(columns), &[]);
            let found: Vec<(&str, &str)> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            assert_eq!(found, expected);
        }
    }
}
