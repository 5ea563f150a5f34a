//! Operators whose output has the shape of an input, or the broadcast shape of all.

use super::{Call, DType, Dim, Fact, broadcast, known};

pub(super) fn infer(call: &Call) -> Option<Vec<Fact>> {
    let bool_like = |index: usize| Fact { dtype: Some(DType::Bool), shape: call.fact(index).shape.clone() };
    let first = match call.name() {
        "Abs"
        | "Acos"
        | "Acosh"
        | "Asin"
        | "Asinh"
        | "Atan"
        | "Atanh"
        | "BitwiseNot"
        | "Ceil"
        | "Celu"
        | "Clip"
        | "Cos"
        | "Cosh"
        | "CumProd"
        | "CumSum"
        | "Elu"
        | "Erf"
        | "Exp"
        | "Floor"
        | "Gelu"
        | "HardSigmoid"
        | "HardSwish"
        | "Hardmax"
        | "Identity"
        | "InstanceNormalization"
        | "GroupNormalization"
        | "LRN"
        | "LeakyRelu"
        | "Log"
        | "LogSoftmax"
        | "LpNormalization"
        | "MeanVarianceNormalization"
        | "Mish"
        | "Neg"
        | "PRelu"
        | "Reciprocal"
        | "Relu"
        | "ReverseSequence"
        | "Round"
        | "Scatter"
        | "ScatterElements"
        | "ScatterND"
        | "Selu"
        | "Shrink"
        | "Sigmoid"
        | "Sign"
        | "Sin"
        | "Sinh"
        | "Softmax"
        | "Softplus"
        | "Softsign"
        | "Sqrt"
        | "Swish"
        | "Tan"
        | "Tanh"
        | "TensorScatter"
        | "ThresholdedRelu"
        | "Trilu" => call.fact(0).clone(),
        "Not" | "IsNaN" | "IsInf" | "RegexFullMatch" => bool_like(0),
        "OptionalHasElement" => Fact::fixed(DType::Bool, &[]),
        "Add" | "Sub" | "Mul" | "Div" | "Max" | "Min" | "Sum" | "Mean" | "Mod" | "BitShift" | "BitwiseAnd"
        | "BitwiseOr" | "BitwiseXor" | "Pow" => {
            let dtype = match call.name() {
                "Pow" => call.dtype(0),
                _ => call.inputs.iter().flatten().find_map(|fact| fact.dtype),
            };
            Fact { dtype, shape: all(call) }
        }
        "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "And" | "Or" | "Xor" => {
            Fact { dtype: Some(DType::Bool), shape: all(call) }
        }
        "StringConcat" => Fact { dtype: Some(DType::String), shape: all(call) },
        "Where" => Fact { dtype: call.dtype(1).or(call.dtype(2)), shape: all(call) },
        "Cast" | "BitCast" => Fact { dtype: call.dtype_of("to"), shape: call.fact(0).shape.clone() },
        "CastLike" => Fact { dtype: call.dtype(1), shape: call.fact(0).shape.clone() },
        "Dropout" => {
            let mask = if call.opset < 10 { call.fact(0).clone() } else { bool_like(0) };
            return call.give([call.fact(0).clone(), mask]);
        }
        "QuantizeLinear" => {
            let dtype = match (call.dtype_of("output_dtype"), call.has(2)) {
                (Some(dtype), _) => Some(dtype),
                (None, true) => call.dtype(2),
                (None, false) => Some(DType::U8),
            };
            Fact { dtype, shape: call.fact(0).shape.clone() }
        }
        "DequantizeLinear" => {
            Fact { dtype: call.dtype_of("output_dtype").or(call.dtype(1)), shape: call.fact(0).shape.clone() }
        }
        "DynamicQuantizeLinear" => {
            let quantized = Fact { dtype: Some(DType::U8), shape: call.fact(0).shape.clone() };
            return call.give([quantized, Fact::fixed(DType::F32, &[]), Fact::fixed(DType::U8, &[])]);
        }
        "Bernoulli" | "RandomNormalLike" | "RandomUniformLike" | "EyeLike" => {
            Fact { dtype: call.dtype_of("dtype").or(call.dtype(0)), shape: call.fact(0).shape.clone() }
        }
        "RandomNormal" | "RandomUniform" => Fact {
            dtype: call.dtype_of("dtype").or(Some(DType::F32)),
            shape: call.ints("shape")?.map(|shape| shape.into_iter().map(known).collect()),
        },
        "Multinomial" => Fact {
            dtype: call.dtype_of("dtype").or(Some(DType::I32)),
            shape: call
                .shape(0)
                .and_then(|shape| Some(vec![shape.first()?.clone(), known(call.int("sample_size", 1)?)])),
        },
        "BatchNormalization" => {
            let rest = std::iter::repeat_n(call.fact(3).clone(), call.outputs.min(3).saturating_sub(1));
            let saved = std::iter::repeat_n(Fact { dtype: call.dtype(3), shape: channels(call) }, 2);
            return call.give(std::iter::once(call.fact(0).clone()).chain(rest).chain(saved));
        }
        _ => return None,
    };
    call.give([first])
}

fn all(call: &Call) -> Option<Vec<Dim>> {
    let shapes: Vec<Option<&[Dim]>> = (0..call.inputs.len()).map(|index| call.shape(index)).collect();
    broadcast(&shapes)
}

fn channels(call: &Call) -> Option<Vec<Dim>> {
    Some(vec![call.shape(0)?.get(1)?.clone()])
}
