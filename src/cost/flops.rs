//! Flops of one node, from the facts of its values.
//!
//! A multiply-add is two flops. `n` is the number of elements of the first output, `m` of the
//! first input:
//!
//! | operators | forward | gradient with respect to an input |
//! |---|---|---|
//! | `Conv`, `ConvTranspose`, `Gemm`, `MatMul`, `Einsum` | 2 for each product; `n` for the bias | data and weight: as the products forward; bias: `n` |
//! | `LSTM`, `GRU`, `RNN` | 2 for each product | data, weight, recurrence: as the products that it has part in |
//! | normalisations (own statistics) | 5 `n` | data 8 `n`, scale 2 `n`, bias `n` |
//! | `BatchNormalization` (running statistics) | 2 `n` | data `n`, scale 2 `n`, bias `n` |
//! | `Softmax`, `LogSoftmax` | 5 `n` | 4 `n` |
//! | pools | window times `n` | the same |
//! | global pools, reductions, `CumSum` | `m` | `m` |
//! | `Resize` (not nearest), composite activations (`Gelu`, `Mish`, ..) | 5 `n` | 5 `n` |
//! | other pointwise operators | `n` | `n` |
//! | data movement | 0 | 0; `n` where gradients add up (`Gather`, `Expand`, `Tile`) |
//! | on integers, booleans or strings | 0 | 0 |
//!
//! A control-flow operator and one of another domain have no count.

use crate::graph::{DType, Graph, Node, ValueId};
use crate::modules::uses::carries_gradient;

/// Flops of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFlops {
    /// Forward pass.
    pub forward: u64,
    /// Gradient with respect to each input, by position; 0 where there is none.
    pub input_grads: Vec<u64>,
}

/// Returns the flops of a node; `None` when a shape they depend on is not fixed, or the operator
/// is not known.
pub fn node_flops(graph: &Graph, node: &Node) -> Option<NodeFlops> {
    let dtype = node.outputs.iter().flatten().find_map(|output| graph.fact(*output).dtype);
    let op = node.op.name.as_str();
    if dtype.is_some_and(|dtype| !dtype.is_float()) || matches!(op, "Shape" | "Size" | "Constant" | "ConstantOfShape") {
        return Some(NodeFlops { forward: 0, input_grads: vec![0; node.inputs.len()] });
    }
    if !node.op.domain.is_empty() {
        return None;
    }
    let count = Count { graph, node };
    let (forward, grads) = count.run()?;
    let slots = node.inputs.len();
    let grad = |index: usize| {
        let value = node.input(index)?;
        let float = graph.fact(value).dtype.is_none_or(DType::is_float);
        (float && carries_gradient(node, index)).then(|| grads.get(index).or(grads.last()).copied().unwrap_or(0))
    };
    Some(NodeFlops { forward, input_grads: (0..slots).map(|index| grad(index).unwrap_or(0)).collect() })
}

/// Forward flops and gradient flops by input; the last entry stands for all further inputs.
type Counted = Option<(u64, Vec<u64>)>;

struct Count<'a> {
    graph: &'a Graph,
    node: &'a Node,
}

impl Count<'_> {
    fn run(&self) -> Counted {
        let flat = |per_element: u64, count: u64| {
            let flops = per_element.saturating_mul(count);
            Some((flops, vec![flops]))
        };
        match self.node.op.name.as_str() {
            "Conv" => self.conv(self.output()?, self.sizes(1)?.get(1..)?),
            "ConvTranspose" => self.conv(self.input(0)?, self.sizes(1)?.get(1..)?),
            "Gemm" => {
                let inner = *self.sizes(0)?.get(usize::from(self.flag("transA", 0)? == 0))?;
                let n = self.output()?;
                let products = n.saturating_mul(inner).saturating_mul(2);
                let bias = if self.node.input(2).is_some() { n } else { 0 };
                Some((products.saturating_add(bias), vec![products, products, bias]))
            }
            "MatMul" => flat(2, self.output()?.saturating_mul(*self.sizes(0)?.last()?)),
            "Einsum" => self.einsum(),
            "LSTM" => self.recurrent(4),
            "GRU" => self.recurrent(3),
            "RNN" => self.recurrent(1),
            "BatchNormalization" => {
                let n = self.output()?;
                let own = self.flag("training_mode", 0)? == 1;
                let (forward, data) = if own { (5, 8) } else { (2, 1) };
                Some((n.saturating_mul(forward), vec![n.saturating_mul(data), n.saturating_mul(2), n]))
            }
            "LayerNormalization"
            | "InstanceNormalization"
            | "GroupNormalization"
            | "RMSNormalization"
            | "LpNormalization"
            | "MeanVarianceNormalization"
            | "LRN" => {
                let n = self.output()?;
                Some((n.saturating_mul(5), vec![n.saturating_mul(8), n.saturating_mul(2), n]))
            }
            "Softmax" | "LogSoftmax" => {
                let n = self.output()?;
                Some((n.saturating_mul(5), vec![n.saturating_mul(4)]))
            }
            "MaxPool" | "AveragePool" | "LpPool" => {
                let kernel = self.node.attributes.ints("kernel_shape").ok()??;
                let window = kernel.iter().map(|size| u64::try_from(*size).ok()).collect::<Option<Vec<_>>>()?;
                flat(product(&window), self.output()?)
            }
            "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" | "CumSum" => flat(1, self.input(0)?),
            name if name.starts_with("Reduce") => flat(1, self.input(0)?),
            "Resize" | "Upsample" => match self.node.attributes.text("mode", "nearest").ok()?.as_str() {
                "nearest" => Some((0, vec![self.output()?])),
                _ => flat(5, self.output()?),
            },
            "Gelu" | "Mish" | "HardSwish" | "Swish" | "Selu" | "Celu" | "Softplus" | "Softsign" => {
                flat(5, self.output()?)
            }
            "Gather" | "GatherElements" | "GatherND" | "Expand" | "Tile" => Some((0, vec![self.output()?])),
            "Identity" | "Reshape" | "Flatten" | "Transpose" | "Squeeze" | "Unsqueeze" | "Concat" | "Split"
            | "Slice" | "Pad" | "Cast" | "CastLike" | "Dropout" | "DepthToSpace" | "SpaceToDepth" | "TopK"
            | "ScatterElements" | "ScatterND" | "Trilu" | "Compress" | "ReverseSequence" | "RandomNormalLike"
            | "RandomUniformLike" | "RandomNormal" | "RandomUniform" | "Range" | "EyeLike" | "OneHot" | "MaxUnpool" => {
                Some((0, vec![0]))
            }
            "Abs" | "Acos" | "Acosh" | "Add" | "Asin" | "Asinh" | "Atan" | "Atanh" | "Ceil" | "Clip" | "Cos"
            | "Cosh" | "Div" | "Elu" | "Erf" | "Exp" | "Floor" | "HardSigmoid" | "LeakyRelu" | "Log" | "Max"
            | "Mean" | "Min" | "Mod" | "Mul" | "Neg" | "PRelu" | "Pow" | "Reciprocal" | "Relu" | "Round" | "Shrink"
            | "Sigmoid" | "Sign" | "Sin" | "Sinh" | "Sqrt" | "Sub" | "Sum" | "Tan" | "Tanh" | "ThresholdedRelu"
            | "Where" => flat(1, self.output()?),
            _ => None,
        }
    }

    fn flag(&self, name: &str, default: i64) -> Option<i64> {
        self.node.attributes.int(name, default).ok()
    }

    fn of(&self, value: ValueId) -> Option<Vec<u64>> {
        self.graph.fact(value).sizes()?.into_iter().map(|size| u64::try_from(size).ok()).collect()
    }

    fn sizes(&self, index: usize) -> Option<Vec<u64>> {
        self.of(self.node.input(index)?)
    }

    fn input(&self, index: usize) -> Option<u64> {
        Some(product(&self.sizes(index)?))
    }

    fn output(&self) -> Option<u64> {
        Some(product(&self.of(self.node.output(0)?)?))
    }

    /// Each of `count` elements meets the weight's elements past its first axis.
    fn conv(&self, count: u64, weight: &[u64]) -> Counted {
        let products = count.saturating_mul(product(weight)).saturating_mul(2);
        let bias = if self.node.input(2).is_some() { self.output()? } else { 0 };
        Some((products.saturating_add(bias), vec![products, products, bias]))
    }

    fn einsum(&self) -> Counted {
        let equation = self.node.attributes.text("equation", "").ok()?.replace(' ', "");
        if equation.contains('.') {
            return None;
        }
        let terms = equation.split("->").next()?.split(',');
        let mut sizes: Vec<(char, u64)> = Vec::new();
        for (index, term) in terms.enumerate() {
            for (letter, size) in term.chars().zip(self.sizes(index)?) {
                if !sizes.iter().any(|(other, _)| *other == letter) {
                    sizes.push((letter, size));
                }
            }
        }
        let all = product(&sizes.iter().map(|(_, size)| *size).collect::<Vec<_>>());
        let products = all.saturating_mul(2);
        Some((products, vec![products]))
    }

    fn recurrent(&self, gates: u64) -> Counted {
        let hidden = u64::try_from(self.flag("hidden_size", 0)?).ok().filter(|size| *size > 0)?;
        let (data, weight) = (self.sizes(0)?, self.sizes(1)?);
        let steps = product(data.get(..2)?).saturating_mul(*weight.first()?);
        let each = steps.saturating_mul(2 * gates).saturating_mul(hidden);
        let (data, state) = (each.saturating_mul(*data.get(2)?), each.saturating_mul(hidden));
        let bias = steps.saturating_mul(gates).saturating_mul(hidden);
        let forward = data.saturating_add(state).saturating_add(bias);
        Some((forward, vec![data.saturating_add(state), data, state, bias, 0, 0, 0, 0]))
    }
}

fn product(sizes: &[u64]) -> u64 {
    sizes.iter().fold(1, |product, size| product.saturating_mul(*size))
}
