//! What an operator says of its outputs: dtypes and shapes from those of its inputs.
//!
//! One function for each family of operators ([`FAMILIES`]); sizes may be symbolic. What cannot be
//! told stays unknown: a fact that comes out of here holds whenever those of the inputs hold and
//! the model runs at all.

mod attention;
mod control;
mod elementwise;
mod layers;
mod linear;
mod microsoft;
mod moves;
mod numbers;
mod pick;
mod recurrent;
mod reduce;
mod resize;
mod signal;
#[cfg(test)]
mod tests;
mod vision;
mod window;

pub(crate) use moves::join;
pub(crate) use numbers::{Number, of as small_numbers};
pub(crate) use pick::sliced;

use super::{Attribute, Attributes, DType, Dim, Fact, Graph, OpId, Size, ValueId};

/// An operator with what is known of its inputs.
pub(crate) struct Call<'a> {
    /// Operator.
    pub op: &'a OpId,
    /// Version of the default domain's operators.
    pub opset: i64,
    /// Attributes.
    pub attributes: &'a Attributes,
    /// Facts of the inputs by position; `None` where an input is absent.
    pub inputs: Vec<Option<&'a Fact>>,
    /// How many outputs there are, absent ones included.
    pub outputs: usize,
    /// The elements of an input where they are known, in row-major order.
    pub numbers: &'a dyn Fn(usize) -> Option<Vec<Number>>,
}

static NOTHING: Fact = Fact { dtype: None, shape: None };

impl<'a> Call<'a> {
    fn name(&self) -> &str {
        &self.op.name
    }

    fn has(&self, index: usize) -> bool {
        self.inputs.get(index).is_some_and(Option::is_some)
    }

    fn fact(&self, index: usize) -> &'a Fact {
        self.inputs.get(index).copied().flatten().unwrap_or(&NOTHING)
    }

    fn dtype(&self, index: usize) -> Option<DType> {
        self.fact(index).dtype
    }

    fn shape(&self, index: usize) -> Option<&'a [Dim]> {
        self.fact(index).shape.as_deref()
    }

    fn rank(&self, index: usize) -> Option<usize> {
        self.fact(index).rank()
    }

    fn int(&self, name: &str, default: i64) -> Option<i64> {
        self.attributes.int(name, default).ok()
    }

    /// Returns a list of integers; an attribute of another type is unknown, not absent.
    fn ints(&self, name: &str) -> Option<Option<Vec<i64>>> {
        self.attributes.ints(name).ok()
    }

    fn text(&self, name: &str, default: &str) -> Option<String> {
        self.attributes.text(name, default).ok()
    }

    /// Returns the dtype that an attribute names.
    fn dtype_of(&self, name: &str) -> Option<DType> {
        dtype(self.int(name, 0)?)
    }

    /// Returns the elements of an integer input, each where it is known.
    fn sizes(&self, index: usize) -> Option<Vec<Option<Size>>> {
        Some((self.numbers)(index)?.into_iter().map(Number::size).collect())
    }

    /// Returns the elements of an integer input when all of them are fixed.
    fn fixed(&self, index: usize) -> Option<Vec<i64>> {
        self.sizes(index)?.into_iter().map(|size| size?.fixed()).collect()
    }

    /// Returns the elements of an input as real numbers when all of them are fixed.
    fn reals(&self, index: usize) -> Option<Vec<f64>> {
        (self.numbers)(index)?.iter().map(Number::real).collect()
    }

    /// Returns the one element of an integer input.
    fn scalar(&self, index: usize) -> Option<Size> {
        match self.sizes(index)?.as_slice() {
            [size] => size.clone(),
            _ => None,
        }
    }

    /// Returns facts for every output, the given ones first.
    fn give(&self, facts: impl IntoIterator<Item = Fact>) -> Option<Vec<Fact>> {
        let mut facts: Vec<Fact> = facts.into_iter().take(self.outputs).collect();
        facts.resize(self.outputs, Fact::default());
        Some(facts)
    }

    /// Returns the one output's fact with the dtype of the first input.
    fn like(&self, shape: Option<Vec<Dim>>) -> Option<Vec<Fact>> {
        self.give([Fact { dtype: self.dtype(0), shape }])
    }
}

/// Version of the operators that a builder writes.
const BUILT: i64 = 18;

type Family = fn(&Call) -> Option<Vec<Fact>>;

const FAMILIES: &[Family] = &[
    elementwise::infer,
    moves::infer,
    pick::infer,
    linear::infer,
    reduce::infer,
    layers::infer,
    resize::infer,
    attention::infer,
    recurrent::infer,
    vision::infer,
    signal::infer,
    control::infer,
];

/// Returns the facts of the outputs.
pub(crate) fn infer(call: &Call) -> Vec<Fact> {
    let families: &[Family] = match call.op.domain.as_str() {
        "" | "ai.onnx" => FAMILIES,
        "com.microsoft" => &[microsoft::infer],
        _ => &[],
    };
    let found = families.iter().find_map(|family| family(call));
    found.unwrap_or_else(|| vec![Fact::default(); call.outputs])
}

/// Returns the facts of `count` outputs of an operator on values of a graph.
pub(super) fn facts(
    graph: &Graph,
    op: &OpId,
    inputs: &[Option<ValueId>],
    attributes: &Attributes,
    count: usize,
) -> Vec<Fact> {
    let numbers = |index: usize| numbers::of(&graph.constant(inputs.get(index).copied().flatten()?)?);
    infer(&Call {
        op,
        opset: BUILT,
        attributes,
        inputs: inputs.iter().map(|input| input.map(|id| graph.fact(id))).collect(),
        outputs: count,
        numbers: &numbers,
    })
}

fn dtype(code: i64) -> Option<DType> {
    i32::try_from(code).ok().filter(|code| *code != 0).map(DType::from_code)
}

fn known(size: i64) -> Dim {
    usize::try_from(size).map_or(Dim::Unknown, Dim::Known)
}

/// Returns an axis counted from the front.
fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    usize::try_from(if axis < 0 { axis.checked_add(rank)? } else { axis }).ok().filter(|axis| (*axis as i64) < rank)
}

fn axes_of(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    axes.iter().map(|axis| axis_of(*axis, rank)).collect()
}

/// Returns the product of dimensions.
fn product(dims: &[Dim]) -> Dim {
    let product = dims.iter().try_fold(Size::from(1), |product, dim| product.times(&dim.size()?));
    Dim::from(product)
}

/// Returns what is known of a dimension of which two things are known.
fn both(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Known(_), _) => a.clone(),
        (_, Dim::Known(_)) | (Dim::Unknown, _) => b.clone(),
        _ => a.clone(),
    }
}

/// Returns the broadcast shape of several shapes; `None` when a rank is unknown.
pub(crate) fn broadcast(shapes: &[Option<&[Dim]>]) -> Option<Vec<Dim>> {
    let shapes = shapes.iter().copied().collect::<Option<Vec<&[Dim]>>>()?;
    let rank = shapes.iter().map(|shape| shape.len()).max()?;
    let mut result = vec![Dim::Known(1); rank];
    for shape in shapes {
        let offset = rank - shape.len();
        for (slot, dim) in result[offset..].iter_mut().zip(shape) {
            let joined = match (&*slot, dim) {
                (Dim::Known(1), other) => other.clone(),
                (other, Dim::Known(1)) => other.clone(),
                (Dim::Known(size), _) | (_, Dim::Known(size)) => Dim::Known(*size),
                (a, b) if a.same(b) => a.clone(),
                _ => Dim::Unknown,
            };
            *slot = joined;
        }
    }
    Some(result)
}
