//! idx files, as MNIST and its relatives come, also packed by gzip.
//!
//! A file is a column: `labels` of one dimension, `images` of more; images `[N, H, W]` have one channel. A path that is
//! the start of the names of a pair, `mnist/train` for `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, stands
//! for both; a folder for the pair `train` where it is trained on and `t10k` where it is evaluated on.

use super::swapped;
use crate::data::image::{Pictured, image_column};
use crate::data::{DataError, DataOptions, Dataset, Part, column, map, select};
use crate::graph::{DType, Tensor};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Opens a file, a pair or a folder.
pub(super) fn open(path: &Path, options: &DataOptions, wanted: Option<&[&str]>) -> Result<Dataset, DataError> {
    let files = if path.is_file() {
        let tensor = tensor(path)?;
        let name = if tensor.shape().len() == 1 { "labels" } else { "images" };
        select(path, vec![name.into()], wanted)?;
        vec![(name.to_string(), tensor)]
    } else {
        let stem = if path.is_dir() {
            path.join(if options.part == Part::Train { "train" } else { "t10k" })
        } else {
            path.into()
        };
        let [images, labels] = pair(&stem);
        let missing = |kind: &str| DataError::Image {
            path: PathBuf::from(format!("{}-{kind}-ubyte", stem.display())),
            reason: "does not exist, neither as it is nor with .gz".into(),
        };
        let files = [images.ok_or_else(|| missing("images-idx3"))?, labels.ok_or_else(|| missing("labels-idx1"))?];
        let names = select(path, vec!["images".into(), "labels".into()], wanted)?;
        let read = |name: String| Ok((name.clone(), tensor(&files[usize::from(name == "labels")])?));
        names.into_iter().map(read).collect::<Result<Vec<_>, DataError>>()?
    };
    pictured(Dataset::new(path, files)?, options)
}

/// Returns a dataset whose column `images` is of pictures, where it has one.
pub(super) fn pictured(dataset: Dataset, options: &DataOptions) -> Result<Dataset, DataError> {
    let position = dataset.columns().iter().position(|column| column.name == "images" && column.shape.len() > 1);
    let named = options.image.as_ref().and_then(|image| image.column.as_ref());
    match position {
        Some(position) if named.is_none() => {
            Ok(Dataset::of(Pictured::new(dataset.source().clone(), position, options)?))
        }
        Some(_) => image_column(dataset, options),
        None => Ok(dataset),
    }
}

/// Returns true for the name of an idx file, for the start of the names of a pair, and for a folder that holds one.
pub(super) fn is_one(path: &Path) -> bool {
    let named = || path.file_name().is_some_and(|name| is_name(&name.to_string_lossy()));
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => ["train", "t10k"].iter().any(|stem| pair(&path.join(stem))[0].is_some()),
        Ok(_) => named(),
        Err(_) => named() || pair(path)[0].is_some(),
    }
}

/// Returns true for names such as `train-images-idx3-ubyte`, `a.idx1-ubyte.gz`.
fn is_name(name: &str) -> bool {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let rank = name.strip_suffix("-ubyte").and_then(|name| name.strip_suffix(|rank: char| rank.is_ascii_digit()));
    rank.is_some_and(|name| name.ends_with("-idx") || name.ends_with(".idx"))
}

/// Returns the files of images and labels whose names start as the path does.
fn pair(stem: &Path) -> [Option<PathBuf>; 2] {
    ["images-idx3", "images.idx3", "labels-idx1", "labels.idx1"]
        .map(|kind| {
            let file = |end: &str| PathBuf::from(format!("{}-{kind}-ubyte{end}", stem.display()));
            [file(""), file(".gz")].into_iter().find(|file| file.is_file())
        })
        .chunks_exact(2)
        .map(|found| found.iter().flatten().next().cloned())
        .collect::<Vec<_>>()
        .try_into()
        .unwrap_or_default()
}

fn tensor(path: &Path) -> Result<Tensor, DataError> {
    let fail = |reason: String| DataError::Format { path: path.to_path_buf(), format: "idx", reason };
    let mut data = map(path).map_err(|source| DataError::Read { path: path.to_path_buf(), source })?;
    if data.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = Vec::new();
        let read = MultiGzDecoder::new(data.as_ref()).read_to_end(&mut unpacked);
        read.map_err(|error| fail(format!("cannot be unpacked: {error}")))?;
        data = unpacked.into();
    }
    let [0, 0, kind, rank, ..] = data.as_ref() else {
        let start: Vec<u8> = data.iter().take(4).copied().collect();
        return Err(fail(format!("expected to start with two bytes 0, found {start:?}")));
    };
    let dtype = match kind {
        0x08 => DType::U8,
        0x09 => DType::I8,
        0x0b => DType::I16,
        0x0c => DType::I32,
        0x0d => DType::F32,
        0x0e => DType::F64,
        other => return Err(fail(format!("expected an element type of 0x08 to 0x0e, found {other:#04x}"))),
    };
    let start = 4 + 4 * usize::from(*rank);
    let Some(header) = data.get(4..start) else { return Err(fail("ends within its header".into())) };
    let shape: Vec<usize> =
        header.chunks_exact(4).map(|dim| u32::from_be_bytes(dim.try_into().expect("four bytes")) as usize).collect();
    let expected = shape.iter().try_fold(dtype.size(), |size, dim| size.checked_mul(*dim));
    let found = data.len() - start;
    if expected != Some(found) {
        let expected = expected.map_or_else(|| "more".into(), |expected| expected.to_string());
        return Err(fail(format!("{dtype}{shape:?} takes {expected} bytes, found {found}")));
    }
    let values: Bytes = data.slice(start..);
    let values = if dtype.size() > 1 { swapped(&values, dtype.size()) } else { values };
    column(path, "images", dtype, shape, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{ImageOptions, PixelType};
    use std::io::Write;

    fn idx(kind: u8, shape: &[u32], values: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0, kind, shape.len() as u8];
        shape.iter().for_each(|dim| out.extend(dim.to_be_bytes()));
        out.extend_from_slice(values);
        out
    }

    fn packed(data: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(data).unwrap();
        writer.finish().unwrap()
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, data: Vec<u8>| std::fs::write(folder.path().join(name), data).unwrap();
        write("train-images-idx3-ubyte", idx(8, &[2, 2, 3], &(0..12).map(|value| value * 20).collect::<Vec<u8>>()));
        write("train-labels-idx1-ubyte", idx(8, &[2], &[7, 1]));
        write("t10k-images-idx3-ubyte.gz", packed(&idx(8, &[1, 2, 3], &[255; 6])));
        write("t10k-labels.idx1-ubyte.gz", packed(&idx(8, &[1], &[9])));
        folder
    }

    #[test]
    fn folders_pairs_and_single_files_are_read() {
        let folder = folder();
        let train = DataOptions::default();
        let eval = DataOptions { part: Part::Eval, ..DataOptions::default() };
        for (path, options, labels) in [
            (folder.path().to_path_buf(), &train, vec![7.0, 1.0]),
            (folder.path().to_path_buf(), &eval, vec![9.0]),
            (folder.path().join("t10k"), &train, vec![9.0]),
        ] {
            let data = Dataset::open(&path, options, None).unwrap();
            assert_eq!(data.values("labels").unwrap().to_f64s().unwrap(), labels);
            let images = data.values("images").unwrap();
            assert_eq!((images.dtype(), images.shape()), (DType::F32, &[labels.len(), 1, 2, 3][..]));
            let first = images.to_vec::<f32>().unwrap()[1];
            assert_eq!(first, if labels[0] == 9.0 { 1.0 } else { 20.0 / 255.0 });
        }
        let one = Dataset::open(&folder.path().join("train-images-idx3-ubyte"), &train, None).unwrap();
        assert_eq!((one.columns().len(), one.columns()[0].name.as_str()), (1, "images"));
        let image = Some(ImageOptions { dtype: PixelType::Uint8, ..ImageOptions::default() });
        let raw = Dataset::open(folder.path(), &DataOptions { image, ..train.clone() }, Some(&["images"])).unwrap();
        assert_eq!(raw.values("images").unwrap().to_vec::<u8>().unwrap()[..3], [0, 20, 40]);
    }

    #[test]
    fn numbers_of_several_bytes_start_with_the_highest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.idx2-ubyte");
        let values: Vec<u8> = [1.5f32, -2.0, 0.25, 8.0].iter().flat_map(|value| value.to_be_bytes()).collect();
        std::fs::write(&path, idx(0x0d, &[2, 2], &values)).unwrap();
        assert_eq!(tensor(&path).unwrap().to_vec::<f32>().unwrap(), [1.5, -2.0, 0.25, 8.0]);
        std::fs::write(&path, idx(0x0c, &[2], &[0, 0, 1, 0, 255, 255, 255, 255])).unwrap();
        assert_eq!(tensor(&path).unwrap().to_ints().unwrap(), [256, -1]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let folder = folder();
        let path = folder.path().join("bad-images-idx3-ubyte");
        let cases: [(Vec<u8>, &str); 5] = [
            (idx(8, &[2, 2, 3], &[0; 11]), "uint8[2, 2, 3] takes 12 bytes, found 11"),
            (b"PK\x03\x04".to_vec(), "expected to start with two bytes 0, found [80, 75, 3, 4]"),
            (idx(7, &[1], &[0]), "expected an element type of 0x08 to 0x0e, found 0x07"),
            (vec![0, 0, 8, 3, 0, 0], "ends within its header"),
            (vec![0x1f, 0x8b, 0], "cannot be unpacked: "),
        ];
        for (data, expected) in cases {
            std::fs::write(&path, data).unwrap();
            let error = Dataset::open(&path, &DataOptions::default(), None).unwrap_err().to_string();
            assert!(error.contains(&format!("bad-images-idx3-ubyte is no idx file: {expected}")), "{error}");
        }
        std::fs::remove_file(folder.path().join("train-labels-idx1-ubyte")).unwrap();
        let error = Dataset::open(folder.path(), &DataOptions::default(), None).unwrap_err().to_string();
        assert!(error.ends_with("train-labels-idx1-ubyte does not exist, neither as it is nor with .gz"), "{error}");
        for (name, expected) in
            [("a.idx1-ubyte", true), ("x-idx3-ubyte.gz", true), ("a.gz", false), ("idx3-ubyte", false)]
        {
            assert_eq!(is_name(name), expected, "{name}");
        }
    }
}
