//! What a run measures for its policy: against values computed here, and without a trace in what is trained.

use crate::engines::{engines, fixture, onnxruntime};
use freeze_plan::data::{self, BatchOptions, Batches, Dataset, LastBatch, Sampler, Wanted};
use freeze_plan::graph::{Attributes, Builder, DType, Dim, Fact, Model, Tensor};
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::modules::{UnitKind, outputs, units};
use freeze_plan::onnx::{OnnxFile, read, to_bytes};
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::plan::{Decision, FrozenSet, History, Moment, PlanOptions, Policy, Reference, Run, Signal};
use freeze_plan::planner::{Analysis, Basis, Request};
use freeze_plan::runner::{Engine, Freezing, Outcome, Schedule, Setup, train};
use freeze_plan::signals::{
    Activations, Directions, Layout, SVCCA_SHARE, linear_cka, pwcca, similarity_preserving, svcca,
};
use freeze_plan::training::{Objective, Own, Recompute, names, prepare, stage, target_fact};
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

const ALL: [Signal; 9] = [
    Signal::GradientSum,
    Signal::GradientSquare,
    Signal::WeightChange,
    Signal::Importance,
    Signal::SimilarityPreserving,
    Signal::Svcca,
    Signal::Pwcca,
    Signal::Cka,
    Signal::MinibatchCka,
];

/// Looks at signals and freezes nothing but what it is told to.
struct Watch {
    signals: Vec<Signal>,
    points: Vec<usize>,
    reference: Reference,
    frozen: Vec<usize>,
}

impl Policy for Watch {
    fn name(&self) -> &str {
        "watch"
    }

    fn decide(&self, at: &Moment<'_>) -> Decision {
        let late = |unit: usize| at.steps() >= 3 && self.frozen.contains(&unit);
        Decision::of(FrozenSet::from((0..at.units.len()).map(late).collect::<Vec<bool>>()))
    }

    fn points(&self, _run: Run, _units: usize) -> Vec<usize> {
        self.points.clone()
    }

    fn signals(&self) -> Vec<Signal> {
        self.signals.clone()
    }

    fn reference(&self) -> Reference {
        self.reference
    }
}

fn watch(signals: &[Signal], points: &[usize]) -> Watch {
    let reference = Reference { refresh: 1, samples: 8 };
    Watch { signals: signals.to_vec(), points: points.to_vec(), reference, frozen: Vec::new() }
}

/// What a run trains.
struct Job {
    file: OnnxFile,
    loss: LossSpec,
    optimizer: OptimizerSpec,
    data: Dataset,
    /// Columns of the input and of the target.
    columns: (&'static str, &'static str),
    batch: usize,
    epochs: usize,
    accumulate: usize,
}

impl Job {
    fn run(&self, engine: &mut dyn Engine, policy: Watch) -> Outcome {
        let analysis = Analysis::of(&self.file.model);
        let prepared = prepare(&analysis).unwrap();
        let input = prepared.model.graph.inputs()[0];
        let wanted = |column: &str, input: &str, fact| Wanted { column: column.into(), input: input.into(), fact };
        let graph = &prepared.model.graph;
        let wanted = [
            wanted(self.columns.0, graph.value_name(input), graph.fact(input).clone()),
            wanted(self.columns.1, names::TARGET, target_fact(&prepared, &self.loss, None).unwrap()),
        ];
        let options =
            BatchOptions { size: self.batch, seed: 0, sampler: Sampler::Sequential, last_batch: LastBatch::Keep };
        let batches = Batches::new(data::check(&self.data, &wanted).unwrap(), options).unwrap();
        let steps = batches.len().div_ceil(self.accumulate);
        let options = PlanOptions::of("none");
        let request = Request {
            epochs: self.epochs,
            steps_per_epoch: steps,
            options: &options,
            slots: 1,
            own_slots: HashMap::new(),
            sizes: HashMap::from([("N".into(), self.batch), ("batch".into(), self.batch)]),
        };
        let basis = Basis::with(&self.file, &analysis, &request, Box::new(policy)).unwrap();
        let plan = basis.plan().unwrap();
        let planner = basis.planner().unwrap();
        let setup = Setup {
            prepared: &prepared,
            freezing: Freezing::with(&plan, &planner, &options),
            objective: Objective::Own(Own { loss: &self.loss, output: None, optimizer: &self.optimizer }),
            schedule: &Schedule::default(),
            evaluation: &Default::default(),
            train: &batches,
            eval: None,
            loading: None,
            checkpoints: None,
            resume: None,
            seed: 0,
            recompute: &Recompute::None,
            log_every: 1,
            accumulate: self.accumulate,
            nonfinite: Default::default(),
            ema: None,
            operators: freeze_plan::runner::Operators::Own,
            computing: Default::default(),
        };
        train(engine, &setup, &mut |_| {}, &AtomicBool::new(false)).unwrap()
    }
}

fn saved(model: &Model, folder: &std::path::Path) -> OnnxFile {
    let path = folder.join("model.onnx");
    std::fs::write(&path, to_bytes(model)).unwrap();
    read(&path).unwrap()
}

const ROWS: usize = 12;

fn row(index: usize) -> [f32; 3] {
    let at = index as f32;
    [(at * 0.7).sin(), (at * 1.3 + 0.5).cos(), (at * 0.4 - 1.0).sin() * 0.5]
}

fn target(index: usize) -> f32 {
    row(index)[0] * 0.8 - row(index)[1] * 0.3 + 0.2
}

const FIRST: [f32; 6] = [0.5, -0.25, 0.0, 0.75, -0.5, 0.125];
const SECOND: [f32; 2] = [0.6, -0.4];
const RATE: f64 = 0.125;
const MOMENTUM: f64 = 0.5;

/// `y = (x A) B`, rows of three, mean squared error, SGD with momentum.
fn two_layers(folder: &std::path::Path, accumulate: usize) -> Job {
    let mut b = Builder::new("two");
    let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("N".into()), Dim::Known(3)]));
    let first = b.initializer("fc1.weight", Tensor::from_vec(&[3, 2], FIRST.to_vec()));
    let second = b.initializer("fc2.weight", Tensor::from_vec(&[2, 1], SECOND.to_vec()));
    let hidden = b.op("MatMul", &[x, first], Attributes::none());
    let y = b.op("MatMul", &[hidden, second], Attributes::none());
    b.output(y, "y");
    let model = Model { graph: b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() };
    let columns = vec![
        ("x".to_string(), Tensor::from_vec(&[ROWS, 3], (0..ROWS).flat_map(row).collect())),
        ("t".to_string(), Tensor::from_vec(&[ROWS, 1], (0..ROWS).map(target).collect())),
    ];
    Job {
        file: saved(&model, folder),
        loss: LossSpec::new(LossKind::Mse),
        optimizer: OptimizerSpec { lr: Some(RATE), momentum: Some(MOMENTUM), ..OptimizerSpec::new(OptimizerKind::Sgd) },
        data: Dataset::new(folder, columns).unwrap(),
        columns: ("x", "t"),
        batch: 4,
        epochs: 2,
        accumulate,
    }
}

/// The same in f64, by hand.
#[derive(Clone)]
struct ByHand {
    weights: [Vec<f64>; 2],
    velocities: [Vec<f64>; 2],
}

impl ByHand {
    fn new() -> ByHand {
        let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<f64>>();
        ByHand { weights: [wide(&FIRST), wide(&SECOND)], velocities: [vec![0.0; 6], vec![0.0; 2]] }
    }

    fn hidden(&self, index: usize) -> [f64; 2] {
        let x = row(index).map(f64::from);
        [0, 1].map(|column| (0..3).map(|axis| x[axis] * self.weights[0][axis * 2 + column]).sum())
    }

    fn gradients(&self, rows: std::ops::Range<usize>) -> [Vec<f64>; 2] {
        let mut found = [vec![0.0; 6], vec![0.0; 2]];
        let count = rows.len() as f64;
        for index in rows {
            let hidden = self.hidden(index);
            let y = hidden[0] * self.weights[1][0] + hidden[1] * self.weights[1][1];
            let error = 2.0 * (y - f64::from(target(index))) / count;
            for column in 0..2 {
                found[1][column] += error * hidden[column];
                for (axis, x) in row(index).into_iter().enumerate() {
                    found[0][axis * 2 + column] += error * f64::from(x) * self.weights[1][column];
                }
            }
        }
        found
    }

    fn step(&mut self, rows: std::ops::Range<usize>) -> [Vec<f64>; 2] {
        let gradients = self.gradients(rows);
        for (unit, own) in gradients.iter().enumerate() {
            for (index, gradient) in own.iter().enumerate() {
                self.velocities[unit][index] = MOMENTUM * self.velocities[unit][index] + gradient;
                self.weights[unit][index] -= RATE * self.velocities[unit][index];
            }
        }
        gradients
    }

    fn importance(&self, rows: std::ops::Range<usize>) -> [f64; 2] {
        let mut after = self.clone();
        after.step(rows.clone());
        let gradients = after.gradients(rows);
        [0, 1].map(|unit| {
            let moved = after.weights[unit].iter().zip(&self.weights[unit]).map(|(now, old)| now - old);
            -gradients[unit].iter().zip(moved).map(|(gradient, moved)| gradient * moved).sum::<f64>()
        })
    }

    fn change(&self, before: &ByHand) -> [f64; 2] {
        [0, 1].map(|unit| {
            let pairs = before.weights[unit].iter().zip(&self.weights[unit]).filter(|(old, _)| **old != 0.0);
            let changes: Vec<f64> = pairs.map(|(old, now)| ((old - now) / old).abs()).collect();
            changes.iter().sum::<f64>() / changes.len() as f64
        })
    }

    /// The outputs of a unit for the first rows.
    fn outputs(&self, unit: usize, samples: usize) -> Activations {
        let values: Vec<f64> = match unit {
            0 => (0..samples).flat_map(|index| self.hidden(index)).collect(),
            _ => (0..samples)
                .map(|index| self.hidden(index))
                .map(|hidden| hidden[0] * self.weights[1][0] + hidden[1] * self.weights[1][1])
                .collect(),
        };
        Activations::of_slice(&values, &[samples, 2 - unit], Layout::Samples).unwrap()
    }
}

fn close(what: &str, found: Option<f64>, expected: f64) {
    let found = found.unwrap_or_else(|| panic!("{what}: nothing was measured"));
    assert!((found - expected).abs() <= 2e-5 * expected.abs().max(1e-3), "{what}: {found}, expected {expected}");
}

fn check(history: &History, points: &[usize], accumulate: usize, name: &str) {
    assert_eq!(history.observations.iter().map(|seen| seen.step).collect::<Vec<_>>(), points);
    let steps = 3usize.div_ceil(accumulate);
    let rows = |step: usize| (step % steps) * 4 * accumulate..((step % steps + 1) * 4 * accumulate).min(ROWS);
    let mut run = ByHand::new();
    let mut reference = run.clone();
    let mut done = 0;
    for (seen, point) in history.observations.iter().zip(points) {
        let mut sums = [vec![0.0; 6], vec![0.0; 2]];
        let mut squares = [0.0; 2];
        let mut before = run.clone();
        for step in done..*point {
            before = run.clone();
            for (unit, gradient) in run.step(rows(step)).iter().enumerate() {
                sums[unit].iter_mut().zip(gradient).for_each(|(sum, value)| *sum += value);
                squares[unit] += gradient.iter().map(|value| value * value).sum::<f64>();
            }
        }
        let trial = rows(*point).start;
        let importance = run.importance(trial..(trial + 4).min(ROWS));
        let change = run.change(&before);
        for unit in 0..2 {
            let at = |signal: &str| format!("{signal} of unit {unit} at step {point} on {name}");
            let sum = sums[unit].iter().map(|value| value.abs()).sum();
            close(&at("sum"), seen.value(Signal::GradientSum, unit), sum);
            close(&at("square"), seen.value(Signal::GradientSquare, unit), squares[unit] / (*point - done) as f64);
            close(&at("change"), seen.value(Signal::WeightChange, unit), change[unit]);
            close(&at("importance"), seen.value(Signal::Importance, unit), importance[unit]);
            let (now, old) = (run.outputs(unit, 8), reference.outputs(unit, 8));
            close(&at("cka"), seen.value(Signal::Cka, unit), linear_cka(&now, &old).unwrap());
            close(&at("svcca"), seen.value(Signal::Svcca, unit), svcca(&now, &old, SVCCA_SHARE).unwrap().mean());
            let weighted = pwcca(&now, &old, Directions::Variates).unwrap().value;
            close(&at("pwcca"), seen.value(Signal::Pwcca, unit), weighted);
            let loss = similarity_preserving(&now, &old).unwrap();
            close(&at("similarity"), seen.value(Signal::SimilarityPreserving, unit), loss);
        }
        done = *point;
        reference = run.clone();
    }
}

const BY_HAND: [Signal; 8] = [
    Signal::Svcca,
    Signal::Pwcca,
    Signal::GradientSum,
    Signal::GradientSquare,
    Signal::WeightChange,
    Signal::Importance,
    Signal::Cka,
    Signal::SimilarityPreserving,
];

#[test]
fn signals_are_those_computed_by_hand() {
    for mut engine in engines() {
        let folder = tempfile::tempdir().unwrap();
        for (accumulate, points) in [(1, &[2, 3, 5][..]), (2, &[1, 3])] {
            let job = two_layers(folder.path(), accumulate);
            let outcome = job.run(engine.as_mut(), watch(&BY_HAND, points));
            check(&outcome.history, points, accumulate, &engine.info().name);
        }
    }
}

#[test]
fn frozen_units_have_importance_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut policy = watch(&BY_HAND, &[3, 5]);
    policy.frozen = vec![0];
    let history = two_layers(folder.path(), 1).run(&mut onnxruntime(), policy).history;
    let [first, second] = history.observations.as_slice() else { panic!("two observations") };
    assert_eq!((first.frozen.as_slice(), second.frozen.as_slice()), (&[false; 2][..], &[true, false][..]));
    for signal in BY_HAND {
        assert!(first.value(signal, 0).is_some(), "{signal:?}");
        assert!(second.value(signal, 1).is_some(), "{signal:?}");
        assert_eq!(second.value(signal, 0).is_some(), signal == Signal::Importance, "{signal:?}");
    }
}

fn digits(model: &str, optimizer: OptimizerSpec) -> Job {
    Job {
        file: read(&fixture(model)).unwrap(),
        loss: LossSpec::new(LossKind::CrossEntropy),
        optimizer,
        data: Dataset::open(&fixture("digits/train.npz"), &Default::default(), None).unwrap(),
        columns: ("images", "labels"),
        batch: 64,
        epochs: 1,
        accumulate: 1,
    }
}

#[test]
fn what_is_trained_is_the_same_with_and_without_a_look() {
    let sgd = OptimizerSpec { momentum: Some(0.9), lr: Some(0.1), ..OptimizerSpec::new(OptimizerKind::Sgd) };
    for mut engine in engines() {
        let job = digits("digits/model.onnx", sgd.clone());
        // CCA takes long in a build that is not optimized.
        let signals =
            ALL.map(|signal| if signal == Signal::Svcca || signal == Signal::Pwcca { Signal::Cka } else { signal });
        let mut policy = watch(&signals, &[3, 8]);
        policy.reference.samples = 4;
        let seen = job.run(engine.as_mut(), policy);
        let alone = job.run(engine.as_mut(), watch(&[], &[]));
        assert_eq!(seen.history.observations.len(), 2);
        for signal in signals {
            let found = seen.history.observations[1].signals[&signal].iter().flatten().count();
            assert!(found > 0, "{signal:?} has no value");
        }
        assert!(seen.values == alone.values, "{}", engine.info().name);
        assert!(seen.slots == alone.slots, "{}", engine.info().name);
    }
}

#[test]
fn a_model_that_stays_is_like_itself() {
    let still = OptimizerSpec { lr: Some(0.0), ..OptimizerSpec::new(OptimizerKind::Sgd) };
    let signals = [Signal::Cka, Signal::MinibatchCka, Signal::SimilarityPreserving];
    let mut policy = watch(&signals, &[2, 4]);
    policy.reference.samples = 8;
    let history = digits("digits_vit/model.onnx", still).run(&mut onnxruntime(), policy).history;
    for seen in &history.observations {
        for (signal, value) in [(Signal::Cka, 1.0), (Signal::MinibatchCka, 1.0), (Signal::SimilarityPreserving, 0.0)] {
            let values = &seen.signals[&signal];
            assert!(values.iter().flatten().count() * 10 >= values.len() * 9, "{signal:?}: {values:?}");
            for found in values.iter().flatten() {
                assert!((found - value).abs() < 1e-9, "{signal:?}: {found}");
            }
        }
    }
}

/// Policies that decide by what they measure: with these knobs each freezes something within two epochs.
const ADAPTIVE: [(&str, &str); 9] = [
    ("gradient", "intervals = 8"),
    ("fisher", "every = 5\ndecay = 0.5"),
    ("relative-change", "every = 5"),
    ("plasticity", "every = 2\nwindow = 2\ntolerance = 1.0\nbootstrap = 10.0\nsamples = 16"),
    ("similarity", "every = 5\nthreshold = 0.1\npatience = 1\nsamples = 16"),
    ("similarity", "every = 5\nthreshold = 0.1\npatience = 1\nsamples = 16\nmeasure = \"minibatch-cka\""),
    ("similarity", "every = 5\nthreshold = 0.1\npatience = 1\nsamples = 4\nunit = \"block\"\nmeasure = \"svcca\""),
    ("similarity", "every = 5\nthreshold = 0.1\npatience = 1\nsamples = 4\nunit = \"block\"\nmeasure = \"pwcca\""),
    ("budget", "target = 0.6\ninterval = 1"),
];

fn trained(policy: &str, knobs: &str, folder: &std::path::Path) -> (Vec<u8>, serde_json::Value) {
    let digits = fixture("digits");
    let text = format!(
        "model = {model:?}\n[data]\ntrain = {train:?}\ninputs = {{ x = \"images\" }}\ntarget = \"labels\"\nbatch = 64\n\
         seed = 0\n[loss]\nkind = \"cross-entropy\"\n[optimizer]\nkind = \"sgd\"\nlr = 0.1\nmomentum = 0.9\n[freeze]\n\
         policy = {policy:?}\n{knobs}\n[run]\nepochs = 2\ndir = \"run\"\n",
        model = digits.join("model.onnx"),
        train = digits.join("train.npz"),
    );
    let job = folder.join("job.toml");
    std::fs::write(&job, text).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_freeze-plan")).arg("train").arg(&job).output().unwrap();
    assert!(output.status.success(), "{policy}: {}", String::from_utf8_lossy(&output.stderr));
    let plan = std::fs::read(folder.join("run/plan.json")).unwrap();
    (std::fs::read(folder.join("run/model.onnx")).unwrap(), serde_json::from_slice(&plan).unwrap())
}

#[test]
fn adaptive_policies_freeze_and_do_it_again() {
    let named: Vec<&str> = ADAPTIVE.iter().map(|(name, _)| *name).collect();
    for entry in freeze_plan::plan::policies::POLICIES {
        let policy = freeze_plan::plan::policies::find(&PlanOptions::of(entry.name)).unwrap();
        assert!(!policy.is_adaptive() || named.contains(&entry.name), "{} is not tried", entry.name);
    }
    for (policy, knobs) in ADAPTIVE {
        let [first, second] = [(); 2].map(|()| {
            let folder = tempfile::tempdir().unwrap();
            trained(policy, knobs, folder.path())
        });
        let epochs = first.1["epochs"].as_array().unwrap();
        let stretches =
            epochs.iter().flat_map(|epoch| epoch["changes"].as_array().into_iter().flatten().chain([epoch]));
        let froze = stretches.map(|stretch| stretch["frozen"].as_array().unwrap().len()).max();
        assert!(froze > Some(0), "{policy} {knobs:?} froze nothing");
        assert_eq!(first.1, second.1, "{policy}");
        assert!(first.0 == second.0, "{policy}: the models differ");
    }
}

/// A run of a training step of the file for 8 steps of one epoch.
fn staged(name: &str, signals: &[Signal]) -> Result<History, String> {
    let file = read(&fixture(&format!("training_info/{name}.onnx"))).unwrap();
    let analysis = Analysis::as_written(&file.model);
    let (prepared, stage) = stage::prepare(&file, &analysis, 1).unwrap();
    let data = Dataset::open(&fixture(&format!("training_info/{name}.npz")), &Default::default(), None).unwrap();
    let graph = &prepared.model.graph;
    let wanted = stage.inputs(graph).into_iter().map(|id| {
        let input = graph.value_name(id).to_string();
        let column = match (&stage.target, input.as_str()) {
            (Some(target), names::TARGET) => target.clone(),
            _ => input.clone(),
        };
        Wanted { column, input, fact: graph.fact(id).clone() }
    });
    let wanted: Vec<Wanted> = wanted.collect();
    let options = BatchOptions { size: 8, seed: 0, sampler: Sampler::Sequential, last_batch: LastBatch::Drop };
    let batches = Batches::new(data::check(&data, &wanted).unwrap(), options).unwrap();
    let options = PlanOptions::of("none");
    let sizes = HashMap::from([("N".into(), 8)]);
    let (steps_per_epoch, own_slots) = (batches.len(), HashMap::new());
    let request = Request { epochs: 2, steps_per_epoch, options: &options, slots: 1, own_slots, sizes };
    let basis = Basis::with(&file, &analysis, &request, Box::new(watch(signals, &[1, 2]))).unwrap();
    let plan = basis.plan().unwrap();
    let planner = basis.planner().unwrap();
    let setup = Setup {
        prepared: &prepared,
        freezing: Freezing::with(&plan, &planner, &options),
        objective: Objective::Stage { stage: &stage, lr: None },
        schedule: &Schedule::default(),
        evaluation: &Default::default(),
        train: &batches,
        eval: None,
        loading: None,
        checkpoints: None,
        resume: None,
        seed: 0,
        recompute: &Recompute::None,
        log_every: 1,
        accumulate: 1,
        nonfinite: Default::default(),
        ema: None,
        operators: freeze_plan::runner::Operators::Own,
        computing: Default::default(),
    };
    let outcome = train(&mut onnxruntime(), &setup, &mut |_| {}, &AtomicBool::new(false));
    outcome.map(|outcome| outcome.history).map_err(|error| error.to_string())
}

#[test]
fn a_training_step_of_the_file_gives_what_it_has() {
    let history = staged("mlp_adam", &ALL).unwrap();
    for signal in ALL {
        let values = &history.observations[1].signals[&signal];
        let few = matches!(signal, Signal::Svcca | Signal::Pwcca);
        assert!(few || values.iter().all(Option::is_some), "{signal:?}: {values:?}");
    }
    for name in ["of_hidden", "three_gradients"] {
        let expected = "the policy \"watch\" needs the signal gradient-sum: the model's training step has no gradient of \
                        the loss of \"fc1.weight\" as it is";
        assert_eq!(staged(name, &[Signal::GradientSum]).unwrap_err(), expected);
        assert!(staged(name, &[Signal::WeightChange, Signal::Cka]).is_ok(), "{name}");
    }
}

/// Returns the units without an output, and the value that each output is made of with whether its neurons are axis 1.
fn found(file: &str, kind: UnitKind) -> (Vec<String>, Vec<(String, String, bool)>) {
    let analysis = Analysis::of(&read(&fixture(file)).unwrap().model);
    let graph = &analysis.model.graph;
    let units = units(&analysis.tree, kind);
    let path = |id| analysis.tree.module(analysis.tree.module_of_node(id)).path.as_str();
    let found = outputs(graph, &units, path);
    let missing = units.iter().zip(&found).filter(|(_, output)| output.is_none()).map(|(unit, _)| unit.path.clone());
    let named = units.iter().zip(&found).filter_map(|(unit, output)| {
        let output = (*output)?;
        let producer = graph.node(graph.producer(output.value)?);
        Some((unit.path.clone(), producer.op.name.clone(), output.channels))
    });
    (missing.collect(), named.collect())
}

#[test]
fn units_of_models_have_outputs() {
    let mut failures = Vec::new();
    for name in ["densenet", "gpt2", "unet", "t5", "bert", "convnext", "lstm"] {
        for kind in [UnitKind::Leaf, UnitKind::Block, UnitKind::Parameter] {
            let (missing, _) = found(&format!("models/{name}.torchscript.onnx"), kind);
            failures.extend((!missing.is_empty()).then(|| format!("{name} {kind:?}: {missing:?}")));
        }
    }
    let cases = [
        ("digits/model.onnx", UnitKind::Block, "block1", "Relu", true),
        ("digits/model.onnx", UnitKind::Leaf, "block1.bn1", "BatchNormalization", true),
        ("digits/model.onnx", UnitKind::Block, "fc", "Gemm", false),
        ("digits_vit/model.onnx", UnitKind::Leaf, "", "Add", false),
        ("digits_vit/model.onnx", UnitKind::Leaf, "patch_embed", "Conv", true),
        ("digits_vit/model.onnx", UnitKind::Leaf, "blocks.3.mlp.fc1", "Add", false),
        ("digits_vit/model.onnx", UnitKind::Block, "blocks.3", "Add", false),
        ("digits_vit/model.onnx", UnitKind::Leaf, "norm", "LayerNormalization", false),
    ];
    for (file, kind, unit, op, channels) in cases {
        let (_, named) = found(file, kind);
        if !named.contains(&(unit.into(), op.into(), channels)) {
            failures.push(format!("{file}: {unit} is no {op}: {named:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
