//! RNN
//!
//! Forward:  `h_t = f(W x_t + Wb + R h_(t-1) + Rb)`, `y_t = h_t`.
//! Backward: from the last step, `da_t = (dh_t + dy_t) * f'(a_t)` and `dh_(t-1) = R^T da_t`, in one
//!           Scan; then `dX = da W`, `dW = sum da x^T`, `dR = sum da h_(t-1)^T`, `dB` the sums of da.
//! Shapes:   X `[T, B, I]`, or `[B, T, I]` with layout 1; T and B may be symbols.
//! Opsets:   7 to 24.
//! At kinks: 0 at the kink of Relu, LeakyRelu's and Elu's slope below; what is clipped has slope 0.
//! <https://onnx.ai/onnx/operators/onnx__RNN.html>

use crate::autodiff::recurrent::{self, Cell, Layer, Pass, times_transposed};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "RNN",
    opsets: 7..=24,
    inputs: Inputs::Fixed(&[
        InputRule::Gradient(recurrent::input::<Rnn>),
        InputRule::Gradient(recurrent::weight::<Rnn>),
        InputRule::Gradient(recurrent::recurrence::<Rnn>),
        InputRule::Gradient(recurrent::bias::<Rnn>),
        InputRule::Constant,
        InputRule::Gradient(recurrent::initial_hidden::<Rnn>),
    ]),
};

struct Rnn;

impl Cell for Rnn {
    const ACTIVATIONS: &[&str] = &["Tanh"];

    fn pass(ctx: &mut Ctx<'_>, layer: &Layer, direction: usize) -> Result<Pass, RuleError> {
        let slope = slope(ctx, layer, direction)?;
        let slope = layer.masked(ctx, slope)?;
        let last = layer.last(ctx, 1, direction)?;
        let along = layer.along(ctx, direction)?;
        let held = layer.within(ctx, 0)?.map(|within| {
            let beyond = ctx.b.unary("Not", within);
            let dtype = ctx.dtype(slope);
            ctx.b.cast(beyond, dtype)
        });
        let items: Vec<ValueId> = [Some(slope), along, held].into_iter().flatten().collect();
        let r = layer.of(ctx, 2, direction)?;
        let results = layer.back(ctx, direction, (&[last], &items, &[r]), |b, step| {
            let mut items = step.items.iter().copied();
            let slope = items.next().expect("invariant: the slope is an item");
            let mut dh = step.states[0];
            if along.is_some() {
                dh = b.add(dh, items.next().expect("invariant: so is the gradient of Y"));
            }
            let da = b.mul(dh, slope);
            let mut before = b.op("MatMul", &[da, step.captured[0]], Attributes::none());
            if let Some(held) = items.next() {
                let held = b.mul(dh, held);
                before = b.add(before, held);
            }
            (vec![before], vec![da])
        });
        Ok(Pass { at_input: results[1], at_state: results[1], hidden: results[0], cell: results[0] })
    }
}

/// Returns `f'(a_t)` of every step.
fn slope(ctx: &mut Ctx<'_>, layer: &Layer, direction: usize) -> Result<ValueId, RuleError> {
    let gate = layer.gates(direction)[0];
    let y = layer.hidden_states(ctx, direction)?;
    if let Some(slope) = gate.slope_at(ctx.b, y) {
        return Ok(slope);
    }
    let (x, h) = (layer.at_input(ctx, direction)?, layer.previous(ctx, direction)?);
    let r = layer.of(ctx, 2, direction)?;
    let product = times_transposed(ctx, h, r);
    let mut a = ctx.b.add(x, product);
    if let Some([_, bias]) = layer.bias(ctx, direction)? {
        a = ctx.b.add(a, bias);
    }
    Ok(gate.slope(ctx.b, a, y))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    const T: usize = 4;
    const B: usize = 3;
    const I: usize = 2;
    const H: usize = 3;

    fn rnn(name: &'static str, directions: usize) -> Case {
        let direction = if directions == 2 { "bidirectional" } else { "forward" };
        let case = Case::new(name, "RNN").input(&[T, B, I]).input(&[directions, H, I]).input(&[directions, H, H]);
        case.int("hidden_size", H as i64).text("direction", direction).outputs(2)
    }

    #[test]
    fn gradients() {
        let lengths = |lengths: [i32; B]| Tensor::from_vec(&[B], lengths.to_vec());
        let full = |name, directions| rnn(name, directions).input(&[directions, 2 * H]);
        let activation = |name: &'static str, alpha: &[f32], beta: &[f32]| {
            let case =
                full(name, 1).texts("activations", &[name]).not_embedded("tract takes other activations for Tanh");
            let case = if alpha.is_empty() { case } else { case.floats("activation_alpha", alpha) };
            if beta.is_empty() { case } else { case.floats("activation_beta", beta) }
        };
        check(&[
            rnn("no bias", 1),
            full("bias", 1),
            full("only Y", 1).in_loss(1),
            full("only Y_h", 1).without(0),
            full("reverse", 1).text("direction", "reverse").not_embedded("tract takes it for forward"),
            full("batch first", 1).int("layout", 1),
            full("batch first, initial states", 2).missing().input(&[T, 2, H]).int("layout", 1).batch(),
            full("bidirectional", 2),
            full("bidirectional, only Y_h", 2).without(0),
            full("initial state", 1).missing().input(&[1, B, H]),
            full("initial states", 2).missing().input(&[2, B, H]),
            full("lengths", 1)
                .fixed(lengths([4, 2, 3]))
                .input(&[1, B, H])
                .not_embedded("tract takes sequences of full length"),
            full("lengths, reverse", 1)
                .fixed(lengths([4, 2, 3]))
                .input(&[1, B, H])
                .text("direction", "reverse")
                .not_embedded("tract takes sequences of full length"),
            full("an empty sequence", 2)
                .fixed(lengths([4, 0, 3]))
                .input(&[2, B, H])
                .not_embedded("tract takes sequences of full length"),
            full("clipped", 1).float("clip", 0.3).not_embedded("tract does not clip"),
            full("symbolic length", 2).missing().input(&[2, B, H]).batch(),
            full("opset 14", 1).opset(14),
            full("opset 24", 1).opset(24),
            rnn("one step", 2).values(&[2, 2 * H], &[0.1; 12]).int("layout", 0),
            activation("Affine", &[0.7], &[0.1]),
            activation("Elu", &[0.8], &[]),
            activation("HardSigmoid", &[], &[]),
            activation("LeakyRelu", &[0.3], &[]),
            activation("Relu", &[], &[]),
            activation("ScaledTanh", &[1.5], &[0.4]),
            activation("Sigmoid", &[], &[]),
            activation("Softplus", &[], &[]),
            activation("Softsign", &[], &[]),
            activation("ThresholdedRelu", &[0.2], &[]),
            full("two activations", 2)
                .texts("activations", &["LeakyRelu", "Softplus"])
                .floats("activation_alpha", &[0.2])
                .not_embedded("tract takes other activations for Tanh"),
        ]);
    }
}
