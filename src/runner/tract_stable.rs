//! Operators that tract lacks in the form we need, in forms that it has.
//!
//! BatchNormalization in inference form takes only constants there; with parameters as inputs it
//! becomes arithmetic. `Celu` leaves `alpha` out of account there. And tract takes `LogSoftmax` as `log(Softmax)`, which is -inf where
//! a class is 104 below the largest, and `Softplus` as `log(1 + exp(x))`, which is inf from 89 on.

use super::{tract_einsum::einsum, tract_integers as integers, tract_special as special};
use crate::graph::{Attribute, Attributes, Builder, DType, Graph, Node, Subgraph, ValueId, rebuild};

/// Returns the graph, of opset 18 or later and of fixed sizes, with those operators replaced, also
/// in the graphs inside of it. With `shapes`, sizes that are known become constants.
pub(super) fn stable(graph: &Graph, shapes: bool) -> Graph {
    rebuild(graph, |b, node, inputs| {
        b.enter(node.origin.clone(), &format!("{}/stable", node.name));
        if let Some(last) = replaced(b, node, inputs, shapes) {
            return Some(b.copy_node(graph, &last, &last.inputs));
        }
        node.attributes.iter().any(|(_, value)| matches!(value, Attribute::Graph(_))).then(|| {
            let mut outer = node.clone();
            for (_, value) in outer.attributes.iter_mut() {
                if let Attribute::Graph(inner) = value {
                    let captures = std::mem::take(&mut inner.captures);
                    **inner = Subgraph { graph: stable(&inner.graph, shapes), captures };
                }
            }
            b.copy_node(graph, &outer, inputs)
        })
    })
}

/// Appends all nodes but the last one of those that take a node's place, and returns the last one.
fn replaced(b: &mut Builder, node: &Node, inputs: &[Option<ValueId>], shapes: bool) -> Option<Node> {
    if !node.op.domain.is_empty() {
        return None;
    }
    let axes = inputs.get(1).copied().flatten();
    match (inputs, node.op.name.as_str()) {
        (&[Some(x)], "LogSoftmax") => log_softmax(b, node, x),
        (&[Some(x)], "Celu") => celu(b, node, x),
        (&[Some(x)], "Softplus") => Some(softplus(b, node, x)),
        (&[Some(x), Some(scale), Some(bias), Some(mean), Some(var)], "BatchNormalization")
            if [scale, bias, mean, var].iter().any(|input| b.graph().constant(*input).is_none()) =>
        {
            batch_norm(b, node, x, [scale, bias, mean, var])
        }
        (_, "Mean") => mean(b, node, inputs),
        (_, "Einsum") => einsum(b, node, inputs),
        (&[Some(x)], "Cast") => integers::cast(b, node, x),
        (&[Some(x)], "Shape") if shapes => integers::shape(b, node, x),
        (&[Some(x)], "Size") if shapes => integers::size(b, node, x),
        (&[Some(x), Some(y)], "Mod") => integers::modulo(b, node, x, y),
        (&[Some(x), Some(y)], "Mul") if x == y => integers::square(b, node, x),
        (&[Some(x), Some(y)], "Pow") => integers::pow(b, node, x, y),
        (&[Some(start), Some(limit), Some(step)], "Range") => integers::range(b, node, [start, limit, step]),
        (&[Some(x), ..], "ReduceMean" | "ReduceSum") if b.dtype(x) == DType::F64 => special::double(b, node, x, axes),
        (&[Some(x), ..], "ReduceSum" | "ReduceProd") => integers::reduce(b, node, x, axes),
        (&[Some(x), ..], _) if !special::holds(b, x) => None,
        (&[Some(x)], "IsNaN") => Some(special::is_nan(b, node, x)),
        (&[Some(x)], "IsInf") => special::is_inf(b, node, x),
        (&[Some(x)], "Relu") => Some(special::relu(b, node, x)),
        (&[Some(x), ..], "Clip") => Some(special::clip(b, node, x, [axes, inputs.get(2).copied().flatten()])),
        (&[Some(x)], "Sigmoid") => Some(special::sigmoid(b, node, x)),
        (&[Some(x)], "Tanh") => Some(special::tanh(b, node, x)),
        (_, "Max" | "Min") => special::extremum(b, node, inputs),
        (&[Some(x), ..], "ReduceMax" | "ReduceMin") => special::reduced_extremum(b, node, x, axes),
        (&[Some(x), ..], "ReduceLogSumExp") => special::log_sum_exp(b, node, x, axes),
        _ => None,
    }
}

/// `z - log(sum(exp(z)))` of `z = x - max(x)`; the last node is returned, not appended.
fn log_softmax(b: &mut Builder, node: &Node, x: ValueId) -> Option<Node> {
    let axis = node.attributes.int("axis", -1).ok()?;
    let top = b.reduce("ReduceMax", x, &[axis], true);
    let z = b.sub(x, top);
    let exp = b.unary("Exp", z);
    let sum = b.reduce("ReduceSum", exp, &[axis], true);
    let log = b.unary("Log", sum);
    Some(last(node, "Sub", &[z, log]))
}

/// `max(x, 0) + Softplus(-|x|)`; the last node is returned, not appended.
fn softplus(b: &mut Builder, node: &Node, x: ValueId) -> Node {
    let magnitude = b.unary("Abs", x);
    let negative = b.unary("Neg", magnitude);
    let small = b.unary("Softplus", negative);
    let large = positive(b, x);
    last(node, "Add", &[large, small])
}

/// `max(x, 0)`, NaN where x is.
fn positive(b: &mut Builder, x: ValueId) -> ValueId {
    let zero = b.like(x, 0.0);
    let below = b.op("Less", &[x, zero], Attributes::none());
    b.select(below, zero, x)
}

/// `max(x, 0) + alpha * (exp(min(x, 0) / alpha) - 1)`; the last node is returned, not appended.
fn celu(b: &mut Builder, node: &Node, x: ValueId) -> Option<Node> {
    let alpha = f64::from(node.attributes.float("alpha", 1.0).ok()?);
    let above = positive(b, x);
    let negative = b.sub(x, above);
    let scaled = b.scale(negative, 1.0 / alpha);
    let exp = b.unary("Exp", scaled);
    let below = b.shift(exp, -1.0);
    let below = b.scale(below, alpha);
    Some(last(node, "Add", &[above, below]))
}

/// `x * factor + (bias - mean * factor)` of `factor = scale / sqrt(var + epsilon)`; the last node
/// is returned, not appended.
fn batch_norm(b: &mut Builder, node: &Node, x: ValueId, channel: [ValueId; 4]) -> Option<Node> {
    let epsilon = f64::from(node.attributes.float("epsilon", 1e-5).ok()?);
    let mut shape = vec![1; b.fact(x).rank()?.saturating_sub(1)];
    *shape.first_mut()? = -1;
    let [scale, bias, mean, var] = channel.map(|value| b.reshape(value, &shape));
    let shifted = b.shift(var, epsilon);
    let std = b.unary("Sqrt", shifted);
    let factor = b.div(scale, std);
    let product = b.mul(x, factor);
    let moved = b.mul(mean, factor);
    let offset = b.sub(bias, moved);
    Some(last(node, "Add", &[product, offset]))
}

/// The sum of the values by their number; the last node is returned, not appended.
fn mean(b: &mut Builder, node: &Node, inputs: &[Option<ValueId>]) -> Option<Node> {
    let values: Vec<ValueId> = inputs.iter().copied().collect::<Option<_>>()?;
    let sum = b.op("Sum", &values, Attributes::none());
    let number = b.like(sum, values.len() as f64);
    Some(last(node, "Div", &[sum, number]))
}

/// Returns a standard operator of one output in the place of a node.
pub(super) fn last(node: &Node, op: &str, inputs: &[ValueId]) -> Node {
    let op = crate::graph::OpId::standard(op);
    Node { op, inputs: inputs.iter().copied().map(Some).collect(), attributes: Attributes::none(), ..node.clone() }
}

#[cfg(test)]
mod tests {
    use crate::graph::{Attributes, Builder, DType, Fact, Model, Tensor};
    use crate::runner::{Tract, evaluate};
    use std::collections::BTreeMap;

    #[test]
    fn large_numbers_stay_finite() {
        let mut b = Builder::new("large");
        let x = b.input("x", Fact::fixed(DType::F32, &[2, 3]));
        let logs = b.op("LogSoftmax", &[x], Attributes::none().with("axis", 0));
        let soft = b.unary("Softplus", x);
        b.mark_output(logs);
        b.mark_output(soft);
        let opsets = BTreeMap::from([(String::new(), 18)]);
        let model = Model { graph: b.finish(), opsets, ir_version: 8, ..Model::default() };
        let x = Tensor::from_vec::<f32>(&[2, 3], vec![-200.0, 500.0, 0.0, 300.0, -500.0, 0.0]);
        let outputs = evaluate(&mut Tract::new(), &model, &[("x", &x)]).unwrap();
        let half = -f32::ln(2.0);
        assert_eq!(outputs[0].to_vec::<f32>().unwrap(), [-500.0, 0.0, half, 0.0, -1000.0, half]);
        assert_eq!(outputs[1].to_vec::<f32>().unwrap(), [0.0, 500.0, -half, 300.0, 0.0, -half]);
    }
}
