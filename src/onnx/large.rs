//! Models of more weights than one protobuf can hold: large tensors go to a second file.
//!
//! A protobuf ends at 2 GiB. Above [`LARGEST`] bytes of weights the tensors of [`SMALL`] bytes and
//! more lie in a data file beside the model, each at a multiple of [`ALIGNMENT`].

use super::export::model_proto;
use super::{proto, tensor};
use crate::graph::{Model, Tensor};
use prost::Message;
use std::io::{self, Write};

/// Most bytes of weights inside a model file.
pub const LARGEST: usize = 1 << 30;
/// Smaller tensors stay in the model file.
const SMALL: usize = 1024;
/// Offsets are multiples of this, so that a reader can map each tensor.
const ALIGNMENT: u64 = 4096;
const EXTERNAL: i32 = 1;

/// A model as it is written: one file, or two.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    /// The model file.
    pub bytes: Vec<u8>,
    /// What the data file holds, in order; nothing when there is none.
    pub pieces: Vec<Piece>,
}

/// A tensor in a data file.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Name of the initializer.
    pub name: String,
    /// Where its bytes start.
    pub offset: u64,
    /// Its elements.
    pub tensor: Tensor,
}

impl Encoded {
    /// Writes the data file.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_data(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut written = 0;
        for piece in &self.pieces {
            let gap = piece.offset - written;
            io::copy(&mut io::Read::take(io::repeat(0), gap), out)?;
            out.write_all(piece.tensor.bytes())?;
            written = piece.offset + piece.tensor.bytes().len() as u64;
        }
        Ok(())
    }
}

/// Returns a model as it is written, with a data file of the name `location` where the weights
/// have more than `largest` bytes (see [`LARGEST`]).
pub fn encode(model: &Model, location: &str, largest: usize) -> Encoded {
    let total: usize = model.graph.initializers().map(|(.., tensor)| tensor.bytes().len()).sum();
    let mut store = Store::new(location, total > largest);
    let proto = model_proto(model, &mut |name, tensor| store.export(name, tensor));
    Encoded { bytes: proto.encode_to_vec(), pieces: store.pieces }
}

/// Collects the tensors of a data file.
pub(super) struct Store<'a> {
    location: &'a str,
    split: bool,
    end: u64,
    pub pieces: Vec<Piece>,
}

impl<'a> Store<'a> {
    pub fn new(location: &'a str, split: bool) -> Store<'a> {
        Store { location, split, end: 0, pieces: Vec::new() }
    }

    /// Returns whether tensors go to a data file.
    pub fn splits(&self) -> bool {
        self.split
    }

    /// Returns the message of an initializer, which may say that it lies in the data file.
    pub fn export(&mut self, name: &str, tensor: &Tensor) -> proto::Tensor {
        let plain = tensor::export(name, tensor);
        if !self.split || tensor.dtype().bits() == 0 || tensor.bytes().len() < SMALL {
            return plain;
        }
        let (offset, length) = (self.end.next_multiple_of(ALIGNMENT), tensor.bytes().len() as u64);
        self.end = offset + length;
        self.pieces.push(Piece { name: name.to_string(), offset, tensor: tensor.clone() });
        let entry = |key: &str, value: String| proto::StringStringEntry { key: Some(key.into()), value: Some(value) };
        proto::Tensor {
            raw_data: None,
            data_location: Some(EXTERNAL),
            external_data: vec![
                entry("location", self.location.to_string()),
                entry("offset", offset.to_string()),
                entry("length", length.to_string()),
            ],
            ..plain
        }
    }
}
