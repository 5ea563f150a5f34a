//! What the rules of LSTM, GRU and RNN share.
//!
//! Engines give the hidden state of every step (`Y`, asked for where the node leaves it out) and
//! not the gates. So all gates are computed again at once from X and the states before each step;
//! one `Scan` runs back through the steps with as little work in each as there can be; and the
//! gradients of X, W, R and B are products over all steps at once.
//!
//! Here everything is of one direction and time-major: a sequence is `[T, B, ..]`, a state
//! `[B, H]`. A step beyond a sequence's length holds its states: its gates have no gradient.

mod activation;

pub(super) use activation::{Activation, Gate};

use super::scan::{Over, scan};
use super::{Ctx, RuleError};
use crate::graph::{Attribute, Attributes, Builder, DType, Dim, Fact, Tensor, ValueId};

const PASS: [&str; 2] = ["pass", "pass of the second direction"];
const BIAS: [&str; 2] = ["bias", "bias of the second direction"];
const PREVIOUS: [&str; 2] = ["previous", "previous of the second direction"];

/// One kind of recurrent layer.
pub(super) trait Cell {
    /// Activations of a direction where the node names none.
    const ACTIVATIONS: &[&str];
    /// Goes back through the steps of a direction.
    fn pass(ctx: &mut Ctx<'_>, layer: &Layer, direction: usize) -> Result<Pass, RuleError>;
    /// Returns the gradient of R of a direction.
    fn recurrence(ctx: &mut Ctx<'_>, layer: &Layer, direction: usize, pass: &Pass) -> Result<ValueId, RuleError> {
        let states = layer.previous(ctx, direction)?;
        layer.over_steps(ctx, pass.at_state, states)
    }
}

/// Gradients of one direction.
#[derive(Clone, Copy)]
pub(super) struct Pass {
    /// Of what X and W contribute to each gate: `[T, B, gates * H]`.
    pub at_input: ValueId,
    /// Of what the states and R contribute.
    pub at_state: ValueId,
    /// Of the hidden state before the first step.
    pub hidden: ValueId,
    /// Of the cell state before the first step; the hidden one where there is none.
    pub cell: ValueId,
}

/// What a node says about itself.
pub(super) struct Layer {
    pub hidden: i64,
    /// For each direction, whether it goes from the end.
    reverse: Vec<bool>,
    batch_first: bool,
    gates: Vec<Vec<Gate>>,
}

impl Layer {
    /// Reads a node.
    ///
    /// # Errors
    /// An attribute is not known, or the hidden size is not fixed.
    pub fn read<C: Cell>(ctx: &Ctx<'_>) -> Result<Layer, RuleError> {
        let attributes = ctx.attributes();
        let reverse = match attributes.text("direction", "forward")?.as_str() {
            "forward" => vec![false],
            "reverse" => vec![true],
            "bidirectional" => vec![false, true],
            other => return Err(RuleError::Unsupported(format!("direction \"{other}\" is not known"))),
        };
        let sizes = ctx.sizes_from(ctx.x(2)?, 1)?;
        let hidden = sizes.get(1).and_then(|size| i64::try_from(*size).ok()).unwrap_or_default();
        let clip = match attributes.get("clip") {
            Some(_) => Some(f64::from(attributes.float("clip", 0.0)?)),
            None => None,
        };
        let gates = gates(attributes, C::ACTIVATIONS, reverse.len(), clip)?;
        Ok(Layer { hidden, reverse, batch_first: attributes.int("layout", 0)? == 1, gates })
    }

    /// Returns the activations of a direction.
    pub fn gates(&self, direction: usize) -> &[Gate] {
        &self.gates[direction]
    }

    /// Returns X.
    pub fn x(&self, ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
        let x = ctx.x(0)?;
        ctx.once("x", |ctx| Ok(if self.batch_first { ctx.b.transpose(x, &[1, 0, 2]) } else { x }))
    }

    /// Returns a direction of an input that has the directions first.
    pub fn of(&self, ctx: &mut Ctx<'_>, input: usize, direction: usize) -> Result<ValueId, RuleError> {
        let value = ctx.x(input)?;
        Ok(self.select(ctx, value, 0, direction))
    }

    /// Returns a direction of a state `[directions, B, H]`, or `[B, directions, H]`.
    pub fn state(&self, ctx: &mut Ctx<'_>, value: ValueId, direction: usize) -> ValueId {
        self.select(ctx, value, i64::from(self.batch_first), direction)
    }

    /// Returns a direction of a sequence `[T, directions, B, H]`, or `[B, T, directions, H]`.
    fn sequence(&self, ctx: &mut Ctx<'_>, value: ValueId, direction: usize) -> ValueId {
        if !self.batch_first {
            return self.select(ctx, value, 1, direction);
        }
        let one = self.select(ctx, value, 2, direction);
        ctx.b.transpose(one, &[1, 0, 2])
    }

    fn select(&self, ctx: &mut Ctx<'_>, value: ValueId, axis: i64, direction: usize) -> ValueId {
        if self.reverse.len() == 1 {
            return ctx.b.squeeze(value, &[axis]);
        }
        let index = ctx.b.constant("direction", Tensor::scalar(direction as i64));
        ctx.b.op("Gather", &[value, index], Attributes::none().with("axis", axis))
    }

    /// Puts what the directions gave side by side along a new axis, like another value.
    fn stack(&self, ctx: &mut Ctx<'_>, parts: &[ValueId], axis: i64, like: ValueId) -> ValueId {
        let parts: Vec<ValueId> = parts.iter().map(|part| ctx.b.unsqueeze(*part, &[axis])).collect();
        let whole = match parts.as_slice() {
            [one] => *one,
            many => ctx.b.op("Concat", many, Attributes::none().with("axis", axis)),
        };
        let fact = ctx.b.fact(like).clone();
        ctx.b.refine(whole, &fact);
        whole
    }

    /// Returns the state before the first step: input `index`, or zeros.
    pub fn initial(&self, ctx: &mut Ctx<'_>, index: usize, direction: usize) -> Result<ValueId, RuleError> {
        match ctx.node().input(index) {
            Some(value) => Ok(self.state(ctx, value, direction)),
            None => self.zeros(ctx),
        }
    }

    fn zeros(&self, ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
        let x = self.x(ctx)?;
        let dtype = ctx.dtype(x);
        ctx.once("zeros of a state", |ctx| {
            let batch = ctx.dims(x)?.get(1).cloned().unwrap_or(Dim::Unknown);
            let hidden = usize::try_from(self.hidden).unwrap_or_default();
            if let Some(batch) = batch.known() {
                return Ok(ctx.b.constant("zeros", Tensor::float_full(dtype, &[batch, hidden], 0.0)));
            }
            let size = ctx.b.op("Shape", &[x], Attributes::none().with("start", 1).with("end", 2));
            let width = ctx.b.ints("hidden", &[self.hidden]);
            let shape = ctx.b.op("Concat", &[size, width], Attributes::none().with("axis", 0));
            let zero = ctx.b.like(x, 0.0);
            let zeros = ctx.b.op("Expand", &[zero, shape], Attributes::none());
            ctx.b.refine(zeros, &Fact::new(dtype, vec![batch, Dim::Known(hidden)]));
            Ok(zeros)
        })
    }

    /// Returns a last state's gradient: that of output `index`, or zeros.
    pub fn last(&self, ctx: &mut Ctx<'_>, index: usize, direction: usize) -> Result<ValueId, RuleError> {
        match ctx.grad(index) {
            Some(grad) => Ok(self.state(ctx, grad, direction)),
            None => self.zeros(ctx),
        }
    }

    /// Returns the gradient of the hidden states as far as Y has one, 0 beyond a sequence's length.
    pub fn along(&self, ctx: &mut Ctx<'_>, direction: usize) -> Result<Option<ValueId>, RuleError> {
        let Some(grad) = ctx.grad(0) else { return Ok(None) };
        let grad = self.sequence(ctx, grad, direction);
        self.masked(ctx, grad).map(Some)
    }

    /// Returns the hidden state of every step.
    pub fn hidden_states(&self, ctx: &mut Ctx<'_>, direction: usize) -> Result<ValueId, RuleError> {
        let x = ctx.dims(ctx.x(0)?)?;
        let [first, second] = [0, 1].map(|axis| x.get(axis).cloned().unwrap_or(Dim::Unknown));
        let (count, hidden) = (Dim::Known(self.reverse.len()), Dim::from(Some(self.hidden.into())));
        let shape =
            if self.batch_first { vec![first, second, count, hidden] } else { vec![first, count, second, hidden] };
        let fact = Fact { dtype: Some(ctx.dtype(ctx.x(0)?)), shape: Some(shape) };
        let y = ctx.exposed(0, fact);
        Ok(self.sequence(ctx, y, direction))
    }

    /// Returns the hidden state before every step.
    pub fn previous(&self, ctx: &mut Ctx<'_>, direction: usize) -> Result<ValueId, RuleError> {
        ctx.once(PREVIOUS[direction], |ctx| {
            let states = self.hidden_states(ctx, direction)?;
            let first = self.initial(ctx, 5, direction)?;
            let row = ctx.b.unsqueeze(first, &[0]);
            let (starts, ends) = if self.reverse[direction] { (1, i64::MAX) } else { (0, -1) };
            let (starts, ends, axes) =
                (ctx.b.ints("start", &[starts]), ctx.b.ints("end", &[ends]), ctx.b.ints("axes", &[0]));
            let rest = ctx.b.op("Slice", &[states, starts, ends, axes], Attributes::none());
            let parts = if self.reverse[direction] { [rest, row] } else { [row, rest] };
            let shifted = ctx.b.op("Concat", &parts, Attributes::none().with("axis", 0));
            let fact = ctx.b.fact(states).clone();
            ctx.b.refine(shifted, &fact);
            let given = ctx.node().input(5).is_some();
            match self.within(ctx, 1)?.filter(|_| given && self.reverse[direction]) {
                Some(within) => {
                    let held = ctx.b.select(within, shifted, first);
                    ctx.b.refine(held, &fact);
                    Ok(held)
                }
                None => Ok(shifted),
            }
        })
    }

    /// Returns where a step, or the one `ahead` of it, lies within its sequence: bool `[T, B, 1]`;
    /// `None` where all sequences have full length.
    pub fn within(&self, ctx: &mut Ctx<'_>, ahead: i64) -> Result<Option<ValueId>, RuleError> {
        let Some(lengths) = ctx.node().input(4) else { return Ok(None) };
        let x = self.x(ctx)?;
        let key = if ahead == 0 { "within" } else { "next within" };
        let within = ctx.once(key, |ctx| {
            let [from, one] = [ahead, 1].map(|number| ctx.b.constant("step", Tensor::scalar(number)));
            let size = ctx.b.op("Shape", &[x], Attributes::none().with("start", 0).with("end", 1));
            let count = ctx.b.squeeze(size, &[0]);
            let end = ctx.b.add(count, from);
            let steps = ctx.b.op("Range", &[from, end, one], Attributes::none());
            let steps = ctx.b.unsqueeze(steps, &[1, 2]);
            let lengths = ctx.b.cast(lengths, DType::I64);
            let lengths = ctx.b.unsqueeze(lengths, &[1]);
            let within = ctx.b.op("Less", &[steps, lengths], Attributes::none());
            let dims = ctx.dims(x)?.into_iter().take(2).chain([Dim::Known(1)]).collect();
            ctx.b.refine(within, &Fact::new(DType::Bool, dims));
            Ok(within)
        })?;
        Ok(Some(within))
    }

    /// Returns a sequence with zeros beyond each length.
    pub fn masked(&self, ctx: &mut Ctx<'_>, value: ValueId) -> Result<ValueId, RuleError> {
        let Some(within) = self.within(ctx, 0)? else { return Ok(value) };
        let zero = ctx.b.like(value, 0.0);
        Ok(ctx.b.select(within, value, zero))
    }

    /// Returns a sequence with ones beyond each length.
    pub fn kept(&self, ctx: &mut Ctx<'_>, value: ValueId) -> Result<ValueId, RuleError> {
        let Some(within) = self.within(ctx, 0)? else { return Ok(value) };
        let one = ctx.b.like(value, 1.0);
        Ok(ctx.b.select(within, value, one))
    }

    /// Returns what X and W contribute to the gates, and the bias of W.
    pub fn at_input(&self, ctx: &mut Ctx<'_>, direction: usize) -> Result<ValueId, RuleError> {
        let (x, weight) = (self.x(ctx)?, self.of(ctx, 1, direction)?);
        let product = times_transposed(ctx, x, weight);
        match self.bias(ctx, direction)? {
            Some([bias, _]) => Ok(ctx.b.add(product, bias)),
            None => Ok(product),
        }
    }

    /// Returns both halves of B.
    pub fn bias(&self, ctx: &mut Ctx<'_>, direction: usize) -> Result<Option<[ValueId; 2]>, RuleError> {
        if ctx.node().input(3).is_none() {
            return Ok(None);
        }
        let halves = ctx.once_each(BIAS[direction], |ctx| {
            let both = self.of(ctx, 3, direction)?;
            Ok(split(ctx.b, both, 2, 0))
        })?;
        Ok(Some([halves[0], halves[1]]))
    }

    /// Runs back through a direction.
    pub fn back(
        &self,
        ctx: &mut Ctx<'_>,
        direction: usize,
        (states, items, captured): (&[ValueId], &[ValueId], &[ValueId]),
        body: impl FnOnce(&mut Builder, &super::scan::Step) -> (Vec<ValueId>, Vec<ValueId>),
    ) -> Vec<ValueId> {
        scan(ctx, &Over { states, items, captured, reverse: !self.reverse[direction] }, body)
    }

    /// Runs a direction forward again.
    pub fn forth(
        &self,
        ctx: &mut Ctx<'_>,
        direction: usize,
        (states, items, captured): (&[ValueId], &[ValueId], &[ValueId]),
        body: impl FnOnce(&mut Builder, &super::scan::Step) -> (Vec<ValueId>, Vec<ValueId>),
    ) -> Vec<ValueId> {
        scan(ctx, &Over { states, items, captured, reverse: self.reverse[direction] }, body)
    }

    /// Returns the sum over steps and batch of the outer products of two sequences.
    pub fn over_steps(&self, ctx: &mut Ctx<'_>, a: ValueId, b: ValueId) -> Result<ValueId, RuleError> {
        let [a, b] = [flat(ctx, a)?, flat(ctx, b)?];
        Ok(ctx.b.op("Gemm", &[a, b], Attributes::none().with("transA", 1)))
    }

    fn each(
        &self,
        ctx: &mut Ctx<'_>,
        mut part: impl FnMut(&mut Ctx<'_>, usize) -> Result<ValueId, RuleError>,
    ) -> Result<Vec<ValueId>, RuleError> {
        (0..self.reverse.len()).map(|direction| part(ctx, direction)).collect()
    }
}

fn gates(
    attributes: &Attributes,
    defaults: &[&str],
    directions: usize,
    clip: Option<f64>,
) -> Result<Vec<Vec<Gate>>, RuleError> {
    let names: Vec<String> = match attributes.get("activations") {
        Some(Attribute::Strings(names)) => names.iter().map(|name| String::from_utf8_lossy(name).into()).collect(),
        Some(_) => return Err(RuleError::Unsupported("attribute \"activations\" is no list of strings".into())),
        None => defaults.iter().cycle().take(defaults.len() * directions).map(ToString::to_string).collect(),
    };
    if names.len() != defaults.len() * directions {
        let expected = defaults.len() * directions;
        return Err(RuleError::Unsupported(format!("{} activations, {expected} were expected", names.len())));
    }
    let list = |name: &str| match attributes.get(name) {
        Some(Attribute::Floats(values)) => Ok(values.clone().into_iter()),
        Some(_) => Err(RuleError::Unsupported(format!("attribute \"{name}\" is no list of floats"))),
        None => Ok(Vec::new().into_iter()),
    };
    let (mut alpha, mut beta) = (list("activation_alpha")?, list("activation_beta")?);
    let read = |name: &String| Ok(Gate { activation: Activation::read(name, &mut alpha, &mut beta)?, clip });
    let all = names.iter().map(read).collect::<Result<Vec<Gate>, RuleError>>()?;
    Ok(all.chunks(defaults.len()).map(<[Gate]>::to_vec).collect())
}

/// Splits a value into equal parts along an axis.
pub(super) fn split(b: &mut Builder, value: ValueId, parts: usize, axis: i64) -> Vec<ValueId> {
    let size = b.fact(value).dim(axis).and_then(Dim::known).unwrap_or_default() / parts;
    let sizes = b.ints("split", &vec![size as i64; parts]);
    let attributes = Attributes::none().with("axis", axis);
    b.ops(&crate::graph::OpId::standard("Split"), &[Some(value), Some(sizes)], attributes, parts)
}

/// Puts values side by side along the last axis.
pub(super) fn join(b: &mut Builder, parts: &[ValueId]) -> ValueId {
    b.op("Concat", parts, Attributes::none().with("axis", -1))
}

/// Returns `a w^T`.
pub(super) fn times_transposed(ctx: &mut Ctx<'_>, a: ValueId, w: ValueId) -> ValueId {
    let turned = ctx.b.transpose(w, &[1, 0]);
    ctx.b.op("MatMul", &[a, turned], Attributes::none())
}

/// Returns a sequence as a matrix, one row for each step and sequence.
pub(super) fn flat(ctx: &mut Ctx<'_>, value: ValueId) -> Result<ValueId, RuleError> {
    let width = ctx.sizes_from(value, 2)?;
    let width = width.first().and_then(|size| i64::try_from(*size).ok()).unwrap_or_default();
    Ok(ctx.b.reshape(value, &[-1, width]))
}

fn pass<C: Cell>(ctx: &mut Ctx<'_>, layer: &Layer, direction: usize) -> Result<Pass, RuleError> {
    let values = ctx.once_each(PASS[direction], |ctx| {
        let Pass { at_input, at_state, hidden, cell } = C::pass(ctx, layer, direction)?;
        Ok(vec![at_input, at_state, hidden, cell])
    })?;
    let [at_input, at_state, hidden, cell] = values[..] else { unreachable!("invariant: four values are kept") };
    Ok(Pass { at_input, at_state, hidden, cell })
}

/// Gradient of X.
pub(super) fn input<C: Cell>(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (layer, x) = (Layer::read::<C>(ctx)?, ctx.x(0)?);
    let parts = layer.each(ctx, |ctx, direction| {
        let pass = pass::<C>(ctx, &layer, direction)?;
        let weight = layer.of(ctx, 1, direction)?;
        Ok(ctx.b.op("MatMul", &[pass.at_input, weight], Attributes::none()))
    })?;
    let sum = if parts.len() == 1 { parts[0] } else { ctx.b.op("Sum", &parts, Attributes::none()) };
    let dx = if layer.batch_first { ctx.b.transpose(sum, &[1, 0, 2]) } else { sum };
    let fact = ctx.b.fact(x).clone();
    ctx.b.refine(dx, &fact);
    Ok(dx)
}

/// Gradient of W.
pub(super) fn weight<C: Cell>(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (layer, w) = (Layer::read::<C>(ctx)?, ctx.x(1)?);
    let parts = layer.each(ctx, |ctx, direction| {
        let (pass, x) = (pass::<C>(ctx, &layer, direction)?, layer.x(ctx)?);
        layer.over_steps(ctx, pass.at_input, x)
    })?;
    Ok(layer.stack(ctx, &parts, 0, w))
}

/// Gradient of R.
pub(super) fn recurrence<C: Cell>(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (layer, r) = (Layer::read::<C>(ctx)?, ctx.x(2)?);
    let parts = layer.each(ctx, |ctx, direction| {
        let pass = pass::<C>(ctx, &layer, direction)?;
        C::recurrence(ctx, &layer, direction, &pass)
    })?;
    Ok(layer.stack(ctx, &parts, 0, r))
}

/// Gradient of B.
pub(super) fn bias<C: Cell>(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let (layer, bias) = (Layer::read::<C>(ctx)?, ctx.x(3)?);
    let parts = layer.each(ctx, |ctx, direction| {
        let pass = pass::<C>(ctx, &layer, direction)?;
        let first = ctx.b.reduce("ReduceSum", pass.at_input, &[0, 1], false);
        let same = pass.at_input == pass.at_state;
        let second = if same { first } else { ctx.b.reduce("ReduceSum", pass.at_state, &[0, 1], false) };
        Ok(ctx.b.op("Concat", &[first, second], Attributes::none().with("axis", 0)))
    })?;
    Ok(layer.stack(ctx, &parts, 0, bias))
}

/// Gradient of the first hidden state.
pub(super) fn initial_hidden<C: Cell>(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    initial::<C>(ctx, 5, |pass| pass.hidden)
}

/// Gradient of the first cell state.
pub(super) fn initial_cell<C: Cell>(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    initial::<C>(ctx, 6, |pass| pass.cell)
}

/// A sequence without steps gives zeros, not its first state.
fn initial<C: Cell>(ctx: &mut Ctx<'_>, index: usize, of: fn(&Pass) -> ValueId) -> Result<ValueId, RuleError> {
    let (layer, like) = (Layer::read::<C>(ctx)?, ctx.x(index)?);
    let parts = layer.each(ctx, |ctx, direction| {
        let first = of(&pass::<C>(ctx, &layer, direction)?);
        let Some(lengths) = ctx.node().input(4) else { return Ok(first) };
        let none = ctx.b.constant("none", Tensor::from_vec(&[], vec![0i32]));
        let some = ctx.b.op("Greater", &[lengths, none], Attributes::none());
        let some = ctx.b.unsqueeze(some, &[1]);
        let zero = ctx.b.like(first, 0.0);
        Ok(ctx.b.select(some, first, zero))
    })?;
    Ok(layer.stack(ctx, &parts, i64::from(layer.batch_first), like))
}

/// Gradient of P.
pub(super) fn per_unit(
    ctx: &mut Ctx<'_>,
    layer: &Layer,
    mut part: impl FnMut(&mut Ctx<'_>, usize) -> Result<ValueId, RuleError>,
    like: ValueId,
) -> Result<ValueId, RuleError> {
    let parts = layer.each(ctx, &mut part)?;
    Ok(layer.stack(ctx, &parts, 0, like))
}

pub(super) fn pass_of<C: Cell>(ctx: &mut Ctx<'_>, layer: &Layer, direction: usize) -> Result<Pass, RuleError> {
    pass::<C>(ctx, layer, direction)
}
