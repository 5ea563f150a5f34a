//! Every pattern from primitives: what is found, what is left alone, and that loss and gradients
//! are those of the primitives.

use super::{PATTERNS, patterns, recognise, rewrite};
use crate::autodiff::{dependents, gradients, lower};
use crate::graph::{Attributes, Builder, DType, Dim, Fact, Graph, Model, OpId, Tensor, ValueId, check, prune};
use std::collections::HashSet;

/// Operators by short names.
struct Text<'a> {
    b: &'a mut Builder,
}

impl Text<'_> {
    fn num(&mut self, number: f64) -> ValueId {
        self.b.scalar(DType::F32, number)
    }
    fn two(&mut self, op: &str, a: ValueId, b: ValueId) -> ValueId {
        self.b.op(op, &[a, b], Attributes::none())
    }
    fn one(&mut self, op: &str, a: ValueId) -> ValueId {
        self.b.unary(op, a)
    }
    fn with(&mut self, op: &str, a: ValueId, number: f64) -> ValueId {
        let number = self.num(number);
        self.two(op, a, number)
    }
    fn mean(&mut self, a: ValueId, axes: &[i64]) -> ValueId {
        self.b.reduce("ReduceMean", a, axes, true)
    }
}

struct Case {
    name: &'static str,
    /// Appends the primitives on `x [batch, 3, 4]` and the parameters `scale [4]`, `bias [4]`.
    build: fn(&mut Text<'_>, [ValueId; 3]) -> ValueId,
    /// Patterns that must be found.
    found: &'static [&'static str],
}

fn centered(t: &mut Text<'_>, x: ValueId, axes: &[i64]) -> ValueId {
    let mean = t.mean(x, axes);
    t.two("Sub", x, mean)
}

fn layer_norm(t: &mut Text<'_>, x: ValueId, axes: &[i64], square: &str, quotient: &str) -> ValueId {
    let c = centered(t, x, axes);
    let power = if square == "Pow" { t.num(2.0) } else { c };
    let power = t.two(square, c, power);
    let var = t.mean(power, axes);
    normalized(t, c, var, quotient)
}

fn rms_norm(t: &mut Text<'_>, x: ValueId, axes: &[i64], power: f64, quotient: &str) -> ValueId {
    let square = t.with("Pow", x, power);
    let mean = t.mean(square, axes);
    normalized(t, x, mean, quotient)
}

fn normalized(t: &mut Text<'_>, x: ValueId, var: ValueId, quotient: &str) -> ValueId {
    let shifted = t.with("Add", var, 1e-5);
    if quotient == "power" {
        let inverse = t.with("Pow", shifted, -0.5);
        return t.two("Mul", x, inverse);
    }
    let root = t.one("Sqrt", shifted);
    match quotient {
        "Div" => t.two("Div", x, root),
        "Reciprocal" => {
            let inverse = t.one("Reciprocal", root);
            t.two("Mul", x, inverse)
        }
        _ => {
            let one = t.num(1.0);
            let inverse = t.two("Div", one, root);
            t.two("Mul", inverse, x)
        }
    }
}

fn one_plus(t: &mut Text<'_>, curve: &str, inner: ValueId) -> ValueId {
    let curve = t.one(curve, inner);
    t.with("Add", curve, 1.0)
}

fn erf_gate(t: &mut Text<'_>, x: ValueId) -> ValueId {
    let inner = t.with("Div", x, std::f64::consts::SQRT_2);
    one_plus(t, "Erf", inner)
}

fn tanh_inner(t: &mut Text<'_>, x: ValueId, cube: f64) -> ValueId {
    let power = t.with("Pow", x, 3.0);
    let power = t.with("Mul", power, cube);
    let sum = t.two("Add", x, power);
    t.with("Mul", sum, 0.797_884_56)
}

fn silu(t: &mut Text<'_>, x: ValueId, alpha: f64) -> ValueId {
    let inner = if alpha == 1.0 { x } else { t.with("Mul", x, alpha) };
    let gate = t.one("Sigmoid", inner);
    t.two("Mul", x, gate)
}

fn clipped(t: &mut Text<'_>, x: ValueId, high: f64) -> ValueId {
    let shifted = t.with("Add", x, 3.0);
    let (low, high) = (t.num(0.0), t.num(high));
    t.b.op("Clip", &[shifted, low, high], Attributes::none())
}

fn guarded(t: &mut Text<'_>, x: ValueId, other: f64) -> ValueId {
    let softmax = t.b.op("Softmax", &[x], Attributes::none().with("axis", -1));
    let lost = t.one("IsNaN", softmax);
    let other = t.num(other);
    t.b.select(lost, other, softmax)
}

fn swapped(t: &mut Text<'_>, x: ValueId, flat: &[i64], shape: &[i64]) -> ValueId {
    let deep = t.b.unsqueeze(x, &[1]);
    let flat = t.b.reshape(deep, flat);
    let turned = t.b.transpose(flat, &[0, 2, 1]);
    t.b.reshape(turned, shape)
}

const CASES: &[Case] = &[
    Case {
        name: "layer norm of TorchScript",
        build: |t, [x, scale, bias]| {
            let n = layer_norm(t, x, &[-1], "Pow", "Div");
            let product = t.two("Mul", n, scale);
            t.two("Add", product, bias)
        },
        found: &["layer_normalization"],
    },
    Case {
        name: "layer norm, factors the other way round",
        build: |t, [x, scale, bias]| {
            let n = layer_norm(t, x, &[2], "Mul", "Reciprocal");
            let product = t.two("Mul", scale, n);
            t.two("Add", bias, product)
        },
        found: &["layer_normalization"],
    },
    Case {
        name: "layer norm without bias over two axes",
        build: |t, [x, _, bias]| {
            let n = layer_norm(t, x, &[-1, -2], "Pow", "power");
            t.two("Add", n, bias)
        },
        found: &["layer_normalization"],
    },
    Case {
        name: "layer norm without scale",
        build: |t, [x, ..]| layer_norm(t, x, &[-1], "Pow", "quotient of one"),
        found: &["layer_normalization"],
    },
    Case {
        name: "layer norm whose bias is no bias",
        build: |t, [x, scale, _]| {
            let n = layer_norm(t, x, &[-1], "Pow", "Div");
            let product = t.two("Mul", n, scale);
            t.two("Add", product, x)
        },
        found: &["layer_normalization"],
    },
    Case {
        name: "normalization over an axis in the middle",
        build: |t, [x, ..]| layer_norm(t, x, &[1], "Pow", "Div"),
        found: &[],
    },
    Case {
        name: "mean over other axes than the variance: rms norm of the difference",
        build: |t, [x, ..]| {
            let c = centered(t, x, &[-1]);
            let square = t.two("Mul", c, c);
            let var = t.mean(square, &[-1, -2]);
            normalized(t, c, var, "Div")
        },
        found: &["rms_normalization"],
    },
    Case {
        name: "centered value read elsewhere: rms norm of it",
        build: |t, [x, ..]| {
            let c = centered(t, x, &[-1]);
            let square = t.two("Mul", c, c);
            let var = t.mean(square, &[-1]);
            let n = normalized(t, c, var, "Div");
            t.two("Sub", n, c)
        },
        found: &["rms_normalization"],
    },
    Case {
        name: "rms norm of Llama",
        build: |t, [x, scale, _]| {
            let n = rms_norm(t, x, &[-1], 2.0, "Reciprocal");
            t.two("Mul", scale, n)
        },
        found: &["rms_normalization"],
    },
    Case {
        name: "rms norm of T5 with casts",
        build: |t, [x, scale, _]| {
            let x = t.b.cast(x, DType::F32);
            let n = rms_norm(t, x, &[-1], 2.0, "quotient of one");
            let n = t.b.cast(n, DType::F32);
            t.two("Mul", n, scale)
        },
        found: &["rms_normalization"],
    },
    Case {
        name: "rms norm whose cast is read elsewhere",
        build: |t, [x, scale, _]| {
            let x = t.b.cast(x, DType::F32);
            let n = rms_norm(t, x, &[-1], 2.0, "Reciprocal");
            let y = t.two("Mul", n, scale);
            t.two("Add", y, x)
        },
        found: &["rms_normalization"],
    },
    Case {
        name: "rms norm without scale over two axes",
        build: |t, [x, ..]| rms_norm(t, x, &[1, 2], 2.0, "Div"),
        found: &["rms_normalization"],
    },
    Case {
        name: "a mean of cubes",
        build: |t, [x, ..]| {
            let x = t.one("Exp", x);
            rms_norm(t, x, &[-1], 3.0, "Div")
        },
        found: &[],
    },
    Case {
        name: "gelu of TorchScript",
        build: |t, [x, ..]| {
            let gate = erf_gate(t, x);
            let product = t.two("Mul", x, gate);
            t.with("Mul", product, 0.5)
        },
        found: &["gelu"],
    },
    Case {
        name: "gelu of dynamo",
        build: |t, [x, ..]| {
            let gate = erf_gate(t, x);
            let half = t.num(0.5);
            let gate = t.two("Mul", half, gate);
            t.two("Mul", x, gate)
        },
        found: &["gelu"],
    },
    Case {
        name: "gelu of a product, half of x first",
        build: |t, [x, scale, _]| {
            let x = t.two("Mul", x, scale);
            let half = t.with("Mul", x, 0.5);
            let inner = t.with("Mul", x, std::f64::consts::FRAC_1_SQRT_2);
            let gate = one_plus(t, "Erf", inner);
            t.two("Mul", half, gate)
        },
        found: &["gelu"],
    },
    Case {
        name: "gelu by division and with the half inside",
        build: |t, [x, ..]| {
            let inner = t.with("Div", x, std::f64::consts::SQRT_2);
            let curve = t.one("Erf", inner);
            let curve = t.with("Mul", curve, 0.5);
            let gate = t.with("Add", curve, 0.5);
            t.two("Mul", gate, x)
        },
        found: &["gelu"],
    },
    Case {
        name: "gelu of GPT-2",
        build: |t, [x, ..]| {
            let half = t.with("Mul", x, 0.5);
            let inner = tanh_inner(t, x, 0.044_715);
            let gate = one_plus(t, "Tanh", inner);
            t.two("Mul", half, gate)
        },
        found: &["gelu"],
    },
    Case {
        name: "gelu by tanh of products, factors taken out",
        build: |t, [x, ..]| {
            let square = t.with("Mul", x, 0.044_715);
            let square = t.two("Mul", square, x);
            let outer = t.with("Mul", x, 0.797_884_56);
            let shifted = t.with("Add", square, 1.0);
            let inner = t.two("Mul", outer, shifted);
            let gate = one_plus(t, "Tanh", inner);
            let gate = t.two("Mul", x, gate);
            t.with("Div", gate, 2.0)
        },
        found: &["gelu"],
    },
    Case {
        name: "gelu with another constant",
        build: |t, [x, ..]| {
            let half = t.with("Mul", x, 0.5);
            let inner = tanh_inner(t, x, 0.0447);
            let gate = one_plus(t, "Tanh", inner);
            t.two("Mul", half, gate)
        },
        found: &[],
    },
    Case {
        name: "gelu without the half",
        build: |t, [x, ..]| {
            let gate = erf_gate(t, x);
            t.two("Mul", x, gate)
        },
        found: &[],
    },
    Case {
        name: "gelu of two values",
        build: |t, [x, _, bias]| {
            let other = t.two("Add", x, bias);
            let gate = erf_gate(t, other);
            let product = t.two("Mul", x, gate);
            t.with("Mul", product, 0.5)
        },
        found: &[],
    },
    Case {
        name: "gelu whose error function is read elsewhere",
        build: |t, [x, ..]| {
            let gate = erf_gate(t, x);
            let product = t.two("Mul", x, gate);
            let gelu = t.with("Mul", product, 0.5);
            t.two("Add", gelu, gate)
        },
        found: &[],
    },
    Case { name: "silu", build: |t, [x, ..]| silu(t, x, 1.0), found: &["swish"] },
    Case { name: "quick gelu", build: |t, [x, ..]| silu(t, x, 1.702), found: &["swish"] },
    Case {
        name: "silu whose sigmoid is read elsewhere",
        build: |t, [x, ..]| {
            let gate = t.one("Sigmoid", x);
            let y = t.two("Mul", x, gate);
            t.two("Sub", y, gate)
        },
        found: &[],
    },
    Case {
        name: "a gate of another value",
        build: |t, [x, _, bias]| {
            let other = t.two("Add", x, bias);
            let gate = t.one("Sigmoid", other);
            t.two("Mul", x, gate)
        },
        found: &[],
    },
    Case {
        name: "silu with an alpha that trains",
        build: |t, [x, scale, _]| {
            let inner = t.two("Mul", x, scale);
            let gate = t.one("Sigmoid", inner);
            t.two("Mul", x, gate)
        },
        found: &[],
    },
    Case {
        name: "hard swish by clip",
        build: |t, [x, ..]| {
            let gate = clipped(t, x, 6.0);
            let product = t.two("Mul", x, gate);
            t.with("Div", product, 6.0)
        },
        found: &["hard_swish"],
    },
    Case {
        name: "hard swish by hard sigmoid",
        build: |t, [x, ..]| {
            let attributes = Attributes::none().with("alpha", 1.0_f32 / 6.0);
            let gate = t.b.op("HardSigmoid", &[x], attributes);
            t.two("Mul", gate, x)
        },
        found: &["hard_swish"],
    },
    Case {
        name: "another clip",
        build: |t, [x, ..]| {
            let gate = clipped(t, x, 5.0);
            let gate = t.with("Mul", gate, 1.0 / 6.0);
            t.two("Mul", gate, x)
        },
        found: &[],
    },
    Case {
        name: "another hard sigmoid",
        build: |t, [x, ..]| {
            let gate = t.b.op("HardSigmoid", &[x], Attributes::none());
            t.two("Mul", gate, x)
        },
        found: &[],
    },
    Case {
        name: "log of softmax",
        build: |t, [x, ..]| {
            let softmax = t.b.op("Softmax", &[x], Attributes::none().with("axis", 1));
            t.one("Log", softmax)
        },
        found: &["log_softmax"],
    },
    Case {
        name: "softmax and its log",
        build: |t, [x, ..]| {
            let softmax = t.b.op("Softmax", &[x], Attributes::none().with("axis", 1));
            let log = t.one("Log", softmax);
            t.two("Mul", softmax, log)
        },
        found: &[],
    },
    Case { name: "guarded softmax", build: |t, [x, ..]| guarded(t, x, 0.0), found: &["safe_softmax"] },
    Case { name: "softmax with another guard", build: |t, [x, ..]| guarded(t, x, 1.0), found: &[] },
    Case { name: "swapped axes", build: |t, [x, ..]| swapped(t, x, &[-1, 3, 4], &[-1, 1, 4, 3]), found: &["swap"] },
    Case {
        name: "axes that are not swapped",
        build: |t, [x, ..]| swapped(t, x, &[-1, 4, 3], &[-1, 1, 3, 4]),
        found: &[],
    },
];

/// A loss of what the case appends to `x = input + shift`.
fn forward(case: &Case) -> Graph {
    let mut b = Builder::new("case");
    let batch = |sizes: &[usize]| {
        let known = sizes.iter().map(|size| Dim::Known(*size));
        Fact::new(DType::F32, [Dim::Symbol("batch".into())].into_iter().chain(known).collect())
    };
    let input = b.input("input", batch(&[3, 4]));
    let shift = (0..12).map(|i| ((i * 7 % 12) as f32 - 5.0) / 10.0).collect();
    let shift = b.initializer("shift", Tensor::from_vec::<f32>(&[3, 4], shift));
    let scale = b.initializer("scale", Tensor::from_vec(&[4], vec![0.5_f32, 1.5, -0.7, 1.0]));
    let bias = b.initializer("bias", Tensor::from_vec(&[4], vec![0.1_f32, 0.2, -0.3, 0.4]));
    let factor = b.input("factor", Fact::new(DType::F32, batch(&[]).shape.unwrap()));
    let x = b.add(input, shift);
    b.enter(crate::graph::Origin::Forward, "part");
    let y = (case.build)(&mut Text { b: &mut b }, [x, scale, bias]);
    b.enter(crate::graph::Origin::Forward, "after");
    let rank = b.fact(y).rank().unwrap() as i64;
    let y = b.scale(y, 1.7);
    let y = b.shift(y, 0.4);
    let y = b.unary("Sin", y);
    let factor = b.unsqueeze(factor, &(1..rank).collect::<Vec<_>>());
    let product = b.mul(y, factor);
    let loss = b.reduce("ReduceSum", product, &(0..rank).collect::<Vec<_>>(), false);
    b.rename(loss, "loss");
    b.mark_output(loss);
    b.finish()
}

/// Loss and gradients of a forward graph.
fn backward(graph: Graph) -> Graph {
    let [loss, wrt @ ..] = ["loss", "shift", "scale", "bias"].map(|name| graph.find(name).unwrap());
    let mut b = Builder::extend(graph);
    let grads = gradients(&mut b, 18, loss, &wrt).unwrap();
    for (name, grad) in ["shift", "scale", "bias"].into_iter().zip(grads) {
        if let Some(grad) = grad {
            b.output(grad, &format!("{name}.grad"));
        }
    }
    let graph = b.finish();
    check(&graph).unwrap();
    let graph = lower(&prune(&graph));
    check(&graph).unwrap();
    graph
}

fn found(graph: &Graph) -> (Graph, Vec<&'static str>) {
    let variable = HashSet::from(["shift", "scale", "bias"]);
    let moving = dependents(graph, variable.iter().filter_map(|name| graph.find(name)));
    let groups = patterns(graph, 18, &variable, &moving);
    (rewrite(graph, &groups), groups.iter().map(|group| group.pattern).collect())
}

#[test]
fn what_is_found_and_what_is_left_alone() {
    let mut failures = Vec::new();
    for case in CASES {
        let graph = forward(case);
        let (result, names) = found(&graph);
        check(&result).unwrap();
        if names != case.found {
            failures.push(format!(
                "{}: expected {:?}, found {names:?}\n{}",
                case.name,
                case.found,
                crate::graph::dump(&graph)
            ));
        }
        if names.is_empty() && crate::graph::dump(&result) != crate::graph::dump(&graph) {
            failures.push(format!("{}: changed", case.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_pattern_is_listed_and_has_a_case() {
    for pattern in PATTERNS {
        assert!(CASES.iter().any(|case| case.found.contains(&pattern.name)), "{}", pattern.name);
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/autodiff/recognise");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = files.map(|name| name.trim_end_matches(".rs").to_string()).collect();
    files.retain(|name| !["mod", "tests", "view", "gated"].contains(&name.as_str()));
    files.sort();
    let names: Vec<&str> = PATTERNS.iter().map(|pattern| pattern.name).collect();
    assert_eq!(names, files, "the list names every file, in alphabetical order");
}

#[test]
fn a_value_that_the_graph_gives_away_stays() {
    let graph = forward(CASES.iter().find(|case| case.name == "silu").unwrap());
    assert_eq!(found(&graph).1, ["swish"]);
    let gate = graph.nodes().iter().find(|node| node.op.is("Sigmoid")).and_then(|node| node.output(0)).unwrap();
    let mut b = Builder::extend(graph);
    b.mark_output(gate);
    assert!(found(&b.finish()).1.is_empty());
}

#[test]
fn the_standard_operator_is_taken_where_the_opset_has_it() {
    let graph = forward(CASES.iter().find(|case| case.name == "gelu of GPT-2").unwrap());
    let moving = dependents(&graph, graph.find("shift"));
    for (opset, domain) in [(19, crate::graph::INTERNAL_DOMAIN), (20, "")] {
        let result = recognise(&graph, opset, &HashSet::new(), &moving);
        let op = OpId { domain: domain.into(), name: "Gelu".into() };
        let node = result.nodes().iter().find(|node| node.op == op).unwrap();
        assert_eq!(node.attributes.text("approximate", "none").unwrap(), "tanh");
        let last = graph.nodes().iter().find(|old| old.name == node.name).unwrap();
        assert_eq!(result.value_name(node.output(0).unwrap()), graph.value_name(last.output(0).unwrap()));
    }
}

#[test]
fn what_no_gradient_passes_stays() {
    let graph = forward(CASES.iter().find(|case| case.name == "silu").unwrap());
    assert!(patterns(&graph, 18, &HashSet::new(), &HashSet::new()).is_empty());
}

#[cfg(feature = "runner")]
#[test]
fn loss_and_gradients_are_those_of_the_primitives() {
    use crate::runner::{evaluate, testing};
    let values = |count: usize, scale: f32| (0..count).map(|i| scale * ((i * 37 % 23) as f32 / 11.0 - 1.0)).collect();
    let input = Tensor::from_vec::<f32>(&[2, 3, 4], values(24, 2.0));
    let factor = Tensor::from_vec::<f32>(&[2], vec![1.0, -0.6]);
    let feeds = [("input", &input), ("factor", &factor)];
    let mut failures = Vec::new();
    for mut engine in testing::engines() {
        for case in CASES {
            let graph = forward(case);
            let mut results = Vec::new();
            for graph in [graph.clone(), found(&graph).0] {
                let model = Model { opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() };
                let model = model.with_graph(backward(graph));
                let names: Vec<String> =
                    model.graph.outputs().iter().map(|id| model.graph.value_name(*id).to_string()).collect();
                match evaluate(engine.as_mut(), &model, &feeds) {
                    Ok(outputs) => results.push((names, outputs)),
                    Err(error) => failures.push(format!("{} [{}]: {error}", case.name, engine.info().name)),
                }
            }
            let [(names, plain), (same, one)] = results.as_slice() else { continue };
            assert_eq!(names, same, "{}", case.name);
            for ((name, a), b) in names.iter().zip(plain).zip(one) {
                let (a, b) = (a.to_f64s().unwrap(), b.to_f64s().unwrap());
                let size = a.iter().fold(1e-3, |most: f64, value| most.max(value.abs()));
                if !a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 2e-5 * size) {
                    failures.push(format!("{} [{}] {name}: {a:?} against {b:?}", case.name, engine.info().name));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
