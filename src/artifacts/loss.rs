//! Which loss a graph ends in.
//!
//! Recognised are the losses of the artifact tools, taken as means:
//!
//! ```text
//! cross-entropy         SoftmaxCrossEntropyLoss(p, t[, class weights])
//! mse                   ReduceMean(Pow(p - t, 2)), ReduceMean((p - t) * (p - t))
//! l1                    ReduceMean(Abs(p - t))
//! binary-cross-entropy  ReduceMean(-(log(s) t [w] + log(1 - s) (1 - t))), s = sigmoid(p)
//! ```

use crate::graph::{Dim, Fact, Graph, Node, ValueId};
use crate::losses::{LossKind, LossSpec};

/// A loss that a graph was found to end in.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundLoss {
    /// The loss.
    pub spec: LossSpec,
    /// Name of the value that it compares.
    pub prediction: String,
    /// Name of the graph input that it compares with.
    pub target: String,
}

/// A loss in its graph.
pub(super) struct Match {
    pub spec: LossSpec,
    pub prediction: ValueId,
    pub target: ValueId,
    /// What the target's shape says of the prediction.
    pub prediction_fact: Fact,
    /// Why this program's loss of that kind is another one.
    pub differs: Option<String>,
}

/// Returns the loss that computes a scalar.
pub(super) fn find(graph: &Graph, loss: ValueId) -> Option<Match> {
    let node = graph.node(graph.producer(loss)?);
    if matches!(node.op.name.as_str(), "SoftmaxCrossEntropyLoss" | "SoftmaxCrossEntropyLossInternal") {
        return cross_entropy(graph, node, loss);
    }
    let differs = match node.op.name.as_str() {
        "ReduceMean" => None,
        "ReduceSum" => Some("it is a sum over the batch, not a mean".to_string()),
        _ => return None,
    };
    let inner = node.input(0)?;
    let (kind, prediction, target, weight) = regression(graph, inner).or_else(|| binary(graph, inner))?;
    let spec = LossSpec { pos_weight: weight, ..LossSpec::new(kind) };
    Some(Match { spec, prediction, target, prediction_fact: graph.fact(target).clone(), differs })
}

fn cross_entropy(graph: &Graph, node: &Node, loss: ValueId) -> Option<Match> {
    let (prediction, target) = (node.input(0)?, node.input(1)?);
    let mut spec = LossSpec::new(LossKind::CrossEntropy);
    let target_fact = graph.fact(target);
    let rank = graph.fact(prediction).rank().or(target_fact.rank().map(|rank| rank + 1));
    if rank != Some(2) {
        spec.class_axis = Some(1);
    }
    let attribute = node.attributes.get("ignore_index").and_then(|_| node.attributes.int("ignore_index", 0).ok());
    let input = node.input(3).and_then(|id| graph.constant(id)?.to_ints()?.first().copied());
    spec.ignore_index = attribute.or(input);
    if let Some(weights) = node.input(2) {
        spec.class_weights = Some(graph.constant(weights)?.to_vec::<f32>().ok()?);
    }
    let reduction = node.attributes.text("reduction", "mean").ok()?;
    let differs = (reduction != "mean").then(|| format!("its reduction is \"{reduction}\", not \"mean\""));
    let mut dims = target_fact.shape.clone();
    if let Some(dims) = dims.as_mut().filter(|dims| !dims.is_empty()) {
        dims.insert(1, Dim::Unknown);
    }
    let prediction_fact = Fact { dtype: graph.fact(loss).dtype, shape: dims };
    Some(Match { spec, prediction, target, prediction_fact, differs })
}

type Parts = (LossKind, ValueId, ValueId, Option<Vec<f32>>);

fn made_by<'a>(graph: &'a Graph, value: ValueId, op: &str) -> Option<&'a Node> {
    Some(graph.node(graph.producer(value)?)).filter(|node| node.op.is(op))
}

fn regression(graph: &Graph, value: ValueId) -> Option<Parts> {
    let (kind, difference) = if let Some(node) = made_by(graph, value, "Abs") {
        (LossKind::L1, node.input(0)?)
    } else if let Some(node) = made_by(graph, value, "Pow") {
        if number(graph, node.input(1)?) != Some(2.0) {
            return None;
        }
        (LossKind::Mse, node.input(0)?)
    } else {
        let node = made_by(graph, value, "Mul").filter(|node| node.input(0) == node.input(1))?;
        (LossKind::Mse, node.input(0)?)
    };
    let node = made_by(graph, difference, "Sub")?;
    let (a, b) = (node.input(0)?, node.input(1)?);
    let is_input = |value: &ValueId| graph.inputs().contains(value);
    match (is_input(&a), is_input(&b)) {
        (_, true) => Some((kind, a, b, None)),
        (true, false) => Some((kind, b, a, None)),
        _ => None,
    }
}

fn binary(graph: &Graph, value: ValueId) -> Option<Parts> {
    let sum = made_by(graph, made_by(graph, value, "Neg")?.input(0)?, "Add")?;
    let (positive, negative) = (sum.input(0)?, sum.input(1)?);
    let (log, target, weight) = logarithm(graph, positive)?;
    let sigmoid = made_by(graph, made_by(graph, log, "Log")?.input(0)?, "Sigmoid")?;
    let (other, rest, none) = logarithm(graph, negative)?;
    let rest = complement(graph, rest)?;
    let complemented = complement(graph, made_by(graph, other, "Log")?.input(0)?)?;
    if rest != target || Some(complemented) != sigmoid.output(0) || none.is_some() {
        return None;
    }
    Some((LossKind::BinaryCrossEntropy, sigmoid.input(0)?, target, weight))
}

/// Returns the logarithm, the other factor and the constant weights of a product.
fn logarithm(graph: &Graph, product: ValueId) -> Option<(ValueId, ValueId, Option<Vec<f32>>)> {
    let factors = |value| {
        let node = made_by(graph, value, "Mul")?;
        Some((node.input(0)?, node.input(1)?))
    };
    let (mut a, mut b) = factors(product)?;
    let weights = graph.constant(b).map(|weights| weights.to_vec::<f32>().ok());
    if weights.is_some() {
        (a, b) = factors(a)?;
    }
    let (log, other) = if made_by(graph, a, "Log").is_some() { (a, b) } else { (b, a) };
    match weights {
        None => Some((log, other, None)),
        Some(weights) => Some((log, other, Some(weights?))),
    }
}

/// Returns `x` of `1 - x`.
fn complement(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let node = made_by(graph, value, "Sub")?;
    (number(graph, node.input(0)?) == Some(1.0)).then(|| node.input(1)).flatten()
}

fn number(graph: &Graph, value: ValueId) -> Option<f64> {
    match graph.constant(value)?.to_f64s()?.as_slice() {
        [one] => Some(*one),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attributes, Builder, DType, Tensor};

    /// Returns a batch of scores, of targets of a dtype and shape, and the builder they are in.
    fn start(dtype: DType, target: &[usize]) -> (Builder, ValueId, ValueId) {
        let mut b = Builder::new("loss");
        let x = b.input("x", Fact::fixed(DType::F32, &[4, 3]));
        let t = b.input("t", Fact::fixed(dtype, target));
        let p = b.unary("Tanh", x);
        (b, p, t)
    }

    fn reduced(b: &mut Builder, op: &str, value: ValueId) -> ValueId {
        b.op(op, &[value], Attributes::none().with("keepdims", 0))
    }

    fn shown(b: Builder, p: ValueId, t: ValueId, loss: ValueId) -> Result<String, String> {
        let graph = b.finish();
        let found = find(&graph, loss).ok_or("none")?;
        assert_eq!((found.prediction, found.target), (p, t));
        let spec = serde_json::to_value(&found.spec).unwrap();
        let given = ["class_axis", "class_weights", "ignore_index", "pos_weight"];
        let options = given.into_iter().filter_map(|name| Some(format!(" {name}={}", spec.get(name)?)));
        match found.differs {
            Some(reason) => Err(reason),
            None => Ok(format!("{}{}", found.spec.kind, options.collect::<String>())),
        }
    }

    #[test]
    fn regressions() {
        let cases = [
            ("Sub Abs ReduceMean", Ok("l1")),
            ("Sub- Abs ReduceMean", Ok("l1")),
            ("Sub Pow2 ReduceMean", Ok("mse")),
            ("Sub Mul ReduceMean", Ok("mse")),
            ("Sub Pow3 ReduceMean", Err("none")),
            ("Add Abs ReduceMean", Err("none")),
            ("Sub Abs ReduceMax", Err("none")),
            ("Sub Abs ReduceSum", Err("it is a sum over the batch, not a mean")),
        ];
        for (ops, expected) in cases {
            let (mut b, p, t) = start(DType::F32, &[4, 3]);
            let mut value = p;
            for op in ops.split(' ') {
                value = match op {
                    "Sub" | "Add" => b.op(op, &[p, t], Attributes::none()),
                    "Sub-" => b.sub(t, p),
                    "Pow2" | "Pow3" => {
                        let exponent = b.scalar(DType::F32, if op == "Pow2" { 2.0 } else { 3.0 });
                        b.op("Pow", &[value, exponent], Attributes::none())
                    }
                    "Mul" => b.mul(value, value),
                    "Abs" => b.unary("Abs", value),
                    reduce => reduced(&mut b, reduce, value),
                };
            }
            assert_eq!(shown(b, p, t, value), expected.map(str::to_string).map_err(str::to_string), "{ops}");
        }
    }

    #[test]
    fn cross_entropies() {
        struct Case {
            labels: &'static [usize],
            attributes: Attributes,
            weights: bool,
            expected: Result<&'static str, &'static str>,
        }
        let none = Attributes::none;
        let cases = [
            Case { labels: &[4], attributes: none(), weights: false, expected: Ok("cross-entropy") },
            Case {
                labels: &[4],
                attributes: none().with("ignore_index", -1).with("reduction", "mean"),
                weights: true,
                expected: Ok("cross-entropy class_weights=[1.0,2.0,0.5] ignore_index=-1"),
            },
            Case {
                labels: &[4],
                attributes: none().with("reduction", "sum"),
                weights: false,
                expected: Err("its reduction is \"sum\", not \"mean\""),
            },
        ];
        for Case { labels, attributes, weights, expected } in cases {
            let (mut b, p, t) = start(DType::I64, labels);
            let mut inputs = vec![p, t];
            if weights {
                inputs.push(b.initializer("w", Tensor::from_vec(&[3], vec![1f32, 2.0, 0.5])));
            }
            let loss = b.op("SoftmaxCrossEntropyLoss", &inputs, attributes);
            assert_eq!(shown(b, p, t, loss), expected.map(str::to_string).map_err(str::to_string));
        }
    }

    #[test]
    fn binary_cross_entropies() {
        for (weighted, same, expected) in [
            (false, true, Ok("binary-cross-entropy")),
            (true, true, Ok("binary-cross-entropy pos_weight=[2.0]")),
            (false, false, Err("none")),
        ] {
            let (mut b, p, t) = start(DType::F32, &[4, 3]);
            let sigmoid = b.unary("Sigmoid", p);
            let one = b.initializer("one", Tensor::from_vec(&[1], vec![1f32]));
            let log = b.unary("Log", sigmoid);
            let mut positive = b.mul(log, t);
            if weighted {
                let weight = b.initializer("weight", Tensor::from_vec(&[1], vec![2f32]));
                positive = b.mul(positive, weight);
            }
            let rest = b.sub(one, if same { sigmoid } else { p });
            let (log, other) = (b.unary("Log", rest), b.sub(one, t));
            let negative = b.mul(log, other);
            let sum = b.add(positive, negative);
            let negated = b.unary("Neg", sum);
            let loss = reduced(&mut b, "ReduceMean", negated);
            assert_eq!(shown(b, p, t, loss), expected.map(str::to_string).map_err(str::to_string));
        }
    }
}
