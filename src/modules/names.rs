//! What the name of an initializer says.
//!
//! | name | of | owner | own name |
//! |---|---|---|---|
//! | `layer1.0.conv1.weight` | PyTorch, PaddlePaddle (`conv2d_0.w_0`) | `layer1.0.conv1` | `weight` |
//! | `StatefulPartitionedCall/model/dense/MatMul/ReadVariableOp:0` | TensorFlow, Keras | `model.dense` | `MatMul/ReadVariableOp` |
//! | `stage1_conv0_weight`, `res2_0_branch2a_bn_riv_0` | MXNet, Caffe2, DarkNet | none by itself | `weight`, `riv` |
//! | `onnx::MatMul_123`, `val_12`, `const_fold_opt__4` | an exporter | none | none |

/// The deepest nesting that names give; a path with more levels stands for one module.
pub(super) const MAX_LEVELS: usize = 64;

/// What ONNX Runtime puts before the name of a convolution's weight into which it folds a BatchNorm.
const FUSED_WEIGHT: &str = "ConvBnFusion_W_";
/// What it puts before the name of the BatchNorm's bias, which becomes the convolution's.
const FUSED_BIAS: &str = "ConvBnFusion_BN_B_";

/// Returns true for a name that the author of the model gave, as opposed to an exporter.
pub fn is_state_name(name: &str) -> bool {
    const COUNTERS: [&str; 11] = [
        "val_",
        "_val_",
        "Constant_",
        "constant_",
        "const_",
        "const_fold_opt__",
        "_tensor_constant",
        "lifted_tensor_",
        "_lifted_tensor_constant",
        "c_lifted_tensor_",
        "scalar_tensor_default",
    ];
    let counted =
        |stem: &str| name.strip_prefix(stem).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '_'));
    let unique = name.rsplit_once("__").is_some_and(|(_, number)| {
        !name.contains('.') && !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
    });
    !(unique
        || name.starts_with(FUSED_BIAS)
        || name.contains("::")
        || name.contains(['/', ':'])
        || counted("")
        || COUNTERS.into_iter().any(counted))
}

/// Returns the path of the module that a dotted state name says; `None` for other names.
pub(super) fn dotted_owner(name: &str) -> Option<&str> {
    let (path, last) = name.strip_prefix(FUSED_WEIGHT).unwrap_or(name).rsplit_once('.')?;
    (is_state_name(name) && !path.is_empty() && !last.is_empty()).then_some(path)
}

/// Returns the path above a path; `None` for one level and for a path that is too deep.
pub(super) fn parent(path: &str) -> Option<&str> {
    let (above, _) = path.rsplit_once('.')?;
    (path.bytes().filter(|byte| *byte == b'.').count() < MAX_LEVELS).then_some(above)
}

/// Returns the scope of a TensorFlow tensor, as a module path: what is left without the call around the
/// graph in front and the names of operators behind.
pub(super) fn slash_owner(name: &str) -> Option<String> {
    let name = name.split(':').next().unwrap_or(name);
    if name.starts_with('/') || !name.contains('/') { None } else { layer(name) }
}

/// Returns the scope of a TensorFlow node, as [`slash_owner`] does; the last part is the node itself.
pub(super) fn slash_scope(name: &str) -> Option<String> {
    layer(name.rsplit_once('/')?.0)
}

fn layer(scope: &str) -> Option<String> {
    let mut parts: Vec<&str> = scope.split('/').filter(|part| !part.is_empty()).collect();
    let calls = parts.iter().take_while(|part| part.contains("PartitionedCall")).count();
    parts.drain(..calls);
    while let [.., before, last] = parts[..] {
        let repeats = last == before || Some(last) == without_number(before);
        if !is_operator_part(last) && !repeats {
            break;
        }
        parts.pop();
    }
    if let [only] = parts[..]
        && is_operator_part(only)
    {
        return None;
    }
    let levels = parts.len().min(MAX_LEVELS);
    let path: Vec<String> = parts[..levels].iter().map(|part| part.replace('.', "_")).collect();
    (!path.is_empty()).then(|| path.join("."))
}

/// Returns true for the part of a TensorFlow name that is an operator or a variable of a layer.
fn is_operator_part(part: &str) -> bool {
    const VARIABLES: [&str; 25] = [
        "kernel",
        "bias",
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
        "embeddings",
        "embedding_lookup",
        "depthwise_kernel",
        "pointwise_kernel",
        "recurrent_kernel",
        "weights",
        "biases",
        "alpha",
        "read",
        "resource",
        "x",
        "y",
        "merged_input",
        "convolution",
        "depthwise",
        "moments",
        "batchnorm",
        "einsum",
        "split",
    ];
    const LOWER: [&str; 16] = [
        "add",
        "sub",
        "mul",
        "div",
        "truediv",
        "pow",
        "sqrt",
        "mean",
        "variance",
        "stack",
        "concat",
        "transpose",
        "strided_slice",
        "zeros",
        "ones",
        "while",
    ];
    let stem = part.split("__").next().unwrap_or(part);
    let stem = stem.strip_suffix("_fused_bn").unwrap_or(stem);
    let stem = stem.strip_suffix("_weights").or(stem.strip_suffix("_bias")).filter(|s| !s.is_empty()).unwrap_or(stem);
    let stem = without_number(stem).unwrap_or(stem);
    let operators = [
        "Conv",
        "MatMul",
        "BiasAdd",
        "ReadVariable",
        "FusedBatchNorm",
        "Gather",
        "Cast",
        "Reshape",
        "Const",
        "Identity",
        "Tensordot",
        "Einsum",
        "Relu",
        "Rsqrt",
        "Softmax",
        "Sigmoid",
        "Tanh",
        "Neg",
        "Mean",
        "Squeeze",
        "Expand",
        "Transpose",
        "Resource",
        "Select",
        "Depthwise",
        "SquaredDifference",
        "Mul",
        "Add",
        "Sub",
        "AddV",
        "Maximum",
        "Pad",
    ];
    VARIABLES.contains(&stem)
        || LOWER.contains(&stem)
        || operators.into_iter().any(|op| {
            stem.strip_prefix(op).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_alphanumeric()))
                && stem.starts_with(|c: char| c.is_ascii_uppercase())
        })
}

/// Returns what is left of a name without a final `_` and digits.
pub(super) fn without_number(part: &str) -> Option<&str> {
    let (stem, number) = part.rsplit_once('_')?;
    (!stem.is_empty() && !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())).then_some(stem)
}

/// Splits a name in which underscores separate the module from the role of the tensor, as MXNet's,
/// Caffe2's and DarkNet's do.
pub(super) fn underscored(name: &str) -> Option<(&str, &str)> {
    const ROLES: [&str; 29] = [
        "weight",
        "weights",
        "bias",
        "biases",
        "gamma",
        "beta",
        "kernel",
        "w",
        "b",
        "W",
        "B",
        "R",
        "s",
        "scale",
        "mean",
        "var",
        "rm",
        "riv",
        "running_mean",
        "running_var",
        "moving_mean",
        "moving_var",
        "moving_variance",
        "alpha",
        "coef",
        "intercept",
        "slope",
        "mean_blob",
        "var_blob",
    ];
    let name = without_number(name).filter(|stem| ROLES.iter().any(|role| ends_in(stem, role))).unwrap_or(name);
    let role = ROLES.iter().filter(|role| ends_in(name, role)).max_by_key(|role| role.len())?;
    let stem = name[..name.len() - role.len()].trim_end_matches(['_', '/']);
    (!stem.is_empty()).then_some((stem, *role))
}

fn ends_in(name: &str, role: &str) -> bool {
    name.strip_suffix(role).is_some_and(|stem| stem.ends_with('_') && stem.len() > 1)
}

/// Returns a name with control characters and those that change the direction of text written out.
pub(crate) fn printable(name: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    if !name.chars().any(hidden) {
        return name.to_string();
    }
    name.chars().map(|c| if hidden(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_their_owner() {
        let cases = [
            ("StatefulPartitionedCall/model/dense/MatMul/ReadVariableOp:0", Some("model.dense")),
            ("StatefulPartitionedCall/model/block_15_project/Conv2D_weights_fused_bn", Some("model.block_15_project")),
            ("m/block_16_expand/Conv2D_bias_fused_bn", Some("m.block_16_expand")),
            ("m/bn/FusedBatchNormV3/ReadVariableOp_1:0", Some("m.bn")),
            (
                "functional_1/separable_conv2d_1/separable_conv2d/ReadVariableOp_1:0",
                Some("functional_1.separable_conv2d_1"),
            ),
            ("functional_1/block1_conv1_1/convolution/ReadVariableOp:0", Some("functional_1.block1_conv1_1")),
            ("functional_1/gru_1/gru_cell_1/Cast_1/ReadVariableOp/resource:0", Some("functional_1.gru_1.gru_cell_1")),
            ("dense/kernel/read:0", Some("dense")),
            ("/layer1/Constant_output_0", None),
            ("const_fold_opt__42", None),
            ("kernel:0", None),
        ];
        assert_eq!(slash_scope("m/embedding/Less__45").as_deref(), Some("m.embedding"));
        assert_eq!(slash_scope("PartitionedCall/m/lstm/zeros/packed_Concat__79").as_deref(), Some("m.lstm"));
        assert!(!is_state_name("const_axes__43") && !is_state_name("W0__30") && is_state_name("a__1.weight"));
        for (name, owner) in cases {
            assert_eq!(slash_owner(name).as_deref(), owner, "{name}");
        }
        let cases = [
            ("resnetv10_stage1_conv0_weight", Some(("resnetv10_stage1_conv0", "weight"))),
            ("resnetv10_batchnorm0_running_mean", Some(("resnetv10_batchnorm0", "running_mean"))),
            ("gpu_0/res2_0_branch2a_bn_riv_0", Some(("gpu_0/res2_0_branch2a_bn", "riv"))),
            ("conv1_w_0", Some(("conv1", "w"))),
            ("000_convolutional_conv_weights", Some(("000_convolutional_conv", "weights"))),
            ("weight", None),
            ("half", None),
        ];
        for (name, expected) in cases {
            assert_eq!(underscored(name), expected, "{name}");
        }
        assert_eq!(parent("a.b.c"), Some("a.b"));
        assert_eq!(parent(&"a.".repeat(MAX_LEVELS + 1)), None);
        assert_eq!(printable("a\nb\u{202e}ä"), "a\\nb\\u{202e}ä");
    }
}
