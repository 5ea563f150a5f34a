//! `.parquet` files: row groups are decoded when a row of them is first read, a few thousand rows at a time.

use super::arrow::{Chunks, table};
use crate::data::{DataError, DataOptions, Dataset};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Rows that are decoded at once.
const ROWS: usize = 4096;

#[derive(Debug)]
struct RowGroups {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
    rows: Vec<usize>,
}

/// Opens a file.
pub(super) fn open(path: &Path, options: &DataOptions, wanted: Option<&[&str]>) -> Result<Dataset, DataError> {
    let file = File::open(path).map_err(|source| DataError::Read { path: path.to_path_buf(), source })?;
    let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new());
    let metadata = metadata.map_err(|error| broken(path, error.to_string()))?;
    let rows = metadata.metadata().row_groups().iter().map(|group| usize::try_from(group.num_rows()));
    let rows = rows.collect::<Result<Vec<usize>, _>>();
    let rows = rows.map_err(|_| broken(path, "a row group has a negative number of rows".into()))?;
    table(path, Box::new(RowGroups { path: path.to_path_buf(), metadata, rows }), options, wanted)
}

fn broken(path: &Path, reason: String) -> DataError {
    DataError::Format { path: path.to_path_buf(), format: ".parquet", reason }
}

impl Chunks for RowGroups {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(self.metadata.schema())
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
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), fields.iter().copied());
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_projection(mask)
            .with_row_groups(vec![chunk])
            .with_batch_size(ROWS)
            .build()
            .map_err(|error| broken(&self.path, error.to_string()))?;
        for batch in reader {
            if !each(batch.map_err(|error| broken(&self.path, error.to_string()))?)? {
                break;
            }
        }
        Ok(())
    }
}
