//! Columns made of those of a source: several as one vector, converted, normalised.

use super::options::Statistics;
use super::selection::{Selection, matching};
use super::source::{Column, Draw, LabelRange, Sample, Source};
use super::{DataError, DataOptions, Dataset, missing};
use crate::graph::{DType, Tensor};
use std::path::Path;
use std::sync::Arc;

/// Columns that are wanted of a dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish<'a> {
    /// Which.
    pub selection: &'a Selection,
    /// What reads them; numbers of a format without types become it.
    pub dtype: Option<DType>,
}

#[derive(Debug)]
struct Derived {
    source: Arc<dyn Source>,
    columns: Vec<Column>,
    /// Of each column the parts side by side.
    parts: Vec<Vec<Part>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Part {
    column: usize,
    change: Change,
}

#[derive(Clone, Debug, PartialEq)]
enum Change {
    Keep,
    Cast(DType),
    Normalize(Statistics),
}

/// Returns a dataset that has a column for each wish, under the name of its selection.
pub(super) fn derive(dataset: &Dataset, options: &DataOptions, wishes: &[Wish<'_>]) -> Result<Dataset, DataError> {
    let source = dataset.source();
    let names: Vec<&str> = source.columns().iter().map(|column| column.name.as_str()).collect();
    let mut columns: Vec<Column> = Vec::new();
    let mut parts = Vec::new();
    for wish in wishes {
        let name = wish.selection.to_string();
        if columns.iter().any(|column| column.name == name) {
            continue;
        }
        let present = || names.iter().map(|name| (*name).to_string()).collect();
        let found = wish.selection.positions(&names);
        let (positions, vector) = found.map_err(|name| missing(source.path(), name, present()))?;
        let (column, made) = column(source.as_ref(), options, &name, wish.dtype, &positions, vector)?;
        columns.push(column);
        parts.push(made);
    }
    let same = columns == source.columns()
        && parts.iter().enumerate().all(|(column, parts)| *parts == [Part { column, change: Change::Keep }]);
    Ok(if same { dataset.clone() } else { Dataset::of(Derived { source: Arc::clone(source), columns, parts }) })
}

fn column(
    source: &dyn Source,
    options: &DataOptions,
    name: &str,
    wanted: Option<DType>,
    positions: &[usize],
    vector: bool,
) -> Result<(Column, Vec<Part>), DataError> {
    let mut parts = Vec::with_capacity(positions.len());
    let mut made: Option<(DType, usize, &str)> = None;
    for position in positions {
        let found = &source.columns()[*position];
        let fail =
            |reason: String| DataError::Column { path: source.path().into(), column: found.name.clone(), reason };
        let change = change(source, options, found, wanted).map_err(fail)?;
        let dtype = match &change {
            Change::Keep => found.dtype,
            Change::Cast(dtype) => *dtype,
            Change::Normalize(_) => DType::F32,
        };
        if vector && found.shape.len() > 1 {
            return Err(fail(format!("has rows of shape {:?}, only numbers and vectors are joined", found.shape)));
        }
        let width = found.shape.iter().product::<usize>();
        made = match made {
            Some((other, _, first)) if other != dtype => {
                let text = format!("is {dtype}, and \"{first}\", which it is joined with, {other}");
                return Err(fail(format!("{text}; [data.types] can make them one")));
            }
            Some((_, sum, first)) => Some((dtype, sum + width, first)),
            None => Some((dtype, width, &found.name)),
        };
        parts.push(Part { column: *position, change });
    }
    let (dtype, width, _) = made.expect("invariant: a selection has a column");
    let shape = if vector { vec![width] } else { source.columns()[positions[0]].shape.clone() };
    Ok((Column { name: name.into(), dtype, shape }, parts))
}

fn change(
    source: &dyn Source,
    options: &DataOptions,
    column: &Column,
    wanted: Option<DType>,
) -> Result<Change, String> {
    let named = |names: &[String]| names.iter().any(|pattern| !matching(pattern, &[&column.name]).is_empty());
    if let Some(normalize) = options.normalize.as_ref().filter(|normalize| named(&normalize.columns)) {
        let statistics = normalize.statistics.get(&column.name);
        let statistics = statistics.ok_or("is normalised, and data.normalize.statistics has no entry for it")?;
        let width = column.shape.iter().product::<usize>();
        if [statistics.mean.len(), statistics.std.len()] != [width; 2] {
            let text = format!("{} means and {} deviations", statistics.mean.len(), statistics.std.len());
            return Err(format!("has {width} elements, and data.normalize.statistics gives it {text}"));
        }
        return Ok(Change::Normalize(statistics.clone()));
    }
    let asked = options.types.iter().find(|(pattern, _)| !matching(pattern, &[&column.name]).is_empty());
    let asked = asked.map(|(_, number)| number.dtype());
    let implied = wanted.filter(|dtype| source.is_untyped() && dtype.is_float() && column.dtype == DType::I64);
    Ok(match asked.or(implied) {
        Some(dtype) if dtype != column.dtype => Change::Cast(dtype),
        _ => Change::Keep,
    })
}

impl Derived {
    /// Returns the part that a column is as it stands.
    fn plain(&self, column: usize) -> Option<usize> {
        match self.parts.get(column)?.as_slice() {
            [Part { column: of, change: Change::Keep }] if self.columns[column].shape == self.of(*of).shape => {
                Some(*of)
            }
            _ => None,
        }
    }

    fn of(&self, column: usize) -> &Column {
        &self.source.columns()[column]
    }
}

impl Source for Derived {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn rows(&self) -> usize {
        self.source.rows()
    }

    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn read(&self, columns: &[usize], samples: &[Sample], draw: Draw) -> Result<Vec<Tensor>, DataError> {
        let mut needed: Vec<usize> = Vec::new();
        for part in columns.iter().flat_map(|column| &self.parts[*column]) {
            if !needed.contains(&part.column) {
                needed.push(part.column);
            }
        }
        let read = self.source.read(&needed, samples, draw)?;
        let take = |part: &Part| {
            let position = needed.iter().position(|column| *column == part.column);
            let tensor = &read[position.expect("invariant: every part is needed")];
            let name = &self.of(part.column).name;
            changed(tensor, &part.change).map_err(|(row, reason)| DataError::Row {
                path: self.path().to_path_buf(),
                row: samples.get(row).map_or(row, |sample| sample.row),
                reason: format!("of column \"{name}\" {reason}"),
            })
        };
        columns
            .iter()
            .map(|column| {
                let parts = self.parts[*column].iter().map(take).collect::<Result<Vec<Tensor>, DataError>>()?;
                let shape = [&[samples.len()], self.columns[*column].shape.as_slice()].concat();
                Ok(side_by_side(&parts, shape, self.columns[*column].dtype))
            })
            .collect()
    }

    fn is_random(&self, column: usize) -> bool {
        self.parts.get(column).is_some_and(|parts| parts.iter().any(|part| self.source.is_random(part.column)))
    }

    fn whole(&self, column: usize) -> Option<&Tensor> {
        self.source.whole(self.plain(column)?)
    }

    fn classes(&self, column: usize) -> Option<&[String]> {
        self.source.classes(self.plain(column)?)
    }

    fn is_untyped(&self) -> bool {
        self.source.is_untyped()
    }

    fn label_range(&self, column: usize) -> Option<LabelRange> {
        self.source.label_range(self.plain(column)?)
    }
}

/// Returns a changed column, or the position of the first row that cannot be.
fn changed(tensor: &Tensor, change: &Change) -> Result<Tensor, (usize, String)> {
    let values = || tensor.to_f64s().ok_or_else(|| (0, format!("is {}, which is no number", tensor.dtype())));
    match change {
        Change::Keep => Ok(tensor.clone()),
        Change::Normalize(Statistics { mean, std }) => {
            let values = values()?;
            let pairs = values.iter().zip(mean.iter().zip(std).cycle());
            let scaled = pairs.map(|(value, (mean, std))| ((value - mean) / std) as f32);
            Ok(Tensor::from_vec(tensor.shape(), scaled.collect()))
        }
        Change::Cast(DType::F64) => Ok(Tensor::from_vec(tensor.shape(), values()?)),
        Change::Cast(DType::F32) => {
            Ok(Tensor::from_vec(tensor.shape(), values()?.iter().map(|value| *value as f32).collect()))
        }
        Change::Cast(dtype) => {
            let values = values()?;
            let per_row = tensor.shape().iter().skip(1).product::<usize>().max(1);
            let limit = if *dtype == DType::I32 { f64::from(i32::MAX) } else { 9_007_199_254_740_992.0 };
            if let Some(at) = values.iter().position(|value| value.fract() != 0.0 || value.abs() > limit) {
                return Err((at / per_row, format!("holds {}, which is no {dtype}", values[at])));
            }
            Ok(match dtype {
                DType::I32 => Tensor::from_vec(tensor.shape(), values.iter().map(|value| *value as i32).collect()),
                _ => Tensor::from_vec(tensor.shape(), values.iter().map(|value| *value as i64).collect()),
            })
        }
    }
}

/// Returns the rows of tensors next to each other.
fn side_by_side(parts: &[Tensor], shape: Vec<usize>, dtype: DType) -> Tensor {
    if let [part] = parts {
        return part.reshaped(&shape);
    }
    let mut data = Vec::with_capacity(parts.iter().map(|part| part.bytes().len()).sum());
    let rows = shape[0];
    for row in 0..rows {
        for part in parts {
            let width = part.bytes().len() / rows;
            data.extend_from_slice(&part.bytes()[row * width..(row + 1) * width]);
        }
    }
    Tensor::new(dtype, shape, data.into()).expect("invariant: whole rows of one dtype")
}

#[cfg(test)]
mod tests {
    use super::super::options::{Normalize, Number};
    use super::*;

    fn dataset() -> Dataset {
        let columns = vec![
            ("a".to_string(), Tensor::from_vec(&[3], vec![1f32, 2.0, 3.0])),
            ("b".to_string(), Tensor::from_vec(&[3, 2], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0])),
            ("n".to_string(), Tensor::ints(&[7, 8, 9])),
            ("half".to_string(), Tensor::from_vec(&[3], vec![0.5f64, 1.0, 2.0])),
            ("image".to_string(), Tensor::zeros(DType::F32, &[3, 2, 2])),
        ];
        Dataset::new(Path::new("t.npz"), columns).unwrap()
    }

    fn derived(selection: &Selection, options: &DataOptions) -> Result<String, String> {
        let wish = Wish { selection, dtype: Some(DType::F32) };
        let dataset = dataset().derive(options, &[wish]).map_err(|error| error.to_string())?;
        let samples = [2, 0].map(Sample::of);
        let read = dataset.source().read(&[0], &samples, Draw::Fixed).map_err(|error| error.to_string())?;
        Ok(format!("{}: {:?}", dataset.columns()[0].name, read[0]))
    }

    #[test]
    fn columns_are_joined_converted_and_normalised() {
        let several = |names: &[&str]| Selection::Several(names.iter().map(|name| (*name).to_string()).collect());
        let options = DataOptions {
            types: [("h*".to_string(), Number::Float32), ("n".to_string(), Number::Float32)].into(),
            ..DataOptions::default()
        };
        let ints = DataOptions { types: [("half".to_string(), Number::Int64)].into(), ..DataOptions::default() };
        let statistics = Statistics { mean: vec![3.0, 0.0], std: vec![2.0, 1.0] };
        let normal = DataOptions {
            normalize: Some(Normalize { columns: vec!["b".into()], statistics: [("b".into(), statistics)].into() }),
            ..DataOptions::default()
        };
        let none = DataOptions::default();
        let cases = [
            (Selection::from("a"), &none, Ok("a: float32[2]=[3.0, 1.0]")),
            (several(&["a"]), &none, Ok("a: float32[2, 1]=[3.0, 1.0]")),
            (several(&["b", "a"]), &none, Ok("b, a: float32[2, 3]=[5.0, 6.0, 3.0, 1.0, 2.0, 1.0]")),
            (several(&["n", "half"]), &options, Ok("n, half: float32[2, 2]=[9.0, 2.0, 7.0, 0.5]")),
            (Selection::from("b"), &normal, Ok("b: float32[2, 2]=[1.0, 6.0, -1.0, 2.0]")),
            (
                Selection::from("half"),
                &ints,
                Err("t.npz: row 0 (from 0) of column \"half\" holds 0.5, which is no int64"),
            ),
            (
                several(&["a", "n"]),
                &none,
                Err("t.npz: column \"n\" is int64, and \"a\", which it is joined with, float32; \
                     [data.types] can make them one"),
            ),
            (
                several(&["image"]),
                &none,
                Err("t.npz: column \"image\" has rows of shape [2, 2], only numbers and vectors are joined"),
            ),
            (
                Selection::from("c"),
                &none,
                Err("t.npz has no column \"c\", did you mean \"a\"?; it has \"a\", \"b\", \"n\", \"half\", \"image\""),
            ),
        ];
        for (selection, options, expected) in cases {
            let found = derived(&selection, options);
            assert_eq!(found, expected.map(str::to_string).map_err(str::to_string), "{selection}");
        }
    }

    #[test]
    fn what_is_unchanged_stays_mapped() {
        let (a, b) = (Selection::from("a"), Selection::Several(vec!["a".into(), "b".into()]));
        let wishes = [Wish { selection: &b, dtype: None }, Wish { selection: &a, dtype: None }];
        let derived = dataset().derive(&DataOptions::default(), &wishes).unwrap();
        assert!(derived.source().whole(0).is_none());
        assert_eq!(derived.source().whole(1), Some(&Tensor::from_vec(&[3], vec![1f32, 2.0, 3.0])));
    }
}
