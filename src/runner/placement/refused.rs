//! What the CUDA execution provider does not do although it has a kernel: nodes that it does not take, on which making
//! the session or running it fails, or that its kernel computes wrongly.

use crate::graph::{Attribute, DType, Node};

/// Activations of the recurrent operators that cuDNN has, for both directions.
const RECURRENT: [(&str, &[&str]); 3] = [
    ("LSTM", &["sigmoid", "tanh", "tanh", "sigmoid", "tanh", "tanh"]),
    ("RNN", &["tanh", "tanh"]),
    ("GRU", &["sigmoid", "tanh", "sigmoid", "tanh"]),
];
const STRING: i64 = 8;

/// Returns why the provider's kernel does not serve a node whose inputs have these dtypes.
pub(super) fn why(node: &Node, inputs: &[Option<DType>]) -> Option<&'static str> {
    let dtype = |index: usize| inputs.get(index).copied().flatten();
    if !node.op.domain.is_empty() {
        return None;
    }
    match node.op.name.as_str() {
        "ConvTranspose" => transposed(node),
        "Cast" => (node.attributes.int("to", 0) == Ok(STRING)).then_some("it makes strings"),
        "ArgMax" | "ArgMin" => {
            (node.attributes.int("select_last_index", 0) != Ok(0)).then_some("it finds the last of equals")
        }
        "BatchNormalization" => {
            (node.attributes.int("training_mode", 0) != Ok(0)).then_some("it normalizes by the batch's statistics")
        }
        "LSTM" | "RNN" | "GRU" => recurrent(node),
        "ScatterElements" | "ScatterND" => scattered(node, dtype(0)?),
        "Resize" => resized(node, dtype(1)?),
        _ => None,
    }
}

fn transposed(node: &Node) -> Option<&'static str> {
    let automatic = node.attributes.text("auto_pad", "NOTSET").is_ok_and(|kind| kind.starts_with("SAME"));
    let pads = node.attributes.ints("pads").ok().flatten().unwrap_or_default();
    let (front, back) = pads.split_at(pads.len() / 2);
    match (automatic, front == back) {
        (true, _) => Some("its padding follows from sizes"),
        (_, false) => Some("its padding differs between front and back"),
        _ => None,
    }
}

fn recurrent(node: &Node) -> Option<&'static str> {
    let given = |name: &str| node.attributes.get(name).is_some();
    let (_, known) = RECURRENT.iter().find(|(name, _)| node.op.is(name))?;
    if node.attributes.int("layout", 0) != Ok(0) {
        return Some("its batch comes first");
    }
    if given("clip") || given("activation_alpha") || given("activation_beta") {
        return Some("cuDNN has no such activation");
    }
    if let Some(Attribute::Strings(found)) = node.attributes.get("activations")
        && found.iter().zip(known.iter()).any(|(found, known)| !found.eq_ignore_ascii_case(known.as_bytes()))
    {
        return Some("cuDNN has no such activation");
    }
    if node.op.is("LSTM") && (node.attributes.int("input_forget", 0) != Ok(0) || node.input(7).is_some()) {
        return Some("cuDNN has no peepholes and no coupled gates");
    }
    let before = node.attributes.int("linear_before_reset", 1) == Ok(1);
    (node.op.is("GRU") && !before).then_some("cuDNN applies the reset gate after the product")
}

/// The kernel of ScatterND takes two dtypes; that of ScatterElements computes with the floating-point numbers that have
/// as many bytes.
fn scattered(node: &Node, dtype: DType) -> Option<&'static str> {
    if node.attributes.text("reduction", "none").is_ok_and(|kind| kind == "none") {
        return None;
    }
    match dtype {
        DType::F32 | DType::F16 => None,
        DType::F64 if node.op.is("ScatterElements") => None,
        _ => Some("it reduces in another dtype"),
    }
}

/// The kernel reads regions as float32 whatever they are.
fn resized(node: &Node, regions: DType) -> Option<&'static str> {
    let mode = node.attributes.text("coordinate_transformation_mode", "half_pixel").ok()?;
    (mode == "tf_crop_and_resize" && regions != DType::F32).then_some("its regions are not float32")
}
