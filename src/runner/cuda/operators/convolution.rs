//! Convolution of images and its gradients: the device's own, and what surrounds them.
//!
//! Weights are `[M, C/g, kH, kW]` in a graph and `[M, kH, kW, C/g]` in a convolution of the device, which has the same
//! padding before and after an axis. Where a node's differs, and the larger one on both sides gives another output, the
//! image is copied with its padding.

use super::super::gpu::{self, Arguments, Part};
use super::super::kernels::CONV as SOURCE;
use super::super::turn::{FLOAT_SIZE, turned, turned_wide};
use super::tiles::{BLOCK, Tiles};
use super::{Array, Attributes, Compute, DATA, Definition, FLOAT, Node, OPTIONAL_FLOAT, long, sizes};
use freeze_plan_kernels::conv::Conv2d;

pub(super) static CONV: Definition = Definition {
    name: "Conv",
    inputs: &[DATA, DATA, OPTIONAL_FLOAT],
    outputs: &[DATA],
    make: |node| Convolution::make(node, Part::Forward),
};

pub(super) static CONV_INPUT_GRAD: Definition = Definition {
    name: "ConvInputGrad",
    inputs: &[DATA, DATA, OPTIONAL_FLOAT],
    outputs: &[DATA],
    make: |node| Convolution::make(node, Part::Input),
};

pub(super) static CONV_WEIGHT_GRAD: Definition = Definition {
    name: "ConvWeightGrad",
    inputs: &[DATA, DATA],
    outputs: &[FLOAT],
    make: |node| Convolution::make(node, Part::Weight),
};

struct Convolution {
    part: Part,
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    pads: [usize; 4],
    groups: usize,
    /// The spatial sizes of the image whose gradient is written.
    space: [usize; 2],
}

/// A convolution of the device for a node.
struct Plan {
    convolution: gpu::Convolution,
    /// Whether the image is copied with its padding.
    framed: bool,
    /// Whether weights lie otherwise in the graph.
    turns: bool,
}

impl Convolution {
    fn make(node: &dyn Attributes, part: Part) -> Result<Box<dyn Compute>, String> {
        if node.text("activation").is_some() {
            return Err("a convolution on a device does not normalize what it reads".into());
        }
        Ok(Box::new(Convolution {
            part,
            kernel: sizes(node, "kernel_shape")?,
            strides: sizes(node, "strides")?,
            dilations: sizes(node, "dilations")?,
            pads: sizes(node, "pads")?,
            groups: usize::try_from(node.int("group").unwrap_or(1)).map_err(|_| "group is negative")?,
            space: if part == Part::Input { sizes(node, "space")? } else { [0; 2] },
        }))
    }

    /// Returns the size of the output along an axis with this much padding in all.
    fn output(&self, axis: usize, size: usize, padding: usize) -> usize {
        let window = self.kernel[axis].saturating_sub(1).saturating_mul(self.dilations[axis]).saturating_add(1);
        (size + padding).saturating_sub(window) / self.strides[axis].max(1) + 1
    }

    /// Returns the convolution between images of these shapes.
    ///
    /// # Errors
    /// The sizes are not those of a convolution.
    fn plan(&self, node: &dyn Node, x: [usize; 4], y: [usize; 4]) -> Result<Plan, String> {
        let Convolution { part, kernel, strides, dilations, pads, groups, .. } = *self;
        let geometry = Conv2d {
            batch: x[0],
            input: [x[1], x[2]],
            in_channels: x[3],
            output: [y[1], y[2]],
            out_channels: y[3],
            kernel,
            strides,
            dilations,
            pads,
            groups,
        };
        geometry.check().map_err(|error| error.to_string())?;
        let covers =
            |axis: usize| pads[axis] >= pads[axis + 2] && self.output(axis, x[axis + 1], 2 * pads[axis]) == y[axis + 1];
        let framed = !(covers(0) && covers(1));
        let (image, pads) = match framed {
            true => ([x[0], x[1] + pads[0] + pads[2], x[2] + pads[1] + pads[3], x[3]], [0; 2]),
            false => (x, [pads[0], pads[1]]),
        };
        let inputs = x[3] / groups;
        let w = [y[3], kernel[0], kernel[1], inputs];
        let convolution =
            gpu::Convolution { part, element: node.element(), x: image, w, y, strides, dilations, pads, groups };
        Ok(Plan { convolution, framed, turns: inputs > 1 && kernel != [1, 1] })
    }
}

impl Plan {
    /// Returns bytes of scratch for the weights and for the image with its padding.
    fn room(&self, weights: bool) -> [usize; 2] {
        let size = |shape: [usize; 4]| shape.iter().product::<usize>() * self.convolution.element.size();
        let aligned = |bytes: usize| bytes.next_multiple_of(256);
        let weights = if weights { aligned(size(self.convolution.w)) } else { 0 };
        [weights, if self.framed { aligned(size(self.convolution.x)) } else { 0 }]
    }

    /// Returns where scratch for the weights and for the image starts.
    fn scratch(&self, node: &dyn Node, weights: bool) -> Result<[u64; 2], String> {
        let room = self.room(weights);
        let at = if room == [0; 2] { 0 } else { node.gpu().scratch(room[0] + room[1])? };
        Ok([at, at + room[0] as u64])
    }

    /// Returns the weights as the device takes them.
    fn weights(&self, node: &dyn Node, w: &Array, scratch: u64) -> Result<u64, String> {
        let [outputs, height, width, inputs] = self.convolution.w;
        if !self.turns {
            return Ok(w.at);
        }
        turned(node.gpu(), node.element(), w.at, scratch, [outputs, inputs, height * width])?;
        Ok(scratch)
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct FrameArguments {
    from: u64,
    to: u64,
    pixels: i64,
    channels: i64,
    width: i64,
    lanes: i64,
    source: [i32; 2],
    target: [i32; 2],
    offset: [i32; 2],
}

// SAFETY: the fields of `frame_arguments` in conv.cu, without padding.
unsafe impl Arguments for FrameArguments {}

/// Copies images with zeros around them, or less.
fn frame(
    node: &dyn Node,
    [from, to]: [u64; 2],
    source: [usize; 4],
    target: [usize; 4],
    offset: [i64; 2],
) -> Result<(), String> {
    let small = |size: i64| i32::try_from(size).map_err(|_| format!("an image of {source:?} is too large"));
    let pixels = target[0] * target[1] * target[2];
    u32::try_from(pixels).map_err(|_| format!("an image of {target:?} is too large"))?;
    let tiles = Tiles::new(pixels, target[3], node.element(), node.gpu().processors());
    let arguments = FrameArguments {
        from,
        to,
        pixels: long(pixels),
        channels: long(target[3]),
        width: long(tiles.width),
        lanes: long(tiles.lanes),
        source: [small(long(source[1]))?, small(long(source[2]))?],
        target: [small(long(target[1]))?, small(long(target[2]))?],
        offset: [small(offset[0])?, small(offset[1])?],
    };
    let kernel = tiles.kernel(["frame_many", "frame_one"]);
    node.gpu().blocks(&SOURCE, kernel, node.element(), tiles.grid, BLOCK, &arguments)
}

#[repr(C)]
#[derive(Clone, Copy)]
struct BiasArguments {
    y: u64,
    bias: u64,
    pixels: i64,
    channels: i64,
    width: i64,
    lanes: i64,
}

// SAFETY: the fields of `bias_arguments` in conv.cu, without padding.
unsafe impl Arguments for BiasArguments {}

fn add_bias(node: &dyn Node, y: &Array, bias: &Array) -> Result<(), String> {
    let [batch, height, width, channels] = y.image()?;
    if bias.count() != channels {
        return Err(format!("a bias of {channels} channels has shape {:?}", bias.shape));
    }
    let pixels = batch * height * width;
    let tiles = Tiles::new(pixels, channels, node.element(), node.gpu().processors());
    let [pixels, channels, width, lanes] = [pixels, channels, tiles.width, tiles.lanes].map(long);
    let arguments = BiasArguments { y: y.at, bias: bias.at, pixels, channels, width, lanes };
    let kernel = tiles.kernel(["add_bias_many", "add_bias_one"]);
    node.gpu().blocks(&SOURCE, kernel, node.element(), tiles.grid, BLOCK, &arguments)
}

impl Compute for Convolution {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let (first, second) = (node.input(0)?, node.input(1)?);
        match self.part {
            Part::Forward => self.forward(node, &first, &second),
            Part::Input => self.input_gradient(node, &first, &second),
            Part::Weight => self.weight_gradient(node, &first, &second),
        }
    }
}

impl Convolution {
    /// Returns where the image lies in its copy.
    fn offset(&self) -> [i64; 2] {
        [long(self.pads[0]), long(self.pads[1])]
    }

    /// Returns an error where weights have another shape than the attributes and channels say.
    fn require(&self, w: &Array, inputs: usize) -> Result<(), String> {
        let expected =
            [w.shape.first().copied().unwrap_or(0), inputs / self.groups.max(1), self.kernel[0], self.kernel[1]];
        if w.shape != expected {
            return Err(format!("weights have shape {:?}, expected {expected:?}", w.shape));
        }
        Ok(())
    }

    fn forward(&self, node: &dyn Node, x: &Array, w: &Array) -> Result<(), String> {
        let from = x.image()?;
        let [batch, height, width, channels] = from;
        self.require(w, channels)?;
        let size = |axis: usize, size: usize| self.output(axis, size, self.pads[axis] + self.pads[axis + 2]);
        let shape = [batch, size(0, height), size(1, width), w.image()?[0]];
        let y = node.output(0, &shape)?;
        if batch == 0 {
            return Ok(());
        }
        let plan = self.plan(node, from, shape)?;
        let [weights, image] = plan.scratch(node, plan.turns)?;
        let weights = plan.weights(node, w, weights)?;
        if plan.framed {
            frame(node, [x.at, image], from, plan.convolution.x, self.offset())?;
        }
        let image = if plan.framed { image } else { x.at };
        node.gpu().convolve(&plan.convolution, image, weights, y.at)?;
        node.find(2)?.map_or(Ok(()), |bias| add_bias(node, &y, &bias))
    }

    fn input_gradient(&self, node: &dyn Node, dy: &Array, w: &Array) -> Result<(), String> {
        let from = dy.image()?;
        let shape = [from[0], self.space[0], self.space[1], w.image()?[1] * self.groups];
        self.require(w, shape[3])?;
        let dx = node.output(0, &shape)?;
        if shape[0] == 0 {
            return Ok(());
        }
        let plan = self.plan(node, shape, from)?;
        let [weights, image] = plan.scratch(node, plan.turns)?;
        let weights = plan.weights(node, w, weights)?;
        if !plan.framed {
            return node.gpu().convolve(&plan.convolution, dy.at, weights, dx.at);
        }
        node.gpu().convolve(&plan.convolution, dy.at, weights, image)?;
        frame(node, [image, dx.at], plan.convolution.x, shape, self.offset().map(|offset| -offset))
    }

    fn weight_gradient(&self, node: &dyn Node, x: &Array, dy: &Array) -> Result<(), String> {
        let (from, to) = (x.image()?, dy.image()?);
        let shape = [to[3], from[3] / self.groups.max(1), self.kernel[0], self.kernel[1]];
        let dw = node.output(0, &shape)?;
        if from[0] == 0 {
            return node.gpu().zero(dw.at, dw.count() * FLOAT_SIZE);
        }
        let plan = self.plan(node, from, to)?;
        let own = plan.turns || node.element().size() != FLOAT_SIZE;
        let [weights, image] = plan.scratch(node, own)?;
        if plan.framed {
            frame(node, [x.at, image], from, plan.convolution.x, self.offset())?;
        }
        let image = if plan.framed { image } else { x.at };
        let found = if own { weights } else { dw.at };
        node.gpu().convolve(&plan.convolution, image, dy.at, found)?;
        if own {
            let [outputs, height, width, inputs] = plan.convolution.w;
            turned_wide(node.gpu(), node.element(), found, dw.at, [outputs, height * width, inputs])?;
        }
        Ok(())
    }
}
