//! Trees of real exports against what PyTorch says of the same models.

use super::*;
use crate::graph::{Attributes, Builder, DType, Fact, Model, OpId, Tensor};
use crate::onnx::read;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn trees() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/trees")
}

fn expected(model: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(trees().join(format!("{model}.json"))).unwrap()).unwrap()
}

fn file(name: &str) -> Model {
    read(&trees().join(name)).unwrap().model
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_string()).collect()
}

/// Path, class and parameters of each leaf, parameters by their names in the file.
fn leaves(json: &Value, way: &str) -> Vec<(String, String, Vec<String>)> {
    let name = |parameter: String| json["files"][way][&parameter]["onnx"].as_str().unwrap().to_string();
    let leaf = |leaf: &Value| {
        let parameters = strings(&leaf["parameters"]).into_iter().map(name).collect();
        (leaf["path"].as_str().unwrap().to_string(), leaf["class"].as_str().unwrap().to_string(), parameters)
    };
    json["leaves"].as_array().unwrap().iter().map(leaf).collect()
}

#[test]
fn leaves_are_composers_list() {
    let cases = [
        ("resnet", "torchscript", "scoped"),
        ("resnet", "dynamo", "dynamo"),
        ("transformer", "torchscript", "scoped"),
        ("transformer", "torchscript_default", "scoped"),
        ("transformer", "dynamo_default", "dynamo"),
        ("mlp", "torchscript", "scoped"),
        ("mlp", "torchscript_default", "scoped"),
        ("mlp", "dynamo", "dynamo"),
        ("mlp", "dynamo_default", "dynamo"),
    ];
    let mut failures = Vec::new();
    for (model, way, strategy) in cases {
        let json = expected(model);
        let tree = recover(&file(&format!("{model}.{way}.onnx")));
        let units = units(&tree, UnitKind::Composer);
        let (expected, with_class) = (leaves(&json, way), strategy == "dynamo");
        let short = |class: &str| if with_class { class.to_string() } else { String::new() };
        let found: Vec<_> =
            units.iter().map(|unit| (unit.path.clone(), short(&unit.class), unit.parameters.clone())).collect();
        // PyTorch reads the weight of this class without calling it, so no file names it.
        let seen = |class: String| if class == "NonDynamicallyQuantizableLinear" { "Gemm".into() } else { class };
        let expected: Vec<_> =
            expected.into_iter().map(|(path, class, held)| (path, short(&seen(class)), held)).collect();
        if found != expected || tree.strategy() != strategy {
            failures.push(format!("{model}.{way} {}:\n  found {found:?}\n  expected {expected:?}", tree.strategy()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn parameters_on_modules_with_children_are_units_of_their_own() {
    for way in ["torchscript", "torchscript_default", "dynamo_default"] {
        let tree = recover(&file(&format!("transformer.{way}.onnx")));
        let paths: Vec<String> = units(&tree, UnitKind::Leaf).into_iter().map(|unit| unit.path).collect();
        let expected = [
            "",
            "embedding",
            "layers.0.ln_1",
            "layers.0.self_attention",
            "layers.0.self_attention.out_proj",
            "layers.0.ln_2",
            "layers.0.mlp.0",
            "layers.0.mlp.3",
            "ln",
            "head",
        ];
        assert_eq!(paths, expected, "{way}");
        let blocks: Vec<String> = units(&tree, UnitKind::Block).into_iter().map(|unit| unit.path).collect();
        assert_eq!(blocks, ["", "embedding", "layers.0", "ln", "head"], "{way}");
    }
}

#[test]
fn every_parameter_is_found_and_nothing_else() {
    let mut failures = Vec::new();
    for model in ["resnet", "transformer", "mlp"] {
        let json = expected(model);
        for (way, names) in json["files"].as_object().unwrap() {
            if way.ends_with("shared") || names.as_object().unwrap().values().any(Value::is_null) {
                continue;
            }
            let all = parameters(&file(&format!("{model}.{way}.onnx")));
            let with = |role: Role| {
                let mut names: Vec<String> =
                    all.iter().filter(|param| param.role == role).map(|param| param.name.clone()).collect();
                names.sort();
                names
            };
            let trained = strings(&json["parameters"]);
            let state = strings(&json["state"]);
            let in_file = |keep: &dyn Fn(&String) -> bool| {
                let kept = state.iter().filter(|name| keep(name));
                let mut names: Vec<_> = kept.map(|name| names[name]["onnx"].as_str().unwrap().to_string()).collect();
                names.sort();
                names
            };
            if with(Role::Trainable) != in_file(&|name| trained.contains(name))
                || with(Role::Statistic) != in_file(&|name| !trained.contains(name))
            {
                failures.push(format!("{model}.{way}: {all:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn folded_batch_norms_leave_the_convolutions() {
    for (way, strategy) in [("torchscript_default", "scoped"), ("dynamo_default", "dynamo")] {
        let tree = recover(&file(&format!("resnet.{way}.onnx")));
        assert_eq!(tree.strategy(), strategy);
        let units = units(&tree, UnitKind::Composer);
        let mut paths: Vec<&str> = units.iter().map(|unit| unit.path.as_str()).collect();
        assert!(units.iter().all(|unit| unit.parameters.len() == 2), "{units:?}");
        paths.sort_unstable();
        let expected = [
            "conv1",
            "fc",
            "layer1.0.conv1",
            "layer1.0.conv2",
            "layer1.1.conv1",
            "layer1.1.conv2",
            "layer2.0.conv1",
            "layer2.0.conv2",
            "layer2.0.downsample.0",
        ];
        assert_eq!(paths, expected, "{way}");
    }
}

#[test]
fn nodes_belong_to_the_modules_that_run_them() {
    for way in ["torchscript", "dynamo"] {
        let model = file(&format!("resnet.{way}.onnx"));
        let tree = recover(&model);
        let of = |path: &str| {
            let module = tree.module(tree.get(path).unwrap_or_else(|| panic!("{way}: {path}")));
            module.nodes.iter().map(|id| model.graph.node(*id).op.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of("layer1.0.conv1").last().unwrap(), "Conv", "{way}");
        assert_eq!(of("layer1.0.bn2"), ["BatchNormalization"], "{way}");
        assert_eq!(of("layer1.0"), ["Add"], "{way}");
        assert_eq!(of("layer1.0.relu"), ["Relu", "Relu"], "{way}");
        let assigned: usize = tree.iter().map(|(_, module)| module.nodes.len()).sum();
        assert_eq!(assigned, model.graph.nodes().len(), "{way}");
    }
}

#[test]
fn the_tree_reads_as_text() {
    let model = file("mlp.dynamo.onnx");
    let expected = "\
(model) Sequential
  0 Linear
    weight float32[10,6] 60
    bias float32[10] 10
  1 ReLU
  2 Sequential
    0 Linear
      weight float32[10,10] 100
      bias float32[10] 10
    1 Tanh
  3 Linear
    weight float32[3,10] 30
    bias float32[3] 3
";
    assert_eq!(recover(&model).text(&model), expected);
    let model = file("resnet.torchscript.onnx");
    let text = recover(&model).text(&model);
    assert!(text.contains("  bn1 BatchNormalization\n    weight float32[4] 4\n"), "{text}");
    assert!(text.contains("    running_mean float32[4] 4 statistic\n"), "{text}");
}

/// `/heads` is a ModuleDict, `shared` is called twice, `blocks.0` is in a ModuleList.
#[test]
fn scopes_of_uncalled_and_repeated_modules() {
    let mut b = Builder::new("scopes");
    let mut y = b.input("x", Fact::fixed(DType::F32, &[2, 4]));
    for name in ["blocks.0.0.bias", "heads.a.bias", "shared.bias", "free.bias"] {
        b.initializer(name, ones(&[4]));
    }
    let value = |b: &Builder, name: &str| b.graph().find(name).unwrap();
    let folded = b.initializer("onnx::MatMul_7", ones(&[4, 4]));
    let add = [
        ("/blocks.0/blocks.0.0", "blocks.0.0.bias"),
        ("/a", "heads.a.bias"),
        ("/shared", "shared.bias"),
        ("/shared_1", "shared.bias"),
    ];
    for (scope, bias) in add {
        b.enter(crate::graph::Origin::Forward, scope);
        let bias = value(&b, bias);
        y = b.add(y, bias);
        y = b.unary("Relu", y);
    }
    b.enter(crate::graph::Origin::Forward, "/last");
    y = b.op("MatMul", &[y, folded], Attributes::none());
    b.mark_output(y);
    let model = model(b);
    let tree = recover(&model);
    assert_eq!(tree.strategy(), "scoped");
    let of: Vec<&str> =
        model.graph.node_ids().map(|(id, _)| tree.module(tree.module_of_node(id)).path.as_str()).collect();
    let expected = ["blocks.0.0", "blocks.0.0", "heads.a", "heads.a", "shared", "shared", "shared", "shared", "last"];
    assert_eq!(of, expected);
    assert_eq!(tree.owner("onnx::MatMul_7"), tree.get("last"));
    let free = tree.module(tree.owner("free.bias").unwrap());
    assert_eq!((free.parameters.len(), free.buffers.len()), (0, 1), "nothing reads it");
}

fn ones(shape: &[usize]) -> Tensor {
    Tensor::float_full(DType::F32, shape, 0.5)
}

fn model(b: Builder) -> Model {
    Model { graph: b.finish(), opsets: [(String::new(), 17)].into(), ir_version: 8, ..Model::default() }
}

#[test]
fn without_names_each_node_with_weights_is_a_unit() {
    let mut b = Builder::new("plain");
    let x = b.input("x", Fact::fixed(DType::F32, &[2, 4]));
    let head = b.initializer("W_head", ones(&[4, 3]));
    let (first, bias) = (b.initializer("W0", ones(&[4, 4])), b.initializer("b0", ones(&[4])));
    let half = b.initializer("half", Tensor::scalar(0.5f32));
    let y = b.op("MatMul", &[x, first], Attributes::none());
    let y = b.add(y, bias);
    let y = b.mul(y, half);
    let y = b.unary("Relu", y);
    let y = b.op("MatMul", &[y, head], Attributes::none());
    b.mark_output(y);
    let tree = recover(&model(b));
    assert_eq!(tree.strategy(), "topological");
    let found = units(&tree, UnitKind::Leaf);
    let found: Vec<_> = found.iter().map(|u| (u.path.as_str(), u.class.as_str(), u.parameters.join(" "))).collect();
    assert_eq!(found, [("MatMul", "MatMul", "W0 b0".to_string()), ("MatMul_1", "MatMul", "W_head".to_string())]);
}

#[test]
fn a_tied_weight_has_one_owner() {
    let mut b = Builder::new("tied");
    let ids = b.input("ids", Fact::fixed(DType::I64, &[2, 5]));
    let table = b.initializer("embedding.weight", ones(&[7, 4]));
    let bias = b.initializer("head.bias", ones(&[7]));
    let y = b.op("Gather", &[table, ids], Attributes::none());
    let turned = b.transpose(table, &[1, 0]);
    let y = b.op("MatMul", &[y, turned], Attributes::none());
    let y = b.add(y, bias);
    b.mark_output(y);
    let tree = recover(&model(b));
    assert_eq!(tree.strategy(), "dotted");
    let found: Vec<String> = units(&tree, UnitKind::Leaf).iter().map(|u| u.parameters.join(" ")).collect();
    assert_eq!(found, ["embedding.weight", "head.bias"]);
}

#[test]
fn exporters_constants_are_no_parameters() {
    let mut b = Builder::new("constants");
    let x = b.input("x", Fact::fixed(DType::F32, &[2, 4]));
    let folded = b.initializer("onnx::MatMul_9", ones(&[4, 4]));
    let cases = [
        ("onnx::Pow_12", ones(&[])),
        ("/Constant_output_0", ones(&[4])),
        ("val_12", ones(&[1])),
        ("_val_3", ones(&[])),
        ("logit_scale", ones(&[])),
        ("12", ones(&[2, 4])),
    ];
    let plain: Vec<_> = cases.map(|(name, tensor)| b.initializer(name, tensor)).into();
    let scale = b.initializer("layer.scale", ones(&[1]));
    let mut y = x;
    for value in plain {
        y = b.mul(y, value);
    }
    y = b.op("MatMul", &[y, folded], Attributes::none());
    let bias = b.initializer("onnx::Add_10", ones(&[4]));
    y = b.add(y, bias);
    y = b.mul(y, scale);
    b.mark_output(y);
    let trained = parameters(&model(b)).into_iter().filter(|param| param.role == Role::Trainable);
    let names: Vec<String> = trained.map(|param| param.name).collect();
    assert_eq!(names, ["onnx::MatMul_9", "logit_scale", "layer.scale", "onnx::Add_10"]);
}

#[test]
fn parameters_of_equal_value_that_an_exporter_shared_are_untied() {
    let mut failures = Vec::new();
    for name in ["resnet", "transformer"] {
        let json = expected(name);
        let shared = file(&format!("{name}.torchscript_shared.onnx"));
        let untied = untie(&shared);
        crate::graph::check(&untied.model.graph).unwrap();
        let found: Vec<_> = units(&recover(&untied.model), UnitKind::Composer)
            .into_iter()
            .map(|unit| (unit.path, unit.parameters))
            .collect();
        let leaf = |leaf: &Value| (leaf["path"].as_str().unwrap().to_string(), strings(&leaf["parameters"]));
        let expected: Vec<_> = json["leaves"].as_array().unwrap().iter().map(leaf).collect();
        if found != expected {
            failures.push(format!("{name}:\n  found {found:?}\n  expected {expected:?}"));
        }
        let statistics = parameters(&untied.model).into_iter().filter(|param| param.role == Role::Statistic).count();
        assert_eq!(statistics, strings(&json["state"]).len() - strings(&json["parameters"]).len());
        assert!(untied.names.iter().all(|name| strings(&json["state"]).contains(name)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(untie(&file("resnet.torchscript.onnx")).names.is_empty());
}

#[test]
fn keras_layers_are_modules() {
    let cases = [
        (
            "keras_cnn.onnx",
            "block1_conv1_1:1 depthwise_conv2d_1:1 batch_normalization_1:1 batch_normalization_1_2:1 separable_conv2d_1:3 \
             dense_1:2 layer_normalization_1:1 predictions_1:2",
        ),
        (
            "keras_recurrent.onnx",
            "embedding_1:1 value_1:1 query_1:1 key_1:1 attention_output_1:1 layer_normalization_1_1:2 lstm_1:3 dense_1_1:1",
        ),
    ];
    let mut failures = Vec::new();
    for (name, expected) in cases {
        let tree = recover(&file(name));
        assert_eq!(tree.strategy(), "slash");
        let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_string();
        let units = units(&tree, UnitKind::Composer);
        let found: Vec<String> =
            units.iter().map(|unit| format!("{}:{}", last(&unit.path), unit.parameters.len())).collect();
        if found.join(" ") != expected {
            failures.push(format!("{name}:\n  found    {}\n  expected {expected}", found.join(" ")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Names of MXNet, Caffe2 and PaddlePaddle; a group whose tensors lie apart in the graph is none.
#[test]
fn names_with_underscores_group_what_the_graph_agrees_to() {
    let mut b = Builder::new("underscores");
    let x = b.input("x", Fact::fixed(DType::F32, &[1, 2, 4, 4]));
    let conv = |b: &mut Builder, x, weight: &str| {
        let weight = b.initializer(weight, ones(&[2, 2, 1, 1]));
        b.op("Conv", &[x, weight], Attributes::none())
    };
    let y = conv(&mut b, x, "net_stage1_conv0_weight");
    let scale = ["gamma", "beta", "running_mean", "running_var"].map(|role| format!("net_batchnorm0_{role}"));
    let scale = scale.map(|name| b.initializer(&name, ones(&[2])));
    let y = b.op("BatchNormalization", &[y, scale[0], scale[1], scale[2], scale[3]], Attributes::none());
    let y = conv(&mut b, y, "gpu_0/res2_0_branch2a_w_0");
    let factor = b.initializer("gpu_0/res2_0_branch2a_b_0", ones(&[1, 2, 1, 1]));
    let y = b.mul(y, factor);
    let y = conv(&mut b, y, "apart_w");
    let y = b.unary("Relu", y);
    let y = b.unary("Relu", y);
    let y = conv(&mut b, y, "apart_W");
    b.mark_output(y);
    let tree = recover(&model(b));
    let found = units(&tree, UnitKind::Leaf);
    let found: Vec<_> = found.iter().map(|unit| format!("{}:{}", unit.path, unit.parameters.len())).collect();
    assert_eq!(found, ["net_stage1_conv0:1", "net_batchnorm0:2", "gpu_0.res2_0_branch2a:2", "Conv_2:1", "Conv_3:1"]);
    assert_eq!(tree.evidence("net_batchnorm0_gamma"), Some(&Evidence::Underscores));
}

#[test]
fn functions_that_nodes_were_inlined_from_are_modules() {
    let mut b = Builder::new("functions");
    let mut y = b.input("x", Fact::fixed(DType::F32, &[2, 4]));
    for call in ["Block_0:Block/fc:Linear", "Block_1:Block/fc:torch.nn.Linear"] {
        let weight = b.unique("weight");
        let weight = b.initializer(&format!("onnx::{weight}"), ones(&[4, 4]));
        let node = crate::graph::Node {
            name: b.unique("MatMul"),
            op: OpId::standard("MatMul"),
            overload: String::new(),
            inputs: vec![Some(y), Some(weight)],
            outputs: Vec::new(),
            attributes: Attributes::none(),
            origin: crate::graph::Origin::Forward,
            metadata: vec![("freeze-plan.function".into(), call.into())],
        };
        let output = b.unique("y");
        y = b.declare(&output, Fact::fixed(DType::F32, &[2, 4]));
        b.push_node(crate::graph::Node { outputs: vec![Some(y)], ..node });
    }
    b.mark_output(y);
    let tree = recover(&model(b));
    assert_eq!(tree.strategy(), "functions");
    let found: Vec<_> = units(&tree, UnitKind::Leaf).into_iter().map(|unit| (unit.path, unit.class)).collect();
    let pair = |path: &str| (path.to_string(), "Linear".to_string());
    assert_eq!(found, [pair("Block_0.fc"), pair("Block_1.fc")]);
}

#[test]
fn operands_of_fused_operators_are_parameters_and_rotary_tables_are_none() {
    let fused = |name: &str| OpId { domain: "com.microsoft".into(), name: name.into() };
    let mut b = Builder::new("fused");
    let x = b.input("x", Fact::fixed(DType::F32, &[2, 3, 4]));
    let places = b.input("places", Fact::fixed(DType::I64, &[2, 3]));
    let held = |b: &mut Builder, number: usize, shape: &[usize]| b.initializer(&format!("val_{number}"), ones(shape));
    let weight = held(&mut b, 0, &[4, 4]);
    let y = b.ops(&fused("FusedMatMul"), &[Some(x), Some(weight)], Attributes::none(), 1)[0];
    let bias = held(&mut b, 1, &[4]);
    let y = b.ops(&fused("BiasGelu"), &[Some(y), Some(bias)], Attributes::none(), 1)[0];
    let (gamma, beta, more) = (held(&mut b, 2, &[4]), held(&mut b, 3, &[4]), held(&mut b, 4, &[4]));
    let inputs = [x, y, gamma, beta, more].map(Some);
    let y = b.ops(&fused("SkipLayerNormalization"), &inputs, Attributes::none(), 1)[0];
    let (packed, bias) = (held(&mut b, 5, &[4, 12]), held(&mut b, 6, &[12]));
    let heads = Attributes::none().with("num_heads", 2i64);
    let y = b.ops(&fused("Attention"), &[Some(y), Some(packed), Some(bias)], heads, 1)[0];
    let (cos, sin) = (b.initializer("rope.cos", ones(&[8, 1])), b.initializer("rope.sin", ones(&[8, 1])));
    let inputs = [y, places, cos, sin].map(Some);
    let y = b.ops(&fused("RotaryEmbedding"), &inputs, Attributes::none().with("num_heads", 2i64), 1)[0];
    b.mark_output(y);
    let found = parameters(&model(b));
    let names = |role: Role| -> Vec<&str> {
        found.iter().filter(|param| param.role == role).map(|param| param.name.as_str()).collect()
    };
    assert_eq!(names(Role::Trainable), ["val_0", "val_1", "val_2", "val_3", "val_4", "val_5", "val_6"]);
    assert_eq!(names(Role::Buffer), ["rope.cos", "rope.sin"]);
}

#[test]
fn quantised_weights_and_scales_are_buffers_and_weights_that_nodes_make_are_named() {
    let mut b = Builder::new("quantised");
    let x = b.input("x", Fact::fixed(DType::F32, &[2, 4]));
    let packed = b.initializer("fc.weight", Tensor::from_vec(&[4, 4], vec![1i8; 16]));
    let (scale, zero) =
        (b.initializer("fc.scale", ones(&[4])), b.initializer("fc.zero", Tensor::from_vec(&[4], vec![0i8; 4])));
    let weight = b.op("DequantizeLinear", &[packed, scale, zero], Attributes::none());
    let y = b.op("MatMul", &[x, weight], Attributes::none());
    let shape = b.initializer("made__SHAPE", Tensor::ints(&[4, 4]));
    let made = b.op("ConstantOfShape", &[shape], Attributes::none());
    let y = b.op("MatMul", &[y, made], Attributes::none());
    b.mark_output(y);
    let model = model(b);
    let params = parameters(&model);
    let roles: Vec<_> = params.iter().map(|param| (param.name.as_str(), param.role, param.reason.as_ref())).collect();
    let expected = [
        ("fc.weight", Role::Buffer, "int8 has no gradient"),
        ("fc.scale", Role::Buffer, "DequantizeLinear reads it as input 1"),
        ("fc.zero", Role::Buffer, "int8 has no gradient"),
        ("made__SHAPE", Role::Buffer, "int64 has no gradient"),
    ];
    assert_eq!(roles, expected);
    let notes = notes(&model, &recover(&model), &params);
    assert!(notes[0].starts_with("1 weights are made by nodes (ConstantOfShape, ..)"), "{notes:?}");
}

#[test]
fn a_name_with_control_characters_is_written_out() {
    let mut b = Builder::new("hostile");
    let x = b.input("x", Fact::fixed(DType::F32, &[2, 4]));
    let weight = b.initializer("a\u{1b}[2J.b\n.weight", ones(&[4, 4]));
    let y = b.op("MatMul", &[x, weight], Attributes::none());
    b.mark_output(y);
    let model = model(b);
    let tree = recover(&model);
    let text = [tree.text(&model), why(&model, &tree, &parameters(&model))].concat();
    assert!(text.contains("a\\u{1b}[2J") && text.contains("b\\n MatMul") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn why_says_what_placed_each_parameter() {
    let model = file("transformer.torchscript_default.onnx");
    let tree = recover(&model);
    let text = why(&model, &tree, &parameters(&model));
    for expected in [
        "modules from the names of the nodes, and dotted names of initializers\n",
        "role: operand of MatMul\n",
        "place: beside \"layers.0.mlp.0.bias\"\n",
        "place: its own name\n",
        "place: its name says no module\n",
    ] {
        assert!(text.contains(expected), "no {expected:?} in\n{text}");
    }
}

/// Thousands of modules, deep and wide, with repeated names.
#[test]
fn a_large_model_takes_time_in_proportion() {
    let model = large(4000);
    let tree = recover(&model);
    assert_eq!(units(&tree, UnitKind::Leaf).len(), 4000);
    assert_eq!(untie(&model).names.len(), 0);
}

fn large(layers: usize) -> Model {
    let mut b = Builder::new("large");
    let mut y = b.input("x", Fact::fixed(DType::F32, &[1, 2]));
    for layer in 0..layers {
        b.enter(crate::graph::Origin::Forward, &format!("/h.{layer}/fc"));
        let weight = b.initializer(&format!("h.{layer}.inner.fc.weight"), ones(&[2, 2]));
        let bias = b.initializer(&format!("h.{layer}.inner.fc.bias"), ones(&[2]));
        y = b.op("MatMul", &[y, weight], Attributes::none());
        y = b.add(y, bias);
        for _ in 0..8 {
            y = b.unary("Relu", y);
        }
    }
    b.mark_output(y);
    model(b)
}

/// Prints what a graph of 50,000 nodes takes.
#[test]
#[ignore = "a measurement, for a release build"]
fn measure_50_000_nodes() {
    for layers in [2500, 5000, 10_000] {
        let model = large(layers);
        let time = |what: &str, run: &dyn Fn()| {
            let start = std::time::Instant::now();
            run();
            println!("{} nodes, {what}: {:.1} ms", model.graph.nodes().len(), start.elapsed().as_secs_f64() * 1e3);
        };
        let (params, tree) = (parameters(&model), recover(&model));
        time("parameters", &|| drop(parameters(&model)));
        time("recover", &|| drop(recover_with(&model, &params)));
        time("units", &|| drop(units(&tree, UnitKind::Block)));
        time("untie", &|| drop(untie(&model)));
        time("why", &|| drop(why(&model, &tree, &params)));
    }
}

#[test]
fn vectors_of_spectral_normalization_are_buffers() {
    let mut b = Builder::new("spectral");
    let x = b.input("x", Fact::fixed(DType::F32, &[2, 3]));
    let of = "a.parametrizations.weight";
    let names = ["fc.weight_orig", "fc.weight_u", "a.weight_u", &format!("{of}.original"), &format!("{of}.0._v")];
    let mut sum = x;
    for name in names {
        let value = b.initializer(name, Tensor::float_full(DType::F32, &[3, 3], 0.5));
        sum = b.op("MatMul", &[sum, value], Attributes::none());
    }
    b.mark_output(sum);
    let model = Model { graph: b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() };
    let roles: Vec<Role> = parameters(&model).into_iter().map(|param| param.role).collect();
    assert_eq!(roles, [Role::Trainable, Role::Buffer, Role::Trainable, Role::Trainable, Role::Buffer]);
}

#[test]
fn what_only_a_subgraph_reads_can_be_a_parameter() {
    let branch = |op: &str| {
        let mut b = Builder::new(op);
        let names = ["x", "fc.weight", "fc.gain", "val_3", "turned"];
        let [x, weight, gain, code, turned] = names.map(|name| b.input(name, Fact::default()));
        let x = b.op("MatMul", &[x, turned], Attributes::none());
        let product = b.op("MatMul", &[x, weight], Attributes::none());
        let scaled = b.mul(product, gain);
        let moved = b.op(op, &[scaled, code], Attributes::none());
        b.mark_output(moved);
        let captures = names.map(Into::into).to_vec();
        crate::graph::Subgraph { graph: b.finish(), captures }
    };
    let mut b = Builder::new("if");
    b.input("x", Fact::fixed(DType::F32, &[2, 3]));
    let condition = b.input("condition", Fact::fixed(DType::Bool, &[]));
    for (name, shape) in [("fc.weight", vec![3, 4]), ("fc.gain", vec![4]), ("val_3", vec![4]), ("unread", vec![4])] {
        b.initializer(name, Tensor::float_full(DType::F32, &shape, 0.5));
    }
    let first = b.initializer("first.weight", Tensor::float_full(DType::F32, &[3, 3], 0.5));
    let turned = b.op("Transpose", &[first], Attributes::none());
    b.rename(turned, "turned");
    let branches = Attributes::none().with("then_branch", branch("Add")).with("else_branch", branch("Sub"));
    let y = b.op("If", &[condition], branches);
    b.mark_output(y);
    let model = Model { graph: b.finish(), opsets: [(String::new(), 18)].into(), ir_version: 8, ..Model::default() };
    let roles: Vec<(String, Role, String)> =
        parameters(&model).into_iter().map(|param| (param.name, param.role, param.reason.into_owned())).collect();
    let expected = [
        ("fc.weight", Role::Trainable, "operand of MatMul in a subgraph"),
        ("fc.gain", Role::Trainable, "named, and Mul in a subgraph passes a gradient to it"),
        ("val_3", Role::Buffer, "only a subgraph reads it"),
        ("unread", Role::Buffer, "no node reads it"),
        ("first.weight", Role::Trainable, "operand of MatMul in a subgraph"),
    ];
    assert_eq!(roles, expected.map(|(name, role, reason)| (name.to_string(), role, reason.to_string())));
}
