//! Updates of parameters, in place where an output lies where its input does.

use super::super::gpu::{Arguments, Element};
use super::super::kernels::OPTIMIZER as SOURCE;
use super::{Array, Attributes, Compute, Definition, FLOAT, Node, OPTIONAL_FLOAT, long};

pub(super) static ADAM_STEP: Definition = Definition {
    name: "AdamStep",
    inputs: &[FLOAT, FLOAT, FLOAT, FLOAT, FLOAT, FLOAT, OPTIONAL_FLOAT],
    outputs: &[FLOAT, FLOAT, FLOAT, FLOAT, OPTIONAL_FLOAT],
    make: adam,
};

pub(super) static SGD_STEP: Definition = Definition {
    name: "SgdStep",
    inputs: &[FLOAT, FLOAT, FLOAT, OPTIONAL_FLOAT],
    outputs: &[FLOAT, OPTIONAL_FLOAT],
    make: |node| {
        let (momentum, weight_decay) = (node.float("momentum").unwrap_or(0.0), node.float("weight_decay"));
        let nesterov = node.int("nesterov").unwrap_or(0);
        Ok(Box::new(SgdStep { momentum, nesterov, weight_decay: weight_decay.unwrap_or(0.0) }))
    },
};

/// Threads of a block.
const BLOCK: usize = 256;

/// Returns the number of blocks for so many elements.
fn blocks(node: &dyn Node, count: usize) -> usize {
    count.div_ceil(4 * BLOCK).clamp(1, node.gpu().processors() as usize * 16)
}

/// Returns an input of one element.
fn scalar(node: &dyn Node, index: usize) -> Result<u64, String> {
    let input = node.input(index)?;
    if input.count() != 1 {
        return Err(format!("input {index} has shape {:?}", input.shape));
    }
    Ok(input.at)
}

/// Returns where an input lies and where the output that it becomes; of so many elements.
fn moved(node: &dyn Node, from: usize, to: usize, count: usize) -> Result<[u64; 2], String> {
    let input = node.input(from)?;
    if input.count() != count {
        return Err(format!("input {from} has shape {:?}, expected {count} elements", input.shape));
    }
    Ok([input.at, node.output(to, &input.shape)?.at])
}

/// As [`moved`], zeros where the input is not there.
fn maybe_moved(node: &dyn Node, from: usize, to: usize, count: usize) -> Result<[u64; 2], String> {
    if node.find(from)?.is_some() { moved(node, from, to, count) } else { Ok([0, 0]) }
}

/// Returns the gradient of a parameter, of as many elements.
fn grad(node: &dyn Node) -> Result<Array, String> {
    let [value, grad] = [node.input(1)?, node.input(2)?];
    if value.count() != grad.count() {
        return Err(format!("a parameter of {:?} has a gradient of {:?}", value.shape, grad.shape));
    }
    Ok(grad)
}

struct SgdStep {
    momentum: f32,
    nesterov: i64,
    weight_decay: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct SgdArguments {
    lr: u64,
    value: u64,
    grad: u64,
    velocity: u64,
    value_out: u64,
    velocity_out: u64,
    count: i64,
    nesterov: i64,
    momentum: f32,
    weight_decay: f32,
}

// SAFETY: the fields of `sgd_arguments` in optimizer.cu, without padding.
unsafe impl Arguments for SgdArguments {}

impl Compute for SgdStep {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let (lr, grad) = (scalar(node, 0)?, grad(node)?);
        let count = grad.count();
        let [value, value_out] = moved(node, 1, 0, count)?;
        let [velocity, velocity_out] = maybe_moved(node, 3, 1, count)?;
        let arguments = SgdArguments {
            lr,
            value,
            grad: grad.at,
            velocity,
            value_out,
            velocity_out,
            count: long(count),
            nesterov: self.nesterov,
            momentum: self.momentum,
            weight_decay: self.weight_decay,
        };
        node.gpu().blocks(&SOURCE, "sgd", Element::F32, [blocks(node, count), 1], BLOCK, &arguments)
    }
}

struct AdamStep {
    decoupled: i64,
    averages: [[f32; 3]; 2],
    eps: f32,
    weight_decay: f32,
}

fn adam(node: &dyn Attributes) -> Result<Box<dyn Compute>, String> {
    let average = |name: &str| {
        let list = node.floats(name).ok_or_else(|| format!("attribute \"{name}\" is missing"))?;
        <[f32; 3]>::try_from(list).map_err(|list| format!("attribute \"{name}\" is {list:?}, expected 3 entries"))
    };
    let averages = [average("average")?, average("squares")?];
    let (eps, weight_decay) = (node.float("eps").unwrap_or(1e-8), node.float("weight_decay").unwrap_or(0.0));
    Ok(Box::new(AdamStep { decoupled: node.int("decoupled").unwrap_or(0), averages, eps, weight_decay }))
}

#[repr(C)]
#[derive(Clone, Copy)]
struct AdamArguments {
    lr: u64,
    value: u64,
    grad: u64,
    first: u64,
    second: u64,
    step: u64,
    largest: u64,
    value_out: u64,
    first_out: u64,
    second_out: u64,
    step_out: u64,
    largest_out: u64,
    count: i64,
    decoupled: i64,
    averages: [[f32; 3]; 2],
    eps: f32,
    weight_decay: f32,
}

// SAFETY: the fields of `adam_arguments` in optimizer.cu, without padding.
unsafe impl Arguments for AdamArguments {}

impl Compute for AdamStep {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let (lr, grad) = (scalar(node, 0)?, grad(node)?);
        let count = grad.count();
        let [value, value_out] = moved(node, 1, 0, count)?;
        let [first, first_out] = moved(node, 3, 1, count)?;
        let [second, second_out] = moved(node, 4, 2, count)?;
        let [step, step_out] = moved(node, 5, 3, 1)?;
        let [largest, largest_out] = maybe_moved(node, 6, 4, count)?;
        let arguments = AdamArguments {
            lr,
            value,
            grad: grad.at,
            first,
            second,
            step,
            largest,
            value_out,
            first_out,
            second_out,
            step_out,
            largest_out,
            count: long(count),
            decoupled: self.decoupled,
            averages: self.averages,
            eps: self.eps,
            weight_decay: self.weight_decay,
        };
        let (gpu, blocks) = (node.gpu(), blocks(node, count));
        gpu.blocks(&SOURCE, "adam", Element::F32, [blocks, 1], BLOCK, &arguments)?;
        match blocks {
            1 => Ok(()),
            _ => gpu.blocks(&SOURCE, "adam_counted", Element::F32, [1, 1], 32, &arguments),
        }
    }
}
