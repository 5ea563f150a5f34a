//! The binary files of CIFAR-10 and CIFAR-100.
//!
//! A record is a label, of CIFAR-100 a coarse and a fine one, and 3 x 32 x 32 bytes, red, green and blue. Columns:
//! `images`, `labels` (int64), and of CIFAR-100 `coarse_labels`. A folder stands for its files to train on
//! (`data_batch_1.bin` and so on, or `train.bin`) or to evaluate on (`test_batch.bin`, `test.bin`).

use super::idx::pictured;
use crate::data::{DataError, DataOptions, Dataset, Part, map, select};
use crate::graph::Tensor;
use std::path::{Path, PathBuf};

const PIXELS: usize = 3 * 32 * 32;

/// Which of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cifar {
    Ten,
    Hundred,
}

impl Cifar {
    fn names(self) -> &'static [&'static str] {
        match self {
            Cifar::Ten => &["labels"],
            Cifar::Hundred => &["coarse_labels", "labels"],
        }
    }

    /// Returns the files of a folder.
    fn files(self, folder: &Path, part: Part) -> Result<Vec<PathBuf>, DataError> {
        let fail = |source| DataError::Read { path: folder.to_path_buf(), source };
        let wanted = |name: &str| match (self, part) {
            (Cifar::Ten, Part::Train) => name.starts_with("data_batch_") && name.ends_with(".bin"),
            (Cifar::Ten, Part::Eval) => name == "test_batch.bin",
            (Cifar::Hundred, Part::Train) => name == "train.bin",
            (Cifar::Hundred, Part::Eval) => name == "test.bin",
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if entry.file_name().to_str().is_some_and(wanted) {
                files.push(entry.path());
            }
        }
        files.sort_unstable();
        if files.is_empty() {
            let name = match (self, part) {
                (Cifar::Ten, Part::Train) => "data_batch_1.bin",
                (Cifar::Ten, Part::Eval) => "test_batch.bin",
                (Cifar::Hundred, Part::Train) => "train.bin",
                (Cifar::Hundred, Part::Eval) => "test.bin",
            };
            return Err(DataError::Image { path: folder.join(name), reason: "does not exist".into() });
        }
        Ok(files)
    }

    /// Opens a file or a folder.
    pub fn open(self, path: &Path, options: &DataOptions, wanted: Option<&[&str]>) -> Result<Dataset, DataError> {
        let files = if path.is_dir() { self.files(path, options.part)? } else { vec![path.to_path_buf()] };
        let labels = self.names();
        let size = PIXELS + labels.len();
        let (mut images, mut columns) = (Vec::new(), vec![Vec::new(); labels.len()]);
        for file in &files {
            let data = map(file).map_err(|source| DataError::Read { path: file.clone(), source })?;
            if data.is_empty() || data.len() % size != 0 {
                let reason = format!("expected a multiple of {size} bytes, found {}", data.len());
                return Err(DataError::Format { path: file.clone(), format: "CIFAR", reason });
            }
            for record in data.chunks_exact(size) {
                let (own, pixels) = record.split_at(labels.len());
                columns.iter_mut().zip(own).for_each(|(column, label)| column.push(i64::from(*label)));
                images.extend_from_slice(pixels);
            }
        }
        let rows = images.len() / PIXELS;
        let mut all = vec![("images".to_string(), Tensor::from_vec(&[rows, 3, 32, 32], images))];
        all.extend(labels.iter().zip(columns).map(|(name, labels)| ((*name).to_string(), Tensor::ints(&labels))));
        let names = select(path, all.iter().map(|(name, _)| name.clone()).collect(), wanted)?;
        all.retain(|(name, _)| names.contains(name));
        pictured(Dataset::new(path, all)?, options)
    }

    /// Returns which of both a folder holds.
    pub fn in_folder(path: &Path) -> Option<Cifar> {
        let holds = |names: &[&str]| names.iter().any(|name| path.join(name).is_file());
        match path.is_dir() {
            true if holds(&["data_batch_1.bin", "test_batch.bin"]) => Some(Cifar::Ten),
            true if holds(&["train.bin", "test.bin"]) => Some(Cifar::Hundred),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns records whose pixels all have the value of their first label.
    fn records(labels: &[&[u8]]) -> Vec<u8> {
        labels.iter().flat_map(|own| [own.to_vec(), vec![own[0]; PIXELS]].concat()).collect()
    }

    #[test]
    fn folders_of_both_kinds_are_read_by_their_part() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, data: Vec<u8>| std::fs::write(folder.path().join(name), data).unwrap();
        write("data_batch_2.bin", records(&[&[3]]));
        write("data_batch_1.bin", records(&[&[9], &[0]]));
        write("test_batch.bin", records(&[&[5]]));
        let eval = DataOptions { part: Part::Eval, ..DataOptions::default() };
        for (options, labels) in [(DataOptions::default(), vec![9, 0, 3]), (eval.clone(), vec![5])] {
            let data = Dataset::open(folder.path(), &options, None).unwrap();
            assert_eq!(data.values("labels").unwrap().to_ints().unwrap(), labels);
            let images = data.values("images").unwrap();
            assert_eq!(images.shape(), [labels.len(), 3, 32, 32]);
            assert_eq!(images.to_vec::<f32>().unwrap()[0], labels[0] as f32 / 255.0);
        }
        let hundred = tempfile::tempdir().unwrap();
        std::fs::write(hundred.path().join("train.bin"), records(&[&[3, 77]])).unwrap();
        let data = Dataset::open(hundred.path(), &DataOptions::default(), None).unwrap();
        assert_eq!(data.values("labels").unwrap().to_ints().unwrap(), [77]);
        assert_eq!(data.values("coarse_labels").unwrap().to_ints().unwrap(), [3]);
        let error = Dataset::open(hundred.path(), &eval, None).unwrap_err().to_string();
        assert!(error.ends_with("test.bin does not exist"), "{error}");
        let one = DataOptions { format: Some("cifar100".into()), ..DataOptions::default() };
        let data = Dataset::open(&hundred.path().join("train.bin"), &one, Some(&["labels"])).unwrap();
        assert_eq!((data.rows(), data.columns().len()), (1, 1));
        let ten = DataOptions { format: Some("cifar10".into()), ..DataOptions::default() };
        let error = Dataset::open(&hundred.path().join("train.bin"), &ten, None).unwrap_err().to_string();
        assert!(error.ends_with("is no CIFAR file: expected a multiple of 3073 bytes, found 3074"), "{error}");
    }
}
