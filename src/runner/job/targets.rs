//! `[data] target`: one column, or a named column for each of several losses.

use crate::data::Selection;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The columns that losses compare with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Targets {
    /// The column of the one target, which has no name.
    One(Selection),
    /// The column of each target that a loss names.
    Named(BTreeMap<String, Selection>),
}

impl Targets {
    /// Returns the column of a target.
    pub fn column(&self, name: Option<&str>) -> Option<&Selection> {
        match (self, name) {
            (Targets::One(column), None) => Some(column),
            (Targets::Named(columns), Some(name)) => columns.get(name),
            _ => None,
        }
    }

    /// Returns the columns of all targets.
    pub fn columns(&self) -> impl Iterator<Item = &Selection> {
        let (one, named) = match self {
            Targets::One(column) => (Some(column), None),
            Targets::Named(columns) => (None, Some(columns.values())),
        };
        one.into_iter().chain(named.into_iter().flatten())
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Targets, D::Error> {
        deserializer.deserialize_any(Read)
    }
}

struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = Targets;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column, an array of columns, or a table of a column for each target")
    }

    fn visit_str<E>(self, column: &str) -> Result<Targets, E> {
        Ok(Targets::One(column.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Targets, A::Error> {
        Ok(Targets::One(Selection::deserialize(SeqAccessDeserializer::new(seq))?))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Targets, A::Error> {
        let mut columns = BTreeMap::new();
        while let Some((name, column)) = map.next_entry()? {
            columns.insert(name, column);
        }
        Ok(Targets::Named(columns))
    }
}
