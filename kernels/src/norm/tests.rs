use super::*;
use crate::pool::{Pool, Serial, Threads};
use crate::simd::Level;
use crate::testing::{Random, close};

struct Case {
    rows: usize,
    channels: usize,
    residual: bool,
    activation: Activation,
    dys: usize,
    judged_by_y: bool,
}

fn cases() -> Vec<Case> {
    let sizes = [(1, 1), (7, 3), (200, 1), (1000, 3), (5000, 16), (333, 17), (70, 64), (40, 960), (3, 65), (900, 144)];
    let activations = [Activation::None, Activation::Relu, Activation::Clip { min: -0.3, max: 0.8 }];
    let mut cases = Vec::new();
    for (index, (rows, channels)) in sizes.into_iter().enumerate() {
        for (number, activation) in activations.into_iter().enumerate() {
            let residual = (index + number) % 2 == 0;
            let judged_by_y = residual || (index + number) % 3 == 0;
            cases.push(Case { rows, channels, residual, activation, dys: 1 + (index / 2 + number) % 2, judged_by_y });
        }
    }
    cases
}

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Clip { min, max } => x.clamp(f64::from(min), f64::from(max)),
    }
}

fn passes(activation: Activation, y: f32) -> bool {
    match activation {
        Activation::None => true,
        Activation::Relu => y > 0.0,
        Activation::Clip { min, max } => min < y && y < max,
    }
}

#[derive(Default, PartialEq, Debug)]
struct Found {
    y: Vec<f32>,
    mean: Vec<f32>,
    var: Vec<f32>,
    inv_std: Vec<f32>,
    dx: Vec<f32>,
    dscale: Vec<f32>,
    dbias: Vec<f32>,
    dresidual: Vec<f32>,
}

struct Values {
    x: Vec<f32>,
    residual: Vec<f32>,
    scale: Vec<f32>,
    bias: Vec<f32>,
    dys: Vec<Vec<f32>>,
}

impl Values {
    fn of(case: &Case) -> Values {
        let mut random = Random::new(case.rows as u64 * 31 + case.channels as u64);
        let elements = case.rows * case.channels;
        Values {
            x: random.floats(elements).iter().map(|value| value * 2.0 + 0.7).collect(),
            residual: random.floats(elements),
            scale: random.floats(case.channels),
            bias: random.floats(case.channels),
            dys: (0..case.dys).map(|_| random.floats(elements)).collect(),
        }
    }
}

const EPSILON: f32 = 1e-3;

fn run(exec: Exec<'_>, case: &Case, values: &Values, fixed: bool) -> Found {
    let (elements, channels) = (values.x.len(), case.channels);
    let mut found = Found { y: vec![9.0; elements], ..Found::default() };
    for slice in [&mut found.mean, &mut found.var, &mut found.inv_std, &mut found.dscale, &mut found.dbias] {
        *slice = vec![9.0; channels];
    }
    found.dx = vec![9.0; elements];
    if case.residual {
        found.dresidual = vec![9.0; elements];
    }
    let (scale, bias) = (&values.scale, &values.bias);
    let norm = Normalization { rows: case.rows, channels, scale, bias, activation: case.activation };
    let residual = case.residual.then_some(values.residual.as_slice());
    if fixed {
        found.mean = scale.clone();
        found.var = bias.iter().map(|value| value * value).collect();
        inverse_std(&found.var, EPSILON, &mut found.inv_std);
        apply(exec, &norm, &values.x, &found.mean, &found.inv_std, residual, &mut found.y);
    } else {
        let out = Statistics { mean: &mut found.mean, var: &mut found.var, inv_std: &mut found.inv_std };
        forward(exec, &norm, &values.x, residual, EPSILON, &mut found.y, out);
    }
    let dys: Vec<&[f32]> = values.dys.iter().map(Vec::as_slice).collect();
    let y = case.judged_by_y.then_some(found.y.as_slice());
    let from = Backward { dys: &dys, y, x: &values.x, mean: &found.mean, inv_std: &found.inv_std };
    let to = Gradients {
        dx: Some(&mut found.dx),
        dscale: Some(&mut found.dscale),
        dbias: Some(&mut found.dbias),
        dresidual: case.residual.then_some(&mut found.dresidual),
    };
    if fixed {
        backward_fixed(exec, &norm, &from, to)
    } else {
        backward(exec, &norm, &from, to)
    }
    found
}

/// Checks what a run gave, channel by channel, in `f64`.
fn check(case: &Case, values: &Values, found: &Found, fixed: bool) {
    let (rows, channels) = (case.rows, case.channels);
    let count = rows as f64;
    for channel in 0..channels {
        let column =
            |of: &[f32]| -> Vec<f64> { (0..rows).map(|row| f64::from(of[row * channels + channel])).collect() };
        let x = column(&values.x);
        let (mut mean, mut var) = (f64::from(found.mean[channel]), f64::from(found.var[channel]));
        if !fixed {
            mean = x.iter().sum::<f64>() / count;
            var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        }
        let inv_std = 1.0 / (var + f64::from(EPSILON)).sqrt();
        close("mean", &[found.mean[channel]], &[mean], 1e-6);
        close("var", &[found.var[channel]], &[var], 1e-6);
        close("inv_std", &[found.inv_std[channel]], &[inv_std], 1e-6);
        let (scale, bias) = (f64::from(values.scale[channel]), f64::from(values.bias[channel]));
        let residual = if case.residual { column(&values.residual) } else { vec![0.0; rows] };
        let y = x.iter().zip(residual).map(|(x, residual)| scale * (x - mean) * inv_std + bias + residual);
        let y: Vec<f64> = y.map(|y| activate(case.activation, y)).collect();
        let of_found = |of: &[f32]| -> Vec<f32> { (0..rows).map(|row| of[row * channels + channel]).collect() };
        close("y", &of_found(&found.y), &y, 1e-5);
        let judged = of_found(&found.y);
        let sums = values.dys.iter().map(|dy| column(dy)).reduce(|a, b| a.iter().zip(&b).map(|(a, b)| a + b).collect());
        let d = sums.unwrap_or_default().into_iter().zip(&judged);
        let d: Vec<f64> = d.map(|(d, y)| if passes(case.activation, *y) { d } else { 0.0 }).collect();
        let sum: f64 = d.iter().sum();
        let products: f64 = d.iter().zip(&x).map(|(d, x)| d * (x - mean)).sum();
        close("dbias", &[found.dbias[channel]], &[sum], 1e-4);
        close("dscale", &[found.dscale[channel]], &[inv_std * products], 1e-4);
        let of_batch = if fixed { 0.0 } else { 1.0 / count };
        let dx = d.iter().zip(&x).map(|(d, x)| {
            (d - of_batch * sum - (x - mean) * inv_std * inv_std * of_batch * products) * scale * inv_std
        });
        close("dx", &of_found(&found.dx), &dx.collect::<Vec<f64>>(), 1e-4);
        if case.residual {
            close("dresidual", &of_found(&found.dresidual), &d, 1e-6);
        }
    }
}

#[test]
fn agrees_with_plain_loops() {
    for case in cases() {
        let values = Values::of(&case);
        for level in Level::available().iter().copied() {
            for fixed in [false, true] {
                let found = run(Exec { pool: &Serial, level }, &case, &values, fixed);
                check(&case, &values, &found, fixed);
                let threads = run(Exec { pool: &Threads(3), level }, &case, &values, fixed);
                assert!(found == threads, "{} rows, {} channels: threads", case.rows, case.channels);
            }
        }
    }
}

#[test]
fn a_large_mean_costs_no_digits() {
    for (rows, channels) in [(4096, 16), (1000, 3), (300, 65)] {
        let mut random = Random::new(5);
        let x: Vec<f32> = random.floats(rows * channels).iter().map(|value| value + 1000.0).collect();
        // A row of padding must not become the measure of all others.
        let x: Vec<f32> = x.iter().enumerate().map(|(at, x)| if at < channels { 990.0 } else { *x }).collect();
        let (mut mean, mut var, mut inv_std) = (vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]);
        for level in Level::available().iter().copied() {
            let mut out = Statistics { mean: &mut mean, var: &mut var, inv_std: &mut inv_std };
            statistics(Exec { pool: &Serial, level }, rows, channels, &x, 0.0, &mut out);
            for (channel, var) in var.iter().enumerate() {
                let column: Vec<f64> = x.iter().skip(channel).step_by(channels).map(|x| f64::from(*x)).collect();
                let mean = column.iter().sum::<f64>() / rows as f64;
                let expected = column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / rows as f64;
                let error = (f64::from(*var) - expected).abs() / expected;
                assert!(error < 1e-6, "{rows} x {channels}, {}: {error:e}", level.name());
            }
        }
    }
}

#[test]
fn moments_of_parts_are_those_of_all() {
    let x = Random::new(9).floats(60);
    let pool: &dyn Pool = &Serial;
    let mut merged = moments(Exec::on(pool), 4, 3, &x[..12]);
    merged.merge(&moments(Exec::on(pool), 16, 3, &x[12..]));
    let mut by_sums = Moments::new(3);
    for (row, row_of_x) in x.chunks(3).enumerate() {
        let shift = [row as f32, 0.5, -0.25];
        let sums: Vec<f32> = row_of_x.iter().zip(shift).map(|(x, shift)| x - shift).collect();
        let squares: Vec<f32> = sums.iter().map(|sum| sum * sum).collect();
        by_sums.add(1, &shift, &sums, &squares);
    }
    let finish = |moments: &Moments| {
        let (mut mean, mut var, mut inv_std) = ([0.0; 3], [0.0; 3], [0.0; 3]);
        moments.finish(1e-5, &mut Statistics { mean: &mut mean, var: &mut var, inv_std: &mut inv_std });
        [mean, var, inv_std].concat()
    };
    let expected: Vec<f64> =
        finish(&moments(Exec::on(pool), 20, 3, &x)).iter().map(|value| f64::from(*value)).collect();
    close("merged", &finish(&merged), &expected, 1e-6);
    close("by sums", &finish(&by_sums), &expected, 1e-5);
}

#[test]
fn nothing_is_computed_of_nothing() {
    let (mut dscale, mut dbias) = ([9.0; 2], [9.0; 2]);
    let norm = Normalization { rows: 0, channels: 2, scale: &[1.0; 2], bias: &[0.0; 2], activation: Activation::Relu };
    let from = Backward { dys: &[&[]], y: None, x: &[], mean: &[0.0; 2], inv_std: &[1.0; 2] };
    let to = Gradients { dscale: Some(&mut dscale), dbias: Some(&mut dbias), ..Gradients::default() };
    backward(Exec::on(&Serial), &norm, &from, to);
    assert_eq!([dscale, dbias], [[0.0; 2]; 2]);
}
