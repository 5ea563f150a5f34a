//! Files whose columns stand side by side.

use super::dataset::same_rows;
use super::files::Files;
use super::formats;
use super::image::image_column;
use super::selection::matching;
use super::source::{Column, Draw, LabelRange, Sample, Source};
use super::{DataError, DataOptions, Dataset, missing};
use crate::graph::Tensor;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug)]
struct Joined {
    path: PathBuf,
    columns: Vec<Column>,
    /// Of each column the file and its position there.
    places: Vec<(Dataset, usize)>,
    rows: usize,
}

/// Opens a file for each column.
pub(super) fn open(
    parts: &BTreeMap<String, PathBuf>,
    files: &Files,
    options: &DataOptions,
    wanted: Option<&[&str]>,
) -> Result<Dataset, DataError> {
    let path = PathBuf::from(files.to_string());
    let present: Vec<&str> = parts.keys().map(String::as_str).collect();
    let mut taken = vec![wanted.is_none(); present.len()];
    for name in wanted.unwrap_or_default() {
        let found = matching(name, &present);
        if found.is_empty() {
            return Err(missing(&path, name, present.iter().map(|name| (*name).to_string()).collect()));
        }
        found.into_iter().for_each(|position| taken[position] = true);
    }
    let (mut columns, mut places, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    // Which column is of pictures is seen of all of them.
    let plain = DataOptions { image: None, augment: None, ..options.clone() };
    let mut pictures = false;
    for ((name, file), _) in parts.iter().zip(taken).filter(|(_, taken)| *taken) {
        let own = formats::holds_pictures(file, options);
        pictures |= own;
        let (dataset, position) = column(name, file, if own { options } else { &plain })?;
        columns.push(Column { name: name.clone(), ..dataset.columns()[position].clone() });
        lengths.push((name.as_str(), dataset.rows()));
        places.push((dataset, position));
    }
    let rows = same_rows(&path, &lengths)?;
    let dataset = Dataset::of(Joined { path, columns, places, rows });
    if pictures { Ok(dataset) } else { image_column(dataset, options) }
}

/// Opens the file of a column: with its column of that name, or with the only one.
fn column(name: &str, path: &Path, options: &DataOptions) -> Result<(Dataset, usize), DataError> {
    let open = |name: &str, options: &DataOptions| Dataset::open_files(&path.into(), options, Some(&[name]));
    let (dataset, name) = match open(name, options) {
        Err(DataError::Missing { present, .. }) if present.len() == 1 => {
            let mut options = options.clone();
            let classes = options.classes.remove(name);
            options.classes.extend(classes.map(|classes| (present[0].clone(), classes)));
            (open(&present[0], &options)?, present[0].clone())
        }
        other => (other?, name.to_string()),
    };
    let position = dataset.position(&name)?;
    Ok((dataset, position))
}

impl Source for Joined {
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
        let mut tensors = Vec::with_capacity(columns.len());
        for column in columns {
            let (dataset, position) = &self.places[*column];
            tensors.extend(dataset.source().read(&[*position], samples, draw)?);
        }
        Ok(tensors)
    }

    fn is_random(&self, column: usize) -> bool {
        self.places.get(column).is_some_and(|(dataset, position)| dataset.source().is_random(*position))
    }

    fn whole(&self, column: usize) -> Option<&Tensor> {
        let (dataset, position) = self.places.get(column)?;
        dataset.source().whole(*position)
    }

    fn classes(&self, column: usize) -> Option<&[String]> {
        let (dataset, position) = self.places.get(column)?;
        dataset.source().classes(*position)
    }

    fn is_untyped(&self) -> bool {
        self.places.iter().all(|(dataset, _)| dataset.source().is_untyped())
    }

    fn label_range(&self, column: usize) -> Option<LabelRange> {
        let (dataset, position) = self.places.get(column)?;
        dataset.source().label_range(*position)
    }
}
