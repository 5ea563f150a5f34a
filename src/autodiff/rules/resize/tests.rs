use crate::autodiff::harness::{Case, check};
use crate::graph::Tensor;

/// tract follows ONNX to the letter, the rule ONNX Runtime, where these two differ.
const ELSEWHERE: &str = "tract reads x at other places than ONNX Runtime";

fn floats(values: &[f32]) -> Tensor {
    Tensor::from_vec(&[values.len()], values.to_vec())
}

fn scaled(name: &'static str, shape: &[usize], scales: &[f32]) -> Case {
    Case::new(name, "Resize").linear().input(shape).missing().fixed(floats(scales))
}

fn sized(name: &'static str, shape: &[usize], sizes: &[i64]) -> Case {
    Case::new(name, "Resize").linear().input(shape).missing().missing().fixed(Tensor::ints(sizes))
}

/// The form of opset 10.
fn oldest() -> Case {
    let case = Case::new("oldest", "Resize").opset(10).linear().input(&[1, 2, 2, 3]);
    case.fixed(floats(&[1.0, 1.0, 2.0, 1.5])).not_embedded("tested in the newer form")
}

#[test]
fn nearest_pixels() {
    let mut cases = vec![
        oldest(),
        scaled("twice", &[2, 3, 3, 4], &[1.0, 1.0, 2.0, 2.0])
            .text("coordinate_transformation_mode", "asymmetric")
            .text("nearest_mode", "floor"),
        scaled("twice, half pixel", &[2, 3, 3, 4], &[1.0, 1.0, 2.0, 3.0]),
        Case::new("oldest form", "Resize").opset(10).linear().input(&[1, 2, 3, 2]).fixed(floats(&[1.0, 1.0, 2.0, 1.5])),
        scaled("1d", &[2, 3, 4], &[1.0, 1.0, 4.0]),
        scaled("3d", &[1, 2, 2, 3, 2], &[1.0, 1.0, 2.0, 1.0, 3.0]),
        scaled("channels last", &[2, 3, 4, 2], &[1.0, 2.0, 2.0, 1.0]),
        scaled("a matrix", &[3, 4], &[2.0, 2.0]),
        scaled("a vector", &[4], &[1.7]),
        scaled("batch", &[2, 3, 3, 4], &[1.0, 1.0, 2.0, 2.0]).batch(),
        scaled("batch, uneven", &[2, 3, 3, 4], &[1.0, 1.0, 0.7, 1.4]).batch(),
        sized("sizes", &[2, 2, 5, 7], &[3, 11]).ints("axes", &[2, 3]).batch(),
    ];
    for rounding in ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"] {
        for mode in ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"] {
            for (name, scales) in
                [("up", [1.6, 2.5]), ("down", [0.8, 0.5]), ("whole", [2.0, 3.0]), ("to one", [0.2, 0.3])]
            {
                cases.push(
                    scaled(name, &[1, 2, 5, 6], &[1.0, 1.0, scales[0], scales[1]])
                        .text("coordinate_transformation_mode", mode)
                        .text("nearest_mode", rounding),
                );
            }
        }
    }
    check(&cases);
}

#[test]
fn interpolated_pixels() {
    let mut cases = vec![oldest().text("mode", "linear")];
    for mode in ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"] {
        for (name, scales) in
            [("up", [1.6, 2.0]), ("down", [0.8, 0.5]), ("one axis", [1.0, 1.5]), ("to one", [0.2, 0.3])]
        {
            let image = |mode_name: &str| {
                let case = scaled(name, &[2, 2, 5, 6], &[1.0, 1.0, scales[0], scales[1]])
                    .text("coordinate_transformation_mode", mode)
                    .text("mode", mode_name);
                if (name, mode) == ("to one", "pytorch_half_pixel") { case.not_embedded(ELSEWHERE) } else { case }
            };
            cases.push(image("linear"));
            cases.push(image("cubic"));
            cases.push(image("cubic").int("exclude_outside", 1).float("cubic_coeff_a", -0.5));
            cases.push(image("linear").int("antialias", 1));
            cases.push(image("linear").int("antialias", 1).int("exclude_outside", 1));
            cases.push(image("cubic").int("antialias", 1));
            cases.push(image("cubic").int("antialias", 1).int("exclude_outside", 1).float("cubic_coeff_a", -0.5));
        }
    }
    check(&cases);
}

#[test]
fn shapes_and_policies() {
    let linear = |case: Case| case.text("mode", "linear");
    let kept = |name, policy, axes: &[i64], sizes: &[i64]| {
        sized(name, &[1, 2, 6, 4], sizes).ints("axes", axes).text("keep_aspect_ratio_policy", policy)
    };
    check(&[
        linear(oldest()),
        linear(scaled("3d", &[1, 2, 3, 4, 3], &[1.0, 1.0, 2.0, 1.5, 2.4]).batch()),
        linear(scaled("3d, smooth", &[1, 2, 5, 4, 6], &[1.0, 1.0, 0.6, 1.5, 0.5]).int("antialias", 1)),
        linear(scaled("3 axes", &[2, 3, 4], &[1.0, 1.0, 1.5])),
        linear(scaled("2 axes", &[3, 4], &[2.0, 1.5])),
        linear(scaled("channels last", &[2, 3, 4, 2], &[1.0, 2.0, 1.5, 1.0]).batch()),
        linear(sized("sizes", &[2, 3, 4, 5], &[2, 3, 7, 9])),
        linear(sized("sizes, batch", &[2, 3, 4, 5], &[7, 9]).ints("axes", &[2, -1]).batch()),
        linear(Case::new("computed sizes", "Resize").linear().input(&[2, 3, 4, 5]).missing().missing())
            .fed(Tensor::ints(&[2, 3, 7, 9]))
            .batch()
            .not_embedded("tract takes only constant sizes"),
        Case::new("computed sizes, whole", "Resize")
            .linear()
            .input(&[2, 3, 4, 5])
            .missing()
            .missing()
            .fed(Tensor::ints(&[2, 3, 8, 15]))
            .batch()
            .not_embedded("tract takes only constant sizes"),
        linear(scaled("axes", &[1, 2, 3, 4], &[1.5, 2.0]).ints("axes", &[3, 2])),
        linear(sized("axes and sizes", &[1, 2, 3, 4], &[5, 7]).ints("axes", &[2, 3])),
        linear(kept("not larger", "not_larger", &[2, 3], &[9, 8])),
        linear(kept("not smaller", "not_smaller", &[2, 3], &[9, 8])),
        kept("not smaller, nearest", "not_smaller", &[2, 3], &[4, 3]),
        linear(scaled("part of a pixel left", &[1, 2, 5, 6], &[1.0, 1.0, 1.5, 1.7]))
            .text("coordinate_transformation_mode", "align_corners")
            .not_embedded(ELSEWHERE),
        linear(scaled("the same sizes", &[1, 2, 5, 6], &[1.0, 1.0, 1.1, 1.1])).not_embedded(ELSEWHERE),
        linear(scaled("one axis the same", &[1, 2, 5, 6], &[1.0, 1.0, 1.1, 2.0])),
        linear(scaled("one axis the same, smooth", &[1, 2, 5, 6], &[1.0, 1.0, 1.1, 2.0]).int("antialias", 1))
            .not_embedded(ELSEWHERE),
        scaled("one axis the same, nearest", &[1, 2, 5, 6], &[1.0, 1.0, 1.1, 2.0]),
    ]);
}

#[test]
fn regions() {
    let mut cases = vec![oldest()];
    for mode in ["nearest", "linear", "cubic"] {
        for (name, region) in [("inside", [0.1, 0.2, 0.9, 0.7]), ("beyond", [-0.2, 0.3, 0.8, 1.3])] {
            let [top, left, bottom, right] = region;
            for sizes in [[1, 2, 4, 9], [1, 2, 1, 7]] {
                let region = [0.0, 0.0, top, left, 1.0, 1.0, bottom, right];
                cases.push(
                    Case::new(name, "Resize")
                        .linear()
                        .input(&[1, 2, 6, 5])
                        .fixed(floats(&region))
                        .missing()
                        .fixed(Tensor::ints(&sizes))
                        .text("mode", mode)
                        .text("coordinate_transformation_mode", "tf_crop_and_resize")
                        .float("extrapolation_value", 3.0),
                );
            }
        }
    }
    check(&cases);
}

/// Sums of the columns of PyTorch's interpolation matrices.
#[test]
fn as_pytorch() {
    let line = |name, mode: &str, scale: f32| scaled(name, &[1, 1, 1, 4], &[1.0, 1.0, 1.0, scale]).text("mode", mode);
    let half = "pytorch_half_pixel";
    check(&[
        line("bilinear", "linear", 2.0).text("coordinate_transformation_mode", half).expect(0, &BILINEAR),
        line("bicubic", "cubic", 2.5).text("coordinate_transformation_mode", half).expect(0, &BICUBIC),
        line("corners", "linear", 2.5).text("coordinate_transformation_mode", "align_corners").expect(0, &CORNERS),
        line("nearest", "nearest", 1.75)
            .text("coordinate_transformation_mode", "asymmetric")
            .text("nearest_mode", "floor")
            .expect(0, &NEAREST),
    ]);
}

const BILINEAR: [f32; 4] = [2.0, 2.0, 2.0, 2.0];
const BICUBIC: [f32; 4] = [2.45275, 2.54725, 2.54725, 2.45275];
const CORNERS: [f32; 4] = [2.0, 3.0, 3.0, 2.0];
const NEAREST: [f32; 4] = [2.0, 2.0, 2.0, 1.0];
