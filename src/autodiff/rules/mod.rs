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
mod concat;
mod conv;
mod conv_transpose;
mod cos;
mod deform_conv;
mod depth_to_space;
mod dft;
mod div;
mod dropout;
mod elu;
mod erf;
mod exp;
mod expand;
mod flatten;
mod floor;
mod gather;
mod gather_elements;
mod gelu;
mod gemm;
mod global_average_pool;
mod global_lp_pool;
mod global_max_pool;
mod grid_sample;
mod hard_sigmoid;
mod hard_swish;
mod identity;
mod instance_normalization;
mod layer_normalization;
mod leaky_relu;
mod log;
mod log_softmax;
mod lp_pool;
mod mat_mul;
mod max;
mod max_pool;
mod max_roi_pool;
mod max_unpool;
mod min;
mod mish;
mod mul;
mod neg;
mod pad;
mod pow;
mod prelu;
mod reciprocal;
mod reduce_l2;
mod reduce_max;
mod reduce_mean;
mod reduce_sum;
mod reduce_sum_square;
mod relu;
mod reshape;
mod resize;
mod roi_align;
mod round;
mod selu;
mod shared;
mod sigmoid;
mod sign;
mod sin;
mod slice;
mod softmax;
mod softplus;
mod softsign;
mod space_to_depth;
mod split;
mod sqrt;
mod squeeze;
mod stft;
mod sub;
mod sum;
mod tanh;
mod tile;
mod transpose;
mod unsqueeze;
mod r#where;

use super::Rule;
use crate::graph::OpId;

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
    &concat::RULE,
    &conv::RULE,
    &conv_transpose::RULE,
    &cos::RULE,
    &deform_conv::RULE,
    &depth_to_space::RULE,
    &dft::ATTRIBUTE,
    &dft::RULE,
    &div::RULE,
    &dropout::RULE,
    &elu::RULE,
    &erf::RULE,
    &exp::RULE,
    &expand::RULE,
    &flatten::RULE,
    &floor::RULE,
    &gather::RULE,
    &gather_elements::RULE,
    &gelu::RULE,
    &gemm::RULE,
    &global_average_pool::RULE,
    &global_lp_pool::RULE,
    &global_max_pool::RULE,
    &grid_sample::RULE,
    &hard_sigmoid::RULE,
    &hard_swish::RULE,
    &identity::RULE,
    &instance_normalization::RULE,
    &layer_normalization::RULE,
    &leaky_relu::RULE,
    &log::RULE,
    &log_softmax::RULE,
    &lp_pool::RULE,
    &mat_mul::RULE,
    &max::RULE,
    &max_pool::RULE,
    &max_roi_pool::RULE,
    &max_unpool::RULE,
    &min::RULE,
    &mish::RULE,
    &mul::RULE,
    &neg::RULE,
    &pad::RULE,
    &pow::RULE,
    &prelu::RULE,
    &reciprocal::RULE,
    &reduce_l2::RULE,
    &reduce_max::RULE,
    &reduce_mean::RULE,
    &reduce_sum::RULE,
    &reduce_sum_square::RULE,
    &relu::RULE,
    &reshape::RULE,
    &resize::RULE,
    &roi_align::RULE,
    &round::RULE,
    &selu::RULE,
    &sigmoid::RULE,
    &sign::RULE,
    &sin::RULE,
    &slice::RULE,
    &softmax::RULE,
    &softplus::RULE,
    &softsign::RULE,
    &space_to_depth::RULE,
    &split::RULE,
    &sqrt::RULE,
    &squeeze::RULE,
    &stft::RULE,
    &sub::RULE,
    &sum::RULE,
    &tanh::RULE,
    &tile::RULE,
    &transpose::RULE,
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
