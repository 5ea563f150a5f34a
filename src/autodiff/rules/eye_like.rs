//! EyeLike
//!
//! Forward:  `y` = ones on a diagonal, zeros elsewhere, in the shape of x.
//! Backward: none: of x only the shape and dtype count.
//! Shapes:   x `[N, M]`.
//! Opsets:   9 to 24.
//! <https://onnx.ai/onnx/operators/onnx__EyeLike.html>

use crate::autodiff::{InputRule, Inputs, Rule};

pub static RULE: Rule =
    Rule { domain: "", op: "EyeLike", opsets: 9..=24, inputs: Inputs::Fixed(&[InputRule::Constant]) };

#[cfg(test)]
mod tests {
    use crate::graph::{Attributes, Builder, DType, Fact};

    #[test]
    fn nothing_passes_what_reads_only_shapes() {
        let mut b = Builder::new("eye");
        let x = b.input("x", Fact::fixed(DType::F32, &[3, 3]));
        let eye = b.op("EyeLike", &[x], Attributes::none());
        let size = b.unary("Size", x);
        let size = b.cast(size, DType::F32);
        let shape = b.unary("Shape", x);
        let filled = b.op("ConstantOfShape", &[shape], Attributes::none());
        let places = b.unary("NonZero", x);
        let places = b.cast(places, DType::F32);
        let terms = [eye, filled, places].map(|term| b.reduce("ReduceSum", term, &[0, 1], false));
        let loss = b.op("Sum", &[terms[0], terms[1], terms[2], size], Attributes::none());
        assert_eq!(crate::autodiff::gradients(&mut b, 18, loss, &[x]).unwrap(), [None]);
    }
}
