//! Batch normalization with what is fused into it: a residual and an activation.

use super::super::gpu::Arguments;
use super::super::kernels::BATCH_NORM;
use super::tiles::{BLOCK, Tiles};
use super::{Array, Attributes, Compute, DATA, Definition, FLOAT, Node, OPTIONAL, OPTIONAL_FLOAT, long};

pub(super) static BATCH_NORMALIZATION: Definition = Definition {
    name: "BatchNormalization",
    inputs: &[DATA, FLOAT, FLOAT, OPTIONAL],
    outputs: &[OPTIONAL, OPTIONAL_FLOAT, OPTIONAL_FLOAT, OPTIONAL_FLOAT],
    make: |node| Ok(Box::new(Forward { bounds: bounds(node)?, epsilon: epsilon(node), given: false })),
};

pub(super) static FIXED_NORMALIZATION: Definition = Definition {
    name: "FixedNormalization",
    inputs: &[DATA, FLOAT, FLOAT, FLOAT, FLOAT, OPTIONAL],
    outputs: &[DATA],
    make: |node| Ok(Box::new(Forward { bounds: bounds(node)?, epsilon: epsilon(node), given: true })),
};

pub(super) static BATCH_NORMALIZATION_GRAD: Definition = Definition {
    name: "BatchNormalizationGrad",
    inputs: &[DATA, OPTIONAL, OPTIONAL, DATA, FLOAT, FLOAT, FLOAT, FLOAT],
    outputs: &[OPTIONAL, OPTIONAL_FLOAT, OPTIONAL_FLOAT, OPTIONAL],
    make: |node| Ok(Box::new(Backward { bounds: bounds(node)?, epsilon: 0.0, given: false })),
};

pub(super) static FIXED_NORMALIZATION_GRAD: Definition = Definition {
    name: "FixedNormalizationGrad",
    inputs: &[DATA, OPTIONAL, OPTIONAL, DATA, FLOAT, FLOAT, FLOAT, FLOAT],
    outputs: &[OPTIONAL, OPTIONAL_FLOAT, OPTIONAL_FLOAT, OPTIONAL],
    make: |node| Ok(Box::new(Backward { bounds: bounds(node)?, epsilon: epsilon(node), given: true })),
};

pub(super) static RUNNING_STATISTICS: Definition = Definition {
    name: "RunningStatistics",
    inputs: &[FLOAT, FLOAT, FLOAT, FLOAT, DATA],
    outputs: &[FLOAT, FLOAT],
    make: |node| {
        let [keep, add] = [node.float("keep").unwrap_or(0.9), node.float("add").unwrap_or(0.1)];
        Ok(Box::new(Running { keep, add, unbiased: node.int("unbiased").unwrap_or(0) != 0 }))
    },
};

fn epsilon(node: &dyn Attributes) -> f32 {
    node.float("epsilon").unwrap_or(1e-5)
}

/// Returns the bounds of an activation; one that is no number does not bind.
fn bounds(node: &dyn Attributes) -> Result<[f32; 2], String> {
    match node.text("activation").as_deref() {
        None | Some("none" | "") => Ok([f32::NAN; 2]),
        Some("relu") => Ok([0.0, f32::NAN]),
        Some("clip") => {
            Ok([node.float("min").unwrap_or(f32::NEG_INFINITY), node.float("max").unwrap_or(f32::INFINITY)])
        }
        Some(other) => Err(format!("activation \"{other}\" is not known")),
    }
}

/// Returns rows and channels of an image.
fn rows(shape: &[usize]) -> (usize, usize) {
    let channels = shape.last().copied().unwrap_or(1);
    (shape.iter().take(shape.len().saturating_sub(1)).product(), channels)
}

/// Returns an error where a value has not an element for each channel.
fn require_channels(values: &[&Array], channels: usize) -> Result<(), String> {
    match values.iter().find(|value| value.count() != channels) {
        Some(value) => Err(format!("a value of {channels} channels has shape {:?}", value.shape)),
        None => Ok(()),
    }
}

/// Returns an error where a value has not the shape of the image.
fn require_shape(values: &[Option<&Array>], shape: &[usize]) -> Result<(), String> {
    match values.iter().flatten().find(|value| value.shape != shape) {
        Some(value) => Err(format!("images have shapes {:?} and {shape:?}", value.shape)),
        None => Ok(()),
    }
}

fn at(array: Option<&Array>) -> u64 {
    array.map_or(0, |array| array.at)
}

/// Channels and threads of a block that adds what blocks found.
const SIDE: usize = 32;
const DEEP: usize = 16;

/// Bytes of a float32.
const FLOAT_SIZE: usize = 4;

struct Forward {
    bounds: [f32; 2],
    epsilon: f32,
    /// Whether the statistics are given, with the variance.
    given: bool,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct MomentsArguments {
    x: u64,
    parts: u64,
    rows: i64,
    channels: i64,
    width: i64,
    lanes: i64,
}

// SAFETY: the fields of `moments_arguments` in batch_norm.cu, without padding.
unsafe impl Arguments for MomentsArguments {}

#[repr(C)]
#[derive(Clone, Copy)]
struct StatisticsArguments {
    parts: u64,
    mean: u64,
    var: u64,
    inv_std: u64,
    rows: i64,
    channels: i64,
    lanes: i64,
    blocks: i64,
    epsilon: f32,
    unused: u32,
}

// SAFETY: the fields of `statistics_arguments` in batch_norm.cu, without padding.
unsafe impl Arguments for StatisticsArguments {}

#[repr(C)]
#[derive(Clone, Copy)]
struct ApplyArguments {
    x: u64,
    residual: u64,
    scale: u64,
    bias: u64,
    mean: u64,
    spread: u64,
    y: u64,
    rows: i64,
    channels: i64,
    width: i64,
    lanes: i64,
    epsilon: f32,
    min: f32,
    max: f32,
    given: u32,
}

// SAFETY: the fields of `apply_arguments` in batch_norm.cu, without padding.
unsafe impl Arguments for ApplyArguments {}

impl Compute for Forward {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let [x, scale, bias] = [node.input(0)?, node.input(1)?, node.input(2)?];
        let residual = node.find(if self.given { 5 } else { 3 })?;
        let (rows, channels) = rows(&x.shape);
        require_channels(&[&scale, &bias], channels)?;
        require_shape(&[residual.as_ref()], &x.shape)?;
        let tiles = Tiles::new(rows, channels, node.element(), node.gpu().processors());
        let (mean, spread) = if self.given {
            let [mean, var] = [node.input(3)?, node.input(4)?];
            require_channels(&[&mean, &var], channels)?;
            (mean.at, var.at)
        } else {
            if x.count() == 0 {
                return Err(format!("images of shape {:?} have no statistics", x.shape));
            }
            self.statistics(node, &x, rows, channels, tiles)?
        };
        let Some(y) = node.wanted(0, &x.shape)? else { return Ok(()) };
        if y.count() == 0 {
            return Ok(());
        }
        let [min, max] = self.bounds;
        let arguments = ApplyArguments {
            x: x.at,
            residual: at(residual.as_ref()),
            scale: scale.at,
            bias: bias.at,
            mean,
            spread,
            y: y.at,
            rows: long(rows),
            channels: long(channels),
            width: long(tiles.width),
            lanes: long(tiles.lanes),
            epsilon: self.epsilon,
            min,
            max,
            given: u32::from(self.given),
        };
        let kernel = tiles.kernel(["batch_apply_many", "batch_apply_one"]);
        node.gpu().blocks(&BATCH_NORM, kernel, node.element(), tiles.grid, BLOCK, &arguments)
    }
}

impl Forward {
    /// Computes the statistics of the rows; returns where the mean and the inverse standard deviation are.
    fn statistics(
        &self,
        node: &dyn Node,
        x: &Array,
        rows: usize,
        channels: usize,
        tiles: Tiles,
    ) -> Result<(u64, u64), String> {
        let [mean, var, inv_std] =
            [node.wanted(1, &[channels])?, node.wanted(2, &[channels])?, node.wanted(3, &[channels])?];
        let channel_bytes = channels * FLOAT_SIZE;
        let parts = node.gpu().scratch((3 * tiles.grid[0] + 2) * channel_bytes)?;
        let own = parts + (3 * tiles.grid[0] * channel_bytes) as u64;
        let mean = mean.map_or(own, |mean| mean.at);
        let inv_std = inv_std.map_or(own + channel_bytes as u64, |inv_std| inv_std.at);
        let sizes = [rows, channels, tiles.width, tiles.lanes].map(long);
        let [rows, columns, width, lanes] = sizes;
        let moments = MomentsArguments { x: x.at, parts, rows, channels: columns, width, lanes };
        let kernel = tiles.kernel(["batch_moments_many", "batch_moments_one"]);
        node.gpu().blocks(&BATCH_NORM, kernel, node.element(), tiles.grid, BLOCK, &moments)?;
        let statistics = StatisticsArguments {
            parts,
            mean,
            var: at(var.as_ref()),
            inv_std,
            rows,
            channels: columns,
            lanes,
            blocks: long(tiles.grid[0]),
            epsilon: self.epsilon,
            unused: 0,
        };
        let grid = [channels.div_ceil(SIDE), 1];
        node.gpu().blocks(&BATCH_NORM, "batch_statistics", node.element(), grid, SIDE * DEEP, &statistics)?;
        Ok((mean, inv_std))
    }
}

struct Backward {
    bounds: [f32; 2],
    epsilon: f32,
    /// Whether the statistics are given, with the variance.
    given: bool,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct GradientArguments {
    dy: u64,
    more: u64,
    y: u64,
    x: u64,
    scale: u64,
    bias: u64,
    mean: u64,
    spread: u64,
    coefficients: u64,
    parts: u64,
    dx: u64,
    dresidual: u64,
    rows: i64,
    channels: i64,
    width: i64,
    lanes: i64,
    epsilon: f32,
    min: f32,
    max: f32,
    given: u32,
    gated: u32,
    centered: u32,
}

// SAFETY: the fields of `gradient_arguments` in batch_norm.cu, without padding.
unsafe impl Arguments for GradientArguments {}

#[repr(C)]
#[derive(Clone, Copy)]
struct TotalsArguments {
    parts: u64,
    scale: u64,
    spread: u64,
    dscale: u64,
    dbias: u64,
    coefficients: u64,
    rows: i64,
    channels: i64,
    blocks: i64,
    epsilon: f32,
    given: u32,
}

// SAFETY: the fields of `totals_arguments` in batch_norm.cu, without padding.
unsafe impl Arguments for TotalsArguments {}

impl Compute for Backward {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let (dy, more, y, x) = (node.input(0)?, node.find(1)?, node.find(2)?, node.input(3)?);
        let [scale, bias, mean, spread] = [node.input(4)?, node.input(5)?, node.input(6)?, node.input(7)?];
        let (rows, channels) = rows(&x.shape);
        require_shape(&[Some(&dy), more.as_ref(), y.as_ref()], &x.shape)?;
        require_channels(&[&scale, &bias, &mean, &spread], channels)?;
        let [dx, dresidual] = [node.wanted(0, &x.shape)?, node.wanted(3, &x.shape)?];
        let [dscale, dbias] = [node.wanted(1, &[channels])?, node.wanted(2, &[channels])?];
        if x.count() == 0 {
            let sums = [dscale, dbias].into_iter().flatten();
            return sums.into_iter().try_for_each(|sum| node.gpu().zero(sum.at, sum.count() * FLOAT_SIZE));
        }
        // Without given statistics, dx depends on the sums.
        let later = dx.as_ref().filter(|_| !self.given);
        let summed = dscale.is_some() || dbias.is_some() || later.is_some();
        if !summed && dx.is_none() && dresidual.is_none() {
            return Ok(());
        }
        let gpu = node.gpu();
        let tiles = Tiles::new(rows, channels, node.element(), gpu.processors());
        let blocks = if summed { tiles.grid[0] } else { 0 };
        let parts = gpu.scratch((2 * blocks + 2) * channels * FLOAT_SIZE)?;
        let coefficients = parts + (2 * blocks * channels * FLOAT_SIZE) as u64;
        let [min, max] = self.bounds;
        let gated = !(min.is_nan() && max.is_nan());
        let first = GradientArguments {
            dy: dy.at,
            more: at(more.as_ref()),
            y: if gated { at(y.as_ref()) } else { 0 },
            x: x.at,
            scale: scale.at,
            bias: bias.at,
            mean: mean.at,
            spread: spread.at,
            coefficients,
            parts: if summed { parts } else { 0 },
            dx: if later.is_some() { 0 } else { at(dx.as_ref()) },
            dresidual: at(dresidual.as_ref()),
            rows: long(rows),
            channels: long(channels),
            width: long(tiles.width),
            lanes: long(tiles.lanes),
            epsilon: self.epsilon,
            min,
            max,
            given: u32::from(self.given),
            gated: u32::from(gated),
            centered: u32::from(summed || gated && y.is_none()),
        };
        let kernel = tiles.kernel(["batch_gradient_many", "batch_gradient_one"]);
        gpu.blocks(&BATCH_NORM, kernel, node.element(), tiles.grid, BLOCK, &first)?;
        if !summed {
            return Ok(());
        }
        let totals = TotalsArguments {
            parts,
            scale: scale.at,
            spread: spread.at,
            dscale: at(dscale.as_ref()),
            dbias: at(dbias.as_ref()),
            coefficients: if later.is_some() { coefficients } else { 0 },
            rows: long(rows),
            channels: long(channels),
            blocks: long(blocks),
            epsilon: self.epsilon,
            given: u32::from(self.given),
        };
        let grid = [channels.div_ceil(SIDE), 1];
        gpu.blocks(&BATCH_NORM, "batch_totals", node.element(), grid, SIDE * DEEP, &totals)?;
        let Some(dx) = later else { return Ok(()) };
        let mut second = GradientArguments { parts: 0, dx: dx.at, dresidual: 0, centered: 1, ..first };
        if let Some(masked) = &dresidual {
            second = GradientArguments { dy: masked.at, more: 0, y: 0, gated: 0, ..second };
        }
        let kernel = tiles.kernel(["batch_input_gradient_many", "batch_input_gradient_one"]);
        gpu.blocks(&BATCH_NORM, kernel, node.element(), tiles.grid, BLOCK, &second)
    }
}

struct Running {
    keep: f32,
    add: f32,
    /// Whether the variance is that of a sample.
    unbiased: bool,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct RunningArguments {
    mean: u64,
    var: u64,
    running_mean: u64,
    running_var: u64,
    next_mean: u64,
    next_var: u64,
    channels: i64,
    keep: f32,
    add: f32,
    factor: f32,
    unused: u32,
}

// SAFETY: the fields of `running_arguments` in batch_norm.cu, without padding.
unsafe impl Arguments for RunningArguments {}

impl Compute for Running {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let [mean, var, running_mean, running_var] = [node.input(0)?, node.input(1)?, node.input(2)?, node.input(3)?];
        let count = rows(&node.input(4)?.shape).0 as f32;
        let channels = mean.count();
        require_channels(&[&var, &running_mean, &running_var], channels)?;
        let [next_mean, next_var] = [node.output(0, &running_mean.shape)?, node.output(1, &running_var.shape)?];
        let arguments = RunningArguments {
            mean: mean.at,
            var: var.at,
            running_mean: running_mean.at,
            running_var: running_var.at,
            next_mean: next_mean.at,
            next_var: next_var.at,
            channels: long(channels),
            keep: self.keep,
            add: self.add,
            factor: if self.unbiased { count / (count - 1.0).max(1.0) } else { 1.0 },
            unused: 0,
        };
        node.gpu().each(&BATCH_NORM, "running_statistics", node.element(), channels, &arguments)
    }
}
