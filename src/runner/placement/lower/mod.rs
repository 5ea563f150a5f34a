//! Rewrites a graph so that ONNX Runtime's CUDA provider runs all of it.
//!
//! Only nodes that [`on_cpu`](super::on_cpu) names are touched. Each is replaced by operators that mean the same and have
//! kernels; what nothing here replaces stays as it is, and is named again. A topic a file: [`REWRITES`] says which
//! operator is where, [`widen`] serves every operator whose kernels take only wider types.
//!
//! What this module does not do: choose a precision, or make anything faster.

mod arcs;
mod bits;
mod choices;
mod hyperbolic;
mod normalization;
mod pads;
mod pooling;
mod scatter;
mod spectra;
#[cfg(test)]
mod tests;
mod transposed;
mod widen;

use super::{Host, Judge, Reason};
use crate::graph::{
    Attribute, Attributes, Builder, DType, Fact, Graph, Model, Node, Replaced, ValueId, prune, rebuild, upgrade,
};
use std::borrow::Cow;

/// Rewrites may end in operators that need another one, so often.
const PASSES: usize = 4;

/// Appends what takes the place of a node's outputs, by position; `None` where it cannot.
type Rewrite = fn(&mut Call<'_>) -> Option<Vec<ValueId>>;

const REWRITES: &[(&str, Rewrite)] = &[
    ("Acos", arcs::acos),
    ("Acosh", hyperbolic::acosh),
    ("AffineGrid", spectra::affine_grid),
    ("ArgMax", choices::argument),
    ("ArgMin", choices::argument),
    ("Asin", arcs::asin),
    ("Asinh", hyperbolic::asinh),
    ("Atan", arcs::atan),
    ("Atanh", hyperbolic::atanh),
    ("BitShift", bits::shift),
    ("BitwiseAnd", bits::and),
    ("BitwiseNot", bits::not),
    ("BitwiseOr", bits::or),
    ("BitwiseXor", bits::xor),
    ("Celu", normalization::celu),
    ("Col2Im", pooling::col2_im),
    ("ConvTranspose", transposed::conv_transpose),
    ("Cosh", hyperbolic::cosh),
    ("DFT", spectra::dft),
    ("GlobalLpPool", pooling::global_lp_pool),
    ("Hardmax", normalization::hardmax),
    ("LpPool", pooling::lp_pool),
    ("MaxUnpool", pooling::max_unpool),
    ("Mean", normalization::mean),
    ("MeanVarianceNormalization", normalization::mean_variance),
    ("OneHot", choices::one_hot),
    ("Pad", pads::pad),
    ("Resize", widen::resize),
    ("ScatterElements", scatter::elements),
    ("ScatterND", scatter::slices),
    ("Sinh", hyperbolic::sinh),
    ("Tan", hyperbolic::tan),
    ("Where", choices::select),
];

/// Returns the model as the CUDA provider runs it, which it computes the same as; it is the model itself where nothing
/// is to do. `own` names the operators of this program's domain that are registered for CUDA.
pub fn lower<'a>(model: &'a Model, own: &[&str]) -> Cow<'a, Model> {
    let mut lowered = match upgrade(model) {
        Ok(known) if known.opset() != model.opset() => Cow::Owned(known),
        _ => Cow::Borrowed(model),
    };
    for _ in 0..PASSES {
        let judge = Judge { model: &lowered, own };
        let Some(graph) = lowered_graph(&judge, &lowered.graph, Host::of(&lowered.graph)) else { break };
        lowered = Cow::Owned(lowered.with_graph(prune(&graph)));
    }
    lowered
}

fn lowered_graph(judge: &Judge<'_>, graph: &Graph, mut host: Host) -> Option<Graph> {
    let mut changed = false;
    let result = rebuild(graph, |b, node, inputs| {
        let verdict = judge.node(graph, node, &mut host);
        if let Some((reason, _)) = verdict
            && let Some(outputs) = rewritten(b, node, inputs, &reason, judge.opset(node))
        {
            changed = true;
            return Some(in_place_of(b, graph, node, &outputs));
        }
        let mut with_subgraphs = node.clone();
        let mut inside = false;
        for (_, value) in with_subgraphs.attributes.iter_mut() {
            if let Attribute::Graph(inner) = value
                && let Some(lowered) = lowered_graph(judge, &inner.graph, host.inner(inner))
            {
                inner.graph = lowered;
                inside = true;
            }
        }
        changed |= inside;
        inside.then(|| b.copy_node(graph, &with_subgraphs, inputs))
    });
    changed.then_some(result)
}

fn rewritten(
    b: &mut Builder,
    node: &Node,
    inputs: &[Option<ValueId>],
    reason: &Reason,
    opset: i64,
) -> Option<Vec<ValueId>> {
    b.enter(
        node.origin.clone(),
        &if node.name.is_empty() { format!("{}/cuda", node.op.name) } else { format!("{}/cuda", node.name) },
    );
    let mut call = Call { b, node, inputs, opset };
    if *reason == Reason::Inputs {
        return on_device(&mut call);
    }
    let standard = REWRITES.iter().find(|(op, _)| node.op.is(op));
    standard.and_then(|(_, rewrite)| rewrite(&mut call)).or_else(|| widen::widened(&mut call))
}

/// Reads copies of graph inputs, which are on the device, where ONNX Runtime would take them for values on the host. The
/// sum or the largest of one value is the value, and no optimizer takes it away.
fn on_device(call: &mut Call<'_>) -> Option<Vec<ValueId>> {
    let mut inputs = Vec::new();
    for input in call.inputs {
        let given = input.filter(|id| call.b.graph().inputs().contains(id));
        inputs.push(match given {
            Some(id) => match call.b.fact(id).dtype? {
                dtype if dtype.is_float() => Some(call.b.op("Sum", &[id], Attributes::none())),
                DType::I32 | DType::I64 | DType::U32 | DType::U64 => Some(call.b.op("Max", &[id], Attributes::none())),
                _ => return None,
            },
            None => *input,
        });
    }
    Some(call.b.ops(&call.node.op, &inputs, call.node.attributes.clone(), call.node.outputs.len()))
}

/// Gives values the names and facts of a node's outputs, whose place they take.
fn in_place_of(b: &mut Builder, graph: &Graph, node: &Node, outputs: &[ValueId]) -> Replaced {
    let pairs = node.outputs.iter().enumerate().map(|(index, old)| (*old).zip(outputs.get(index).copied()));
    let mut replaced = Vec::new();
    for pair in pairs {
        if let Some((old, new)) = pair {
            b.refine(new, graph.fact(old));
            b.rename(new, graph.value_name(old));
        }
        replaced.push(pair.map(|(_, new)| new));
    }
    replaced
}

/// A node to replace.
struct Call<'a> {
    b: &'a mut Builder,
    node: &'a Node,
    inputs: &'a [Option<ValueId>],
    opset: i64,
}

impl Call<'_> {
    fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    fn fact(&self, index: usize) -> Option<&Fact> {
        Some(self.b.fact(self.input(index)?))
    }

    fn dtype(&self, index: usize) -> Option<DType> {
        self.fact(index)?.dtype
    }

    fn rank(&self, index: usize) -> Option<i64> {
        i64::try_from(self.fact(index)?.rank()?).ok()
    }

    /// Returns the sizes of an input where all are fixed.
    fn sizes(&self, index: usize) -> Option<Vec<i64>> {
        self.fact(index)?.sizes()?.into_iter().map(|size| i64::try_from(size).ok()).collect()
    }

    /// Returns the integers of an input that is constant.
    fn ints(&self, index: usize) -> Option<Vec<i64>> {
        self.b.graph().constant(self.input(index)?)?.to_ints()
    }

    fn attribute(&self, name: &str, default: i64) -> Option<i64> {
        self.node.attributes.int(name, default).ok()
    }

    /// Returns the attribute `axis`, counted from the front.
    fn axis(&self, default: i64) -> Option<i64> {
        let (axis, rank) = (self.attribute("axis", default)?, self.rank(0)?);
        let axis = if axis < 0 { axis + rank } else { axis };
        (0..rank).contains(&axis).then_some(axis)
    }

    /// Returns the node's operator again on other inputs.
    fn again(&mut self, inputs: &[ValueId]) -> ValueId {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        self.b.ops(&self.node.op, &inputs, self.node.attributes.clone(), 1)[0]
    }

    /// Returns the size of an input along an axis as an int64 vector of one: a constant where it is fixed.
    fn size_along(&mut self, index: usize, axis: i64) -> Option<ValueId> {
        let x = self.input(index)?;
        if let Some(size) = self.b.fact(x).dim(axis)?.known() {
            return Some(self.b.ints("size", &[i64::try_from(size).ok()?]));
        }
        let attributes = Attributes::none().with("start", axis).with("end", axis + 1);
        Some(self.b.op("Shape", &[x], attributes))
    }

    fn slice(&mut self, x: ValueId, axis: i64, from: i64, to: i64, step: i64) -> ValueId {
        let [from, to, axis, step] = [from, to, axis, step].map(|number| self.b.ints("slice", &[number]));
        self.b.op("Slice", &[x, from, to, axis, step], Attributes::none())
    }
}

/// Computes in float32 what is given in a narrower floating-point dtype.
fn in_float(call: &mut Call<'_>, f: fn(&mut Builder, ValueId) -> ValueId) -> Option<Vec<ValueId>> {
    let x = call.input(0)?;
    match call.dtype(0)? {
        DType::F32 => Some(vec![f(call.b, x)]),
        dtype @ (DType::F16 | DType::BF16) => {
            let wide = call.b.cast(x, DType::F32);
            let y = f(call.b, wide);
            Some(vec![call.b.cast(y, dtype)])
        }
        _ => None,
    }
}

/// As [`in_float`], and float64 as it is.
fn in_wide_float(call: &mut Call<'_>, f: fn(&mut Builder, ValueId) -> ValueId) -> Option<Vec<ValueId>> {
    match (call.dtype(0)?, call.input(0)?) {
        (DType::F64, x) => Some(vec![f(call.b, x)]),
        _ => in_float(call, f),
    }
}
