//! A look at a file's protobuf structure before it is decoded: that every length lies within what
//! is around it, how deep messages nest, and how much memory they take once decoded. The data of
//! tensors is stepped over and not read.

use super::proto;
use std::mem::size_of;

/// Most memory that the messages of a file may take once decoded, in bytes. A message of no fields
/// takes two bytes of the file and some hundred in memory.
const MOST_MEMORY: usize = 512 << 20;
/// Deepest nesting of messages; a graph inside a graph is three levels.
const DEEPEST: usize = 90;
/// Memory of a text, whatever its length.
const TEXT: usize = size_of::<bytes::Bytes>();

/// A message that holds others.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    ValueInfo,
    Type,
    /// The type of a tensor, dense or sparse.
    TensorType,
    /// The type of a sequence or optional.
    SequenceType,
    MapType,
    Shape,
    Annotation,
    Training,
    Function,
    /// A message that is not followed further.
    Leaf,
}

/// Checks the structure of a model file.
///
/// # Errors
/// Says at which byte it is broken, or which limit it exceeds.
pub(super) fn scan(bytes: &[u8]) -> Result<(), String> {
    Scan { bytes, memory: 0 }.message(Kind::Model, 0, bytes.len(), 0)
}

struct Scan<'a> {
    bytes: &'a [u8],
    memory: usize,
}

impl Scan<'_> {
    fn message(&mut self, kind: Kind, start: usize, end: usize, depth: usize) -> Result<(), String> {
        if depth > DEEPEST {
            return Err(format!("its messages nest deeper than {DEEPEST} levels, at byte {start}"));
        }
        let mut at = start;
        while at < end {
            let key_at = at;
            let key = self.varint(&mut at, end)?;
            let (field, wire) = (key >> 3, key & 7);
            let length = match wire {
                0 => self.varint(&mut at, end).map(|_| 0)?,
                1 => 8,
                5 => 4,
                2 => self.varint(&mut at, end)?,
                _ => return Err(format!("byte {key_at} starts no protobuf field")),
            };
            let left = end - at;
            let length = usize::try_from(length).ok().filter(|length| *length <= left).ok_or_else(|| {
                format!("it is cut short: field {field} at byte {key_at} claims {length} bytes, {left} are left")
            })?;
            if wire == 2 {
                let (inner, memory) = part(kind, field);
                self.memory = self.memory.saturating_add(memory);
                if self.memory > MOST_MEMORY {
                    return Err(format!(
                        "its structure without tensor data takes more than {MOST_MEMORY} bytes of memory"
                    ));
                }
                if let Some(inner) = inner {
                    self.message(inner, at, at + length, depth + 1)?;
                }
            }
            at += length;
        }
        Ok(())
    }

    fn varint(&self, at: &mut usize, end: usize) -> Result<u64, String> {
        let start = *at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(byte) = self.bytes[..end].get(*at) else {
                return Err(format!("it is cut short: the number at byte {start} has no end"));
            };
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(format!("byte {start} starts no protobuf number"))
    }
}

/// Returns what a field of a message holds, and the memory it takes.
fn part(kind: Kind, field: u64) -> (Option<Kind>, usize) {
    use Kind::*;
    let inner = match (kind, field) {
        (Model, 7) | (Attribute, 6 | 11) | (Training, 1 | 2) => Graph,
        (Model, 20) => Training,
        (Model, 25) => Function,
        (Graph, 1) | (Function, 7) => Node,
        (Graph, 5) | (Attribute, 5 | 10) | (Sparse, 1 | 2) => Tensor,
        (Graph, 11..=13) | (Function, 12) => ValueInfo,
        (Graph, 14) => Annotation,
        (Graph, 15) | (Attribute, 22 | 23) => Sparse,
        (Node, 5) | (Function, 11) => Attribute,
        (Attribute, 14 | 15) | (ValueInfo, 2) => Type,
        (Type, 1 | 8) => TensorType,
        (Type, 4 | 9) => SequenceType,
        (Type, 5) => MapType,
        (SequenceType, 1) | (MapType, 2) => Type,
        (TensorType, 2) => Shape,
        (Shape, 1) => Leaf,
        (Model, 8 | 14 | 26) | (Graph, 16) | (Node, 9 | 10) | (Tensor, 3 | 13 | 16) => Leaf,
        (ValueInfo, 4) | (Annotation, 2) | (Training, 3 | 4) | (Function, 9 | 14) => Leaf,
        _ => return (None, TEXT),
    };
    (Some(inner), memory(inner))
}

fn memory(kind: Kind) -> usize {
    match kind {
        Kind::Model => size_of::<proto::Model>(),
        Kind::Graph => size_of::<proto::Graph>(),
        Kind::Node => size_of::<proto::Node>(),
        Kind::Attribute => size_of::<proto::Attribute>(),
        Kind::Tensor => size_of::<proto::Tensor>(),
        Kind::Sparse => size_of::<proto::SparseTensor>(),
        Kind::ValueInfo => size_of::<proto::ValueInfo>(),
        Kind::Type => size_of::<proto::Type>(),
        Kind::TensorType | Kind::SequenceType | Kind::MapType => size_of::<proto::Type>(),
        Kind::Shape => size_of::<proto::TensorShape>(),
        Kind::Annotation => size_of::<proto::TensorAnnotation>(),
        Kind::Training => size_of::<proto::TrainingInfo>(),
        Kind::Function => size_of::<proto::Function>(),
        Kind::Leaf => size_of::<proto::tensor_shape::Dimension>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_structure_is_named_with_its_byte() {
        struct Case {
            bytes: Vec<u8>,
            expected: &'static str,
        }
        let cases = [
            Case { bytes: b"\x3a\x02\x0a\x00".to_vec(), expected: "" },
            Case {
                bytes: b"\x08\x07\x3a\x05\x0a\x00".to_vec(),
                expected: "it is cut short: field 7 at byte 2 claims 5 bytes, 2 are left",
            },
            Case {
                bytes: b"\x3a\x02\x0a\x01\x00".to_vec(),
                expected: "it is cut short: field 1 at byte 2 claims 1 bytes, 0 are left",
            },
            Case { bytes: b"\x3a\x80".to_vec(), expected: "it is cut short: the number at byte 1 has no end" },
            Case { bytes: b"This is text".to_vec(), expected: "byte 0 starts no protobuf field" },
            Case { bytes: [vec![0x3a], vec![0xff; 11]].concat(), expected: "byte 1 starts no protobuf number" },
        ];
        for Case { bytes, expected } in cases {
            assert_eq!(scan(&bytes).err().unwrap_or_default(), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn small_files_of_much_memory_are_refused() {
        let nodes = 1 + MOST_MEMORY / size_of::<proto::Node>();
        let mut bytes = vec![0x3a];
        prost::encoding::encode_varint(2 * nodes as u64, &mut bytes);
        bytes.extend([0x0a, 0x00].repeat(nodes));
        let error = scan(&bytes).unwrap_err();
        assert!(error.contains("takes more than 536870912 bytes of memory"), "{error}");
        assert!(size_of::<proto::Node>() < 400, "{}", size_of::<proto::Node>());
    }
}
