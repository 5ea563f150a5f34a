//! One gradient rule a file, and the list of them.

mod abs;
mod add;
mod affine_grid;
mod average_pool;
mod batch_normalization;
mod batch_normalization_training;
mod cast;
mod cast_like;
mod ceil;
mod celu;
mod center_crop_pad;
mod clip;
mod col2_im;
mod compress;
mod concat;
mod conv;
mod conv_transpose;
mod cos;
mod cum_sum;
mod deform_conv;
mod depth_to_space;
mod dequantize_linear;
mod det;
mod dft;
mod div;
mod dropout;
mod einsum;
mod elu;
mod erf;
mod exp;
mod expand;
mod eye_like;
mod flatten;
mod floor;
mod gather;
mod gather_elements;
mod gather_nd;
mod gelu;
mod gemm;
mod global_average_pool;
mod global_lp_pool;
mod global_max_pool;
mod grid_sample;
mod group_normalization;
mod gru;
mod hard_sigmoid;
mod hard_swish;
mod hardmax;
mod hyperbolic;
mod identity;
mod r#if;
mod instance_normalization;
mod integer_arithmetic;
mod layer_normalization;
mod leaky_relu;
mod log;
mod log_softmax;
mod r#loop;
mod lp_normalization;
mod lp_pool;
mod lrn;
mod lstm;
mod mat_mul;
mod mat_mul_n_bits;
mod max;
mod max_pool;
mod max_roi_pool;
mod max_unpool;
mod mean;
mod mean_variance_normalization;
mod min;
mod mish;
mod modulo;
mod mul;
mod neg;
mod negative_log_likelihood_loss;
mod one_hot;
mod optional;
mod pad;
mod pow;
mod prelu;
mod quantize_linear;
mod range;
mod reciprocal;
mod reduce_l1;
mod reduce_l2;
mod reduce_log_sum;
mod reduce_log_sum_exp;
mod reduce_max;
mod reduce_mean;
mod reduce_min;
mod reduce_prod;
mod reduce_sum;
mod reduce_sum_square;
mod relu;
mod reshape;
mod resize;
mod reverse_sequence;
mod rms_normalization;
mod rnn;
mod roi_align;
mod round;
mod safe_softmax;
mod scan;
mod scatter_elements;
mod scatter_nd;
mod selu;
mod sequences;
mod shared;
mod shrink;
mod sigmoid;
mod sign;
mod sin;
mod slice;
mod softmax;
mod softmax_cross_entropy_loss;
mod softplus;
mod softsign;
mod space_to_depth;
mod split;
mod sqrt;
mod squeeze;
mod stft;
mod sub;
mod sum;
mod swish;
mod tanh;
mod thresholded_relu;
mod tile;
mod top_k;
mod transpose;
mod trigonometric;
mod trilu;
mod unique;
mod unsqueeze;
mod r#where;

pub use conv::{bias as conv_bias, window as conv_window};
pub use layer_normalization::statistic as layer_statistic;
pub use max_pool::window as pool_window;
#[cfg(feature = "runner")]
pub(crate) use shared::Window;

use super::Rule;
use crate::graph::OpId;
pub(super) use gather_nd::flattened;

/// Every rule, by operator.
pub static RULES: &[&Rule] = &[
    &abs::RULE,
    &add::RULE,
    &affine_grid::RULE,
    &average_pool::RULE,
    &batch_normalization::RULE,
    &batch_normalization_training::RULE,
    &cast::RULE,
    &cast_like::RULE,
    &ceil::RULE,
    &celu::RULE,
    &center_crop_pad::RULE,
    &clip::RULE,
    &col2_im::RULE,
    &compress::RULE,
    &concat::RULE,
    &conv::RULE,
    &conv_transpose::RULE,
    &cos::RULE,
    &cum_sum::RULE,
    &deform_conv::RULE,
    &depth_to_space::RULE,
    &dequantize_linear::MICROSOFT,
    &dequantize_linear::RULE,
    &det::RULE,
    &dft::ATTRIBUTE,
    &dft::RULE,
    &div::RULE,
    &dropout::RULE,
    &einsum::RULE,
    &elu::RULE,
    &erf::RULE,
    &exp::RULE,
    &expand::RULE,
    &eye_like::RULE,
    &flatten::RULE,
    &floor::RULE,
    &gather::RULE,
    &gather_elements::RULE,
    &gather_nd::RULE,
    &gelu::INTERNAL,
    &gelu::RULE,
    &gemm::RULE,
    &global_average_pool::RULE,
    &global_lp_pool::RULE,
    &global_max_pool::RULE,
    &grid_sample::RULE,
    &group_normalization::RULE,
    &gru::RULE,
    &hard_sigmoid::RULE,
    &hard_swish::RULE,
    &hardmax::RULE,
    &hyperbolic::ACOSH,
    &hyperbolic::ASINH,
    &hyperbolic::ATANH,
    &hyperbolic::COSH,
    &hyperbolic::SINH,
    &identity::RULE,
    &r#if::RULE,
    &instance_normalization::RULE,
    &integer_arithmetic::CONV_INTEGER,
    &integer_arithmetic::DYNAMIC_QUANTIZE_LINEAR,
    &integer_arithmetic::DYNAMIC_QUANTIZE_MAT_MUL,
    &integer_arithmetic::MAT_MUL_INTEGER,
    &integer_arithmetic::MAT_MUL_INTEGER_TO_FLOAT,
    &integer_arithmetic::Q_GEMM,
    &integer_arithmetic::Q_LINEAR_ADD,
    &integer_arithmetic::Q_LINEAR_AVERAGE_POOL,
    &integer_arithmetic::Q_LINEAR_CONCAT,
    &integer_arithmetic::Q_LINEAR_CONV,
    &integer_arithmetic::Q_LINEAR_GLOBAL_AVERAGE_POOL,
    &integer_arithmetic::Q_LINEAR_LEAKY_RELU,
    &integer_arithmetic::Q_LINEAR_MAT_MUL,
    &integer_arithmetic::Q_LINEAR_MUL,
    &integer_arithmetic::Q_LINEAR_SIGMOID,
    &integer_arithmetic::Q_LINEAR_SOFTMAX,
    &layer_normalization::RULE,
    &leaky_relu::RULE,
    &log::RULE,
    &log_softmax::RULE,
    &r#loop::RULE,
    &lp_normalization::RULE,
    &lp_pool::RULE,
    &lrn::RULE,
    &lstm::RULE,
    &mat_mul::RULE,
    &mat_mul_n_bits::RULE,
    &max::RULE,
    &max_pool::RULE,
    &max_roi_pool::RULE,
    &max_unpool::RULE,
    &mean::RULE,
    &mean_variance_normalization::RULE,
    &min::RULE,
    &mish::RULE,
    &modulo::RULE,
    &mul::RULE,
    &neg::RULE,
    &negative_log_likelihood_loss::RULE,
    &one_hot::RULE,
    &optional::OPTIONAL,
    &optional::OPTIONAL_GET_ELEMENT,
    &pad::RULE,
    &pow::RULE,
    &prelu::RULE,
    &quantize_linear::MICROSOFT,
    &quantize_linear::RULE,
    &range::RULE,
    &reciprocal::RULE,
    &reduce_l1::RULE,
    &reduce_l2::RULE,
    &reduce_log_sum::RULE,
    &reduce_log_sum_exp::RULE,
    &reduce_max::RULE,
    &reduce_mean::RULE,
    &reduce_min::RULE,
    &reduce_prod::RULE,
    &reduce_sum::RULE,
    &reduce_sum_square::RULE,
    &relu::RULE,
    &reshape::RULE,
    &resize::RULE,
    &reverse_sequence::RULE,
    &rms_normalization::RULE,
    &rnn::RULE,
    &roi_align::RULE,
    &round::RULE,
    &safe_softmax::RULE,
    &scan::RULE,
    &scatter_elements::RULE,
    &scatter_nd::RULE,
    &selu::RULE,
    &sequences::CONCAT_FROM_SEQUENCE,
    &sequences::SEQUENCE_AT,
    &sequences::SEQUENCE_CONSTRUCT,
    &sequences::SEQUENCE_ERASE,
    &sequences::SEQUENCE_INSERT,
    &sequences::SEQUENCE_MAP,
    &sequences::SPLIT_TO_SEQUENCE,
    &shrink::RULE,
    &sigmoid::RULE,
    &sign::RULE,
    &sin::RULE,
    &slice::RULE,
    &softmax::RULE,
    &softmax_cross_entropy_loss::RULE,
    &softplus::RULE,
    &softsign::RULE,
    &space_to_depth::RULE,
    &split::RULE,
    &sqrt::RULE,
    &squeeze::RULE,
    &stft::RULE,
    &sub::RULE,
    &sum::RULE,
    &swish::RULE,
    &tanh::RULE,
    &thresholded_relu::RULE,
    &tile::RULE,
    &top_k::RULE,
    &transpose::RULE,
    &trigonometric::ACOS,
    &trigonometric::ASIN,
    &trigonometric::ATAN,
    &trigonometric::TAN,
    &trilu::RULE,
    &unique::RULE,
    &unsqueeze::RULE,
    &r#where::RULE,
];

/// Returns the rule of an operator at a model opset.
///
/// # Errors
/// `None` when no opset of the operator has a rule, otherwise the first and last opset that do.
pub fn find(op: &OpId, opset: i64) -> Result<&'static Rule, Option<(i64, i64)>> {
    let mut range = None;
    for rule in RULES.iter().filter(|rule| rule.op == op.name && rule.domain == op.domain) {
        if rule.opsets.contains(&opset) {
            return Ok(rule);
        }
        range = Some((*rule.opsets.start(), *rule.opsets.end()));
    }
    Err(range)
}

#[cfg(test)]
mod tests {
    use super::RULES;
    use crate::autodiff::{InputRule, Inputs, Rule};

    #[test]
    fn every_file_is_in_the_list() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/autodiff/rules");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "mod.rs" && name != "shared.rs")
            .map(|name| name.trim_end_matches(".rs").to_string())
            .collect();
        files.sort();
        assert_eq!(listed(), files, "the list names every file, in alphabetical order");
    }

    #[test]
    fn no_operator_and_opset_has_two_rules() {
        for (index, a) in RULES.iter().enumerate() {
            for b in &RULES[index + 1..] {
                let overlap = a.opsets.start() <= b.opsets.end() && b.opsets.start() <= a.opsets.end();
                assert!((a.domain, a.op) != (b.domain, b.op) || !overlap, "two rules for {}", a.op);
            }
        }
    }

    #[test]
    fn every_rule_has_tests() {
        let mut tests = Vec::new();
        sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/autodiff/rules"), &mut tests);
        let gives = |input: &InputRule| matches!(input, InputRule::Gradient(_) | InputRule::Each(_));
        let has_gradient = |rule: &&&Rule| match &rule.inputs {
            Inputs::Fixed(list) => list.iter().any(gives),
            Inputs::Variadic(input) => gives(input),
            Inputs::Subgraphs(_) => true,
        };
        for rule in RULES.iter().filter(has_gradient) {
            let name = format!("\"{}\"", rule.op);
            assert!(tests.iter().any(|text| text.contains(&name)), "{} has no test", rule.op);
        }
    }

    /// Collects the parts of files that hold tests: cases, or graphs where one node is not enough.
    fn sources(folder: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let tests = if path.ends_with("tests.rs") {
                Some(text.as_str())
            } else {
                text.split_once("mod tests {").map(|parts| parts.1)
            };
            found.extend(tests.map(String::from));
        }
    }

    /// The modules in the list, in its order.
    fn listed() -> Vec<String> {
        let source = include_str!("mod.rs");
        let list = source.split_once("&[&Rule] = &[").unwrap().1.split_once("];").unwrap().0;
        let mut names: Vec<String> =
            list.split('&').filter_map(|part| part.split_once("::")).map(|(name, _)| name.replace("r#", "")).collect();
        names.dedup();
        names
    }
}
