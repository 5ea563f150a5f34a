//! Convolution of images and its gradients.

use super::call::{Call, Reader};
use super::{Compute, Definition};
use freeze_plan_kernels::conv::Conv2d;

pub(super) static CONV: Definition = Definition {
    name: "Conv",
    inputs: &[true, true, false],
    outputs: &[true],
    make: |node| Window::make(node, Part::Forward),
};

pub(super) static CONV_INPUT_GRAD: Definition = Definition {
    name: "ConvInputGrad",
    inputs: &[true, true],
    outputs: &[true],
    make: |node| Window::make(node, Part::Input(node.sizes("space")?)),
};

pub(super) static CONV_WEIGHT_GRAD: Definition = Definition {
    name: "ConvWeightGrad",
    inputs: &[true, true],
    outputs: &[true],
    make: |node| Window::make(node, Part::Weight),
};

enum Part {
    Forward,
    /// The gradient of the input, with its spatial sizes.
    Input([usize; 2]),
    Weight,
}

struct Window {
    part: Part,
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    pads: [usize; 4],
    groups: usize,
    work: Vec<f32>,
}

impl Window {
    fn make(node: &Reader<'_, '_>, part: Part) -> Result<Box<dyn Compute>, String> {
        Ok(Box::new(Window {
            part,
            kernel: node.sizes("kernel_shape")?,
            strides: node.sizes("strides")?,
            dilations: node.sizes("dilations")?,
            pads: node.sizes("pads")?,
            groups: usize::try_from(node.int("group", 1)).map_err(|_| "group is negative")?,
            work: Vec::new(),
        }))
    }

    /// Returns the convolution between images of these shapes.
    fn geometry(&self, x: [usize; 4], y: [usize; 4]) -> Result<Conv2d, String> {
        let geometry = Conv2d {
            batch: x[0],
            input: [x[1], x[2]],
            in_channels: x[3],
            output: [y[1], y[2]],
            out_channels: y[3],
            kernel: self.kernel,
            strides: self.strides,
            dilations: self.dilations,
            pads: self.pads,
            groups: self.groups,
        };
        geometry.check().map_err(|error| error.to_string())?;
        Ok(geometry)
    }

    /// Returns the shape of the output for an input.
    fn output(&self, [batch, height, width, _]: [usize; 4], channels: usize) -> [usize; 4] {
        let size = |axis: usize, size: usize| {
            let window = (self.kernel[axis] - 1) * self.dilations[axis] + 1;
            ((size + self.pads[axis] + self.pads[axis + 2]).saturating_sub(window)) / self.strides[axis].max(1) + 1
        };
        [batch, size(0, height), size(1, width), channels]
    }
}

impl Compute for Window {
    fn compute(&mut self, call: &Call<'_>) -> Result<(), String> {
        let (first, second) = (call.input(0)?, call.input(1)?);
        let from = first.image()?;
        match self.part {
            Part::Forward => {
                let shape = self.output(from, second.image()?[0]);
                let geometry = self.geometry(from, shape)?;
                let bias = call.optional(2)?;
                let y = call.output(0, &shape)?;
                geometry.forward(call, first.elements, second.elements, bias.map(|b| b.elements), y, &mut self.work);
            }
            Part::Input([height, width]) => {
                let shape = [from[0], height, width, second.image()?[1] * self.groups];
                let geometry = self.geometry(shape, from)?;
                let dx = call.output(0, &shape)?;
                geometry.input_grad(call, first.elements, second.elements, dx, &mut self.work);
            }
            Part::Weight => {
                let to = second.image()?;
                let geometry = self.geometry(from, to)?;
                let shape = [to[3], from[3] / self.groups, self.kernel[0], self.kernel[1]];
                let dw = call.output(0, &shape)?;
                geometry.weight_grad(call, first.elements, second.elements, dw, &mut self.work);
            }
        }
        Ok(())
    }
}
