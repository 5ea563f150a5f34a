//! Gradient rules of the caller: of an operator without a built-in rule, and in place of built-in ones.

use crate::engines::{fixture, onnxruntime};
use freeze_plan::autodiff::{Ctx, GradCheck, GradCheckError, GradientRule, RuleError, Rules};
use freeze_plan::data::{DataOptions, Dataset};
use freeze_plan::graph::{Attributes, Builder, DType, Dim, Fact, Model, OpId, Origin, Tensor, ValueId};
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::plan::PlanOptions;
use freeze_plan::planner::Analysis;
use freeze_plan::runner::job::{DataSection, RunSection};
use freeze_plan::runner::{Clock, Engine, Job, LocateOptions, RunEvent, evaluate};
use freeze_plan::trainer::{EngineOptions, Parts, Start, Trainer, TrainerError, engine};
use freeze_plan::training::{PhaseOptions, Rates, Recompute, TrainStep, build, prepare};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Squared distances; wrong by `factor`.
pub struct Distance {
    factor: f64,
    asked: Arc<Mutex<Vec<usize>>>,
}

impl Distance {
    pub fn new(factor: f64) -> Distance {
        Distance { factor, asked: Arc::default() }
    }
}

impl GradientRule for Distance {
    fn domain(&self) -> &str {
        "com.microsoft"
    }

    fn op(&self) -> &str {
        "CDist"
    }

    fn gradient(&self, ctx: &mut Ctx<'_>, input: usize) -> Result<ValueId, RuleError> {
        self.asked.lock().unwrap().push(input);
        let (own, other, g) = (ctx.x(input)?, ctx.x(1 - input)?, ctx.dy()?);
        let g = if input == 0 { g } else { ctx.b.transpose(g, &[1, 0]) };
        let sums = ctx.b.reduce("ReduceSum", g, &[1], true);
        let scaled = ctx.b.mul(own, sums);
        let product = ctx.b.op("MatMul", &[g, other], Attributes::none());
        let difference = ctx.b.sub(scaled, product);
        Ok(ctx.b.scale(difference, 2.0 * self.factor))
    }
}

pub type Give = fn(&mut Ctx<'_>) -> Result<ValueId, RuleError>;

/// A rule of an operator with one input.
pub struct Unary {
    pub domain: &'static str,
    pub op: &'static str,
    pub opsets: RangeInclusive<i64>,
    pub give: Give,
}

impl GradientRule for Unary {
    fn domain(&self) -> &str {
        self.domain
    }

    fn op(&self) -> &str {
        self.op
    }

    fn opsets(&self) -> RangeInclusive<i64> {
        self.opsets.clone()
    }

    fn gradient(&self, ctx: &mut Ctx<'_>, _input: usize) -> Result<ValueId, RuleError> {
        (self.give)(ctx)
    }
}

/// Seven times the gradient that comes in, which no built-in rule gives.
pub fn seven(op: &'static str) -> Unary {
    Unary {
        domain: "",
        op,
        opsets: 1..=100,
        give: |ctx| {
            let dy = ctx.dy()?;
            let factor = ctx.b.like(dy, 7.0);
            Ok(ctx.b.op("Mul", &[dy, factor], Attributes::none()))
        },
    }
}

fn cdist() -> GradCheck {
    let a = Tensor::from_vec(&[3, 2], vec![0.5f32, -1.0, 0.2, 0.9, -0.7, 0.4]);
    let b = Tensor::from_vec(&[2, 2], vec![1.0f32, 0.3, -0.6, 0.8]);
    let op = OpId { domain: "com.microsoft".into(), name: "CDist".into() };
    GradCheck::new(op).attribute("metric", "sqeuclidean").input(a).input(b)
}

fn run(check: &GradCheck) -> Result<(), GradCheckError> {
    let mut engine = onnxruntime();
    check.run(|model, feeds| evaluate(&mut engine, model, feeds))
}

#[test]
fn the_check_tells_right_rules_from_wrong_ones() {
    run(&cdist().rule(Distance::new(1.0))).unwrap();
    let error = run(&cdist().rule(Distance::new(1.1))).unwrap_err();
    assert!(matches!(error, GradCheckError::Wrong { input: 0, .. }), "{error}");
    let error = run(&cdist()).unwrap_err();
    assert!(error.to_string().contains("com.microsoft.CDist at opset 18 has no gradient rule"), "{error}");
    // Built-in rules can be checked as well, in float64 more closely.
    let x = Tensor::from_vec(&[2, 3], vec![0.5f64, -1.0, 0.2, 0.9, -0.7, 0.4]);
    run(&GradCheck::new(OpId::standard("Softmax")).input(x.clone())).unwrap();
    let wrong = GradCheck::new(OpId::standard("Tanh")).input(x.clone()).rule(seven("Tanh"));
    assert!(matches!(run(&wrong), Err(GradCheckError::Wrong { .. })));
    let shape = Unary {
        give: |ctx| {
            let dy = ctx.dy()?;
            Ok(ctx.b.transpose(dy, &[1, 0]))
        },
        ..seven("Tanh")
    };
    let error = run(&GradCheck::new(OpId::standard("Tanh")).input(x).rule(shape)).unwrap_err();
    let GradCheckError::Gradient(error) = error else { panic!("{error}") };
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "the own rule gives float64[3,2], the input is float64[2,3]");
}

fn trainer(model: &str, rules: Rules, notes: &mut Vec<String>) -> Result<(Trainer, tempfile::TempDir), TrainerError> {
    let folder = tempfile::tempdir().unwrap();
    Ok((trainer_in(folder.path(), model, rules, notes)?, folder))
}

fn trainer_in(folder: &Path, model: &str, rules: Rules, notes: &mut Vec<String>) -> Result<Trainer, TrainerError> {
    trainer_of(job(folder, model), rules, notes)
}

fn job(folder: &Path, model: &str) -> Job {
    let data = DataSection::new([("x", "images")], "labels", 64);
    let mut job = Job::new(fixture(model), data, RunSection::new(3, folder.join("run")));
    job.loss = Some(LossSpec::new(LossKind::CrossEntropy));
    job.optimizer = Some(OptimizerSpec { lr: Some(0.01), ..OptimizerSpec::new(OptimizerKind::Adam) });
    job.freeze = PlanOptions::of("steps").with("steps", "2:1,3:2");
    (job.run.threads, job.run.log_every, job.run.ceiling_steps) = (Some(1), 1, 0);
    job.run.recompute = Recompute::Modules(vec!["fc2".into()]);
    job
}

fn trainer_of(job: Job, rules: Rules, notes: &mut Vec<String>) -> Result<Trainer, TrainerError> {
    let train = Dataset::open(&fixture("digits/train.npz"), &DataOptions::default(), None).unwrap();
    let mut note = |text: &str| notes.push(text.to_string());
    let parts = Parts { train: Some(train), rules, note: Some(&mut note), ..Parts::default() };
    Trainer::with(job, parts)
}

fn on_cpu() -> Result<Box<dyn Engine>, TrainerError> {
    let options = EngineOptions { threads: Some(1), ..EngineOptions::default() };
    engine(&LocateOptions::default(), &options, &mut |_| {})
}

fn losses(model: &str, rules: Rules) -> Vec<f64> {
    let (trainer, _folder) = trainer(model, rules, &mut Vec::new()).unwrap();
    losses_of(trainer)
}

fn losses_of(trainer: Trainer) -> Vec<f64> {
    let mut run = trainer.start(Start::New, on_cpu);
    let loss = |event| if let RunEvent::Step { loss, .. } = event { Some(loss) } else { None };
    let losses = run.by_ref().filter_map(loss).collect();
    run.join().unwrap();
    losses
}

#[test]
fn a_model_with_an_operator_without_rule_trains_as_the_same_in_primitives() {
    let found = losses("rules/prototypes.onnx", Rules::new().with(Distance::new(1.0)));
    let expected = losses("rules/primitives.onnx", Rules::new());
    assert!(found.len() > 60 && expected.last().unwrap() < &(0.5 * expected[0]), "it learns");
    same_losses(&found, &expected);
}

fn same_losses(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (step, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < 1e-3 * expected.abs().max(1.0), "step {step}: {found}, {expected}");
    }
}

/// A rule that is told apart from earlier ones.
struct Versioned(Unary, u64);

impl GradientRule for Versioned {
    fn domain(&self) -> &str {
        self.0.domain()
    }

    fn op(&self) -> &str {
        self.0.op()
    }

    fn version(&self) -> u64 {
        self.1
    }

    fn gradient(&self, ctx: &mut Ctx<'_>, input: usize) -> Result<ValueId, RuleError> {
        self.0.gradient(ctx, input)
    }
}

#[test]
fn a_run_goes_on_only_with_the_rules_that_it_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let slope = || Unary {
        give: |ctx| {
            let (dy, y) = (ctx.dy()?, ctx.y(0)?);
            let (square, one) = (ctx.b.mul(y, y), ctx.b.like(y, 1.0));
            let slope = ctx.b.sub(one, square);
            Ok(ctx.b.mul(dy, slope))
        },
        ..seven("Tanh")
    };
    let first = || Rules::new().with(Distance::new(1.0));
    let run = |start: Start, rules: Rules, last: Option<usize>| {
        let trainer = trainer_in(folder.path(), "rules/prototypes.onnx", rules, &mut Vec::new()).unwrap();
        let mut run = trainer.start(start, on_cpu);
        while let Some(event) = run.next() {
            if matches!(event, RunEvent::Step { step, .. } if Some(step) == last) {
                run.stop();
            }
        }
        run.join()
    };
    let trained = run(Start::New, first().with(Versioned(slope(), 2)), Some(3)).unwrap();
    assert!(trained.outcome.stopped);
    let cases = [
        (first(), "the gradient rule of Tanh was version 2 and is the built-in one: "),
        (first().with(Versioned(slope(), 3)), "the gradient rule of Tanh was version 2 and is version 3: "),
        (
            first().with(Versioned(slope(), 2)).with(seven("Neg")),
            "the gradient rule of Neg was the built-in one and is version 0: ",
        ),
    ];
    for (rules, expected) in cases {
        let error = run(Start::Resume, rules, None).unwrap_err();
        assert!(error.to_string().contains(expected) && error.remedy().is_some(), "{error}");
    }
    // What no node has changes nothing.
    let trained = run(Start::Resume, first().with(Versioned(slope(), 2)).with(seven("Erf")), None).unwrap();
    assert!(!trained.outcome.stopped);
}

/// A rule that panics once it is told to.
struct Panics(Arc<AtomicBool>);

impl GradientRule for Panics {
    fn domain(&self) -> &str {
        ""
    }

    fn op(&self) -> &str {
        "Neg"
    }

    fn gradient(&self, ctx: &mut Ctx<'_>, _input: usize) -> Result<ValueId, RuleError> {
        assert!(!self.0.load(Ordering::Relaxed), "nobody thought of this");
        ctx.dy()
    }
}

#[test]
fn a_rule_that_panics_ends_the_run_with_its_words() {
    let (now, folder) = (Arc::new(AtomicBool::new(false)), tempfile::tempdir().unwrap());
    let rules = Rules::new().with(Distance::new(1.0)).with(Panics(Arc::clone(&now)));
    let trainer = trainer_in(folder.path(), "rules/prototypes.onnx", rules, &mut Vec::new()).unwrap();
    now.store(true, Ordering::Relaxed);
    let error = trainer.start(Start::New, on_cpu).join().unwrap_err();
    assert_eq!(error.to_string(), "the run panicked: nobody thought of this");
}

#[test]
fn what_a_trainer_measures_has_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = job(folder.path(), "rules/prototypes.onnx");
    job.run.ceiling_steps = 2;
    let trainer = trainer_of(job, Rules::new().with(Distance::new(1.0)), &mut Vec::new()).unwrap();
    let mut engine = on_cpu().unwrap();
    let checked = trainer.check(engine.as_mut(), &mut |_| {}).unwrap();
    assert!(checked.ceiling.is_some());
    let mut plan = trainer.plan().clone();
    trainer.measure(engine.as_mut(), &mut plan, Clock::Thread).unwrap();
    assert!(plan.epochs.iter().all(|epoch| epoch.predicted.seconds.is_some()), "{plan:?}");
}

#[test]
fn a_rule_holds_where_gradients_are_added_up() {
    let losses = |model: &str| {
        let folder = tempfile::tempdir().unwrap();
        let mut job = job(folder.path(), model);
        (job.run.accumulate, job.run.recompute) = (2, Recompute::None);
        losses_of(trainer_of(job, Rules::new().with(Distance::new(1.0)), &mut Vec::new()).unwrap())
    };
    let found = losses("rules/prototypes.onnx");
    assert!(found.len() > 30, "{}", found.len());
    same_losses(&found, &losses("rules/primitives.onnx"));
}

#[test]
fn a_trainer_tells_which_rules_are_used() {
    let error = trainer("rules/prototypes.onnx", Rules::new(), &mut Vec::new()).err().unwrap();
    assert!(error.to_string().contains("CDist"), "{error}");
    let mut notes = Vec::new();
    let rules = Rules::new().with(Distance::new(1.0)).with(seven("Tanh")).with(seven("Erf")).with(seven("Dropout"));
    let rules = rules.with(Unary { opsets: 1..=12, ..seven("Neg") });
    trainer("rules/prototypes.onnx", rules, &mut notes).unwrap();
    let expected = [
        "com.microsoft.CDist has an own gradient rule (1 node)",
        "Tanh has an own gradient rule in place of the built-in one (1 node)",
        "no node of the model or its loss is Erf: its own gradient rule is not used",
        "Dropout takes another form before gradients are built: its own gradient rule is not used",
        "the own gradient rule of Neg is for versions 1 to 12, the model has 18",
    ];
    assert_eq!(notes, expected);
}

#[test]
fn a_rule_is_asked_for_what_trains_and_a_plan_knows_what_it_passes() {
    let model = freeze_plan::plan(fixture("rules/prototypes.onnx")).freeze("fc2").freeze("head").open().unwrap();
    assert_eq!(model.plan().unwrap().summary.keeps_backward_alive, ["fc1.weight", "fc1.bias"]);
    let prepared = prepare(model.analysis()).unwrap();
    let fc = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"];
    for (frozen, expected) in [(&fc[..], vec![1]), (&["head.prototypes"], vec![0]), (&[], vec![0, 1])] {
        let rule = Distance::new(1.0);
        let asked = Arc::clone(&rule.asked);
        step(&prepared.clone().with_rules(Rules::new().with(rule)), frozen);
        assert_eq!(*asked.lock().unwrap(), expected, "{frozen:?}");
    }
}

pub fn step(prepared: &freeze_plan::training::Prepared, frozen: &[&str]) -> TrainStep {
    let optimizer = OptimizerSpec { lr: Some(0.1), ..OptimizerSpec::new(OptimizerKind::Sgd) };
    let options = PhaseOptions {
        frozen: frozen.iter().copied().collect(),
        frozen_inputs: false,
        rates: Rates::new(),
        loss: &LossSpec::new(LossKind::Mse),
        optimizer: &optimizer,
        output: None,
        seed: 0,
    };
    build(prepared, &options).unwrap()
}

/// Returns whether the gradients of a model are those of [`seven`].
fn is_sevens(make: impl FnOnce(&mut Builder, ValueId) -> ValueId, version: (&str, i64), rule: Unary) -> bool {
    let mut b = Builder::new("model");
    let x = b.input("x", Fact { dtype: Some(DType::F32), shape: Some(vec![Dim::Symbol("n".into()), Dim::Known(2)]) });
    let w = b.initializer("w", Tensor::from_vec(&[2, 2], vec![0.1f32, 0.2, 0.3, 0.4]));
    b.enter(Origin::Forward, "");
    let h = b.op("MatMul", &[x, w], Attributes::none());
    let y = make(&mut b, h);
    b.mark_output(y);
    let opsets = [(String::new(), 18), (version.0.to_string(), version.1)].into();
    let model = Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() };
    let prepared = prepare(&Analysis::of(&model)).unwrap().with_rules(Rules::new().with(rule));
    let graph = step(&prepared, &[]).train.graph;
    let is_seven = |id: ValueId| graph.constant(id).and_then(|t| t.to_f64s()).is_some_and(|values| values == [7.0]);
    graph.nodes().iter().any(|node| node.inputs.iter().flatten().any(|id| is_seven(*id)))
}

#[test]
fn a_rule_goes_before_rules_decompositions_and_patterns() {
    let swish = |b: &mut Builder, h: ValueId| {
        let gate = b.unary("Sigmoid", h);
        b.mul(h, gate)
    };
    assert!(is_sevens(swish, ("", 18), seven("Sigmoid")));
    assert!(!is_sevens(swish, ("", 18), seven("Tanh")));
    assert!(!is_sevens(swish, ("", 18), Unary { opsets: 19..=24, ..seven("Sigmoid") }));
    let fused = |b: &mut Builder, h: ValueId| {
        b.ops(&OpId { domain: "com.microsoft".into(), name: "QuickGelu".into() }, &[Some(h)], Attributes::none(), 1)[0]
    };
    assert!(is_sevens(fused, ("com.microsoft", 1), Unary { domain: "com.microsoft", ..seven("QuickGelu") }));
    assert!(!is_sevens(fused, ("com.microsoft", 1), seven("Sigmoid")));
}
