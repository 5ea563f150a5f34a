//! `.csv` and `.tsv` files: a header of column names, then a row a line, read into memory.
//!
//! A column of whole numbers is int64, one of other numbers float32, one of `true` and `false` bool. Text is refused
//! but where it stands for classes. A field without a value is an error.

use super::classes::{self, Classes};
use crate::data::source::{Column, Draw, Sample, Source};
use crate::data::{Columns, DataError, DataOptions, Dataset, Number, select};
use crate::graph::{DType, Tensor};
use csv::{ByteRecord, ErrorKind, ReaderBuilder, Trim};
use std::collections::HashMap;
use std::path::Path;

/// Reads columns of a file.
pub(super) fn open(path: &Path, options: &DataOptions, wanted: Option<&[&str]>) -> Result<Dataset, DataError> {
    let tabs = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"));
    let delimiter = options.csv.as_ref().and_then(|csv| csv.delimiter).unwrap_or(if tabs { '\t' } else { ',' });
    let delimiter = u8::try_from(delimiter).unwrap_or(b',');
    let fail = |error: csv::Error| broken(path, error);
    let mut reader = ReaderBuilder::new().trim(Trim::All).delimiter(delimiter).from_path(path).map_err(fail)?;
    let header: Vec<String> = reader.headers().map_err(fail)?.iter().map(str::to_string).collect();
    let format = |reason: String| DataError::Format { path: path.to_path_buf(), format: ".csv", reason };
    if !header.is_empty() && header.iter().all(|name| name.parse::<f64>().is_ok()) {
        return Err(format("its first line holds only numbers, expected the names of the columns".into()));
    }
    if let Some(name) = header.iter().enumerate().find(|(place, name)| header[..*place].contains(name)) {
        return Err(format(format!("it has two columns \"{}\"", name.1)));
    }
    let names = select(path, header.clone(), wanted)?;
    let places = names.iter().map(|name| header.iter().position(|other| other == name).unwrap_or_default());
    let mut fields: Vec<(usize, Field)> =
        places.zip(&names).map(|(place, name)| (place, Field::of(name, options))).collect();
    let mut record = ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(fail)? {
        for ((place, field), name) in fields.iter_mut().zip(&names) {
            field.push(record.get(*place).unwrap_or_default()).map_err(|reason| {
                let line = record.position().map_or(0, csv::Position::line);
                DataError::Line { path: path.to_path_buf(), line, column: name.clone(), reason }
            })?;
        }
    }
    let mut columns = Vec::with_capacity(names.len());
    let mut texts = Vec::with_capacity(names.len());
    for ((_, field), name) in fields.into_iter().zip(names) {
        let (tensor, classes) = field.finish().map_err(|reason| DataError::Column {
            path: path.to_path_buf(),
            column: name.clone(),
            reason,
        })?;
        columns.push((name, tensor));
        texts.push(classes);
    }
    Ok(Dataset::of(Table { columns: Columns::new(path, columns)?, texts }))
}

fn broken(path: &Path, error: csv::Error) -> DataError {
    let line = error.position().map_or(0, csv::Position::line);
    let reason = match error.into_kind() {
        ErrorKind::Io(source) => return DataError::Read { path: path.to_path_buf(), source },
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("line {line} has {len} fields, expected {expected_len} as in the first line")
        }
        ErrorKind::Utf8 { .. } => format!("line {line} is not UTF-8"),
        other => format!("line {line}: {other:?}"),
    };
    DataError::Format { path: path.to_path_buf(), format: ".csv", reason }
}

/// The values of a column so far.
enum Field {
    Empty {
        wide: bool,
    },
    Ints(Vec<i64>, bool),
    Floats(Vec<f32>),
    Wide(Vec<f64>),
    Bools(Vec<bool>),
    /// Texts that are classes, or numbers if all of them are.
    Texts {
        known: HashMap<String, usize>,
        values: Vec<usize>,
        classes: Vec<String>,
        wide: bool,
    },
}

impl Field {
    fn of(name: &str, options: &DataOptions) -> Field {
        let wide = options.types.get(name) == Some(&Number::Float64);
        match options.classes_of(name) {
            Some(classes) => {
                Field::Texts { known: HashMap::new(), values: Vec::new(), classes: classes.to_vec(), wide }
            }
            None => Field::Empty { wide },
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_string())?;
        if is_missing(text) {
            let what = if text.is_empty() { "is empty".to_string() } else { format!("\"{text}\" is no value") };
            return Err(format!("{what}, expected one"));
        }
        let number = || text.parse::<f64>().ok().filter(|value| value.is_finite());
        match self {
            Field::Texts { known, values, .. } => {
                let next = known.len();
                values.push(*known.entry(text.to_string()).or_insert(next));
            }
            Field::Empty { wide } => {
                let wide = *wide;
                *self = match (text.parse::<i64>(), flag(text), number()) {
                    (Ok(value), ..) => Field::Ints(vec![value], wide),
                    (_, Some(value), _) => Field::Bools(vec![value]),
                    (_, _, Some(value)) if wide => Field::Wide(vec![value]),
                    (_, _, Some(_)) => Field::Floats(vec![float(text)?]),
                    _ => return Err(no_number(text)),
                };
            }
            Field::Bools(values) => {
                values.push(flag(text).ok_or_else(|| format!("\"{text}\" is neither true nor false, as before"))?);
            }
            Field::Ints(values, wide) => match (text.parse::<i64>(), number()) {
                (Ok(value), _) => values.push(value),
                (_, None) => return Err(no_number(text)),
                (_, Some(value)) if *wide => {
                    *self =
                        Field::Wide(values.iter().map(|value| *value as f64).chain(std::iter::once(value)).collect());
                }
                _ => {
                    let last = float(text)?;
                    *self =
                        Field::Floats(values.iter().map(|value| *value as f32).chain(std::iter::once(last)).collect());
                }
            },
            Field::Floats(values) => values.push(float(text)?),
            Field::Wide(values) => values.push(number().ok_or_else(|| no_number(text))?),
        }
        Ok(())
    }

    /// Returns the column, with the texts its numbers stand for.
    fn finish(self) -> Result<(Tensor, Option<Vec<String>>), String> {
        fn tensor<T: crate::graph::Element>(values: Vec<T>) -> Tensor {
            Tensor::from_vec(&[values.len()], values)
        }
        let numbers = match self {
            Field::Texts { known, values, classes, wide } => {
                let mut texts = vec![String::new(); known.len()];
                known.into_iter().for_each(|(text, place)| texts[place] = text);
                let is_value = |text: &String| flag(text).is_some() || float(text).is_ok();
                if classes.is_empty() && texts.iter().all(is_value) {
                    let mut field = Field::Empty { wide };
                    values.iter().try_for_each(|value| field.push(texts[*value].as_bytes()))?;
                    return field.finish();
                }
                let classes = Classes::of(&classes, texts.iter().map(String::as_str));
                let indices = texts.iter().map(|text| classes.index(text)).collect::<Vec<_>>();
                let unknown = |row: usize, text: usize| {
                    format!("row {row} (from 0) holds \"{}\", expected {}", texts[text], classes::list(&classes.names))
                };
                let values =
                    values.iter().enumerate().map(|(row, text)| indices[*text].ok_or_else(|| unknown(row, *text)));
                return Ok((tensor(values.collect::<Result<Vec<i64>, String>>()?), Some(classes.names)));
            }
            Field::Empty { .. } => Tensor::zeros(DType::I64, &[0]),
            Field::Ints(values, _) => tensor(values),
            Field::Floats(values) => tensor(values),
            Field::Wide(values) => tensor(values),
            Field::Bools(values) => tensor(values),
        };
        Ok((numbers, None))
    }
}

fn float(text: &str) -> Result<f32, String> {
    text.parse::<f32>().ok().filter(|value| value.is_finite()).ok_or_else(|| no_number(text))
}

fn no_number(text: &str) -> String {
    format!("\"{text}\" is no finite number")
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn is_missing(text: &str) -> bool {
    matches!(text, "" | "NA" | "N/A" | "NaN" | "nan" | "null" | "NULL" | "None" | "?")
}

#[derive(Debug)]
struct Table {
    columns: Columns,
    texts: Vec<Option<Vec<String>>>,
}

impl Source for Table {
    fn path(&self) -> &Path {
        self.columns.path()
    }

    fn rows(&self) -> usize {
        self.columns.rows()
    }

    fn columns(&self) -> &[Column] {
        self.columns.columns()
    }

    fn read(&self, columns: &[usize], samples: &[Sample], draw: Draw) -> Result<Vec<Tensor>, DataError> {
        self.columns.read(columns, samples, draw)
    }

    fn whole(&self, column: usize) -> Option<&Tensor> {
        self.columns.whole(column)
    }

    fn classes(&self, column: usize) -> Option<&[String]> {
        self.texts.get(column)?.as_deref()
    }

    fn is_untyped(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, options: &DataOptions, wanted: Option<&[&str]>) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, text).unwrap();
        let show = |error: DataError| {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            format!("{error}{source}").replace(&folder.path().display().to_string(), "")
        };
        let dataset = open(&path, options, wanted).map_err(show)?;
        let columns = dataset.columns().iter().map(|column| format!("{:?}", dataset.values(&column.name).unwrap()));
        Ok(columns.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn columns_are_typed_by_what_they_hold() {
        let cases = [
            ("a,b\n1, 2.5\n-3,4\n", "int64[2]=[1.0, -3.0] float32[2]=[2.5, 4.0]"),
            ("\u{feff}a\n1\n2.5\n", "float32[2]=[1.0, 2.5]"),
            ("a\ntrue\nFalse\n", "bool[2]=[1.0, 0.0]"),
            ("\"a b\"\r\n\"1\"\r\n", "int64[1]=[1.0]"),
            ("a\n1e3\n", "float32[1]=[1000.0]"),
            ("a\n9223372036854775808\n", "float32[1]=[9.223372036854776e18]"),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text, &DataOptions::default(), None).as_deref(), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_has_no_value_is_named_by_line_and_column() {
        let cases = [
            ("a,b\n1,2\n3,\n", "/a.csv: line 3, column \"b\": is empty, expected one"),
            ("a,b\n1,2\n\"3\n\",4\nNA,6\n", "/a.csv: line 5, column \"a\": \"NA\" is no value, expected one"),
            ("a\n1\nred\n", "/a.csv: line 3, column \"a\": \"red\" is no finite number"),
            ("a\n1.5\ninf\n", "/a.csv: line 3, column \"a\": \"inf\" is no finite number"),
            ("a\n1.5\n1e60\n", "/a.csv: line 3, column \"a\": \"1e60\" is no finite number"),
            ("a\ntrue\n1\n", "/a.csv: line 3, column \"a\": \"1\" is neither true nor false, as before"),
            ("a,b\n1,2\n3\n", "/a.csv is no .csv file: line 3 has 1 fields, expected 2 as in the first line"),
            (
                "1,2\n3,4\n",
                "/a.csv is no .csv file: its first line holds only numbers, expected the names of the columns",
            ),
            ("a,a\n3,4\n", "/a.csv is no .csv file: it has two columns \"a\""),
            ("a,b\n", "/a.csv has no rows"),
            ("", "/a.csv has no rows"),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text, &DataOptions::default(), None).unwrap_err(), expected, "{text:?}");
        }
        let error = read("ab,c\n1,x\n", &DataOptions::default(), Some(&["a"])).unwrap_err();
        assert_eq!(error, "/a.csv has no column \"a\", did you mean \"ab\"?; it has \"ab\", \"c\"");
        assert_eq!(read("ab,c\n1,x\n", &DataOptions::default(), Some(&["a*"])).unwrap(), "int64[1]=[1.0]");
    }

    #[test]
    fn texts_are_classes_where_they_are_asked_to_be() {
        let asked = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_string()).collect();
            DataOptions { classes: [("a".to_string(), names)].into(), ..DataOptions::default() }
        };
        let text = "a\nred\nblue\nred\n";
        assert_eq!(read(text, &asked(&[]), None).unwrap(), "int64[3]=[1.0, 0.0, 1.0]");
        assert_eq!(read(text, &asked(&["red", "green", "blue"]), None).unwrap(), "int64[3]=[0.0, 2.0, 0.0]");
        assert_eq!(read("a\n7\n3\n", &asked(&["3", "7"]), None).unwrap(), "int64[2]=[1.0, 0.0]");
        assert_eq!(read("a\n7\n3\n", &asked(&[]), None).unwrap(), "int64[2]=[7.0, 3.0]");
        assert_eq!(
            read(text, &asked(&["red", "green"]), None).unwrap_err(),
            "/a.csv: column \"a\" row 1 (from 0) holds \"blue\", expected \"red\", \"green\""
        );
    }
}
