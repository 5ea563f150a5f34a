//! Where a row is cut out of a picture.

use crate::data::image::Area;
use crate::data::order::Random;
use serde::{Deserialize, Serialize};

/// A place anywhere in the picture, each with the same probability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RandomCrop {
    /// Pixels of 0 that are put around the picture first.
    #[serde(default)]
    pub padding: usize,
}

impl RandomCrop {
    /// Returns a place of `part` in a picture of `size`, both height and width; `None` where it is too small.
    pub(in crate::data) fn area(self, size: (usize, usize), part: (usize, usize), random: &mut Random) -> Option<Area> {
        let mut place = |size: usize, part: usize| {
            let rest = (size + 2 * self.padding).checked_sub(part)?;
            Some(random.below(rest + 1).cast_signed() - self.padding.cast_signed())
        };
        let (top, left) = (place(size.0, part.0)?, place(size.1, part.1)?);
        Some(Area { top, left, height: part.0, width: part.1 })
    }
}

/// A part of random area and shape.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RandomResizedCrop {
    /// Least and greatest share of the area.
    pub scale: [f64; 2],
    /// Least and greatest ratio of width to height, drawn evenly by its logarithm.
    pub ratio: [f64; 2],
}

impl Default for RandomResizedCrop {
    fn default() -> Self {
        RandomResizedCrop { scale: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] }
    }
}

impl RandomResizedCrop {
    /// Returns a part of a picture of height and width. Ten parts are drawn; where none lies within the picture it is
    /// the greatest in the middle whose ratio is allowed.
    pub(in crate::data) fn area(&self, (height, width): (usize, usize), random: &mut Random) -> Area {
        for _ in 0..10 {
            let (long, short) = sides(self.scale, self.ratio, height * width, random);
            if (1..=width).contains(&long) && (1..=height).contains(&short) {
                let top = random.below(height - short + 1).cast_signed();
                let left = random.below(width - long + 1).cast_signed();
                return Area { top, left, height: short, width: long };
            }
        }
        let found = width as f64 / height as f64;
        let [least, greatest] = self.ratio;
        let rounded = |side: f64, most: usize| (side.round_ties_even() as usize).clamp(1, most);
        let (part_height, part_width) = if found < least {
            (rounded(width as f64 / least, height), width)
        } else if found > greatest {
            (height, rounded(height as f64 * greatest, width))
        } else {
            (height, width)
        };
        let middle = |size: usize, part: usize| ((size - part) / 2).cast_signed();
        let (top, left) = (middle(height, part_height), middle(width, part_width));
        Area { top, left, height: part_height, width: part_width }
    }
}

/// Draws a share of an area and a ratio, and returns the roots of their product and of their quotient.
pub(super) fn sides(scale: [f64; 2], ratio: [f64; 2], area: usize, random: &mut Random) -> (usize, usize) {
    let share = area as f64 * random.between(scale[0], scale[1]);
    let ratio = random.between(ratio[0].ln(), ratio[1].ln()).exp();
    let side = |square: f64| square.sqrt().round_ties_even() as usize;
    (side(share * ratio), side(share / ratio))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Draw, Sample};

    /// Draws for many samples.
    fn drawn<T>(count: usize, mut each: impl FnMut(&mut Random) -> T) -> Vec<T> {
        let draw = Draw::Random { seed: 1, epoch: 1 };
        (0..count).map(|row| each(&mut Random(draw.numbers(Sample::of(row), "crop").unwrap()))).collect()
    }

    #[test]
    fn places_are_even_and_reach_both_edges() {
        let crop = RandomCrop { padding: 2 };
        let areas = drawn(4000, |random| crop.area((8, 6), (8, 7), random).unwrap());
        for top in -2..=2 {
            let count = areas.iter().filter(|area| area.top == top).count();
            // 800 are expected, with a standard deviation of 25.
            assert!((700..900).contains(&count), "top {top}: {count}");
        }
        for left in -2..=1 {
            let count = areas.iter().filter(|area| area.left == left).count();
            assert!((885..1115).contains(&count), "left {left}: {count}");
        }
        assert!(areas.iter().all(|area| (area.height, area.width) == (8, 7)));
        assert_eq!(drawn(1, |random| crop.area((8, 6), (8, 11), random)), [None]);
    }

    #[test]
    fn parts_have_shares_and_ratios_within_bounds() {
        let crop = RandomResizedCrop::default();
        let areas = drawn(3000, |random| crop.area((400, 500), random));
        let mut shares: Vec<f64> = areas.iter().map(|area| (area.height * area.width) as f64 / 200_000.0).collect();
        let mut ratios: Vec<f64> = areas.iter().map(|area| area.width as f64 / area.height as f64).collect();
        shares.sort_by(f64::total_cmp);
        ratios.sort_by(f64::total_cmp);
        assert!(shares[0] > 0.079 && shares[2999] <= 1.0, "{} to {}", shares[0], shares[2999]);
        assert!(ratios[0] > 0.74 && ratios[2999] < 1.35, "{} to {}", ratios[0], ratios[2999]);
        // Large shares with wide ratios do not fit and are drawn again, so the median is below the middle of 0.54.
        assert!((0.42..0.54).contains(&shares[1500]), "{}", shares[1500]);
        assert!((0.95..1.05).contains(&ratios[1500]), "{}", ratios[1500]);
        let inside = |area: &Area| area.top >= 0 && area.left >= 0;
        assert!(areas.iter().all(|area| inside(area) && area.top as usize + area.height <= 400));
        assert!(areas.iter().any(|area| area.left as usize + area.width == 500));
    }

    #[test]
    fn where_no_part_fits_it_is_the_middle() {
        let crop = RandomResizedCrop { scale: [1.0, 1.0], ratio: [1.0, 1.0] };
        let areas = drawn(3, |random| crop.area((10, 4), random));
        assert!(areas.iter().all(|area| *area == Area { top: 3, left: 0, height: 4, width: 4 }), "{areas:?}");
        let areas = drawn(3, |random| crop.area((4, 11), random));
        assert!(areas.iter().all(|area| *area == Area { top: 0, left: 3, height: 4, width: 4 }), "{areas:?}");
    }
}
