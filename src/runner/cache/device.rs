//! Rows in buffers of the engine, which are entered and fetched by their numbers without passing through the host.
//!
//! Every part of a row has a store: a buffer of all rows, and of one more that takes what is not to be kept. `Gather`
//! fetches the rows of a batch, `ScatterElements` enters them. The store is input and output of the graph that enters,
//! in one buffer: its only reader is the node that writes it, and that copies nothing where it reads what it writes.

use crate::graph::{Attributes, Builder, DType, Dim, Fact, Model, Tensor};
use crate::runner::engine::{BindingId, BufferId, Engine, EngineError, SessionId, Target};
use crate::training::prefix::Part;
use std::collections::HashMap;

/// Elements that a store may have: kernels on devices count in 32 bits.
const MOST: usize = i32::MAX as usize;

/// Rows on the device.
pub(super) struct DeviceRows {
    parts: Vec<Part>,
    stores: Vec<BufferId>,
    has: Vec<bool>,
    fetch: SessionId,
    enter: SessionId,
    /// By the session and by the buffers of a batch.
    bound: HashMap<(bool, Vec<BufferId>), Bound>,
}

/// A session bound to the buffers of a batch.
struct Bound {
    binding: BindingId,
    /// Where each part reads the numbers of the rows.
    indices: Vec<BufferId>,
}

impl DeviceRows {
    /// Takes the memory for so many rows.
    ///
    /// # Errors
    /// The device has not as much, or its operators cannot address it, in words.
    pub(super) fn new(engine: &mut dyn Engine, parts: &[Part], rows: usize) -> Result<DeviceRows, String> {
        for part in parts {
            let elements = part.of(rows + 1).iter().try_fold(1_usize, |all, size| all.checked_mul(*size));
            if elements.is_none_or(|elements| elements > MOST) {
                return Err(format!("a value of {rows} rows has more than {MOST} elements"));
            }
            if part.dtype == DType::BF16 {
                return Err("rows of bfloat16 cannot be entered there".into());
            }
        }
        let words = |error: EngineError| error.to_string();
        let mut found = DeviceRows {
            parts: parts.to_vec(),
            stores: Vec::with_capacity(parts.len()),
            has: vec![false; rows],
            fetch: engine.load(&model("fetch", parts, rows, Way::Fetch)).map_err(words)?,
            enter: engine.load(&model("enter", parts, rows, Way::Enter)).map_err(words)?,
            bound: HashMap::new(),
        };
        for part in parts {
            match engine.reserve(part.dtype, &part.of(rows + 1)) {
                Ok(buffer) => found.stores.push(buffer),
                Err(error) => {
                    found.remove(engine);
                    return Err(words(error));
                }
            }
        }
        Ok(found)
    }

    pub(super) fn rows(&self) -> usize {
        self.has.len()
    }

    pub(super) fn has(&self, row: usize) -> bool {
        self.has.get(row).copied().unwrap_or(false)
    }

    /// Returns the rows that are there.
    pub(super) fn found(&self) -> Vec<usize> {
        (0..self.has.len()).filter(|row| self.has[*row]).collect()
    }

    /// Gives a row up. Its memory stays until all of them are given back.
    pub(super) fn forget(&mut self, row: usize) {
        self.has.get_mut(row).into_iter().for_each(|has| *has = false);
    }

    /// Returns the bytes that are taken.
    pub(super) fn bytes(&self) -> u64 {
        let row: usize = self.parts.iter().map(Part::bytes).sum();
        row as u64 * (self.has.len() as u64 + 1)
    }

    /// Fills buffers, one for each part, with rows that are there.
    pub(super) fn fetch(
        &mut self,
        engine: &mut dyn Engine,
        buffers: &[BufferId],
        rows: &[usize],
    ) -> Result<(), EngineError> {
        self.run(engine, Way::Fetch, buffers, rows)
    }

    /// Keeps the rows that buffers, one for each part, hold of a batch and that are not there yet, and returns them.
    pub(super) fn enter(
        &mut self,
        engine: &mut dyn Engine,
        buffers: &[BufferId],
        rows: &[usize],
    ) -> Result<Vec<usize>, EngineError> {
        let beside = self.has.len();
        let (mut new, mut places) = (Vec::new(), Vec::with_capacity(rows.len()));
        for row in rows {
            let kept = self.has.get(*row).is_none_or(|has| *has) || new.contains(row);
            places.push(if kept { beside } else { *row });
            new.extend((!kept).then_some(*row));
        }
        if !new.is_empty() {
            self.run(engine, Way::Enter, buffers, &places)?;
        }
        new.iter().for_each(|row| self.has[*row] = true);
        Ok(new)
    }

    fn run(
        &mut self,
        engine: &mut dyn Engine,
        way: Way,
        buffers: &[BufferId],
        rows: &[usize],
    ) -> Result<(), EngineError> {
        let key = (way == Way::Enter, buffers.to_vec());
        if !self.bound.contains_key(&key) {
            let bound = self.bind(engine, way, buffers, rows.len())?;
            self.bound.insert(key.clone(), bound);
        }
        let bound = &self.bound[&key];
        for (part, index) in self.parts.iter().zip(&bound.indices) {
            engine.write(*index, &numbers(part, rows))?;
        }
        engine.run(bound.binding).map(drop)
    }

    fn bind(
        &self,
        engine: &mut dyn Engine,
        way: Way,
        buffers: &[BufferId],
        samples: usize,
    ) -> Result<Bound, EngineError> {
        let (mut indices, mut inputs, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        for (at, part) in self.parts.iter().enumerate() {
            indices.push(engine.allocate(&Tensor::zeros(DType::I32, &[samples * part.group]))?);
            inputs.extend([(name("store", at), self.stores[at]), (name("index", at), indices[at])]);
            match way {
                Way::Fetch => outputs.push((name("value", at), Target::Buffer(buffers[at]))),
                Way::Enter => {
                    inputs.push((name("value", at), buffers[at]));
                    outputs.push((name("next", at), Target::Buffer(self.stores[at])));
                }
            }
        }
        let inputs: Vec<(&str, BufferId)> = inputs.iter().map(|(name, id)| (name.as_str(), *id)).collect();
        let outputs: Vec<(&str, Target)> = outputs.iter().map(|(name, target)| (name.as_str(), *target)).collect();
        let session = if way == Way::Fetch { self.fetch } else { self.enter };
        Ok(Bound { binding: engine.bind(session, &inputs, &outputs)?, indices })
    }

    /// Drops what is bound to buffers of batches, which are about to be freed.
    pub(super) fn unbind(&mut self, engine: &mut dyn Engine) {
        for bound in self.bound.drain().map(|(_, bound)| bound) {
            engine.unbind(bound.binding);
            bound.indices.into_iter().for_each(|index| engine.free(index));
        }
    }

    /// Gives everything back.
    pub(super) fn remove(mut self, engine: &mut dyn Engine) {
        self.unbind(engine);
        engine.unload(self.fetch);
        engine.unload(self.enter);
        self.stores.into_iter().for_each(|store| engine.free(store));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Fetch,
    Enter,
}

fn name(what: &str, part: usize) -> String {
    format!("{what}/{part}")
}

/// Returns the places of rows in the store of a part.
fn numbers(part: &Part, rows: &[usize]) -> Tensor {
    let place = |row: &usize| {
        let first = row * part.group;
        (first..first + part.group).map(|place| i32::try_from(place).expect("invariant: a store has fewer elements"))
    };
    let places: Vec<i32> = rows.iter().flat_map(place).collect();
    Tensor::from_vec(&[places.len()], places)
}

/// Returns the graph that fetches rows of all parts, or enters them.
fn model(graph: &str, parts: &[Part], rows: usize, way: Way) -> Model {
    let mut b = Builder::new(graph);
    for (at, part) in parts.iter().enumerate() {
        let inner = part.shape.iter().map(|size| Dim::Known(*size));
        let samples = || Dim::Symbol(name("places", at));
        let value = Fact::new(part.dtype, [samples()].into_iter().chain(inner).collect());
        let store = b.input(&name("store", at), Fact::fixed(part.dtype, &part.of(rows + 1)));
        let index = b.input(&name("index", at), Fact::new(DType::I32, vec![samples()]));
        match way {
            Way::Fetch => {
                let found = b.op("Gather", &[store, index], Attributes::none().with("axis", 0_i64));
                b.refine(found, &value);
                b.output(found, &name("value", at));
            }
            Way::Enter => {
                let given = b.input(&name("value", at), value);
                let column: Vec<i64> = [-1].into_iter().chain(part.shape.iter().map(|_| 1)).collect();
                let index = b.reshape(index, &column);
                let shape = b.unary("Shape", given);
                let index = b.op("Expand", &[index, shape], Attributes::none());
                let next = b.op("ScatterElements", &[store, index, given], Attributes::none().with("axis", 0_i64));
                b.refine(next, &Fact::fixed(part.dtype, &part.of(rows + 1)));
                b.output(next, &name("next", at));
            }
        }
    }
    Model { graph: b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::testing;

    /// Two values of a row: one of two groups of three floats, one of a single byte.
    fn parts() -> Vec<Part> {
        vec![
            Part { group: 2, shape: vec![3], dtype: DType::F32 },
            Part { group: 1, shape: Vec::new(), dtype: DType::U8 },
        ]
    }

    /// Returns the values of rows.
    fn values(rows: &[usize]) -> [Tensor; 2] {
        let floats = rows.iter().flat_map(|row| (0..6).map(move |at| (10 * row + at) as f32)).collect();
        let bytes = rows.iter().map(|row| u8::try_from(*row).unwrap()).collect();
        [Tensor::from_vec(&[2 * rows.len(), 3], floats), Tensor::from_vec(&[rows.len()], bytes)]
    }

    #[test]
    fn rows_are_what_was_entered_first() {
        for mut engine in testing::engines() {
            let engine = engine.as_mut();
            let mut store = DeviceRows::new(engine, &parts(), 7).unwrap();
            let batch = |engine: &mut dyn Engine, rows: &[usize]| -> Vec<BufferId> {
                values(rows).iter().map(|tensor| engine.allocate(tensor).unwrap()).collect()
            };
            let first = batch(engine, &[5, 1, 3]);
            assert_eq!(store.enter(engine, &first, &[5, 1, 3]).unwrap(), [5, 1, 3]);
            // Row 1 is there, row 0 comes twice, row 9 is none: of other values nothing is kept.
            let second = batch(engine, &[6, 2, 0, 4, 4]);
            assert_eq!(store.enter(engine, &second, &[6, 1, 0, 0, 9]).unwrap(), [6, 0]);
            assert_eq!(store.found(), [0, 1, 3, 5, 6]);
            // The same buffers again, which hold something else by now.
            for (buffer, tensor) in first.iter().zip(values(&[2, 4, 0])) {
                engine.write(*buffer, &tensor).unwrap();
            }
            assert_eq!(store.enter(engine, &first, &[2, 4, 5]).unwrap(), [2, 4]);
            let (wanted, out) = ([6, 0, 5, 4, 3], batch(engine, &[0; 5]));
            store.fetch(engine, &out, &wanted).unwrap();
            for (buffer, expected) in out.iter().zip(values(&wanted)) {
                assert_eq!(engine.read(*buffer).unwrap(), expected, "{}", engine.info().name);
            }
            store.forget(3);
            assert!(!store.has(3) && store.has(4) && !store.has(7));
            store.unbind(engine);
            store.fetch(engine, &out, &[1, 2, 5, 6, 0]).unwrap();
            assert_eq!(engine.read(out[1]).unwrap(), values(&[1, 2, 5, 6, 0])[1]);
            store.remove(engine);
        }
    }

    #[test]
    fn what_operators_cannot_address_is_refused() {
        let mut engine = testing::onnxruntime();
        let large = [Part { group: 1, shape: vec![1 << 20], dtype: DType::F32 }];
        let error = DeviceRows::new(&mut engine, &large, 1 << 11).err().unwrap();
        assert!(error.contains("more than 2147483647 elements"), "{error}");
        let half = [Part { group: 1, shape: vec![2], dtype: DType::BF16 }];
        assert!(DeviceRows::new(&mut engine, &half, 2).is_err());
    }
}
