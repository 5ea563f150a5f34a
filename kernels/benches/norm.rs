//! Times the memory-bound kernels on one thread; `norm.py` has PyTorch's side.
//!
//! Run with `cargo bench --bench norm -- [filter]`; microseconds, minimum and median.

use freeze_plan_kernels::depthwise::{self, Depthwise};
use freeze_plan_kernels::norm::{Backward, Gradients, Normalization, Statistics, backward, forward};
use freeze_plan_kernels::pool2d::{self, Pooling};
use freeze_plan_kernels::{Activation, Exec, Serial, Window};
use std::time::{Duration, Instant};

fn measure(name: &str, mut work: impl FnMut()) {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    if filter.is_some_and(|filter| !name.contains(&filter)) {
        return;
    }
    work();
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(300) || times.len() < 5 {
        let round = Instant::now();
        work();
        times.push(round.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    println!("{name:<44} {:10.1} {:10.1}", times[0], times[times.len() / 2]);
}

/// Returns elements that start at a cache line, as those of tensors do.
fn zeros(count: usize) -> &'static mut [f32] {
    let all = vec![0.0_f32; count + 16].leak();
    let start = all.as_ptr().align_offset(64).min(16);
    &mut all[start..start + count]
}

fn values(count: usize) -> &'static mut [f32] {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let all = zeros(count);
    all.fill_with(&mut next);
    all
}

fn normalization([n, h, w, channels]: [usize; 4]) {
    let rows = n * h * w;
    let (x, dy, scale, bias) = (values(rows * channels), values(rows * channels), values(channels), values(channels));
    let (y, dx) = (zeros(x.len()), zeros(x.len()));
    let (mean, var, inv_std) = (zeros(channels), zeros(channels), zeros(channels));
    let (dscale, dbias) = (zeros(channels), zeros(channels));
    let norm = Normalization { rows, channels, scale, bias, activation: Activation::Relu };
    let exec = Exec::on(&Serial);
    let shape = format!("{n}x{h}x{w}x{channels}");
    let mut forward_once = || {
        let out = Statistics { mean: &mut *mean, var: &mut *var, inv_std: &mut *inv_std };
        forward(exec, &norm, x, None, 1e-5, y, out);
    };
    forward_once();
    measure(&format!("bn relu forward {shape}"), forward_once);
    for (name, y) in [("bn relu backward", None), ("bn relu backward by y", Some(&*y))] {
        let from = Backward { dys: &[&*dy], y, x, mean, inv_std };
        measure(&format!("{name} {shape}"), || {
            let (dscale, dbias) = (Some(&mut *dscale), Some(&mut *dbias));
            backward(exec, &norm, &from, Gradients { dx: Some(&mut *dx), dscale, dbias, dresidual: None });
        });
    }
}

fn convolution([n, h, w, channels, stride]: [usize; 5]) {
    let output = [h.div_ceil(stride), w.div_ceil(stride)];
    let window = Window::new([h, w], output, [3, 3], [stride; 2], [1, 1], [1, 1]);
    let Some(conv) = window.and_then(|window| Depthwise::new(n, channels, 1, window)) else { return };
    let (x, weight) = (values(n * h * w * channels), values(9 * channels));
    let dy = values(n * output[0] * output[1] * channels);
    let (y, dx, dweight) = (zeros(dy.len()), zeros(x.len()), zeros(weight.len()));
    let shape = format!("{n}x{h}x{w}x{channels} s{stride}");
    let exec = Exec::on(&Serial);
    measure(&format!("depthwise forward {shape}"), || {
        depthwise::forward(exec, &conv, &*x, weight, None, Activation::None, y);
    });
    measure(&format!("depthwise input gradient {shape}"), || {
        depthwise::input_gradient(exec, &conv, dy, weight, dx);
    });
    measure(&format!("depthwise weight gradient {shape}"), || {
        depthwise::weight_gradient(exec, &conv, &*x, dy, dweight);
    });
}

fn pooling([n, h, w, channels, kernel, stride, begin]: [usize; 7]) {
    let output = [h, w].map(|size| (size + 2 * begin - kernel) / stride + 1);
    let window = Window::new([h, w], output, [kernel; 2], [stride; 2], [1, 1], [begin; 2]);
    let Some(pooling) = window.and_then(|window| Pooling::new(n, channels, window)) else { return };
    let x = values(n * h * w * channels);
    let dy = values(n * output[0] * output[1] * channels);
    let (y, dx) = (zeros(dy.len()), zeros(x.len()));
    let shape = format!("{n}x{h}x{w}x{channels} k{kernel} s{stride}");
    let exec = Exec::on(&Serial);
    pool2d::max(exec, &pooling, x, y);
    measure(&format!("max pool forward {shape}"), || pool2d::max(exec, &pooling, x, y));
    pool2d::max(exec, &pooling, x, y);
    measure(&format!("max pool gradient {shape}"), || {
        pool2d::max_gradient(exec, &pooling, x, y, dy, dx);
    });
}

fn main() {
    for shape in [[64, 32, 32, 16], [64, 16, 16, 32], [64, 8, 8, 64], [16, 56, 56, 64], [32, 16, 16, 144]] {
        normalization(shape);
    }
    for shape in [[32, 32, 32, 96, 2], [32, 16, 16, 144, 1], [32, 8, 8, 192, 1], [32, 4, 4, 384, 1], [32, 2, 2, 960, 1]]
    {
        convolution(shape);
    }
    for shape in [[64, 32, 32, 64, 2, 2, 0], [16, 56, 56, 64, 3, 2, 1]] {
        pooling(shape);
    }
}
