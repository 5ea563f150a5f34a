//! Gradients of activations that stand alone.

use super::super::gpu::Arguments;
use super::super::kernels::ELEMENTWISE;
use super::{Attributes, Compute, DATA, Definition, Node, long};

pub(super) static RELU_GRAD: Definition = Definition {
    name: "ReluGrad",
    inputs: &[DATA, DATA],
    outputs: &[DATA],
    make: |_| Ok(Box::new(Gate { min: 0.0, max: f32::INFINITY })),
};

pub(super) static CLIP_GRAD: Definition =
    Definition { name: "ClipGrad", inputs: &[DATA, DATA], outputs: &[DATA], make: clip };

fn clip(node: &dyn Attributes) -> Result<Box<dyn Compute>, String> {
    let [min, max] = [node.float("min").unwrap_or(f32::NEG_INFINITY), node.float("max").unwrap_or(f32::INFINITY)];
    Ok(Box::new(Gate { min, max }))
}

struct Gate {
    min: f32,
    max: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct GateArguments {
    dy: u64,
    y: u64,
    dx: u64,
    count: i64,
    min: f32,
    max: f32,
}

// SAFETY: the fields of `gate_arguments` in elementwise.cu, without padding.
unsafe impl Arguments for GateArguments {}

impl Compute for Gate {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let [dy, y] = node.alike(0, 1)?;
        let dx = node.output(0, &dy.shape)?;
        let (count, element) = (dy.count(), node.element());
        let arguments =
            GateArguments { dy: dy.at, y: y.at, dx: dx.at, count: long(count), min: self.min, max: self.max };
        node.gpu().each(&ELEMENTWISE, "gate", element, count.div_ceil(16 / element.size()), &arguments)
    }
}
