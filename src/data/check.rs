//! Whether data fit the model, before anything runs.

use super::source::{Column, Draw, Sample, Source};
use super::{Columns, DataError, Dataset};
use crate::graph::{DType, Dim, Fact, Tensor};
use std::path::Path;
use std::sync::Arc;

/// A column that an input wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Name of the column.
    pub column: String,
    /// Name of the model's input.
    pub input: String,
    /// What the input takes; the first dimension is the batch and is not compared.
    pub fact: Fact,
}

/// A column that fits an input.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Name of the model's input.
    pub input: String,
    /// Where the rows come from.
    pub source: Arc<dyn Source>,
    /// The position of the column in its source.
    pub column: usize,
    /// What the rows are converted to when they are taken.
    pub dtype: DType,
    /// What the integers of rows are that only fill a batch up; the last row where there is none.
    pub pad: Option<i64>,
}

impl Feed {
    /// Returns the feed of a tensor in memory, whose first dimension counts the rows.
    ///
    /// # Panics
    /// When the tensor has rank 0 or no rows.
    pub fn of(input: &str, column: Tensor, dtype: DType) -> Feed {
        let columns = Columns::new(Path::new(input), vec![(input.to_string(), column)]);
        let source = Arc::new(columns.expect("a tensor with rows"));
        Feed { input: input.into(), source, column: 0, dtype, pad: None }
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.source.rows()
    }

    /// Returns true where taking rows is no more than copying them.
    pub(super) fn is_cheap(&self) -> bool {
        self.source.whole(self.column).is_some()
    }

    fn described(&self) -> &Column {
        &self.source.columns()[self.column]
    }

    /// Replaces the rows from `count` on, which only fill a batch up.
    pub(super) fn padded(&self, tensor: Tensor, count: usize) -> Tensor {
        let Some(pad) = self.pad.filter(|_| tensor.shape().first().is_some_and(|rows| *rows > count)) else {
            return tensor;
        };
        let mut values = tensor.to_ints().expect("invariant: integers are padded by an integer");
        let from = count * tensor.shape()[1..].iter().product::<usize>();
        values[from..].fill(pad);
        match tensor.dtype() {
            DType::I32 => {
                let narrow = |value: i64| i32::try_from(value).expect("invariant: labels and their padding fit");
                Tensor::from_vec(tensor.shape(), values.into_iter().map(narrow).collect())
            }
            _ => Tensor::from_vec(tensor.shape(), values),
        }
    }
}

/// Compares a dataset with what a model wants. Integers and bools may be narrower than the input's
/// integers and are then widened; no other conversion is made.
///
/// # Errors
/// A column is missing, its dtype or shape is another than the input's, or two columns give one
/// symbolic dimension two sizes.
pub fn check(dataset: &Dataset, wanted: &[Wanted]) -> Result<Vec<Feed>, DataError> {
    let mut symbols: Vec<(&str, usize, &str)> = Vec::new();
    let mut feeds = Vec::with_capacity(wanted.len());
    for Wanted { column: name, input, fact } in wanted {
        let position = dataset.position(name)?;
        let column = &dataset.columns()[position];
        let shape = [&[dataset.rows()], column.shape.as_slice()].concat();
        let dtype = fact.dtype.unwrap_or(column.dtype);
        if !(dtype == column.dtype || widens(column.dtype, dtype)) || !shape_fits(fact, &shape) {
            return Err(DataError::Fit {
                path: dataset.path().to_path_buf(),
                column: name.clone(),
                input: input.clone(),
                expected: fact.to_string(),
                found: Fact::fixed(column.dtype, &shape).to_string(),
            });
        }
        for (dim, size) in fact.shape.iter().flatten().zip(&shape).skip(1) {
            let Dim::Symbol(symbol) = dim else { continue };
            match symbols.iter().find(|known| known.0 == symbol) {
                Some((_, other_size, other)) if other_size != size => {
                    return Err(DataError::Symbol {
                        path: dataset.path().to_path_buf(),
                        symbol: symbol.clone(),
                        column: name.clone(),
                        size: *size,
                        other: (*other).to_string(),
                        other_size: *other_size,
                    });
                }
                Some(_) => {}
                None => symbols.push((symbol, *size, name)),
            }
        }
        feeds.push(Feed { input: input.clone(), source: dataset.source().clone(), column: position, dtype, pad: None });
    }
    Ok(feeds)
}

fn widens(from: DType, to: DType) -> bool {
    let narrow = matches!(from, DType::Bool | DType::U8 | DType::I8 | DType::U16 | DType::I16);
    match to {
        DType::I64 => narrow || matches!(from, DType::I32 | DType::U32),
        DType::I32 => narrow,
        _ => false,
    }
}

fn shape_fits(fact: &Fact, found: &[usize]) -> bool {
    let Some(expected) = &fact.shape else { return true };
    let fits = |(dim, size): (&Dim, &usize)| dim.known().is_none_or(|known| known == *size);
    expected.len() == found.len() && expected.iter().zip(found).skip(1).all(fits)
}

/// Checks that class labels are in `0..classes` or the ignored label.
///
/// # Errors
/// The first row that holds another label, or the column holds no integers.
pub fn check_labels(column: &str, labels: &Tensor, classes: usize, ignore_index: Option<i64>) -> Result<(), DataError> {
    labels_from(column, labels, 0, classes, ignore_index)
}

/// Checks the class labels that a feed gives, a few rows at a time.
///
/// # Errors
/// As [`check_labels`]; or a row cannot be read.
pub fn check_fed_labels(feed: &Feed, classes: usize, ignore_index: Option<i64>) -> Result<(), DataError> {
    const ROWS: usize = 4096;
    let name = &feed.described().name;
    if let Some(labels) = feed.source.whole(feed.column) {
        return check_labels(name, labels, classes, ignore_index);
    }
    if let Some(range) = feed.source.label_range(feed.column)
        && usize::try_from(range.largest).is_ok_and(|largest| largest < classes)
        && (range.none.is_none() || range.none == ignore_index)
    {
        return Ok(());
    }
    for start in (0..feed.rows()).step_by(ROWS) {
        let samples: Vec<Sample> = (start..(start + ROWS).min(feed.rows())).map(Sample::of).collect();
        let read = feed.source.read(&[feed.column], &samples, Draw::Fixed)?;
        read.iter().try_for_each(|labels| labels_from(name, labels, start, classes, ignore_index))?;
    }
    Ok(())
}

fn labels_from(
    column: &str,
    labels: &Tensor,
    start: usize,
    classes: usize,
    ignore_index: Option<i64>,
) -> Result<(), DataError> {
    let found = labels.dtype();
    let integers = found == DType::I64 || widens(found, DType::I64);
    if !integers {
        return Err(DataError::LabelType { column: column.into(), found });
    }
    let size = found.size();
    let value = |bytes: &[u8]| {
        let mut wide = [0; 8];
        wide[..size].copy_from_slice(bytes);
        let signed = matches!(found, DType::I8 | DType::I16 | DType::I32 | DType::I64);
        let unused = 64 - 8 * size as u32;
        if signed { i64::from_le_bytes(wide) << unused >> unused } else { i64::from_le_bytes(wide) }
    };
    let bad =
        |label: &i64| Some(*label) != ignore_index && usize::try_from(*label).map_or(true, |label| label >= classes);
    let mut values = labels.bytes().chunks_exact(size).map(value).enumerate();
    match values.find(|(_, label)| bad(label)) {
        None => Ok(()),
        Some((position, label)) => {
            let per_row = labels.shape().iter().skip(1).product::<usize>().max(1);
            let row = start + position / per_row;
            Err(DataError::Label { column: column.into(), row, label, classes, ignored: ignore_index })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn dims(text: &str) -> Vec<Dim> {
        let dim = |part: &str| part.parse().map_or_else(|_| Dim::Symbol(part.into()), Dim::Known);
        text.split(',').map(dim).collect()
    }

    #[test]
    fn columns_must_fit_the_inputs() {
        let columns = vec![
            ("images".to_string(), Tensor::zeros(DType::F32, &[5, 1, 8, 8])),
            ("wide".to_string(), Tensor::zeros(DType::F64, &[5, 1, 8, 8])),
            ("labels".to_string(), Tensor::zeros(DType::U8, &[5])),
            ("tokens".to_string(), Tensor::zeros(DType::I32, &[5, 12])),
            ("mask".to_string(), Tensor::zeros(DType::Bool, &[5, 11])),
        ];
        let dataset = Dataset::new(Path::new("train.npz"), columns).unwrap();
        struct Case {
            wanted: &'static [(&'static str, DType, &'static str)],
            expected: Result<DType, &'static str>,
        }
        let cases = [
            Case { wanted: &[("images", DType::F32, "N,1,8,8")], expected: Ok(DType::F32) },
            Case { wanted: &[("images", DType::F32, "32,C,8,W")], expected: Ok(DType::F32) },
            Case { wanted: &[("labels", DType::I64, "N")], expected: Ok(DType::I64) },
            Case { wanted: &[("tokens", DType::I64, "N,L")], expected: Ok(DType::I64) },
            Case {
                wanted: &[("wide", DType::F32, "N,1,8,8")],
                expected: Err("train.npz: column \"wide\" does not fit model input \"in\": \
                     expected float32[N,1,8,8], found float64[5,1,8,8]"),
            },
            Case {
                wanted: &[("images", DType::F32, "N,3,8,8")],
                expected: Err("train.npz: column \"images\" does not fit model input \"in\": \
                     expected float32[N,3,8,8], found float32[5,1,8,8]"),
            },
            Case {
                wanted: &[("images", DType::F32, "N,64")],
                expected: Err("train.npz: column \"images\" does not fit model input \"in\": \
                     expected float32[N,64], found float32[5,1,8,8]"),
            },
            Case {
                wanted: &[("labels", DType::F32, "N")],
                expected: Err(
                    "train.npz: column \"labels\" does not fit model input \"in\": expected float32[N], found uint8[5]",
                ),
            },
            Case {
                wanted: &[("tokens", DType::I64, "N,L"), ("mask", DType::Bool, "N,L")],
                expected: Err("train.npz: column \"mask\" gives \"L\" the size 11, column \"tokens\" gives it 12"),
            },
            Case {
                wanted: &[("label", DType::I64, "N")],
                expected: Err("train.npz has no column \"label\", did you mean \"labels\"?; \
                     it has \"images\", \"wide\", \"labels\", \"tokens\", \"mask\""),
            },
        ];
        for case in cases {
            let wanted: Vec<Wanted> = case
                .wanted
                .iter()
                .map(|(column, dtype, shape)| Wanted {
                    column: (*column).into(),
                    input: "in".into(),
                    fact: Fact::new(*dtype, dims(shape)),
                })
                .collect();
            let found = check(&dataset, &wanted).map(|feeds| feeds[0].dtype).map_err(|error| error.to_string());
            assert_eq!(found, case.expected.map_err(str::to_string));
        }
    }

    #[test]
    fn the_first_bad_label_is_named() {
        let cases: [(Tensor, Option<i64>, Option<&str>); 7] = [
            (Tensor::ints(&[0, 9, 3]), None, None),
            (Tensor::ints(&[0, -100, 3]), Some(-100), None),
            (Tensor::ints(&[0, 10, 11]), None, Some("row 1 (from 0) holds label 10, expected 0 to 9")),
            (
                Tensor::ints(&[0, -1]),
                Some(-100),
                Some("row 1 (from 0) holds label -1, expected 0 to 9, or -100 to be ignored"),
            ),
            (
                Tensor::from_vec(&[2, 2], vec![0u8, 1, 2, 255]),
                None,
                Some("row 1 (from 0) holds label 255, expected 0 to 9"),
            ),
            (Tensor::from_vec(&[2], vec![-7i32, 1]), None, Some("row 0 (from 0) holds label -7, expected 0 to 9")),
            (
                Tensor::from_vec(&[2], vec![u32::MAX, 1]),
                None,
                Some("row 0 (from 0) holds label 4294967295, expected 0 to 9"),
            ),
        ];
        for (labels, ignored, expected) in cases {
            let found = check_labels("labels", &labels, 10, ignored).err().map(|error| error.to_string());
            assert_eq!(found, expected.map(|expected| format!("column \"labels\": {expected}")));
        }
        let error = check_labels("y", &Tensor::scalar(1f32), 2, None).unwrap_err().to_string();
        assert_eq!(error, "column \"y\" holds float32, expected integer labels");
    }
}
