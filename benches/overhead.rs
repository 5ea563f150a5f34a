//! What a step of the runner takes beyond its bare sessions, on one thread.
//!
//! `cargo bench --no-default-features --features cli --bench overhead -- [--epochs N]`. A run of the digits with nothing
//! frozen trains epoch by epoch, with its events written as of any run; between its epochs the same two graphs run as
//! often by calls of ONNX Runtime's C interface, bound once, on one batch, and without the sum that tells whether the
//! gradients are finite. Best and median of the epochs are printed as a table in Markdown.

use freeze_plan::data::{self, BatchOptions, Batches, Dataset, LastBatch, Sampler, Wanted};
use freeze_plan::graph::{DType, Model, Tensor};
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::onnx::{read, to_bytes};
use freeze_plan::optim::OptimizerSpec;
use freeze_plan::plan::PlanOptions;
use freeze_plan::planner::{Analysis, Basis, Request};
use freeze_plan::runner::{Freezing, LocateOptions, OnnxRuntime, RunEvent, Schedule, Setup, Timed, locate, train};
use freeze_plan::sinks::{JsonLines, Sink};
use freeze_plan::training::{Objective, Own, PhaseOptions, Rates, TrainStep, build, names, prepare, target_fact};
use ort::sys;
use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::ffi::{CString, c_void};
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

type Anything<T> = Result<T, Box<dyn Error>>;

/// Memory of a tensor, aligned as engines want it.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; 64]);

/// Tensors by name, as ONNX Runtime's values on memory of ours.
#[derive(Default)]
struct Values {
    memory: Vec<Vec<Line>>,
    values: HashMap<String, *mut sys::OrtValue>,
}

impl Values {
    fn add(&mut self, name: &str, tensor: &Tensor) -> Anything<()> {
        let mut memory = vec![Line([0; 64]); tensor.bytes().len() / 64 + 1];
        let kind = match tensor.dtype() {
            DType::F32 => sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
            DType::I64 => sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
            other => return Err(format!("{name} is of {other}").into()),
        };
        for (line, bytes) in memory.iter_mut().zip(tensor.bytes().chunks(64)) {
            line.0[..bytes.len()].copy_from_slice(bytes);
        }
        let shape: Vec<i64> = tensor.shape().iter().map(|size| i64::try_from(*size)).collect::<Result<_, _>>()?;
        let (mut info, mut value) = (null_mut(), null_mut());
        let api = ort::api();
        // SAFETY: the memory is kept beside the value, at the same place, and is as large as the tensor.
        unsafe {
            check((api.CreateCpuMemoryInfo)(
                sys::OrtAllocatorType::OrtDeviceAllocator,
                sys::OrtMemType::OrtMemTypeDefault,
                &mut info,
            ))?;
            check((api.CreateTensorWithDataAsOrtValue)(
                info,
                memory.as_mut_ptr().cast::<c_void>(),
                tensor.bytes().len(),
                shape.as_ptr(),
                shape.len(),
                kind,
                &mut value,
            ))?;
        }
        self.memory.push(memory);
        self.values.insert(name.into(), value);
        Ok(())
    }
}

/// A session with everything bound.
struct Bare {
    session: *mut sys::OrtSession,
    binding: *mut sys::OrtIoBinding,
}

impl Bare {
    fn new(environment: *mut sys::OrtEnv, model: &Model, values: &Values) -> Anything<Bare> {
        let api = ort::api();
        let bytes = to_bytes(model);
        let (mut options, mut session, mut binding) = (null_mut(), null_mut(), null_mut());
        // SAFETY: every pointer was made by the call before it; the bytes of the model are copied.
        unsafe {
            check((api.CreateSessionOptions)(&mut options))?;
            check((api.SetIntraOpNumThreads)(options, 1))?;
            check((api.SetSessionGraphOptimizationLevel)(options, sys::GraphOptimizationLevel::ORT_ENABLE_ALL))?;
            let data = bytes.as_ptr().cast::<c_void>();
            check((api.CreateSessionFromArray)(environment, data, bytes.len(), options, &mut session))?;
            check((api.CreateIoBinding)(session, &mut binding))?;
        }
        let graph = &model.graph;
        for (names, bind) in [(graph.inputs(), api.BindInput), (graph.outputs(), api.BindOutput)] {
            for name in names.iter().map(|id| graph.value_name(*id)) {
                // What is updated is written where it is read.
                let state = name.strip_suffix(".next").unwrap_or(name);
                let value = *values.values.get(state).ok_or_else(|| format!("nothing is bound to {name}"))?;
                let name = CString::new(name)?;
                // SAFETY: binding and value live as long as the program.
                unsafe { check(bind(binding, name.as_ptr(), value))? };
            }
        }
        Ok(Bare { session, binding })
    }

    fn run(&self) -> Anything<()> {
        // SAFETY: both live as long as the program, and nothing else runs them.
        unsafe { check((ort::api().RunWithBinding)(self.session, null(), self.binding)) }
    }
}

/// # Safety
/// The status is one that ONNX Runtime returned.
unsafe fn check(status: sys::OrtStatusPtr) -> Anything<()> {
    // SAFETY: see above.
    Ok(unsafe { ort::Error::result_from_status(status) }?)
}

/// Returns the sessions of a step, on one batch.
fn bare(step: &TrainStep, batch: &[(String, Tensor)], weights: &[(String, Tensor)]) -> Anything<[Bare; 2]> {
    let mut values = Values::default();
    batch.iter().chain(weights).try_for_each(|(name, tensor)| values.add(name, tensor))?;
    step.slots.iter().try_for_each(|slot| values.add(&slot.name, &slot.initial))?;
    let optimizer = step.optimizer.as_ref().ok_or("nothing trains")?;
    for graph in [&step.train.graph, &optimizer.graph] {
        for id in graph.inputs().iter().chain(graph.outputs()) {
            let name = graph.value_name(*id);
            let known = values.values.contains_key(name.strip_suffix(".next").unwrap_or(name));
            if !known {
                let rows = batch[0].1.shape()[0];
                let fact = graph.fact(*id);
                let sizes = fact.shape.iter().flatten().map(|dim| dim.known().unwrap_or(rows)).collect::<Vec<_>>();
                values.add(name, &Tensor::zeros(fact.dtype.unwrap_or(DType::F32), &sizes))?;
            }
        }
    }
    values.add(names::LR, &Tensor::scalar(0.01f32))?;
    let mut environment = null_mut();
    // SAFETY: ONNX Runtime has one environment, which the engine has made: this is another handle of it.
    unsafe {
        let level = sys::OrtLoggingLevel::ORT_LOGGING_LEVEL_ERROR;
        check((ort::api().CreateEnv)(level, c"bare".as_ptr(), &mut environment))?;
    }
    let sessions = [Bare::new(environment, &step.train, &values)?, Bare::new(environment, optimizer, &values)?];
    std::mem::forget(values);
    Ok(sessions)
}

fn main() -> Anything<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let epochs = match args.as_slice() {
        [] => 40,
        [flag, number] if flag == "--epochs" => number.parse()?,
        _ => return Err("expected [--epochs N]".into()),
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/digits");
    let located = locate(&LocateOptions::default(), &mut |line| eprintln!("{line}"))?;
    let mut engine = OnnxRuntime::new(&located.path, 1)?;
    let file = read(&folder.join("model.onnx"))?;
    let analysis = Analysis::of(&file.model);
    let prepared = prepare(&analysis)?;
    let loss = LossSpec::new(LossKind::CrossEntropy);
    let optimizer: OptimizerSpec =
        serde_json::from_str(r#"{"kind": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}"#)?;
    let dataset = Dataset::open(&folder.join("train.npz"), &Default::default(), None)?;
    let graph = &prepared.model.graph;
    let x = graph.fact(graph.find("x").ok_or("no x")?).clone();
    let target = target_fact(&prepared, &loss, None)?;
    let wanted = [("images", "x", x), ("labels", names::TARGET, target)];
    let wanted = wanted.map(|(column, input, fact)| Wanted { column: column.into(), input: input.into(), fact });
    let order = BatchOptions { size: 64, seed: 0, sampler: Sampler::Shuffle, last_batch: LastBatch::Drop };
    let batches = Batches::new(data::check(&dataset, &wanted)?, order)?;
    let steps = batches.len();
    let options = PlanOptions::of("none");
    let request = Request {
        epochs,
        steps_per_epoch: steps,
        options: &options,
        slots: 1,
        own_slots: HashMap::new(),
        sizes: HashMap::from([("N".into(), 64), ("batch".into(), 64)]),
    };
    let plan = Basis::of(&file, &analysis, &request)?.plan()?;
    let objective = Objective::Own(Own { loss: &loss, output: None, optimizer: &optimizer });
    let schedule = Schedule::default();
    let setup = Setup::of(&prepared, Freezing::of(&plan), objective, &schedule, &batches);

    let phase = PhaseOptions {
        frozen: HashSet::new(),
        frozen_inputs: false,
        rates: Rates::new(),
        loss: &loss,
        optimizer: &optimizer,
        output: None,
        seed: 0,
    };
    let step = build(&prepared, &phase)?;
    let weights = prepared.parameters.iter().filter_map(|parameter| {
        let tensor = prepared.model.graph.value(parameter.value).initializer.clone()?;
        Some((parameter.name.clone(), tensor))
    });
    let sessions = bare(&step, &batches.batch(1, 0)?, &weights.collect::<Vec<_>>())?;
    sessions.iter().cycle().take(20).try_for_each(Bare::run)?;

    let events = tempfile::NamedTempFile::new()?;
    let mut sink = JsonLines::create(events.path(), 1)?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let mut clock = Instant::now();
    let mut failed = None;
    let mut report = |event: RunEvent| {
        let ends = matches!(event, RunEvent::Epoch { .. });
        let seconds = clock.elapsed().as_secs_f64();
        if let Err(error) = sink.take(&Timed { event, time: seconds }) {
            failed.get_or_insert(error.to_string());
        }
        if ends {
            with.push(seconds / steps as f64);
            let begin = Instant::now();
            if let Err(error) = sessions.iter().cycle().take(2 * steps).try_for_each(Bare::run) {
                failed.get_or_insert(error.to_string());
            }
            without.push(begin.elapsed().as_secs_f64() / steps as f64);
            clock = Instant::now();
        }
    };
    train(&mut engine, &setup, &mut report, &AtomicBool::new(false))?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    // The first epoch has the first phase in it.
    let pairs = || with.iter().zip(&without).skip(1);
    let middle = |mut numbers: Vec<f64>| {
        numbers.sort_by(f64::total_cmp);
        numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let least = |numbers: &[f64]| numbers.iter().skip(1).copied().fold(f64::INFINITY, f64::min);
    let rows = [
        ("best", least(&with), least(&without), least(&with) - least(&without)),
        (
            "median",
            middle(pairs().map(|pair| *pair.0).collect()),
            middle(pairs().map(|pair| *pair.1).collect()),
            middle(pairs().map(|(with, without)| with - without).collect()),
        ),
    ];
    println!(
        "| of {} epochs | runner, ms | bare, ms | beside, us | of a step of 10 ms |",
        with.len().saturating_sub(1)
    );
    println!("| --- | --- | --- | --- | --- |");
    for (name, with, without, beside) in rows {
        let (with, without) = (1e3 * with, 1e3 * without);
        println!("| {name} | {with:.3} | {without:.3} | {:.0} | {:.2} % |", 1e6 * beside, 1e4 * beside);
    }
    Ok(())
}
