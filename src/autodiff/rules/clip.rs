//! Clip
//!
//! Forward:  `y = min(max(x, low), high)`; a bound that is absent does not limit.
//! Backward: `dx = low < x < high ? dy : 0` for constant bounds; otherwise, with `m = max(x, low)`,
//!           `s = (1 + sign(x - low)) / 2` and `t = (1 + sign(high - m)) / 2`: `dx = dy s t`,
//!           `dlow = sum(dy (1 - s) t)`, `dhigh = sum(dy (1 - t))`.
//! Shapes:   x any, low and high scalars.
//! Opsets:   6 to 24.
//! At kinks: dx is 0 at constant bounds, as `clamp`, `hardtanh` and `relu6` of PyTorch 2.15 with numbers; x
//!           and a computed bound that tie share equally, as `clamp` with tensors where `low < high`.
//! <https://onnx.ai/onnx/operators/onnx__Clip.html>

use super::shared::{masked, unbroadcast};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "Clip",
    opsets: 6..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(input), InputRule::Gradient(low), InputRule::Gradient(high)]),
};

fn input(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, x) = (ctx.dy()?, ctx.x(0)?);
    let bounds = || [1, 2].into_iter().filter_map(|index| ctx.node().input(index));
    if bounds().all(|bound| ctx.b.graph().constant(bound).is_some()) {
        return Ok(between(ctx, dy, x));
    }
    let past_low = past_low(ctx)?;
    ctx.node().input(1).map_or(Ok(past_low), |_| {
        let share = share_of_x(ctx)?;
        Ok(ctx.b.mul(past_low, share))
    })
}

/// The gradient inside of bounds that are constant or absent.
fn between(ctx: &mut Ctx<'_>, dy: ValueId, x: ValueId) -> ValueId {
    let mut inside: Option<ValueId> = None;
    for (index, op) in [(1, "Greater"), (2, "Less")] {
        let Some(bound) = ctx.node().input(index) else { continue };
        let holds = ctx.b.op(op, &[x, bound], Attributes::none());
        inside = Some(match inside {
            Some(before) => ctx.b.op("And", &[before, holds], Attributes::none()),
            None => holds,
        });
    }
    match inside {
        Some(inside) => masked(ctx, inside, dy),
        None => dy,
    }
}

/// `a > b ? 1 : a = b ? 1/2 : 0`
fn share(ctx: &mut Ctx<'_>, a: ValueId, b: ValueId) -> ValueId {
    let distance = ctx.b.sub(a, b);
    let sign = ctx.b.unary("Sign", distance);
    let half = ctx.b.scale(sign, 0.5);
    ctx.b.shift(half, 0.5)
}

/// `s`, the share of x against low.
fn share_of_x(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("s", |ctx| {
        let (x, low) = (ctx.x(0)?, ctx.x(1)?);
        Ok(share(ctx, x, low))
    })
}

/// `t`, the share of m against high.
fn share_of_m(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("t", |ctx| {
        let (x, high) = (ctx.x(0)?, ctx.x(2)?);
        let m = match ctx.node().input(1) {
            Some(low) => ctx.b.op("Max", &[x, low], Attributes::none()),
            None => x,
        };
        Ok(share(ctx, high, m))
    })
}

/// `dy t`, the gradient of m.
fn past_low(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    ctx.once("dm", |ctx| {
        let dy = ctx.dy()?;
        ctx.node().input(2).map_or(Ok(dy), |_| {
            let t = share_of_m(ctx)?;
            Ok(ctx.b.mul(dy, t))
        })
    })
}

fn low(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (low, dm, s) = (ctx.x(1)?, past_low(ctx)?, share_of_x(ctx)?);
    let product = ctx.b.mul(dm, s);
    let grad = ctx.b.sub(dm, product);
    unbroadcast(ctx, grad, low)
}

fn high(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (dy, high, dm) = (ctx.dy()?, ctx.x(2)?, past_low(ctx)?);
    let grad = ctx.b.sub(dy, dm);
    unbroadcast(ctx, grad, high)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let bound = |value: f32| Tensor::scalar(value);
        check(&[
            Case::new("both", "Clip").away_from_zero(&[3, 4], 0.1).fixed(bound(-0.05)).fixed(bound(2.0)).batch(),
            Case::new("low", "Clip").away_from_zero(&[2, 3], 0.1).fixed(bound(0.0)),
            Case::new("high", "Clip").away_from_zero(&[2, 3], 0.1).missing().fixed(bound(0.0)),
            Case::new("none", "Clip").input(&[2, 3]),
            Case::new("bounds and large", "Clip")
                .values(&[5], &[-1e30, 0.0, 3.0, 6.0, 1e30])
                .fixed(bound(0.0))
                .fixed(bound(6.0))
                .expect(0, &[0.0, 0.0, 1.0, 0.0, 0.0]),
            Case::new("bounds as attributes", "Clip")
                .opset(7)
                .away_from_zero(&[3, 4], 0.1)
                .float("min", -0.4)
                .float("max", 0.01)
                .batch(),
            Case::new("one bound as attribute", "Clip").opset(10).away_from_zero(&[3, 4], 0.1).float("max", 0.01),
            Case::new("computed bounds", "Clip")
                .values(&[2, 3], &[-0.7, 0.1, 0.9, 0.3, -0.4, 0.65])
                .values(&[], &[-0.35])
                .values(&[], &[0.5])
                .batch(),
            Case::new("symbols", "Clip")
                .values(&[3, 1], &[-0.7, 0.1, 0.9])
                .values(&[], &[0.3])
                .missing()
                .symbols(&[(0, 0, "a"), (0, 1, "b")]),
            Case::new("computed low", "Clip").values(&[3], &[-0.7, 0.1, 0.9]).values(&[], &[0.3]),
            Case::new("computed high", "Clip").values(&[3], &[-0.7, 0.1, 0.9]).missing().values(&[], &[0.3]),
            Case::new("ties with computed bounds", "Clip")
                .values(&[5], &[-1.0, 0.0, 0.5, 1.0, 2.0])
                .values(&[], &[0.0])
                .values(&[], &[1.0])
                .expect(0, &[0.0, 0.5, 1.0, 0.5, 0.0])
                .expect(1, &[1.5])
                .expect(2, &[1.5]),
            Case::new("low above high", "Clip")
                .values(&[3], &[-1.0, 0.5, 2.0])
                .values(&[], &[1.0])
                .values(&[], &[0.0])
                .expect(0, &[0.0; 3])
                .expect(1, &[0.0])
                .expect(2, &[3.0]),
        ]);
    }
}
