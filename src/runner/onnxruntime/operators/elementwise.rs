//! Gradients of activations that stand alone.

use super::call::{Call, Reader};
use super::{Compute, Definition};
use freeze_plan_kernels::gate::gate;
use freeze_plan_kernels::{Activation, Exec};

pub(super) static RELU_GRAD: Definition = Definition {
    name: "ReluGrad",
    inputs: &[true, true],
    outputs: &[true],
    make: |_| Ok(Box::new(Gate(Activation::Relu))),
};

pub(super) static CLIP_GRAD: Definition =
    Definition { name: "ClipGrad", inputs: &[true, true], outputs: &[true], make: clip };

fn clip(node: &Reader<'_, '_>) -> Result<Box<dyn Compute>, String> {
    Ok(Box::new(Gate(Activation::Clip {
        min: node.float("min", f32::NEG_INFINITY),
        max: node.float("max", f32::INFINITY),
    })))
}

struct Gate(Activation);

impl Compute for Gate {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let (dy, y) = (call.input(0)?, call.input(1)?);
        let dx = call.output(0, &dy.shape)?;
        gate(Exec::on(call), self.0, dy.elements, y.elements, dx);
        Ok(())
    }
}
