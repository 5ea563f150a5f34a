//! Gradients of a normalization.

use super::Normalization;
use crate::activation::{Activate, Activation, with_activation};
use crate::exec::Exec;
use crate::fold::{Block, Columns, Fold, columns, load, store};
use crate::pool::Shared;
use crate::simd::{Simd, Task, dispatch_at};

/// What a gradient is computed from.
#[derive(Clone, Copy, Debug)]
pub struct Backward<'a> {
    /// The gradient that arrives, the sum of one or two.
    pub dys: &'a [&'a [f32]],
    /// What forward gave. Where it is absent, the activation is judged by what `x` gives without a
    /// residual, which needs less memory traffic.
    pub y: Option<&'a [f32]>,
    /// The input of forward.
    pub x: &'a [f32],
    /// The mean that forward used.
    pub mean: &'a [f32],
    /// The inverse standard deviation that forward used.
    pub inv_std: &'a [f32],
}

/// The gradients that are wanted.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// The gradient of x.
    pub dx: Option<&'a mut [f32]>,
    /// The gradient of the scale.
    pub dscale: Option<&'a mut [f32]>,
    /// The gradient of the bias.
    pub dbias: Option<&'a mut [f32]>,
    /// The gradient of the residual.
    pub dresidual: Option<&'a mut [f32]>,
}

/// Computes gradients where the statistics are those of the rows.
///
/// With `d = sum(dys)` where the activation passes it, else 0, and `c = x - mean`: `dresidual = d`,
/// `dbias = sum(d)`, `dscale = inv_std sum(d c)` and
/// `dx = (d - mean(d) - c inv_std^2 mean(d c)) scale inv_std`.
///
/// # Panics
/// When a slice has the wrong length, or `dys` is not of one or two.
pub fn backward(exec: Exec<'_>, norm: &Normalization<'_>, from: &Backward<'_>, mut to: Gradients<'_>) {
    let pass = Pass::new(norm, from, &to);
    if from.x.is_empty() {
        return to.clear();
    }
    let dx = to.dx.take();
    if dx.is_none() && to.dscale.is_none() && to.dbias.is_none() && to.dresidual.is_none() {
        return;
    }
    let dresidual = to.dresidual.as_deref_mut();
    let sums = pass.run(exec, norm.activation, true, None, dresidual);
    let sums = sums.unwrap_or_default();
    sums.write(from, &mut to);
    let Some(dx) = dx else { return };
    let rows = norm.rows as f64;
    let coefficients = |channel: usize| {
        let inv_std = f64::from(from.inv_std[channel]);
        let factor = f64::from(norm.scale[channel]) * inv_std;
        let slope = factor * inv_std * inv_std * sums.products[channel] / rows;
        (factor as f32, slope as f32, (factor * sums.grads[channel] / rows) as f32)
    };
    let pass = Pass {
        factor: pass.fold.spread(|channel| coefficients(channel).0),
        slope: pass.fold.spread(|channel| coefficients(channel).1),
        constant: pass.fold.spread(|channel| coefficients(channel).2),
        ..pass
    };
    match to.dresidual.as_deref() {
        Some(masked) => {
            let dys = [masked];
            let pass = Pass { dys: &dys, y: None, ..pass };
            pass.run(exec, Activation::None, false, Some(dx), None);
        }
        None => {
            pass.run(exec, norm.activation, false, Some(dx), None);
        }
    }
}

/// Computes gradients where the statistics are constants.
///
/// As [`backward`], but `dx = d scale inv_std`.
///
/// # Panics
/// As [`backward`].
pub fn backward_fixed(exec: Exec<'_>, norm: &Normalization<'_>, from: &Backward<'_>, mut to: Gradients<'_>) {
    let pass = Pass::new(norm, from, &to);
    if from.x.is_empty() {
        return to.clear();
    }
    let wanted = to.dscale.is_some() || to.dbias.is_some();
    let (dx, dresidual) = (to.dx.take(), to.dresidual.take());
    if !wanted && dx.is_none() && dresidual.is_none() {
        return;
    }
    if let Some(sums) = pass.run(exec, norm.activation, wanted, dx, dresidual) {
        sums.write(from, &mut to);
    }
}

impl Gradients<'_> {
    fn clear(&mut self) {
        for slice in [&mut self.dscale, &mut self.dbias].into_iter().flatten() {
            slice.fill(0.0);
        }
    }
}

/// `sum(d)` and `sum(d c)` per channel.
#[derive(Default)]
struct Sums {
    grads: Vec<f64>,
    products: Vec<f64>,
}

impl Sums {
    fn new(width: usize) -> Sums {
        Sums { grads: vec![0.0; width], products: vec![0.0; width] }
    }

    fn write(&self, from: &Backward<'_>, to: &mut Gradients<'_>) {
        for (channel, dscale) in to.dscale.iter_mut().flat_map(|dscale| dscale.iter_mut()).enumerate() {
            *dscale = (self.products[channel] * f64::from(from.inv_std[channel])) as f32;
        }
        for (dbias, sum) in to.dbias.iter_mut().flat_map(|dbias| dbias.iter_mut()).zip(&self.grads) {
            *dbias = *sum as f32;
        }
    }
}

/// One run over the rows.
struct Pass<'a> {
    fold: Fold,
    dys: &'a [&'a [f32]],
    y: Option<&'a [f32]>,
    x: &'a [f32],
    mean: Vec<f32>,
    scale: Vec<f32>,
    bias: Vec<f32>,
    factor: Vec<f32>,
    slope: Vec<f32>,
    constant: Vec<f32>,
}

impl<'a> Pass<'a> {
    fn new(norm: &Normalization<'_>, from: &Backward<'a>, to: &Gradients<'_>) -> Pass<'a> {
        norm.check();
        let (elements, channels) = (norm.rows * norm.channels, norm.channels);
        assert!((1..=2).contains(&from.dys.len()), "the gradient is the sum of one or two");
        let large = from.dys.iter().copied().chain([from.x]).chain(from.y);
        let large = large.map(<[f32]>::len).chain(to.dx.iter().chain(&to.dresidual).map(|slice| slice.len()));
        assert!(large.into_iter().all(|len| len == elements), "x, y and their gradients have {elements} elements");
        let small = [from.mean.len(), from.inv_std.len()].into_iter();
        let small = small.chain(to.dscale.iter().chain(&to.dbias).map(|slice| slice.len()));
        assert!(
            small.into_iter().all(|len| len == channels),
            "statistics and their gradients have {channels} channels"
        );
        let fold = Fold::new(norm.rows, channels);
        let empty = elements == 0;
        let spread = |values: &dyn Fn(usize) -> f32| if empty { Vec::new() } else { fold.spread(values) };
        let factor = spread(&|channel| norm.scale[channel] * from.inv_std[channel]);
        Pass {
            fold,
            dys: from.dys,
            y: from.y,
            x: from.x,
            mean: spread(&|channel| from.mean[channel]),
            scale: factor.clone(),
            bias: spread(&|channel| norm.bias[channel]),
            factor,
            slope: spread(&|_| 0.0),
            constant: spread(&|_| 0.0),
        }
    }

    fn run(
        &self,
        exec: Exec<'_>,
        activation: Activation,
        summed: bool,
        dx: Option<&mut [f32]>,
        dresidual: Option<&mut [f32]>,
    ) -> Option<Sums> {
        let fold = self.fold;
        let parts = fold.parts();
        let mut found: Vec<Option<Sums>> = (0..parts).map(|_| None).collect();
        let shared = Shared::of(&mut found);
        let (dx, dresidual) = (dx.map(Shared::of), dresidual.map(Shared::of));
        exec.pool.run(parts, &|index| {
            // The last part was read last and may still be in a cache.
            let part = if summed { index } else { parts - 1 - index };
            let sums = with_activation!(activation, activation => {
                let (pass, dx, dresidual) = (self, dx.as_ref(), dresidual.as_ref());
                dispatch_at(exec.level, PassOver { pass, part, summed, dx, dresidual, activation })
            });
            // SAFETY: every part has its own element.
            unsafe { shared.part(part, 1)[0] = Some(sums) };
        });
        summed.then(|| {
            let mut total = Sums::new(fold.channels);
            for wide in found.into_iter().flatten() {
                for start in (0..fold.width).step_by(fold.channels) {
                    for channel in 0..fold.channels {
                        total.grads[channel] += wide.grads[start + channel];
                        total.products[channel] += wide.products[start + channel];
                    }
                }
            }
            total
        })
    }
}

struct PassOver<'a, A> {
    pass: &'a Pass<'a>,
    part: usize,
    summed: bool,
    dx: Option<&'a Shared<f32>>,
    dresidual: Option<&'a Shared<f32>>,
    activation: A,
}

impl<A: Activate> Task for PassOver<'_, A> {
    type Output = Sums;

    #[inline(always)]
    fn run<S: Simd>(self) -> Sums {
        let pass = self.pass;
        let width = if self.summed { pass.fold.width } else { 0 };
        let mut sums = Sums::new(width);
        let mut buffer = vec![0.0; 2 * width];
        let (grads, products) = buffer.split_at_mut(width);
        let blocks = pass.fold.blocks(self.part);
        for index in 0..blocks {
            let index = if self.summed { index } else { blocks - 1 - index };
            let block = pass.fold.block(self.part, index);
            let elements = (block.rows - 1) * pass.fold.width + block.width;
            let range = block.start..block.start + elements;
            let second = pass.dys.get(1).map(|dy| dy[range.clone()].as_ptr());
            // SAFETY: every block has its own rows.
            let part = |to: &Shared<f32>| unsafe { to.part(block.start, elements) }.as_mut_ptr();
            let mut work = Gradient {
                pass,
                block,
                first: pass.dys[0][range.clone()].as_ptr(),
                second,
                y: pass.y.map(|y| y[range.clone()].as_ptr()),
                x: pass.x[range].as_ptr(),
                dx: self.dx.map(part),
                dresidual: self.dresidual.map(part),
                sums: self.summed.then_some((grads.as_mut_ptr(), products.as_mut_ptr())),
                activation: self.activation,
            };
            let width = block.width;
            // SAFETY: all slices hold the block, the buffers and parameters one row.
            unsafe {
                match (self.summed, self.dx.is_some()) {
                    (true, true) => columns::<S>(width, &mut With::<_, true, true>(&mut work)),
                    (true, false) => columns::<S>(width, &mut With::<_, true, false>(&mut work)),
                    (false, _) => columns::<S>(width, &mut With::<_, false, true>(&mut work)),
                }
            };
            if self.summed {
                add(&mut sums.grads[..block.width], grads);
                add(&mut sums.products[..block.width], products);
            }
        }
        sums
    }
}

#[inline(always)]
fn add(total: &mut [f64], part: &[f32]) {
    for (total, part) in total.iter_mut().zip(part) {
        *total += f64::from(*part);
    }
}

struct Gradient<'a, A> {
    pass: &'a Pass<'a>,
    block: Block,
    first: *const f32,
    second: Option<*const f32>,
    y: Option<*const f32>,
    x: *const f32,
    dx: Option<*mut f32>,
    dresidual: Option<*mut f32>,
    sums: Option<(*mut f32, *mut f32)>,
    activation: A,
}

/// A gradient compiled for whether there are sums, and whether there may be `dx`.
struct With<'a, A, const SUMS: bool, const DX: bool>(&'a mut Gradient<'a, A>);

impl<A: Activate, const SUMS: bool, const DX: bool> Columns for With<'_, A, SUMS, DX> {
    #[inline(always)]
    unsafe fn run<S: Simd, const G: usize, const FULL: bool>(&mut self, at: usize, count: usize) {
        let work = &*self.0;
        let pass = work.pass;
        let sums = if SUMS { work.sums } else { None };
        let dx = if DX { work.dx } else { None };
        let row_of = |values: &[f32]| -> [S::V; G] {
            std::array::from_fn(|group| load::<S, FULL>(values.as_ptr().add(at + group * S::LANES), count))
        };
        let (mean, scale, bias) = (row_of(&pass.mean), row_of(&pass.scale), row_of(&pass.bias));
        let (factor, slope, constant) = (row_of(&pass.factor), row_of(&pass.slope), row_of(&pass.constant));
        let mut grads = [S::splat(0.0); G];
        let mut products = [S::splat(0.0); G];
        for row in 0..work.block.rows {
            let start = row * pass.fold.width + at;
            let row_at = |from: *const f32| -> [S::V; G] {
                std::array::from_fn(|group| load::<S, FULL>(from.add(start + group * S::LANES), count))
            };
            let mut d = row_at(work.first);
            if let Some(second) = work.second {
                let second = row_at(second);
                for group in 0..G {
                    d[group] = S::add(d[group], second[group]);
                }
            }
            let mut centered = row_at(work.x);
            for group in 0..G {
                centered[group] = S::sub(centered[group], mean[group]);
            }
            if A::GATED {
                let judged = match work.y {
                    Some(y) => row_at(y),
                    None => std::array::from_fn(|group| S::fma(centered[group], scale[group], bias[group])),
                };
                for group in 0..G {
                    d[group] = work.activation.gate::<S>(judged[group], d[group]);
                }
            }
            if let Some(dresidual) = work.dresidual {
                for (group, d) in d.into_iter().enumerate() {
                    store::<S, FULL>(dresidual.add(start + group * S::LANES), count, d);
                }
            }
            if sums.is_some() {
                for group in 0..G {
                    grads[group] = S::add(grads[group], d[group]);
                    products[group] = S::fma(d[group], centered[group], products[group]);
                }
            }
            if let Some(dx) = dx {
                for group in 0..G {
                    let shared = S::fma(centered[group], slope[group], constant[group]);
                    let value = S::sub(S::mul(d[group], factor[group]), shared);
                    store::<S, FULL>(dx.add(start + group * S::LANES), count, value);
                }
            }
        }
        if let Some((to_grads, to_products)) = sums {
            for group in 0..G {
                let at = at + group * S::LANES;
                store::<S, FULL>(to_grads.add(at), count, grads[group]);
                store::<S, FULL>(to_products.add(at), count, products[group]);
            }
        }
    }
}
