//! Sampling of images at computed places, as taps: every place reads T pixels along each axis,
//! their weights are polynomials of where the place lies between them.

use crate::autodiff::rules::shared::{cast_to, float_constant, zeros_like};
use crate::autodiff::{Ctx, RuleError};
use crate::graph::{Attributes, DType, Tensor, ValueId};

/// How pixels between places are made.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::autodiff::rules) enum Filter {
    Nearest,
    Linear,
    Cubic,
}

/// What lies outside of an image.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::autodiff::rules) enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// What coordinates count in.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::autodiff::rules) enum Unit {
    /// -1 and 1 are the outermost pixels.
    Corners,
    /// -1 and 1 are the edges of the outermost pixels.
    Edges,
    /// Pixels from the first one.
    Pixels,
}

/// Samples of `image [N, C, D..]` at `grid [N, P, d]`, the last axis first; P places.
pub(in crate::autodiff::rules) struct Samples {
    pub image: ValueId,
    pub grid: ValueId,
    /// Sizes D of the image.
    pub sizes: Vec<i64>,
    pub filter: Filter,
    pub padding: Padding,
    pub unit: Unit,
}

/// Weights of the taps by powers of the place: `cubic` of Keys with a = -0.75.
const LINEAR: [&[f64]; 2] = [&[1.0, 0.0], &[-1.0, 1.0]];
const CUBIC: [&[f64]; 4] =
    [&[0.0, 1.0, 0.0, 0.0], &[-0.75, 0.0, 0.75, 0.0], &[1.5, -2.25, 1.5, -0.75], &[-0.75, 1.25, -1.25, 0.75]];

impl Samples {
    fn axes(&self) -> usize {
        self.sizes.len()
    }

    /// First tap relative to the place rounded down, and number of taps.
    fn reach(&self) -> (i64, i64) {
        match self.filter {
            Filter::Nearest => (0, 1),
            Filter::Linear => (0, 2),
            Filter::Cubic => (-1, 4),
        }
    }

    /// Returns one number for each coordinate of the grid, from one for each axis of the image.
    fn each(&self, ctx: &mut Ctx<'_>, part: &str, number: impl Fn(f64) -> f64, trailing: bool) -> ValueId {
        let numbers: Vec<f64> = self.sizes.iter().rev().map(|size| number(*size as f64)).collect();
        let shape = if trailing { vec![numbers.len(), 1] } else { vec![numbers.len()] };
        let dtype = ctx.dtype(self.grid);
        float_constant(ctx, part, &shape, &numbers, dtype)
    }

    /// Places in pixels, `[N, P, d]`.
    fn places(&self, ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
        if self.unit == Unit::Pixels {
            return Ok(self.grid);
        }
        ctx.once("places", |ctx| {
            let from_zero = ctx.b.shift(self.grid, 1.0);
            if self.unit == Unit::Corners {
                let half = ctx.b.scale(from_zero, 0.5);
                let last = self.each(ctx, "last", |size| size - 1.0, false);
                return Ok(ctx.b.mul(half, last));
            }
            let sizes = self.each(ctx, "sizes", |size| size, false);
            let scaled = ctx.b.mul(from_zero, sizes);
            let moved = ctx.b.shift(scaled, -1.0);
            Ok(ctx.b.scale(moved, 0.5))
        })
    }

    /// The pixel at or before every place (the nearest one), `[N, P, d]`.
    fn low(&self, ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
        ctx.once("low", |ctx| {
            let places = self.places(ctx)?;
            Ok(ctx.b.unary(if self.filter == Filter::Nearest { "Round" } else { "Floor" }, places))
        })
    }

    /// Pixels of the taps along each axis, which may lie outside, `[N, P, d, T]`.
    fn taps(&self, ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
        ctx.once("taps", |ctx| {
            let low = self.low(ctx)?;
            let low = ctx.b.unsqueeze(low, &[3]);
            let (first, count) = self.reach();
            let offsets: Vec<f64> = (first..first + count).map(|offset| offset as f64).collect();
            let dtype = ctx.dtype(low);
            let offsets = float_constant(ctx, "offsets", &[offsets.len()], &offsets, dtype);
            Ok(ctx.b.add(low, offsets))
        })
    }

    /// Pixels of the taps inside of the image, `[N, P, d, T]`.
    fn pixels(&self, ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
        ctx.once("pixels", |ctx| {
            let taps = self.taps(ctx)?;
            let zero = ctx.b.like(taps, 0.0);
            let last = self.each(ctx, "last", |size| size - 1.0, true);
            let bounded = if self.padding == Padding::Reflection {
                let (over, double) = if self.unit == Unit::Corners { (0.0, 2.0) } else { (1.0, 0.0) };
                let period = |size: f64| (2.0 * size - double).max(1.0);
                let (taps, period) = (ctx.b.cast(taps, DType::I64), self.each(ctx, "period", period, true));
                let whole = ctx.b.cast(period, DType::I64);
                let part = ctx.b.op("Mod", &[taps, whole], Attributes::none());
                let dtype = ctx.dtype(period);
                let part = ctx.b.cast(part, dtype);
                let mirror = ctx.b.sub(period, part);
                let mirror = ctx.b.shift(mirror, -over);
                ctx.b.op("Min", &[part, mirror], Attributes::none())
            } else {
                taps
            };
            let bounded = ctx.b.op("Max", &[bounded, zero], Attributes::none());
            let bounded = ctx.b.op("Min", &[bounded, last], Attributes::none());
            Ok(ctx.b.cast(bounded, DType::I64))
        })
    }

    /// Which taps count: `[N, P, d, T]`, 1 inside of the image.
    fn inside(&self, ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
        ctx.once("inside", |ctx| {
            let taps = self.taps(ctx)?;
            let sizes = self.each(ctx, "sizes", |size| size, true);
            let above = ctx.b.compare("Greater", taps, -1.0);
            let below = ctx.b.op("Less", &[taps, sizes], Attributes::none());
            let both = ctx.b.op("And", &[above, below], Attributes::none());
            let dtype = ctx.dtype(taps);
            Ok(ctx.b.cast(both, dtype))
        })
    }

    /// Weights of the taps along each axis or their slopes, `[N, P, d, T]`; `None` where all are 1.
    fn weights(&self, ctx: &mut Ctx<'_>, slopes: bool) -> Result<Option<ValueId>, RuleError> {
        let powers: &[&[f64]] = match self.filter {
            Filter::Nearest if self.padding == Padding::Zeros => return Ok(Some(self.inside(ctx)?)),
            Filter::Nearest => return Ok(None),
            Filter::Linear => &LINEAR,
            Filter::Cubic => &CUBIC,
        };
        ctx.once(if slopes { "slopes" } else { "weights" }, |ctx| {
            let part = ctx.once("part", |ctx| {
                let (places, low) = (self.places(ctx)?, self.low(ctx)?);
                let part = ctx.b.sub(places, low);
                Ok(ctx.b.unsqueeze(part, &[3]))
            })?;
            let mut powers: Vec<Vec<f64>> = powers.iter().map(|power| power.to_vec()).collect();
            if slopes {
                let higher = powers.iter().enumerate().skip(1);
                powers = higher.map(|(n, power)| power.iter().map(|factor| factor * n as f64).collect()).collect();
            }
            let mut value = None;
            for factors in powers.iter().rev() {
                let dtype = ctx.dtype(part);
                let factors = float_constant(ctx, "factors", &[factors.len()], factors, dtype);
                value = Some(match value {
                    None => factors,
                    Some(value) => {
                        let raised = ctx.b.mul(value, part);
                        ctx.b.add(raised, factors)
                    }
                });
            }
            let mut value = value.ok_or_else(|| RuleError::Unsupported("a filter without weights".into()))?;
            if self.padding == Padding::Zeros {
                let inside = self.inside(ctx)?;
                value = ctx.b.mul(value, inside);
            } else if slopes && self.filter == Filter::Linear {
                let moving = self.moving(ctx)?;
                value = ctx.b.mul(value, moving);
            }
            Ok(value)
        })
        .map(Some)
    }

    /// 0 where a place is exactly an outermost pixel, else 1, `[N, P, d, 1]`.
    fn moving(&self, ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
        let (places, low, pixels) = (self.places(ctx)?, self.low(ctx)?, self.pixels(ctx)?);
        let [start, end, axes] = [("starts", 0), ("ends", 1), ("axes", 3)].map(|(name, at)| ctx.b.ints(name, &[at]));
        let first = ctx.b.op("Slice", &[pixels, start, end, axes], Attributes::none());
        let last: Vec<i64> = self.sizes.iter().rev().map(|size| size - 1).collect();
        let last = ctx.b.constant("last", Tensor::from_vec(&[last.len(), 1], last));
        let exact = ctx.b.op("Equal", &[places, low], Attributes::none());
        let exact = ctx.b.unsqueeze(exact, &[3]);
        let at_start = ctx.b.compare("Equal", first, 0.0);
        let at_end = ctx.b.op("Equal", &[first, last], Attributes::none());
        let outermost = ctx.b.op("Or", &[at_start, at_end], Attributes::none());
        let still = ctx.b.op("And", &[exact, outermost], Attributes::none());
        let moving = ctx.b.unary("Not", still);
        let dtype = ctx.dtype(places);
        Ok(ctx.b.cast(moving, dtype))
    }

    /// Returns what a value `[N, P, d, T]` has for an axis of the image, `[N, P, 1.., T, 1..]`.
    fn along(&self, ctx: &mut Ctx<'_>, value: ValueId, axis: usize) -> ValueId {
        let coordinate = (self.axes() - 1 - axis) as i64;
        let at = ctx.b.constant("axis", Tensor::scalar(coordinate));
        let picked = ctx.b.op("Gather", &[value, at], Attributes::none().with("axis", 2));
        let ones: Vec<i64> = (0..self.axes()).filter(|other| *other != axis).map(|other| 2 + other as i64).collect();
        if ones.is_empty() { picked } else { ctx.b.unsqueeze(picked, &ones) }
    }

    fn taps_of_all(&self) -> i64 {
        self.reach().1.pow(self.axes() as u32)
    }

    /// Positions of the taps in the flat image, `[N, P, T^d]`.
    fn positions(&self, ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
        ctx.once("positions", |ctx| {
            let pixels = self.pixels(ctx)?;
            let mut total = None;
            for axis in 0..self.axes() {
                let stride: i64 = self.sizes[axis + 1..].iter().product();
                let mut along = self.along(ctx, pixels, axis);
                if stride != 1 {
                    along = ctx.b.scale(along, stride as f64);
                }
                total = Some(match total {
                    None => along,
                    Some(total) => ctx.b.add(total, along),
                });
            }
            let total = total.ok_or_else(|| RuleError::Unsupported("an image without axes".into()))?;
            Ok(ctx.b.reshape(total, &[0, -1, self.taps_of_all()]))
        })
    }

    /// Products of the weights of all axes, that of `sloped` replaced by its slope: `[N, P, T^d]`,
    /// `None` where all are 1.
    fn products(&self, ctx: &mut Ctx<'_>, sloped: Option<usize>) -> Result<Option<ValueId>, RuleError> {
        let mut product = None;
        for axis in 0..self.axes() {
            let Some(weights) = self.weights(ctx, sloped == Some(axis))? else { continue };
            let along = self.along(ctx, weights, axis);
            product = Some(match product {
                None => along,
                Some(product) => ctx.b.mul(product, along),
            });
        }
        Ok(product.map(|product| ctx.b.reshape(product, &[0, -1, self.taps_of_all()])))
    }

    /// Returns the gradient of the flat image, `[N, C, D]`, for that of the samples, `[N, C, P]`.
    pub fn image_gradient(&self, ctx: &mut Ctx<'_>, dy: ValueId) -> Result<ValueId, RuleError> {
        let weights = self.products(ctx, None)?;
        let positions = self.positions(ctx)?;
        let mut shares = ctx.b.unsqueeze(dy, &[3]);
        if let Some(weights) = weights {
            let dtype = ctx.dtype(dy);
            let weights = cast_to(ctx, weights, dtype);
            let weights = ctx.b.unsqueeze(weights, &[1]);
            shares = ctx.b.mul(shares, weights);
        }
        let shares = ctx.b.reshape(shares, &[0, 0, -1]);
        let positions = ctx.b.reshape(positions, &[0, 1, -1]);
        let positions = ctx.b.expand_like(positions, shares);
        let flat = ctx.b.reshape(self.image, &[0, 0, -1]);
        let zeros = zeros_like(ctx, flat);
        let add = Attributes::none().with("axis", 2).with("reduction", "add");
        Ok(ctx.b.op("ScatterElements", &[zeros, positions, shares], add))
    }

    /// The pixels that the taps read, `[N, P, T^d, C]`.
    fn read(&self, ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
        ctx.once("read", |ctx| {
            let channels = ctx.sizes_from(self.image, 1)?.first().copied().unwrap_or(1) as i64;
            let positions = self.positions(ctx)?;
            let flat = ctx.b.reshape(self.image, &[0, 0, -1]);
            let rows = ctx.b.transpose(flat, &[0, 2, 1]);
            let places = ctx.b.reshape(positions, &[0, -1, 1]);
            let pixels = ctx.b.op("GatherND", &[rows, places], Attributes::none().with("batch_dims", 1));
            Ok(ctx.b.reshape(pixels, &[0, -1, self.taps_of_all(), channels]))
        })
    }

    /// Returns the samples, `[N, C, P]`.
    pub fn values(&self, ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
        let mut pixels = self.read(ctx)?;
        if let Some(weights) = self.products(ctx, None)? {
            let dtype = ctx.dtype(pixels);
            let weights = cast_to(ctx, weights, dtype);
            let weights = ctx.b.unsqueeze(weights, &[3]);
            pixels = ctx.b.mul(pixels, weights);
        }
        let sums = ctx.b.reduce("ReduceSum", pixels, &[2], false);
        Ok(ctx.b.transpose(sums, &[0, 2, 1]))
    }

    /// Returns the gradient of the grid, `[N, P, d]`, for that of the samples, `[N, C, P]`.
    pub fn grid_gradient(&self, ctx: &mut Ctx<'_>, dy: ValueId) -> Result<ValueId, RuleError> {
        if self.filter == Filter::Nearest {
            return Ok(zeros_like(ctx, self.grid));
        }
        let pixels = self.read(ctx)?;
        let turned = ctx.b.transpose(dy, &[0, 2, 1]);
        let turned = ctx.b.unsqueeze(turned, &[2]);
        let felt = ctx.b.mul(pixels, turned);
        let felt = ctx.b.reduce("ReduceSum", felt, &[3], false);
        let dtype = ctx.dtype(self.grid);
        let felt = cast_to(ctx, felt, dtype);
        let mut coordinates = Vec::new();
        for axis in (0..self.axes()).rev() {
            let Some(slopes) = self.products(ctx, Some(axis))? else { continue };
            let change = ctx.b.mul(felt, slopes);
            coordinates.push(ctx.b.reduce("ReduceSum", change, &[2], true));
        }
        let all = ctx.b.op("Concat", &coordinates, Attributes::none().with("axis", 2));
        let scale = match self.unit {
            Unit::Corners => self.each(ctx, "scale", |size| (size - 1.0) / 2.0, false),
            Unit::Edges => self.each(ctx, "scale", |size| size / 2.0, false),
            Unit::Pixels => return Ok(all),
        };
        Ok(ctx.b.mul(all, scale))
    }
}
