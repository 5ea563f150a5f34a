//! Operators that compute with integers: MatMulInteger, ConvInteger, QLinearConv, QLinearMatMul,
//! DynamicQuantizeLinear and ONNX Runtime's QLinear family
//!
//! Forward:  products, sums and functions of quantized values.
//! Backward: none: their gradients are those of the floating-point operators that they replace, and
//!           training through them wants the model in that form.
//! Shapes:   any.
//! Opsets:   10 to 24.
//! <https://onnx.ai/onnx/operators/onnx__QLinearConv.html>

use crate::autodiff::{InputRule, Inputs, Rule};

const REASON: &str = "it computes with integers; a gradient passes the form of the model in which QuantizeLinear and \
                      DequantizeLinear stand around floating-point operators";

const MICROSOFT: &str = "com.microsoft";

pub static CONV_INTEGER: Rule = rule("", "ConvInteger");
pub static DYNAMIC_QUANTIZE_LINEAR: Rule = rule("", "DynamicQuantizeLinear");
pub static MAT_MUL_INTEGER: Rule = rule("", "MatMulInteger");
pub static Q_LINEAR_CONV: Rule = rule("", "QLinearConv");
pub static Q_LINEAR_MAT_MUL: Rule = rule("", "QLinearMatMul");
pub static Q_GEMM: Rule = rule(MICROSOFT, "QGemm");
pub static Q_LINEAR_ADD: Rule = rule(MICROSOFT, "QLinearAdd");
pub static Q_LINEAR_AVERAGE_POOL: Rule = rule(MICROSOFT, "QLinearAveragePool");
pub static Q_LINEAR_CONCAT: Rule = rule(MICROSOFT, "QLinearConcat");
pub static Q_LINEAR_GLOBAL_AVERAGE_POOL: Rule = rule(MICROSOFT, "QLinearGlobalAveragePool");
pub static Q_LINEAR_LEAKY_RELU: Rule = rule(MICROSOFT, "QLinearLeakyRelu");
pub static Q_LINEAR_MUL: Rule = rule(MICROSOFT, "QLinearMul");
pub static Q_LINEAR_SIGMOID: Rule = rule(MICROSOFT, "QLinearSigmoid");
pub static Q_LINEAR_SOFTMAX: Rule = rule(MICROSOFT, "QLinearSoftmax");
pub static DYNAMIC_QUANTIZE_MAT_MUL: Rule = rule(MICROSOFT, "DynamicQuantizeMatMul");
pub static MAT_MUL_INTEGER_TO_FLOAT: Rule = rule(MICROSOFT, "MatMulIntegerToFloat");

const fn rule(domain: &'static str, op: &'static str) -> Rule {
    Rule { domain, op, opsets: 10..=24, inputs: Inputs::Variadic(InputRule::Missing(REASON)) }
}

#[cfg(test)]
mod tests {
    use crate::autodiff::gradients;
    use crate::graph::{Attributes, Builder, DType, Fact, OpId, Tensor, ValueId};

    fn error(build: impl FnOnce(&mut Builder, ValueId) -> ValueId) -> String {
        let mut b = Builder::new("integers");
        let x = b.input("x", Fact::fixed(DType::F32, &[2, 3]));
        let y = build(&mut b, x);
        let y = b.cast(y, DType::F32);
        let loss = b.reduce("ReduceSum", y, &[0, 1], false);
        gradients(&mut b, 18, loss, &[x]).unwrap_err().to_string()
    }

    #[test]
    fn arithmetic_between_quantization_and_its_inverse_is_named() {
        let quantized = |b: &mut Builder, x: ValueId| {
            let scale = b.initializer("scale", Tensor::scalar(0.1_f32));
            let zero = b.initializer("zero", Tensor::scalar(3_i8));
            (b.op("QuantizeLinear", &[x, scale, zero], Attributes::none()), zero)
        };
        let found = error(|b, x| {
            let (q, zero) = quantized(b, x);
            let [q, zero] = [q, zero].map(|value| b.cast(value, DType::I32));
            b.sub(q, zero)
        });
        assert_eq!(
            found,
            "node \"Sub\": the gradient of Sub to input 0 is not implemented: it computes with quantized values"
        );
        let found = error(|b, x| {
            let (q, _) = quantized(b, x);
            b.unary("Relu", q)
        });
        assert!(found.starts_with("node \"Relu\": the gradient of Relu to input 0"), "{found}");
    }

    #[test]
    fn integers_on_the_way_are_named() {
        let product = |b: &mut Builder, x: ValueId| {
            let parts = b.ops(&OpId::standard("DynamicQuantizeLinear"), &[Some(x)], Attributes::none(), 3);
            let w = b.initializer("w", Tensor::from_vec(&[3, 2], vec![1_i8; 6]));
            b.op("MatMulInteger", &[parts[0], w, parts[2]], Attributes::none())
        };
        let found = error(product);
        assert!(found.starts_with("node \"MatMulInteger\": the gradient of MatMulInteger to input 0"), "{found}");
        let sum = |b: &mut Builder, x: ValueId| {
            let scale = b.initializer("scale", Tensor::scalar(0.1_f32));
            let zero = b.initializer("zero", Tensor::scalar(0_u8));
            let q = b.op("QuantizeLinear", &[x, scale, zero], Attributes::none());
            let inputs = [q, scale, zero, q, scale, zero, scale, zero].map(Some);
            let op = OpId { domain: "com.microsoft".into(), name: "QLinearAdd".into() };
            let y = b.ops(&op, &inputs, Attributes::none(), 1)[0];
            b.op("DequantizeLinear", &[y, scale, zero], Attributes::none())
        };
        let found = error(sum);
        assert!(found.starts_with("node \"QLinearAdd\": the gradient of com.microsoft.QLinearAdd to input"), "{found}");
    }
}
