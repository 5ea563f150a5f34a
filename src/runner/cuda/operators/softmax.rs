//! Softmax along the last axis.

use super::super::gpu::Arguments;
use super::super::kernels::SOFTMAX as SOURCE;
use super::rows::{Kernels, Rows};
use super::{Compute, DATA, Definition, Node, long};

pub(super) static SOFTMAX: Definition =
    Definition { name: "Softmax", inputs: &[DATA], outputs: &[DATA], make: |_| Ok(Box::new(Forward)) };

pub(super) static SOFTMAX_GRAD: Definition =
    Definition { name: "SoftmaxGrad", inputs: &[DATA, DATA], outputs: &[DATA], make: |_| Ok(Box::new(Backward)) };

static FORWARD: Kernels = Kernels {
    source: &SOURCE,
    short: ["softmax_short", "softmax_short_many"],
    warp: ["softmax_warp", "softmax_warp_many"],
    block: ["softmax_block", "softmax_block_many"],
    long: ["softmax_long", "softmax_long_many"],
    kept: [8, 32, 32],
};

static BACKWARD: Kernels = Kernels {
    source: &SOURCE,
    short: ["softmax_grad_short", "softmax_grad_short_many"],
    warp: ["softmax_grad_warp", "softmax_grad_warp_many"],
    block: ["softmax_grad_block", "softmax_grad_block_many"],
    long: ["softmax_grad_long", "softmax_grad_long_many"],
    kept: [8, 16, 16],
};

struct Forward;

#[repr(C)]
#[derive(Clone, Copy)]
struct ForwardArguments {
    x: u64,
    y: u64,
    rows: i64,
    width: i64,
}

// SAFETY: the fields of `softmax_arguments` in softmax.cu, without padding.
unsafe impl Arguments for ForwardArguments {}

impl Compute for Forward {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let x = node.input(0)?;
        let (rows, y) = (Rows::of(&x)?, node.output(0, &x.shape)?);
        let arguments = ForwardArguments { x: x.at, y: y.at, rows: long(rows.rows), width: long(rows.width) };
        FORWARD.start(node.gpu(), node.element(), rows, &arguments)
    }
}

struct Backward;

#[repr(C)]
#[derive(Clone, Copy)]
struct BackwardArguments {
    dy: u64,
    y: u64,
    dx: u64,
    rows: i64,
    width: i64,
}

// SAFETY: the fields of `softmax_grad_arguments` in softmax.cu, without padding.
unsafe impl Arguments for BackwardArguments {}

impl Compute for Backward {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let [dy, y] = node.alike(0, 1)?;
        let (rows, dx) = (Rows::of(&y)?, node.output(0, &y.shape)?);
        let (count, width) = (long(rows.rows), long(rows.width));
        let arguments = BackwardArguments { dy: dy.at, y: y.at, dx: dx.at, rows: count, width };
        BACKWARD.start(node.gpu(), node.element(), rows, &arguments)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::tests::{Case, check, noise};
    use crate::graph::{Attributes, Tensor};

    const SHAPES: [&[usize]; 14] = [
        &[3, 1],
        &[2, 3, 5],
        &[700, 7],
        &[5, 64],
        &[3, 197],
        &[2, 2, 256],
        &[3, 512],
        &[5, 768],
        &[3, 1000],
        &[2, 1025],
        &[2, 4104],
        &[1, 8193],
        &[2, 16392],
        &[1, 30522],
    ];

    #[test]
    fn rows_of_all_widths() {
        for shape in SHAPES {
            // Large, so that few elements make the sum: the CPU's of 30000 like ones is less exact than what is tested.
            let large = noise(shape, 1).to_vec::<f32>().expect("floats").iter().map(|x| x * 24.0).collect();
            let inputs = vec![Some(Tensor::from_vec::<f32>(shape, large))];
            check(&Case { op: "Softmax", attributes: Attributes::none(), inputs, outputs: vec![shape.to_vec()] });
        }
    }

    #[test]
    fn gradients_of_rows_of_all_widths() {
        for shape in SHAPES {
            let width = shape.last().copied().unwrap_or(1) as f32;
            let y = noise(shape, 2).to_vec::<f32>().expect("floats").iter().map(|x| (x + 1.0) / width).collect();
            let inputs = vec![Some(noise(shape, 1)), Some(Tensor::from_vec::<f32>(shape, y))];
            check(&Case { op: "SoftmaxGrad", attributes: Attributes::none(), inputs, outputs: vec![shape.to_vec()] });
        }
    }

    #[test]
    fn masked() {
        for width in [6, 700, 9000, 20000] {
            let row = |at: usize| if at.is_multiple_of(3) { f32::NEG_INFINITY } else { (at % 7) as f32 };
            let inputs = vec![Some(Tensor::from_vec(&[2, width], (0..2 * width).map(row).collect::<Vec<f32>>()))];
            check(&Case { op: "Softmax", attributes: Attributes::none(), inputs, outputs: vec![vec![2, width]] });
        }
    }
}
