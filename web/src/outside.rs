//! Tensors whose data lie in other files.
//!
//! Those of weights are not needed for a plan, and something else stands in their place. A small one may be a shape, a mask
//! or another constant: it is read where the page has the file. Where it has not, one that decides shapes is refused.

use crate::Failure;
use crate::question::Piece;
use bytes::Bytes;
use freeze_plan::graph::DType;
use freeze_plan::onnx::{OnnxError, OnnxFile, Outside, read_bytes_with};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io::{Error, ErrorKind, Result as IoResult};
use std::path::Path;
use std::rc::Rc;

/// Elements of the largest tensor that is read from another file.
const SMALL: u64 = 1 << 14;
/// Elements of the largest tensor that may be a number or a list of numbers, of floats and of others.
const NUMBERS: (u64, u64) = (8, 1 << 10);

/// A model that was given, before it is read.
#[derive(Default)]
pub struct Given {
    name: String,
    bytes: Bytes,
    pieces: HashMap<Piece, Bytes>,
}

/// What a reader met.
#[derive(Default)]
struct Met {
    wanted: Vec<Piece>,
    /// Small tensors that were not given, by file.
    missing: BTreeMap<String, usize>,
    stand_in: Bytes,
}

impl Given {
    /// Returns a model of a name.
    pub fn new(name: String, bytes: Vec<u8>) -> Given {
        Given { name, bytes: bytes.into(), pieces: HashMap::new() }
    }

    /// Adds a piece of another file.
    pub fn add(&mut self, piece: Piece, bytes: Vec<u8>) {
        self.pieces.insert(piece, bytes.into());
    }

    /// Returns the pieces of other files that are worth reading.
    pub fn wanted(&self) -> Result<Vec<Piece>, Failure> {
        Ok(self.read_with(false)?.1.wanted)
    }

    /// Reads the model, and says what it had to do without.
    pub fn read(&self) -> Result<(OnnxFile, Vec<String>), Failure> {
        let (file, met) = self.read_with(true)?;
        let note = |(file, count): (&String, &usize)| {
            let what =
                if *count == 1 { "a small tensor lies".to_string() } else { format!("{count} small tensors lie") };
            format!(
                "{what} in {file}, which was not given: whether it is a parameter is told by its name and its shape"
            )
        };
        Ok((file, met.missing.iter().map(note).collect()))
    }

    fn read_with(&self, last: bool) -> Result<(OnnxFile, Met), Failure> {
        let met = Rc::new(RefCell::new(Met::default()));
        let (pieces, inner) = (self.pieces.clone(), Rc::clone(&met));
        let source = move |outside: &Outside<'_>| {
            let piece = Piece { file: outside.location.into(), offset: outside.offset, length: outside.length };
            inner.borrow_mut().data(&pieces, piece, outside.dtype, outside.elements, last)
        };
        let file = read_bytes_with(Path::new(&self.name), self.bytes.clone(), Box::new(source)).map_err(|error| {
            let absent = matches!(&error, OnnxError::External { source, .. } if source.kind() == ErrorKind::NotFound);
            let failure = Failure::from(error);
            if absent { failure.hint("give the model and that file together") } else { failure }
        })?;
        Ok((file, met.take()))
    }
}

impl Met {
    fn data(
        &mut self,
        pieces: &HashMap<Piece, Bytes>,
        piece: Piece,
        dtype: DType,
        elements: u64,
        last: bool,
    ) -> IoResult<Bytes> {
        if let Some(bytes) = pieces.get(&piece) {
            return Ok(bytes.clone());
        }
        let length = piece.length;
        if elements <= SMALL {
            let most = if dtype.is_float() { NUMBERS.0 } else { NUMBERS.1 };
            if last && elements <= most {
                return Err(Error::new(ErrorKind::NotFound, "its numbers may decide shapes and it was not given"));
            }
            *self.missing.entry(piece.file.clone()).or_default() += 1;
            self.wanted.push(piece);
        }
        self.stand_in(length)
    }

    /// Returns bytes that are not those of one number throughout.
    fn stand_in(&mut self, length: u64) -> IoResult<Bytes> {
        let memory = || Error::new(ErrorKind::OutOfMemory, format!("{length} bytes are more than this page can hold"));
        let length = usize::try_from(length).map_err(|_| memory())?;
        if self.stand_in.len() < length {
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(length).map_err(|_| memory())?;
            bytes.resize(length, 0);
            bytes[0] = 1;
            self.stand_in = bytes.into();
        }
        Ok(self.stand_in.slice(..length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(dtype: DType, elements: u64, last: bool, given: bool) -> (IoResult<Bytes>, Met) {
        let piece = Piece { file: "a.data".into(), offset: 4, length: elements * dtype.size() as u64 };
        let bytes = Bytes::from(vec![7; usize::try_from(piece.length).unwrap()]);
        let pieces = if given { HashMap::from([(piece.clone(), bytes)]) } else { HashMap::new() };
        let mut met = Met::default();
        (met.data(&pieces, piece, dtype, elements, last), met)
    }

    #[test]
    fn what_may_decide_shapes_is_read_and_weights_are_not() {
        struct Case {
            dtype: DType,
            elements: u64,
            wanted: bool,
            refused: bool,
        }
        let cases = [
            Case { dtype: DType::I64, elements: 4, wanted: true, refused: true },
            Case { dtype: DType::F32, elements: 1, wanted: true, refused: true },
            Case { dtype: DType::F32, elements: 64, wanted: true, refused: false },
            Case { dtype: DType::F32, elements: 1 << 20, wanted: false, refused: false },
            Case { dtype: DType::I64, elements: 1 << 20, wanted: false, refused: false },
        ];
        for Case { dtype, elements, wanted, refused } in cases {
            let (bytes, first) = met(dtype, elements, false, false);
            assert_eq!(bytes.unwrap().len() as u64, elements * dtype.size() as u64);
            assert_eq!(!first.wanted.is_empty(), wanted, "{dtype} {elements}");
            let (bytes, _) = met(dtype, elements, true, false);
            assert_eq!(bytes.is_err(), refused, "{dtype} {elements}");
            let (bytes, last) = met(dtype, elements, true, true);
            assert!(bytes.unwrap().iter().all(|byte| *byte == 7) && last.missing.is_empty());
        }
    }
}
