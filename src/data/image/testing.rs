//! The golden files of `fixtures/images`, which `make.py` beside them wrote.

use super::{Picture, Pixels};
use crate::data::read_tensors;
use crate::graph::Tensor;
use std::path::PathBuf;

pub(in crate::data) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/images")).join(name)
}

pub(in crate::data) fn file(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap()
}

pub(in crate::data) fn golden(name: &str) -> Tensor {
    read_tensors(&fixture("expected.safetensors"), Some(&[name])).unwrap().swap_remove(0).1
}

/// Returns shape and bytes of a golden picture.
pub(in crate::data) fn expected(name: &str) -> (Vec<usize>, Vec<u8>) {
    let tensor = golden(name);
    (tensor.shape().to_vec(), tensor.to_vec().unwrap())
}

pub(in crate::data) fn bytes(picture: &Picture) -> &[u8] {
    match &picture.pixels {
        Pixels::Bytes(values) => values,
        Pixels::Floats(_) => panic!("no bytes"),
    }
}
