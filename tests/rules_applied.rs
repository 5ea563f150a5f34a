//! Where gradient rules of the caller hold: in graphs that nodes run, in functions, beside a frozen prefix, in modules
//! that are recomputed, and before operators of our own.

use crate::engines::{deviation, fixture, onnxruntime};
use crate::own_rules::{Distance, Unary, seven, step};
use crate::runs::{Job, newest};
use freeze_plan::autodiff::{Ctx, Form, GradientRule, RuleError, Rules};
use freeze_plan::graph::{
    Attributes, Builder, DType, Dim, Fact, Function, FunctionId, Graph, Model, OpId, Origin, Subgraph, Tensor, ValueId,
    check,
};
use freeze_plan::losses::{LossKind, LossSpec};
use freeze_plan::onnx::{read, read_bytes, to_bytes};
use freeze_plan::optim::{OptimizerKind, OptimizerSpec};
use freeze_plan::plan::{PlanOptions, PrefixMode};
use freeze_plan::planner::Analysis;
use freeze_plan::runner::job::CacheMode;
use freeze_plan::runner::{Caching, Checkpoints, RunEvent, evaluate};
use freeze_plan::training::stage::{self, StageOptions};
use freeze_plan::training::{PhaseOptions, Prepared, Recompute, TrainStep, build, prepare};
use std::path::Path;

const SAME: f64 = 1e-5;

fn wave(count: usize, step: f32) -> Vec<f32> {
    (0..count).map(|index| ((index as f32 * step).sin() * 10.0).round() / 10.0).collect()
}

fn matrix(rows: usize, columns: usize, step: f32) -> Tensor {
    Tensor::from_vec(&[rows, columns], wave(rows * columns, step))
}

fn of_batch(columns: usize) -> Fact {
    Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(columns)])
}

/// Squared distances of the rows of two matrices: one operator of ONNX Runtime, or primitives.
fn distances(b: &mut Builder, x: ValueId, w: ValueId, one: bool) -> ValueId {
    if one {
        let op = OpId { domain: "com.microsoft".into(), name: "CDist".into() };
        return b.ops(&op, &[Some(x), Some(w)], Attributes::none().with("metric", "sqeuclidean"), 1)[0];
    }
    let (x, w) = (b.unsqueeze(x, &[1]), b.unsqueeze(w, &[0]));
    let difference = b.sub(x, w);
    let square = b.mul(difference, difference);
    b.reduce("ReduceSum", square, &[2], false)
}

/// Returns the model `x -> x u -> make -> y`, with `w`.
fn model(make: impl FnOnce(&mut Builder, ValueId, ValueId) -> ValueId) -> Model {
    let mut b = Builder::new("model");
    let x = b.input("x", of_batch(4));
    let (u, w) = (b.initializer("first.u", matrix(4, 2, 0.7)), b.initializer("second.w", matrix(3, 2, 1.3)));
    b.enter(Origin::Forward, "/first/MatMul");
    let h = b.op("MatMul", &[x, u], Attributes::none());
    b.enter(Origin::Forward, "/second/Part");
    let y = make(&mut b, h, w);
    b.output(y, "y");
    whole(b)
}

fn whole(b: Builder) -> Model {
    let opsets = [(String::new(), 18), ("com.microsoft".to_string(), 1)].into();
    Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() }
}

/// As read from a file, where functions are replaced by their bodies.
fn prepared(model: &Model) -> Prepared {
    let file = read_bytes(Path::new("made.onnx"), to_bytes(model).into()).unwrap();
    prepare(&Analysis::of(&file.model)).unwrap()
}

fn distance() -> Rules {
    Rules::new().with(Distance::new(1.0))
}

/// Returns the loss and the gradients of a batch, by name.
fn gradients(step: &TrainStep, columns: usize) -> Vec<(String, Tensor)> {
    let (x, target) = (matrix(5, 4, 0.9), matrix(5, columns, 0.4));
    let graph = &step.train.graph;
    let source = [("x", x), ("target", target), ("first.u", matrix(4, 2, 0.7)), ("second.w", matrix(3, 2, 1.3))];
    let feeds: Vec<(&str, &Tensor)> = graph
        .inputs()
        .iter()
        .map(|id| graph.value_name(*id))
        .map(|name| {
            let fed = source.iter().find(|(known, _)| *known == name);
            (name, &fed.unwrap_or_else(|| panic!("nothing is known of {name}")).1)
        })
        .collect();
    let found = evaluate(&mut onnxruntime(), &step.train, &feeds).unwrap_or_else(|error| panic!("{error}"));
    let names = graph.outputs().iter().map(|id| graph.value_name(*id).to_string());
    names.zip(found).filter(|(name, _)| name.ends_with(".grad") || name == "loss").collect()
}

#[track_caller]
fn same(found: &[(String, Tensor)], expected: &[(String, Tensor)], what: &str) {
    assert_eq!(found.len(), 3, "{what}: {found:?}");
    for ((name, found), (other, expected)) in found.iter().zip(expected) {
        assert!(name == other && deviation(found, expected) < SAME, "{what}: {name}");
    }
}

/// Returns a graph in a node; `captured` are outer values.
fn graph_in(
    name: &str,
    formal: &[Fact],
    captured: &[(&str, Fact)],
    make: impl FnOnce(&mut Builder, &[ValueId]) -> Vec<ValueId>,
) -> Subgraph {
    let mut b = Builder::new(name);
    let mut given: Vec<ValueId> =
        formal.iter().enumerate().map(|(index, fact)| b.input(&format!("{name}.{index}"), fact.clone())).collect();
    given.extend(captured.iter().map(|(name, fact)| b.input(name, fact.clone())));
    b.enter(Origin::Forward, name);
    for output in make(&mut b, &given) {
        b.mark_output(output);
    }
    Subgraph { graph: b.finish(), captures: captured.iter().map(|(name, _)| (*name).to_string()).collect() }
}

/// Distances in the graph of a node of control flow.
fn inside(kind: &str, one: bool) -> Model {
    model(|b, h, w| {
        let name = b.graph().value_name(h).to_string();
        let outer = [(name.as_str(), of_batch(2)), ("second.w", b.fact(w).clone())];
        match kind {
            "If" => {
                let sum = b.reduce("ReduceSum", h, &[0, 1], false);
                let condition = b.compare("Greater", sum, -1e9);
                let branch = |name: &str, factor: f64| {
                    graph_in(name, &[], &outer, |b, given| {
                        let y = distances(b, given[0], given[1], one);
                        vec![b.scale(y, factor)]
                    })
                };
                let attributes = Attributes::none()
                    .with("then_branch", branch("then", 1.0))
                    .with("else_branch", branch("else", 9.0));
                b.op("If", &[condition], attributes)
            }
            "Scan" => {
                let body = graph_in("body", &[Fact::fixed(DType::F32, &[2])], &outer[1..], |b, given| {
                    let row = b.unsqueeze(given[0], &[0]);
                    let y = distances(b, row, given[1], one);
                    vec![b.squeeze(y, &[0])]
                });
                b.op("Scan", &[h], Attributes::none().with("body", body).with("num_scan_inputs", 1))
            }
            _ => {
                let facts = [Fact::fixed(DType::I64, &[]), Fact::fixed(DType::Bool, &[]), of_batch(3)];
                let body = graph_in("body", &facts, &outer, |b, given| {
                    let go = b.unary("Identity", given[1]);
                    let y = distances(b, given[3], given[4], one);
                    vec![go, b.add(given[2], y)]
                });
                let shape = b.unary("Shape", h);
                let rows = b.constant("rows", Tensor::scalar(0i64));
                let count = b.op("Gather", &[shape, rows], Attributes::none());
                let sum = b.reduce("ReduceSum", h, &[1], true);
                let zero = b.scale(sum, 0.0);
                let start = b.op("Concat", &[zero, zero, zero], Attributes::none().with("axis", 1));
                let inputs = [Some(count), None, Some(start)];
                b.ops(&OpId::standard("Loop"), &inputs, Attributes::none().with("body", body), 1)[0]
            }
        }
    })
}

#[test]
fn a_rule_holds_in_the_graphs_of_control_flow() {
    for kind in ["If", "Scan", "Loop"] {
        let [one, primitives] = [true, false].map(|one| prepared(&inside(kind, one)));
        let one = one.with_rules(distance());
        let notes = one.rules.notes(&one.model.graph, 18);
        let nodes = if kind == "If" { "2 nodes" } else { "1 node" };
        assert_eq!(notes, [format!("com.microsoft.CDist has an own gradient rule ({nodes})")], "{kind}");
        let expected = gradients(&step(&primitives, &[]), 3);
        let built = step(&one, &[]);
        assert_eq!(built.train.opsets.get("com.microsoft"), Some(&1), "{kind}");
        same(&gradients(&built, 3), &expected, kind);
        let wrong = one.with_rules(Rules::new().with(Distance::new(3.0)));
        let wrong = gradients(&step(&wrong, &[]), 3);
        assert!(wrong.iter().skip(1).all(|(name, _)| name.ends_with(".grad")));
        let off = |name: &str| {
            let find = |list: &[(String, Tensor)]| list.iter().find(|(known, _)| known == name).unwrap().1.clone();
            deviation(&find(&wrong), &find(&expected))
        };
        assert!(off("first.u.grad") > 0.1 && off("second.w.grad") > 0.1 && off("loss") < SAME, "{kind}");
    }
}

#[test]
fn a_node_that_reads_outer_values_in_its_graphs_has_no_rule() {
    let rule = Unary { op: "If", ..seven("If") };
    let prepared = prepared(&inside("If", false)).with_rules(Rules::new().with(rule));
    let error = told(&tried(&prepared, LossKind::Mse).unwrap_err());
    assert!(error.contains("an own rule gives the gradients of inputs, and a graph of the node reads"), "{error}");
}

/// A function of the model that computes distances.
fn function() -> Model {
    let id = FunctionId { domain: "my.parts".into(), name: "Distances".into(), overload: String::new() };
    let mut model = model(|b, h, w| {
        let op = OpId { domain: id.domain.clone(), name: id.name.clone() };
        let y = b.ops(&op, &[Some(h), Some(w)], Attributes::none(), 1)[0];
        b.refine(y, &of_batch(3));
        y
    });
    let mut b = Builder::new("Distances");
    let (x, w) = (b.input("a", Fact::default()), b.input("b", Fact::default()));
    b.enter(Origin::Forward, "inside");
    let x = b.unary("Tanh", x);
    let y = distances(&mut b, x, w, true);
    b.mark_output(y);
    let opsets = [(String::new(), 18), ("com.microsoft".to_string(), 1)].into();
    model.functions = vec![Function { id, graph: b.finish(), defaults: Attributes::none(), opsets }];
    model.opsets.insert("my.parts".into(), 1);
    model
}

#[test]
fn a_rule_holds_in_functions() {
    let plain = prepared(&model(|b, h, w| {
        let h = b.unary("Tanh", h);
        distances(b, h, w, false)
    }));
    let one = prepared(&function());
    let error = told(&tried(&one, LossKind::Mse).unwrap_err());
    assert!(error.contains("com.microsoft.CDist at opset 18 has no gradient rule"), "{error}");
    let function = Unary { domain: "my.parts", ..seven("Distances") };
    let one = one.with_rules(distance().with(function));
    let expected = [
        "com.microsoft.CDist has an own gradient rule (1 node)",
        "my.parts.Distances is a function of the model, whose body is differentiated: its own gradient rule is not used",
    ];
    assert_eq!(one.rules.notes(&one.model.graph, 18), expected);
    same(&gradients(&step(&one, &[]), 3), &gradients(&step(&plain, &[]), 3), "a function");
}

#[test]
fn a_rule_holds_in_a_module_that_is_recomputed() {
    let prepared = prepared(&model(|b, h, w| {
        let h = b.unary("Tanh", h);
        let y = distances(b, h, w, true);
        b.unary("Sin", y)
    }))
    .with_rules(distance());
    let plain = step(&prepared, &[]);
    let mut again = plain.clone();
    let paths = again.recompute(&prepared, &Recompute::Modules(vec!["second".into()])).unwrap();
    assert_eq!(paths, ["second"]);
    let count = |step: &TrainStep| step.train.graph.nodes().iter().filter(|node| node.op.name == "CDist").count();
    assert_eq!((count(&plain), count(&again)), (1, 2), "it runs again");
    same(&gradients(&again, 3), &gradients(&plain, 3), "recomputed");
}

/// A layer of standard operators, and one of distances.
fn layers(one: bool) -> Model {
    let mut b = Builder::new("layers");
    let x = b.input("x", of_batch(4));
    // As much as runs on its own.
    let small = |rows: usize, columns: usize| {
        Tensor::from_vec(&[rows, columns], wave(rows * columns, 0.7).iter().map(|value| value / 32.0).collect())
    };
    let (wide, long) = (b.initializer("layer0.wide", small(4, 1536)), b.initializer("layer0.long", small(1536, 1024)));
    let first = b.initializer("layer0.weight", small(1024, 3));
    let centres = b.initializer("layer1.centres", matrix(2, 3, 1.7));
    let second = b.initializer("layer2.weight", matrix(2, 2, 2.1));
    b.enter(Origin::Forward, "/layer0/Part");
    let h = b.op("MatMul", &[x, wide], Attributes::none());
    let h = b.op("MatMul", &[h, long], Attributes::none());
    let h = b.op("MatMul", &[h, first], Attributes::none());
    let h = b.unary("Tanh", h);
    b.enter(Origin::Forward, "/layer1/Part");
    let d = distances(&mut b, h, centres, one);
    b.enter(Origin::Forward, "/layer2/Part");
    let d = b.unary("Tanh", d);
    let y = b.op("MatMul", &[d, second], Attributes::none());
    b.output(y, "y");
    whole(b)
}

#[test]
fn a_rule_holds_beside_a_frozen_prefix_and_what_is_kept_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let ran = |one: bool, prefix: PrefixMode, cache: Option<CacheMode>| {
        let columns = vec![("x", matrix(24, 4, 0.9)), ("target", matrix(24, 2, 0.4))];
        let mut job = Job::on(&layers(one), LossKind::Mse, columns, 8);
        job.prepared = job.prepared.with_rules(distance());
        job.options = PlanOptions { prefix, ..PlanOptions::of("steps").with("steps", "2:1") };
        job.epochs = 4;
        job.cache = cache.map(|mode| Caching { mode, limit: 1 << 20, dir: folder.path().into(), stays: false });
        let ran = job.run(&mut onnxruntime());
        ran.outcome();
        ran
    };
    let expected = ran(false, PrefixMode::Off, None).losses();
    assert_eq!(expected.len(), 12);
    for (prefix, cache) in [
        (PrefixMode::Off, None),
        (PrefixMode::Auto, None),
        (PrefixMode::Auto, Some(CacheMode::Memory)),
        (PrefixMode::Auto, Some(CacheMode::Disk)),
    ] {
        let ran = ran(true, prefix, cache);
        for (found, expected) in ran.losses().iter().zip(&expected) {
            assert!((found - expected).abs() < SAME * expected.abs().max(1.0), "{prefix:?}: {found}, {expected}");
        }
        let apart = ran.count(|event| matches!(event, RunEvent::Phase { prefix_nodes: 1.., .. }));
        assert_eq!(apart, usize::from(prefix == PrefixMode::Auto), "{prefix:?} {cache:?}");
    }
}

#[test]
fn a_checkpoint_is_of_its_rules() {
    let folder = tempfile::tempdir().unwrap();
    let columns = vec![("x", matrix(24, 4, 0.9)), ("target", matrix(24, 2, 0.4))];
    let model = model(|b, h, _| b.unary("Tanh", h));
    let mut job = Job::on(&model, LossKind::Mse, columns, 8);
    job.checkpoints = Some(Checkpoints::after_epochs(folder.path().into()));
    let plain = job.prepared.clone();
    job.prepared = plain.clone().with_rules(Rules::new().with(seven("Tanh")));
    job.run(&mut onnxruntime()).outcome();
    job.resume = Some(newest(folder.path()));
    job.run(&mut onnxruntime()).outcome();
    job.prepared = plain;
    let error = job.run(&mut onnxruntime()).result.unwrap_err().to_string();
    let expected =
        "checkpoint 2 cannot be gone on from: the gradient rule of Tanh was version 0 and is the built-in one";
    assert_eq!(error, expected);
}

#[test]
fn a_rule_holds_in_a_training_step_of_the_file() {
    let file = read(&fixture("training_info/mlp_adam.onnx")).unwrap();
    let (prepared, stage) = stage::prepare(&file, &Analysis::as_written(&file.model), 1).unwrap();
    let own = ["Tanh", "Relu", "MatMul", "Gemm"].into_iter().find(|op| {
        let nodes = prepared.model.graph.nodes();
        nodes.iter().any(|node| node.op.is(op))
    });
    let own = own.unwrap();
    let sevens = |rules: Rules| {
        let options = StageOptions { frozen: Default::default(), frozen_inputs: false, seed: 0, schedule: false };
        let step = stage::build(&prepared.clone().with_rules(rules), &stage, &options).unwrap();
        has_seven(&step.train.graph)
    };
    assert!(!sevens(Rules::new()) && sevens(Rules::new().with(Only(sevenfold(own)))), "{own}");
}

/// Returns an error with what it comes from.
fn told(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {}", told(source)));
    format!("{error}{}", source.unwrap_or_default())
}

fn tried(prepared: &Prepared, loss: LossKind) -> Result<TrainStep, freeze_plan::training::TrainingError> {
    let (loss, optimizer) = (LossSpec::new(loss), OptimizerSpec::new(OptimizerKind::Sgd));
    let options = PhaseOptions::of(&loss, &optimizer);
    build(prepared, &options)
}

/// A rule that gives seven times the first input.
fn sevenfold(op: &'static str) -> Unary {
    Unary {
        give: |ctx| {
            let x = ctx.x(0)?;
            let seven = ctx.b.like(x, 7.0);
            Ok(ctx.b.mul(x, seven))
        },
        ..seven(op)
    }
}

/// Returns true where a node reads the number 7.
fn has_seven(graph: &Graph) -> bool {
    let is_seven = |id: ValueId| graph.constant(id).and_then(|t| t.to_f64s()).is_some_and(|values| values == [7.0]);
    graph.nodes().iter().any(|node| node.inputs.iter().flatten().any(|id| is_seven(*id)))
}

type Make = fn(&mut Builder, ValueId) -> ValueId;

fn image(b: &mut Builder, h: ValueId) -> ValueId {
    b.reshape(h, &[-1, 1, 2, 2])
}

#[test]
fn a_rule_goes_before_operators_of_our_own() {
    let cases: &[(&str, LossKind, Make)] = &[
        ("LogSoftmax", LossKind::CrossEntropy, |_, h| h),
        ("Softmax", LossKind::Mse, |b, h| b.op("Softmax", &[h], Attributes::none().with("axis", -1))),
        ("Gelu", LossKind::Mse, |b, h| b.unary("Gelu", h)),
        ("Erf", LossKind::Mse, |b, h| {
            let scaled = b.scale(h, std::f64::consts::FRAC_1_SQRT_2);
            let erf = b.unary("Erf", scaled);
            let shifted = b.shift(erf, 1.0);
            let product = b.mul(h, shifted);
            b.scale(product, 0.5)
        }),
        ("LayerNormalization", LossKind::Mse, |b, h| {
            let scale = b.initializer("norm.weight", Tensor::from_vec(&[4], vec![1f32; 4]));
            b.op("LayerNormalization", &[h, scale], Attributes::none().with("axis", -1))
        }),
        ("ReduceMean", LossKind::Mse, |b, h| {
            let mean = b.reduce("ReduceMean", h, &[1], true);
            let centred = b.sub(h, mean);
            let square = b.mul(centred, centred);
            let var = b.reduce("ReduceMean", square, &[1], true);
            let var = b.shift(var, 1e-5);
            let std = b.unary("Sqrt", var);
            b.div(centred, std)
        }),
        ("Relu", LossKind::Mse, |b, h| {
            let h = image(b, h);
            b.unary("Relu", h)
        }),
        ("Clip", LossKind::Mse, |b, h| {
            let h = image(b, h);
            let (low, high) = (b.constant("low", Tensor::scalar(0f32)), b.constant("high", Tensor::scalar(6f32)));
            b.op("Clip", &[h, low, high], Attributes::none())
        }),
        ("MaxPool", LossKind::Mse, |b, h| {
            let h = image(b, h);
            b.op("MaxPool", &[h], Attributes::none().with("kernel_shape", vec![2, 2]))
        }),
        ("GlobalAveragePool", LossKind::Mse, |b, h| {
            let h = image(b, h);
            b.unary("GlobalAveragePool", h)
        }),
    ];
    for (op, loss, make) in cases {
        let mut b = Builder::new("model");
        let x = b.input("x", of_batch(3));
        let w = b.initializer("first.w", matrix(3, 4, 0.8));
        b.enter(Origin::Forward, "/first/MatMul");
        let h = b.op("MatMul", &[x, w], Attributes::none());
        b.enter(Origin::Forward, "/second/Part");
        let y = make(&mut b, h);
        b.mark_output(y);
        let mut model = whole(b);
        model.opsets.insert(String::new(), 20);
        for form in [Form::Portable, Form::Native] {
            let of = |rules: Rules| {
                let prepared = Prepared { form, ..prepared(&model) }.with_rules(rules);
                let graph = tried(&prepared, *loss).unwrap_or_else(|error| panic!("{op}: {error:?}")).train.graph;
                check(&graph).unwrap();
                has_seven(&graph)
            };
            // Every operator here has one input that a gradient is wanted for, of the shape of the output or larger.
            let rules = Rules::new().with(Only(sevenfold(op)));
            assert!(of(rules), "{op} as {form:?}: its rule is passed over");
            assert!(!of(Rules::new()), "{op} as {form:?}");
        }
    }
}

/// A rule for the first input alone.
struct Only(Unary);

impl GradientRule for Only {
    fn domain(&self) -> &str {
        self.0.domain()
    }

    fn op(&self) -> &str {
        self.0.op()
    }

    fn is_constant(&self, input: usize) -> bool {
        input > 0
    }

    fn gradient(&self, ctx: &mut Ctx<'_>, input: usize) -> Result<ValueId, RuleError> {
        self.0.gradient(ctx, input)
    }
}

/// `dx = dy 2 / sqrt(pi) exp(-x^2)`
fn erf() -> Unary {
    Unary {
        give: |ctx| {
            let (dy, x) = (ctx.dy()?, ctx.x(0)?);
            let square = ctx.b.mul(x, x);
            let less = ctx.b.unary("Neg", square);
            let bell = ctx.b.unary("Exp", less);
            let slope = ctx.b.scale(bell, std::f64::consts::FRAC_2_SQRT_PI);
            Ok(ctx.b.mul(dy, slope))
        },
        ..seven("Erf")
    }
}

/// `dx = dy - exp(y) sum(dy)`
fn log_softmax() -> Unary {
    Unary {
        give: |ctx| {
            let (dy, y) = (ctx.dy()?, ctx.y(0)?);
            let sum = ctx.b.reduce("ReduceSum", dy, &[1], true);
            let share = ctx.b.unary("Exp", y);
            let taken = ctx.b.mul(share, sum);
            Ok(ctx.b.sub(dy, taken))
        },
        ..seven("LogSoftmax")
    }
}

#[test]
fn a_run_with_operators_of_our_own_trains_with_the_rules() {
    let mut b = Builder::new("model");
    let x = b.input("x", of_batch(4));
    let (u, w) = (b.initializer("first.u", matrix(4, 6, 0.7)), b.initializer("second.w", matrix(6, 3, 1.3)));
    b.enter(Origin::Forward, "/first/Part");
    let h = b.op("MatMul", &[x, u], Attributes::none());
    let scaled = b.scale(h, std::f64::consts::FRAC_1_SQRT_2);
    let erf_of = b.unary("Erf", scaled);
    let shifted = b.shift(erf_of, 1.0);
    let product = b.mul(h, shifted);
    let h = b.scale(product, 0.5);
    b.enter(Origin::Forward, "/second/MatMul");
    let y = b.op("MatMul", &[h, w], Attributes::none());
    b.output(y, "y");
    let model = whole(b);
    let losses = |rules: Rules| {
        let labels = Tensor::ints(&(0..24).map(|row| row % 3).collect::<Vec<i64>>());
        let mut job = Job::on(&model, LossKind::CrossEntropy, vec![("x", matrix(24, 4, 0.9)), ("target", labels)], 8);
        job.prepared = job.prepared.with_rules(rules);
        let ran = job.run(&mut onnxruntime());
        ran.outcome();
        ran.losses()
    };
    let expected = losses(Rules::new());
    assert_eq!(expected.len(), 6);
    let found = losses(Rules::new().with(erf()).with(log_softmax()));
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < SAME * expected.abs().max(1.0), "{found}, {expected}");
    }
    for op in ["Erf", "LogSoftmax"] {
        let other = losses(Rules::new().with(seven(op)));
        assert!((other[0] - expected[0]).abs() < SAME && (other[1] - expected[1]).abs() > 1e-3, "{op}: {other:?}");
    }
}

#[test]
fn an_operator_that_nobody_knows_is_planned_and_differentiated() {
    for known in [true, false] {
        let model = model(|b, h, w| {
            let op = OpId { domain: "my.ops".into(), name: "Mystery".into() };
            let y = b.ops(&op, &[Some(h), Some(w)], Attributes::none(), 1)[0];
            if known {
                b.refine(y, &of_batch(3));
            }
            y
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, to_bytes(&model)).unwrap();
        let planned = freeze_plan::plan(&path).epochs(4).batch(8).open().unwrap();
        let plan = planned.plan().unwrap();
        assert_eq!((plan.epochs.len(), plan.units.len()), (4, 2), "{known}");
        assert!(plan.epochs.iter().all(|epoch| (0.0..=1.0).contains(&epoch.predicted.step_cost)), "{known}");
        let prepared = prepare(planned.analysis()).unwrap();
        let error = told(&tried(&prepared, LossKind::Mse).unwrap_err());
        let rule = Unary {
            domain: "my.ops",
            give: |ctx| {
                let x = ctx.x(0)?;
                Ok(ctx.b.scale(x, 7.0))
            },
            ..seven("Mystery")
        };
        let step = tried(&prepared.with_rules(Rules::new().with(Only(rule))), LossKind::Mse);
        assert!(error.contains("my.ops.Mystery at opset 18 has no gradient rule"), "{error}");
        if known {
            let step = step.unwrap();
            assert_eq!(step.train.opsets.get("my.ops"), Some(&1));
            assert_eq!(step.trained, ["first.u"], "the rule calls the second input a constant");
        } else {
            let error = told(&step.unwrap_err());
            assert!(error.contains("my.ops.Mystery") && error.contains("shape"), "{error}");
        }
    }
}
