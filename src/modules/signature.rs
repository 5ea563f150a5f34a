//! The signature that PyTorch's `torch.export`-based exporter leaves in the graph's metadata: a line for
//! each parameter and buffer of the program, in the order of registration.
//!
//! ```text
//! p_fc_weight: PARAMETER target='fc.weight'
//! b_scale: BUFFER target='scale' persistent=True
//! ```

use crate::graph::Model;
use std::collections::HashMap;

/// What the signature says of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signed {
    /// Position among all tensors, in the order of registration.
    pub index: usize,
    /// Whether it is a parameter.
    pub parameter: bool,
}

/// Returns what the signature says, by the name of the tensor; nothing for other exporters.
pub(super) fn read(model: &Model) -> HashMap<&str, Signed> {
    let entries = model.graph_metadata.iter().chain(&model.metadata);
    let text =
        entries.filter(|(key, _)| key == "pkg.torch.export.ExportedProgram.graph_signature").map(|(_, text)| text);
    let mut found = HashMap::new();
    for line in text.flat_map(|text| text.lines()) {
        let Some((kind, target)) = line.split_once(": ").and_then(|(_, rest)| rest.split_once(" target=")) else {
            continue;
        };
        let Some(quote) = target.chars().next().filter(|c| matches!(c, '\'' | '"')) else { continue };
        let Some(name) = target[1..].split(quote).next() else { continue };
        let index = found.len();
        match kind {
            "PARAMETER" => found.entry(name).or_insert(Signed { index, parameter: true }),
            "BUFFER" | "CONSTANT_TENSOR" => found.entry(name).or_insert(Signed { index, parameter: false }),
            _ => continue,
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_tensors() {
        let text = "\n# inputs\np_fc_weight: PARAMETER target='fc.weight'\nb_np: BUFFER target='np' persistent=False\n\
                    x: USER_INPUT\n\n# outputs\ny: USER_OUTPUT\nz: BUFFER_MUTATION target='np'\n: PARAMETER target=\n";
        let entry = ("pkg.torch.export.ExportedProgram.graph_signature".to_string(), text.to_string());
        let model = Model { graph_metadata: vec![entry], ..Model::default() };
        let found = read(&model);
        assert_eq!(found.get("fc.weight"), Some(&Signed { index: 0, parameter: true }));
        assert_eq!(found.get("np"), Some(&Signed { index: 1, parameter: false }));
        assert_eq!(found.len(), 2);
    }
}
