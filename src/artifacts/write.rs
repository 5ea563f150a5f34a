//! A checkpoint as a file: the inverse of [`read_checkpoint`](super::read_checkpoint).
//!
//! Slots are those of [`schema`](super::schema). A FlatBuffers file ends at 2 GiB, so above [`LARGEST`] bytes of tensors
//! those of [`SMALL`] bytes and more lie in `<checkpoint>.data`, as ONNX Runtime itself writes them.

use super::checkpoint::{Checkpoint, OptimizerGroup, Property, VERSION};
use super::schema::{IDENTIFIER, slot};
use crate::graph::Tensor;
use crate::onnx::{Encoded, Piece};
use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, WIPOffset};

/// Most bytes of tensors inside a checkpoint file.
const LARGEST: usize = 1_800 << 20;
/// Smaller tensors stay in the checkpoint file.
const SMALL: usize = 64;
/// Offsets in the data file are multiples of this.
const ALIGNMENT: u64 = 8;

type Table = WIPOffset<ForwardsUOffset<()>>;

/// Returns a checkpoint as it is written: one file, or that and a data file. The same checkpoint gives the same bytes.
pub fn encode_checkpoint(checkpoint: &Checkpoint) -> Encoded {
    encode_with(checkpoint, LARGEST)
}

/// Returns the nominal checkpoint of a checkpoint: the names of its parameters without their values, from which ONNX
/// Runtime makes a module that waits for a buffer with all of them.
pub fn encode_nominal_checkpoint(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut file = Writer { is_nominal: true, ..Writer::default() };
    let state = file.module_state(checkpoint);
    file.finish(state, None, None)
}

pub(super) fn encode_with(checkpoint: &Checkpoint, largest: usize) -> Encoded {
    let moments = checkpoint.optimizer.iter().flat_map(|group| group.moments.values().flatten());
    let tensors = checkpoint.trains.iter().chain(&checkpoint.frozen).chain(moments);
    let total: usize = tensors.map(|(_, tensor)| tensor.bytes().len()).sum();
    let mut file = Writer { split: total > largest, ..Writer::default() };
    let state = file.module_state(checkpoint);
    let groups: Vec<Table> = checkpoint.optimizer.iter().map(|group| file.group(group)).collect();
    let groups = (!groups.is_empty()).then(|| file.b.create_vector(&groups));
    let properties = (!checkpoint.properties.is_empty()).then(|| file.properties(&checkpoint.properties));
    Encoded { bytes: file.finish(state, groups, properties), pieces: file.pieces }
}

type Tables = WIPOffset<flatbuffers::Vector<'static, ForwardsUOffset<ForwardsUOffset<()>>>>;

#[derive(Default)]
struct Writer {
    b: FlatBufferBuilder<'static>,
    /// Whether names are written without values.
    is_nominal: bool,
    split: bool,
    end: u64,
    pieces: Vec<Piece>,
}

impl Writer {
    fn finish(&mut self, state: Table, groups: Option<Tables>, properties: Option<Table>) -> Vec<u8> {
        let root = self.b.start_table();
        self.b.push_slot_always(slot(0), VERSION);
        self.b.push_slot_always(slot(1), state);
        if let Some(groups) = groups {
            self.b.push_slot_always(slot(2), groups);
        }
        if let Some(properties) = properties {
            self.b.push_slot_always(slot(3), properties);
        }
        let root = self.b.end_table(root);
        self.b.finish(root, std::str::from_utf8(IDENTIFIER).ok());
        self.b.finished_data().to_vec()
    }

    fn module_state(&mut self, checkpoint: &Checkpoint) -> Table {
        let lists = [&checkpoint.trains, &checkpoint.frozen].map(|list| self.tensors(list));
        let [trains, frozen] = lists.map(|list| self.b.create_vector(&list));
        let table = self.b.start_table();
        self.b.push_slot_always(slot(0), trains);
        self.b.push_slot_always(slot(1), frozen);
        self.b.push_slot(slot(2), self.is_nominal, false);
        self.b.push_slot(slot(3), !self.pieces.is_empty(), false);
        self.end(table)
    }

    fn tensors(&mut self, list: &[(String, Tensor)]) -> Vec<Table> {
        list.iter().map(|(name, tensor)| self.tensor(name, tensor)).collect()
    }

    fn tensor(&mut self, name: &str, tensor: &Tensor) -> Table {
        let shape = if self.is_nominal { &[] } else { tensor.shape() };
        let dims: Vec<i64> = shape.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect();
        let (name_at, dims) = (self.b.create_string(name), self.b.create_vector(&dims));
        let outside = self.split && tensor.bytes().len() >= SMALL;
        let (raw, offset) = match outside {
            true => (None, self.outside(name, tensor)),
            false if self.is_nominal => (Some(self.b.create_vector::<u8>(&[])), -1),
            false => (Some(self.b.create_vector(tensor.bytes().as_ref())), -1),
        };
        let table = self.b.start_table();
        self.b.push_slot_always(slot(0), name_at);
        self.b.push_slot_always(slot(2), dims);
        self.b.push_slot_always(slot(3), tensor.dtype().code());
        if let Some(raw) = raw {
            self.b.push_slot_always(slot(4), raw);
        }
        self.b.push_slot(slot(6), offset, -1_i64);
        self.end(table)
    }

    /// Puts a tensor into the data file and returns where.
    fn outside(&mut self, name: &str, tensor: &Tensor) -> i64 {
        let offset = self.end.next_multiple_of(ALIGNMENT);
        self.end = offset + tensor.bytes().len() as u64;
        self.pieces.push(Piece { name: name.to_string(), offset, tensor: tensor.clone() });
        i64::try_from(offset).unwrap_or(i64::MAX)
    }

    fn group(&mut self, group: &OptimizerGroup) -> Table {
        let mut states = Vec::with_capacity(group.moments.len());
        for (parameter, moments) in &group.moments {
            let moments = self.tensors(moments);
            let (name, moments) = (self.b.create_string(parameter), self.b.create_vector(&moments));
            let table = self.b.start_table();
            self.b.push_slot_always(slot(0), name);
            self.b.push_slot_always(slot(1), moments);
            states.push(self.end(table));
        }
        let (name, states) = (self.b.create_string(&group.name), self.b.create_vector(&states));
        let table = self.b.start_table();
        self.b.push_slot_always(slot(0), name);
        self.b.push_slot(slot(1), group.step, 0);
        self.b.push_slot(slot(2), group.initial_lr, 0.0);
        self.b.push_slot_always(slot(3), states);
        self.end(table)
    }

    fn properties(&mut self, properties: &[(String, Property)]) -> Table {
        let mut kinds: [Vec<Table>; 3] = Default::default();
        for (name, value) in properties {
            let name = self.b.create_string(name);
            let text = match value {
                Property::Text(text) => Some(self.b.create_string(text)),
                _ => None,
            };
            let table = self.b.start_table();
            self.b.push_slot_always(slot(0), name);
            let kind = match value {
                Property::Int(value) => {
                    self.b.push_slot(slot(1), *value, 0);
                    0
                }
                Property::Float(value) => {
                    self.b.push_slot(slot(1), *value, 0.0);
                    1
                }
                Property::Text(_) => 2,
            };
            if let Some(text) = text {
                self.b.push_slot_always(slot(1), text);
            }
            kinds[kind].push(self.end(table));
        }
        let lists = kinds.map(|kind| (!kind.is_empty()).then(|| self.b.create_vector(&kind)));
        let table = self.b.start_table();
        for (index, list) in (0..).zip(lists) {
            if let Some(list) = list {
                self.b.push_slot_always(slot(index), list);
            }
        }
        self.end(table)
    }

    fn end(&mut self, table: WIPOffset<flatbuffers::TableUnfinishedWIPOffset>) -> Table {
        WIPOffset::new(self.b.end_table(table).value())
    }
}
