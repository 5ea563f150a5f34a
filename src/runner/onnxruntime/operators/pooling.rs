//! Pooling of images and its gradients.

use super::call::{Call, Reader};
use super::{Compute, Definition};
use freeze_plan_kernels::pool2d::{self, Pooling};
use freeze_plan_kernels::{Exec, Window};

pub(super) static MAX_POOL: Definition = Definition {
    name: "MaxPool",
    inputs: &[true],
    outputs: &[true],
    make: |node| Ok(Box::new(Max(Windows::forward(node)?))),
};

pub(super) static MAX_POOL_GRAD: Definition = Definition {
    name: "MaxPoolGrad",
    inputs: &[true, true, true],
    outputs: &[true],
    make: |node| Ok(Box::new(MaxGrad(Windows::read(node, None)?))),
};

pub(super) static AVERAGE_POOL: Definition = Definition {
    name: "AveragePool",
    inputs: &[true],
    outputs: &[true],
    make: |node| Ok(Box::new(Average(Windows::forward(node)?))),
};

pub(super) static AVERAGE_POOL_GRAD: Definition = Definition {
    name: "AveragePoolGrad",
    inputs: &[true],
    outputs: &[true],
    make: |node| Ok(Box::new(AverageGrad(Windows::read(node, Some("space"))?))),
};

pub(super) static GLOBAL_AVERAGE_POOL: Definition =
    Definition { name: "GlobalAveragePool", inputs: &[true], outputs: &[true], make: |_| Ok(Box::new(Global)) };

pub(super) static GLOBAL_AVERAGE_POOL_GRAD: Definition = Definition {
    name: "GlobalAveragePoolGrad",
    inputs: &[true],
    outputs: &[true],
    make: |node| Ok(Box::new(GlobalGrad(node.sizes("space")?))),
};

/// The windows of a node.
struct Windows {
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    pads: [usize; 4],
    /// The spatial sizes of what is written.
    to: [usize; 2],
    /// Whether padding counts in a mean.
    counts_pads: bool,
}

impl Windows {
    fn forward(node: &Reader<'_, '_>) -> Result<Windows, String> {
        Windows::read(node, Some("output"))
    }

    fn read(node: &Reader<'_, '_>, to: Option<&str>) -> Result<Windows, String> {
        Ok(Windows {
            kernel: node.sizes("kernel_shape")?,
            strides: node.sizes("strides")?,
            dilations: node.sizes("dilations")?,
            pads: node.sizes("pads")?,
            to: to.map_or(Ok([0; 2]), |name| node.sizes(name))?,
            counts_pads: node.int("count_include_pad", 0) == 1,
        })
    }

    /// Returns the pooling from images of one size to those of another.
    fn pooling(&self, [batch, height, width, channels]: [usize; 4], output: [usize; 2]) -> Result<Pooling, String> {
        let begin = [self.pads[0], self.pads[1]];
        let window = Window::new([height, width], output, self.kernel, self.strides, self.dilations, begin);
        let pooling = window.and_then(|window| Pooling::new(batch, channels, window));
        pooling.ok_or_else(|| format!("windows {:?} on images of {height}x{width}", self.kernel))
    }

    /// Returns how many elements each output's window counts along both axes.
    fn counts(&self, pooling: &Pooling, input: [usize; 2], output: [usize; 2]) -> [Vec<usize>; 2] {
        if !self.counts_pads {
            return pooling.counts();
        }
        [0, 1].map(|axis| {
            let end = input[axis] + self.pads[axis] + self.pads[axis + 2];
            let taps = |first: usize| (0..self.kernel[axis]).map(move |tap| first + tap * self.dilations[axis]);
            (0..output[axis])
                .map(|at| taps(at * self.strides[axis]).filter(|position| *position < end).count())
                .collect()
        })
    }
}

struct Max(Windows);

impl Compute for Max {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let x = call.input(0)?;
        let shape = x.image()?;
        let pooling = self.0.pooling(shape, self.0.to)?;
        let y = call.output(0, &[shape[0], self.0.to[0], self.0.to[1], shape[3]])?;
        pool2d::max(Exec::on(call), &pooling, x.elements, y);
        Ok(())
    }
}

struct MaxGrad(Windows);

impl Compute for MaxGrad {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let (dy, x, y) = (call.input(0)?, call.input(1)?, call.input(2)?);
        let [_, height, width, _] = y.image()?;
        let pooling = self.0.pooling(x.image()?, [height, width])?;
        let dx = call.output(0, &x.shape)?;
        pool2d::max_gradient(Exec::on(call), &pooling, x.elements, y.elements, dy.elements, dx);
        Ok(())
    }
}

struct Average(Windows);

impl Compute for Average {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let x = call.input(0)?;
        let shape = x.image()?;
        let pooling = self.0.pooling(shape, self.0.to)?;
        let [rows, columns] = &self.0.counts(&pooling, [shape[1], shape[2]], self.0.to);
        let y = call.output(0, &[shape[0], self.0.to[0], self.0.to[1], shape[3]])?;
        pool2d::average(Exec::on(call), &pooling, [rows, columns], x.elements, y);
        Ok(())
    }
}

struct AverageGrad(Windows);

impl Compute for AverageGrad {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let dy = call.input(0)?;
        let [batch, height, width, channels] = dy.image()?;
        let shape = [batch, self.0.to[0], self.0.to[1], channels];
        let pooling = self.0.pooling(shape, [height, width])?;
        let [rows, columns] = &self.0.counts(&pooling, self.0.to, [height, width]);
        let dx = call.output(0, &shape)?;
        pool2d::average_gradient(Exec::on(call), &pooling, [rows, columns], dy.elements, dx);
        Ok(())
    }
}

struct Global;

impl Compute for Global {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let x = call.input(0)?;
        let [batch, height, width, channels] = x.image()?;
        let y = call.output(0, &[batch, 1, 1, channels])?;
        pool2d::global_average(Exec::on(call), batch, height * width, channels, x.elements, y);
        Ok(())
    }
}

struct GlobalGrad([usize; 2]);

impl Compute for GlobalGrad {
    fn compute(&mut self, call: &Call<'_>, _: &mut Vec<f32>) -> Result<(), String> {
        let dy = call.input(0)?;
        let ([batch, _, _, channels], [height, width]) = (dy.image()?, self.0);
        let dx = call.output(0, &[batch, height, width, channels])?;
        pool2d::global_average_gradient(Exec::on(call), batch, height * width, channels, dy.elements, dx);
        Ok(())
    }
}
