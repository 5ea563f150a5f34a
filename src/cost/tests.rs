use super::*;
use crate::graph::{Attributes, Builder, DType, Dim, Fact, Model, Tensor, ValueId};
use crate::modules::{UnitKind, recover, units};
use std::collections::{HashMap, HashSet};
use std::path::Path;

fn model(b: Builder) -> Model {
    Model { graph: b.finish(), opsets: [(String::new(), 17)].into(), ir_version: 8, ..Model::default() }
}

fn weight(b: &mut Builder, name: &str, shape: &[usize]) -> ValueId {
    b.initializer(name, Tensor::float_full(DType::F32, shape, 0.5))
}

fn costs(model: &Model, slots: u64) -> CostModel {
    let costs = CostModel::new(model, &recover(model), slots);
    assert!(costs.notes().is_empty(), "{:?}", costs.notes());
    costs
}

fn set(names: &[&str]) -> HashSet<String> {
    names.iter().map(|name| name.to_string()).collect()
}

/// x[2,3,8,8] -> Conv 3x3 to 4 -> BatchNormalization -> Relu -> MaxPool 2 -> Flatten -> Gemm to 5
fn small_net() -> Model {
    let mut b = Builder::new("small");
    let x = b.input("x", Fact::fixed(DType::F32, &[2, 3, 8, 8]));
    let w = weight(&mut b, "conv.weight", &[4, 3, 3, 3]);
    let norm: Vec<ValueId> =
        ["weight", "bias", "running_mean", "running_var"].map(|n| weight(&mut b, &format!("bn.{n}"), &[4])).into();
    let (fc, bias) = (weight(&mut b, "fc.weight", &[5, 64]), weight(&mut b, "fc.bias", &[5]));
    let pads = Attributes::none().with("pads", vec![1, 1, 1, 1]);
    let y = b.op("Conv", &[x, w], pads);
    let y = b.op("BatchNormalization", &[&[y], norm.as_slice()].concat(), Attributes::none());
    let y = b.unary("Relu", y);
    let y = b.op("MaxPool", &[y], Attributes::none().with("kernel_shape", vec![2, 2]).with("strides", vec![2, 2]));
    let y = b.op("Flatten", &[y], Attributes::none());
    let y = b.op("Gemm", &[y, fc, bias], Attributes::none().with("transB", 1));
    b.mark_output(y);
    model(b)
}

#[test]
fn flops_of_a_small_net() {
    let model = small_net();
    let conv = 2 * (2 * 4 * 8 * 8) * (3 * 3 * 3);
    let gemm = 2 * (2 * 5) * 64;
    let cases: [(&str, u64, &[u64]); 6] = [
        ("Conv", conv, &[conv, conv]),
        ("BatchNormalization", 2 * 512, &[512, 1024, 512, 0, 0]),
        ("Relu", 512, &[512]),
        ("MaxPool", 4 * 128, &[512]),
        ("Flatten", 0, &[0]),
        ("Gemm", gemm + 10, &[gemm, gemm, 10]),
    ];
    for (node, (op, forward, grads)) in model.graph.nodes().iter().zip(cases) {
        let expected = NodeFlops { forward, input_grads: grads.to_vec() };
        assert_eq!((node.op.name.as_str(), node_flops(&model.graph, node)), (op, Some(expected)));
    }
}

#[test]
fn unit_costs_of_a_small_net() {
    let model = small_net();
    let (tree, costs) = (recover(&model), costs(&model, 2));
    let units = units(&tree, UnitKind::Leaf);
    let found = costs.units(&tree, &units);
    let conv = 2 * (2 * 4 * 8 * 8) * (3 * 3 * 3);
    let gemm = 2 * (2 * 5) * 64;
    let flops: Vec<Flops> = found.iter().map(|cost| cost.flops).collect();
    // Without scopes, Relu, MaxPool and Flatten belong to the layer before them.
    let expected = [
        Flops { forward: conv, input_grad: 0, weight_grad: conv },
        Flops { forward: 1024 + 512 + 512, input_grad: 512 + 512 + 512, weight_grad: 1536 },
        Flops { forward: gemm + 10, input_grad: gemm, weight_grad: gemm + 10 },
    ];
    assert_eq!(flops, expected);
    assert_eq!((found[0].elements, found[0].parameter_bytes, found[0].slot_bytes), (108, 432, 864));
    let step = costs.step_frozen(&HashSet::new());
    let sum: u64 = flops.iter().map(|flops| flops.input_grad + flops.weight_grad).sum();
    assert_eq!(step.backward, sum);
    assert_eq!(step.state_bytes, found.iter().map(|cost| cost.gradient_bytes + cost.slot_bytes).sum::<u64>());
}

/// `n` square MatMuls of 16 on a batch of 16.
fn chain(n: usize) -> Model {
    let mut b = Builder::new("chain");
    let mut y = b.input("x", Fact::fixed(DType::F32, &[16, 16]));
    for index in 0..n {
        let w = weight(&mut b, &format!("layers.{index}.weight"), &[16, 16]);
        y = b.op("MatMul", &[y, w], Attributes::none());
    }
    b.mark_output(y);
    model(b)
}

#[test]
fn a_uniform_chain_follows_the_closed_form() {
    let f = 2 * 16 * 16 * 16;
    for n in [1, 2, 10, 20, 50] {
        let costs = costs(&chain(n), 1);
        let names: Vec<String> = costs.trainable().to_vec();
        for k in 0..=n {
            let step = costs.step_frozen(&names[..k].iter().cloned().collect());
            let (trains, passes) = (n - k, (n - k).saturating_sub(1));
            let expected = f * (n + trains + passes) as u64;
            assert_eq!(step.total(), expected, "n {n} k {k}");
            assert_eq!(step.state_bytes, (trains * 16 * 16 * 4 * 2) as u64, "n {n} k {k}");
        }
    }
    let rows: [(usize, usize, f64); 8] = [
        (10, 5, 34.5),
        (10, 9, 62.1),
        (20, 5, 16.9),
        (20, 10, 33.9),
        (20, 15, 50.8),
        (20, 19, 64.4),
        (50, 25, 33.6),
        (50, 49, 65.8),
    ];
    for (n, k, percent) in rows {
        let costs = costs(&chain(n), 0);
        let frozen = costs.trainable()[..k].iter().cloned().collect();
        let ratio = costs.step_frozen(&frozen).total() as f64 / costs.step_frozen(&HashSet::new()).total() as f64;
        assert!((100.0 * (1.0 - ratio) - percent).abs() < 0.06, "n {n} k {k}: {ratio}");
    }
}

#[test]
fn only_what_is_upstream_closed_saves_input_gradients() {
    let costs = costs(&chain(4), 0);
    let f = 2 * 16 * 16 * 16;
    let full = costs.step_frozen(&HashSet::new()).backward;
    let without = |names: &[&str]| full - costs.step_frozen(&set(names)).backward;
    assert_eq!(without(&["layers.2.weight"]), f);
    assert_eq!(without(&["layers.3.weight"]), f);
    assert_eq!(without(&["layers.0.weight", "layers.1.weight"]), 4 * f);
}

#[test]
fn a_tied_or_early_parameter_keeps_the_backward_pass_alive() {
    let mut b = Builder::new("early");
    let ids = b.input("ids", Fact::fixed(DType::I64, &[2, 5]));
    let position = weight(&mut b, "position", &[1, 5, 4]);
    let table = weight(&mut b, "embedding.weight", &[7, 4]);
    let body = weight(&mut b, "body.weight", &[4, 4]);
    let head = weight(&mut b, "head.weight", &[4, 3]);
    let y = b.op("Gather", &[table, ids], Attributes::none());
    let y = b.add(y, position);
    let y = b.op("MatMul", &[y, body], Attributes::none());
    let y = b.op("MatMul", &[y, head], Attributes::none());
    b.mark_output(y);
    let costs = costs(&model(b), 0);
    assert_eq!(costs.trainable(), ["position", "embedding.weight", "body.weight", "head.weight"]);
    let cases: [(&[&str], &[&str]); 5] = [
        (&["position", "embedding.weight", "body.weight", "head.weight"], &[]),
        (&["head.weight"], &[]),
        (&["position", "head.weight"], &["position"]),
        (&["embedding.weight", "head.weight"], &["embedding.weight"]),
        (&["body.weight", "head.weight"], &[]),
    ];
    for (trainable, expected) in cases {
        assert_eq!(costs.keeps_backward_alive(&set(trainable)), expected, "{trainable:?}");
    }
    let prefix = costs.step(&set(&["head.weight"])).backward;
    let alive = costs.step(&set(&["position", "head.weight"])).backward;
    let (body, head, add) = (2 * 10 * 4 * 4, 2 * 10 * 4 * 3, 40);
    assert_eq!((prefix, alive), (head, head + head + body + add));
}

#[test]
fn a_tensor_as_a_unit_costs_what_its_readers_do() {
    let mut b = Builder::new("turned");
    let x = b.input("x", Fact::fixed(DType::F32, &[2, 4]));
    let w = weight(&mut b, "fc.weight", &[3, 4]);
    let turned = b.transpose(w, &[1, 0]);
    let y = b.op("MatMul", &[x, turned], Attributes::none());
    b.mark_output(y);
    let model = model(b);
    let (tree, costs) = (recover(&model), costs(&model, 0));
    let flops = 2 * 2 * 4 * 3;
    for kind in [UnitKind::Leaf, UnitKind::Parameter] {
        let found = costs.units(&tree, &units(&tree, kind));
        assert_eq!(found[0].flops, Flops { forward: flops, input_grad: 0, weight_grad: flops }, "{kind:?}");
    }
}

#[test]
fn unknown_shapes_are_said() {
    let mut b = Builder::new("symbolic");
    let x = b.input("x", Fact::new(DType::F32, vec![Dim::Symbol("batch".into()), Dim::Known(4)]));
    let w = weight(&mut b, "fc.weight", &[4, 3]);
    let y = b.op("MatMul", &[x, w], Attributes::none());
    b.mark_output(y);
    let mut model = model(b);
    let notes = |model: &Model| CostModel::new(model, &recover(model), 0).notes().to_vec();
    assert_eq!(notes(&model), ["node \"MatMul\" (MatMul) counts as 0: operator or shapes not known"]);
    model.graph = model.graph.with_sizes(&HashMap::from([("batch".to_string(), 7)]));
    assert!(notes(&model).is_empty());
    let cost = CostModel::new(&model, &recover(&model), 0).step(&set(&["fc.weight"]));
    assert_eq!((cost.forward, cost.backward), (2 * 7 * 4 * 3, 2 * 7 * 4 * 3));
}

#[test]
fn the_fixtures_have_no_unknown_costs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    for file in ["parity/resnet8.onnx", "trees/transformer.torchscript.onnx", "trees/transformer.dynamo_default.onnx"] {
        let file = crate::onnx::read(&root.join(file)).unwrap().model;
        let graph = file.graph.with_sizes(&HashMap::from([("batch".to_string(), 3)]));
        let model = crate::facts::complete(&Model { graph, ..file }).model;
        let costs = costs(&model, 2);
        let full = costs.step_frozen(&HashSet::new());
        assert!(full.backward > full.forward && full.backward < 3 * full.forward, "{full:?}");
    }
}

/// `RESNET18=path cargo test resnet18`: a ResNet-18 at 224 with one image has 1.814 GMAC.
#[test]
#[ignore = "needs an exported ResNet-18, which is too large to keep"]
fn resnet18_has_1_814_gmac() {
    let file = crate::onnx::read(Path::new(&std::env::var("RESNET18").unwrap())).unwrap().model;
    let graph = file.graph.with_sizes(&HashMap::from([("batch".to_string(), 1)]));
    let model = crate::facts::complete(&Model { graph, ..file }).model;
    let products = |op: &str| -> u64 {
        let nodes = model.graph.nodes().iter().filter(|node| node.op.is(op));
        nodes.map(|node| node_flops(&model.graph, node).unwrap().input_grads[1]).sum()
    };
    assert_eq!(products("Conv") + products("Gemm"), 2 * 1_814_073_344);
    let tree = recover(&model);
    assert_eq!(units(&tree, UnitKind::Leaf).len(), 41);
    assert_eq!(units(&tree, UnitKind::Block).len(), 11);
}
