//! `.npz` files: a zip archive of `.npy` arrays.
//!
//! Stored entries (`numpy.savez`) are mapped, compressed ones (`numpy.savez_compressed`) are read.

use crate::data::{DataError, column, map, select};
use crate::graph::{DType, Tensor};
use bytes::Bytes;
use npyz::{DType as NpyType, Endianness, NpyHeader, Order, TypeChar};
use std::io::{Cursor, Read};
use std::path::Path;
use zip::{CompressionMethod, ZipArchive};

/// Reads columns of a file in the order of the file.
pub(super) fn read(path: &Path, wanted: Option<&[&str]>) -> Result<Vec<(String, Tensor)>, DataError> {
    let file = map(path).map_err(|source| DataError::Read { path: path.to_path_buf(), source })?;
    let mut archive = ZipArchive::new(Cursor::new(file.clone())).map_err(|error| DataError::Format {
        path: path.to_path_buf(),
        format: ".npz",
        reason: error.to_string(),
    })?;
    let present = archive
        .file_names()
        .filter_map(Result::ok)
        .filter_map(|name| npyz::npz::array_name_from_file_name(&name).map(str::to_string))
        .collect();
    let names = select(path, present, wanted)?;
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        let fail = |reason: String| DataError::Column { path: path.to_path_buf(), column: name.clone(), reason };
        let bytes = entry(&mut archive, &file, &format!("{name}.npy")).map_err(fail)?;
        let (dtype, shape, data) = array(bytes).map_err(fail)?;
        let tensor = column(path, &name, dtype, shape, data)?;
        columns.push((name, tensor));
    }
    Ok(columns)
}

/// Returns the bytes of one entry.
fn entry(archive: &mut ZipArchive<Cursor<Bytes>>, file: &Bytes, name: &str) -> Result<Bytes, String> {
    let mut entry = archive.by_name(name).map_err(|error| format!("cannot be read: {error}"))?;
    let size = usize::try_from(entry.size()).map_err(|_| "is larger than this machine can address".to_string())?;
    if entry.compression() == CompressionMethod::Stored
        && let Some(start) = entry.data_start().and_then(|start| usize::try_from(start).ok())
        && let Some(end) = start.checked_add(size).filter(|end| *end <= file.len())
    {
        return Ok(file.slice(start..end));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|error| format!("cannot be unpacked: {error}"))?;
    Ok(bytes.into())
}

/// Returns dtype, shape and row-major little-endian bytes of a `.npy` array.
pub(super) fn array(bytes: Bytes) -> Result<(DType, Vec<usize>, Bytes), String> {
    let mut cursor = Cursor::new(bytes.clone());
    let header = NpyHeader::from_reader(&mut cursor).map_err(|error| format!("is no .npy array: {error}"))?;
    let start = usize::try_from(cursor.position()).unwrap_or(usize::MAX).min(bytes.len());
    let (dtype, big) = dtype(&header.dtype())?;
    let shape = header.shape().iter().map(|dim| usize::try_from(*dim).map_err(|_| "has a huge shape".to_string()));
    let shape = shape.collect::<Result<Vec<usize>, String>>()?;
    let size = dtype.size();
    let expected = shape.iter().try_fold(size, |size, dim| size.checked_mul(*dim));
    let data = bytes.slice(start..);
    if expected != Some(data.len()) {
        return Err(format!("is damaged: {dtype}{shape:?} does not take {} bytes", data.len()));
    }
    let data = if big { swapped(&data, size) } else { data };
    let data = if header.order() == Order::Fortran { row_major(&data, size, &shape) } else { data };
    Ok((dtype, shape, data))
}

/// Returns the dtype of an array, and whether its elements of several bytes start with the highest.
fn dtype(found: &NpyType) -> Result<(DType, bool), String> {
    let refuse = || format!("has numpy dtype {}, expected numbers or bool", found.descr());
    let NpyType::Plain(plain) = found else { return Err(refuse()) };
    let dtype = match (plain.type_char(), plain.size_field()) {
        (TypeChar::Float, 2) => DType::F16,
        (TypeChar::Float, 4) => DType::F32,
        (TypeChar::Float, 8) => DType::F64,
        (TypeChar::Int, 1) => DType::I8,
        (TypeChar::Int, 2) => DType::I16,
        (TypeChar::Int, 4) => DType::I32,
        (TypeChar::Int, 8) => DType::I64,
        (TypeChar::Uint, 1) => DType::U8,
        (TypeChar::Uint, 2) => DType::U16,
        (TypeChar::Uint, 4) => DType::U32,
        (TypeChar::Uint, 8) => DType::U64,
        (TypeChar::Bool, 1) => DType::Bool,
        _ => return Err(refuse()),
    };
    Ok((dtype, plain.endianness() == Endianness::Big && dtype.size() > 1))
}

fn swapped(data: &[u8], size: usize) -> Bytes {
    data.chunks_exact(size).flat_map(|element| element.iter().rev().copied()).collect::<Vec<u8>>().into()
}

/// Returns column-major elements in row-major order.
fn row_major(data: &[u8], size: usize, shape: &[usize]) -> Bytes {
    let mut out = Vec::with_capacity(data.len());
    let mut index = vec![0; shape.len()];
    for _ in 0..data.len() / size {
        let position = index.iter().zip(shape).rev().fold(0, |position, (i, dim)| position * dim + i);
        out.extend_from_slice(&data[position * size..(position + 1) * size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Element;
    use npyz::{AutoSerialize, Serialize, TypeStr, WriterBuilder};
    use std::io::Write;
    use zip::write::SimpleFileOptions;

    /// Writes an array as numpy does; `elements` are in the order of the file.
    fn npy<T: AutoSerialize + Clone>(shape: &[u64], order: Order, elements: &[T]) -> Vec<u8> {
        let dtype = T::default_dtype();
        typed(shape, order, dtype, elements)
    }

    fn typed<T: Serialize + Clone>(shape: &[u64], order: Order, dtype: NpyType, elements: &[T]) -> Vec<u8> {
        let mut out = Vec::new();
        let options = npyz::WriteOptions::new().dtype(dtype).order(order).shape(shape);
        let mut writer = options.writer(&mut out).begin_nd().unwrap();
        writer.extend(elements.iter().cloned()).unwrap();
        writer.finish().unwrap();
        out
    }

    fn npz(path: &Path, method: CompressionMethod, entries: &[(&str, Vec<u8>)]) {
        let mut writer = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
        for (name, bytes) in entries {
            writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap();
    }

    fn of<T: Element>(elements: &[T]) -> Tensor {
        Tensor::from_vec(&[elements.len()], elements.to_vec())
    }

    #[test]
    fn every_dtype_is_read_stored_and_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let one = |dtype: &str| NpyType::Plain(dtype.parse::<TypeStr>().unwrap());
        let big = typed(&[2], Order::C, one(">i4"), &[1i32, -2]);
        let cases: Vec<(&str, Vec<u8>, Tensor)> = vec![
            ("f4", npy(&[2], Order::C, &[1.5f32, -2.0]), of(&[1.5f32, -2.0])),
            ("f8", npy(&[2], Order::C, &[1.5f64, -2.0]), of(&[1.5f64, -2.0])),
            ("i8", npy(&[2], Order::C, &[1i64, -2]), of(&[1i64, -2])),
            ("i4", npy(&[2], Order::C, &[1i32, -2]), of(&[1i32, -2])),
            ("i2", npy(&[2], Order::C, &[1i16, -2]), of(&[1i16, -2])),
            ("i1", npy(&[2], Order::C, &[1i8, -2]), of(&[1i8, -2])),
            ("u8", npy(&[2], Order::C, &[1u64, 2]), of(&[1u64, 2])),
            ("u1", npy(&[2], Order::C, &[1u8, 255]), of(&[1u8, 255])),
            ("b1", npy(&[2], Order::C, &[true, false]), of(&[true, false])),
            ("big", big, of(&[1i32, -2])),
            ("big.f8", typed(&[2], Order::C, one(">f8"), &[1.5f64, -2.0]), of(&[1.5f64, -2.0])),
            (
                "fortran",
                npy(&[2, 3], Order::Fortran, &[1f32, 4.0, 2.0, 5.0, 3.0, 6.0]),
                Tensor::from_vec(&[2, 3], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0]),
            ),
            (
                "fortran3",
                npy(&[2, 2, 2], Order::Fortran, &[0i64, 4, 2, 6, 1, 5, 3, 7]),
                Tensor::from_vec(&[2, 2, 2], (0..8i64).collect()),
            ),
        ];
        let entries: Vec<(String, Vec<u8>)> =
            cases.iter().map(|case| (format!("{}.npy", case.0), case.1.clone())).collect();
        let entries: Vec<(&str, Vec<u8>)> = entries.iter().map(|entry| (entry.0.as_str(), entry.1.clone())).collect();
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            npz(&path, method, &entries);
            let columns = read(&path, None).unwrap();
            assert_eq!(columns.len(), cases.len());
            for ((name, _, expected), (found_name, found)) in cases.iter().zip(&columns) {
                assert_eq!(found_name, name);
                assert_eq!(found, expected, "{name} {method:?}");
            }
        }
    }

    #[test]
    fn half_precision_is_read() {
        let mut bytes = npy(&[2], Order::C, &[0x3e00u16, 0xc000]);
        let at = bytes.windows(3).position(|part| part == b"<u2").unwrap();
        bytes[at + 1] = b'f';
        let (dtype, shape, data) = array(bytes.into()).unwrap();
        assert_eq!(Tensor::new(dtype, shape, data).unwrap().to_f64s().unwrap(), [1.5, -2.0]);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let mut short = npy(&[3], Order::C, &[1f32, 2.0, 3.0]);
        short.pop();
        let text = NpyType::Plain("|S2".parse().unwrap());
        let cases: [(&str, Vec<u8>, &str); 3] = [
            (
                "names",
                typed(&[1], Order::C, text, &[b"ab".to_vec()]),
                "has numpy dtype '|S2', expected numbers or bool",
            ),
            ("short", short, "is damaged: float32[3] does not take 11 bytes"),
            ("junk", b"hello".to_vec(), "is no .npy array: "),
        ];
        for (name, bytes, expected) in cases {
            let good = npy(&[1], Order::C, &[1f32]);
            npz(
                &path,
                CompressionMethod::Stored,
                &[(&format!("{name}.npy"), bytes), ("good.npy", good), ("README", vec![])],
            );
            let error = read(&path, None).unwrap_err().to_string();
            assert!(error.contains(&format!("a.npz: column \"{name}\" {expected}")), "{error}");
            assert_eq!(read(&path, Some(&["good"])).unwrap().len(), 1);
        }
        let error = read(&path, Some(&["README"])).unwrap_err().to_string();
        assert!(error.ends_with("has no column \"README\"; it has \"junk\", \"good\""), "{error}");
        std::fs::write(&path, "no zip").unwrap();
        let error = read(&path, None).unwrap_err().to_string();
        assert!(error.contains("a.npz is no .npz file: "), "{error}");
    }
}
