//! A rectangle that is overwritten.

use super::crop::sides;
use crate::data::order::Random;
use serde::{Deserialize, Serialize};

/// Which rectangle is overwritten, how often and by what.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Erasing {
    /// The probability that there is one.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 1)))]
    pub probability: f64,
    /// Least and greatest share of the area.
    pub scale: [f64; 2],
    /// Least and greatest ratio of height to width, drawn evenly by its logarithm.
    pub ratio: [f64; 2],
    /// What is written.
    pub value: f64,
}

impl Default for Erasing {
    fn default() -> Self {
        Erasing { probability: 0.5, scale: [0.02, 0.33], ratio: [0.3, 3.3], value: 0.0 }
    }
}

/// Overwrites a rectangle of all channels, which come one after another. Ten are drawn; where none is smaller than the
/// picture nothing is.
pub(in crate::data) fn erase(
    erasing: &Erasing,
    values: &mut [f32],
    (height, width): (usize, usize),
    random: &mut Random,
) {
    if random.fraction() >= erasing.probability {
        return;
    }
    for _ in 0..10 {
        let (tall, wide) = sides(erasing.scale, erasing.ratio, height * width, random);
        if tall >= height || wide >= width {
            continue;
        }
        let top = random.below(height - tall + 1);
        let left = random.below(width - wide + 1);
        for plane in values.chunks_exact_mut(height * width) {
            for line in plane.chunks_exact_mut(width).skip(top).take(tall) {
                line[left..left + wide].fill(erasing.value as f32);
            }
        }
        return;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Draw, Sample};

    #[test]
    fn a_rectangle_of_all_channels_is_overwritten_as_often_as_said() {
        let erasing = Erasing { probability: 0.25, value: -1.0, ..Erasing::default() };
        let draw = Draw::Random { seed: 5, epoch: 2 };
        let (height, width) = (20, 30);
        let (mut hit, mut edges) = (0, [0; 2]);
        for row in 0..2000 {
            let mut values = vec![1.0; 2 * height * width];
            erase(&erasing, &mut values, (height, width), &mut Random(draw.numbers(Sample::of(row), "erase").unwrap()));
            let (first, second) = values.split_at(height * width);
            assert_eq!(first, second);
            let places: Vec<usize> = (0..height * width).filter(|place| first[*place] == -1.0).collect();
            let (Some(least), Some(greatest)) = (places.first(), places.last()) else { continue };
            hit += 1;
            let (tall, wide) = (greatest / width - least / width + 1, greatest % width - least % width + 1);
            assert_eq!(places.len(), tall * wide, "a rectangle");
            let share = places.len() as f64 / (height * width) as f64;
            // Sides are rounded to whole pixels.
            assert!((0.01..0.36).contains(&share), "{share}");
            edges[0] += usize::from(least % width == 0);
            edges[1] += usize::from(greatest % width == width - 1);
        }
        // 500 are expected, with a standard deviation of 19.
        assert!((430..570).contains(&hit), "{hit}");
        assert!(edges.iter().all(|edge| *edge > 5), "{edges:?}");
    }
}
