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
        let expected = NodeFlops { forward, input_grads: grads.to_vec(), through: 0 };
        assert_eq!((node.op.name.as_str(), node_flops(&model.graph, node)), (op, Ok(expected)));
    }
}

#[test]
fn unit_costs_of_a_small_net() {
    let model = small_net();
    let (tree, mut costs) = (recover(&model), costs(&model, 2));
    let units = units(&tree, UnitKind::Leaf);
    let found = costs.units(&tree, &units);
    let conv = 2 * (2 * 4 * 8 * 8) * (3 * 3 * 3);
    let gemm = 2 * (2 * 5) * 64;
    let flops: Vec<Flops> = found.iter().map(|cost| cost.flops).collect();
    // Without scopes, Relu, MaxPool and Flatten belong to the layer before them.
    let expected = [
        Flops { forward: conv, input_grad: 0, weight_grad: conv },
        Flops { forward: 5 * 512 + 512 + 512, input_grad: 8 * 512 + 512 + 512, weight_grad: 1536 },
        Flops { forward: gemm + 10, input_grad: gemm, weight_grad: gemm + 10 },
    ];
    assert_eq!(flops, expected);
    assert_eq!((found[0].elements, found[0].parameter_bytes, found[0].slot_bytes), (108, 432, 864));
    let step = costs.step_frozen(&HashSet::new());
    let sum: u64 = flops.iter().map(|flops| flops.input_grad + flops.weight_grad).sum();
    assert_eq!(step.backward(), sum);
    assert_eq!(step.state_bytes(), found.iter().map(|cost| cost.gradient_bytes + cost.slot_bytes).sum::<u64>());
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
            assert_eq!(step.state_bytes(), (trains * 16 * 16 * 4 * 2) as u64, "n {n} k {k}");
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

/// Nodes that the same parameters reach are one item, however many there are.
#[test]
fn a_chain_has_two_items_for_each_parameter() {
    let (n, each) = (200, 5);
    let mut b = Builder::new("long");
    let mut y = b.input("x", Fact::fixed(DType::F32, &[4, 4]));
    for index in 0..n {
        let w = weight(&mut b, &format!("layers.{index}.weight"), &[4, 4]);
        y = b.op("MatMul", &[y, w], Attributes::none());
        y = (0..each).fold(y, |y, _| b.unary("Relu", y));
    }
    b.mark_output(y);
    let costs = costs(&model(b), 1);
    let reach = costs.reach();
    assert!(reach.items().len() <= 2 * n, "{}", reach.items().len());
    let full = reach.cost(&reach.set(|_| true));
    assert_eq!(full, Needs::from(costs.step_frozen(&HashSet::new())));
    assert_eq!(reach.constant(), Needs::from(costs.step(&HashSet::new())));
}

#[test]
fn only_what_is_upstream_closed_saves_input_gradients() {
    let costs = costs(&chain(4), 0);
    let f = 2 * 16 * 16 * 16;
    let full = costs.step_frozen(&HashSet::new()).backward();
    let without = |names: &[&str]| full - costs.step_frozen(&set(names)).backward();
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
    let prefix = costs.step(&set(&["head.weight"])).backward();
    let alive = costs.step(&set(&["position", "head.weight"])).backward();
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
    let (tree, mut costs) = (recover(&model), costs(&model, 0));
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
    assert_eq!(notes(&model), ["counted as 0, because shapes are not known: 1 MatMul (the first is \"MatMul\")",]);
    model.graph = model.graph.with_sizes(&HashMap::from([("batch".to_string(), 7)]));
    assert!(notes(&model).is_empty());
    let cost = CostModel::new(&model, &recover(&model), 0).step(&set(&["fc.weight"]));
    assert_eq!((cost.flops.forward, cost.backward()), (2 * 7 * 4 * 3, 2 * 7 * 4 * 3));
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
        assert!(full.backward() > full.flops.forward && full.backward() < 3 * full.flops.forward, "{full:?}");
    }
}

struct Shaped {
    op: &'static str,
    domain: &'static str,
    inputs: &'static [&'static [usize]],
    attributes: Attributes,
    output: &'static [usize],
    forward: u64,
    grads: &'static [u64],
    through: u64,
}

#[test]
fn flops_of_single_operators() {
    let none = Attributes::none;
    let cases = [
        Shaped {
            op: "Attention",
            domain: "",
            inputs: &[&[2, 3, 5, 4], &[2, 3, 7, 4], &[2, 3, 7, 6]],
            attributes: none(),
            output: &[2, 3, 5, 6],
            forward: 2 * (2 * 3 * 5 * 7) * (4 + 6) + 5 * (2 * 3 * 5 * 7),
            grads: &[1680, 1680, 2520],
            through: 2520 + 4 * 210,
        },
        Shaped {
            op: "Attention",
            domain: "",
            inputs: &[&[2, 5, 12], &[2, 7, 12], &[2, 7, 18]],
            attributes: none().with("q_num_heads", 3).with("kv_num_heads", 3),
            output: &[2, 5, 18],
            forward: 2 * (2 * 3 * 5 * 7) * (4 + 6) + 5 * (2 * 3 * 5 * 7),
            grads: &[1680, 1680, 2520],
            through: 2520 + 4 * 210,
        },
        Shaped {
            op: "MultiHeadAttention",
            domain: "com.microsoft",
            inputs: &[&[2, 5, 12], &[2, 7, 12], &[2, 7, 18]],
            attributes: none().with("num_heads", 3),
            output: &[2, 5, 18],
            forward: 2 * (2 * 3 * 5 * 7) * (4 + 6) + 5 * (2 * 3 * 5 * 7),
            grads: &[1680, 1680, 2520],
            through: 2520 + 4 * 210,
        },
        Shaped {
            op: "Einsum",
            domain: "",
            inputs: &[&[2, 3, 4], &[2, 4, 5]],
            attributes: none().with("equation", "b...j, bjk -> b...k"),
            output: &[2, 3, 5],
            forward: 2 * 2 * 3 * 4 * 5,
            grads: &[240, 240],
            through: 0,
        },
        Shaped {
            op: "LSTM",
            domain: "",
            inputs: &[&[7, 2, 3], &[1, 20, 3], &[1, 20, 5], &[1, 40]],
            attributes: none().with("hidden_size", 5),
            output: &[7, 1, 2, 5],
            forward: 14 * 2 * 20 * (3 + 5) + 14 * 20,
            grads: &[1680, 1680, 2800, 280],
            through: 2400,
        },
        Shaped {
            op: "MatMulNBits",
            domain: "com.microsoft",
            inputs: &[&[4, 32], &[8, 1, 16]],
            attributes: none().with("K", 32).with("N", 8),
            output: &[4, 8],
            forward: 2 * 4 * 8 * 32,
            grads: &[0, 0],
            through: 0,
        },
        Shaped {
            op: "RMSNormalization",
            domain: "",
            inputs: &[&[4, 8], &[8]],
            attributes: none(),
            output: &[4, 8],
            forward: 160,
            grads: &[256, 64],
            through: 0,
        },
        Shaped {
            op: "GridSample",
            domain: "",
            inputs: &[&[1, 2, 4, 4], &[1, 3, 3, 2]],
            attributes: none(),
            output: &[1, 2, 3, 3],
            forward: 180,
            grads: &[180, 180],
            through: 0,
        },
    ];
    for Shaped { op, domain, inputs, attributes, output, forward, grads, through } in cases {
        let mut b = Builder::new("one");
        let values: Vec<Option<ValueId>> = inputs
            .iter()
            .enumerate()
            .map(|(index, shape)| Some(b.input(&format!("x{index}"), Fact::fixed(DType::F32, shape))))
            .collect();
        let id = crate::graph::OpId { domain: domain.into(), name: op.into() };
        let y = b.ops(&id, &values, attributes, 1)[0];
        b.refine(y, &Fact::fixed(DType::F32, output));
        b.mark_output(y);
        let graph = b.finish();
        let expected = NodeFlops { forward, input_grads: grads.to_vec(), through };
        assert_eq!(node_flops(&graph, &graph.nodes()[0]), Ok(expected), "{domain} {op}");
    }
}

#[test]
fn a_graph_in_a_node_is_counted_where_its_rounds_are_known() {
    let mut inner = Builder::new("body");
    let x = inner.input("x", Fact::fixed(DType::F32, &[2, 4]));
    let w = weight(&mut inner, "w", &[4, 4]);
    let y = inner.op("MatMul", &[x, w], Attributes::none());
    inner.mark_output(y);
    let body = crate::graph::Subgraph { graph: inner.finish(), captures: Vec::new() };
    let flops = |op: &str, trips: Option<i64>| {
        let mut b = Builder::new("outer");
        let count = match trips {
            Some(trips) => b.ints("trips", &[trips]),
            None => b.input("trips", Fact::fixed(DType::I64, &[1])),
        };
        let data = b.input("data", Fact::fixed(DType::F32, &[6, 2, 4]));
        let attributes = Attributes::none().with("body", body.clone()).with("num_scan_inputs", 1);
        let inputs = if op == "Loop" { vec![count] } else { vec![data] };
        let y = b.op(op, &inputs, attributes);
        b.mark_output(y);
        let graph = b.finish();
        node_flops(&graph, graph.nodes().last().unwrap()).map(|flops| flops.forward)
    };
    let once = 2 * 2 * 4 * 4;
    assert_eq!(flops("Loop", Some(5)), Ok(5 * once));
    assert_eq!(flops("Loop", None), Err(Uncounted::Subgraph));
    assert_eq!(flops("Scan", None), Ok(6 * once));
    assert_eq!(flops("If", None), Err(Uncounted::Subgraph), "it has no branches");
}

/// ids -> embedding -> body -> head, the head being the embedding again.
#[test]
fn a_tied_head_keeps_the_backward_pass_alive_wherever_it_is_registered() {
    let mut b = Builder::new("tied");
    let ids = b.input("ids", Fact::fixed(DType::I64, &[2, 5]));
    let body = weight(&mut b, "a_body.weight", &[4, 4]);
    let table = weight(&mut b, "z_head.weight", &[7, 4]);
    let y = b.op("Gather", &[table, ids], Attributes::none());
    let y = b.op("MatMul", &[y, body], Attributes::none());
    let turned = b.transpose(table, &[1, 0]);
    let y = b.op("MatMul", &[y, turned], Attributes::none());
    b.mark_output(y);
    let costs = costs(&model(b), 0);
    assert_eq!(costs.trainable(), ["a_body.weight", "z_head.weight"]);
    assert_eq!(costs.keeps_backward_alive(&set(&["z_head.weight"])), ["z_head.weight"]);
    assert_eq!(costs.keeps_backward_alive(&set(&["a_body.weight"])), ["a_body.weight"], "through the frozen head");
    let (body, head) = (2 * 10 * 4 * 4, 2 * 10 * 4 * 7);
    assert_eq!(costs.step(&set(&["z_head.weight"])).backward(), body + 2 * head + 40);
}

/// x -> patches -> [class token; patches] + position -> block with a skip connection -> head
#[test]
fn class_tokens_positions_and_skip_connections() {
    let mut b = Builder::new("vit");
    let x = b.input("x", Fact::fixed(DType::F32, &[1, 6, 8]));
    let token = weight(&mut b, "class_token", &[1, 1, 8]);
    let position = weight(&mut b, "position", &[1, 7, 8]);
    let (patch, first, second, head) = (
        weight(&mut b, "patch.weight", &[8, 8]),
        weight(&mut b, "block.first.weight", &[8, 8]),
        weight(&mut b, "block.second.weight", &[8, 8]),
        weight(&mut b, "head.weight", &[8, 3]),
    );
    let y = b.op("MatMul", &[x, patch], Attributes::none());
    let y = b.op("Concat", &[token, y], Attributes::none().with("axis", 1));
    let y = b.add(y, position);
    let z = b.op("MatMul", &[y, first], Attributes::none());
    let z = b.unary("Relu", z);
    let z = b.op("MatMul", &[z, second], Attributes::none());
    let y = b.add(y, z);
    let y = b.op("MatMul", &[y, head], Attributes::none());
    b.mark_output(y);
    let costs = costs(&model(b), 0);
    let all = ["class_token", "position", "patch.weight", "block.first.weight", "block.second.weight", "head.weight"];
    let without = |frozen: &[&str]| set(&all.into_iter().filter(|name| !frozen.contains(name)).collect::<Vec<_>>());
    let body = &["patch.weight", "block.first.weight", "block.second.weight"][..];
    let cases: [(&[&str], &[&str]); 4] = [
        (body, &["class_token", "position"]),
        (&["class_token", "patch.weight", "block.first.weight", "block.second.weight"], &["position"]),
        (&all[..5], &[]),
        (&["block.second.weight"], &["patch.weight", "class_token", "position", "block.first.weight"]),
    ];
    for (frozen, expected) in cases {
        assert_eq!(costs.keeps_backward_alive(&without(frozen)), expected, "{frozen:?} frozen");
    }
    let step = costs.step(&without(&all[..4]));
    assert_eq!(step.cut_bytes, (56 + 56) * 4, "the block's input by the skip, and the Relu");
    let second = 2 * 7 * 8 * 8;
    let head = 2 * 7 * 8 * 3;
    assert_eq!(step.flops.input_grad, 56 + head, "through the sum to the second product, which is the last");
    assert_eq!(step.flops.weight_grad, second + head);
    assert_eq!(step.activation_bytes, 56 * 4 * 2, "the inputs of the two products that train");
}

#[test]
fn batch_statistics_end_a_cache_and_running_ones_do_not() {
    let model = small_net();
    let frozen = set(&["conv.weight", "bn.weight", "bn.bias"]);
    let names: Vec<&str> = frozen.iter().map(String::as_str).collect();
    let costs = costs(&model, 0);
    let conv = 2 * (2 * 4 * 8 * 8) * (3 * 3 * 3);
    let step = costs.step_frozen(&frozen);
    assert_eq!(
        (step.cacheable, step.cut_bytes),
        (conv, 4 * 8 * 8 * 4),
        "up to the convolution, for one of two samples"
    );
    let reason = costs.ends_cache(|name| names.contains(&name));
    let expected = "\"BatchNormalization\", which normalizes by the statistics of the batch (with batch_norm \"frozen\" \
                    it would not)";
    assert_eq!(reason.as_deref(), Some(expected));
    assert_eq!(step.flops.forward, conv + 5 * 512 + 512 + 512 + 1290);
    let mut still = frozen.clone();
    still.insert("bn.running_mean".into());
    let step = costs.step_frozen(&still);
    assert_eq!(step.cacheable, conv + 2 * 512 + 512 + 512, "everything before the Gemm");
    assert_eq!(step.cut_bytes, 64 * 4);
    assert_eq!(costs.ends_cache(|name| still.contains(name)), None);
    assert_eq!(costs.step_frozen(&HashSet::new()).cacheable, 0, "nothing is frozen");
    let only = set(&["bn.running_mean", "bn.running_var"]);
    let step = costs.step_frozen(&only);
    assert_eq!(step.cacheable, 0, "no parameter is frozen");
    assert_eq!(step.flops.forward, conv + 2 * 512 + 512 + 512 + 1290);
    let all = costs.step_frozen(&HashSet::new());
    assert_eq!(all.flops.input_grad - step.flops.input_grad, 7 * 512, "8 flops for each element, and 1");
    assert_eq!(all.flops.weight_grad, step.flops.weight_grad, "scale and bias train");
}

/// x -> Gemm -> Dropout -> Relu -> Dropout -> Gemm; with `mask` also the mask of the first is read.
fn dropping_net() -> Model {
    let mut b = Builder::new("dropping");
    let x = b.input("x", Fact::fixed(DType::F32, &[2, 8]));
    let (first, second) = (weight(&mut b, "first.weight", &[8, 8]), weight(&mut b, "second.weight", &[8, 3]));
    let ratio = b.constant("ratio", Tensor::scalar(0.5f32));
    let flag = b.constant("flag", Tensor::scalar(true));
    let y = b.op("MatMul", &[x, first], Attributes::none());
    let y = b.op("Dropout", &[y, ratio, flag], Attributes::none());
    b.rename(y, "early");
    let y = b.unary("Relu", y);
    let y = b.op("Dropout", &[y, ratio, flag], Attributes::none());
    b.rename(y, "late");
    let y = b.op("MatMul", &[y, second], Attributes::none());
    b.mark_output(y);
    model(b)
}

#[test]
fn a_dropout_that_is_off_ends_no_cache_and_keeps_nothing() {
    let costs = costs(&dropping_net(), 0);
    let first = 2 * 2 * 8 * 8;
    struct Case {
        frozen: &'static [&'static str],
        cacheable: u64,
        cut_bytes: u64,
        kept: u64,
        ends: Option<&'static str>,
    }
    let (early, late) = (Some("\"Dropout\""), Some("\"Dropout_1\""));
    let row = 8 * 4;
    let cases = [
        Case { frozen: &["first.weight"], cacheable: first, cut_bytes: row, kept: 2 * row, ends: early },
        Case { frozen: &["first.weight", "early"], cacheable: first + 16, cut_bytes: row, kept: 2 * row, ends: late },
        Case { frozen: &["first.weight", "late"], cacheable: first, cut_bytes: row, kept: 2 * row, ends: early },
        Case {
            frozen: &["first.weight", "early", "late"],
            cacheable: first + 16,
            cut_bytes: row,
            kept: 2 * row,
            ends: None,
        },
        // The output of Relu and that of the late Dropout, and a byte for each element of both masks.
        Case { frozen: &[], cacheable: 0, cut_bytes: 0, kept: 4 * row + 32, ends: None },
        Case { frozen: &["late"], cacheable: 0, cut_bytes: 0, kept: 2 * row + 16, ends: None },
        Case { frozen: &["early", "late"], cacheable: 0, cut_bytes: 0, kept: 2 * row, ends: None },
    ];
    for Case { frozen, cacheable, cut_bytes, kept, ends } in cases {
        let frozen = set(frozen);
        let step = costs.step_frozen(&frozen);
        assert_eq!((step.cacheable, step.cut_bytes, step.activation_bytes), (cacheable, cut_bytes, kept), "{frozen:?}");
        let reason = costs.ends_cache(|name| frozen.contains(name));
        let text = ", which draws random numbers (in a frozen unit it would not with freeze.dropout \"off\")";
        assert_eq!(reason, ends.map(|name| format!("{name}{text}")), "{frozen:?}");
    }
}

#[test]
fn units_share_out_the_nodes_and_at_most_64_parameters_are_named() {
    let mut b = Builder::new("long");
    let mut y = b.input("x", Fact::fixed(DType::F32, &[1, 2]));
    for index in 0..300 {
        let w = weight(&mut b, &format!("layers.{index}.weight"), &[2, 2]);
        let bias = weight(&mut b, &format!("layers.{index}.bias"), &[2]);
        y = b.op("MatMul", &[y, w], Attributes::none());
        y = b.add(y, bias);
        y = b.unary("Relu", y);
    }
    b.mark_output(y);
    let model = model(b);
    let tree = recover(&model);
    let mut costs = CostModel::new(&model, &tree, 1);
    for kind in [UnitKind::Leaf, UnitKind::Parameter] {
        let units = units(&tree, kind);
        let found = costs.units(&tree, &units);
        let sum = found.iter().fold(Flops::default(), |sum, cost| sum.plus(cost.flops));
        let step = costs.step_frozen(&HashSet::new());
        let held = if kind == UnitKind::Leaf { step.flops.forward } else { 300 * (8 + 2) };
        assert_eq!(sum.forward, held, "{kind:?}");
    }
    let biases: HashSet<String> = (0..300).map(|index| format!("layers.{index}.bias")).collect();
    let alive = costs.keeps_backward_alive(&biases);
    assert_eq!((alive.len(), alive[0].as_str()), (64, "layers.0.bias"));
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
