//! Mod
//!
//! Forward:  `y = a - b * q`, broadcasting, with `q = trunc(a / b)` for `fmod = 1`, which floats need, and
//!           `q = floor(a / b)` for `fmod = 0`.
//! Backward: `da = sum_to(a, dy)`, `db = sum_to(b, -q dy)` with `q = (a - y) / b`; integers have no gradient.
//! Shapes:   numpy broadcasting.
//! Opsets:   10 to 24.
//! At kinks: where b divides a, `da` is 1 and `db` is `-a / b`, as PyTorch's `fmod` and `remainder`.
//! <https://onnx.ai/onnx/operators/onnx__Mod.html>

use super::shared::unbroadcast;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::ValueId;

pub static RULE: Rule = Rule {
    domain: "",
    op: "Mod",
    opsets: 10..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(dividend), InputRule::Gradient(divisor)]),
};

fn dividend(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, a) = (ctx.dy()?, ctx.x(0)?);
    unbroadcast(ctx, dy, a)
}

fn divisor(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, a, b, y) = (ctx.dy()?, ctx.x(0)?, ctx.x(1)?, ctx.y(0)?);
    let whole = ctx.b.sub(y, a);
    let quotient = ctx.b.div(whole, b);
    let negated = ctx.b.unary("Round", quotient);
    let grad = ctx.b.mul(dy, negated);
    unbroadcast(ctx, grad, b)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::{Attributes, Builder, DType, Fact, Tensor};

    #[test]
    fn gradients() {
        let six = [5.0, -5.0, 7.3, 0.5, 2.4, -9.1];
        let float = |name| Case::new(name, "Mod").int("fmod", 1);
        check(&[
            float("same shape").values(&[2, 2], &[5.0, -5.0, 7.3, 0.5]).values(&[2, 2], &[3.0, 3.0, -2.1, 2.0]),
            float("row divisor").values(&[2, 3], &six).values(&[3], &[3.0, 2.1, -2.1]).batch(),
            float("symbols").values(&[2, 3], &six).values(&[3], &[3.0, 2.1, -2.1]).symbols(&[
                (0, 0, "batch"),
                (0, 1, "width"),
                (1, 0, "width"),
            ]),
            float("scalar dividend").values(&[], &[5.3]).values(&[2], &[3.0, -2.1]),
            float("constant divisor").values(&[2, 3], &six).fixed(Tensor::scalar(2.1_f32)),
            float("signs and a multiple")
                .values(&[5], &[5.0, -5.0, 5.0, -5.0, 6.0])
                .values(&[5], &[3.0, 3.0, -3.0, -3.0, 3.0])
                .expect(0, &[1.0; 5])
                .expect(1, &[-1.0, 1.0, 1.0, -1.0, -2.0]),
        ]);
    }

    #[test]
    fn integers_stop_a_gradient() {
        let mut b = Builder::new("mod");
        let x = b.input("x", Fact::fixed(DType::F32, &[3]));
        let whole = b.cast(x, DType::I64);
        let seven = b.ints("seven", &[7]);
        let rest = b.op("Mod", &[whole, seven], Attributes::none());
        let y = b.cast(rest, DType::F32);
        let loss = b.reduce("ReduceSum", y, &[0], false);
        assert_eq!(crate::autodiff::gradients(&mut b, 18, loss, &[x]).unwrap(), [None]);
    }
}
