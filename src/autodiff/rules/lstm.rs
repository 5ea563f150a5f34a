//! LSTM
//!
//! Forward:  `i, o, f = act(W x_t + Wb + R h_(t-1) + Rb + P c)` with `c_(t-1)` for i and f and
//!           `c_t` for o, `g` likewise without P; `c_t = f c_(t-1) + i g`, `h_t = o h(c_t)`.
//! Backward: from the last step with `dh_t += dy_t`, `dc_t += dh_t * o h'(c_t)`:
//!           `da = (dc g i', dh h(c_t) o', dc c_(t-1) f', dc i g')`, `dh_(t-1) = R^T da`,
//!           `dc_(t-1) = dc f`, in one Scan whose factors are made for all steps at once; then
//!           `dX = da W`, `dW = sum da x^T`, `dR = sum da h_(t-1)^T`, `dB` the sums of da.
//!           P adds `P_o h(c_t) o'` to what dh gives dc, and `P_i g i' + P_f c_(t-1) f'` to f.
//!           The cells come from a Scan that runs the states again.
//! Shapes:   X `[T, B, I]`, or `[B, T, I]` with layout 1; T and B may be symbols.
//! Opsets:   7 to 24.
//! At kinks: 0 at the kink of Relu, LeakyRelu's and Elu's slope below; what is clipped has slope 0.
//! <https://onnx.ai/onnx/operators/onnx__LSTM.html>

use crate::autodiff::recurrent::{self, Cell, Layer, Pass, join, per_unit, split, times_transposed};
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, Builder, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "LSTM",
    opsets: 7..=24,
    inputs: Inputs::Fixed(&[
        InputRule::Gradient(recurrent::input::<Lstm>),
        InputRule::Gradient(recurrent::weight::<Lstm>),
        InputRule::Gradient(recurrent::recurrence::<Lstm>),
        InputRule::Gradient(recurrent::bias::<Lstm>),
        InputRule::Constant,
        InputRule::Gradient(recurrent::initial_hidden::<Lstm>),
        InputRule::Gradient(recurrent::initial_cell::<Lstm>),
        InputRule::Gradient(peephole),
    ]),
};

const CELLS: [&str; 2] = ["cells", "cells of the second direction"];
const PRODUCTS: [&str; 2] = ["gates", "gates of the second direction"];

struct Lstm;

impl Cell for Lstm {
    const ACTIVATIONS: &[&str] = &["Sigmoid", "Tanh", "Tanh"];

    fn pass(ctx: &mut Ctx<'_>, layer: &Layer, direction: usize) -> Result<Pass, RuleError> {
        let factors = factors(ctx, layer, direction)?;
        let hidden = layer.last(ctx, 1, direction)?;
        let cell = layer.last(ctx, 2, direction)?;
        let along = layer.along(ctx, direction)?;
        let held = layer.within(ctx, 0)?.map(|within| {
            let beyond = ctx.b.unary("Not", within);
            let dtype = ctx.dtype(factors.gates);
            ctx.b.cast(beyond, dtype)
        });
        let Factors { gates, cell: into_cell, kept } = factors;
        let items: Vec<ValueId> =
            [Some(gates), Some(into_cell), Some(kept), along, held].into_iter().flatten().collect();
        let r = layer.of(ctx, 2, direction)?;
        let results = layer.back(ctx, direction, (&[hidden, cell], &items, &[r]), |b, step| {
            let (gates, into_cell, kept) = (step.items[0], step.items[1], step.items[2]);
            let mut more = step.items[3..].iter().copied();
            let mut dh = step.states[0];
            if along.is_some() {
                dh = b.add(dh, more.next().expect("invariant: the gradient of Y is an item"));
            }
            let through = b.mul(dh, into_cell);
            let dc = b.add(step.states[1], through);
            let sources = join(b, &[dc, dh, dc, dc]);
            let da = b.mul(sources, gates);
            let mut before = b.op("MatMul", &[da, step.captured[0]], Attributes::none());
            if let Some(held) = more.next() {
                let held = b.mul(dh, held);
                before = b.add(before, held);
            }
            let cell = b.mul(dc, kept);
            (vec![before, cell], vec![da])
        });
        Ok(Pass { at_input: results[2], at_state: results[2], hidden: results[0], cell: results[1] })
    }
}

/// What a step back multiplies with: `[T, B, ..]`, neutral beyond a sequence's length.
struct Factors {
    /// Of dc or dh for the gates i, o, f, g.
    gates: ValueId,
    /// Of dh for dc.
    cell: ValueId,
    /// Of dc for the step before.
    kept: ValueId,
}

fn factors(ctx: &mut Ctx<'_>, layer: &Layer, direction: usize) -> Result<Factors, RuleError> {
    let coupled = is_coupled(ctx)?;
    let [gate, candidate, output] = layer.gates(direction) else { unreachable!("invariant: three activations") };
    let [mut at_i, mut at_o, mut at_f, at_g] = sums(ctx, layer, direction)?;
    let [before, cell] = cells(ctx, layer, direction)?;
    let peepholes = peepholes(ctx, layer, direction)?;
    if let Some([p_i, p_o, p_f]) = peepholes {
        at_i = plus_product(ctx.b, at_i, p_i, before);
        at_o = plus_product(ctx.b, at_o, p_o, cell);
        at_f = plus_product(ctx.b, at_f, p_f, before);
    }
    let b = &mut *ctx.b;
    let (i, o, g, h) =
        (gate.value(b, at_i), gate.value(b, at_o), candidate.value(b, at_g), unclipped(*output).value(b, cell));
    let (slope_i, slope_o) = (gate.slope(b, at_i, i), gate.slope(b, at_o, o));
    let (slope_g, slope_h) = (candidate.slope(b, at_g, g), unclipped(*output).slope(b, cell, h));
    let into_o = b.mul(h, slope_o);
    let into_g = b.mul(i, slope_g);
    let (mut kept, into_i, into_f) = if coupled {
        let one = b.like(i, 1.0);
        let change = b.sub(g, before);
        let zero = b.like(i, 0.0);
        (b.sub(one, i), b.mul(change, slope_i), b.mul(i, zero))
    } else {
        let f = gate.value(b, at_f);
        let slope_f = gate.slope(b, at_f, f);
        (f, b.mul(g, slope_i), b.mul(before, slope_f))
    };
    let mut into_cell = b.mul(o, slope_h);
    if let Some([p_i, p_o, p_f]) = peepholes {
        into_cell = plus_product(b, into_cell, p_o, into_o);
        kept = plus_product(b, kept, p_i, into_i);
        kept = if coupled { kept } else { plus_product(b, kept, p_f, into_f) };
    }
    let gates = join(b, &[into_i, into_o, into_f, into_g]);
    Ok(Factors { gates: layer.masked(ctx, gates)?, cell: layer.masked(ctx, into_cell)?, kept: layer.kept(ctx, kept)? })
}

fn is_coupled(ctx: &Ctx<'_>) -> Result<bool, RuleError> {
    Ok(ctx.attributes().int("input_forget", 0)? == 1)
}

/// Returns what the gates i, o, f, g are taken of, without P.
fn sums(ctx: &mut Ctx<'_>, layer: &Layer, direction: usize) -> Result<[ValueId; 4], RuleError> {
    let parts = ctx.once_each(PRODUCTS[direction], |ctx| {
        let (x, h) = (layer.at_input(ctx, direction)?, layer.previous(ctx, direction)?);
        let r = layer.of(ctx, 2, direction)?;
        let product = times_transposed(ctx, h, r);
        let mut sum = ctx.b.add(x, product);
        if let Some([_, bias]) = layer.bias(ctx, direction)? {
            sum = ctx.b.add(sum, bias);
        }
        Ok(split(ctx.b, sum, 4, 2))
    })?;
    Ok(std::array::from_fn(|index| parts[index]))
}

/// Returns P for i, o and f.
fn peepholes(ctx: &mut Ctx<'_>, layer: &Layer, direction: usize) -> Result<Option<[ValueId; 3]>, RuleError> {
    if ctx.node().input(7).is_none() {
        return Ok(None);
    }
    let all = layer.of(ctx, 7, direction)?;
    let parts = split(ctx.b, all, 3, 0);
    Ok(Some(std::array::from_fn(|index| parts[index])))
}

/// Returns the cell state before and after every step.
fn cells(ctx: &mut Ctx<'_>, layer: &Layer, direction: usize) -> Result<[ValueId; 2], RuleError> {
    let found = ctx.once_each(CELLS[direction], |ctx| {
        let coupled = is_coupled(ctx)?;
        let [gate, candidate] = [layer.gates(direction)[0], layer.gates(direction)[1]];
        let [at_i, _, at_f, at_g] = sums(ctx, layer, direction)?;
        let first = layer.initial(ctx, 6, direction)?;
        let g = candidate.value(ctx.b, at_g);
        let forget = |b: &mut Builder, at_f: ValueId, i: ValueId| {
            if coupled {
                let one = b.like(i, 1.0);
                return b.sub(one, i);
            }
            gate.value(b, at_f)
        };
        let results = match peepholes(ctx, layer, direction)? {
            None => {
                let i = gate.value(ctx.b, at_i);
                let f = forget(ctx.b, at_f, i);
                let new = ctx.b.mul(i, g);
                let (f, new) = (layer.kept(ctx, f)?, layer.masked(ctx, new)?);
                layer.forth(ctx, direction, (&[first], &[f, new], &[]), |b, step| {
                    let kept = b.mul(step.states[0], step.items[0]);
                    let cell = b.add(kept, step.items[1]);
                    (vec![cell], vec![step.states[0], cell])
                })
            }
            Some([p_i, _, p_f]) => {
                let within = layer.within(ctx, 0)?;
                let items: Vec<ValueId> = [Some(at_i), Some(at_f), Some(g), within].into_iter().flatten().collect();
                layer.forth(ctx, direction, (&[first], &items, &[p_i, p_f]), |b, step| {
                    let before = step.states[0];
                    let at_i = plus_product(b, step.items[0], step.captured[0], before);
                    let at_f = plus_product(b, step.items[1], step.captured[1], before);
                    let i = gate.value(b, at_i);
                    let f = forget(b, at_f, i);
                    let kept = b.mul(f, before);
                    let mut cell = plus_product(b, kept, i, step.items[2]);
                    if let Some(within) = step.items.get(3) {
                        cell = b.select(*within, cell, before);
                    }
                    (vec![cell], vec![before, cell])
                })
            }
        };
        Ok(vec![results[1], results[2]])
    })?;
    Ok([found[0], found[1]])
}

/// `a + b * c`
fn plus_product(b: &mut Builder, a: ValueId, left: ValueId, right: ValueId) -> ValueId {
    let product = b.mul(left, right);
    b.add(a, product)
}

/// Engines do not clip what the cell's activation is taken of.
fn unclipped(gate: recurrent::Gate) -> recurrent::Gate {
    recurrent::Gate { clip: None, ..gate }
}

fn peephole(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (layer, p) = (Layer::read::<Lstm>(ctx)?, ctx.x(7)?);
    let part = |ctx: &mut Ctx<'_>, direction: usize| {
        let pass = recurrent::pass_of::<Lstm>(ctx, &layer, direction)?;
        let [before, cell] = cells(ctx, &layer, direction)?;
        let gates = split(ctx.b, pass.at_state, 4, 2);
        let cells = [(gates[0], before), (gates[1], cell), (gates[2], before)];
        let sums = cells.map(|(gate, cell)| {
            let product = ctx.b.mul(gate, cell);
            ctx.b.reduce("ReduceSum", product, &[0, 1], false)
        });
        Ok(ctx.b.op("Concat", &sums, Attributes::none().with("axis", 0)))
    };
    per_unit(ctx, &layer, part, p)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    const T: usize = 4;
    const B: usize = 3;
    const I: usize = 2;
    const H: usize = 3;

    fn lstm(name: &'static str, directions: usize) -> Case {
        let direction = if directions == 2 { "bidirectional" } else { "forward" };
        let case = Case::new(name, "LSTM").input(&[T, B, I]).input(&[directions, 4 * H, I]);
        let case = case.input(&[directions, 4 * H, H]).int("hidden_size", H as i64).text("direction", direction);
        case.outputs(3)
    }

    fn full(name: &'static str, directions: usize) -> Case {
        lstm(name, directions).input(&[directions, 8 * H])
    }

    fn states(case: Case, directions: usize) -> Case {
        case.input(&[directions, B, H]).input(&[directions, B, H])
    }

    #[test]
    fn gradients() {
        let lengths = |lengths: [i32; B]| Tensor::from_vec(&[B], lengths.to_vec());
        let embedded = "tract takes sequences of full length";
        let no_cell = "tract fails where Y is asked for and no cell state is given";
        check(&[
            lstm("no bias", 1).not_embedded(no_cell),
            full("bias", 1).not_embedded(no_cell),
            full("only Y", 1).in_loss(1).not_embedded(no_cell),
            full("Y and Y_h", 1).in_loss(2).not_embedded(no_cell),
            full("only Y_h", 1).outputs(2).without(0),
            full("only Y_c", 1).without(0).without(1),
            full("reverse", 1).text("direction", "reverse").not_embedded("tract takes it for forward"),
            full("batch first", 2).int("layout", 1),
            full("batch first, lengths", 2)
                .fixed(Tensor::from_vec(&[T], vec![3, 1, 2, 3]))
                .input(&[T, 2, H])
                .input(&[T, 2, H])
                .int("layout", 1)
                .not_embedded(embedded),
            full("batch first, symbolic batch", 2)
                .missing()
                .input(&[T, 2, H])
                .input(&[T, 2, H])
                .int("layout", 1)
                .batch(),
            full("bidirectional", 2),
            full("bidirectional, only Y_h", 2).outputs(2).without(0),
            states(full("initial states", 2).missing(), 2),
            full("initial cell", 1).missing().missing().input(&[1, B, H]),
            states(full("lengths", 1).fixed(lengths([4, 2, 3])), 1).not_embedded(embedded),
            states(full("lengths, reverse", 1).fixed(lengths([3, 1, 4])), 1)
                .text("direction", "reverse")
                .not_embedded(embedded),
            states(full("lengths and an empty sequence", 2).fixed(lengths([4, 0, 3])), 2).not_embedded(embedded),
            full("lengths, only Y_h", 2).fixed(lengths([1, 2, 3])).outputs(2).without(0).not_embedded(embedded),
            full("clipped", 1).float("clip", 0.5).not_embedded("tract does not clip"),
            full("coupled", 1).int("input_forget", 1).not_embedded("tract does not couple"),
            states(full("symbolic length", 2).missing(), 2).batch(),
            full("opset 14", 1).opset(14).not_embedded(no_cell),
            full("opset 24", 1).opset(24).not_embedded(no_cell),
            full("other activations", 2)
                .texts("activations", &["HardSigmoid", "Affine", "Softsign", "Sigmoid", "Elu", "ScaledTanh"])
                .floats("activation_alpha", &[0.3, 0.8, 0.7, 1.2])
                .floats("activation_beta", &[0.4, 0.1, 0.9])
                .not_embedded("tract takes other activations for Sigmoid and Tanh"),
        ]);
    }

    #[test]
    fn gradients_with_peepholes() {
        let lengths = |lengths: [i32; B]| Tensor::from_vec(&[B], lengths.to_vec());
        let embedded = "tract takes sequences of full length";
        check(&[
            full("peepholes", 1)
                .missing()
                .missing()
                .missing()
                .input(&[1, 3 * H])
                .not_embedded("tract fails where Y is asked for and no cell state is given"),
            states(full("peepholes, bidirectional", 2).missing(), 2).input(&[2, 3 * H]),
            states(full("peepholes, lengths", 2).fixed(lengths([4, 0, 3])), 2)
                .input(&[2, 3 * H])
                .not_embedded(embedded),
            states(full("peepholes, coupled, clipped", 1).missing(), 1)
                .input(&[1, 3 * H])
                .int("input_forget", 1)
                .float("clip", 0.6)
                .not_embedded("tract does not couple"),
        ]);
    }
}
