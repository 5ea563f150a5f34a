//! Times the kernels of transformers and optimizers on one thread; `rows.py` has PyTorch's side.
//!
//! Run with `cargo bench --bench rows -- [filter]`; microseconds, minimum and median.

use freeze_plan_kernels::cross_entropy::CrossEntropy;
use freeze_plan_kernels::gelu::{self, Form};
use freeze_plan_kernels::layer_norm::{self, Saved};
use freeze_plan_kernels::optimizer::{Adam, AdamTensor, Average, Sgd, SgdTensor};
use freeze_plan_kernels::softmax::{self, Kind};
use freeze_plan_kernels::{Exec, Serial, dropout, embedding};
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

fn values(count: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn main() {
    let exec = Exec::on(&Serial);
    for (rows, width) in [(2048, 256), (2080, 192)] {
        let (x, dy, scale, bias) = (values(rows * width), values(rows * width), values(width), values(width));
        let (mut y, mut mean, mut inv_std) = (vec![0.0; x.len()], vec![0.0; rows], vec![0.0; rows]);
        let mut once = || layer_norm::forward(exec, &x, &scale, Some(&bias), 1e-5, &mut y, &mut mean, &mut inv_std);
        once();
        measure(&format!("layer norm forward {rows}x{width}"), once);
        let saved = Saved { x: &x, scale: &scale, mean: &mean, inv_std: &inv_std };
        let (mut dscale, mut dbias) = (vec![0.0; width], vec![0.0; width]);
        measure(&format!("layer norm backward {rows}x{width}"), || {
            layer_norm::backward(exec, saved, &dy, Some(&mut y), &mut dscale, &mut dbias);
        });
    }
    for (rows, width) in [(2048, 1024), (2080, 768)] {
        let (x, dy, mut y) = (values(rows * width), values(rows * width), vec![0.0; rows * width]);
        for (name, form) in [("erf", Form::Erf), ("tanh", Form::Tanh)] {
            measure(&format!("gelu {name} forward {rows}x{width}"), || gelu::forward(exec, form, None, &x, &mut y));
            measure(&format!("gelu {name} backward {rows}x{width}"), || {
                gelu::backward(exec, form, None, &x, &dy, &mut y);
            });
        }
    }
    for (rows, width) in [(8192, 128), (6240, 65)] {
        let (x, dy, mut y, mut dx) =
            (values(rows * width), values(rows * width), vec![0.0; rows * width], vec![0.0; rows * width]);
        measure(&format!("softmax forward {rows}x{width}"), || {
            softmax::forward(exec, Kind::Softmax, width, &x, &mut y);
        });
        measure(&format!("softmax backward {rows}x{width}"), || {
            softmax::backward(exec, Kind::Softmax, width, &y, &dy, &mut dx);
        });
    }
    let (rows, width, words) = (2048, 256, 30522);
    let (r, c): (Vec<i64>, Vec<i64>) =
        ((0..8192).map(|at| (at * 7919) | 1).collect(), (0..128).map(|at| at | 1).collect());
    let (x, mut y) = (values(8192 * 128), vec![0.0; 8192 * 128]);
    measure("dropout 8192x128", || {
        dropout::dropout(exec, &r, &c, dropout::least(0.1), 1.0 / 0.9, &x, &mut y);
    });
    let indices: Vec<i64> = (0..rows as i64).map(|at| at * 7919 % words as i64).collect();
    let (dy, mut dw) = (values(rows * width), vec![0.0; words * width]);
    measure("embedding gradient 2048 of 30522x256", || embedding::backward(exec, width, &indices, &dy, &mut dw));
    let logits = values(256 * words);
    let target: Vec<i64> = (0..256).map(|at| at * 7919 % words as i64).collect();
    let loss = CrossEntropy { classes: words, weights: None, ignore_index: -100, smoothing: 0.0 };
    let (mut log_sum, mut dx) = (vec![0.0; 256], vec![0.0; logits.len()]);
    measure("cross entropy forward 256x30522", || {
        loss.forward(exec, &logits, &target, &mut log_sum);
    });
    measure("cross entropy backward 256x30522", || {
        loss.backward(exec, &logits, &target, &log_sum, 1.0, &mut dx);
    });
    let (mut value, grad, mut average, mut squares) = (values(words * width), dw, vec![0.0; words * width], logits);
    squares.fill(1.0);
    measure("adamw 30522x256", || {
        let mut tensor = AdamTensor {
            value: &mut value,
            grad: &grad,
            average: &mut average,
            squares: &mut squares,
            largest: None,
            step: 5.0,
            lr: 1e-4,
            weight_decay: 0.01,
        };
        let adam = Adam { averages: [0.9, 0.999].map(Average::of), eps: 1e-8, decoupled: true };
        adam.step(exec, std::slice::from_mut(&mut tensor));
    });
    measure("sgd with momentum 30522x256", || {
        let mut tensor = SgdTensor {
            value: &mut value,
            grad: &grad,
            velocity: Some(&mut average),
            lr: 1e-4,
            weight_decay: 5e-4,
            dampened: None,
        };
        Sgd { momentum: 0.9, nesterov: false }.step(exec, std::slice::from_mut(&mut tensor));
    });
}
