//! What an input reads: a column, or several as one vector.
//!
//! A name is that of a column; where there is none of that name, `*` and `?` make it a pattern, which stands for all
//! columns that match, in the order of the file.

use globset::Glob;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// The columns of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Selection {
    /// A column, or a pattern of columns whose values are one vector.
    One(String),
    /// Columns or patterns of columns whose values are one vector, in this order.
    Several(#[cfg_attr(feature = "schema", schemars(length(min = 1)))] Vec<String>),
}

impl Selection {
    /// Returns the names and patterns.
    pub fn patterns(&self) -> &[String] {
        match self {
            Selection::One(name) => std::slice::from_ref(name),
            Selection::Several(names) => names,
        }
    }

    /// Returns the positions of the columns that are read, and whether they are a vector.
    ///
    /// # Errors
    /// A name or pattern that there is no column of.
    pub(super) fn positions<'a>(&'a self, columns: &[&str]) -> Result<(Vec<usize>, bool), &'a str> {
        let mut positions = Vec::new();
        for pattern in self.patterns() {
            let found = matching(pattern, columns);
            if found.is_empty() {
                return Err(pattern);
            }
            positions.extend(found);
        }
        let vector = match self {
            Selection::One(name) => !columns.contains(&name.as_str()),
            Selection::Several(_) => true,
        };
        Ok((positions, vector))
    }
}

impl From<&str> for Selection {
    fn from(name: &str) -> Selection {
        Selection::One(name.into())
    }
}

impl PartialEq<str> for Selection {
    fn eq(&self, name: &str) -> bool {
        matches!(self, Selection::One(column) if column == name)
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.patterns().join(", "))
    }
}

/// Returns the positions of the columns that a name or pattern stands for.
pub(super) fn matching(pattern: &str, columns: &[impl AsRef<str>]) -> Vec<usize> {
    if let Some(position) = columns.iter().position(|column| column.as_ref() == pattern) {
        return vec![position];
    }
    if !pattern.contains(['*', '?']) {
        return Vec::new();
    }
    let Ok(glob) = Glob::new(pattern) else { return Vec::new() };
    let matcher = glob.compile_matcher();
    (0..columns.len()).filter(|position| matcher.is_match(columns[*position].as_ref())).collect()
}

impl<'de> Deserialize<'de> for Selection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Selection, D::Error> {
        deserializer.deserialize_any(Read)
    }
}

struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = Selection;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column or an array of columns")
    }

    fn visit_str<E>(self, column: &str) -> Result<Selection, E> {
        Ok(Selection::One(column.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Selection, A::Error> {
        let mut columns = Vec::new();
        while let Some(column) = seq.next_element::<String>()? {
            columns.push(column);
        }
        if columns.is_empty() { Err(A::Error::custom("expected a column")) } else { Ok(Selection::Several(columns)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_before_patterns_and_patterns_are_in_the_order_of_the_file() {
        let columns = ["p10", "p2", "a*", "ab", "y"];
        let several = |names: &[&str]| Selection::Several(names.iter().map(|name| (*name).to_string()).collect());
        let cases = [
            (Selection::from("y"), Ok((vec![4], false))),
            (Selection::from("p*"), Ok((vec![0, 1], true))),
            (Selection::from("a*"), Ok((vec![2], false))),
            (Selection::from("?b"), Ok((vec![3], true))),
            (several(&["y", "p*"]), Ok((vec![4, 0, 1], true))),
            (several(&["y"]), Ok((vec![4], true))),
            (several(&["y", "q*"]), Err("q*")),
        ];
        for (selection, expected) in cases {
            assert_eq!(selection.positions(&columns), expected, "{selection}");
        }
    }
}
