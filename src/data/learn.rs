//! What reading evaluation data needs to know of the training data: the classes of texts, means and deviations.

use super::options::Statistics;
use super::selection::matching;
use super::source::{Draw, Sample, Source};
use super::{DataError, DataOptions, Dataset};

/// Rows that are read at once.
const ROWS: usize = 4096;

/// Completes options with what a dataset holds, and says what that is.
///
/// # Errors
/// A column that is normalised is not there or holds no numbers, or a row cannot be read.
pub(super) fn learn(dataset: &Dataset, options: &mut DataOptions) -> Result<Vec<String>, DataError> {
    let mut notes = Vec::new();
    let names: Vec<&str> = dataset.columns().iter().map(|column| column.name.as_str()).collect();
    for (name, classes) in options.classes.iter_mut().filter(|(_, classes)| classes.is_empty()) {
        let position = names.iter().position(|column| column == name);
        if let Some(found) = position.and_then(|position| dataset.source().classes(position)) {
            *classes = found.to_vec();
            let few = found.iter().take(10).enumerate().map(|(index, text)| format!("{index} = \"{text}\""));
            let rest = if found.len() > 10 { format!(", .. ({} in all)", found.len()) } else { String::new() };
            notes.push(format!(
                "the texts of column \"{name}\" are classes in sorted order: {}{rest}",
                few.collect::<Vec<_>>().join(", ")
            ));
        }
    }
    options.classes.retain(|_, classes| !classes.is_empty());
    let Some(normalize) = &mut options.normalize else { return Ok(notes) };
    for pattern in &normalize.columns {
        let found = matching(pattern, &names);
        if found.is_empty() {
            return Err(DataError::Unused { name: pattern.clone() });
        }
        for position in found {
            if !normalize.statistics.contains_key(names[position]) {
                let found = statistics(dataset.source().as_ref(), position)?;
                normalize.statistics.insert(names[position].to_string(), found);
            }
        }
    }
    Ok(notes)
}

/// Returns the means and deviations of a column by Welford's method, in f64.
fn statistics(source: &dyn Source, position: usize) -> Result<Statistics, DataError> {
    let column = &source.columns()[position];
    let fail = |reason: String| DataError::Column { path: source.path().into(), column: column.name.clone(), reason };
    if column.shape.len() > 1 {
        return Err(fail(format!("has rows of shape {:?}, only numbers and vectors are normalised", column.shape)));
    }
    let width = column.shape.iter().product::<usize>().max(1);
    let (mut mean, mut sum) = (vec![0.0; width], vec![0.0; width]);
    let mut count = 0.0;
    for start in (0..source.rows()).step_by(ROWS) {
        let samples: Vec<Sample> = (start..(start + ROWS).min(source.rows())).map(Sample::of).collect();
        let read = source.read(&[position], &samples, Draw::Fixed)?;
        let values = read.first().and_then(|tensor| tensor.to_f64s());
        let values = values.ok_or_else(|| fail(format!("is {}, which is no number", column.dtype)))?;
        for (row, values) in values.chunks_exact(width).enumerate() {
            count += 1.0;
            for ((value, mean), sum) in values.iter().zip(&mut mean).zip(&mut sum) {
                if !value.is_finite() {
                    return Err(DataError::Row {
                        path: source.path().into(),
                        row: start + row,
                        reason: format!("of column \"{}\" holds {value}, expected a finite number", column.name),
                    });
                }
                let before = value - *mean;
                *mean += before / count;
                *sum += before * (value - *mean);
            }
        }
    }
    let deviation = |sum: f64| Some((sum / count).sqrt()).filter(|std| *std > 0.0).unwrap_or(1.0);
    Ok(Statistics { mean, std: sum.into_iter().map(deviation).collect() })
}
