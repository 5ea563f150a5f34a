//! Decoded columns in a file that is deleted with its last handle: memory holds a few rows at a time, and any row costs
//! a read of its bytes.
//!
//! A source that decodes whole chunks of rows (row groups, record batches) writes each chunk there when a row of it is
//! first read. An epoch in any order decodes every chunk once, and later epochs none.

use crate::data::source::{Column, Sample};
use crate::data::{DataError, DataOptions};
use crate::graph::{DType, Tensor};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Takes some rows that follow those before: a tensor for each column.
pub(super) type Sink<'a> = &'a mut dyn FnMut(Vec<Tensor>) -> Result<(), DataError>;

/// Decodes a chunk, a few rows at a time.
pub(super) type Decode<'a> = &'a dyn Fn(usize, Sink<'_>) -> Result<(), DataError>;

/// Returns the folder of such files: the one of the options, that of `TMPDIR`, or the system's for large files.
pub(super) fn folder(options: &DataOptions) -> PathBuf {
    let large = Path::new("/var/tmp");
    match &options.cache_dir {
        Some(folder) => folder.clone(),
        None if std::env::var_os("TMPDIR").is_none() && large.is_dir() => large.to_path_buf(),
        None => std::env::temp_dir(),
    }
}

/// Makes such a file.
pub(super) fn file(folder: &Path) -> Result<File, DataError> {
    tempfile::tempfile_in(folder).map_err(|source| DataError::Cache { path: folder.to_path_buf(), source })
}

#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    file: Mutex<File>,
    /// The first row of each chunk, and the number of rows.
    starts: Vec<usize>,
    /// Whether a chunk is written.
    written: Vec<Mutex<bool>>,
    /// Of each column the bytes of a row and where it starts in the file.
    places: Vec<(usize, u64)>,
    types: Vec<(DType, Vec<usize>)>,
}

impl Cache {
    /// Returns the cache of chunks of these numbers of rows.
    pub fn new(options: &DataOptions, chunks: &[usize], columns: &[Column]) -> Result<Cache, DataError> {
        let folder = folder(options);
        let mut starts = vec![0];
        chunks.iter().for_each(|rows| starts.push(starts[starts.len() - 1] + rows));
        let rows = starts[starts.len() - 1];
        let mut end = 0;
        let mut places = Vec::with_capacity(columns.len());
        for column in columns {
            let stride = column.shape.iter().product::<usize>() * column.dtype.size();
            places.push((stride, end));
            end += stride as u64 * rows as u64;
        }
        Ok(Cache {
            file: Mutex::new(file(&folder)?),
            folder,
            starts,
            written: chunks.iter().map(|_| Mutex::new(false)).collect(),
            places,
            types: columns.iter().map(|column| (column.dtype, column.shape.clone())).collect(),
        })
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// Reads rows of columns, decoding the chunks that no row was read of yet.
    pub fn read(&self, decode: Decode<'_>, columns: &[usize], samples: &[Sample]) -> Result<Vec<Tensor>, DataError> {
        let mut chunks: Vec<usize> =
            samples.iter().map(|sample| self.starts.partition_point(|start| *start <= sample.row) - 1).collect();
        chunks.sort_unstable();
        chunks.dedup();
        chunks.into_iter().try_for_each(|chunk| self.ensure(decode, chunk))?;
        columns.iter().map(|column| self.rows_of(*column, samples).map_err(|error| self.failed(error))).collect()
    }

    fn failed(&self, source: std::io::Error) -> DataError {
        DataError::Cache { path: self.folder.clone(), source }
    }

    /// Writes a chunk where it is not yet.
    fn ensure(&self, decode: Decode<'_>, chunk: usize) -> Result<(), DataError> {
        let mut written = self.written[chunk].lock().unwrap_or_else(PoisonError::into_inner);
        if *written {
            return Ok(());
        }
        let mut row = self.starts[chunk];
        decode(chunk, &mut |tensors| {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            for (tensor, (stride, start)) in tensors.iter().zip(&self.places) {
                let at = start + *stride as u64 * row as u64;
                let write = file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(tensor.bytes()));
                write.map_err(|error| self.failed(error))?;
            }
            row += tensors.first().map_or(0, |tensor| tensor.shape()[0]);
            Ok(())
        })?;
        assert_eq!(row, self.starts[chunk + 1], "a chunk has the rows that it says");
        *written = true;
        Ok(())
    }

    fn rows_of(&self, column: usize, samples: &[Sample]) -> std::io::Result<Tensor> {
        let (stride, start) = self.places[column];
        let mut data = vec![0; stride * samples.len()];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = 0;
        while place < samples.len() {
            let run = samples[place..].iter().zip(samples[place].row..).take_while(|(sample, row)| sample.row == *row);
            let count = run.count();
            file.seek(SeekFrom::Start(start + stride as u64 * samples[place].row as u64))?;
            file.read_exact(&mut data[place * stride..(place + count) * stride])?;
            place += count;
        }
        let (dtype, shape) = &self.types[column];
        let shape = [&[samples.len()], shape.as_slice()].concat();
        Ok(Tensor::new(*dtype, shape, data.into()).expect("invariant: whole rows"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_chunk_is_decoded_once_whoever_reads_it() {
        let column = |name: &str, dtype, shape: &[usize]| Column { name: name.into(), dtype, shape: shape.to_vec() };
        let columns = [column("a", DType::I64, &[]), column("b", DType::F32, &[2])];
        let chunks = [3, 0, 5, 2];
        let cache = Cache::new(&DataOptions::default(), &chunks, &columns).unwrap();
        let decoded: Vec<AtomicUsize> = chunks.iter().map(|_| AtomicUsize::new(0)).collect();
        let decode = |chunk: usize, sink: Sink<'_>| {
            decoded[chunk].fetch_add(1, Ordering::Relaxed);
            let start = chunks[..chunk].iter().sum::<usize>();
            (start..start + chunks[chunk]).try_for_each(|row| {
                let pair = vec![row as f32, row as f32 / 2.0];
                sink(vec![Tensor::ints(&[row as i64]), Tensor::from_vec(&[1, 2], pair)])
            })
        };
        let orders: [&[usize]; 4] = [&[9, 0, 4, 4, 1], &[3, 4, 5, 6, 7], &[0, 1, 2], &[8, 9, 7, 2]];
        std::thread::scope(|scope| {
            for order in orders {
                let (cache, decode) = (&cache, &decode);
                scope.spawn(move || {
                    let samples: Vec<Sample> = order.iter().copied().map(Sample::of).collect();
                    let read = cache.read(decode, &[1, 0], &samples).unwrap();
                    let expected: Vec<f64> = order.iter().flat_map(|row| [*row as f64, *row as f64 / 2.0]).collect();
                    assert_eq!(read[0].to_f64s().unwrap(), expected);
                    assert_eq!(read[1], Tensor::ints(&order.iter().map(|row| *row as i64).collect::<Vec<_>>()));
                });
            }
        });
        let counts: Vec<usize> = decoded.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!(counts, [1, 0, 1, 1]);
    }

    #[test]
    fn a_folder_that_takes_no_file_is_named() {
        let options = DataOptions { cache_dir: Some("/none/here".into()), ..DataOptions::default() };
        let error = Cache::new(&options, &[1], &[]).unwrap_err().to_string();
        assert_eq!(error, "cannot keep decoded data in /none/here");
    }
}
