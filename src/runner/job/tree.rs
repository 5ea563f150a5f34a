//! A job file as a tree that knows where every key was written, and `--set` on top of it.

use super::{JobError, Place, Reason};
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// A value and where its key stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
}

/// A value of a job file.
#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    DateTime,
    Array(Vec<Node>),
    Table(Vec<(String, Node)>),
}

impl Node {
    /// Returns the entries of a table, in the order of the file.
    pub fn entries(&self) -> &[(String, Node)] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }

    /// Returns the entry of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Array(nodes) => nodes.get(key.parse::<usize>().ok()?),
            _ => self.entries().iter().find(|entry| entry.0 == key).map(|entry| &entry.1),
        }
    }

    /// Returns the node at a path of keys.
    pub fn at(&self, path: &[String]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }
}

/// Returns the tree of a file's text.
pub(super) fn parse(file: &Path, text: &str) -> Result<Node, JobError> {
    let line = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
    let fail = |offset: usize, reason: &str| {
        let reason = reason.lines().collect::<Vec<_>>().join(", ");
        JobError::Job { file: file.to_path_buf(), reason: Box::new(Reason::Syntax { line: line(offset), reason }) }
    };
    let table =
        DeTable::parse(text).map_err(|error| fail(error.span().map_or(0, |span| span.start), error.message()))?;
    let place = |offset: usize| Place::Line(line(offset));
    let value = self::table(table.into_inner(), &place).map_err(|(offset, reason)| fail(offset, reason))?;
    Ok(Node { place: Place::Line(1), value })
}

type Failure = (usize, &'static str);

fn table(table: DeTable<'_>, place: &dyn Fn(usize) -> Place) -> Result<Value, Failure> {
    let mut entries = Vec::with_capacity(table.len());
    for (key, found) in table {
        let start = key.span().start;
        entries.push((start, (key.into_inner().into_owned(), node(found, start, place)?)));
    }
    entries.sort_by_key(|entry| entry.0);
    Ok(Value::Table(entries.into_iter().map(|entry| entry.1).collect()))
}

fn node(found: toml::Spanned<DeValue<'_>>, start: usize, place: &dyn Fn(usize) -> Place) -> Result<Node, Failure> {
    let value = match found.into_inner() {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            Value::Integer(parsed.map_err(|_| (start, "an integer does not fit 64 bits"))?)
        }
        DeValue::Float(number) => {
            Value::Float(number.as_str().parse().map_err(|_| (start, "a number is not readable"))?)
        }
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(_) => Value::DateTime,
        DeValue::Array(array) => {
            let nodes = array.into_iter().map(|element| {
                let start = element.span().start;
                node(element, start, place)
            });
            Value::Array(nodes.collect::<Result<_, _>>()?)
        }
        DeValue::Table(inner) => table(inner, place)?,
    };
    Ok(Node { place: place(start), value })
}

/// Replaces or adds one key, given as `section.key=value`. A value that is no TOML value is a
/// string.
pub(super) fn set(root: &mut Node, argument: &str) -> Result<(), JobError> {
    let fail = |reason: String| JobError::Set { argument: argument.into(), reason };
    let (path, text) = argument.split_once('=').ok_or_else(|| fail("expected KEY=VALUE".into()))?;
    let path: Vec<&str> = path.split('.').map(str::trim).collect();
    if path.iter().any(|key| key.is_empty()) {
        return Err(fail("expected KEY=VALUE, with a key such as run.epochs".into()));
    }
    let value = value(text.trim());
    let mut current = root;
    for (depth, key) in path.iter().enumerate() {
        let Value::Table(entries) = &mut current.value else {
            return Err(fail(format!("`{}` is no section", path[..depth].join("."))));
        };
        let position = match entries.iter().position(|entry| entry.0 == *key) {
            Some(position) => position,
            None => {
                entries.push(((*key).to_string(), Node { place: Place::Set, value: Value::Table(Vec::new()) }));
                entries.len() - 1
            }
        };
        current = &mut entries[position].1;
    }
    *current = Node { place: Place::Set, value };
    Ok(())
}

fn value(text: &str) -> Value {
    let document = format!("v = {text}");
    let parsed = DeTable::parse(&document).ok().and_then(|parsed| table(parsed.into_inner(), &|_| Place::Set).ok());
    match parsed {
        Some(Value::Table(mut entries)) if entries.len() == 1 => match entries.remove(0).1.value {
            Value::DateTime => Value::String(text.into()),
            value => value,
        },
        _ => Value::String(text.into()),
    }
}
