//! `.jsonl` files: a JSON object a line, of numbers, bools, lists of equal length, and texts.
//!
//! The file is mapped; where its lines start is kept, and a line is parsed when it is read. Columns are typed by one
//! pass over all lines: whole numbers are int64, others float32. Texts become token ids as `[data.text]` says, or class
//! indices.

use super::classes::{self, Classes};
use super::lines::Lines;
use super::text::{self, Encoded, Encoder, Part};
use crate::data::source::{Column, Draw, LabelRange, Sample, Source};
use crate::data::{DataError, DataOptions, Dataset, Number, select};
use crate::graph::{DType, Tensor};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

#[derive(Debug)]
struct Objects {
    lines: Lines,
    columns: Vec<Column>,
    kinds: Vec<Kind>,
    encoder: Option<Encoder>,
}

#[derive(Debug)]
enum Kind {
    Numbers,
    Classes(Classes),
    Tokens(Part),
}

/// Opens a file.
pub(super) fn open(path: &Path, options: &DataOptions, wanted: Option<&[&str]>) -> Result<Dataset, DataError> {
    let lines = Lines::open(path)?;
    let encoder = options.text.as_ref().map(Encoder::new).transpose()?;
    if let (Some(encoder), Some(text)) = (&encoder, &options.text)
        && text.packing
    {
        return text::packed(&lines, encoder, options, wanted);
    }
    let texts: Vec<&str> = encoder.iter().flat_map(Encoder::columns).collect();
    let keys = lines.object(0)?.keys().filter(|key| !texts.contains(&key.as_str())).cloned().collect::<Vec<_>>();
    let made = Part::ALL.iter().filter(|part| encoder.is_some() && !keys.iter().any(|key| key == part.name()));
    let present = keys.iter().cloned().chain(made.map(|part| part.name().to_string())).collect();
    let names = select(path, present, wanted)?;
    let read: Vec<&str> = names.iter().filter(|name| keys.contains(name)).map(String::as_str).collect();
    let mut found = inspect(&lines, &read, options)?.into_iter();
    let (mut columns, mut kinds) = (Vec::with_capacity(names.len()), Vec::with_capacity(names.len()));
    for name in names {
        let part = Part::ALL.into_iter().find(|part| part.name() == name && !keys.contains(&name));
        if let (Some(part), Some(encoder)) = (part, &encoder) {
            columns.push(Column { name, dtype: DType::I64, shape: vec![encoder.length()] });
            kinds.push(Kind::Tokens(part));
        } else if let Some(Found { held, shape }) = found.next() {
            let (dtype, kind) = match held {
                Held::Bools => (DType::Bool, Kind::Numbers),
                Held::Ints => (DType::I64, Kind::Numbers),
                Held::Floats if options.types.get(&name) == Some(&Number::Float64) => (DType::F64, Kind::Numbers),
                Held::Floats => (DType::F32, Kind::Numbers),
                Held::Texts(texts) => {
                    let given = options.classes_of(&name).unwrap_or_default();
                    (DType::I64, Kind::Classes(Classes::of(given, texts.iter().map(String::as_str))))
                }
            };
            columns.push(Column { name, dtype, shape });
            kinds.push(kind);
        }
    }
    Ok(Dataset::of(Objects { lines, columns, kinds, encoder }))
}

/// What the lines so far hold in a column.
struct Found {
    held: Held,
    shape: Vec<usize>,
}

#[derive(Debug)]
enum Held {
    Bools,
    Ints,
    Floats,
    Texts(BTreeSet<String>),
}

/// Reads every line for what the columns hold.
fn inspect(lines: &Lines, names: &[&str], options: &DataOptions) -> Result<Vec<Found>, DataError> {
    let mut found: Vec<Option<Found>> = names.iter().map(|_| None).collect();
    let rows = if names.is_empty() { 0 } else { lines.len() };
    for row in 0..rows {
        let object = lines.object(row)?;
        for (name, found) in names.iter().zip(&mut found) {
            let wrong = |reason| lines.wrong(row, name, reason);
            let value = object.get(*name).ok_or_else(|| wrong("is missing".into()))?;
            let shape = found.as_ref().map_or_else(|| shape_of(value), |found| found.shape.clone());
            let asked = options.classes_of(name).is_some();
            let check = scalars(value, &shape, &mut |value| {
                let one = held(value, asked)?;
                match found {
                    None => *found = Some(Found { held: one, shape: shape.clone() }),
                    Some(found) => found.held.join(one)?,
                }
                Ok(())
            });
            check.map_err(wrong)?;
        }
    }
    let empty = |name: &str| lines.wrong(0, name, "holds an empty list".into());
    names.iter().zip(found).map(|(name, found)| found.ok_or_else(|| empty(name))).collect()
}

fn held(value: &Value, asked: bool) -> Result<Held, String> {
    match value {
        Value::Bool(_) => Ok(Held::Bools),
        Value::Number(number) if number.is_i64() => Ok(Held::Ints),
        Value::Number(_) => Ok(Held::Floats),
        Value::String(text) if asked => Ok(Held::Texts([text.clone()].into())),
        Value::String(_) => {
            Err("holds text, expected numbers; [data.text] makes text token ids, [data.classes] class indices".into())
        }
        Value::Null => Err("is null, expected a value".into()),
        Value::Array(_) | Value::Object(_) => Err(format!("holds {value}, expected a number")),
    }
}

impl Held {
    fn join(&mut self, other: Held) -> Result<(), String> {
        match (&mut *self, other) {
            (Held::Bools, Held::Bools) | (Held::Ints | Held::Floats, Held::Ints) | (Held::Floats, Held::Floats) => {}
            (Held::Ints, Held::Floats) => *self = Held::Floats,
            (Held::Texts(texts), Held::Texts(more)) => texts.extend(more),
            (before, other) => return Err(format!("holds {}, expected {} as before", other.word(), before.word())),
        }
        Ok(())
    }

    fn word(&self) -> &'static str {
        match self {
            Held::Bools => "true or false",
            Held::Ints | Held::Floats => "a number",
            Held::Texts(_) => "text",
        }
    }
}

/// Returns the lengths of nested lists.
fn shape_of(value: &Value) -> Vec<usize> {
    let mut shape = Vec::new();
    let mut inner = Some(value);
    while let Some(Value::Array(values)) = inner {
        shape.push(values.len());
        inner = values.first();
    }
    shape
}

/// Calls a function with each element of nested lists of a shape.
fn scalars(value: &Value, shape: &[usize], each: &mut dyn FnMut(&Value) -> Result<(), String>) -> Result<(), String> {
    match (value, shape.split_first()) {
        (Value::Array(values), Some((length, rest))) if values.len() == *length => {
            values.iter().try_for_each(|value| scalars(value, rest, each))
        }
        (Value::Array(values), Some((length, _))) => {
            Err(format!("holds a list of {} elements, expected {length} as in the first row", values.len()))
        }
        (Value::Array(_), None) => Err("holds a list, expected a single value as in the first row".into()),
        (_, None) => each(value),
        (_, Some((length, _))) => Err(format!("holds {value}, expected a list of {length} as in the first row")),
    }
}

impl Objects {
    fn put(&self, column: usize, value: Option<&Value>, out: &mut Vec<u8>) -> Result<(), String> {
        let Column { dtype, shape, .. } = &self.columns[column];
        let value = value.ok_or("is missing")?;
        scalars(value, shape, &mut |value| {
            let wrong = || format!("holds {value}, expected {dtype}");
            match (dtype, &self.kinds[column], value) {
                (_, Kind::Classes(classes), Value::String(text)) => {
                    let index = classes.index(text);
                    let index =
                        index.ok_or_else(|| format!("holds \"{text}\", expected {}", classes::list(&classes.names)))?;
                    out.extend(index.to_le_bytes());
                }
                (DType::Bool, _, Value::Bool(value)) => out.push(u8::from(*value)),
                (DType::I64, Kind::Numbers, value) => out.extend(value.as_i64().ok_or_else(wrong)?.to_le_bytes()),
                (DType::F64, _, value) => out.extend(value.as_f64().ok_or_else(wrong)?.to_le_bytes()),
                (DType::F32, _, value) => out.extend((value.as_f64().ok_or_else(wrong)? as f32).to_le_bytes()),
                _ => return Err(wrong()),
            }
            Ok(())
        })
    }
}

impl Source for Objects {
    fn path(&self) -> &Path {
        self.lines.path()
    }

    fn rows(&self) -> usize {
        self.lines.len()
    }

    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn read(&self, columns: &[usize], samples: &[Sample], _draw: Draw) -> Result<Vec<Tensor>, DataError> {
        let mut data: Vec<Vec<u8>> = vec![Vec::new(); columns.len()];
        let encoder = self.encoder.as_ref();
        let encoder = encoder.filter(|_| columns.iter().any(|column| matches!(self.kinds[*column], Kind::Tokens(_))));
        for Sample { row, .. } in samples {
            let object = self.lines.object(*row)?;
            let encoded: Option<Encoded> =
                encoder.map(|encoder| encoder.row(&self.lines, *row, &object)).transpose()?;
            for (column, out) in columns.iter().zip(&mut data) {
                match (&self.kinds[*column], &encoded) {
                    (Kind::Tokens(part), Some(encoded)) => encoded.put(*part, out),
                    _ => {
                        let name = &self.columns[*column].name;
                        self.put(*column, object.get(name), out)
                            .map_err(|reason| self.lines.wrong(*row, name, reason))?;
                    }
                }
            }
        }
        let tensor = |(column, data): (&usize, Vec<u8>)| {
            let column = &self.columns[*column];
            let shape = [&[samples.len()], column.shape.as_slice()].concat();
            Tensor::new(column.dtype, shape, data.into()).expect("invariant: whole rows")
        };
        Ok(columns.iter().zip(data).map(tensor).collect())
    }

    fn classes(&self, column: usize) -> Option<&[String]> {
        match self.kinds.get(column)? {
            Kind::Classes(classes) => Some(&classes.names),
            _ => None,
        }
    }

    fn is_untyped(&self) -> bool {
        true
    }

    fn label_range(&self, column: usize) -> Option<LabelRange> {
        match self.kinds.get(column)? {
            Kind::Tokens(Part::Labels) => Some(self.encoder.as_ref()?.label_range()),
            _ => None,
        }
    }
}
