//! ai.freeze-plan.Swish
//!
//! Forward:  `y = x * s`, `s = sigmoid(alpha * x)`.
//! Backward: `dx = dy * (s + alpha * y * (1 - s))`.
//! Shapes:   any.
//! Opsets:   any; the operator lives between autodiff and `lower`.
//! No page: the operator is `autodiff::swish_op`.

use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{INTERNAL_DOMAIN, ValueId};

pub static RULE: Rule =
    Rule { domain: INTERNAL_DOMAIN, op: "Swish", opsets: 1..=99, inputs: Inputs::Fixed(&[InputRule::Gradient(input)]) };

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    if ctx.grad(1).is_some() {
        return Err(RuleError::Unsupported("a gradient arrives at output 1, the sigmoid".into()));
    }
    let (dy, y, s) = (ctx.dy()?, ctx.y(0)?, ctx.y(1)?);
    let alpha = f64::from(ctx.attributes().float("alpha", 1.0)?);
    let one = ctx.b.like(s, alpha);
    let scaled = if alpha == 1.0 { s } else { ctx.b.scale(s, alpha) };
    let rest = ctx.b.sub(one, scaled);
    let bend = ctx.b.mul(y, rest);
    let slope = ctx.b.add(s, bend);
    Ok(ctx.b.mul(dy, slope))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};

    #[test]
    fn gradients() {
        let swish = |name| Case::new(name, "Swish").domain("ai.freeze-plan").outputs(2).in_loss(1);
        check(&[
            swish("silu, symbolic batch").range(&[3, 4], -3.0, 3.0).batch(),
            swish("quick gelu").range(&[2, 3], -3.0, 3.0).float("alpha", 1.702),
            swish("zero and large")
                .values(&[4], &[0.0, 1.0, 1e30, -1e30])
                .expect(0, &[0.5, 0.927_670_5, 1.0, 0.0])
                .not_embedded("its Sigmoid is off by 1e-7 where it should be 0 or 1, times x"),
        ]);
    }
}
