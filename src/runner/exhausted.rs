//! A device without memory left: how it is recognised, and what is said of it.

use super::device::Device;
use super::engine::{DeviceMemory, Engine, EngineError};
use super::estimate::{MemoryEstimate, Sizes};
use super::memory::{available_bytes, readable, resident_bytes};
use super::precision::{LowDType, Settings};
use super::run::Run;
use super::train::RunError;
use crate::plan::Segment;
use crate::training::{Recompute, TrainStep};
use std::collections::BTreeSet;
use std::fmt;

/// What ONNX Runtime, CUDA and its libraries say of memory that is not there.
const SAID: [&str; 13] = [
    "CUDAExternalAllocator::Alloc",
    "Failed to allocate memory for requested buffer of size",
    "is smaller than requested bytes of",
    "Failed to find a free memory block despite calling Extend",
    "bad_alloc",
    "bad allocation",
    "CUDA failure 2:",
    "CUDA out of memory",
    "cudaErrorMemoryAllocation",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUDNN_STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
];
/// What comes before the number of bytes that were wanted.
const WANTED: [&str; 2] = ["requested buffer of size ", "requested bytes of "];
/// What comes before the operator of the node that ran.
const RUNNING: &str = "while running ";
/// Consumers that are named.
const NAMED: usize = 5;
/// Of what did not fit although its estimate does, arenas have no more than so many percent in one piece.
const WHOLE: u64 = 80;

/// Memory that a device did not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutOfMemory {
    /// `cpu` or `cuda`, with its number where that is not 0.
    pub device: String,
    /// Bytes that were wanted at last, where that is known.
    pub wanted: Option<u64>,
    /// The graph that was loaded or that ran.
    pub graph: Option<String>,
    /// The node that ran, with its operator.
    pub operator: Option<String>,
    /// What the engine said.
    pub reason: String,
}

impl OutOfMemory {
    /// Returns what is said of memory in the words of an engine; `None` where they are of something else.
    pub fn recognise(device: &str, graph: Option<&str>, reason: &str) -> Option<OutOfMemory> {
        SAID.iter().any(|words| reason.contains(words)).then(|| OutOfMemory {
            device: device.into(),
            wanted: WANTED.iter().find_map(|words| number(reason.split_once(words)?.1)),
            graph: graph.map(String::from),
            operator: operator(reason),
            reason: reason.into(),
        })
    }
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is out of memory", self.device)?;
        let wants = match (&self.operator, &self.graph) {
            (Some(operator), Some(graph)) => format!("{operator} in \"{graph}\""),
            (Some(operator), None) => operator.clone(),
            (None, Some(graph)) => format!("the graph \"{graph}\""),
            (None, None) => "a buffer".into(),
        };
        match self.wanted {
            Some(bytes) => write!(f, ": {wants} wants {}", readable(bytes)),
            None if self.operator.is_none() => write!(f, ": {wants} cannot have what it wants: {}", self.reason),
            None => write!(f, ": {wants} cannot have what it wants"),
        }
    }
}

impl std::error::Error for OutOfMemory {}

impl EngineError {
    /// Returns the error as one of memory where its words are of that.
    pub fn recognised(self, device: &str) -> EngineError {
        let (graph, reason) = match &self {
            EngineError::Load { graph, reason, .. } | EngineError::Run { graph, reason, .. } => (Some(graph), reason),
            EngineError::Buffer { reason, .. } => (None, reason),
            _ => return self,
        };
        let found = OutOfMemory::recognise(device, graph.map(String::as_str), reason);
        found.map_or(self, |found| EngineError::OutOfMemory(Box::new(found)))
    }
}

fn number(text: &str) -> Option<u64> {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Returns the node of `.. while running Conv node. Name:'first' ..`.
fn operator(reason: &str) -> Option<String> {
    let (kind, rest) = reason.split_once(RUNNING)?.1.split_once(" node")?;
    let name = rest.split_once("Name:'").and_then(|(_, rest)| rest.split_once('\'')).map(|(name, _)| name);
    let name = name.filter(|name| !name.is_empty()).map_or_else(String::new, |name| format!(" \"{name}\""));
    Some(format!("{kind}{name}"))
}

/// A run that its device has no memory for.
#[derive(Clone, Debug, PartialEq)]
pub struct Exhausted {
    /// What failed.
    pub cause: OutOfMemory,
    /// The epoch, from 1; absent before the first.
    pub epoch: Option<usize>,
    /// What the device had, where that is known.
    pub memory: Option<DeviceMemory>,
    /// What the phase was estimated to take, for batches of `rows` rows.
    pub estimate: Option<MemoryEstimate>,
    /// Rows of a batch.
    pub rows: usize,
    /// What would help, each with what it is estimated to take.
    pub remedies: Vec<String>,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cause)?;
        if let Some(memory) = self.memory {
            write!(f, ", {} of {} are free", readable(memory.free()), readable(memory.total))?;
        }
        self.epoch.map_or(Ok(()), |epoch| write!(f, ", in epoch {epoch}"))?;
        let Some(estimate) = &self.estimate else { return Ok(()) };
        let total = readable(estimate.total);
        write!(f, "; with batches of {} the estimate is {total} ({})", self.rows, estimate.parts())?;
        let largest = estimate.largest.iter().take(NAMED);
        let largest: Vec<String> = largest.map(|one| format!("{} ({})", one.name, readable(one.bytes))).collect();
        if largest.is_empty() { Ok(()) } else { write!(f, ", most of it for {}", largest.join(", ")) }
    }
}

impl std::error::Error for Exhausted {}

impl Run<'_> {
    /// Returns an error with what would help, where the device is out of memory. `segment` is what was to train.
    pub(super) fn explained(&self, engine: &dyn Engine, error: RunError, segment: Option<&Segment>) -> RunError {
        let RunError::Engine(error) = error else { return error };
        match error.recognised(&engine.info().device) {
            EngineError::OutOfMemory(cause) => RunError::OutOfMemory(Box::new(self.exhausted(engine, *cause, segment))),
            other => other.into(),
        }
    }

    fn exhausted(&self, engine: &dyn Engine, cause: OutOfMemory, segment: Option<&Segment>) -> Exhausted {
        let memory = engine.device_memory();
        let open = self.phases.open.as_ref();
        let held = open.map(|open| open.held.clone()).or_else(|| Some(segment?.held().map(String::from).collect()));
        let built = match (open, &held) {
            (None, Some(held)) => self.build(engine, held, &super::recipe::Form::Constants).ok(),
            _ => None,
        };
        let step = open.map(|open| &open.step).or(built.as_ref().map(|graphs| &graphs.step));
        let sizes = Sizes::of(self.setup, engine);
        let estimate = match open {
            Some(open) => Some(open.memory.clone()),
            None => built.as_ref().map(|graphs| graphs.memory.clone()),
        };
        let rows = self.setup.train.most();
        let remedies = match (step, &held, &estimate) {
            (Some(step), Some(held), Some(estimate)) => {
                let room = memory.map(|memory| memory.total.saturating_sub(memory.used.saturating_sub(memory.peak)));
                let room = room.or_else(|| Some(available_bytes()? + resident_bytes()));
                let room = room.map(|room| room.min(estimate.total / 100 * WHOLE));
                self.remedies(engine, (step, held), &sizes, estimate, room)
            }
            _ => Vec::new(),
        };
        Exhausted { cause, epoch: segment.map(|segment| segment.first_epoch), memory, estimate, rows, remedies }
    }

    /// Returns what takes less than `estimate`, with what it takes.
    fn remedies(
        &self,
        engine: &dyn Engine,
        (step, held): (&TrainStep, &BTreeSet<String>),
        sizes: &Sizes,
        estimate: &MemoryEstimate,
        room: Option<u64>,
    ) -> Vec<String> {
        let mut remedies = Vec::new();
        let now = self.setup.train.most();
        let total = |rows: usize| self.total_of(step, sizes, estimate, rows);
        if let Some((rows, bytes)) = smaller(now, room, &total) {
            let updates = now.div_ceil(rows) * self.setup.accumulate.max(1);
            let same = format!("run.accumulate = {updates} has about as many rows in an update");
            let which = if room.is_some() { "the largest that fits" } else { "half of it" };
            remedies.push(format!("data.batch = {rows} ({which}: {}), with which {same}", readable(bytes)));
        }
        let less = |bytes: u64| bytes < estimate.total;
        if *self.setup.recompute == Recompute::None
            && engine.info().recomputes
            && let Ok(graphs) = self.build_recomputing(engine, held, Recompute::Auto)
            && less(graphs.memory.total)
        {
            remedies.push(format!("run.recompute = \"auto\" ({})", readable(graphs.memory.total)));
        }
        if sizes.device != Device::Cpu && sizes.computing.is_none() {
            let sizes = Sizes { computing: Some(Settings::of(LowDType::Bf16)), ..sizes.clone() };
            let bytes = MemoryEstimate::of(step, None, &sizes.assumed(&self.prepared)).total;
            remedies.extend(less(bytes).then(|| format!("run.precision = \"bf16\" ({})", readable(bytes))));
        }
        let larger = |segment: &&Segment| segment.held().count() > held.len();
        if let Some(most) = self.segments.iter().filter(larger).max_by_key(|segment| segment.held().count()) {
            let frozen = most.held().map(String::from).collect();
            let graphs = self.build(engine, &frozen, &super::recipe::Form::Constants);
            if let Some(bytes) = graphs.ok().map(|graphs| graphs.memory.total).filter(|bytes| less(*bytes)) {
                remedies.push(format!(
                    "freezing earlier what freezes in epoch {} ({})",
                    most.first_epoch,
                    readable(bytes)
                ));
            }
        }
        remedies
    }

    /// Returns what the phase takes with batches of so many rows. Where its graphs are for one number of rows, what goes
    /// with these is taken to be in proportion.
    fn total_of(&self, step: &TrainStep, sizes: &Sizes, now: &MemoryEstimate, rows: usize) -> u64 {
        let fixed = sizes.batch.iter().any(|shape| {
            let input = step.train.graph.find(&shape.name);
            input.is_some_and(|id| step.train.graph.fact(id).dim(0).is_some_and(|dim| dim.known().is_some()))
        });
        let most = self.setup.train.most().max(1) as u64;
        if fixed {
            return now.total - now.activations + now.activations * rows as u64 / most;
        }
        // Eval data come in batches of the same size.
        let eval = self.setup.eval.map(|eval| eval.shapes(rows.min(eval.most())));
        let sizes = Sizes { batch: self.setup.train.shapes(rows), eval, ..sizes.clone() };
        MemoryEstimate::of(step, None, &sizes.assumed(&self.prepared)).total
    }
}

/// Returns the largest number of rows below `now` whose total fits into `room`, with the total; half of `now` where the
/// room is not known.
fn smaller(now: usize, room: Option<u64>, total: &dyn Fn(usize) -> u64) -> Option<(usize, u64)> {
    let Some(room) = room else {
        let half = now / 2;
        return (half > 0).then(|| (half, total(half)));
    };
    let (mut fits, mut too_many) = (0, now);
    while fits + 1 < too_many {
        let middle = fits + (too_many - fits) / 2;
        if total(middle) <= room { fits = middle } else { too_many = middle }
    }
    (fits > 0).then(|| (fits, total(fits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_memory_are_recognised() {
        let ort = "Non-zero status code returned while running Conv node. Name:'layer1/conv' Status Message: \
                   onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, \
                   bool, onnxruntime::Stream*, bool, onnxruntime::WaitNotificationFn) Failed to allocate memory for \
                   requested buffer of size 134217728\n";
        let found = OutOfMemory::recognise("cuda", Some("train"), ort).unwrap();
        assert_eq!((found.wanted, found.operator.as_deref()), (Some(134_217_728), Some("Conv \"layer1/conv\"")));
        assert_eq!(found.to_string(), "cuda is out of memory: Conv \"layer1/conv\" in \"train\" wants 134.2 MB");
        let cases = [
            ("Available memory of 0 is smaller than requested bytes of 256", Some(256), None),
            ("CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; expr=cudaMalloc((void**)&p, size);", None, None),
            ("while running Gemm node. Name:'' Status Message: CUBLAS_STATUS_ALLOC_FAILED", None, Some("Gemm")),
            ("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED", None, None),
            ("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", None, None),
            ("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")", None, None),
            ("std::bad_alloc", None, None),
            (
                "while running FusedMatMul node. Name:'a' Status Message: bad allocation",
                None,
                Some("FusedMatMul \"a\""),
            ),
        ];
        for (text, wanted, operator) in cases {
            let found = OutOfMemory::recognise("cuda", None, text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((found.wanted, found.operator.as_deref()), (wanted, operator), "{text}");
        }
        for text in ["CUDA failure 700: an illegal memory access was encountered", "Gather: indices out of bounds", ""]
        {
            assert_eq!(OutOfMemory::recognise("cuda", None, text), None, "{text}");
        }
    }

    #[test]
    fn an_error_of_something_else_stays_what_it_is() {
        let run = |reason: &str| EngineError::Run { engine: "e", graph: "train".into(), reason: reason.into() };
        assert!(matches!(run("indices out of bounds").recognised("cpu"), EngineError::Run { .. }));
        let EngineError::OutOfMemory(found) = run("std::bad_alloc").recognised("cpu") else { panic!() };
        assert_eq!((found.device.as_str(), found.graph.as_deref()), ("cpu", Some("train")));
    }

    #[test]
    fn the_largest_batch_that_fits_is_found() {
        let total = |rows: usize| 100 + 7 * rows as u64;
        for (now, room) in [(64, 200), (64, 106), (64, 107), (5, 134), (1000, 6000)] {
            let expected = (1..now).filter(|rows| total(*rows) <= room).max().map(|rows| (rows, total(rows)));
            assert_eq!(smaller(now, Some(room), &total), expected, "{now} in {room}");
        }
        assert_eq!(smaller(64, None, &total), Some((32, 324)));
        assert_eq!(smaller(1, None, &total), None);
    }
}
