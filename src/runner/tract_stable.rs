//! Operators that tract lacks in the form we need, in forms that it has.
//!
//! BatchNormalization in inference form takes only constants there; with parameters as inputs it
//! becomes arithmetic. `Celu` leaves `alpha` out of account there. And tract takes `LogSoftmax` as `log(Softmax)`, which is -inf where
//! a class is 104 below the largest, and `Softplus` as `log(1 + exp(x))`, which is inf from 89 on.

use crate::graph::{Attributes, Builder, Graph, Node, ValueId, rebuild};

/// Returns the graph, of opset 18 or later, with those operators replaced.
pub(super) fn stable(graph: &Graph) -> Graph {
    let concerned =
        |node: &Node| ["BatchNormalization", "Celu", "LogSoftmax", "Softplus"].iter().any(|op| node.op.is(op));
    if !graph.nodes().iter().any(concerned) {
        return graph.clone();
    }
    rebuild(graph, |b, node, inputs| {
        b.enter(node.origin.clone(), &format!("{}/stable", node.name));
        let last = match (inputs, node.op.to_string().as_str()) {
            (&[Some(x)], "LogSoftmax") => log_softmax(b, node, x),
            (&[Some(x)], "Celu") => celu(b, node, x),
            (&[Some(x)], "Softplus") => Some(softplus(b, node, x)),
            (&[Some(x), Some(scale), Some(bias), Some(mean), Some(var)], "BatchNormalization")
                if [scale, bias, mean, var].iter().any(|input| b.graph().constant(*input).is_none()) =>
            {
                batch_norm(b, node, x, [scale, bias, mean, var])
            }
            _ => None,
        }?;
        Some(b.copy_node(graph, &last, &last.inputs))
    })
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
    let large = b.unary("Relu", x);
    last(node, "Add", &[large, small])
}

/// `max(x, 0) + alpha * (exp(min(x, 0) / alpha) - 1)`; the last node is returned, not appended.
fn celu(b: &mut Builder, node: &Node, x: ValueId) -> Option<Node> {
    let alpha = f64::from(node.attributes.float("alpha", 1.0).ok()?);
    let zero = b.like(x, 0.0);
    let negative = b.op("Min", &[x, zero], Attributes::none());
    let scaled = b.scale(negative, 1.0 / alpha);
    let exp = b.unary("Exp", scaled);
    let below = b.shift(exp, -1.0);
    let below = b.scale(below, alpha);
    let above = b.unary("Relu", x);
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

fn last(node: &Node, op: &str, inputs: &[ValueId]) -> Node {
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
