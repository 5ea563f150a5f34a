//! The tree of a job file as a serde source, with errors that know their key.

use super::tree::{Node, Value};
use super::{Place, Reason};
use crate::error::nearest;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use std::fmt::{self, Display};

/// Returns the value of a tree.
pub(super) fn deserialize<T: DeserializeOwned>(root: &Node) -> Result<T, Reason> {
    T::deserialize(root).map_err(|error| error.explain(root))
}

/// What a visitor refuses, and the path of keys to it (innermost first while it travels up).
#[derive(Debug)]
pub(super) struct Refusal {
    path: Vec<String>,
    what: What,
}

#[derive(Debug)]
enum What {
    Unknown { key: String, known: &'static [&'static str] },
    Missing { key: String },
    Variant { found: String, known: &'static [&'static str] },
    Type { expected: String, found: String },
    Other(String),
}

impl From<What> for Refusal {
    fn from(what: What) -> Refusal {
        Refusal { path: Vec::new(), what }
    }
}

impl Refusal {
    fn under(mut self, key: &str) -> Refusal {
        self.path.push(key.to_string());
        self
    }

    fn explain(self, root: &Node) -> Reason {
        let mut path = self.path;
        path.reverse();
        let node = root.at(&path).unwrap_or(root);
        match self.what {
            What::Unknown { key, known } => {
                let inner = find(node, &|found, _| found == key).unwrap_or_else(|| vec![key.clone()]);
                path.extend_from_slice(&inner[..inner.len() - 1]);
                let place = node.at(&inner).map_or(Place::Set, |node| node.place.clone());
                let near = nearest(&key, known.iter().copied()).map(str::to_string);
                let known = known.iter().map(|key| (*key).to_string()).collect();
                Reason::Unknown { key, section: path.join("."), place, near, known }
            }
            What::Missing { key } => Reason::Missing { key, section: path.join(".") },
            What::Variant { found, known } => {
                path.extend(inside(node, &format!("string \"{found}\"")));
                let near = nearest(&found, known.iter().copied()).map(|near| format!(", did you mean \"{near}\"?"));
                let known = known.iter().map(|value| format!("\"{value}\"")).collect::<Vec<_>>().join(", ");
                let reason = format!(
                    "unknown value \"{found}\"{}",
                    near.unwrap_or_else(|| format!(", expected one of {known}"))
                );
                value_reason(root, &path, reason)
            }
            What::Type { expected, found } => {
                path.extend(inside(node, &found));
                value_reason(root, &path, format!("expected {expected}, found {found}"))
            }
            What::Other(reason) => value_reason(root, &path, reason),
        }
    }
}

fn value_reason(root: &Node, path: &[String], reason: String) -> Reason {
    let place = root.at(path).map_or(Place::Set, |node| node.place.clone());
    Reason::Value { key: path.join("."), place, reason }
}

/// Returns the path within a table to the one value that reads `found`. A tagged enum is buffered
/// by serde, and what is refused in it has lost its key.
fn inside(node: &Node, found: &str) -> Vec<String> {
    let Value::Table(_) = node.value else { return Vec::new() };
    let reads = |_: &str, node: &Node| describe(unexpected(&node.value)) == found;
    find(node, &reads).unwrap_or_default()
}

fn find(node: &Node, wanted: &dyn Fn(&str, &Node) -> bool) -> Option<Vec<String>> {
    if let Some((key, _)) = node.entries().iter().find(|(key, node)| wanted(key, node)) {
        return Some(vec![key.clone()]);
    }
    node.entries().iter().find_map(|(key, inner)| {
        let mut path = find(inner, wanted)?;
        path.insert(0, key.clone());
        Some(path)
    })
}

fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::String(text) => Unexpected::Str(text),
        Value::Integer(number) => Unexpected::Signed(*number),
        Value::Float(number) => Unexpected::Float(*number),
        Value::Boolean(value) => Unexpected::Bool(*value),
        Value::DateTime => Unexpected::Other("date or time"),
        Value::Array(_) => Unexpected::Seq,
        Value::Table(_) => Unexpected::Map,
    }
}

fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Str(text) => format!("string \"{text}\""),
        Unexpected::Signed(number) => format!("integer {number}"),
        Unexpected::Unsigned(number) => format!("integer {number}"),
        Unexpected::Float(number) => format!("number {number:?}"),
        Unexpected::Bool(value) => format!("boolean {value}"),
        Unexpected::Seq => "an array".into(),
        Unexpected::Map => "a table".into(),
        other => other.to_string(),
    }
}

fn in_words(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    let words = match text.as_str() {
        "f64" | "f32" => "a number",
        "u64" | "u32" | "u16" | "u8" | "usize" => "a whole number of 0 or more",
        "i64" | "i32" | "i16" | "i8" | "isize" => "a whole number",
        "a nonzero usize" | "a nonzero u64" | "a nonzero u32" => "a whole number of 1 or more",
        "path string" | "string" => "a string",
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" | "map" => "a table",
        _ if text.starts_with("struct ") || text.starts_with("internally tagged enum ") => "a table",
        _ if text.starts_with("variant of ") || text.starts_with("enum ") => "a string",
        _ => return text,
    };
    words.into()
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.what)
    }
}

impl std::error::Error for Refusal {}

impl serde::de::Error for Refusal {
    fn custom<T: Display>(message: T) -> Self {
        What::Other(message.to_string()).into()
    }
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        What::Type { expected: in_words(expected), found: describe(found) }.into()
    }
    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }
    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        What::Variant { found: found.into(), known }.into()
    }
    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        What::Unknown { key: key.into(), known }.into()
    }
    fn missing_field(key: &'static str) -> Self {
        What::Missing { key: key.into() }.into()
    }
}

impl<'de> Deserializer<'de> for &Node {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.value {
            Value::String(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::DateTime => Err(serde::de::Error::invalid_type(unexpected(&self.value), &visitor)),
            Value::Array(nodes) => visitor.visit_seq(Elements { nodes, next: 0 }),
            Value::Table(entries) => visitor.visit_map(Entries { entries, next: 0 }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    /// A table that lists its keys is no array, which serde would read as their values in order.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match &self.value {
            Value::Array(_) => Err(serde::de::Error::invalid_type(unexpected(&self.value), &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match &self.value {
            Value::String(text) => {
                let text: StrDeserializer<'_, Refusal> = text.as_str().into_deserializer();
                visitor.visit_enum(text)
            }
            other => Err(serde::de::Error::invalid_type(unexpected(other), &"a string")),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Entries<'a> {
    entries: &'a [(String, Node)],
    next: usize,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        let Some((key, _)) = self.entries.get(self.next) else { return Ok(None) };
        let key: StrDeserializer<'_, Refusal> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let (key, node) = &self.entries[self.next];
        self.next += 1;
        seed.deserialize(node).map_err(|error| error.under(key))
    }
}

struct Elements<'a> {
    nodes: &'a [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        let Some(node) = self.nodes.get(self.next) else { return Ok(None) };
        self.next += 1;
        seed.deserialize(node).map(Some).map_err(|error| error.under(&(self.next - 1).to_string()))
    }
}
