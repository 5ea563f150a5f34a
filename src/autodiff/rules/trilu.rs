//! Trilu
//!
//! Forward:  `y` = the upper (or lower) triangle of each matrix from its k-th diagonal on, zeros elsewhere.
//! Backward: `dx` = the same triangle of dy.
//! Shapes:   `[.., M, N]`; k a scalar, constant or not, 0 where absent.
//! Opsets:   14 to 24.
//! <https://onnx.ai/onnx/operators/onnx__Trilu.html>

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "Trilu",
    opsets: 14..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Constant]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let dy = ctx.dy()?;
    let upper = ctx.attributes().int("upper", 1)?;
    let inputs: Vec<ValueId> = [Some(dy), ctx.node().input(1)].into_iter().flatten().collect();
    Ok(ctx.b.op("Trilu", &inputs, Attributes::none().with("upper", upper)))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let case = |name| Case::new(name, "Trilu").linear().input(&[2, 3, 4]);
        let k = |k: i64| Tensor::scalar(k);
        check(&[
            case("upper").batch(),
            case("lower").int("upper", 0),
            case("above the diagonal").fixed(k(1)).batch(),
            case("computed diagonal").fed(k(1)).symbols(&[(0, 0, "batch"), (0, 1, "rows")]),
            case("below the diagonal").fixed(k(-1)),
            case("lower and above").fixed(k(2)).int("upper", 0),
            Case::new("nothing left, large", "Trilu").values(&[2, 2], &[1e30; 4]).fixed(k(2)).expect(0, &[0.0; 4]),
            Case::new("corner", "Trilu").values(&[2, 2], &[1e30; 4]).int("upper", 0).expect(0, &[1.0, 0.0, 1.0, 1.0]),
        ]);
    }
}
