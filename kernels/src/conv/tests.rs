//! Every direction against a plain sum in `f64`, on random geometries.

use super::{Conv2d, Input};
use crate::pool::{Pool, Serial, Threads};
use crate::simd::Level;

/// A generator of small numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| (self.next() % 2001) as f32 / 1000.0 - 1.0).collect()
    }

    fn geometry(&mut self) -> Conv2d {
        loop {
            let pick = |random: &mut Random, from: &[usize]| from[random.below(from.len())];
            let groups = pick(self, &[1, 1, 1, 1, 2, 3]);
            let kernel = [pick(self, &[1, 1, 2, 3, 3, 5]), pick(self, &[1, 2, 3, 3, 7])];
            let kernel = if self.below(4) == 0 { [1, 1] } else { kernel };
            let input = [1 + self.below(12), 1 + self.below(20)];
            let strides = [1 + self.below(3), 1 + self.below(3)];
            let strides = if self.below(2) == 0 { [1, 1] } else { strides };
            let dilations = [1 + self.below(2), 1 + self.below(2)];
            let pads = if self.below(3) == 0 { [0; 4] } else { std::array::from_fn(|_| self.below(4)) };
            let window = [0, 1].map(|axis| (kernel[axis] - 1) * dilations[axis]);
            let padded = [0, 1].map(|axis| input[axis] + pads[axis] + pads[axis + 2]);
            if padded[0] <= window[0] || padded[1] <= window[1] {
                continue;
            }
            let output = [0, 1].map(|axis| (padded[axis] - window[axis] - 1) / strides[axis] + 1);
            return Conv2d {
                batch: 1 + self.below(4),
                input,
                in_channels: groups * (1 + pick(self, &[0, 2, 3, 7, 15, 16, 24, 39])),
                output,
                out_channels: groups * (1 + pick(self, &[0, 2, 9, 15, 16, 23, 31, 32, 47, 69])),
                kernel,
                strides,
                dilations,
                pads,
                groups,
            };
        }
    }
}

/// Calls `f(x, y, w)` with the places of every product.
fn each(conv: &Conv2d, mut f: impl FnMut(usize, usize, usize)) {
    let [oh, ow] = conv.output;
    let [kh, kw] = conv.kernel;
    let (cg, mg) = (conv.group_inputs(), conv.group_outputs());
    for n in 0..conv.batch {
        for place in 0..oh * ow * kh * kw {
            let (i, j, u, v) = (place / (ow * kh * kw), place / (kh * kw) % ow, place / kw % kh, place % kw);
            let row = (i * conv.strides[0] + u * conv.dilations[0]).wrapping_sub(conv.pads[0]);
            let column = (j * conv.strides[1] + v * conv.dilations[1]).wrapping_sub(conv.pads[1]);
            if row >= conv.input[0] || column >= conv.input[1] {
                continue;
            }
            for m in 0..conv.out_channels {
                for c in 0..cg {
                    let x = ((n * conv.input[0] + row) * conv.input[1] + column) * conv.in_channels + m / mg * cg + c;
                    let y = ((n * oh + i) * ow + j) * conv.out_channels + m;
                    f(x, y, ((m * cg + c) * kh + u) * kw + v);
                }
            }
        }
    }
}

fn assert_close(what: &str, conv: &Conv2d, found: &[f32], expected: &[f64]) {
    let most = expected.iter().fold(1e-3_f64, |most, value| most.max(value.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*found) - expected).abs() < 5e-6 * most, "{what}[{index}]: {found}, {expected}: {conv:?}");
    }
}

fn pools() -> [&'static dyn Pool; 2] {
    [&Serial, &Threads(3)]
}

/// Windows of 3 x 3 that fast convolution is for: few and many tiles, edges, uneven pads, channels that fill
/// no vector.
fn fast(random: &mut Random) -> Conv2d {
    let pads = if random.below(2) == 0 { [1; 4] } else { std::array::from_fn(|_| random.below(4)) };
    let output = [8 + random.below(9), 8 + random.below(9)];
    let conv = Conv2d {
        batch: 2 + random.below(6),
        input: [0, 1].map(|axis| output[axis] + 2 - pads[axis] - pads[axis + 2]),
        in_channels: 12 + random.below(40),
        output,
        out_channels: 12 + random.below(60),
        kernel: [3, 3],
        strides: [1, 1],
        dilations: [1, 1],
        pads,
        groups: 1,
    };
    assert_eq!(conv.check(), Ok(()));
    conv
}

#[test]
fn every_direction_is_the_plain_sum() {
    let mut random = Random(7);
    let mut work = Vec::new();
    for index in 0..230 {
        let conv = if index < 200 { random.geometry() } else { fast(&mut random) };
        let (x, w) = (random.values(conv.input_len()), random.values(conv.weight_len()));
        let (dy, bias) = (random.values(conv.output_len()), random.values(conv.out_channels));
        let mut y: Vec<f64> =
            bias.iter().map(|bias| f64::from(*bias)).collect::<Vec<_>>().repeat(dy.len() / bias.len());
        let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
        each(&conv, |i, j, k| {
            y[j] += f64::from(x[i]) * f64::from(w[k]);
            dx[i] += f64::from(dy[j]) * f64::from(w[k]);
            dw[k] += f64::from(x[i]) * f64::from(dy[j]);
        });
        for level in Level::available() {
            let found = pools().map(|pool| {
                let (mut y, mut dx, mut dw) = (vec![7.0; y.len()], vec![7.0; dx.len()], vec![7.0; dw.len()]);
                conv.forward_at(*level, pool, x[..].into(), &w, Some(&bias), &mut y, &mut work);
                conv.input_grad_at(*level, pool, &dy, &w, &mut dx, &mut work);
                conv.weight_grad_at(*level, pool, x[..].into(), &dy, &mut dw, &mut work);
                (y, dx, dw)
            });
            assert!(found[0] == found[1], "threads change the result: {conv:?}");
            let name = level.name();
            assert_close(&format!("y, {name}"), &conv, &found[0].0, &y);
            assert_close(&format!("dx, {name}"), &conv, &found[0].1, &dx);
            assert_close(&format!("dw, {name}"), &conv, &found[0].2, &dw);
        }
    }
}

#[test]
fn inputs_are_scaled_shifted_and_rectified() {
    let mut random = Random(8);
    let mut work = Vec::new();
    for index in 0..60 {
        let conv = if index < 50 { random.geometry() } else { fast(&mut random) };
        let (x, w, dy) =
            (random.values(conv.input_len()), random.values(conv.weight_len()), random.values(conv.output_len()));
        let (scale, shift) = (random.values(conv.in_channels), random.values(conv.in_channels));
        let relu = random.below(2) == 0;
        let affine = (random.below(3) != 0).then_some((&scale[..], &shift[..]));
        let seen: Vec<f64> = x
            .iter()
            .enumerate()
            .map(|(index, x)| {
                let channel = index % conv.in_channels;
                let (scale, shift) = affine.map_or((1.0, 0.0), |(scale, shift)| (scale[channel], shift[channel]));
                let value = f64::from(*x) * f64::from(scale) + f64::from(shift);
                if relu { value.max(0.0) } else { value }
            })
            .collect();
        let (mut y, mut dw) = (vec![0.0; dy.len()], vec![0.0; w.len()]);
        each(&conv, |i, j, k| {
            y[j] += seen[i] * f64::from(w[k]);
            dw[k] += seen[i] * f64::from(dy[j]);
        });
        let input = Input { values: &x, affine, relu };
        for level in Level::available() {
            let (mut found_y, mut found_dw) = (vec![7.0; y.len()], vec![7.0; dw.len()]);
            conv.forward_at(*level, &Serial, input, &w, None, &mut found_y, &mut work);
            conv.weight_grad_at(*level, &Serial, input, &dy, &mut found_dw, &mut work);
            assert_close("y", &conv, &found_y, &y);
            assert_close("dw", &conv, &found_dw, &dw);
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let conv = Random(1).geometry();
    assert_eq!(conv.check(), Ok(()));
    let cases = [
        (Conv2d { output: [conv.output[0] + 1, conv.output[1]], ..conv }, "height"),
        (Conv2d { groups: conv.in_channels + 1, ..conv }, "groups do not divide"),
        (Conv2d { strides: [0, 1], ..conv }, "a stride of a convolution is 0"),
        (Conv2d { input: [usize::MAX / 2, 1], ..conv }, "more elements than addresses"),
        (Conv2d { kernel: [99, 1], ..conv }, "expected 0"),
    ];
    for (conv, part) in cases {
        let text = conv.check().map_or_else(|error| error.to_string(), |()| String::new());
        assert!(text.contains(part), "{text}: {conv:?}");
    }
}
