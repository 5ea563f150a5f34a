//! Brightness, contrast and saturation.

use super::AugmentOptions;
use crate::data::order::Random;

/// Changes the colours of a picture whose channels, 1 or 3, come one after another, in an order that is drawn. `bounded`
/// keeps numbers in [0, 1].
pub(in crate::data) fn adjust(
    options: &AugmentOptions,
    values: &mut [f32],
    channels: usize,
    bounded: bool,
    random: &mut Random,
) {
    let mut order: [(f64, Change); 3] = [
        (options.brightness, Change::Brightness),
        (options.contrast, Change::Contrast),
        (options.saturation, Change::Saturation),
    ];
    random.shuffle(&mut order);
    for (amount, change) in order {
        let factor = random.between((1.0 - amount).max(0.0), 1.0 + amount) as f32;
        if amount > 0.0 {
            change.apply(values, channels, factor, bounded);
        }
    }
}

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Brightness,
    Contrast,
    Saturation,
}

impl Change {
    /// Replaces each number by `factor x + (1 - factor) y`, where y is 0, the mean grey, or the grey of the pixel.
    fn apply(self, values: &mut [f32], channels: usize, factor: f32, bounded: bool) {
        let blended = |value: f32, other: f32| {
            let value = factor * value + (1.0 - factor) * other;
            if bounded { value.clamp(0.0, 1.0) } else { value }
        };
        match self {
            Change::Brightness => values.iter_mut().for_each(|value| *value = blended(*value, 0.0)),
            Change::Contrast => {
                let greys = greys(values, channels);
                let mean = greys.iter().map(|grey| f64::from(*grey)).sum::<f64>() / greys.len().max(1) as f64;
                values.iter_mut().for_each(|value| *value = blended(*value, mean as f32));
            }
            Change::Saturation if channels == 1 => {}
            Change::Saturation => {
                let greys = greys(values, channels);
                for plane in values.chunks_exact_mut(greys.len()) {
                    plane.iter_mut().zip(&greys).for_each(|(value, grey)| *value = blended(*value, *grey));
                }
            }
        }
    }
}

/// Returns the grey of each pixel: torchvision's weights of red, green and blue.
fn greys(values: &[f32], channels: usize) -> Vec<f32> {
    let plane = values.len() / channels;
    if channels == 1 {
        return values.to_vec();
    }
    let (red, rest) = values.split_at(plane);
    let (green, blue) = rest.split_at(plane);
    red.iter().zip(green).zip(blue).map(|((red, green), blue)| 0.2989 * red + 0.587 * green + 0.114 * blue).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::image::testing::{bytes, file, golden};
    use crate::data::image::{Area, decode};
    use crate::data::{Draw, Sample};

    fn colours() -> Vec<f32> {
        let picture = decode(&file("colours.png"), 3).unwrap();
        let picture = picture.cropped(Area { top: 0, left: 0, height: 5, width: 6 });
        let bytes = bytes(&picture);
        (0..3).flat_map(|channel| bytes.iter().skip(channel).step_by(3).map(|byte| f32::from(*byte) / 255.0)).collect()
    }

    #[test]
    fn changes_are_torchvisions() {
        for (name, change) in
            [("brightness", Change::Brightness), ("contrast", Change::Contrast), ("saturation", Change::Saturation)]
        {
            let golden = golden(name).to_vec::<f32>().unwrap();
            for (factor, expected) in [0.6, 1.7].into_iter().zip(golden.chunks_exact(90)) {
                let mut values = colours();
                change.apply(&mut values, 3, factor, true);
                let worst = values.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-6, "{name} {factor}: {worst}");
            }
        }
    }

    #[test]
    fn factors_are_even_and_the_order_is_drawn() {
        let options = AugmentOptions { brightness: 0.4, ..AugmentOptions::default() };
        let draw = Draw::Random { seed: 0, epoch: 1 };
        let numbers = |row| Random(draw.numbers(Sample::of(row), "colour").unwrap());
        let mut factors: Vec<f32> = Vec::new();
        for row in 0..2000 {
            let mut values = [0.5];
            adjust(&options, &mut values, 1, true, &mut numbers(row));
            factors.push(values[0] * 2.0);
        }
        factors.sort_by(f32::total_cmp);
        for (place, factor) in [(0, 0.6), (500, 0.8), (1000, 1.0), (1500, 1.2), (1999, 1.4)] {
            assert!((factors[place] - factor).abs() < 0.03, "{place}: {}", factors[place]);
        }
        let both = AugmentOptions { brightness: 0.9, contrast: 0.9, ..AugmentOptions::default() };
        let mut sums = Vec::new();
        for row in 0..50 {
            let mut values = [0.1, 0.4];
            adjust(&both, &mut values, 1, false, &mut numbers(row));
            // Contrast last leaves the mean where brightness put it, and only then is it a multiple of 0.25.
            sums.push((values[0] + values[1]) / 2.0 / 0.25);
        }
        assert!(sums.iter().all(|sum| (0.0..1.91).contains(sum)), "{sums:?}");
        let mut plain = colours();
        adjust(&AugmentOptions::default(), &mut plain, 3, true, &mut numbers(0));
        assert_eq!(plain, colours());
    }
}
