//! Updates of parameters, in place where an output is bound to the memory of its input.

use super::call::{Call, Reader};
use super::{Compute, Definition};
use freeze_plan_kernels::Exec;
use freeze_plan_kernels::optimizer::{Adam, AdamTensor, Average, Sgd, SgdTensor};

pub(super) static ADAM_STEP: Definition = Definition {
    name: "AdamStep",
    inputs: &[true, true, true, true, true, true, false],
    outputs: &[true, true, true, true, false],
    make: adam,
};

pub(super) static SGD_STEP: Definition = Definition {
    name: "SgdStep",
    inputs: &[true, true, true, false],
    outputs: &[true, false],
    make: |node| {
        let sgd = Sgd { momentum: node.float("momentum", 0.0), nesterov: node.int("nesterov", 0) != 0 };
        Ok(Box::new(SgdStep { sgd, weight_decay: node.float("weight_decay", 0.0) }))
    },
};

struct AdamStep {
    adam: Adam,
    weight_decay: f32,
}

fn adam(node: &Reader<'_, '_>) -> Result<Box<dyn Compute>, String> {
    let average = |name: &str| node.floats::<3>(name).map(|[keep, add, exponent]| Average { keep, add, exponent });
    let averages = [average("average")?, average("squares")?];
    let adam = Adam { averages, eps: node.float("eps", 1e-8), decoupled: node.int("decoupled", 0) != 0 };
    Ok(Box::new(AdamStep { adam, weight_decay: node.float("weight_decay", 0.0) }))
}

fn there<T>(moved: Option<T>) -> Result<T, String> {
    moved.ok_or_else(|| "an input is missing".into())
}

impl Compute for AdamStep {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let step = call.scalar(5)? + 1.0;
        let grad = call.input(2)?;
        let mut tensor = AdamTensor {
            value: there(call.moved(1, 0)?)?,
            grad: grad.elements,
            average: there(call.moved(3, 1)?)?,
            squares: there(call.moved(4, 2)?)?,
            largest: call.moved(6, 4)?,
            step,
            lr: call.scalar(0)?,
            weight_decay: self.weight_decay,
        };
        self.adam.step(Exec::on(call), std::slice::from_mut(&mut tensor));
        there(call.moved(5, 3)?)?.fill(step);
        Ok(())
    }
}

struct SgdStep {
    sgd: Sgd,
    weight_decay: f32,
}

impl Compute for SgdStep {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let grad = call.input(2)?;
        let mut tensor = SgdTensor {
            value: there(call.moved(1, 0)?)?,
            grad: grad.elements,
            velocity: call.moved(3, 1)?,
            lr: call.scalar(0)?,
            weight_decay: self.weight_decay,
            dampened: None,
        };
        self.sgd.step(Exec::on(call), std::slice::from_mut(&mut tensor));
        Ok(())
    }
}
