//! Token ids: one long sequence, mapped, in blocks.
//!
//! Row `i` is `input_ids`, the tokens `i * stride .. i * stride + block`, and `labels`, those one place on. Rows for which
//! the file has no last label are left out. Files are little-endian numbers without a header, or a `.npy` array of
//! rank 1. `attention_mask` holds ones, `position_ids` 0, 1, .., `block - 1`.

use super::npy;
use crate::data::source::{Column, Draw, LabelRange, Sample, Source};
use crate::data::{DataError, DataOptions, Dataset, map, select};
use crate::graph::{DType, Tensor};
use std::path::{Path, PathBuf};

/// Opens a file.
pub(super) fn open(path: &Path, options: &DataOptions, wanted: Option<&[&str]>) -> Result<Dataset, DataError> {
    let fail = |reason: String| DataError::Format { path: path.to_path_buf(), format: "token", reason };
    let Some(tokens) = &options.tokens else {
        return Err(fail("[data.tokens] is missing, which says how many tokens are a row: block = 128".into()));
    };
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let ids = if extension.as_deref() == Some("npy") {
        npy::values(path, "tokens")?
    } else {
        let dtype = match (tokens.dtype, extension.as_deref()) {
            (Some(dtype), _) => dtype.dtype(),
            (None, Some("u32")) => DType::U32,
            (None, Some("i64")) => DType::I64,
            (None, _) => DType::U16,
        };
        let data = map(path).map_err(|source| DataError::Read { path: path.to_path_buf(), source })?;
        if data.len() % dtype.size() != 0 {
            return Err(fail(format!("its {} bytes are no whole number of {dtype} tokens", data.len())));
        }
        Tensor::new(dtype, vec![data.len() / dtype.size()], data).map_err(|error| fail(error.to_string()))?
    };
    let integers = matches!(ids.dtype(), DType::U16 | DType::U32 | DType::I64 | DType::I32 | DType::U8);
    if ids.shape().len() != 1 || !integers {
        return Err(fail(format!(
            "it holds {}{:?}, expected whole numbers in one dimension",
            ids.dtype(),
            ids.shape()
        )));
    }
    let blocks = Blocks::new(path, ids, tokens.block, tokens.stride.unwrap_or(tokens.block), true, None)?;
    blocks.dataset(wanted)
}

/// Blocks of a sequence.
#[derive(Debug)]
pub(super) struct Blocks {
    path: PathBuf,
    ids: Tensor,
    block: usize,
    stride: usize,
    shift: bool,
    range: Option<LabelRange>,
    rows: usize,
    columns: Vec<Column>,
}

const NAMES: [&str; 4] = ["input_ids", "labels", "attention_mask", "position_ids"];

impl Blocks {
    /// Returns the blocks of token ids of rank 1. With `shift`, labels are one place on.
    pub fn new(
        path: &Path,
        ids: Tensor,
        block: usize,
        stride: usize,
        shift: bool,
        range: Option<LabelRange>,
    ) -> Result<Blocks, DataError> {
        let needed = block.saturating_add(usize::from(shift));
        let rows = ids.len().checked_sub(needed).map_or(0, |rest| rest / stride.max(1) + 1);
        if rows == 0 {
            let reason = format!("it holds {} tokens, a row needs {needed}", ids.len());
            return Err(DataError::Format { path: path.to_path_buf(), format: "token", reason });
        }
        Ok(Blocks { path: path.to_path_buf(), ids, block, stride, shift, range, rows, columns: Vec::new() })
    }

    /// Returns the dataset of some of the columns.
    pub fn dataset(mut self, wanted: Option<&[&str]>) -> Result<Dataset, DataError> {
        let names = select(&self.path, NAMES.iter().map(|name| (*name).to_string()).collect(), wanted)?;
        let column = |name| Column { name, dtype: DType::I64, shape: vec![self.block] };
        self.columns = names.into_iter().map(column).collect();
        Ok(Dataset::of(self))
    }

    /// Appends tokens as int64.
    fn take(&self, start: usize, out: &mut Vec<u8>) {
        let size = self.ids.dtype().size();
        let bytes = &self.ids.bytes()[start * size..(start + self.block) * size];
        let unsigned = |chunk: &[u8]| {
            let mut wide = [0; 8];
            wide[..size].copy_from_slice(chunk);
            let value = i64::from_le_bytes(wide);
            if self.ids.dtype() == DType::I32 { i64::from(value as u32 as i32) } else { value }
        };
        bytes.chunks_exact(size).for_each(|chunk| out.extend_from_slice(&unsigned(chunk).to_le_bytes()));
    }
}

impl Source for Blocks {
    fn path(&self) -> &Path {
        &self.path
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn read(&self, columns: &[usize], samples: &[Sample], _draw: Draw) -> Result<Vec<Tensor>, DataError> {
        let read = |column: &usize| {
            let mut data = Vec::with_capacity(samples.len() * self.block * 8);
            let name = self.columns[*column].name.as_str();
            for Sample { row, .. } in samples {
                let start = row * self.stride;
                match name {
                    "attention_mask" => (0..self.block).for_each(|_| data.extend_from_slice(&1i64.to_le_bytes())),
                    "position_ids" => {
                        (0i64..).take(self.block).for_each(|place| data.extend_from_slice(&place.to_le_bytes()));
                    }
                    "labels" if self.shift => self.take(start + 1, &mut data),
                    _ => self.take(start, &mut data),
                }
            }
            Tensor::new(DType::I64, vec![samples.len(), self.block], data.into()).expect("invariant: whole rows")
        };
        Ok(columns.iter().map(read).collect())
    }

    fn label_range(&self, column: usize) -> Option<LabelRange> {
        self.range.filter(|_| self.columns.get(column).is_some_and(|column| column.name == "labels"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{TokenType, TokensOptions};

    fn options(dtype: Option<TokenType>, block: usize, stride: Option<usize>) -> DataOptions {
        DataOptions { tokens: Some(TokensOptions { dtype, block, stride }), ..DataOptions::default() }
    }

    #[test]
    fn rows_are_blocks_and_labels_come_one_token_later() {
        let folder = tempfile::tempdir().unwrap();
        let ids = [5u16, 4, 65535, 2, 1, 0, 7, 8];
        let bytes = |width: usize| -> Vec<u8> {
            ids.iter().flat_map(|id| i64::from(*id).to_le_bytes()[..width].to_vec()).collect()
        };
        struct Case {
            file: &'static str,
            dtype: Option<TokenType>,
            width: usize,
            block: usize,
            stride: Option<usize>,
            rows: &'static [&'static [i64]],
        }
        let cases = [
            Case {
                file: "a.bin",
                dtype: None,
                width: 2,
                block: 3,
                stride: None,
                rows: &[&[5, 4, 65535, 2], &[2, 1, 0, 7]],
            },
            Case {
                file: "a.u16",
                dtype: None,
                width: 2,
                block: 7,
                stride: None,
                rows: &[&[5, 4, 65535, 2, 1, 0, 7, 8]],
            },
            Case { file: "a.u32", dtype: None, width: 4, block: 4, stride: None, rows: &[&[5, 4, 65535, 2, 1]] },
            Case {
                file: "a.tokens",
                dtype: Some(TokenType::I64),
                width: 8,
                block: 3,
                stride: Some(2),
                rows: &[&[5, 4, 65535, 2], &[65535, 2, 1, 0], &[1, 0, 7, 8]],
            },
        ];
        for case in cases {
            let path = folder.path().join(case.file);
            std::fs::write(&path, bytes(case.width)).unwrap();
            let dataset = open(&path, &options(case.dtype, case.block, case.stride), None).unwrap();
            assert_eq!(dataset.rows(), case.rows.len(), "{}", case.file);
            let values = |name: &str| dataset.values(name).unwrap().to_vec::<i64>().unwrap();
            let input: Vec<i64> = case.rows.iter().flat_map(|row| row[..case.block].to_vec()).collect();
            let labels: Vec<i64> = case.rows.iter().flat_map(|row| row[1..].to_vec()).collect();
            assert_eq!((values("input_ids"), values("labels")), (input, labels), "{}", case.file);
            assert!(values("attention_mask").iter().all(|one| *one == 1));
            assert_eq!(values("position_ids")[..case.block], (0..case.block as i64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_no_sequence_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        std::fs::write(&path, [0; 5]).unwrap();
        let error = |options: &DataOptions| open(&path, options, None).unwrap_err().to_string();
        assert!(error(&options(None, 2, None)).ends_with("its 5 bytes are no whole number of uint16 tokens"));
        assert!(error(&DataOptions::default()).contains("[data.tokens] is missing"));
        std::fs::write(&path, [0; 6]).unwrap();
        assert!(error(&options(None, 3, None)).ends_with("it holds 3 tokens, a row needs 4"));
        assert!(error(&options(None, usize::MAX, None)).contains("a row needs 18446744073709551615"));
    }
}
