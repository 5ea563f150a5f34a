//! Sequences of tensors whose length is known, so that what is taken out of them has a fact and a
//! place.

use super::small::Small;
use crate::graph::{DType, Dim, Fact, Node, NodeId, Number, Size, ValueId, join};
use std::collections::HashMap;
use std::rc::Rc;

/// Sequences of more elements than this are not followed.
const LIMIT: usize = 128;

/// One tensor of a sequence.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub fact: Fact,
    pub small: Option<Small>,
    pub from: From,
}

/// Where a tensor of a sequence is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum From {
    /// It is a value of the graph.
    Value(ValueId),
    /// It is a part that `SplitToSequence` makes.
    Part(NodeId, usize),
}

/// The sequences of a graph.
#[derive(Debug, Default)]
pub(super) struct Sequences(HashMap<ValueId, Vec<Rc<Item>>>);

/// Operators of which the output is the same sequence as the input.
pub(super) const PASSES: [&str; 3] = ["Identity", "Optional", "OptionalGetElement"];

/// What a node on sequences gives.
pub(super) enum Given {
    /// A sequence, which has no fact.
    Sequence,
    /// A tensor.
    Tensor(Fact, Option<Small>),
}

/// Returns true for the operators that make a sequence.
pub(super) fn makes_sequence(node: &Node) -> bool {
    let names =
        ["SequenceEmpty", "SequenceConstruct", "SequenceInsert", "SequenceErase", "SplitToSequence", "SequenceMap"];
    node.op.domain.is_empty() && names.contains(&node.op.name.as_str())
}

impl Sequences {
    /// Returns the tensors of a sequence of known length.
    pub fn get(&self, value: ValueId) -> Option<&[Rc<Item>]> {
        self.0.get(&value).map(Vec::as_slice)
    }

    /// Learns what a node gives; `None` when it has nothing to do with sequences of known length.
    pub fn learn(
        &mut self,
        (id, node): (NodeId, &Node),
        fact: &dyn Fn(ValueId) -> Fact,
        small: &dyn Fn(ValueId) -> Option<Small>,
    ) -> Option<Given> {
        if !node.op.domain.is_empty() {
            return None;
        }
        let output = node.output(0)?;
        let value = |id: ValueId| Rc::new(Item { fact: fact(id), small: small(id), from: From::Value(id) });
        let position = |index: usize| match node.input(index) {
            None => Some(None),
            Some(id) => small(id)?.data().first()?.fixed().map(Some),
        };
        let made = match node.op.name.as_str() {
            "SequenceEmpty" => Vec::new(),
            "SequenceConstruct" => node.inputs.iter().flatten().map(|id| value(*id)).collect(),
            "SequenceInsert" => {
                let mut items = self.0.get(&node.input(0)?)?.clone();
                let at = match position(2)? {
                    Some(at) => place(at, items.len(), items.len())?,
                    None => items.len(),
                };
                items.insert(at, value(node.input(1)?));
                items
            }
            "SequenceErase" => {
                let mut items = self.0.get(&node.input(0)?)?.clone();
                let at = place(position(1)?.unwrap_or(-1), items.len(), items.len().checked_sub(1)?)?;
                items.remove(at);
                items
            }
            "SplitToSequence" => split(id, node, &fact(node.input(0)?), small)?,
            name if PASSES.contains(&name) => self.0.get(&node.input(0)?)?.clone(),
            _ => return self.tensor(node, small),
        };
        if made.len() <= LIMIT {
            self.0.insert(output, made);
        }
        Some(Given::Sequence)
    }

    fn tensor(&self, node: &Node, small: &dyn Fn(ValueId) -> Option<Small>) -> Option<Given> {
        match node.op.name.as_str() {
            "SequenceAt" => {
                let item = self.at(node, small)?;
                Some(Given::Tensor(item.fact.clone(), item.small.clone()))
            }
            "SequenceLength" => {
                let length = self.get(node.input(0)?).and_then(|items| i64::try_from(items.len()).ok());
                let small = length.map(|length| Small::scalar(Number::Size(Size::from(length))));
                Some(Given::Tensor(Fact::fixed(DType::I64, &[]), small))
            }
            "ConcatFromSequence" => self.concat(node),
            _ => None,
        }
    }

    /// Returns the tensor that a `SequenceAt` takes.
    pub fn at(&self, node: &Node, small: &dyn Fn(ValueId) -> Option<Small>) -> Option<&Item> {
        let items = self.get(node.input(0)?)?;
        let at = small(node.input(1)?)?.data().first()?.fixed()?;
        items.get(place(at, items.len(), items.len().checked_sub(1)?)?).map(Rc::as_ref)
    }

    fn concat(&self, node: &Node) -> Option<Given> {
        let items = self.get(node.input(0)?)?;
        let axis = node.attributes.int("axis", 0).ok()?;
        let dtype = items.iter().find_map(|item| item.fact.dtype);
        if node.attributes.int("new_axis", 0).ok()? == 0 {
            let shapes: Vec<Option<&[Dim]>> = items.iter().map(|item| item.fact.shape.as_deref()).collect();
            let parts: Option<Vec<Small>> = items.iter().map(|item| item.small.clone()).collect();
            let small = parts.and_then(|parts| Small::join(&parts, axis));
            return Some(Given::Tensor(Fact { dtype, shape: join(&shapes, axis) }, small));
        }
        let shape = || {
            let mut shape = items.iter().find_map(|item| item.fact.shape.clone())?;
            let rank = i64::try_from(shape.len()).ok()?;
            let at = usize::try_from(if axis < 0 { axis.checked_add(rank + 1)? } else { axis }).ok()?;
            (at <= shape.len()).then(|| shape.insert(at, Dim::Known(items.len())))?;
            Some(shape)
        };
        Some(Given::Tensor(Fact { dtype, shape: shape() }, None))
    }
}

fn place(at: i64, count: usize, last: usize) -> Option<usize> {
    let at = if at < 0 { at.checked_add(i64::try_from(count).ok()?)? } else { at };
    usize::try_from(at).ok().filter(|at| *at <= last)
}

/// Returns the sizes of the parts, and whether the axis stays.
pub(super) fn part_sizes(
    node: &Node,
    input: &Fact,
    small: &dyn Fn(ValueId) -> Option<Small>,
) -> Option<(usize, Vec<usize>, bool)> {
    let shape = input.shape.as_ref()?;
    let axis = place(node.attributes.int("axis", 0).ok()?, shape.len(), shape.len().checked_sub(1)?)?;
    let whole = shape[axis].known();
    let Some(split) = node.input(1) else {
        let count = whole.filter(|whole| *whole <= LIMIT)?;
        return Some((axis, vec![1; count], node.attributes.int("keepdims", 1).ok()? == 1));
    };
    let split = small(split)?;
    let sizes: Vec<usize> =
        split.data().iter().map(|size| usize::try_from(size.fixed()?).ok()).collect::<Option<_>>()?;
    match (split.shape(), sizes.as_slice()) {
        ([], [size]) if *size > 0 => {
            let whole = whole.filter(|whole| whole.div_ceil(*size) <= LIMIT)?;
            Some((axis, (0..whole).step_by(*size).map(|start| (whole - start).min(*size)).collect(), true))
        }
        ([_], sizes) if sizes.len() <= LIMIT => Some((axis, sizes.to_vec(), true)),
        _ => None,
    }
}

fn split(id: NodeId, node: &Node, input: &Fact, small: &dyn Fn(ValueId) -> Option<Small>) -> Option<Vec<Rc<Item>>> {
    let (axis, sizes, keep) = part_sizes(node, input, small)?;
    let elements = node.input(0).and_then(small);
    let mut start = 0;
    let part = |(index, size): (usize, usize)| {
        let mut shape = input.shape.clone()?;
        shape[axis] = Dim::Known(size);
        let taken = elements.as_ref().and_then(|all| all.take(axis, &(start..start + size).collect::<Vec<_>>()));
        start += size;
        let taken = if keep { taken } else { taken.and_then(|taken| taken.without(axis)) };
        if !keep {
            shape.remove(axis);
        }
        let fact = Fact { dtype: input.dtype, shape: Some(shape) };
        Some(Rc::new(Item { fact, small: taken, from: From::Part(id, index) }))
    };
    sizes.into_iter().enumerate().map(part).collect()
}
