//! Sessions: a graph as ONNX Runtime has prepared it.

use super::NAME;
use super::device::{self, CudaSettings};
use super::family::{Family, Sizes};
use super::lender::Making;
use crate::facts::fold;
use crate::graph::{Builder, DType, Fact, INTERNAL_DOMAIN, Model, ValueId};
use crate::onnx::{Encoded, encode};
use crate::runner::cuda::device::CudaDevice;
use crate::runner::engine::{EngineError, Loaded, Loader, OnProcessor};
use crate::runner::native::{Target, optimize};
use crate::runner::placement::lower;
use crate::runner::precision::{self, Settings, Summary};
use ort::environment::Environment;
use ort::operator::OperatorDomain;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::{Arc, Mutex, OnceLock};
use tempfile::TempDir;

/// Files of a graph of many weights, in a folder of its own.
const MODEL_FILE: &str = "graph.onnx";
const DATA_FILE: &str = "weights.data";

pub(super) struct Prepared {
    pub(super) session: Session,
    /// Whether runs of fixed shapes are captured.
    pub(super) captures: bool,
    /// What of it runs on the processor, where it should run on a device.
    pub(super) on_processor: Vec<OnProcessor>,
    /// What computes in what, in mixed precision.
    pub(super) computes: Option<Summary>,
    /// What the session maps its weights from.
    pub(super) _files: Option<TempDir>,
    /// Where it writes what its nodes take.
    pub(super) profile: Option<TempDir>,
}

/// Operators of our own.
#[derive(Clone)]
pub(super) struct Operators(pub(super) Arc<OperatorDomain>);

// SAFETY: a domain does not change once it is made. ONNX Runtime reads it while it makes a session, on any thread, and
// its operators are `Send` and `Sync` by the bounds of their trait.
unsafe impl Send for Operators {}
// SAFETY: see above.
unsafe impl Sync for Operators {}

/// What sessions are made with.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) environment: &'static Environment,
    pub(super) operators: Operators,
    pub(super) threads: usize,
    /// Whether these are the threads that sessions share.
    pub(super) shared: bool,
    /// Most bytes of weights inside an encoded graph.
    pub(super) largest: usize,
    /// Whose operators of our own graphs are rewritten for.
    pub(super) target: Target,
    /// Whether graphs are rewritten for operators of our own; tests of single operators run them as they are.
    pub(super) optimizes: bool,
    /// In which dtypes new sessions compute, where that is not float32.
    pub(super) precision: Option<Settings>,
    /// Whether new sessions note what their nodes take.
    pub(super) notes: bool,
    /// Whether a graph with open sizes has a session for each set of them.
    pub(super) fixes_sizes: bool,
    /// The sizes that were bound first.
    pub(super) sizes: Arc<Mutex<Sizes>>,
    /// The device of sessions that are not on the processor.
    pub(super) device: Option<(Arc<CudaDevice>, CudaSettings)>,
}

impl Source {
    /// Makes the first session of the process, if there was none.
    ///
    /// Beside its own threads, ONNX Runtime treats denormal numbers as zero on the thread that makes it: that has to be
    /// the one that runs sessions, and not one that prepares them.
    pub(super) fn first(&self) -> Result<(), EngineError> {
        static MADE: OnceLock<()> = OnceLock::new();
        if MADE.set(()).is_ok() {
            let mut b = Builder::new("first");
            let x = b.input("x", Fact::fixed(DType::F32, &[]));
            let y = b.unary("Identity", x);
            b.output(y, "y");
            let opsets = [(String::new(), 18)].into();
            self.session(&Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() }, &Sizes::new())?;
        }
        Ok(())
    }

    /// Makes a session of a graph whose open dimensions have these sizes, or any where they are not given.
    pub(super) fn session(&self, model: &Model, sizes: &Sizes) -> Result<Prepared, EngineError> {
        let fixed = || fold(&model.with_graph(model.graph.with_sizes(sizes)), &HashSet::new());
        let fixed = self.fixes_sizes.then(fixed);
        let model = fixed.as_ref().unwrap_or(model);
        let mut model = if self.optimizes { optimize(model, self.target) } else { Cow::Borrowed(model) };
        let mut computes = None;
        if let Some(settings) = &self.precision {
            let (lowered, summary) = precision::lower(&model, settings);
            computes = Some(summary);
            if let Cow::Owned(lowered) = lowered {
                model = Cow::Owned(lowered);
            }
        }
        let graphs = self.device.as_ref().is_some_and(|(_, settings)| settings.graphs);
        if self.device.is_some() {
            model = Cow::Owned(lower(&model, &device_names()).into_owned());
        }
        // With open sizes shapes are computed on the processor, and ONNX Runtime captures only what is whole on the device.
        let open = |id: &ValueId| model.graph.fact(*id).sizes().is_none();
        let captures = graphs && device::can_be_captured(&model) && !model.graph.inputs().iter().any(open);
        let prepared = match self.prepare(&model, captures) {
            Err(_) if captures => self.prepare(&model, false),
            result => result,
        };
        prepared.map(|prepared| Prepared { computes, ..prepared })
    }

    fn prepare(&self, model: &Model, captures: bool) -> Result<Prepared, EngineError> {
        let name = model.graph.name().to_string();
        let fail = |error: &dyn std::fmt::Display| EngineError::Load {
            engine: NAME,
            graph: name.clone(),
            reason: match &self.device {
                Some((gpu, _)) => device::with_refused(gpu, error),
                None => error.to_string(),
            },
        };
        let mut session = Session::builder(self.environment)
            .map_err(|error| fail(&error))?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(|error| fail(&error))?
            .with_intra_threads(self.threads)
            .map_err(|error| fail(&error))?;
        if !self.shared {
            session = session.with_independent_thread_pool().map_err(|error| fail(&error))?;
        }
        let making = self.device.as_ref().map(|_| Making::begin());
        if let Some((gpu, settings)) = &self.device {
            session = device::on(session, gpu, *settings, captures).map_err(|error| fail(&error))?;
        }
        if model.opsets.contains_key(INTERNAL_DOMAIN) {
            session = session.with_operators(Arc::clone(&self.operators.0)).map_err(|error| fail(&error))?;
            // A plan of the memory would be a block of its own, beside what the first run has taken.
            session = session.with_memory_pattern(false).map_err(|error| fail(&error))?;
        }
        // A gradient that fades out would take many times as long.
        session = session.with_config_entry("session.set_denormal_as_zero", "1").map_err(|error| fail(&error))?;
        let mut profile = None;
        if self.notes {
            let folder = tempfile::tempdir().map_err(|error| fail(&error))?;
            session = session.with_profiling(folder.path().join("nodes")).map_err(|error| fail(&error))?;
            profile = Some(folder);
        }
        let encoded = encode(model, DATA_FILE, self.largest);
        let (session, files) = if encoded.pieces.is_empty() {
            (session.commit_from_memory(&encoded.bytes).map_err(|error| fail(&error))?, None)
        } else {
            let folder = on_disk(&encoded).map_err(|error| fail(&format!("its weights cannot be written: {error}")))?;
            (session.commit_from_file(folder.path().join(MODEL_FILE)).map_err(|error| fail(&error))?, Some(folder))
        };
        drop(making);
        let on_processor = match &self.device {
            Some(_) => device::on_processor(&session, model, &device_names()).map_err(|error| fail(&error))?,
            None => Vec::new(),
        };
        Ok(Prepared { session, captures, on_processor, computes: None, _files: files, profile })
    }
}

/// Returns the names of our operators on a device.
fn device_names() -> Vec<&'static str> {
    crate::runner::cuda::operators::DEFINITIONS.iter().map(|definition| definition.name).collect()
}

impl Loader for Source {
    fn remote(&self) -> bool {
        self.device.is_some()
    }

    fn load(&self, model: &Model) -> Result<Loaded, EngineError> {
        Family::new(self, model).map(|family| Loaded(Box::new(family)))
    }
}

/// Writes a graph whose weights do not fit into one protobuf: ONNX Runtime takes a tensor of 2 GiB
/// and more from a file only.
fn on_disk(encoded: &Encoded) -> std::io::Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let mut data = BufWriter::new(File::create(folder.path().join(DATA_FILE))?);
    encoded.write_data(&mut data)?;
    data.flush()?;
    std::fs::write(folder.path().join(MODEL_FILE), &encoded.bytes)?;
    Ok(folder)
}
