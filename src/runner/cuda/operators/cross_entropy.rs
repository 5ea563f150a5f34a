//! Softmax and cross entropy as one, and its gradient.

use super::super::gpu::Arguments;
use super::super::kernels::CROSS_ENTROPY as SOURCE;
use super::rows::{Rows, threads};
use super::{Array, Attributes, Compute, DATA, Definition, FLOAT, INT, Node, OPTIONAL_FLOAT, long};

pub(super) static SOFTMAX_CROSS_ENTROPY: Definition = Definition {
    name: "SoftmaxCrossEntropy",
    inputs: &[DATA, INT, OPTIONAL_FLOAT],
    outputs: &[FLOAT, OPTIONAL_FLOAT, OPTIONAL_FLOAT],
    make: |node| Ok(Box::new(Forward(Loss::of(node)))),
};

pub(super) static SOFTMAX_CROSS_ENTROPY_GRAD: Definition = Definition {
    name: "SoftmaxCrossEntropyGrad",
    inputs: &[FLOAT, DATA, INT, FLOAT, FLOAT, OPTIONAL_FLOAT],
    outputs: &[DATA],
    make: |node| Ok(Box::new(Backward(Loss::of(node)))),
};

/// What the loss depends on beside its inputs.
struct Loss {
    axis: i64,
    ignore: i64,
    smoothing: f32,
}

/// `[outer, classes, inner]`
struct Sizes {
    outer: usize,
    classes: usize,
    inner: usize,
}

impl Loss {
    fn of(node: &dyn Attributes) -> Loss {
        Loss {
            axis: node.int("axis").unwrap_or(-1),
            ignore: node.int("ignore_index").unwrap_or(-100),
            smoothing: node.float("label_smoothing").unwrap_or(0.0),
        }
    }

    fn sizes(&self, x: &Array, target: &Array, weights: Option<&Array>) -> Result<Sizes, String> {
        let rank = long(x.shape.len());
        let axis = usize::try_from(if self.axis < 0 { self.axis + rank } else { self.axis });
        let axis = axis.ok().filter(|axis| *axis < x.shape.len());
        let axis = axis.ok_or_else(|| format!("axis {} of a shape {:?}", self.axis, x.shape))?;
        let [outer, inner] = [&x.shape[..axis], &x.shape[axis + 1..]].map(|sizes| sizes.iter().product());
        let classes = x.shape[axis];
        if target.count() != outer * inner || weights.is_some_and(|weights| weights.count() != classes) {
            return Err(format!("logits of {:?} have targets of {:?}, or other weights", x.shape, target.shape));
        }
        Ok(Sizes { outer, classes, inner })
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct LossArguments {
    x: u64,
    target: u64,
    weights: u64,
    log_sum: u64,
    scores: u64,
    dloss: u64,
    total: u64,
    dx: u64,
    rows: i64,
    classes: i64,
    inner: i64,
    ignore: i64,
    smoothing: f32,
    unused: u32,
}

// SAFETY: the fields of `cross_entropy_arguments` in cross_entropy.cu, without padding.
unsafe impl Arguments for LossArguments {}

#[repr(C)]
#[derive(Clone, Copy)]
struct SumArguments {
    scores: u64,
    parts: u64,
    loss: u64,
    total: u64,
    count: i64,
}

// SAFETY: the fields of `cross_entropy_sum_arguments` in cross_entropy.cu, without padding.
unsafe impl Arguments for SumArguments {}

impl Loss {
    fn arguments(&self, sizes: &Sizes, [x, target]: [&Array; 2], weights: Option<&Array>) -> LossArguments {
        LossArguments {
            x: x.at,
            target: target.at,
            weights: weights.map_or(0, |weights| weights.at),
            log_sum: 0,
            scores: 0,
            dloss: 0,
            total: 0,
            dx: 0,
            rows: long(sizes.outer * sizes.inner),
            classes: long(sizes.classes),
            inner: long(sizes.inner),
            ignore: self.ignore,
            smoothing: self.smoothing,
            unused: 0,
        }
    }
}

struct Forward(Loss);

impl Compute for Forward {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let (x, target, weights) = (node.input(0)?, node.input(1)?, node.find(2)?);
        let sizes = self.0.sizes(&x, &target, weights.as_ref())?;
        let rows = sizes.outer * sizes.inner;
        let loss = node.output(0, &[])?;
        let [log_sum, total] = [node.wanted(1, &target.shape)?, node.wanted(2, &[])?];
        let at = |array: Option<Array>| array.map_or(0, |array| array.at);
        let (gpu, element) = (node.gpu(), node.element());
        let most = gpu.processors() as usize * 4;
        let scores = gpu.scratch((rows + most) * 8)?;
        let parts = scores + long(rows * 8).unsigned_abs();
        let arguments =
            LossArguments { log_sum: at(log_sum), scores, ..self.0.arguments(&sizes, [&x, &target], weights.as_ref()) };
        if rows > 0 && sizes.inner > 1 {
            gpu.each(&SOURCE, "cross_entropy_columns", element, rows, &arguments)?;
        } else if rows > 0 {
            let many = Rows { rows, width: sizes.classes }.at_once(element);
            let [warp, block] = match many {
                1 => ["cross_entropy_warp", "cross_entropy_block"],
                _ => ["cross_entropy_warp_many", "cross_entropy_block_many"],
            };
            let (name, of_block, threads) = if sizes.classes <= 1024 {
                (warp, 4, 128)
            } else {
                (block, 1, threads(sizes.classes / many, 4).min(512))
            };
            let blocks = rows.div_ceil(of_block).min(gpu.processors() as usize * 64);
            gpu.blocks(&SOURCE, name, element, [blocks, 1], threads, &arguments)?;
        }
        let blocks = rows.div_ceil(4096).min(most);
        let last = SumArguments { scores, parts: 0, loss: loss.at, total: at(total), count: long(rows) };
        if blocks <= 1 {
            return gpu.blocks(&SOURCE, "cross_entropy_sum", element, [1, 1], 512, &last);
        }
        let first = SumArguments { parts, loss: 0, total: 0, ..last };
        gpu.blocks(&SOURCE, "cross_entropy_sum", element, [blocks, 1], 512, &first)?;
        let last = SumArguments { scores: parts, count: long(blocks), ..last };
        gpu.blocks(&SOURCE, "cross_entropy_sum", element, [1, 1], 512, &last)
    }
}

struct Backward(Loss);

impl Compute for Backward {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let [dloss, x, target] = [node.input(0)?, node.input(1)?, node.input(2)?];
        let (log_sum, total, weights) = (node.input(3)?, node.input(4)?, node.find(5)?);
        let sizes = self.0.sizes(&x, &target, weights.as_ref())?;
        if dloss.count() != 1 || total.count() != 1 || log_sum.count() != target.count() {
            return Err(format!("{:?} have sums of {:?}", target.shape, log_sum.shape));
        }
        let dx = node.output(0, &x.shape)?;
        let (gpu, element, rows) = (node.gpu(), node.element(), sizes.outer * sizes.inner);
        if dx.count() == 0 {
            return Ok(());
        }
        let arguments = LossArguments {
            log_sum: log_sum.at,
            dloss: dloss.at,
            total: total.at,
            dx: dx.at,
            ..self.0.arguments(&sizes, [&x, &target], weights.as_ref())
        };
        if sizes.inner > 1 {
            return gpu.each(&SOURCE, "cross_entropy_grad_columns", element, rows, &arguments);
        }
        let many = Rows { rows, width: sizes.classes }.at_once(element);
        let name = if many > 1 { "cross_entropy_grad_many" } else { "cross_entropy_grad" };
        let blocks = rows.min(gpu.processors() as usize * 64);
        let threads = threads(sizes.classes / many, 2).min(256);
        gpu.blocks(&SOURCE, name, element, [blocks, 1], threads, &arguments)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::tests::{Case, check, noise};
    use crate::graph::{Attributes, Tensor};

    /// Shapes of logits and the axis of their classes.
    const SHAPES: [(&[usize], i64); 9] = [
        (&[6, 5], 1),
        (&[3, 1], -1),
        (&[4], 0),
        (&[2, 3, 64], 2),
        (&[9, 1000], 1),
        (&[3, 1030], 1),
        (&[3, 2048], 1),
        (&[2, 21, 6, 7], 1),
        (&[4100, 3], 1),
    ];

    #[test]
    fn losses_and_gradients() {
        for (shape, axis) in SHAPES {
            let at = axis.rem_euclid(shape.len() as i64) as usize;
            let classes = shape[at];
            let rest = [&shape[..at], &shape[at + 1..]].concat();
            let rows: usize = rest.iter().product();
            let target = |row: usize| if row % 4 == 3 { -7 } else { (row * 7 % classes) as i64 };
            let target = Tensor::from_vec(&rest, (0..rows).map(target).collect::<Vec<i64>>());
            let weights = noise(&[classes], 3).to_vec::<f32>().expect("floats").iter().map(|w| w + 1.5).collect();
            let weights = Tensor::from_vec::<f32>(&[classes], weights);
            let x = noise(shape, 1).to_vec::<f32>().expect("floats").iter().map(|x| x * 6.0).collect();
            let (x, log_sum) = (Tensor::from_vec::<f32>(shape, x), noise(&rest, 5));
            let log_sum = log_sum.to_vec::<f32>().expect("floats").iter().map(|sum| sum + 9.0).collect();
            let log_sum = Tensor::from_vec::<f32>(&rest, log_sum);
            for (smoothing, weights) in [(0.0_f32, None), (0.1, None), (0.0, Some(&weights)), (0.2, Some(&weights))] {
                let attributes = Attributes::none()
                    .with("axis", axis)
                    .with("ignore_index", -7_i64)
                    .with("label_smoothing", smoothing);
                let inputs = vec![Some(x.clone()), Some(target.clone()), weights.cloned()];
                for outputs in [vec![vec![], rest.clone(), vec![]], vec![vec![]]] {
                    let (attributes, inputs) = (attributes.clone(), inputs.clone());
                    check(&Case { op: "SoftmaxCrossEntropy", attributes, inputs, outputs });
                }
                let of_class = weights.map(|weights| weights.to_vec::<f32>().expect("floats"));
                let counted = (0..rows).filter(|row| row % 4 != 3).map(|row| row * 7 % classes);
                let weight = |class: usize| of_class.as_ref().map_or(1.0, |weights| f64::from(weights[class]));
                let total = counted.map(weight).sum::<f64>() as f32;
                let [dloss, total] = [-2.0, total].map(|number| Some(Tensor::scalar(number)));
                let inputs = vec![dloss, Some(x.clone()), Some(target.clone()), Some(log_sum.clone()), total];
                let inputs = [inputs, vec![weights.cloned()]].concat();
                let outputs = vec![shape.to_vec()];
                check(&Case { op: "SoftmaxCrossEntropyGrad", attributes, inputs, outputs });
            }
        }
    }
}
