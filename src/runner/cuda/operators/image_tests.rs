//! Operators on images.

use super::tests::{Case, check, noise};
use crate::graph::{Attributes, Tensor};

/// Returns factors near one and summands near zero of channels.
fn parameters(channels: usize, seed: u64) -> [Tensor; 2] {
    let noise = |seed: u64| noise(&[channels], seed).to_f64s().expect("numbers");
    let scale = noise(seed).iter().map(|value| 1.0 + 0.5 * *value as f32).collect::<Vec<_>>();
    let bias = noise(seed + 1).iter().map(|value| 0.3 * *value as f32).collect::<Vec<_>>();
    [scale, bias].map(|values| Tensor::from_vec(&[channels], values))
}

/// Returns noise with another mean for each channel.
fn images(shape: &[usize], seed: u64) -> Tensor {
    let channels = shape[3];
    let values = noise(shape, seed).to_f64s().expect("numbers");
    let values = values.iter().enumerate().map(|(at, value)| (value + (at % channels % 5) as f64) as f32);
    Tensor::from_vec(shape, values.collect::<Vec<_>>())
}

fn activations() -> [Attributes; 3] {
    let relu = Attributes::none().with("activation", "relu");
    let clip = Attributes::none().with("activation", "clip").with("min", -0.25_f32).with("max", 0.5_f32);
    [Attributes::none().with("activation", "none"), relu, clip].map(|attributes| attributes.with("epsilon", 1e-3_f32))
}

const SHAPES: &[[usize; 4]] = &[
    [2, 3, 4, 1],
    [3, 5, 2, 3],
    [1, 1, 1, 16],
    [2, 19, 20, 16],
    [4, 9, 7, 64],
    [2, 3, 3, 100],
    [3, 1, 2, 2048],
    [3, 40, 31, 8],
];

#[test]
fn normalization_by_statistics_of_the_batch() {
    for (number, shape) in SHAPES.iter().enumerate() {
        let [scale, bias] = parameters(shape[3], 7);
        let residual = if number % 2 == 0 { Some(noise(shape, 4)) } else { None };
        let inputs = vec![Some(images(shape, 3)), Some(scale), Some(bias), residual];
        let rest = vec![vec![shape[3]]; 3];
        let outputs = [vec![shape.to_vec()], rest].concat();
        let attributes = activations()[number % 3].clone();
        check(&Case { op: "BatchNormalization", attributes: attributes.clone(), inputs: inputs.clone(), outputs });
        let outputs = vec![shape.to_vec()];
        check(&Case { op: "BatchNormalization", attributes, inputs, outputs });
    }
}

#[test]
fn normalization_by_given_statistics() {
    for (number, shape) in SHAPES.iter().enumerate() {
        let ([scale, bias], [var, mean]) = (parameters(shape[3], 7), parameters(shape[3], 9));
        let residual = if number % 2 == 1 { Some(noise(shape, 4)) } else { None };
        let inputs = vec![Some(noise(shape, 3)), Some(scale), Some(bias), Some(mean), Some(var), residual];
        let attributes = activations()[number % 3].clone();
        check(&Case { op: "FixedNormalization", attributes, inputs, outputs: vec![shape.to_vec()] });
    }
}

#[test]
fn gradients_of_normalizations() {
    for (number, shape) in SHAPES.iter().enumerate() {
        for op in ["BatchNormalizationGrad", "FixedNormalizationGrad"] {
            for (attributes, kept) in activations().into_iter().zip([[true, true], [false, true], [true, false]]) {
                let ([scale, bias], [spread, mean]) = (parameters(shape[3], 7), parameters(shape[3], 9));
                let more = kept[0].then(|| noise(shape, 2));
                let y = kept[1].then(|| noise(shape, 3));
                let images = vec![Some(noise(shape, 1)), more, y, Some(noise(shape, 4))];
                let inputs = [images, [scale, bias, mean, spread].map(Some).to_vec()].concat();
                let all = [shape.to_vec(), vec![shape[3]], vec![shape[3]], shape.to_vec()];
                let outputs = all[..if number % 2 == 0 { 3 } else { 4 }].to_vec();
                check(&Case { op, attributes: attributes.clone(), inputs: inputs.clone(), outputs });
                let outputs = all[..1].to_vec();
                check(&Case { op, attributes, inputs, outputs });
            }
        }
    }
}

#[test]
fn running_statistics() {
    for unbiased in [0, 1] {
        let attributes =
            Attributes::none().with("keep", 0.75_f32).with("add", 0.25_f32).with("unbiased", i64::from(unbiased));
        let values = [1, 2, 3, 4].map(|seed| Some(noise(&[300], seed)));
        let inputs = [values.to_vec(), vec![Some(noise(&[2, 2, 1, 300], 5))]].concat();
        check(&Case { op: "RunningStatistics", attributes, inputs, outputs: vec![vec![300]; 2] });
    }
}

/// Sizes of windows: of images, kernels, strides, dilations, pads and outputs.
type Sizes = ([usize; 2], [i64; 2], [i64; 2], [i64; 2], [i64; 4], [i64; 2]);

const WINDOWS: &[Sizes] = &[
    ([8, 8], [2, 2], [2, 2], [1, 1], [0, 0, 0, 0], [4, 4]),
    ([9, 7], [3, 3], [2, 2], [1, 1], [1, 1, 1, 1], [5, 4]),
    ([6, 5], [3, 3], [1, 1], [1, 1], [1, 1, 1, 1], [6, 5]),
    ([5, 9], [1, 2], [3, 3], [1, 1], [0, 0, 0, 0], [2, 3]),
    ([7, 7], [3, 3], [2, 2], [1, 1], [0, 0, 1, 1], [3, 3]),
    ([6, 7], [2, 3], [1, 1], [3, 2], [1, 0, 0, 2], [4, 5]),
    ([20, 18], [17, 16], [2, 1], [1, 1], [8, 0, 8, 0], [10, 3]),
];

fn windows(case: &Sizes) -> Attributes {
    let (_, kernel, strides, dilations, pads, _) = case;
    Attributes::none()
        .with("kernel_shape", kernel.to_vec())
        .with("strides", strides.to_vec())
        .with("dilations", dilations.to_vec())
        .with("pads", pads.to_vec())
}

#[test]
fn pools_over_windows() {
    for (number, case) in WINDOWS.iter().enumerate() {
        for channels in [1, 3, 16, 100, 272] {
            let (input, output) = (case.0, case.5.map(|size| size as usize));
            let (x, y) = ([2, input[0], input[1], channels], [2, output[0], output[1], channels]);
            let include = (number % 2) as i64;
            let attributes = windows(case).with("count_include_pad", include);
            let forward = attributes.clone().with("output", case.5.to_vec());
            // Few values, so that there are ties.
            let values = noise(&x, 3).to_f64s().expect("numbers");
            let image = Tensor::from_vec(&x, values.iter().map(|x| (x * 4.0).round() as f32).collect::<Vec<_>>());
            for op in ["MaxPool", "AveragePool"] {
                let inputs = vec![Some(image.clone())];
                check(&Case { op, attributes: forward.clone(), inputs, outputs: vec![y.to_vec()] });
            }
            let space = attributes.clone().with("space", vec![input[0] as i64, input[1] as i64]);
            let inputs = vec![Some(noise(&y, 4))];
            check(&Case { op: "AveragePoolGrad", attributes: space, inputs, outputs: vec![x.to_vec()] });
            let inputs = vec![Some(noise(&y, 4)), Some(image.clone()), Some(greatest(case, &image))];
            check(&Case { op: "MaxPoolGrad", attributes: windows(case), inputs, outputs: vec![x.to_vec()] });
        }
    }
}

/// Returns the maxima of windows.
fn greatest(case: &Sizes, image: &Tensor) -> Tensor {
    let (input, kernel, strides, dilations, pads, output) = case;
    let x = image.to_f64s().expect("numbers");
    let channels = image.shape()[3];
    let mut y = Vec::new();
    for n in 0..2 {
        for at in 0..output[0] * output[1] {
            let (row, column) = (at / output[1], at % output[1]);
            for channel in 0..channels {
                let mut most = f64::NEG_INFINITY;
                for tap in 0..kernel[0] * kernel[1] {
                    let from = row * strides[0] + tap / kernel[1] * dilations[0] - pads[0];
                    let across = column * strides[1] + tap % kernel[1] * dilations[1] - pads[1];
                    let [Ok(from), Ok(across)] = [from, across].map(usize::try_from) else { continue };
                    if from < input[0] && across < input[1] {
                        most = most.max(x[((n * input[0] + from) * input[1] + across) * channels + channel]);
                    }
                }
                y.push(most as f32);
            }
        }
    }
    Tensor::from_vec(&[2, output[0] as usize, output[1] as usize, channels], y)
}

#[test]
fn pools_over_whole_images() {
    for shape in SHAPES {
        let ([batch, height, width, channels], means) = (*shape, [shape[0], 1, 1, shape[3]]);
        assert!(batch * channels > 0);
        let inputs = vec![Some(noise(shape, 3))];
        let attributes = Attributes::none();
        check(&Case { op: "GlobalAveragePool", attributes, inputs, outputs: vec![means.to_vec()] });
        let attributes = Attributes::none().with("space", vec![height as i64, width as i64]);
        let inputs = vec![Some(noise(&means, 3))];
        check(&Case { op: "GlobalAveragePoolGrad", attributes, inputs, outputs: vec![shape.to_vec()] });
    }
}

/// A convolution: sizes of images, channels, kernel, strides, dilations, pads, groups.
type Convolution = ([usize; 2], [usize; 2], [usize; 2], [usize; 2], [usize; 2], [usize; 4], usize);

const CONVOLUTIONS: &[Convolution] = &[
    ([6, 5], [3, 8], [3, 3], [1, 1], [1, 1], [1, 1, 1, 1], 1),
    ([7, 9], [16, 64], [1, 1], [1, 1], [1, 1], [0, 0, 0, 0], 1),
    ([8, 8], [16, 40], [1, 1], [2, 2], [1, 1], [0, 0, 0, 0], 1),
    ([9, 8], [8, 16], [3, 3], [2, 2], [1, 1], [0, 0, 1, 1], 1),
    ([8, 9], [8, 16], [3, 3], [2, 2], [1, 1], [1, 1, 0, 1], 1),
    ([8, 8], [3, 16], [3, 3], [2, 2], [1, 1], [2, 1, 0, 0], 1),
    ([10, 7], [4, 6], [3, 2], [1, 2], [2, 1], [2, 0, 2, 1], 2),
    ([7, 7], [35, 40], [2, 5], [1, 1], [1, 1], [1, 0, 0, 3], 5),
    ([6, 6], [20, 20], [3, 3], [1, 1], [1, 1], [1, 1, 1, 1], 20),
    ([6, 7], [16, 32], [3, 3], [2, 2], [1, 1], [0, 1, 1, 1], 16),
    ([8, 8], [1, 4], [3, 3], [1, 1], [1, 1], [1, 1, 1, 1], 1),
];

#[test]
fn convolutions() {
    for (number, case) in CONVOLUTIONS.iter().enumerate() {
        let (input, [inputs, outputs], kernel, strides, dilations, pads, groups) = *case;
        let output = [0, 1].map(|axis| {
            let window = (kernel[axis] - 1) * dilations[axis] + 1;
            (input[axis] + pads[axis] + pads[axis + 2] - window) / strides[axis] + 1
        });
        let x = [2, input[0], input[1], inputs];
        let (y, w) = ([2, output[0], output[1], outputs], [outputs, inputs / groups, kernel[0], kernel[1]]);
        let list = |sizes: &[usize]| sizes.iter().map(|size| *size as i64).collect::<Vec<_>>();
        let attributes = Attributes::none()
            .with("kernel_shape", list(&kernel))
            .with("strides", list(&strides))
            .with("dilations", list(&dilations))
            .with("pads", list(&pads))
            .with("group", groups as i64)
            .with("space", list(&input));
        let [image, weights, gradient] = [noise(&x, 1), noise(&w, 2), noise(&y, 3)].map(Some);
        let bias = (number % 2 == 0).then(|| noise(&[outputs], 4));
        let run = |op: &'static str, inputs: Vec<Option<Tensor>>, output: &[usize]| {
            check(&Case { op, attributes: attributes.clone(), inputs, outputs: vec![output.to_vec()] });
        };
        run("Conv", vec![image.clone(), weights.clone(), bias], &y);
        let waits = if number % 2 == 0 { weights.clone() } else { None };
        run("ConvInputGrad", vec![gradient.clone(), weights, waits], &x);
        run("ConvWeightGrad", vec![image, gradient], &w);
    }
}
