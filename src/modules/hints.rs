//! Names, values and uses that buffers have and parameters have not.

use super::uses::{Uses, source};
use crate::graph::{Graph, Node, Tensor, ValueId};

/// The most elements of a tensor that are looked at to tell its role.
pub(super) const PEEK: usize = 1024;

/// The most nodes that are followed to tell the role of one tensor.
const STEPS: usize = 32;

/// Returns true for the last part of a name that authors give to buffers.
pub(super) fn is_buffer_name(last: &str) -> bool {
    const NAMES: [&str; 42] = [
        "inv_freq",
        "original_inv_freq",
        "freqs",
        "freqs_cis",
        "freqs_cos",
        "freqs_sin",
        "cos",
        "sin",
        "cos_cached",
        "sin_cached",
        "cos_cache",
        "sin_cache",
        "pe",
        "pos_table",
        "position_ids",
        "relative_coords_table",
        "num_batches_tracked",
        "running_mean",
        "running_var",
        "mask",
        "masked_bias",
        "window",
        "fb",
        "mel_basis",
        "mel_filters",
        "forward_basis",
        "inverse_basis",
        "filt",
        "resample_filter",
        "resample_kernel",
        "blur_kernel",
        "anchors",
        "anchor_grid",
        "pixel_mean",
        "pixel_std",
        "image_mean",
        "image_std",
        "alphas_cumprod",
        "betas",
        "zero_point",
        "fake_quant_enabled",
        "final_logits_bias",
    ];
    const ENDS: [&str; 6] = ["_mask", "_index", "_idx", "_indices", "_ids", "_inv_freq"];
    let last = last.trim_start_matches('_').to_ascii_lowercase();
    NAMES.contains(&last.as_str()) || ENDS.iter().any(|end| last.ends_with(end))
}

/// Returns the name of the weight whose spectral norm PyTorch estimates with a vector of this name.
pub(super) fn spectral_original(name: &str) -> Option<String> {
    let stem = name.strip_suffix("_u").or_else(|| name.strip_suffix("_v"))?;
    match stem.strip_suffix('.') {
        Some(step) => {
            let (parametrization, _) = step.rsplit_once('.')?;
            parametrization.contains("parametrizations.").then(|| format!("{parametrization}.original"))
        }
        None => Some(format!("{stem}_orig")),
    }
}

/// Returns true for the last part of a name that tables of sines and learned positions share.
pub(super) fn is_sine_name(last: &str) -> bool {
    matches!(last, "pe" | "pos_table" | "positional_encoding" | "pos_encoding")
}

/// Returns true for the name of a trainable scalar.
pub(super) fn is_scale(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let ends = ["scale", "gamma", "alpha", "beta", "weight", "bias", "temperature", "tau", "slope", "gain"];
    ends.iter().any(|end| name == *end || name.strip_suffix(end).is_some_and(|stem| stem.ends_with(['_', '.'])))
}

/// Returns true for a small tensor that holds one value throughout.
pub(super) fn is_filled(tensor: &Tensor, value: f64) -> bool {
    elements(tensor).is_some_and(|elements| elements.iter().all(|element| *element == value))
}

/// Returns true for a small table whose first row is that of sines and cosines of position 0.
pub(super) fn is_sine_table(tensor: &Tensor) -> bool {
    let Some((elements, width)) = elements(tensor).zip(tensor.shape().last().copied()) else { return false };
    let Some(row) = elements.get(..width).filter(|row| row.len() > 1) else { return false };
    let interleaved = row.iter().enumerate().all(|(index, value)| *value == (index % 2) as f64);
    let halves = row.iter().enumerate().all(|(index, value)| *value == f64::from(u8::from(index >= width / 2)));
    (interleaved || halves) && elements.iter().all(|value| value.abs() <= 1.0)
}

/// Returns true for a mask over pairs of positions: square in its last two dimensions, of zeros and
/// large negative numbers; by its shape alone, the dimensions before these being 1, where it is large.
pub(super) fn is_mask(tensor: &Tensor) -> bool {
    let [before @ .., rows, columns] = tensor.shape() else { return false };
    if *columns < 2 || (rows != columns && *rows != 1) {
        return false;
    }
    match elements(tensor) {
        Some(elements) => {
            elements.iter().all(|value| *value == 0.0 || *value <= -50.0) && elements.iter().any(|value| *value != 0.0)
        }
        None => rows == columns && before.iter().all(|size| *size == 1),
    }
}

fn elements(tensor: &Tensor) -> Option<Vec<f64>> {
    if tensor.len() <= PEEK { tensor.to_f64s() } else { None }
}

/// Returns true for a graph input, seen through nodes that only move, shift or scale its elements.
pub(super) fn is_raw_input(graph: &Graph, value: ValueId) -> bool {
    let mut value = source(graph, value);
    for _ in 0..STEPS {
        let Some(producer) = graph.producer(value) else { break };
        let node = graph.node(producer);
        let fixed = |value: ValueId| {
            let origin = source(graph, value);
            graph.value(origin).initializer.is_some()
                || graph.producer(origin).is_some_and(|id| graph.node(id).op.is("Constant"))
        };
        let (Some(first), Some(second)) = (node.input(0), node.input(1)) else { return false };
        value = match node.op.name.as_str() {
            "Add" | "Sub" | "Mul" | "Div" if fixed(second) => source(graph, first),
            "Add" | "Mul" if fixed(first) => source(graph, second),
            _ => return false,
        };
    }
    graph.producer(value).is_none() && graph.value(value).initializer.is_none()
}

/// Returns true when everything that reads a node's result, seen through additions and masks, is
/// `Softmax`.
pub(super) fn goes_to_softmax(graph: &Graph, uses: &Uses, node: &Node) -> bool {
    reaches(graph, uses, node, &["Softmax", "LogSoftmax"], &["Add", "Div", "Mul", "Max", "Where", "Clip"])
}

/// Returns true when everything that reads a node's result, seen through concatenation and scaling,
/// is `Cos` or `Sin`.
pub(super) fn goes_to_rotation(graph: &Graph, uses: &Uses, node: &Node) -> bool {
    reaches(graph, uses, node, &["Cos", "Sin"], &["Concat", "Mul", "Add"])
}

fn reaches(graph: &Graph, uses: &Uses, node: &Node, goals: &[&str], through: &[&str]) -> bool {
    let mut open: Vec<ValueId> = node.output(0).into_iter().collect();
    let (mut steps, mut arrived) = (0, false);
    while let Some(value) = open.pop() {
        for reader in uses.through_views(graph, value) {
            steps += 1;
            let node = graph.node(reader.node);
            let op = node.op.name.as_str();
            if goals.contains(&op) {
                arrived = true;
            } else if op == "Shape" {
                continue;
            } else if through.contains(&op) && steps < STEPS {
                open.extend(node.output(0));
            } else {
                return false;
            }
        }
    }
    arrived
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_small_tensors_tell() {
        let tensor = |shape: &[usize], values: &[f32]| Tensor::from_vec(shape, values.to_vec());
        assert!(is_sine_table(&tensor(&[2, 1, 4], &[0.0, 1.0, 0.0, 1.0, 0.8, 0.5, 0.0, 1.0])));
        assert!(is_sine_table(&tensor(&[1, 4], &[0.0, 0.0, 1.0, 1.0])));
        assert!(!is_sine_table(&tensor(&[1, 4], &[0.1, 1.0, 0.0, 1.0])));
        let inf = f32::NEG_INFINITY;
        assert!(is_mask(&tensor(&[1, 2, 2], &[0.0, inf, 0.0, 0.0])));
        assert!(is_mask(&tensor(&[2, 2], &[0.0, -100.0, -100.0, 0.0])));
        assert!(!is_mask(&tensor(&[2, 2], &[0.0, 0.0, 0.0, 0.0])));
        assert!(!is_mask(&tensor(&[2, 2], &[0.5, -100.0, 0.0, 0.0])));
        assert!(is_mask(&Tensor::float_full(crate::graph::DType::F32, &[64, 64], 0.0)), "by shape");
    }

    #[test]
    fn names_of_buffers() {
        let cases = [
            ("inv_freq", true),
            ("attn_mask", true),
            ("_float_tensor", false),
            ("relative_position_index", true),
            ("relative_position_bias_table", false),
            ("mask_token", false),
            ("final_logits_bias", true),
            ("pos_embed", false),
        ];
        for (name, expected) in cases {
            assert_eq!(is_buffer_name(name), expected, "{name}");
        }
        assert!(is_scale("logit_scale") && is_scale("clip.temperature") && !is_scale("half"));
    }
}
