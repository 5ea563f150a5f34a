//! ONNX Runtime's own operators (`com.microsoft`) that its optimizers and model builders write.

use super::{Call, DType, Dim, Fact, attention, broadcast, known, layers, linear};

pub(super) fn infer(call: &Call) -> Option<Vec<Fact>> {
    let shaped = |index: usize, shape| call.give([Fact { dtype: call.dtype(index), shape }]);
    match call.name() {
        "Gelu"
        | "FastGelu"
        | "BiasGelu"
        | "QuickGelu"
        | "BiasAdd"
        | "BiasSoftmax"
        | "GroupNorm"
        | "Inverse"
        | "RotaryEmbedding"
        | "Trilu"
        | "MoE"
        | "QMoE"
        | "QLinearSigmoid"
        | "QLinearLeakyRelu"
        | "QLinearSoftmax"
        | "LongformerAttention" => shaped(0, call.fact(0).shape.clone()),
        "SkipLayerNormalization"
        | "SkipSimplifiedLayerNormalization"
        | "SimplifiedLayerNormalization"
        | "LayerNormalization" => {
            let statistics = || layers::statistics(call, -1);
            let statistics =
                [Fact { dtype: Some(DType::F32), ..statistics() }, Fact { dtype: Some(DType::F32), ..statistics() }];
            let [mean, deviation] = statistics;
            call.give([call.fact(0).clone(), mean, deviation, call.fact(0).clone()])
        }
        "SkipGroupNorm" => call.give([call.fact(0).clone(), call.fact(0).clone()]),
        "EmbedLayerNormalization" => {
            let hidden = call.shape(2).and_then(|shape| shape.get(1));
            let shape = call.shape(0).zip(hidden).map(|(ids, hidden)| [ids, std::slice::from_ref(hidden)].concat());
            let embedded = Fact { dtype: call.dtype(2), shape };
            let batch = call.shape(0).and_then(|ids| Some(vec![ids.first()?.clone()]));
            call.give([embedded.clone(), Fact { dtype: Some(DType::I32), shape: batch }, embedded])
        }
        "FusedMatMul" | "TransposeMatMul" => {
            let (a, b) = (turned(call, 0, "transBatchA", "transA")?, turned(call, 1, "transBatchB", "transB")?);
            shaped(0, linear::matmul(a.as_deref(), b.as_deref()))
        }
        "FusedGemm" => shaped(0, linear::gemm(call, 1)),
        "QGemm" => {
            let dtype = if call.has(8) { call.dtype(8) } else { Some(DType::F32) };
            call.give([Fact { dtype, shape: linear::gemm(call, 3) }])
        }
        "MatMulNBits" | "MatMulBnb4" | "MatMulFpQ4" => {
            let columns = known(call.int("N", -1)?);
            let shape = call.shape(0).and_then(|shape| {
                let (_, rest) = shape.split_last()?;
                Some([rest, &[columns]].concat())
            });
            shaped(0, shape)
        }
        "MatMulIntegerToFloat" => shaped(2, linear::matmul(call.shape(0), call.shape(1))),
        "DynamicQuantizeMatMul" => shaped(0, linear::matmul(call.shape(0), call.shape(1))),
        "QLinearAdd" | "QLinearMul" => shaped(0, broadcast(&[call.shape(0), call.shape(3)])),
        "QLinearConcat" => {
            let shapes: Vec<_> = (2..call.inputs.len()).step_by(3).map(|index| call.shape(index)).collect();
            shaped(1, super::moves::join(&shapes, call.int("axis", 1)?))
        }
        "QLinearGlobalAveragePool" if call.int("channels_last", 0)? == 0 => shaped(0, layers::global(call)),
        "QLinearAveragePool" if call.int("channels_last", 0)? == 0 => shaped(0, layers::pool(call)),
        "FusedConv" => shaped(0, layers::conv(call, call.shape(0), call.shape(1))),
        "NhwcConv" | "NhwcFusedConv" => {
            let part =
                |index: usize| call.shape(index).and_then(|shape| shape.first()).cloned().unwrap_or(Dim::Unknown);
            let rank = call.rank(0)?;
            let open = vec![Dim::Unknown; rank.checked_sub(2)?];
            shaped(0, Some([part(0)].into_iter().chain(open).chain([part(1)]).collect()))
        }
        "QuantizeLinear" => {
            let dtype = if call.has(2) { call.dtype(2) } else { Some(DType::U8) };
            call.give([Fact { dtype, shape: call.fact(0).shape.clone() }])
        }
        "DequantizeLinear" => call.give([Fact { dtype: call.dtype(1), shape: call.fact(0).shape.clone() }]),
        "Attention" => attention::packed(call, 0),
        "QAttention" => attention::packed(call, 3),
        "MultiHeadAttention" => attention::multi_head(call),
        "GroupQueryAttention" => attention::grouped(call),
        "CDist" => {
            let rows =
                |index: usize| call.shape(index).and_then(|shape| shape.first()).cloned().unwrap_or(Dim::Unknown);
            shaped(0, Some(vec![rows(0), rows(1)]))
        }
        _ => None,
    }
}

/// Returns a shape with its first axis moved behind the other batch axes, and then its last two axes
/// swapped, where the attributes say so.
fn turned(call: &Call, index: usize, batch: &str, last: &str) -> Option<Option<Vec<Dim>>> {
    let (batch, last) = (call.int(batch, 0)? != 0, call.int(last, 0)? != 0);
    Some(call.shape(index).map(|shape| {
        let mut shape = shape.to_vec();
        if let (true, [rest @ .., _]) = (batch && shape.len() > 2, shape.as_mut_slice()) {
            rest.rotate_left(1);
        }
        if let (true, [.., a, b]) = (last, shape.as_mut_slice()) {
            std::mem::swap(a, b);
        }
        shape
    }))
}
