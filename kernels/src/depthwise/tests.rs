use super::*;
use crate::activation::Activation;
use crate::exec::Exec;
use crate::pool::{Serial, Threads};
use crate::simd::Level;
use crate::testing::{Random, close};

struct Case {
    batch: usize,
    channels: usize,
    multiplier: usize,
    input: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    begin: [usize; 2],
    end: [usize; 2],
}

fn cases() -> Vec<Case> {
    let common = Case {
        batch: 2,
        channels: 16,
        multiplier: 1,
        input: [8, 8],
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        begin: [1, 1],
        end: [1, 1],
    };
    vec![
        Case { ..common },
        Case { stride: [2, 2], channels: 70, ..common },
        Case { stride: [2, 2], input: [9, 14], channels: 3, begin: [0, 0], ..common },
        Case { batch: 5, channels: 144, input: [16, 16], ..common },
        Case { batch: 3, channels: 100, input: [4, 4], ..common },
        Case { batch: 9, channels: 77, input: [2, 2], ..common },
        Case { channels: 1, input: [1, 1], ..common },
        Case { channels: 9, multiplier: 3, input: [5, 11], ..common },
        Case { channels: 20, multiplier: 2, stride: [2, 1], ..common },
        Case { kernel: [5, 5], begin: [2, 2], end: [2, 2], input: [9, 12], ..common },
        Case { kernel: [5, 5], stride: [2, 2], begin: [2, 2], end: [2, 2], channels: 33, ..common },
        Case { kernel: [3, 1], begin: [1, 0], end: [1, 0], ..common },
        Case { kernel: [1, 3], stride: [1, 3], input: [3, 17], ..common },
        Case { kernel: [2, 2], stride: [2, 2], begin: [0, 0], end: [0, 0], ..common },
        Case { kernel: [1, 1], begin: [0, 0], end: [0, 0], ..common },
        Case { dilation: [2, 2], begin: [2, 2], end: [2, 2], input: [7, 10], ..common },
        Case { dilation: [1, 3], stride: [2, 2], input: [7, 12], ..common },
        Case { begin: [0, 0], end: [4, 3], ..common },
    ]
}

fn geometry(case: &Case) -> Depthwise {
    let output = std::array::from_fn(|axis| {
        let padded = case.input[axis] + case.begin[axis] + case.end[axis];
        (padded - (case.kernel[axis] - 1) * case.dilation[axis] - 1) / case.stride[axis] + 1
    });
    let window = Window::new(case.input, output, case.kernel, case.stride, case.dilation, case.begin).unwrap();
    Depthwise::new(case.batch, case.channels, case.multiplier, window).unwrap()
}

/// Calls `f` with the indices of x, the weight and y of each product.
fn products(conv: &Depthwise, mut f: impl FnMut(usize, usize, usize)) {
    let window = &conv.window;
    let ([rows, columns], outputs) = (window.taps_of_both(), conv.outputs());
    for image in 0..conv.batch {
        for (row, row_taps) in rows.iter().enumerate() {
            for (column, column_taps) in columns.iter().enumerate() {
                for (k_row, x_row) in row_taps {
                    for (k_column, x_column) in column_taps {
                        for m in 0..outputs {
                            let x = (image * window.input()[0] + x_row) * window.input()[1] + x_column;
                            let y = (image * window.output()[0] + row) * window.output()[1] + column;
                            let k = k_row * window.kernel()[1] + k_column;
                            f(x * conv.channels + m / conv.multiplier, m * conv.taps() + k, y * outputs + m);
                        }
                    }
                }
            }
        }
    }
}

impl Window {
    fn taps_of_both(&self) -> [Vec<Vec<(usize, usize)>>; 2] {
        [0, 1].map(|axis| {
            let met = |output: usize, k: usize| {
                let at = (output * self.stride()[axis] + k * self.dilation()[axis]).checked_sub(self.begin()[axis])?;
                (at < self.input()[axis]).then_some((k, at))
            };
            let of = |output: usize| (0..self.kernel()[axis]).filter_map(|k| met(output, k)).collect();
            (0..self.output()[axis]).map(of).collect()
        })
    }
}

fn results(exec: Exec<'_>, conv: &Depthwise, values: [&[f32]; 4], activation: Activation) -> [Vec<f32>; 3] {
    let [x, weight, bias, dy] = values;
    let (mut y, mut dx, mut dweight) = (vec![9.0; dy.len()], vec![9.0; x.len()], vec![9.0; weight.len()]);
    forward(exec, conv, x, weight, Some(bias), activation, &mut y);
    input_gradient(exec, conv, dy, weight, &mut dx);
    weight_gradient(exec, conv, x, dy, &mut dweight);
    [y, dx, dweight]
}

#[test]
fn agrees_with_plain_loops() {
    for (number, case) in cases().iter().enumerate() {
        let conv = geometry(case);
        let mut random = Random::new(number as u64);
        let x = random.floats(conv.input_pixels() * case.channels);
        let weight = random.floats(conv.outputs() * conv.taps());
        let bias = random.floats(conv.outputs());
        let dy = random.floats(conv.output_pixels() * conv.outputs());
        let mut y: Vec<f64> = (0..dy.len()).map(|index| f64::from(bias[index % bias.len()])).collect();
        let (mut dx, mut dweight) = (vec![0.0; x.len()], vec![0.0; weight.len()]);
        products(&conv, |at_x, at_weight, at_y| {
            y[at_y] += f64::from(x[at_x]) * f64::from(weight[at_weight]);
            dx[at_x] += f64::from(dy[at_y]) * f64::from(weight[at_weight]);
            dweight[at_weight] += f64::from(dy[at_y]) * f64::from(x[at_x]);
        });
        let activations = [Activation::None, Activation::Relu, Activation::Clip { min: -0.5, max: 0.5 }];
        let activation = activations[number % 3];
        let y: Vec<f64> = match activation {
            Activation::None => y,
            Activation::Relu => y.into_iter().map(|y| y.max(0.0)).collect(),
            Activation::Clip { .. } => y.into_iter().map(|y| y.clamp(-0.5, 0.5)).collect(),
        };
        for level in Level::available().iter().copied() {
            let values = [x.as_slice(), &weight, &bias, &dy];
            let found = results(Exec { pool: &Serial, level }, &conv, values, activation);
            let threads = results(Exec { pool: &Threads(3), level }, &conv, values, activation);
            assert!(found == threads, "case {number}: threads");
            for (name, found, expected) in
                [("y", &found[0], &y), ("dx", &found[1], &dx), ("dweight", &found[2], &dweight)]
            {
                // Rounding errors of a sum in f32 grow with the root of its length.
                let terms = if name == "dweight" { conv.output_pixels() } else { conv.taps() * case.multiplier };
                let tolerance = 1e-6 * (terms as f64).sqrt();
                close(&format!("case {number}, {}: {name}", level.name()), found, expected, tolerance);
            }
        }
    }
}
