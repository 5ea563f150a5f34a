//! Files whose rows follow each other.

use super::files::{Files, matching};
use super::source::{Column, Draw, LabelRange, Sample, Source};
use super::{DataError, DataOptions, Dataset, Number, Selection, Wish, formats};
use crate::graph::{DType, Fact, Tensor};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[derive(Debug)]
struct Concat {
    path: PathBuf,
    columns: Vec<Column>,
    parts: Vec<Part>,
    rows: usize,
}

#[derive(Debug)]
struct Part {
    dataset: Dataset,
    /// The first row.
    start: usize,
    /// The position of each column in this file.
    columns: Vec<usize>,
}

/// Opens paths and patterns.
pub(super) fn open(
    paths: &[&Path],
    files: &Files,
    options: &DataOptions,
    columns: Option<&[&str]>,
) -> Result<Dataset, DataError> {
    let mut found = Vec::new();
    for path in paths {
        found.extend(matching(path)?);
    }
    let open = |options: &DataOptions| {
        found.iter().map(|path| formats::open(path, options, columns)).collect::<Result<Vec<Dataset>, DataError>>()
    };
    let mut parts = open(options)?;
    if parts.len() == 1 {
        return Ok(parts.swap_remove(0));
    }
    if let Some(options) = with_all_classes(&parts, options) {
        parts = open(&options)?;
    }
    Ok(Dataset::of(Concat::new(files, of_one_type(parts)?)?))
}

/// Returns options with the texts of all files for columns whose classes are those that are found, where files differ.
fn with_all_classes(parts: &[Dataset], options: &DataOptions) -> Option<DataOptions> {
    let mut options = options.clone();
    let mut differ = false;
    for (name, classes) in options.classes.iter_mut().filter(|(_, classes)| classes.is_empty()) {
        let found = |part: &Dataset| {
            let position = part.columns().iter().position(|column| column.name == *name)?;
            part.source().classes(position).map(<[String]>::to_vec)
        };
        let found: Vec<Option<Vec<String>>> = parts.iter().map(found).collect();
        if found.iter().any(Option::is_some) && found.iter().any(|list| *list != found[0]) {
            differ = true;
            let all: BTreeSet<String> = found.into_iter().flatten().flatten().collect();
            *classes = all.into_iter().collect();
        }
    }
    differ.then_some(options)
}

/// Makes numbers without types floats where one file has integers only and another has not.
fn of_one_type(parts: Vec<Dataset>) -> Result<Vec<Dataset>, DataError> {
    let mut options = DataOptions::default();
    let columns = parts.iter().filter(|part| part.source().is_untyped()).flat_map(Dataset::columns);
    for column in columns.filter(|column| column.dtype == DType::F32) {
        options.types.insert(column.name.clone(), Number::Float32);
    }
    let derive = |part: Dataset| {
        if !part.source().is_untyped() || part.columns().iter().all(|column| column.dtype != DType::I64) {
            return Ok(part);
        }
        let selections: Vec<Selection> =
            part.columns().iter().map(|column| Selection::One(column.name.clone())).collect();
        let wishes: Vec<Wish<'_>> = selections.iter().map(|selection| Wish { selection, dtype: None }).collect();
        part.derive(&options, &wishes)
    };
    parts.into_iter().map(derive).collect()
}

impl Concat {
    fn new(files: &Files, datasets: Vec<Dataset>) -> Result<Concat, DataError> {
        let first = datasets.first().map(|first| (first.path().to_path_buf(), first.columns().to_vec()));
        let (first_path, columns) = first.unwrap_or_default();
        let mut rows = 0;
        let mut parts = Vec::with_capacity(datasets.len());
        for dataset in datasets {
            let mut positions = Vec::with_capacity(columns.len());
            for column in &columns {
                let position = dataset.position(&column.name)?;
                let found = &dataset.columns()[position];
                if found != column {
                    let text = |column: &Column| Fact::fixed(column.dtype, &column.shape).to_string();
                    return Err(DataError::Parts {
                        path: dataset.path().to_path_buf(),
                        column: column.name.clone(),
                        found: text(found),
                        first: first_path,
                        expected: text(column),
                    });
                }
                positions.push(position);
            }
            let start = rows;
            rows += dataset.rows();
            parts.push(Part { dataset, start, columns: positions });
        }
        if parts.is_empty() {
            return Err(DataError::Empty { path: PathBuf::from(files.to_string()) });
        }
        Ok(Concat { path: PathBuf::from(files.to_string()), columns, parts, rows })
    }

    fn part_of(&self, row: usize) -> usize {
        self.parts.partition_point(|part| part.start <= row) - 1
    }

    fn first(&self, column: usize) -> (&dyn Source, usize) {
        let part = &self.parts[0];
        (part.dataset.source().as_ref(), part.columns[column])
    }
}

impl Source for Concat {
    fn path(&self) -> &Path {
        &self.path
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn read(&self, columns: &[usize], samples: &[Sample], draw: Draw) -> Result<Vec<Tensor>, DataError> {
        let mut data: Vec<Vec<u8>> = columns
            .iter()
            .map(|column| {
                let column = &self.columns[*column];
                vec![0; samples.len() * column.shape.iter().product::<usize>() * column.dtype.size()]
            })
            .collect();
        for (index, part) in self.parts.iter().enumerate() {
            let places: Vec<usize> =
                (0..samples.len()).filter(|place| self.part_of(samples[*place].row) == index).collect();
            if places.is_empty() {
                continue;
            }
            let inner: Vec<Sample> = places
                .iter()
                .map(|place| Sample { row: samples[*place].row - part.start, ..samples[*place] })
                .collect();
            let positions: Vec<usize> = columns.iter().map(|column| part.columns[*column]).collect();
            let read = part.dataset.source().read(&positions, &inner, draw)?;
            for (data, tensor) in data.iter_mut().zip(read) {
                let stride = tensor.bytes().len() / inner.len();
                for (from, to) in places.iter().enumerate() {
                    data[to * stride..(to + 1) * stride]
                        .copy_from_slice(&tensor.bytes()[from * stride..(from + 1) * stride]);
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

    fn is_random(&self, column: usize) -> bool {
        self.parts.iter().any(|part| part.dataset.source().is_random(part.columns[column]))
    }

    fn classes(&self, column: usize) -> Option<&[String]> {
        let (source, column) = self.first(column);
        source.classes(column)
    }

    fn is_untyped(&self) -> bool {
        self.parts.iter().any(|part| part.dataset.source().is_untyped())
    }

    fn label_range(&self, column: usize) -> Option<LabelRange> {
        let ranges = self.parts.iter().map(|part| part.dataset.source().label_range(part.columns[column]));
        let ranges = ranges.collect::<Option<Vec<LabelRange>>>()?;
        let largest = ranges.iter().map(|range| range.largest).max()?;
        let none = ranges.first()?.none;
        ranges.iter().all(|range| range.none == none).then_some(LabelRange { largest, none })
    }
}
