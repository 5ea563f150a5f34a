//! What an export or an optimizer has taken from a model that training would want, and how to keep
//! it. Only what the file proves is told.
//!
//! A BatchNorm was folded into a layer
//! - when the node says so: `pkg.onnxscript.rewriter.rule_name` names `FuseBatchNorm..`, or its scope
//!   ends in a BatchNorm module though it is another operator (PyTorch, `dynamo=True`);
//! - when its bias is `<weight>_bias`, which that rewriter names it where there was none;
//! - when weight and bias are both `onnx::Conv_<number>`: TorchScript computes both of them anew only
//!   for this (of a weight norm the bias keeps its name);
//! - when its weight is `ConvBnFusion_W_..` (ONNX Runtime) or `.._weights_fused_bn` (tf2onnx);
//! - when the file lists the removed nodes (onnxsim).

use crate::graph::{DType, Graph, Model, Node, NodeId};
use crate::modules::{ModuleTree, is_state_name};
use std::collections::BTreeSet;

/// Which program folds BatchNorm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Folder {
    Dynamo,
    TorchScript,
    OnnxRuntime,
    Onnxsim,
    Tf2onnx,
}

impl Folder {
    fn remedy(self) -> &'static str {
        match self {
            Folder::Dynamo => "torch.onnx.export(.., dynamo=True, optimize=False) keeps it",
            Folder::TorchScript => {
                "torch.onnx.export(.., dynamo=False, training=torch.onnx.TrainingMode.PRESERVE, \
                 do_constant_folding=False) keeps it"
            }
            Folder::OnnxRuntime => "the file that ONNX Runtime optimized still has it",
            Folder::Onnxsim => "onnxsim --skip-fuse-bn keeps it",
            Folder::Tf2onnx => "tf2onnx.convert.from_keras(.., optimizers=..) without remove_back_to_back keeps it",
        }
    }
}

const RULE: &str = "pkg.onnxscript.rewriter.rule_name";
const CLASSES: &str = "pkg.torch.onnx.class_hierarchy";
const REMOVED: &str = "onnxsim.removed_nodes";

/// Returns a sentence for each thing that the model lost on its way into the file.
pub(super) fn notes(model: &Model, tree: &ModuleTree) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(folded_norms(model, tree));
    notes.extend(fused_operators(&model.graph));
    notes.extend(quantized_weights(&model.graph));
    notes.extend(idle_dropout(&model.graph));
    notes.extend(half_precision(&model.graph, tree));
    notes
}

fn folded_norms(model: &Model, tree: &ModuleTree) -> Vec<String> {
    let graph = &model.graph;
    let mut found: Vec<(Folder, Vec<String>)> = Vec::new();
    for (id, node) in graph.node_ids() {
        let Some(folder) = folded(graph, node) else { continue };
        let name = layer(graph, tree, id);
        match found.iter_mut().find(|(known, _)| *known == folder) {
            Some((_, layers)) => layers.push(name),
            None => found.push((folder, vec![name])),
        }
    }
    let removed = model.metadata.iter().find(|(key, _)| key == REMOVED).map_or("", |(_, value)| value);
    let removed = removed.split(", ").filter_map(|entry| entry.strip_prefix("BatchNormalization ("));
    let removed: Vec<String> = removed.map(|entry| entry.trim_end_matches(')').to_string()).collect();
    if !removed.is_empty() {
        found.push((Folder::Onnxsim, removed));
    }
    let sentence = |(folder, layers): (Folder, Vec<String>)| {
        const MOST: usize = 3;
        let shown = layers.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if layers.len() > MOST { ", .." } else { "" };
        let what = match (folder, layers.len()) {
            (Folder::Onnxsim, 1) => "a BatchNorm was folded into the layer before it".to_string(),
            (Folder::Onnxsim, count) => format!("{count} BatchNorms were folded into the layers before them"),
            (_, 1) => "BatchNorm was folded into a layer".to_string(),
            (_, count) => format!("BatchNorm was folded into {count} layers"),
        };
        format!("{what} ({shown}{more}) and cannot train as one; {}", folder.remedy())
    };
    found.into_iter().map(sentence).collect()
}

/// Returns which program folded a BatchNorm into a node.
fn folded(graph: &Graph, node: &Node) -> Option<Folder> {
    if !matches!(node.op.name.as_str(), "Conv" | "ConvTranspose" | "FusedConv" | "Gemm" | "MatMul") {
        return None;
    }
    let metadata = |key: &str| node.metadata.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
    if metadata(RULE).is_some_and(|rules| rules.contains("FuseBatchNorm")) || metadata(CLASSES).is_some_and(of_norm) {
        return Some(Folder::Dynamo);
    }
    let name = |index: usize| node.input(index).map(|id| graph.value_name(id));
    let weight = name(1)?;
    if weight.starts_with("ConvBnFusion_W_") {
        return Some(Folder::OnnxRuntime);
    }
    if weight.ends_with("_weights_fused_bn") {
        return Some(Folder::Tf2onnx);
    }
    let bias = name(2)?;
    let counted = |name: &str| {
        let number = name.strip_prefix("onnx::Conv_");
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match bias.strip_suffix("_bias") {
        Some(stem) if stem == weight => Some(Folder::Dynamo),
        _ if counted(weight) && counted(bias) => Some(Folder::TorchScript),
        _ => None,
    }
}

/// Returns true when the innermost module of a `class_hierarchy` is a BatchNorm; its last entry is
/// the operation.
fn of_norm(classes: &str) -> bool {
    let mut entries = classes.trim_matches(['[', ']']).rsplit(", ").map(|entry| entry.trim_matches(['\'', '"']));
    let (operation, module) = (entries.next().unwrap_or_default(), entries.next().unwrap_or_default());
    operation.contains("batch_norm") && module.starts_with("torch.nn.modules.batchnorm.")
}

/// Returns the name of the layer that a node runs: that of its weight, or of its module.
fn layer(graph: &Graph, tree: &ModuleTree, id: NodeId) -> String {
    let weight = graph.node(id).input(1).map(|weight| graph.value_name(weight)).unwrap_or_default();
    let weight = weight.strip_prefix("ConvBnFusion_W_").unwrap_or(weight);
    match weight.rsplit_once('.') {
        Some((path, _)) if is_state_name(weight) => path.to_string(),
        _ => {
            let path = &tree.module(tree.module_of_node(id)).path;
            if path.is_empty() { graph.node(id).name.clone() } else { path.clone() }
        }
    }
}

/// Counts the parameters that no optimizer of this program updates.
fn half_precision(graph: &Graph, tree: &ModuleTree) -> Option<String> {
    let half = |name: &&str| {
        let dtype = graph.find(name).and_then(|id| graph.fact(id).dtype);
        matches!(dtype, Some(DType::F16 | DType::BF16))
    };
    let names: Vec<&str> = tree.registration().into_iter().filter(half).collect();
    let first = names.first()?;
    let (count, verb) = if names.len() == 1 {
        ("1 parameter".to_string(), "is")
    } else {
        (format!("{} parameters", names.len()), "are")
    };
    Some(format!(
        "{count} (\"{first}\"{}) {verb} in half precision, which can be planned but not trained: export in float32",
        if names.len() == 1 { "" } else { ", .." }
    ))
}

/// Operators that take quantized weights.
const QUANTIZED: [&str; 7] = [
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "MatMulNBits",
];

fn fused_operators(graph: &Graph) -> Option<String> {
    let own = |node: &&Node| node.op.domain == "com.microsoft" || node.op.domain == "com.microsoft.nchwc";
    let own = graph.nodes().iter().filter(own).filter(|node| !QUANTIZED.contains(&node.op.name.as_str()));
    let operators: BTreeSet<&str> = own.map(|node| node.op.name.as_str()).collect();
    let shown: Vec<&str> = operators.iter().copied().take(4).collect();
    let more = if operators.len() > 4 { ", .." } else { "" };
    (!operators.is_empty()).then(|| {
        format!(
            "ONNX Runtime has optimized this file: its own operators ({}{more}) have no gradient; the file that it \
             was given can be trained",
            shown.join(", ")
        )
    })
}

fn quantized_weights(graph: &Graph) -> Option<String> {
    let constant = |node: &Node, index: usize| node.input(index).is_some_and(|id| graph.constant(id).is_some());
    let dequantized = |node: &&Node| {
        let integer = |id| graph.fact(id).dtype.is_none_or(|dtype| dtype != crate::graph::DType::I32);
        node.op.is("DequantizeLinear") && constant(node, 0) && node.input(0).is_some_and(integer)
    };
    let direct = |node: &&Node| QUANTIZED.contains(&node.op.name.as_str());
    let count = graph.nodes().iter().filter(|node| dequantized(node) || direct(node)).count();
    let what = if count == 1 { "1 weight is".to_string() } else { format!("{count} weights are") };
    (count > 0).then(|| format!("{what} quantized: such a weight keeps its value, only float parameters train"))
}

/// Tells of Dropout nodes that a run leaves out unless it is asked for them.
fn idle_dropout(graph: &Graph) -> Option<String> {
    let idle = |node: &&Node| {
        let flag = node.input(2).map(|flag| graph.constant(flag).and_then(|flag| flag.to_f64s()));
        node.op.is("Dropout") && flag.is_none_or(|flag| flag.is_some_and(|flag| flag.first() == Some(&0.0)))
    };
    let (nodes, them) = match graph.nodes().iter().filter(idle).count() {
        0 => return None,
        1 => ("1 Dropout is".to_string(), "it"),
        count => (format!("{count} Dropouts are"), "them"),
    };
    Some(format!("{nodes} in inference form and left out of training; dropout = \"on\" in a job makes {them} random"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attributes, Builder, DType, Dim, Fact, Tensor};
    use std::path::{Path, PathBuf};

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
    }

    fn told(path: &Path) -> Vec<String> {
        let analysis = super::super::Analysis::of(&crate::onnx::read(path).unwrap().model);
        notes(&analysis.model, &analysis.tree)
    }

    #[test]
    fn a_folded_batch_norm_is_told_and_no_other_layer() {
        let text = std::fs::read_to_string(fixture("exports/cases.json")).unwrap();
        let cases: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert!(cases.len() > 25);
        let remedies = [
            (".torchscript", "TrainingMode.PRESERVE"),
            (".dynamo", "optimize=False"),
            (".ort_", "the file that"),
            (".onnxsim", "--skip-fuse-bn"),
        ];
        let mut wrong = Vec::new();
        for (name, folded) in &cases {
            let notes = told(&fixture("exports").join(format!("{name}.onnx")));
            let told = notes.iter().find(|note| note.contains("BatchNorm"));
            // In the blocked layout nothing is left that tells.
            let expected = *folded == serde_json::json!(true) && !name.ends_with("ort_all");
            let remedy = remedies.iter().find(|(way, _)| name.contains(way)).map_or("", |(_, remedy)| remedy);
            let right = told.is_none_or(|note| note.contains(remedy) && note.contains('('));
            if told.is_some() != expected || !right {
                wrong.push(format!("{name}: folded {folded}, told {notes:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn whole_models_name_their_layers() {
        let layers = "(conv1, layer1.0.conv1, layer1.0.conv2, ..)";
        struct Case {
            file: &'static str,
            expected: Option<(usize, &'static str)>,
        }
        let cases = [
            Case { file: "trees/resnet.torchscript_default.onnx", expected: Some((8, layers)) },
            Case { file: "trees/resnet.dynamo_default.onnx", expected: Some((8, layers)) },
            Case { file: "trees/resnet.torchscript.onnx", expected: None },
            Case { file: "trees/resnet.torchscript_shared.onnx", expected: None },
            Case { file: "trees/resnet.dynamo.onnx", expected: None },
            Case { file: "trees/mlp.torchscript_default.onnx", expected: None },
            Case { file: "trees/mlp.dynamo_default.onnx", expected: None },
            Case { file: "trees/transformer.torchscript_default.onnx", expected: None },
            Case { file: "trees/transformer.dynamo_default.onnx", expected: None },
            Case { file: "digits/model.onnx", expected: None },
            Case { file: "digits_vit/model.onnx", expected: None },
            Case { file: "parity/resnet8.onnx", expected: None },
        ];
        for Case { file, expected } in cases {
            let notes = told(&fixture(file));
            match expected {
                None => assert!(notes.is_empty(), "{file}: {notes:?}"),
                Some((count, layers)) => {
                    let start = format!("BatchNorm was folded into {count} layers {layers}");
                    assert!(notes.len() == 1 && notes[0].starts_with(&start), "{file}: {notes:?}");
                }
            }
        }
    }

    #[test]
    fn what_else_was_lost_is_told() {
        let cases = [
            ("exports/conv.qdq.onnx", "1 weight is quantized"),
            ("exports/conv_bn.ort_extended.onnx", "its own operators (FusedConv)"),
            ("exports/conv_bn.ort_all.onnx", "its own operators (Conv, ReorderOutput)"),
        ];
        for (file, expected) in cases {
            let notes = told(&fixture(file));
            assert!(notes.iter().any(|note| note.contains(expected)), "{file}: {notes:?}");
        }
    }

    #[test]
    fn dropout_in_inference_form_is_told() {
        let told = |mode: Option<bool>| {
            let mut b = Builder::new("net");
            let x = b.input("x", Fact::new(DType::F32, vec![Dim::Known(4)]));
            let mut inputs = vec![x];
            if let Some(mode) = mode {
                inputs.extend([b.scalar(DType::F32, 0.5), b.constant("mode", Tensor::scalar(mode))]);
            }
            b.op("Dropout", &inputs, Attributes::none());
            idle_dropout(&b.finish())
        };
        assert!(told(None).is_some_and(|note| note.starts_with("1 Dropout is in inference form")));
        assert!(told(Some(false)).is_some());
        assert_eq!(told(Some(true)), None);
    }

    #[test]
    fn names_that_only_look_alike_are_not_folded() {
        struct Case {
            weight: &'static str,
            bias: &'static str,
            folded: Option<Folder>,
        }
        let cases = [
            Case { weight: "conv.weight", bias: "conv.bias", folded: None },
            Case { weight: "conv.weight", bias: "conv.weight_bias", folded: Some(Folder::Dynamo) },
            Case { weight: "conv.weight", bias: "other.weight_bias", folded: None },
            Case { weight: "onnx::Conv_1", bias: "onnx::Conv_2", folded: Some(Folder::TorchScript) },
            Case { weight: "onnx::Conv_1", bias: "conv.bias", folded: None },
            Case { weight: "onnx::Conv_", bias: "onnx::Conv_x", folded: None },
            Case { weight: "conv2d/Conv2D_weights_fused_bn", bias: "b", folded: Some(Folder::Tf2onnx) },
            Case { weight: "ConvBnFusion_W_conv.weight", bias: "b", folded: Some(Folder::OnnxRuntime) },
            Case { weight: "bn_conv.weight", bias: "bn_conv.bias", folded: None },
        ];
        for Case { weight, bias, folded: expected } in cases {
            let mut b = Builder::new("conv");
            let dims = [1, 1, 4, 4].map(Dim::Known).to_vec();
            let x = b.input("x", Fact::new(DType::F32, dims));
            let w = b.initializer(weight, Tensor::zeros(DType::F32, &[1, 1, 1, 1]));
            let c = b.initializer(bias, Tensor::zeros(DType::F32, &[1]));
            b.op("Conv", &[x, w, c], Attributes::none());
            let graph = b.finish();
            assert_eq!(folded(&graph, &graph.nodes()[0]), expected, "{weight} {bias}");
        }
    }
}
