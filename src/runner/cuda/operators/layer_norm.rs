//! Layer normalization over the last axis.

use super::super::gpu::{Arguments, Element, Gpu};
use super::super::kernels::LAYER_NORM as SOURCE;
use super::rows::{Kernels, Rows, threads};
use super::{Array, Compute, DATA, Definition, FLOAT, Node, OPTIONAL, OPTIONAL_FLOAT, long};

pub(super) static LAYER_NORMALIZATION: Definition = Definition {
    name: "LayerNormalization",
    inputs: &[DATA, FLOAT, OPTIONAL_FLOAT],
    outputs: &[DATA, OPTIONAL_FLOAT, OPTIONAL_FLOAT],
    make: |node| Ok(Box::new(Forward { epsilon: node.float("epsilon").unwrap_or(1e-5) })),
};

pub(super) static LAYER_NORMALIZATION_GRAD: Definition = Definition {
    name: "LayerNormalizationGrad",
    inputs: &[DATA, DATA, FLOAT, FLOAT, FLOAT],
    outputs: &[OPTIONAL, OPTIONAL_FLOAT, OPTIONAL_FLOAT],
    make: |_| Ok(Box::new(Backward)),
};

static FORWARD: Kernels = Kernels {
    source: &SOURCE,
    short: ["layer_norm_short", "layer_norm_short_many"],
    warp: ["layer_norm_warp", "layer_norm_warp_many"],
    block: ["layer_norm_block", "layer_norm_block_many"],
    long: ["layer_norm_long", "layer_norm_long_many"],
    kept: [8, 32, 16],
};

struct Forward {
    epsilon: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ForwardArguments {
    x: u64,
    scale: u64,
    bias: u64,
    y: u64,
    mean: u64,
    inv_std: u64,
    rows: i64,
    width: i64,
    epsilon: f32,
    unused: u32,
}

// SAFETY: the fields of `layer_norm_arguments` in layer_norm.cu, without padding.
unsafe impl Arguments for ForwardArguments {}

fn at(array: Option<&Array>) -> u64 {
    array.map_or(0, |array| array.at)
}

impl Compute for Forward {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let (x, scale, bias) = (node.input(0)?, node.input(1)?, node.find(2)?);
        let (rows, mut of_rows) = (Rows::of(&x)?, x.shape.clone());
        of_rows.pop();
        of_rows.push(1);
        if scale.count() != rows.width || bias.as_ref().is_some_and(|bias| bias.count() != rows.width) {
            return Err(format!("rows of {} have a scale of {}, or a bias of other length", rows.width, scale.count()));
        }
        let y = node.output(0, &x.shape)?;
        let [mean, inv_std] = [node.wanted(1, &of_rows)?, node.wanted(2, &of_rows)?];
        let arguments = ForwardArguments {
            x: x.at,
            scale: scale.at,
            bias: at(bias.as_ref()),
            y: y.at,
            mean: at(mean.as_ref()),
            inv_std: at(inv_std.as_ref()),
            rows: long(rows.rows),
            width: long(rows.width),
            epsilon: self.epsilon,
            unused: 0,
        };
        FORWARD.start(node.gpu(), node.element(), rows, &arguments)
    }
}

struct Backward;

#[repr(C)]
#[derive(Clone, Copy)]
struct BackwardArguments {
    dy: u64,
    x: u64,
    scale: u64,
    mean: u64,
    inv_std: u64,
    dx: u64,
    parts: u64,
    rows: i64,
    width: i64,
}

// SAFETY: the fields of `layer_norm_grad_arguments` in layer_norm.cu, without padding.
unsafe impl Arguments for BackwardArguments {}

#[repr(C)]
#[derive(Clone, Copy)]
struct SumsArguments {
    parts: u64,
    dscale: u64,
    dbias: u64,
    count: i64,
    width: i64,
}

// SAFETY: the fields of `layer_norm_sums_arguments` in layer_norm.cu, without padding.
unsafe impl Arguments for SumsArguments {}

/// The kernels of the gradients, each alone and with elements 16 bytes at once.
const WARP: [&str; 2] = ["layer_norm_grad_warp", "layer_norm_grad_warp_many"];
const BLOCK: [&str; 2] = ["layer_norm_grad_block", "layer_norm_grad_block_many"];
const LONG: [&str; 2] = ["layer_norm_grad_long", "layer_norm_grad_long_many"];

/// Widest rows for a warp and for a block, which are 24 elements for each of its threads and 8.
const MOST: [usize; 2] = [32 * 24, 512 * 8];

/// How rows are shared out: the kernel, the threads of a block, and how many blocks there are, each of which leaves a
/// part of dscale and dbias.
fn plan(rows: Rows, element: Element, processors: usize) -> (&'static [&'static str; 2], usize, usize) {
    let many = rows.at_once(element);
    if rows.width <= MOST[0] {
        (&WARP, 128, rows.rows.div_ceil(4).min(processors * 4))
    } else if rows.width <= MOST[1] {
        let threads = threads(rows.width / many, 8 / many);
        (&BLOCK, threads, rows.rows.min(processors * (1024 / threads)))
    } else {
        (&LONG, 512, rows.rows.min(processors * 4))
    }
}

impl Compute for Backward {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let [dy, x] = node.alike(0, 1)?;
        let [scale, mean, inv_std] = [node.input(2)?, node.input(3)?, node.input(4)?];
        let rows = Rows::of(&x)?;
        let counts = [scale.count(), mean.count(), inv_std.count()];
        if counts != [rows.width, rows.rows, rows.rows] {
            return Err(format!("{rows:?} have a scale and statistics of {counts:?} elements"));
        }
        let dx = node.wanted(0, &x.shape)?;
        let [dscale, dbias] = [node.wanted(1, &scale.shape)?, node.wanted(2, &scale.shape)?];
        let (gpu, element) = (node.gpu(), node.element());
        if rows.width == 0 {
            return Ok(());
        }
        let (names, threads, blocks) = plan(rows, element, gpu.processors() as usize);
        let summed = dscale.is_some() || dbias.is_some();
        let parts = if summed { gpu.scratch((blocks * 2 * rows.width * 4).max(1))? } else { 0 };
        let arguments = BackwardArguments {
            dy: dy.at,
            x: x.at,
            scale: scale.at,
            mean: mean.at,
            inv_std: inv_std.at,
            dx: at(dx.as_ref()),
            parts,
            rows: long(rows.rows),
            width: long(rows.width),
        };
        let long_rows = names == &LONG;
        if rows.rows > 0 && !(long_rows && dx.is_none()) {
            let name = names[usize::from(rows.at_once(element) > 1)];
            gpu.blocks(&SOURCE, name, element, [blocks, 1], threads, &arguments)?;
        }
        if !summed {
            return Ok(());
        }
        if long_rows && rows.rows > 0 {
            let grid = [rows.width.div_ceil(256), blocks];
            gpu.blocks(&SOURCE, "layer_norm_grad_columns", element, grid, 256, &arguments)?;
        }
        sums(gpu, element, parts, [dscale, dbias], [blocks, rows.width])
    }
}

/// Sums the parts of all blocks.
fn sums(
    gpu: &dyn Gpu,
    element: Element,
    parts: u64,
    [dscale, dbias]: [Option<Array>; 2],
    [count, width]: [usize; 2],
) -> Result<(), String> {
    let [dscale, dbias] = [at(dscale.as_ref()), at(dbias.as_ref())];
    let arguments = SumsArguments { parts, dscale, dbias, count: long(count), width: long(width) };
    gpu.blocks(&SOURCE, "layer_norm_sums", element, [(2 * width).div_ceil(32), 1], 512, &arguments)
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::tests::{Case, check, noise};
    use crate::graph::{Attributes, Tensor};

    const SHAPES: [&[usize]; 11] = [
        &[3, 1],
        &[2, 3, 5],
        &[700, 7],
        &[37, 64],
        &[61, 768],
        &[3, 1000],
        &[9, 1027],
        &[2, 4096],
        &[2, 8192],
        &[5, 9001],
        &[3, 16400],
    ];

    /// Returns x, scale, bias, mean and inv_std.
    fn inputs(shape: &[usize]) -> [Tensor; 5] {
        let width = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().product::<usize>() / width;
        let of_rows = [&shape[..shape.len() - 1], &[1]].concat();
        let moved = |tensor: Tensor, by: f32| {
            let values = tensor.to_vec::<f32>().expect("floats").iter().map(|x| x + by).collect();
            Tensor::from_vec::<f32>(tensor.shape(), values)
        };
        assert_eq!(rows, of_rows.iter().product::<usize>());
        let inv_std = moved(noise(&of_rows, 5), 2.0);
        [moved(noise(shape, 1), 1.0), noise(&[width], 2), noise(&[width], 3), noise(&of_rows, 4), inv_std]
    }

    #[test]
    fn rows_of_all_widths() {
        for shape in SHAPES {
            let of_rows = [&shape[..shape.len() - 1], &[1]].concat();
            let [x, scale, bias, ..] = inputs(shape).map(Some);
            let attributes = Attributes::none().with("epsilon", 1e-3_f32);
            let outputs = vec![shape.to_vec(), of_rows.clone(), of_rows];
            let all = vec![x.clone(), scale.clone(), bias];
            check(&Case { op: "LayerNormalization", attributes, inputs: all, outputs });
            let outputs = vec![shape.to_vec()];
            let attributes = Attributes::none();
            check(&Case { op: "LayerNormalization", attributes, inputs: vec![x, scale], outputs });
        }
    }

    #[test]
    fn gradients_of_rows_of_all_widths() {
        for shape in SHAPES {
            let [x, scale, _, mean, inv_std] = inputs(shape).map(Some);
            let width = vec![shape.last().copied().unwrap_or(1)];
            for outputs in [vec![shape.to_vec(), width.clone(), width], vec![shape.to_vec()]] {
                let inputs = vec![Some(noise(shape, 9)), x.clone(), scale.clone(), mean.clone(), inv_std.clone()];
                check(&Case { op: "LayerNormalizationGrad", attributes: Attributes::none(), inputs, outputs });
            }
        }
    }
}
