//! Tables in Arrow's columns: what a column of them is, and files of Arrow IPC (`.arrow`, `.feather`).
//!
//! A column holds numbers, bools, lists of equal length, or lists of these. Text stands for classes where it is asked
//! to. A null is an error. Batches of rows are decoded once, into a [`Cache`].

use super::cache::{Cache, Sink};
use super::classes::{self, Classes};
use crate::data::source::{Column, Draw, Sample, Source};
use crate::data::{DataError, DataOptions, Dataset, map, select};
use crate::graph::{DType, Tensor};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_ipc::reader::{FileReader, read_footer_length};
use arrow_schema::{DataType, SchemaRef};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Chunks of rows of a file.
pub(super) trait Chunks: Debug + Send + Sync {
    /// Returns the columns.
    fn schema(&self) -> SchemaRef;

    /// Returns the number of rows of each chunk.
    fn rows(&self) -> &[usize];

    /// Decodes some columns of a chunk, in the order of the file, a few rows at a time, until `each` returns false.
    fn decode(
        &self,
        chunk: usize,
        fields: &[usize],
        each: &mut dyn FnMut(RecordBatch) -> Result<bool, DataError>,
    ) -> Result<(), DataError>;
}

/// Rows of a file.
#[derive(Debug)]
struct Table {
    path: PathBuf,
    chunks: Box<dyn Chunks>,
    columns: Vec<Column>,
    /// Of each column its place in the file and the classes its texts stand for.
    fields: Vec<(usize, Option<Classes>)>,
    cache: Cache,
}

/// Returns the dataset of chunks.
pub(super) fn table(
    path: &Path,
    chunks: Box<dyn Chunks>,
    options: &DataOptions,
    wanted: Option<&[&str]>,
) -> Result<Dataset, DataError> {
    let schema = chunks.schema();
    let present: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let names = select(path, present.clone(), wanted)?;
    if chunks.rows().iter().all(|rows| *rows == 0) {
        return Err(DataError::Empty { path: path.to_path_buf() });
    }
    let mut columns = Vec::with_capacity(names.len());
    let mut fields = Vec::with_capacity(names.len());
    for name in names {
        let field = present.iter().position(|other| *other == name).unwrap_or_default();
        let fail = |reason: String| DataError::Column { path: path.to_path_buf(), column: name.clone(), reason };
        let (mut shape, mut kind) = (Vec::new(), schema.field(field).data_type());
        let mut depth = 0;
        while let DataType::List(inner) | DataType::LargeList(inner) | DataType::FixedSizeList(inner, _) = kind {
            (depth, kind) = (depth + 1, inner.data_type());
        }
        let text = is_text(kind);
        let dtype = if text { Some(DType::I64) } else { number(kind) };
        let dtype = dtype.ok_or_else(|| {
            fail(format!("has type {}, expected numbers, bool or lists of them", schema.field(field).data_type()))
        })?;
        if depth > 0 {
            shape = lengths(chunks.as_ref(), field, depth)?;
        }
        let classes = match (text, options.classes_of(&name)) {
            (false, _) => None,
            (true, None) => {
                return Err(fail(
                    "holds text, expected numbers; [data.classes] can say which text is which class".into(),
                ));
            }
            (true, Some(_)) if depth > 0 => return Err(fail("holds lists of text, expected numbers".into())),
            (true, Some([])) => {
                let found = distinct(path, chunks.as_ref(), field)?;
                Some(Classes::of(&[], found.iter().map(String::as_str)))
            }
            (true, Some(given)) => Some(Classes::of(given, std::iter::empty())),
        };
        columns.push(Column { name, dtype, shape });
        fields.push((field, classes));
    }
    let cache = Cache::new(options, chunks.rows(), &columns)?;
    Ok(Dataset::of(Table { path: path.to_path_buf(), chunks, columns, fields, cache }))
}

/// Returns the lengths of the lists of the first row.
fn lengths(chunks: &dyn Chunks, field: usize, depth: usize) -> Result<Vec<usize>, DataError> {
    let mut shape = Vec::new();
    let first = chunks.rows().iter().position(|rows| *rows > 0).unwrap_or_default();
    chunks.decode(first, &[field], &mut |batch| {
        let mut array = batch.column(0).slice(0, 1);
        for _ in 0..depth {
            let inner = inner(&array);
            let length = inner.len() / array.len().max(1);
            shape.push(length);
            array = inner;
        }
        Ok(false)
    })?;
    Ok(shape)
}

/// Returns the elements of lists.
fn inner(array: &ArrayRef) -> ArrayRef {
    fn within<T: arrow_array::OffsetSizeTrait>(array: &ArrayRef) -> ArrayRef {
        let list = array.as_list::<T>();
        let (start, end) = (list.value_offsets()[0].as_usize(), list.value_offsets()[list.len()].as_usize());
        list.values().slice(start, end - start)
    }
    match array.data_type() {
        DataType::List(_) => within::<i32>(array),
        DataType::LargeList(_) => within::<i64>(array),
        _ => array.as_fixed_size_list().values().clone(),
    }
}

/// Returns the distinct texts of a column.
fn distinct(path: &Path, chunks: &dyn Chunks, field: usize) -> Result<BTreeSet<String>, DataError> {
    let mut found = BTreeSet::new();
    let mut start = 0;
    for chunk in 0..chunks.rows().len() {
        chunks.decode(chunk, &[field], &mut |batch| {
            let array = batch.column(0);
            texts(array, &mut |_, text| {
                if !found.contains(text) {
                    found.insert(text.to_string());
                }
                Ok(())
            })
            .map_err(|(row, reason)| row_error(path, &batch, start + row, reason))?;
            start += batch.num_rows();
            Ok(true)
        })?;
    }
    Ok(found)
}

fn row_error(path: &Path, batch: &RecordBatch, row: usize, reason: String) -> DataError {
    let schema = batch.schema();
    let column = schema.fields().first().map(|field| field.name().clone()).unwrap_or_default();
    DataError::Row { path: path.to_path_buf(), row, reason: format!("of column \"{column}\" {reason}") }
}

fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn number(kind: &DataType) -> Option<DType> {
    Some(match kind {
        DataType::Boolean => DType::Bool,
        DataType::Int8 => DType::I8,
        DataType::Int16 => DType::I16,
        DataType::Int32 => DType::I32,
        DataType::Int64 => DType::I64,
        DataType::UInt8 => DType::U8,
        DataType::UInt16 => DType::U16,
        DataType::UInt32 => DType::U32,
        DataType::UInt64 => DType::U64,
        DataType::Float16 => DType::F16,
        DataType::Float32 => DType::F32,
        DataType::Float64 => DType::F64,
        _ => return None,
    })
}

/// The position of a row, and what is wrong with it.
type Wrong = (usize, String);

/// Calls a function with each text of a column.
fn texts(array: &ArrayRef, each: &mut dyn FnMut(usize, &str) -> Result<(), Wrong>) -> Result<(), Wrong> {
    no_nulls(array)?;
    match array.data_type() {
        DataType::Utf8 => {
            array.as_string::<i32>().iter().flatten().enumerate().try_for_each(|(at, text)| each(at, text))
        }
        DataType::LargeUtf8 => {
            array.as_string::<i64>().iter().flatten().enumerate().try_for_each(|(at, text)| each(at, text))
        }
        DataType::Utf8View => {
            array.as_string_view().iter().flatten().enumerate().try_for_each(|(at, text)| each(at, text))
        }
        _ => {
            let dictionary = array.as_any_dictionary();
            let mut known: Vec<String> = Vec::new();
            texts(dictionary.values(), &mut |_, text| {
                known.push(text.to_string());
                Ok(())
            })?;
            let keys = dictionary.normalized_keys();
            keys.into_iter().enumerate().try_for_each(|(at, key)| each(at, known.get(key).map_or("", String::as_str)))
        }
    }
}

fn no_nulls(array: &ArrayRef) -> Result<(), Wrong> {
    match array.nulls().and_then(|nulls| (0..nulls.len()).find(|at| nulls.is_null(*at))) {
        Some(at) => Err((at, "is null, expected a value".into())),
        None => Ok(()),
    }
}

/// Appends the elements of a column, whose rows have a shape.
fn append(array: &ArrayRef, shape: &[usize], out: &mut Vec<u8>) -> Result<(), Wrong> {
    macro_rules! numbers {
        ($($kind:pat => $type:ty),* $(,)?) => {
            match array.data_type() {
                DataType::Boolean => array.as_boolean().values().iter().for_each(|value| out.push(u8::from(value))),
                $($kind => {
                    array.as_primitive::<$type>().values().iter().for_each(|value| out.extend(value.to_le_bytes()));
                })*
                other => return Err((0, format!("has type {other}, expected numbers or bool"))),
            }
        };
    }
    no_nulls(array)?;
    let Some((length, rest)) = shape.split_first() else {
        numbers! {
            DataType::Int8 => Int8Type,
            DataType::Int16 => Int16Type,
            DataType::Int32 => Int32Type,
            DataType::Int64 => Int64Type,
            DataType::UInt8 => UInt8Type,
            DataType::UInt16 => UInt16Type,
            DataType::UInt32 => UInt32Type,
            DataType::UInt64 => UInt64Type,
            DataType::Float16 => Float16Type,
            DataType::Float32 => Float32Type,
            DataType::Float64 => Float64Type,
        }
        return Ok(());
    };
    let found = |at: usize| match array.data_type() {
        DataType::List(_) => array.as_list::<i32>().value(at).len(),
        DataType::LargeList(_) => array.as_list::<i64>().value(at).len(),
        _ => *length,
    };
    if let Some(at) = (0..array.len()).find(|at| found(*at) != *length) {
        return Err((at, format!("holds a list of {} elements, expected {length} as in the first row", found(at))));
    }
    append(&inner(array), rest, out).map_err(|(at, reason)| (at / (*length).max(1), reason))
}

impl Table {
    /// Decodes the columns of a chunk.
    fn decode(&self, chunk: usize, sink: Sink<'_>) -> Result<(), DataError> {
        let fields: Vec<usize> = self.fields.iter().map(|(field, _)| *field).collect();
        let mut start = self.chunks.rows()[..chunk].iter().sum::<usize>();
        self.chunks.decode(chunk, &fields, &mut |batch| {
            let mut tensors = Vec::with_capacity(self.columns.len());
            for (place, (column, (_, classes))) in self.columns.iter().zip(&self.fields).enumerate() {
                let data = bytes(batch.column(place), column, classes.as_ref());
                let data = data.map_err(|(row, reason)| DataError::Row {
                    path: self.path.clone(),
                    row: start + row,
                    reason: format!("of column \"{}\" {reason}", column.name),
                })?;
                let shape = [&[batch.num_rows()], column.shape.as_slice()].concat();
                tensors.push(Tensor::new(column.dtype, shape, data.into()).expect("invariant: whole rows"));
            }
            start += batch.num_rows();
            sink(tensors)?;
            Ok(true)
        })
    }
}

fn bytes(array: &ArrayRef, column: &Column, classes: Option<&Classes>) -> Result<Vec<u8>, Wrong> {
    let row = column.shape.iter().product::<usize>() * column.dtype.size();
    let mut out = Vec::with_capacity(array.len() * row);
    match classes {
        None => append(array, &column.shape, &mut out)?,
        Some(classes) => texts(array, &mut |at, text| {
            let index = classes.index(text);
            let index =
                index.ok_or_else(|| (at, format!("holds \"{text}\", expected {}", classes::list(&classes.names))))?;
            out.extend(index.to_le_bytes());
            Ok(())
        })?,
    }
    Ok(out)
}

impl Source for Table {
    fn path(&self) -> &Path {
        &self.path
    }

    fn rows(&self) -> usize {
        self.cache.rows()
    }

    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn read(&self, columns: &[usize], samples: &[Sample], _draw: Draw) -> Result<Vec<Tensor>, DataError> {
        self.cache.read(&|chunk, sink| self.decode(chunk, sink), columns, samples)
    }

    fn classes(&self, column: usize) -> Option<&[String]> {
        self.fields.get(column)?.1.as_ref().map(|classes| classes.names.as_slice())
    }
}

/// An Arrow IPC file.
#[derive(Debug)]
struct Ipc {
    path: PathBuf,
    schema: SchemaRef,
    rows: Vec<usize>,
}

/// Opens an Arrow IPC file.
pub(super) fn open_ipc(path: &Path, options: &DataOptions, wanted: Option<&[&str]>) -> Result<Dataset, DataError> {
    let file = File::open(path).map_err(|source| DataError::Read { path: path.to_path_buf(), source })?;
    let reader = FileReader::try_new(file, None).map_err(|error| broken(path, error.to_string()))?;
    let rows = batch_rows(path).map_err(|reason| broken(path, reason))?;
    if rows.len() != reader.num_batches() {
        return Err(broken(path, "its footer is damaged".into()));
    }
    table(path, Box::new(Ipc { path: path.to_path_buf(), schema: reader.schema(), rows }), options, wanted)
}

fn broken(path: &Path, reason: String) -> DataError {
    DataError::Format { path: path.to_path_buf(), format: "Arrow IPC", reason }
}

/// Returns the number of rows of each batch, from the headers.
fn batch_rows(path: &Path) -> Result<Vec<usize>, String> {
    let damaged = || "its footer is damaged".to_string();
    let bytes = map(path).map_err(|error| error.to_string())?;
    let trailer = bytes.len().checked_sub(10).ok_or_else(damaged)?;
    let end: [u8; 10] = bytes[trailer..].try_into().map_err(|_| damaged())?;
    let length = read_footer_length(end).map_err(|error| error.to_string())?;
    let start = trailer.checked_sub(length).ok_or_else(damaged)?;
    let footer = arrow_ipc::root_as_footer(&bytes[start..trailer]).map_err(|error| error.to_string())?;
    let mut rows = Vec::new();
    for block in footer.recordBatches().into_iter().flatten() {
        let start = usize::try_from(block.offset()).map_err(|_| damaged())?;
        let length = usize::try_from(block.metaDataLength()).map_err(|_| damaged())?;
        let end = start.checked_add(length).ok_or_else(damaged)?;
        let header = bytes.get(start..end).ok_or_else(damaged)?;
        let skipped = if header.starts_with(&[0xff; 4]) { 8 } else { 4 };
        let message = arrow_ipc::root_as_message(header.get(skipped..).ok_or_else(damaged)?);
        let message = message.map_err(|error| error.to_string())?;
        let batch = message.header_as_record_batch().ok_or_else(damaged)?;
        rows.push(usize::try_from(batch.length()).map_err(|_| damaged())?);
    }
    Ok(rows)
}

impl Chunks for Ipc {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn rows(&self) -> &[usize] {
        &self.rows
    }

    fn decode(
        &self,
        chunk: usize,
        fields: &[usize],
        each: &mut dyn FnMut(RecordBatch) -> Result<bool, DataError>,
    ) -> Result<(), DataError> {
        let file = File::open(&self.path).map_err(|source| DataError::Read { path: self.path.clone(), source })?;
        let fail = |error: arrow_schema::ArrowError| broken(&self.path, error.to_string());
        let mut reader = FileReader::try_new(file, Some(fields.to_vec())).map_err(fail)?;
        reader.set_index(chunk).map_err(fail)?;
        if let Some(batch) = reader.next() {
            each(batch.map_err(fail)?)?;
        }
        Ok(())
    }
}
