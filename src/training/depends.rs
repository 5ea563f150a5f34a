//! What the values of a train graph depend on: nothing, samples of the batch one by one, the batch as a whole, or the step.
//!
//! A frozen prefix is everything that does not depend on the step: on what trains or moves, on random numbers, on the
//! target. Only what depends on samples one by one can be kept for each sample: for every operator that is known here,
//! the batch is followed from axis to axis; one that is not known, or that brings samples together (a mean over the
//! batch, a product over it), gives values of the whole batch. Along its axis the batch is the outer part, so a
//! value of `Sample(0)` is, in memory, one part after another, one for each sample.

use crate::graph::{Attribute, DType, Dim, Fact, Graph, INTERNAL_DOMAIN, Node, Size, ValueId};
use std::collections::{HashMap, HashSet};

/// What a value depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depends {
    /// Nothing: it is fixed.
    Nothing,
    /// The number of samples, and not what they are.
    Count,
    /// Each part on one sample: the batch is the outer part of this axis.
    Sample(usize),
    /// The batch, in another or an unknown way; the same for the same batch.
    Batch,
    /// What trains or moves, random numbers or the target.
    Step,
}

/// Operators that work element by element on inputs that are broadcast.
const ELEMENTWISE: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Div",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Mean",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pow",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Sum",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Where",
    "Xor",
];

/// Operators on axis 0 and the axes of pictures, whose other inputs are fixed.
const PICTURES: &[&str] = &[
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "DepthToSpace",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "GroupNormalization",
    "InstanceNormalization",
    "LRN",
    "LpPool",
    "MaxPool",
    "Resize",
    "SpaceToDepth",
];

const REDUCTIONS: &[&str] = &[
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
];

/// Returns what each value depends on, by its position; `data` names the inputs that samples come in by.
pub(super) fn depends(graph: &Graph, data: &HashSet<&str>) -> Vec<Depends> {
    let mut found = vec![Depends::Step; graph.values().count()];
    graph.initializers().for_each(|(id, ..)| found[id.0] = Depends::Nothing);
    let mut batch: Vec<&Dim> = Vec::new();
    for id in graph.inputs().iter().filter(|id| data.contains(graph.value_name(**id))) {
        let first = graph.fact(*id).dim(0);
        found[id.0] = if first.is_some() { Depends::Sample(0) } else { Depends::Batch };
        batch.extend(first.filter(|dim| matches!(dim, Dim::Symbol(_))));
    }
    for node in graph.nodes() {
        let seen: Vec<Depends> = node.inputs.iter().flatten().map(|id| found[id.0]).collect();
        let of = Of { graph, node, found: &found, batch: &batch };
        let outputs = of.outputs(&seen);
        node.outputs.iter().zip(outputs).for_each(|(id, depends)| {
            if let Some(id) = id {
                found[id.0] = depends;
            }
        });
    }
    found
}

/// Returns the elements that a value has for each sample; `None` where that is not known.
pub(super) fn elements(graph: &Graph, data: &HashSet<&str>) -> HashMap<ValueId, usize> {
    let first = |id: &&ValueId| data.contains(graph.value_name(**id));
    let dims: Vec<&Dim> = graph.inputs().iter().filter(first).filter_map(|id| graph.fact(*id).dim(0)).collect();
    let symbols =
        dims.iter().filter_map(|dim| if let Dim::Symbol(name) = dim { Some((name.clone(), 1)) } else { None });
    let symbols: HashMap<String, usize> = symbols.collect();
    let fixed = dims.iter().find_map(|dim| dim.known()).unwrap_or(1).max(1);
    let one = graph.with_sizes(&symbols);
    let count = |fact: &Fact| {
        let all = fact.sizes()?.into_iter().try_fold(1usize, usize::checked_mul)?;
        all.is_multiple_of(fixed).then_some(all / fixed)
    };
    one.values().filter_map(|(id, value)| Some((id, count(&value.fact)?))).collect()
}

/// One node, with what is known so far.
struct Of<'a> {
    graph: &'a Graph,
    node: &'a Node,
    found: &'a [Depends],
    /// The sizes that are the batch, where it is open.
    batch: &'a [&'a Dim],
}

impl Of<'_> {
    fn outputs(&self, seen: &[Depends]) -> Vec<Depends> {
        let Of { graph, node, .. } = self;
        let all = |depends| vec![depends; node.outputs.len()];
        let inner = |value: &Attribute| matches!(value, Attribute::Graph(_) | Attribute::Opaque { .. });
        let own = node.op.domain == INTERNAL_DOMAIN;
        let opaque =
            !(node.op.domain.is_empty() || own) || node.op.is_random() || node.attributes.iter().any(|(_, a)| inner(a));
        let tensor = |id: &ValueId| graph.fact(*id).dtype.is_some_and(|dtype| !matches!(dtype, DType::String));
        if opaque || seen.contains(&Depends::Step) || !node.outputs.iter().flatten().all(tensor) {
            return all(Depends::Step);
        }
        if seen.iter().all(|depends| *depends == Depends::Nothing) {
            return all(Depends::Nothing);
        }
        // What operators of our own do with a batch is not told here: most of them are gradients.
        if own || seen.contains(&Depends::Batch) {
            return all(Depends::Batch);
        }
        if matches!(node.op.name.as_str(), "Shape" | "Size") {
            return all(Depends::Count);
        }
        if let Some(repeated) = self.repeated(seen) {
            return all(repeated);
        }
        if seen.iter().all(|depends| matches!(depends, Depends::Nothing | Depends::Count)) {
            return all(Depends::Count);
        }
        let axis = |index: usize| self.axis(index).filter(|axis| self.is_alone(index, *axis));
        (0..node.outputs.len()).map(|index| axis(index).map_or(Depends::Batch, Depends::Sample)).collect()
    }

    /// Returns true where the size of no other axis of an output follows from the number of samples.
    fn is_alone(&self, output: usize, axis: usize) -> bool {
        let Some(fact) = self.node.output(output).map(|id| self.graph.fact(id)) else { return true };
        let Some(shape) = &fact.shape else { return false };
        let with = |text: &str, count: usize| {
            let name = |dim: &&Dim| if let Dim::Symbol(name) = dim { Some((name.clone(), count)) } else { None };
            Size::parse_with(text, &self.batch.iter().filter_map(name).collect())
        };
        let fixed = |dim: &Dim| match dim {
            Dim::Known(_) => true,
            Dim::Symbol(text) => with(text, 1) == with(text, 2),
            Dim::Unknown => false,
        };
        shape.iter().enumerate().all(|(place, dim)| place == axis || fixed(dim))
    }

    /// Returns `Sample(0)` for a fixed value that is repeated for each sample of a batch.
    fn repeated(&self, seen: &[Depends]) -> Option<Depends> {
        let node = self.node;
        let fixed = seen.iter().all(|depends| matches!(depends, Depends::Nothing | Depends::Count));
        let first = self.output_dim(0, 0).is_some_and(|dim| self.batch.contains(&dim));
        if !(fixed && first && self.is_alone(0, 0)) {
            return None;
        }
        match node.op.name.as_str() {
            "ConstantOfShape" => Some(Depends::Sample(0)),
            "Expand" => {
                let (x, rank) = (node.input(0)?, self.output_rank(0)?);
                let own = self.graph.fact(x).rank()?;
                let one = own < rank || self.graph.fact(x).dim(0) == Some(&Dim::Known(1));
                (one && self.is(x, Depends::Nothing)).then_some(Depends::Sample(0))
            }
            _ => None,
        }
    }

    /// Returns the axis of an output that is the batch; `None` where it is not, or not known to be.
    fn axis(&self, output: usize) -> Option<usize> {
        let node = self.node;
        let op = node.op.name.as_str();
        let out = node.output(output)?;
        if ELEMENTWISE.contains(&op) {
            return self.broadcast(self.graph.fact(out).rank()?);
        }
        if PICTURES.contains(&op) {
            let training = node.attributes.int("training_mode", 0).ok()? != 0;
            let whole = op == "MaxPool" && output == 1 || training;
            let same = op != "Resize" || self.output_dim(0, 0)?.same(self.graph.fact(node.input(0)?).dim(0)?);
            return (!whole && same && self.only(0)? == 0).then_some(0);
        }
        if REDUCTIONS.contains(&op) {
            let (axis, rank) = (self.only(0)?, self.rank(0)?);
            let axes = self.axes(1, rank)?;
            let none = axes.is_empty();
            if none {
                return (node.attributes.int("noop_with_empty_axes", 0).ok()? != 0).then_some(axis);
            }
            return self.reduced(axis, &axes);
        }
        match op {
            "MatMul" => self.product(),
            "Gemm" => self.gemm(),
            "Einsum" => self.einsum(),
            "Softmax" | "LogSoftmax" | "Hardmax" | "LpNormalization" => {
                let axis = self.only(0)?;
                (self.attribute_axis("axis", -1, self.rank(0)?)? != axis).then_some(axis)
            }
            "CumSum" => {
                let (axis, rank) = (self.only(0)?, self.rank(0)?);
                (self.axes(1, rank)? != [axis]).then_some(axis)
            }
            "LayerNormalization" | "RMSNormalization" => {
                let axis = self.only(0)?;
                (axis < self.attribute_axis("axis", -1, self.rank(0)?)?).then_some(axis)
            }
            "ArgMax" | "ArgMin" => {
                let axis = self.only(0)?;
                let over = self.attribute_axis("axis", 0, self.rank(0)?)?;
                self.reduced(axis, &[over])
            }
            "TopK" => {
                let axis = self.only(0)?;
                (self.attribute_axis("axis", -1, self.rank(0)?)? != axis).then_some(axis)
            }
            "Transpose" => {
                let axis = self.only(0)?;
                let rank = self.rank(0)?;
                let reversed = || (0..i64::try_from(rank).unwrap_or(0)).rev().collect();
                let perm = node.attributes.ints("perm").ok()?.unwrap_or_else(reversed);
                perm.iter().position(|from| usize::try_from(*from) == Ok(axis))
            }
            "Unsqueeze" => {
                let (axis, rank) = (self.only(0)?, self.output_rank(0)?);
                let added = self.axes(1, rank)?;
                (0..rank).filter(|place| !added.contains(place)).nth(axis)
            }
            "Squeeze" => {
                let (axis, rank) = (self.only(0)?, self.rank(0)?);
                let gone = self.axes(1, rank)?;
                let known = !gone.is_empty() && !gone.contains(&axis);
                known.then(|| axis - gone.iter().filter(|place| **place < axis).count())
            }
            "Flatten" => {
                let axis = self.only(0)?;
                let from = self.attribute_axis("axis", 1, self.rank(0)? + 1)?;
                (axis == 0 && from > 0).then_some(0)
            }
            "Reshape" => self.reshape(out),
            "Expand" => {
                let axis = self.only(0)?;
                let (rank, own) = (self.output_rank(0)?, self.rank(0)?);
                let place = axis + rank.checked_sub(own)?;
                let fact = self.graph.fact(node.input(0)?);
                self.output_dim(0, place)?.same(fact.dim(i64::try_from(axis).ok()?)?).then_some(place)
            }
            "Slice" => {
                let (axis, rank) = (self.only(0)?, self.rank(0)?);
                let listed = match node.input(3) {
                    Some(_) => self.axes(3, rank)?,
                    None => (0..self.elements_of(1)?).collect(),
                };
                (!listed.contains(&axis)).then_some(axis)
            }
            "Pad" => {
                let (axis, rank) = (self.only(0)?, self.rank(0)?);
                let pads = self.graph.constant(node.input(1)?)?.to_ints()?;
                let listed = if node.input(3).is_some() { self.axes(3, rank)? } else { (0..rank).collect() };
                let place = listed.iter().position(|listed| *listed == axis);
                let none = |place: usize| pads.get(place) == Some(&0) && pads.get(place + listed.len()) == Some(&0);
                place.is_none_or(none).then_some(axis)
            }
            "Tile" => {
                let axis = self.only(0)?;
                let repeats = self.graph.constant(node.input(1)?)?.to_ints()?;
                (repeats.get(axis) == Some(&1)).then_some(axis)
            }
            "Concat" => {
                let axis = self.together(node.inputs.iter().flatten().copied())?;
                (self.attribute_axis("axis", 0, self.rank(0)?)? != axis).then_some(axis)
            }
            "Split" => {
                let axis = self.only(0)?;
                (self.attribute_axis("axis", 0, self.rank(0)?)? != axis).then_some(axis)
            }
            "Gather" => self.gather(),
            "OneHot" => {
                let axis = self.only(0)?;
                let at = self.attribute_axis("axis", -1, self.rank(0)? + 1)?;
                Some(if axis < at { axis } else { axis + 1 })
            }
            "Trilu" => {
                let (axis, rank) = (self.only(0)?, self.rank(0)?);
                (axis + 2 < rank).then_some(axis)
            }
            "GRU" | "LSTM" | "RNN" => {
                let axis = self.only(0)?;
                let plain = node.attributes.int("layout", 0).ok()? == 0 && axis == 1;
                plain.then_some(if output == 0 { 2 } else { 1 })
            }
            _ => None,
        }
    }

    fn is(&self, value: ValueId, depends: Depends) -> bool {
        self.found.get(value.0) == Some(&depends)
    }

    fn sample(&self, value: ValueId) -> Option<usize> {
        match self.found.get(value.0) {
            Some(Depends::Sample(axis)) => Some(*axis),
            _ => None,
        }
    }

    /// Returns the axis of an input beside which nothing depends on samples.
    fn only(&self, input: usize) -> Option<usize> {
        let value = self.node.input(input)?;
        let others = self.node.inputs.iter().enumerate().filter(|(index, _)| *index != input);
        let mut others = others.filter_map(|(_, id)| *id);
        others.all(|id| self.sample(id).is_none()).then(|| self.sample(value)).flatten()
    }

    /// Returns the axis that values have in common, all of them of samples.
    fn together(&self, values: impl Iterator<Item = ValueId>) -> Option<usize> {
        let mut axes = values.map(|id| self.sample(id));
        let first = axes.next()??;
        axes.all(|axis| axis == Some(first)).then_some(first)
    }

    fn rank(&self, input: usize) -> Option<usize> {
        self.graph.fact(self.node.input(input)?).rank()
    }

    fn output_rank(&self, output: usize) -> Option<usize> {
        self.graph.fact(self.node.output(output)?).rank()
    }

    fn output_dim(&self, output: usize, axis: usize) -> Option<&Dim> {
        self.graph.fact(self.node.output(output)?).shape.as_ref()?.get(axis)
    }

    /// Returns the number of elements of a fixed input.
    fn elements_of(&self, input: usize) -> Option<usize> {
        self.graph.constant(self.node.input(input)?).map(|tensor| tensor.len())
    }

    /// Returns the axes that a fixed input, or the attribute of older operators, lists; none where both are absent.
    fn axes(&self, input: usize, rank: usize) -> Option<Vec<usize>> {
        let listed = match self.node.input(input) {
            Some(value) => self.graph.constant(value)?.to_ints()?,
            None => self.node.attributes.ints("axes").ok()?.unwrap_or_default(),
        };
        listed.into_iter().map(|axis| place(axis, rank)).collect()
    }

    fn attribute_axis(&self, name: &str, default: i64, rank: usize) -> Option<usize> {
        place(self.node.attributes.int(name, default).ok()?, rank)
    }

    fn reduced(&self, axis: usize, over: &[usize]) -> Option<usize> {
        if over.contains(&axis) {
            return None;
        }
        let keeps = self.node.attributes.int("keepdims", 1).ok()? != 0;
        Some(if keeps { axis } else { axis - over.iter().filter(|place| **place < axis).count() })
    }

    /// Returns the axis of the batch in a result of this rank, to which all inputs are broadcast.
    fn broadcast(&self, rank: usize) -> Option<usize> {
        let inputs = || self.node.inputs.iter().flatten().copied();
        let mut axis = None;
        let mut size: Option<&Dim> = None;
        for id in inputs() {
            let Some(own) = self.sample(id) else { continue };
            let fact = self.graph.fact(id);
            let place = own + rank.checked_sub(fact.rank()?)?;
            let dim = fact.shape.as_ref()?.get(own)?;
            if axis.is_some_and(|axis| axis != place) || size.is_some_and(|size| !size.same(dim)) {
                return None;
            }
            (axis, size) = (Some(place), Some(dim));
        }
        let axis = axis?;
        let one = |id: ValueId| {
            let fact = self.graph.fact(id);
            let own = fact.rank()?;
            match (axis + own).checked_sub(rank) {
                Some(place) => Some(fact.shape.as_ref()?.get(place)? == &Dim::Known(1)),
                None => Some(true),
            }
        };
        let others = inputs().filter(|id| self.sample(*id).is_none());
        others.map(one).collect::<Option<Vec<bool>>>()?.into_iter().all(|one| one).then_some(axis)
    }

    fn product(&self) -> Option<usize> {
        let (a, b) = (self.node.input(0)?, self.node.input(1)?);
        let (rank_a, rank_b) = (self.rank(0)?, self.rank(1)?);
        if rank_a < 2 || rank_b < 2 {
            return None;
        }
        let rank = rank_a.max(rank_b);
        let ones = |value: ValueId, own: usize, axis: usize| {
            let fact = self.graph.fact(value);
            match (axis + own).checked_sub(rank) {
                Some(place) => fact.shape.as_ref().and_then(|shape| shape.get(place)) == Some(&Dim::Known(1)),
                None => true,
            }
        };
        match (self.sample(a), self.sample(b)) {
            (Some(axis), None) => {
                let place = axis + rank - rank_a;
                (axis + 2 == rank_a || axis + 2 < rank_a && ones(b, rank_b, place)).then_some(place)
            }
            (None, Some(axis)) => {
                let place = axis + rank - rank_b;
                (axis + 1 == rank_b || axis + 2 < rank_b && ones(a, rank_a, place)).then_some(place)
            }
            (Some(first), Some(second)) => {
                let (one, other) = (first + rank - rank_a, second + rank - rank_b);
                let dim = |value: ValueId, axis: usize| self.graph.fact(value).shape.as_ref()?.get(axis);
                let same = dim(a, first)?.same(dim(b, second)?);
                (one == other && one + 2 < rank && same).then_some(one)
            }
            (None, None) => None,
        }
    }

    fn gemm(&self) -> Option<usize> {
        let node = self.node;
        let flag = |name| Some(node.attributes.int(name, 0).ok()? != 0);
        let (a, b) = (self.sample(node.input(0)?), self.sample(node.input(1)?));
        let axis = match (a, b) {
            (Some(axis), None) => (axis == usize::from(flag("transA")?)).then_some(0),
            (None, Some(axis)) => (axis == usize::from(!flag("transB")?)).then_some(1),
            _ => None,
        }?;
        let Some(c) = node.input(2) else { return Some(axis) };
        let fact = self.graph.fact(c);
        let place = (axis + fact.rank()?).checked_sub(2);
        match (self.sample(c), place) {
            (Some(own), place) => (Some(own) == place).then_some(axis),
            (None, None) => Some(axis),
            (None, Some(place)) => (fact.shape.as_ref()?.get(place)? == &Dim::Known(1)).then_some(axis),
        }
    }

    fn einsum(&self) -> Option<usize> {
        let equation = self.node.attributes.text("equation", "").ok()?;
        let (left, right) = equation.split_once("->")?;
        if equation.contains('.') {
            return None;
        }
        let letters = |text: &str| text.chars().filter(|letter| !letter.is_whitespace()).collect::<Vec<char>>();
        let mut batch: Option<char> = None;
        let terms: Vec<Vec<char>> = left.split(',').map(letters).collect();
        for (term, id) in terms.iter().zip(self.node.inputs.iter().flatten()) {
            let Some(axis) = self.sample(*id) else { continue };
            let letter = *term.get(axis)?;
            if batch.is_some_and(|batch| batch != letter) {
                return None;
            }
            batch = Some(letter);
        }
        let batch = batch?;
        for (term, id) in terms.iter().zip(self.node.inputs.iter().flatten()) {
            let expected = usize::from(self.sample(*id).is_some());
            if term.iter().filter(|letter| **letter == batch).count() != expected {
                return None;
            }
        }
        letters(right).iter().position(|letter| *letter == batch)
    }

    fn gather(&self) -> Option<usize> {
        let (data, indices) = (self.node.input(0)?, self.node.input(1)?);
        let axis = self.attribute_axis("axis", 0, self.rank(0)?)?;
        match (self.sample(data), self.sample(indices)) {
            (Some(own), None) if own < axis => Some(own),
            (Some(own), None) if own > axis => Some((own + self.rank(1)?).checked_sub(1)?),
            (None, Some(own)) if self.is(data, Depends::Nothing) => Some(axis + own),
            _ => None,
        }
    }

    /// A reshape keeps what lies in memory. Where the dimensions before the batch stay, the batch stays the outer part of
    /// its axis when each sample fills the axes after it a whole number of times.
    fn reshape(&self, out: ValueId) -> Option<usize> {
        let axis = self.only(0)?;
        let (from, to) = (&self.graph.fact(self.node.input(0)?).shape, &self.graph.fact(out).shape);
        let (from, to) = (from.as_ref()?, to.as_ref()?);
        let before = |shape: &[Dim]| shape.get(..axis)?.iter().map(Dim::known).collect::<Option<Vec<usize>>>();
        if before(from)? != before(to)? || to.len() <= axis {
            return None;
        }
        let known = |dims: &[Dim]| dims.iter().map(Dim::known).try_fold(1usize, |all, size| all.checked_mul(size?));
        let after = known(to.get(axis + 1..)?)?;
        let symbols = self.batch.iter().filter_map(|dim| match dim {
            Dim::Symbol(name) => Some((name.clone(), 1)),
            _ => None,
        });
        let symbols: HashMap<String, usize> = symbols.collect();
        let group = match from.get(axis)? {
            Dim::Symbol(text) => usize::try_from(Size::parse_with(text, &symbols).fixed()?).ok()?,
            // Of a batch of fixed size the outer part is not known; where the dimension stays, so does it.
            dim if to.get(axis)?.same(dim) => 1,
            _ => return None,
        };
        let each = group.checked_mul(known(from.get(axis + 1..)?)?)?;
        (after > 0 && each.is_multiple_of(after)).then_some(axis)
    }
}

fn place(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis + rank } else { axis };
    usize::try_from(axis).ok().filter(|_| axis < rank)
}
