//! What a phase keeps, decided when it begins.

use super::super::device::Device;
use super::super::engine::Engine;
use super::super::estimate::MemoryEstimate;
use super::super::event::RunEvent;
use super::super::front::Growth;
use super::super::job::CacheMode;
use super::super::memory::available_bytes;
use super::super::run::Run;
use super::device::DeviceRows;
use super::store::Store;
use super::{Kept, Trial};
use crate::data::Elsewhere;
use crate::graph::{Tensor, ValueId};
use crate::plan::{PrefixMode, Segment};
use crate::training::prefix::{Part, Prefix, Prices, Split};
use crate::training::{Objective, Role, TrainStep, names};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// What computing and reading take about, on one core of a common machine. Which cut is taken follows from it; whether it
/// pays is measured.
const PRICES: Prices = Prices { flop: 1e-11, written: 2e-10, read: 4e-10 };
/// As [`PRICES`], on a device with a memory of its own, where rows are kept there.
const DEVICE: Prices = Prices { flop: 2e-14, written: 1e-12, read: 2e-12 };
/// What reading a byte takes there where rows are kept in memory of the host.
const UPLOAD: f64 = 1e-10;
/// The part of the room on a device that is taken without being asked for.
const ROOM: f64 = 0.9;
/// Times by which a byte of a file costs more than one of memory.
const FILE: f64 = 2.0;
/// Flops of a batch below which a prefix stays in the train graph.
const FEWEST: u64 = 20_000_000;
/// What the price of reading is multiplied with, in turn, until the cut fits into the limit.
const RAISES: [f64; 5] = [1.0, 4.0, 16.0, 64.0, 256.0];

/// The prefix of a phase, and what grows from what the phase before kept.
pub(in crate::runner) type Fronted = (Split, Option<Growth>);

/// A phase that is made ready.
#[derive(Clone, Copy)]
pub(in crate::runner) struct Fresh<'a> {
    pub(in crate::runner) step: &'a TrainStep,
    pub(in crate::runner) segment: &'a Segment,
    /// Whether its frozen set comes again later.
    pub(in crate::runner) recurs: bool,
    /// Values of frozen parameters and statistics that are inputs of the train graph.
    pub(in crate::runner) fixed: &'a BTreeMap<String, Tensor>,
    /// What it takes beside what is kept.
    pub(in crate::runner) memory: &'a MemoryEstimate,
}

/// Why nothing is kept.
struct No(String);

impl Run<'_> {
    /// Returns the prefix of a phase that runs on its own, where there is one, and makes what it keeps ready.
    pub(in crate::runner) fn front(
        &mut self,
        engine: &mut dyn Engine,
        fresh: &Fresh<'_>,
        report: &mut dyn FnMut(RunEvent),
    ) -> Option<Fronted> {
        let Fresh { step, segment, recurs, fixed, memory } = *fresh;
        self.cache.iter_mut().for_each(|cache| cache.unbind(engine));
        self.loader.leave_out(None);
        let wanted = self.cache.as_ref().is_some_and(|cache| cache.caching.mode != CacheMode::Off);
        if segment.frozen.is_empty() || !wanted && self.setup.freezing.prefix == PrefixMode::Off {
            self.forget_kept(engine);
            return None;
        }
        let data: Vec<&str> = inputs(step, Role::Data);
        let moving: Vec<String> = step.moving.iter().map(|name| names::next(name)).collect();
        let passed = step.passed.iter().map(|(name, _)| name.as_str());
        let outputs: Vec<&str> = passed.chain([names::LOSS]).chain(moving.iter().map(String::as_str)).collect();
        let found = match (recurs, &self.setup.objective) {
            (true, _) => Err("its frozen set comes again later, so what is frozen is an input of its graphs"),
            (_, Objective::Stage { .. }) => Err("the training step of the file runs as it is written"),
            _ => Prefix::of(&step.train, &data, &outputs, fixed).ok_or("nothing of the train graph is left beside it"),
        };
        let prefix = match found {
            Ok(prefix) => prefix,
            Err(reason) => {
                self.forget_kept(engine);
                if wanted {
                    self.unused(segment, reason.into(), report);
                }
                return None;
            }
        };
        if wanted {
            match self.keep(engine, &prefix, &data, (segment, memory), report) {
                Ok(fronted) => return Some(fronted),
                Err(No(reason)) => {
                    self.forget_kept(engine);
                    self.unused(segment, reason, report);
                }
            }
        }
        if self.setup.freezing.prefix == PrefixMode::Off {
            return None;
        }
        let split = prefix.split(&prefix.deepest()?);
        let batch = self.setup.train.rows_of(0) as u64;
        (split.flops.saturating_mul(batch) >= FEWEST).then_some((split, None))
    }

    /// Drops what was kept: the phase that begins has no prefix of its own.
    pub(in crate::runner) fn forget_kept(&mut self, engine: &mut dyn Engine) {
        self.cache.iter_mut().for_each(|cache| cache.clear(engine));
        self.loader.leave_out(None);
    }

    fn unused(&self, segment: &Segment, reason: String, report: &mut dyn FnMut(RunEvent)) {
        report(RunEvent::Cache {
            epoch: segment.first_epoch,
            after: segment.after,
            used: false,
            reason: Some(reason),
            place: None,
            values: Vec::new(),
            sample_bytes: 0,
            bytes: 0,
            from: None,
            compute_seconds: None,
            read_seconds: None,
        });
    }

    fn keep(
        &mut self,
        engine: &mut dyn Engine,
        prefix: &Prefix<'_>,
        data: &[&str],
        (segment, memory): (&Segment, &MemoryEstimate),
        report: &mut dyn FnMut(RunEvent),
    ) -> Result<Fronted, No> {
        let train = self.setup.train;
        let last_epoch = self.read_until(segment);
        let steps = self.setup.steps_per_epoch().max(1) as f64;
        let left = (last_epoch + 1 - segment.first_epoch.min(last_epoch)) as f64 - segment.after as f64 / steps;
        if let Some(reason) = train.varies(data) {
            return Err(No(reason));
        }
        let info = engine.info().clone();
        let cache = self.cache.as_mut().ok_or_else(|| No("it is off".into()))?;
        let mode = cache.caching.mode;
        let rows = train.all_rows();
        if mode == CacheMode::Auto && train.draws_again() {
            return Err(No("rows are drawn with replacement, so an epoch does not meet all of them".into()));
        }
        if cache.kept.is_none() && left <= 1.0 {
            return Err(No("no later epoch would read it".into()));
        }
        let on_device = mode == CacheMode::Device || mode == CacheMode::Auto && engine.device_memory().is_some();
        let prices = prices(info.device.parse().unwrap_or_default(), on_device);
        let (cut, row) = fitting(prefix, rows, cache.caching.limit, |raise| Prices {
            read: prices.read * raise * if mode == CacheMode::Disk { FILE } else { 1.0 },
            ..prices
        })?;
        let split = prefix.split(&cut);
        let parts: Vec<Part> = split.cut.iter().filter_map(|crossing| crossing.part.clone()).collect();
        let prints: Vec<[u8; 32]> =
            split.cut.iter().filter(|crossing| crossing.part.is_some()).map(|crossing| crossing.fingerprint).collect();
        let identity = match cache.data {
            Some(identity) => identity,
            None => *cache.data.insert(train.identity(data).map_err(|error| No(error.to_string()))?),
        };
        let mut hasher = Sha256::new();
        hasher.update(format!("{} {} {rows} {parts:?}\n", info.name, info.version));
        hasher.update(identity);
        prints.iter().for_each(|print| hasher.update(print));
        let key: [u8; 32] = hasher.finalize().into();
        cache.last_epoch = last_epoch;
        let mut own = own_inputs(&split);
        if own.len() >= train.width() {
            // A batch tells the number of its rows by what is left of it.
            own.clear();
        }
        let all = row as u64 * rows as u64;
        if let Some(kept) = cache.kept.as_mut().filter(|kept| kept.key == key) {
            // The cut is where it was, and so is what was kept.
            kept.elsewhere.inputs = own;
            let growth = cache.before.as_ref().and_then(|before| grown(prefix, &cut, before));
            let event = used(segment, &split, row, all, kept.store.place(), Some("kept"));
            if let Some(trial) = &mut cache.trial {
                trial.event = event;
            } else {
                report(event);
            }
            self.loader.leave_out(Some(kept.elsewhere.clone()));
            return Ok((split, growth));
        }
        // What the phase before kept; what one before that had kept and was not taken over yet is given up.
        let stays = cache.caching.stays;
        let before = cache.kept.take();
        let older = cache.before.take();
        let (before, older) =
            if before.as_ref().is_some_and(|before| before.count > 0) { (before, older) } else { (older, before) };
        older.into_iter().for_each(|older| older.give_up(engine, stays));
        let growth = before.as_ref().and_then(|before| grown(prefix, &cut, before));
        let mut device = match mode {
            CacheMode::Device => Some(DeviceRows::new(engine, &parts, rows).map_err(No)?),
            CacheMode::Auto if has_room(engine, memory, all) => DeviceRows::new(engine, &parts, rows).ok(),
            _ => None,
        };
        let in_file = match mode {
            _ if device.is_some() => false,
            CacheMode::Disk => true,
            CacheMode::Auto => all > available_bytes().map_or(u64::MAX, |free| free / 2),
            _ => false,
        };
        let place = if in_file { "disk" } else { "device" };
        let beside = before.as_ref().filter(|before| before.store.place() == place);
        let held = beside.map_or(0, |before| before.row as u64 * rows as u64);
        let bounded = in_file || device.is_some();
        let seeds = growth.is_some() && (!bounded || held + all <= cache.caching.limit);
        let (before, growth) = match seeds {
            true => (before, growth),
            false => {
                before.into_iter().for_each(|before| before.give_up(engine, stays));
                (None, None)
            }
        };
        let store = match device.take() {
            Some(device) => Store::Device(device),
            None if in_file => open(&cache.caching.dir, &key, rows, row).map_err(No)?,
            None => Store::in_memory(rows),
        };
        if in_file && !stays {
            let paths = [store.path(), before.as_ref().and_then(|before| before.store.path())];
            remove_others(&cache.caching.dir, &paths);
        }
        let elsewhere = Elsewhere::new(own, rows);
        let found = store.found();
        found.iter().for_each(|row| elsewhere.set(*row, true));
        if let Some(before) = &before {
            before.store.found().into_iter().for_each(|row| elsewhere.set(row, true));
        }
        let from = match (before.is_some(), found.is_empty()) {
            (_, false) => "file",
            (true, true) => "kept",
            (false, true) => "data",
        };
        let event = used(segment, &split, row, all, store.place(), Some(from));
        let judged = cache.trial.is_none() && before.is_some() || from == "file";
        cache.before = before;
        cache.kept = Some(Kept { key, prints, parts, row, count: found.len(), store, elsewhere: elsewhere.clone() });
        cache.trial = None;
        match mode == CacheMode::Auto && !judged {
            true => cache.trial = Some(Trial::new(left, event)),
            false => report(event),
        }
        self.loader.leave_out(Some(elsewhere));
        Ok((split, growth))
    }

    /// Returns the last epoch that the frozen set of a segment is frozen in without a break.
    fn read_until(&self, segment: &Segment) -> usize {
        let held: HashSet<&str> = segment.held().collect();
        let later = self.segments.iter().filter(|later| later.last_epoch >= segment.first_epoch);
        let holds = |later: &&Segment| {
            let own: HashSet<&str> = later.held().collect();
            held.is_subset(&own)
        };
        let adaptive = self.setup.freezing.planner.is_some_and(|planner| planner.policy().is_adaptive());
        let last = later.take_while(holds).map(|later| later.last_epoch).last().unwrap_or(segment.last_epoch);
        if adaptive { self.plan.epochs.len().max(last) } else { last }
    }
}

/// Returns what computing and reading take about.
fn prices(device: Device, on_device: bool) -> Prices {
    match (device, on_device) {
        (Device::Cpu, _) => PRICES,
        (_, true) => DEVICE,
        (_, false) => Prices { read: UPLOAD, ..DEVICE },
    }
}

/// Returns true where the device has room for so many bytes beside what the phase is about to take.
fn has_room(engine: &dyn Engine, phase: &MemoryEstimate, bytes: u64) -> bool {
    let Some(memory) = engine.device_memory() else { return false };
    // Parameters and statistics are there already.
    let room = memory.free().saturating_sub(phase.total - phase.weights);
    bytes as f64 <= ROOM * room as f64
}

/// Returns the cheapest cut that fits into a limit, and its bytes for each row.
fn fitting(
    prefix: &Prefix<'_>,
    rows: usize,
    limit: u64,
    prices: impl Fn(f64) -> Prices,
) -> Result<(Vec<ValueId>, usize), No> {
    let mut least: Option<u64> = None;
    for raise in RAISES {
        let Some(cut) = prefix.cheapest(&prices(raise)) else { break };
        let row = prefix.split(&cut).sample_bytes();
        let all = row as u64 * rows as u64;
        if all <= limit {
            return Ok((cut, row));
        }
        least = Some(least.map_or(all, |least| least.min(all)));
    }
    Err(No(match (least, prefix.ends_at()) {
        (Some(least), _) => format!("{rows} rows take {least} bytes, and cache.limit is {limit}"),
        (None, Some(node)) => {
            format!(
                "what lies before \"{}\" ({}), which brings the samples of a batch together, costs less to compute than to read",
                node.name, node.op
            )
        }
        (None, None) => "what is frozen costs less to compute than to read".into(),
    }))
}

fn grown(prefix: &Prefix<'_>, cut: &[ValueId], before: &Kept) -> Option<Growth> {
    let (model, names) = prefix.growth(cut, &before.prints)?;
    Some(Growth { model, inputs: names.into_iter().zip(before.parts.iter().cloned()).collect() })
}

fn used(segment: &Segment, split: &Split, row: usize, bytes: u64, place: &str, from: Option<&str>) -> RunEvent {
    let values = split.cut.iter().filter(|crossing| crossing.part.is_some()).map(|crossing| crossing.name.clone());
    RunEvent::Cache {
        epoch: segment.first_epoch,
        after: segment.after,
        used: true,
        reason: None,
        place: Some(place.into()),
        values: values.collect(),
        sample_bytes: row as u64,
        bytes,
        from: from.map(str::to_string),
        compute_seconds: None,
        read_seconds: None,
    }
}

fn open(folder: &Path, key: &[u8; 32], rows: usize, row: usize) -> Result<Store, String> {
    let cannot = |error: std::io::Error| format!("its file in {} cannot be made: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(cannot)?;
    Store::in_file(&folder.join(format!("{}.{ENDING}", hex(key))), key, rows, row).map_err(cannot)
}

const ENDING: &str = "cache";

fn hex(key: &[u8; 32]) -> String {
    key.iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// Removes files of other prefixes, which nobody reads any more.
fn remove_others(folder: &Path, own: &[Option<&Path>]) {
    for entry in folder.read_dir().into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == ENDING) && !own.contains(&Some(path.as_path())) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn own_inputs(split: &Split) -> Vec<String> {
    let rest = &split.rest.graph;
    let inputs = split.prefix.graph.inputs().iter().map(|id| split.prefix.graph.value_name(*id));
    let read = |name: &str| rest.find(name).is_some_and(|id| rest.inputs().contains(&id));
    inputs.filter(|name| !read(name)).map(String::from).collect()
}

fn inputs(step: &TrainStep, role: Role) -> Vec<&str> {
    let ports = step.contract.train.inputs.iter().filter(|port| port.role == role);
    ports.map(|port| port.name.as_str()).collect()
}
