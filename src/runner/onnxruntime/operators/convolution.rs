//! Convolution of images and its gradients.

use super::call::{Call, Input, Reader};
use super::{Compute, Definition};
use freeze_plan_kernels::conv::{self, Conv2d};
use freeze_plan_kernels::depthwise::{self, Depthwise};
use freeze_plan_kernels::{Activation, Exec, Window};

pub(super) static CONV: Definition = Definition {
    name: "Conv",
    inputs: &[true, true, false, false, false, false, false],
    outputs: &[true],
    make: |node| Convolution::make(node, Part::Forward),
};

pub(super) static CONV_INPUT_GRAD: Definition = Definition {
    name: "ConvInputGrad",
    inputs: &[true, true, false],
    outputs: &[true],
    make: |node| Convolution::make(node, Part::Input(node.sizes("space")?)),
};

pub(super) static CONV_WEIGHT_GRAD: Definition = Definition {
    name: "ConvWeightGrad",
    inputs: &[true, true, false, false, false, false],
    outputs: &[true],
    make: |node| Convolution::make(node, Part::Weight),
};

enum Part {
    Forward,
    /// The gradient of the input, with its spatial sizes.
    Input([usize; 2]),
    Weight,
}

struct Convolution {
    part: Part,
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    pads: [usize; 4],
    groups: usize,
    /// Whether what is normalized is also what a Relu passes.
    relu: bool,
}

impl Convolution {
    fn make(node: &Reader<'_, '_>, part: Part) -> Result<Box<dyn Compute>, String> {
        Ok(Box::new(Convolution {
            part,
            kernel: node.sizes("kernel_shape")?,
            strides: node.sizes("strides")?,
            dilations: node.sizes("dilations")?,
            pads: node.sizes("pads")?,
            groups: usize::try_from(node.int("group", 1)).map_err(|_| "group is negative")?,
            relu: node.text("activation") == "relu",
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

    /// Returns factor and summand of each channel that normalize the input, where inputs from `at` on say so.
    fn affine(&self, call: &Call<'_>, at: usize) -> Result<Option<[Vec<f32>; 2]>, String> {
        let Some(scale) = call.optional(at)? else { return Ok(None) };
        let [bias, mean, inv_std] = [call.input(at + 1)?, call.input(at + 2)?, call.input(at + 3)?];
        let factor: Vec<f32> = scale.elements.iter().zip(inv_std.elements).map(|(scale, std)| scale * std).collect();
        let parts = bias.elements.iter().zip(mean.elements).zip(&factor);
        let summand = parts.map(|((bias, mean), factor)| bias - mean * factor).collect();
        Ok(Some([factor, summand]))
    }

    fn image<'a>(&self, x: &Input<'a>, affine: &'a Option<[Vec<f32>; 2]>) -> conv::Input<'a> {
        let affine = affine.as_ref().map(|[factor, summand]| (factor.as_slice(), summand.as_slice()));
        conv::Input { values: x.elements, affine, relu: self.relu }
    }

    /// Returns a convolution in which every channel of the input has its own kernels; `None` where channels mix.
    fn depthwise(&self, geometry: &Conv2d) -> Option<Depthwise> {
        let Conv2d { batch, in_channels, out_channels, groups, .. } = *geometry;
        if groups != in_channels || groups == 1 {
            return None;
        }
        let begin = [self.pads[0], self.pads[1]];
        let (input, output) = (geometry.input, geometry.output);
        let window = Window::new(input, output, self.kernel, self.strides, self.dilations, begin)?;
        Depthwise::new(batch, in_channels, out_channels / in_channels, window)
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

impl Compute for Convolution {
    fn compute(&mut self, call: &Call<'_>, work: &mut Vec<f32>) -> Result<(), String> {
        let (first, second) = (call.input(0)?, call.input(1)?);
        let from = first.image()?;
        match self.part {
            Part::Forward => {
                let shape = self.output(from, second.image()?[0]);
                let geometry = self.geometry(from, shape)?;
                let bias = call.optional(2)?;
                let y = call.output(0, &shape)?;
                let affine = self.affine(call, 3)?;
                let (x, w, bias) = (self.image(&first, &affine), second.elements, bias.map(|bias| bias.elements));
                match self.depthwise(&geometry) {
                    Some(conv) => {
                        depthwise::forward(Exec::on(call), &conv, first.elements, w, bias, Activation::None, y);
                    }
                    None => geometry.forward(call, x, w, bias, y, work),
                }
            }
            Part::Input([height, width]) => {
                let shape = [from[0], height, width, second.image()?[1] * self.groups];
                let geometry = self.geometry(shape, from)?;
                let dx = call.output(0, &shape)?;
                match self.depthwise(&geometry) {
                    Some(conv) => {
                        depthwise::input_gradient(Exec::on(call), &conv, first.elements, second.elements, dx);
                    }
                    None => geometry.input_grad(call, first.elements, second.elements, dx, work),
                }
            }
            Part::Weight => {
                let to = second.image()?;
                let geometry = self.geometry(from, to)?;
                let shape = [to[3], from[3] / self.groups, self.kernel[0], self.kernel[1]];
                let dw = call.output(0, &shape)?;
                match self.depthwise(&geometry) {
                    Some(conv) => {
                        depthwise::weight_gradient(Exec::on(call), &conv, first.elements, second.elements, dw);
                    }
                    None => {
                        let affine = self.affine(call, 2)?;
                        let x = self.image(&first, &affine);
                        geometry.weight_grad(call, x, second.elements, dw, work);
                    }
                }
            }
        }
        Ok(())
    }
}
