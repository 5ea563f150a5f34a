//! Pooling of images and its gradients.

use super::super::gpu::Arguments;
use super::super::kernels::POOL;
use super::tiles::{BLOCK, Tiles};
use super::{Attributes, Compute, DATA, Definition, Node, long, sizes};

pub(super) static MAX_POOL: Definition = Definition {
    name: "MaxPool",
    inputs: &[DATA],
    outputs: &[DATA],
    make: |node| Ok(Box::new(Pool { windows: Windows::read(node, Some("output"))?, what: What::Greatest })),
};

pub(super) static MAX_POOL_GRAD: Definition = Definition {
    name: "MaxPoolGrad",
    inputs: &[DATA, DATA, DATA],
    outputs: &[DATA],
    make: |node| Ok(Box::new(MaxGrad(Windows::read(node, None)?))),
};

pub(super) static AVERAGE_POOL: Definition = Definition {
    name: "AveragePool",
    inputs: &[DATA],
    outputs: &[DATA],
    make: |node| Ok(Box::new(Pool { windows: Windows::read(node, Some("output"))?, what: What::Mean })),
};

pub(super) static AVERAGE_POOL_GRAD: Definition = Definition {
    name: "AveragePoolGrad",
    inputs: &[DATA],
    outputs: &[DATA],
    make: |node| Ok(Box::new(AverageGrad(Windows::read(node, Some("space"))?))),
};

pub(super) static GLOBAL_AVERAGE_POOL: Definition =
    Definition { name: "GlobalAveragePool", inputs: &[DATA], outputs: &[DATA], make: |_| Ok(Box::new(Global)) };

pub(super) static GLOBAL_AVERAGE_POOL_GRAD: Definition = Definition {
    name: "GlobalAveragePoolGrad",
    inputs: &[DATA],
    outputs: &[DATA],
    make: |node| Ok(Box::new(GlobalGrad(sizes(node, "space")?))),
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

/// Windows as kernels take them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Placed {
    input: [i32; 2],
    output: [i32; 2],
    kernel: [i32; 2],
    strides: [i32; 2],
    dilations: [i32; 2],
    begin: [i32; 2],
    counted: [[i32; 2]; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct PoolArguments {
    from: u64,
    to: u64,
    winners: u64,
    pixels: i64,
    channels: i64,
    width: i64,
    lanes: i64,
    windows: Placed,
}

// SAFETY: the fields of `pool_arguments` in pool.cu, without padding.
unsafe impl Arguments for PoolArguments {}

impl Windows {
    fn read(node: &dyn Attributes, to: Option<&str>) -> Result<Windows, String> {
        Ok(Windows {
            kernel: sizes(node, "kernel_shape")?,
            strides: sizes(node, "strides")?,
            dilations: sizes(node, "dilations")?,
            pads: sizes(node, "pads")?,
            to: to.map_or(Ok([0; 2]), |name| sizes(node, name))?,
            counts_pads: node.int("count_include_pad") == Some(1),
        })
    }

    /// Returns the windows between images of these sizes.
    ///
    /// # Errors
    /// A size is 0, or sizes are too large.
    fn placed(&self, input: [usize; 2], output: [usize; 2]) -> Result<Placed, String> {
        let fail = || format!("windows {:?} on images of {}x{}", self.kernel, input[0], input[1]);
        let small = |sizes: [usize; 2]| -> Result<[i32; 2], String> {
            // What is added up of such sizes fits.
            let small = |size: usize| i32::try_from(size).ok().filter(|size| *size < 1 << 15).ok_or_else(fail);
            Ok([small(sizes[0])?, small(sizes[1])?])
        };
        if [self.kernel, self.strides, self.dilations].concat().contains(&0) {
            return Err(fail());
        }
        let (begin, end) = (small([self.pads[0], self.pads[1]])?, small([self.pads[2], self.pads[3]])?);
        let input = small(input)?;
        let counted = [0, 1].map(|axis| match self.counts_pads {
            true => [0, begin[axis] + input[axis] + end[axis]],
            false => [begin[axis], begin[axis] + input[axis]],
        });
        let (kernel, strides, dilations) = (small(self.kernel)?, small(self.strides)?, small(self.dilations)?);
        Ok(Placed { input, output: small(output)?, kernel, strides, dilations, begin, counted })
    }
}

/// A kernel on the pixels of what it writes.
struct Step {
    kernel: [&'static str; 2],
    from: u64,
    to: u64,
    winners: u64,
    /// Pixels of all images that are written, and their channels.
    pixels: usize,
    channels: usize,
    windows: Placed,
}

impl Step {
    fn run(&self, node: &dyn Node, tiles: Tiles) -> Result<(), String> {
        if self.pixels == 0 || self.channels == 0 {
            return Ok(());
        }
        let arguments = PoolArguments {
            from: self.from,
            to: self.to,
            winners: self.winners,
            pixels: few(self.pixels)?,
            channels: long(self.channels),
            width: long(tiles.width),
            lanes: long(tiles.lanes),
            windows: self.windows,
        };
        node.gpu().blocks(&POOL, tiles.kernel(self.kernel), node.element(), tiles.grid, BLOCK, &arguments)
    }
}

/// Returns a number of pixels, of which kernels take up to 2^32.
fn few(pixels: usize) -> Result<i64, String> {
    u32::try_from(pixels).map(i64::from).map_err(|_| format!("{pixels} pixels are too many"))
}

#[derive(Clone, Copy)]
enum What {
    Mean,
    Greatest,
}

struct Pool {
    windows: Windows,
    what: What,
}

impl Compute for Pool {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let x = node.input(0)?;
        let [batch, height, width, channels] = x.image()?;
        let to = self.windows.to;
        let windows = self.windows.placed([height, width], to)?;
        let y = node.output(0, &[batch, to[0], to[1], channels])?;
        let kernel = match self.what {
            What::Mean => ["average_pool_many", "average_pool_one"],
            What::Greatest => ["max_pool_many", "max_pool_one"],
        };
        let pixels = batch * to[0] * to[1];
        let tiles = Tiles::new(pixels, channels, node.element(), node.gpu().processors());
        Step { kernel, from: x.at, to: y.at, winners: 0, pixels, channels, windows }.run(node, tiles)
    }
}

/// Windows up to this size have winners of one byte.
const SMALL: usize = 255;

struct MaxGrad(Windows);

impl Compute for MaxGrad {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let (dy, x) = (node.input(0)?, node.input(1)?);
        let ([batch, height, width, channels], [_, rows, columns, _]) = (x.image()?, dy.image()?);
        let windows = self.0.placed([height, width], [rows, columns])?;
        let dx = node.output(0, &x.shape)?;
        let (inputs, outputs) = (batch * height * width, batch * rows * columns);
        if dy.shape != [batch, rows, columns, channels] {
            return Err(format!("images have shapes {:?} and {:?}", x.shape, dy.shape));
        }
        let size = self.0.kernel[0].saturating_mul(self.0.kernel[1]);
        if size > usize::from(u16::MAX) {
            return Err(format!("windows {:?} are too large", self.0.kernel));
        }
        let tiles = |pixels: usize| {
            let processors = node.gpu().processors();
            match size {
                0..=SMALL => Tiles::new(pixels, channels, node.element(), processors),
                _ => Tiles::single(pixels, channels, processors),
            }
        };
        let bytes = if tiles(inputs).many { 1 } else { 2 };
        let winners = node.gpu().scratch(outputs * channels * bytes)?;
        let kernel = ["max_pool_winners_many", "max_pool_winners_one"];
        Step { kernel, from: x.at, to: 0, winners, pixels: outputs, channels, windows }.run(node, tiles(outputs))?;
        let kernel = ["max_pool_gradient_many", "max_pool_gradient_one"];
        Step { kernel, from: dy.at, to: dx.at, winners, pixels: inputs, channels, windows }.run(node, tiles(inputs))
    }
}

struct AverageGrad(Windows);

impl Compute for AverageGrad {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let dy = node.input(0)?;
        let [batch, height, width, channels] = dy.image()?;
        let to = self.0.to;
        let windows = self.0.placed(to, [height, width])?;
        let dx = node.output(0, &[batch, to[0], to[1], channels])?;
        let kernel = ["average_pool_gradient_many", "average_pool_gradient_one"];
        let pixels = batch * to[0] * to[1];
        let tiles = Tiles::new(pixels, channels, node.element(), node.gpu().processors());
        Step { kernel, from: dy.at, to: dx.at, winners: 0, pixels, channels, windows }.run(node, tiles)
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct GlobalArguments {
    from: u64,
    to: u64,
    images: i64,
    pixels: i64,
    channels: i64,
    width: i64,
    lanes: i64,
}

// SAFETY: the fields of `global_arguments` in pool.cu, without padding.
unsafe impl Arguments for GlobalArguments {}

/// Starts a kernel between whole images and their means.
fn global(
    node: &dyn Node,
    kernel: [&'static str; 2],
    [from, to]: [u64; 2],
    [images, pixels, channels]: [usize; 3],
    tiles: Tiles,
) -> Result<(), String> {
    if images * pixels * channels == 0 {
        return Ok(());
    }
    few(images * pixels)?;
    let [images, pixels, channels, width, lanes] = [images, pixels, channels, tiles.width, tiles.lanes].map(long);
    let arguments = GlobalArguments { from, to, images, pixels, channels, width, lanes };
    node.gpu().blocks(&POOL, tiles.kernel(kernel), node.element(), tiles.grid, BLOCK, &arguments)
}

struct Global;

impl Compute for Global {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let x = node.input(0)?;
        let [batch, height, width, channels] = x.image()?;
        let y = node.output(0, &[batch, 1, 1, channels])?;
        let tiles = Tiles::new(height * width, channels, node.element(), node.gpu().processors());
        let tiles = Tiles { grid: [batch, tiles.grid[1]], ..tiles };
        global(node, ["global_pool_many", "global_pool_one"], [x.at, y.at], [batch, height * width, channels], tiles)
    }
}

struct GlobalGrad([usize; 2]);

impl Compute for GlobalGrad {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let dy = node.input(0)?;
        let ([batch, _, _, channels], [height, width]) = (dy.image()?, self.0);
        let dx = node.output(0, &[batch, height, width, channels])?;
        let tiles = Tiles::new(batch * height * width, channels, node.element(), node.gpu().processors());
        let kernel = ["global_gradient_many", "global_gradient_one"];
        global(node, kernel, [dy.at, dx.at], [batch, height * width, channels], tiles)
    }
}
