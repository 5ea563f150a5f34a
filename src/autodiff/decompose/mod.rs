//! Operators that are differentiated by way of others: each is replaced by operators that mean
//! the same and have gradient rules.
//!
//! These are the fused operators that ONNX Runtime's optimizers and model builders write
//! (`com.microsoft`), which stay one node wherever no gradient must pass, and operators that came
//! after opset 21, which every graph of ours must do without. One operator a file, with its
//! formula; a decomposition may end in internal operators (`internal/`).
//!
//! What this module does not do: decide where a gradient passes; that is the caller's `wanted`.

mod attention;
mod bias_add;
mod bias_softmax;
mod embed_layer_normalization;
mod fused_conv;
mod fused_gemm;
mod fused_mat_mul;
mod gelus;
mod group_norm;
mod group_query_attention;
mod heads;
mod layouts;
mod microsoft_attention;
mod microsoft_rotary_embedding;
mod microsoft_trilu;
mod multi_head_attention;
mod parts;
mod rms_normalization;
mod rotary_embedding;
mod shared;
mod simplified_layer_normalization;
mod skip_layer_normalization;
mod skip_simplified_layer_normalization;
mod swish;
mod tensor_scatter;

pub use parts::Parts;

use super::internal::in_place_of;
use super::{AutodiffError, RuleError};
use crate::graph::{Graph, Node, OpId, Replaced, ValueId, rebuild};
use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;

/// How one operator is expressed by others.
pub struct Decomposition {
    /// Domain, empty for the standard operators.
    pub domain: &'static str,
    /// Operator type.
    pub op: &'static str,
    /// Versions of the domain for which it is right and tested.
    pub opsets: RangeInclusive<i64>,
    /// Appends the operators and returns what takes the place of the node's outputs, by position;
    /// what the node does not have may be left out from the end.
    pub build: fn(&mut Parts<'_>) -> Result<Vec<ValueId>, RuleError>,
}

/// Every decomposition, by file.
pub static DECOMPOSITIONS: &[&Decomposition] = &[
    &attention::DECOMPOSITION,
    &bias_add::DECOMPOSITION,
    &bias_softmax::DECOMPOSITION,
    &embed_layer_normalization::DECOMPOSITION,
    &fused_conv::DECOMPOSITION,
    &fused_gemm::DECOMPOSITION,
    &fused_mat_mul::FUSED,
    &fused_mat_mul::TRANSPOSE,
    &gelus::GELU,
    &gelus::BIAS_GELU,
    &gelus::FAST_GELU,
    &gelus::QUICK_GELU,
    &group_norm::GROUP,
    &group_norm::SKIP,
    &group_query_attention::DECOMPOSITION,
    &layouts::AVERAGE_POOL,
    &layouts::CONV,
    &layouts::GLOBAL_AVERAGE_POOL,
    &layouts::GLOBAL_MAX_POOL,
    &layouts::MAX_POOL,
    &layouts::NHWC_CONV,
    &layouts::NHWC_FUSED_CONV,
    &layouts::NHWC_MAX_POOL,
    &layouts::REORDER_INPUT,
    &layouts::REORDER_OUTPUT,
    &layouts::UPSAMPLE,
    &microsoft_attention::DECOMPOSITION,
    &microsoft_rotary_embedding::DECOMPOSITION,
    &microsoft_trilu::DECOMPOSITION,
    &multi_head_attention::DECOMPOSITION,
    &rms_normalization::DECOMPOSITION,
    &rotary_embedding::DECOMPOSITION,
    &simplified_layer_normalization::STANDARD,
    &simplified_layer_normalization::MICROSOFT,
    &skip_layer_normalization::DECOMPOSITION,
    &skip_simplified_layer_normalization::DECOMPOSITION,
    &swish::DECOMPOSITION,
    &tensor_scatter::DECOMPOSITION,
];

/// Returns the decomposition of an operator at a version of its domain.
pub fn find_decomposition(op: &OpId, version: i64) -> Option<&'static Decomposition> {
    let mut all = DECOMPOSITIONS.iter().copied();
    all.find(|entry| entry.op == op.name && entry.domain == op.domain && entry.opsets.contains(&version))
}

/// Returns true for an operator of the default domain that no opset up to 21 has.
pub fn is_newer(op: &OpId) -> bool {
    const NEWER: [&str; 5] = ["Attention", "RMSNormalization", "RotaryEmbedding", "Swish", "TensorScatter"];
    op.domain.is_empty() && NEWER.contains(&op.name.as_str())
}

/// Returns the graph with the nodes for which `wanted` holds replaced where there is a
/// decomposition of their operator. `opsets` gives the version of each domain.
///
/// # Errors
/// Names the node that cannot be decomposed, and why.
pub fn decompose(
    graph: &Graph,
    opsets: &BTreeMap<String, i64>,
    wanted: impl Fn(&Node) -> bool,
) -> Result<Graph, AutodiffError> {
    let version = |op: &OpId| opsets.get(&op.domain).copied().unwrap_or(1);
    let entry = |node: &Node| find_decomposition(&node.op, version(&node.op)).filter(|_| wanted(node));
    if !graph.nodes().iter().any(|node| entry(node).is_some()) {
        return Ok(graph.clone());
    }
    let mut failed = None;
    let result = rebuild(graph, |b, node, inputs| -> Option<Replaced> {
        let entry = entry(node)?;
        b.enter(node.origin.clone(), &node.name);
        let outputs = (entry.build)(&mut Parts::new(b, node, inputs));
        let missing = outputs.as_ref().ok().and_then(|made| {
            let wanted = node.outputs.iter().rposition(Option::is_some)?;
            (wanted >= made.len()).then(|| RuleError::Unsupported(format!("output {wanted} is not supported")))
        });
        match (outputs, missing) {
            (Ok(outputs), None) => Some(in_place_of(b, graph, node, &outputs)),
            (Err(source), _) | (Ok(_), Some(source)) => {
                let (node, op) = (node.name.clone(), node.op.to_string());
                failed.get_or_insert(AutodiffError::Decompose { node, op, source });
                None
            }
        }
    });
    failed.map_or(Ok(result), Err)
}

/// Returns the values that depend on one of `sources`, these included, also through subgraphs.
pub fn dependents(graph: &Graph, sources: impl IntoIterator<Item = ValueId>) -> HashSet<ValueId> {
    let mut found: HashSet<ValueId> = sources.into_iter().collect();
    for node in graph.nodes() {
        if reads(graph, node, &found) {
            found.extend(node.outputs.iter().flatten());
        }
    }
    found
}

/// Returns true when a node or a subgraph of it reads one of the values.
pub fn reads(graph: &Graph, node: &Node, values: &HashSet<ValueId>) -> bool {
    let captured = node.captured().filter_map(|name| graph.find(name));
    node.inputs.iter().copied().flatten().chain(captured).any(|input| values.contains(&input))
}

#[cfg(test)]
mod tests {
    use super::{DECOMPOSITIONS, decompose};
    use crate::graph::{Attributes, Builder, DType, Fact, OpId};

    #[test]
    fn every_file_is_in_the_list() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/autodiff/decompose");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| {
                name.ends_with(".rs") && !["heads.rs", "mod.rs", "parts.rs", "shared.rs"].contains(&name.as_str())
            })
            .map(|name| name.trim_end_matches(".rs").to_string())
            .collect();
        files.sort();
        let source = include_str!("mod.rs");
        let list = source.split_once("&[&Decomposition] = &[").unwrap().1.split_once("];").unwrap().0;
        let mut listed: Vec<&str> =
            list.split('&').filter_map(|part| part.split_once("::")).map(|(name, _)| name).collect();
        listed.dedup();
        assert_eq!(listed, files, "the list names every file, in alphabetical order");
    }

    #[test]
    fn a_model_for_another_memory_layout_is_refused_with_a_remedy() {
        let mut b = Builder::new("case");
        let fact = Fact::fixed(DType::F32, &[1, 8, 4, 4]);
        let (x, w) = (b.input("x", fact.clone()), b.input("w", fact));
        let op = OpId { domain: "com.microsoft.nchwc".into(), name: "Conv".into() };
        let y = b.ops(&op, &[Some(x), Some(w)], Attributes::none(), 1)[0];
        b.mark_output(y);
        let opsets = [("com.microsoft.nchwc".to_string(), 1)].into_iter().collect();
        let error = decompose(&b.finish(), &opsets, |_| true).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("optimize it at level extended at most"), "{source}");
    }

    #[test]
    fn no_operator_has_a_rule_and_a_decomposition() {
        for entry in DECOMPOSITIONS {
            let rule = crate::autodiff::RULES.iter().find(|rule| (rule.domain, rule.op) == (entry.domain, entry.op));
            assert!(rule.is_none(), "{} has both", entry.op);
        }
    }
}
