use crate::autodiff::harness::{Case, check};

const MOVED: &str = "tract moves the places inside the image, not the pixels that they read";
const SLOW: &str = "the same as at opset 20, and tract takes long to plan";

/// Places between pixels, inside and outside of an image with 4 by 5 pixels.
fn places(count: usize) -> Vec<f32> {
    let along = |at: usize, first: f32, step: f32| first + step * at as f32;
    (0..count).flat_map(|at| [along(at * 7 % count, -1.43, 0.237), along(at * 5 % count, -1.31, 0.213)]).collect()
}

fn sample(name: &'static str, mode: &str, padding: &str, corners: i64) -> Case {
    let case = Case::new(name, "GridSample").text("mode", mode).text("padding_mode", padding);
    let case = case.int("align_corners", corners);
    let pixelwise = padding == "reflection" || (padding == "border" && mode.ends_with("cubic"));
    if pixelwise { case.not_embedded(MOVED) } else { case }
}

#[test]
fn images_at_places() {
    let mut cases = Vec::new();
    for padding in ["zeros", "border", "reflection"] {
        for corners in [0, 1] {
            for (opset, modes) in [(18, ["nearest", "bilinear", "bicubic"]), (20, ["nearest", "linear", "cubic"])] {
                for mode in modes {
                    let case = sample("one image", mode, padding, corners).opset(opset).input(&[1, 2, 4, 5]);
                    let case = case.values(&[1, 3, 4, 2], &places(12));
                    cases.push(if opset == 18 { case.not_embedded(SLOW) } else { case });
                }
            }
        }
    }
    let plain = |name| sample(name, "linear", "zeros", 0).opset(20);
    cases.extend([
        plain("two images").input(&[2, 3, 4, 5]).values(&[2, 2, 3, 2], &places(12)),
        plain("symbolic batch").input(&[2, 3, 4, 5]).values(&[2, 2, 3, 2], &places(12)).batch(),
        sample("one column", "linear", "reflection", 0)
            .opset(20)
            .input(&[1, 2, 4, 1])
            .values(&[1, 2, 3, 2], &places(6)),
        sample("far away", "linear", "reflection", 1)
            .opset(20)
            .input(&[1, 2, 4, 5])
            .values(&[1, 1, 2, 2], &[-7.31, 5.23, 9.77, -6.41]),
    ]);
    check(&cases);
}

#[test]
fn volumes_at_places() {
    let mut cases = Vec::new();
    for padding in ["zeros", "border", "reflection"] {
        for (mode, corners) in [("nearest", 0), ("linear", 0), ("linear", 1)] {
            let case = sample("a volume", mode, padding, corners).opset(20).input(&[1, 2, 3, 4, 5]);
            cases.push(case.values(&[1, 2, 2, 2, 3], &places(12)));
        }
    }
    check(&cases);
}

/// Mode, padding, corners, and the gradients of image and grid.
type Golden = (&'static str, &'static str, i64, [f32; 9], [f32; 12]);

/// Places at corners, at pixels and beyond the edges.
#[test]
fn as_pytorch() {
    const IMAGE: [f32; 9] = [0.5, -1.0, 2.0, 1.5, 0.25, -0.75, 3.0, 1.0, -2.0];
    const PLACES: [f32; 12] = [-1.0, -1.0, 1.0, 1.0, 0.0, 0.0, -1.5, 0.3, 0.25, 1.75, 1.0, -0.4];
    let golden: &[Golden] = &[
        (
            "bilinear",
            "zeros",
            0,
            [0.25, 0.0, 0.3, 0.0, 1.0, 0.2, 0.0, 0.0, 0.25],
            [0.375, 0.375, 1.5, 1.5, -1.5, 1.125, 0.0, 0.0, 0.0, 0.0, -1.35, -2.0625],
        ),
        (
            "bilinear",
            "zeros",
            1,
            [1.0, 0.0, 0.4, 0.35, 1.0, 0.6, 0.15, 0.1875, 1.0625],
            [-1.5, 1.0, 2.0, 2.0, -1.0, 0.75, 1.95, 0.75, -0.75, -0.25, -0.35, -2.75],
        ),
        (
            "bilinear",
            "border",
            0,
            [1.0, 0.0, 0.6, 0.55, 1.0, 0.4, 0.45, 0.625, 1.375],
            [-0.0, 0.0, 0.0, 0.0, -1.5, 1.125, -0.0, 2.25, -4.5, 0.0, -0.0, -4.125],
        ),
        (
            "bilinear",
            "border",
            1,
            [1.0, 0.0, 0.4, 0.7, 1.0, 0.6, 0.3, 0.75, 1.25],
            [-0.0, 0.0, 0.0, 0.0, -1.0, 0.75, -0.0, 1.5, -3.0, -0.0, -0.0, -2.75],
        ),
        (
            "bilinear",
            "reflection",
            0,
            [1.0, 0.0, 0.6, 0.4125, 1.528125, 0.634375, 0.3375, 0.346875, 1.140625],
            [-0.0, 0.0, 0.0, 0.0, -1.5, 1.125, 2.38125, 1.96875, -2.625, -0.0, -0.0, -4.125],
        ),
        (
            "bilinear",
            "reflection",
            1,
            [1.0, 0.0, 0.4, 0.35, 1.9125, 0.7875, 0.15, 0.3375, 1.0625],
            [-0.0, 0.0, 0.0, 0.0, -1.0, 0.75, 1.475, 1.125, -1.5, -0.25, -0.0, -2.75],
        ),
        (
            "bicubic",
            "zeros",
            0,
            [0.363307, -0.123164, 0.4275, -0.125092, 0.974453, 0.217461, -0.048376, -0.09832, 0.28169],
            [
                0.481201, 0.525146, 2.359863, 2.390625, -2.53125, 2.25, 0.531226, -0.347355, 0.363836, -0.159697,
                -2.629687, -2.794219,
            ],
        ),
        (
            "bicubic",
            "zeros",
            1,
            [0.934539, 0.010336, 0.46, 0.497263, 0.891171, 0.710799, 0.166108, 0.19944, 0.960497],
            [-0.75, 1.125, -0.75, 0.5625, -1.6875, 1.5, 2.727973, 1.316308, -0.957367, -0.081024, 0.291, -3.419999],
        ),
        (
            "bicubic",
            "border",
            0,
            [1.094195, -0.159914, 0.669375, 0.555742, 0.974453, 0.400586, 0.333949, 0.653723, 1.477891],
            [
                0.428467, -0.274658, 0.896484, 0.404297, -2.53125, 2.25, -0.0, 2.30625, -4.78125, 0.0, -0.44775,
                -4.685626,
            ],
        ),
        (
            "bicubic",
            "border",
            1,
            [0.879414, 0.010336, 0.388, 0.912888, 0.891171, 0.712035, 0.195979, 0.883649, 1.126528],
            [-1.125, 0.75, -2.25, -0.9375, -1.6875, 1.5, 0.268441, 1.723652, -3.451218, -0.051041, 0.575999, -2.939999],
        ),
        (
            "bicubic",
            "reflection",
            0,
            [1.343263, -0.44647, 0.690749, 0.204139, 1.718115, 0.570539, 0.303672, 0.177086, 1.438907],
            [0.0, 0.0, 0.0, 0.0, -2.53125, 2.25, 1.601817, 2.095999, -3.438118, 0.073332, 0.0, -5.2425],
        ),
        (
            "bicubic",
            "reflection",
            1,
            [0.945663, -0.144114, 0.442733, 0.376511, 2.103914, 0.795325, 0.166108, 0.38395, 0.929911],
            [0.0, 0.0, 0.0, 0.0, -1.6875, 1.5, 1.53307, 1.892461, -2.661713, -0.218903, 0.0, -3.599998],
        ),
    ];
    let case = |(mode, padding, corners, image, grid): &Golden| {
        let case = sample(mode, mode, padding, *corners).values(&[1, 1, 3, 3], &IMAGE);
        case.values(&[1, 1, 6, 2], &PLACES).expect(0, image).expect(1, grid)
    };
    check(&golden.iter().map(case).collect::<Vec<_>>());
}
