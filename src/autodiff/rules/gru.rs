//! GRU
//!
//! Forward:  `z, r = act(W x_t + Wb + R h_(t-1) + Rb)`; `n = g(W x_t + Wb + R (r h_(t-1)) + Rb)`, or
//!           `g(W x_t + Wb + r (R h_(t-1) + Rb))` with linear_before_reset; `h_t = (1 - z) n + z h_(t-1)`.
//! Backward: from the last step with `dh_t += dy_t`: `da_z = dh (h_(t-1) - n) z'`,
//!           `da_n = dh (1 - z) g'`; with linear_before_reset `da_r = da_n (R h_(t-1) + Rb) r'` and
//!           `dh_(t-1) = z dh + R^T (da_z, da_r, r da_n)`, otherwise with `q = R_n^T da_n`
//!           `da_r = q h_(t-1) r'` and `dh_(t-1) = z dh + r q + R^T (da_z, da_r)`. One Scan, whose
//!           factors are made for all steps at once; then products and sums over all steps.
//! Shapes:   X `[T, B, I]`, or `[B, T, I]` with layout 1; T and B may be symbols.
//! Opsets:   7 to 24.
//! At kinks: 0 at the kink of Relu, LeakyRelu's and Elu's slope below; what is clipped has slope 0.
//! <https://onnx.ai/onnx/operators/onnx__GRU.html>

use crate::autodiff::recurrent::{self, Cell, Layer, Pass, join, split, times_transposed};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, OpId, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "GRU",
    opsets: 7..=24,
    inputs: Inputs::Fixed(&[
        InputRule::Gradient(recurrent::input::<Gru>),
        InputRule::Gradient(recurrent::weight::<Gru>),
        InputRule::Gradient(recurrent::recurrence::<Gru>),
        InputRule::Gradient(recurrent::bias::<Gru>),
        InputRule::Constant,
        InputRule::Gradient(recurrent::initial_hidden::<Gru>),
    ]),
};

const GATES: [&str; 2] = ["gates", "gates of the second direction"];

struct Gru;

impl Cell for Gru {
    const ACTIVATIONS: &[&str] = &["Sigmoid", "Tanh"];

    fn pass(ctx: &mut Ctx<'_>, layer: &Layer, direction: usize) -> Result<Pass, RuleError> {
        if is_linear_first(ctx)? { linear_first(ctx, layer, direction) } else { reset_first(ctx, layer, direction) }
    }

    fn recurrence(ctx: &mut Ctx<'_>, layer: &Layer, direction: usize, pass: &Pass) -> Result<ValueId, RuleError> {
        let states = layer.previous(ctx, direction)?;
        if is_linear_first(ctx)? {
            return layer.over_steps(ctx, pass.at_state, states);
        }
        let reset = gates(ctx, layer, direction)?.reset;
        let scaled = ctx.b.mul(reset, states);
        let [both, n] = at_thirds(ctx, pass.at_state, layer.hidden, 2);
        let upper = layer.over_steps(ctx, both, states)?;
        let lower = layer.over_steps(ctx, n, scaled)?;
        Ok(ctx.b.op("Concat", &[upper, lower], Attributes::none().with("axis", 0)))
    }
}

fn is_linear_first(ctx: &Ctx<'_>) -> Result<bool, RuleError> {
    Ok(ctx.attributes().int("linear_before_reset", 0)? != 0)
}

/// Splits what z, r and n share into the part of z and r, and that of n.
fn at_thirds(ctx: &mut Ctx<'_>, value: ValueId, hidden: i64, axis: i64) -> [ValueId; 2] {
    let sizes = ctx.b.ints("split", &[2 * hidden, hidden]);
    let attributes = Attributes::none().with("axis", axis);
    let parts = ctx.b.ops(&OpId::standard("Split"), &[Some(value), Some(sizes)], attributes, 2);
    [parts[0], parts[1]]
}

/// What the steps back multiply with, for all steps.
struct Gates {
    /// `(h_(t-1) - n) z'`
    update: ValueId,
    /// `r`
    reset: ValueId,
    /// `(1 - z) g'`
    new: ValueId,
    /// `z`, 1 beyond a sequence's length.
    kept: ValueId,
    /// `h_(t-1) r'`, or with linear_before_reset `(R h_(t-1) + Rb) r'`.
    into_reset: ValueId,
}

fn gates(ctx: &mut Ctx<'_>, layer: &Layer, direction: usize) -> Result<Gates, RuleError> {
    let values = ctx.once_each(GATES[direction], |ctx| {
        let linear_first = is_linear_first(ctx)?;
        let [gate, candidate] = layer.gates(direction) else { unreachable!("invariant: two activations") };
        let (x, h) = (layer.at_input(ctx, direction)?, layer.previous(ctx, direction)?);
        let x = split(ctx.b, x, 3, 2);
        let weight = layer.of(ctx, 2, direction)?;
        let [weight, weight_n] = at_thirds(ctx, weight, layer.hidden, 0);
        let bias = match layer.bias(ctx, direction)? {
            Some([_, bias]) => Some(at_thirds(ctx, bias, layer.hidden, 0)),
            None => None,
        };
        let mut both = times_transposed(ctx, h, weight);
        if let Some([bias, _]) = bias {
            both = ctx.b.add(both, bias);
        }
        let both = split(ctx.b, both, 2, 2);
        let (at_z, at_r) = (ctx.b.add(x[0], both[0]), ctx.b.add(x[1], both[1]));
        let (z, r) = (gate.value(ctx.b, at_z), gate.value(ctx.b, at_r));
        let operand = if linear_first { h } else { ctx.b.mul(r, h) };
        let mut linear = times_transposed(ctx, operand, weight_n);
        if let Some([_, bias]) = bias {
            linear = ctx.b.add(linear, bias);
        }
        let scaled = if linear_first { ctx.b.mul(r, linear) } else { linear };
        let at_n = ctx.b.add(x[2], scaled);
        let b = &mut *ctx.b;
        let n = candidate.value(b, at_n);
        let (slope_z, slope_r, slope_n) = (gate.slope(b, at_z, z), gate.slope(b, at_r, r), candidate.slope(b, at_n, n));
        let change = b.sub(h, n);
        let update = b.mul(change, slope_z);
        let one = b.like(z, 1.0);
        let rest = b.sub(one, z);
        let new = b.mul(rest, slope_n);
        let into_reset = b.mul(if linear_first { linear } else { h }, slope_r);
        let (update, new, kept) = (layer.masked(ctx, update)?, layer.masked(ctx, new)?, layer.kept(ctx, z)?);
        Ok(vec![update, r, new, kept, into_reset])
    })?;
    let [update, reset, new, kept, into_reset] = values[..] else { unreachable!("invariant: five values are kept") };
    Ok(Gates { update, reset, new, kept, into_reset })
}

fn linear_first(ctx: &mut Ctx<'_>, layer: &Layer, direction: usize) -> Result<Pass, RuleError> {
    let Gates { update, reset, new, kept, into_reset } = gates(ctx, layer, direction)?;
    let into_reset = ctx.b.mul(new, into_reset);
    let scaled = ctx.b.mul(new, reset);
    let factors = join(ctx.b, &[update, into_reset, scaled]);
    let last = layer.last(ctx, 1, direction)?;
    let along = layer.along(ctx, direction)?;
    let items: Vec<ValueId> = [Some(factors), Some(kept), along].into_iter().flatten().collect();
    let r = layer.of(ctx, 2, direction)?;
    let results = layer.back(ctx, direction, (&[last], &items, &[r]), |b, step| {
        let mut dh = step.states[0];
        if let Some(along) = step.items.get(2) {
            dh = b.add(dh, *along);
        }
        let sources = join(b, &[dh, dh, dh]);
        let da = b.mul(sources, step.items[0]);
        let product = b.op("MatMul", &[da, step.captured[0]], Attributes::none());
        let kept = b.mul(dh, step.items[1]);
        (vec![b.add(product, kept)], vec![da, dh])
    });
    let (at_state, dh) = (results[1], results[2]);
    let [both, _] = at_thirds(ctx, at_state, layer.hidden, 2);
    let n = ctx.b.mul(dh, new);
    let at_input = join(ctx.b, &[both, n]);
    Ok(Pass { at_input, at_state, hidden: results[0], cell: results[0] })
}

fn reset_first(ctx: &mut Ctx<'_>, layer: &Layer, direction: usize) -> Result<Pass, RuleError> {
    let Gates { update, reset, new, kept, into_reset } = gates(ctx, layer, direction)?;
    let last = layer.last(ctx, 1, direction)?;
    let along = layer.along(ctx, direction)?;
    let items = [Some(update), Some(new), Some(kept), Some(reset), Some(into_reset), along];
    let items: Vec<ValueId> = items.into_iter().flatten().collect();
    let r = layer.of(ctx, 2, direction)?;
    let weights = at_thirds(ctx, r, layer.hidden, 0);
    let results = layer.back(ctx, direction, (&[last], &items, &weights), |b, step| {
        let [update, new, kept, reset, into_reset] = std::array::from_fn(|index| step.items[index]);
        let mut dh = step.states[0];
        if let Some(along) = step.items.get(5) {
            dh = b.add(dh, *along);
        }
        let (at_z, at_n) = (b.mul(dh, update), b.mul(dh, new));
        let through = b.op("MatMul", &[at_n, step.captured[1]], Attributes::none());
        let at_r = b.mul(through, into_reset);
        let both = join(b, &[at_z, at_r]);
        let product = b.op("MatMul", &[both, step.captured[0]], Attributes::none());
        let (kept, through) = (b.mul(dh, kept), b.mul(through, reset));
        let before = b.op("Sum", &[product, kept, through], Attributes::none());
        (vec![before], vec![join(b, &[both, at_n])])
    });
    Ok(Pass { at_input: results[1], at_state: results[1], hidden: results[0], cell: results[0] })
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    const T: usize = 4;
    const B: usize = 3;
    const I: usize = 2;
    const H: usize = 3;

    fn gru(name: &'static str, directions: usize, linear: i64) -> Case {
        let direction = if directions == 2 { "bidirectional" } else { "forward" };
        let case =
            Case::new(name, "GRU").input(&[T, B, I]).input(&[directions, 3 * H, I]).input(&[directions, 3 * H, H]);
        let case = case.int("hidden_size", H as i64).text("direction", direction).outputs(2);
        case.int("linear_before_reset", linear)
    }

    #[test]
    fn gradients() {
        let lengths = |lengths: [i32; B]| Tensor::from_vec(&[B], lengths.to_vec());
        for linear in [0, 1] {
            let full = |name, directions| gru(name, directions, linear).input(&[directions, 6 * H]);
            check(&[
                gru("no bias", 1, linear),
                full("bias", 1),
                full("only Y", 1).in_loss(1),
                full("only Y_h", 1).without(0),
                full("reverse", 1).text("direction", "reverse").not_embedded("tract takes it for forward"),
                full("batch first", 1).int("layout", 1),
                full("batch first, initial states", 2).missing().input(&[T, 2, H]).int("layout", 1).batch(),
                full("bidirectional", 2),
                full("bidirectional, only Y_h", 2).without(0),
                full("initial states", 2).missing().input(&[2, B, H]),
                full("lengths", 1)
                    .fixed(lengths([4, 2, 3]))
                    .input(&[1, B, H])
                    .not_embedded("tract takes sequences of full length"),
                full("lengths and an empty sequence", 2)
                    .fixed(lengths([4, 0, 3]))
                    .input(&[2, B, H])
                    .not_embedded("tract takes sequences of full length"),
                full("lengths, only Y_h", 2)
                    .fixed(lengths([1, 2, 3]))
                    .without(0)
                    .not_embedded("tract takes sequences of full length"),
                full("clipped", 1).float("clip", 0.4).not_embedded("tract does not clip"),
                full("symbolic length", 2).missing().input(&[2, B, H]).batch(),
                full("opset 14", 1).opset(14),
                full("opset 24", 1).opset(24),
                full("other activations", 2)
                    .texts("activations", &["Affine", "ScaledTanh", "Sigmoid", "Softsign"])
                    .floats("activation_alpha", &[0.3, 0.7])
                    .floats("activation_beta", &[0.4, 0.9])
                    .not_embedded("tract takes other activations for Sigmoid and Tanh"),
            ]);
        }
    }
}
