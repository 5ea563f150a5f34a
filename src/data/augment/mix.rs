//! Rows of a batch that are mixed with each other: mixup and cutmix.
//!
//! Row i is mixed with row i - 1, the first with the last, as in torchvision; what is mixed follows from the order, which
//! is shuffled. The share is drawn for the batch, by the seed of the data, the epoch and the number of the batch.

use crate::data::image::Layout;
use crate::data::order::Random;
use crate::data::{Batch, Draw, Sample};
use crate::graph::Tensor;
use rand_distr::{Beta, Distribution};

/// How the rows of a batch are mixed.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// Parameter of the Beta distribution of shares, above 0.
    pub mixup: Option<f64>,
    /// Parameter of the Beta distribution of areas that are left, above 0.
    pub cutmix: Option<f64>,
    /// The input that is mixed; float32.
    pub input: String,
    /// The order of its dimensions, for `cutmix`.
    pub layout: Layout,
    /// The targets that are mixed; float32.
    pub targets: Vec<String>,
}

impl Mix {
    /// Mixes the first `count` rows of batch `index` (from 0), where `draw` is random.
    pub(in crate::data) fn apply(&self, batch: &mut Batch, count: usize, index: usize, draw: Draw) {
        let numbers = |purpose: &str| draw.numbers(Sample::of(index), purpose);
        let Some(mut chooses) = numbers("mix").map(Random) else { return };
        let first = chooses.fraction() < 0.5;
        let (alpha, cut) = match (self.mixup, self.cutmix) {
            (Some(alpha), None) => (alpha, false),
            (None, Some(alpha)) => (alpha, true),
            (Some(mixup), Some(cutmix)) => {
                if first {
                    (mixup, false)
                } else {
                    (cutmix, true)
                }
            }
            (None, None) => return,
        };
        let share = numbers("share").zip(Beta::new(alpha, alpha).ok());
        let Some(share) = share.map(|(mut numbers, beta)| beta.sample(&mut numbers)) else { return };
        let mut kept = share;
        for (name, tensor) in &mut *batch {
            if *name != self.input {
                continue;
            }
            if cut {
                let (height, width) = self.size(tensor);
                let area = Cut::drawn((height, width), share, &mut chooses);
                kept = area.kept(height, width);
                *tensor = self.pasted(tensor, count, area);
            } else {
                *tensor = blended(tensor, count, share);
            }
        }
        for (_, tensor) in batch.iter_mut().filter(|(name, _)| self.targets.contains(name)) {
            *tensor = blended(tensor, count, kept);
        }
    }

    fn size(&self, tensor: &Tensor) -> (usize, usize) {
        match (self.layout, tensor.shape()) {
            (Layout::Nchw, [.., height, width]) | (Layout::Nhwc, [_, height, width, _]) => (*height, *width),
            _ => (1, 1),
        }
    }

    /// Returns rows whose rectangle is that of the row before.
    fn pasted(&self, tensor: &Tensor, count: usize, area: Cut) -> Tensor {
        let (height, width) = self.size(tensor);
        mixed(tensor, count, |values, before| {
            let channels = values.len() / (height * width);
            for top in area.top..area.bottom {
                match self.layout {
                    Layout::Nchw => {
                        for channel in 0..channels {
                            let line = (channel * height + top) * width;
                            let part = line + area.left..line + area.right;
                            values[part.clone()].copy_from_slice(&before[part]);
                        }
                    }
                    Layout::Nhwc => {
                        let part = (top * width + area.left) * channels..(top * width + area.right) * channels;
                        values[part.clone()].copy_from_slice(&before[part]);
                    }
                }
            }
        })
    }
}

/// The rectangle of cutmix.
#[derive(Clone, Copy, Debug)]
struct Cut {
    top: usize,
    bottom: usize,
    left: usize,
    right: usize,
}

impl Cut {
    /// Draws a middle anywhere; sides are `sqrt(1 - share)` of the picture's, cut off at its edges.
    fn drawn((height, width): (usize, usize), share: f64, random: &mut Random) -> Cut {
        let half = 0.5 * (1.0 - share).max(0.0).sqrt();
        let mut range = |size: usize| {
            let (middle, half) = (random.below(size), (half * size as f64) as usize);
            (middle.saturating_sub(half), (middle + half).min(size))
        };
        let ((left, right), (top, bottom)) = (range(width), range(height));
        Cut { top, bottom, left, right }
    }

    /// Returns the share of the picture outside.
    fn kept(self, height: usize, width: usize) -> f64 {
        1.0 - ((self.bottom - self.top) * (self.right - self.left)) as f64 / (height * width) as f64
    }
}

/// Returns `share x + (1 - share) y` of each row x and the row y before it.
fn blended(tensor: &Tensor, count: usize, share: f64) -> Tensor {
    let (own, other) = (share as f32, (1.0 - share) as f32);
    mixed(tensor, count, |values, before| {
        values.iter_mut().zip(before).for_each(|(value, before)| *value = *before * other + *value * own);
    })
}

fn mixed(tensor: &Tensor, count: usize, each: impl Fn(&mut [f32], &[f32])) -> Tensor {
    let values = tensor.to_vec::<f32>().expect("invariant: checked to be float32");
    let size = values.len() / tensor.shape().first().copied().unwrap_or(1).max(1);
    let mut out = values.clone();
    for (row, own) in out.chunks_exact_mut(size.max(1)).take(count).enumerate() {
        let before = (row + count - 1) % count;
        each(own, &values[before * size..(before + 1) * size]);
    }
    Tensor::from_vec(tensor.shape(), out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(rows: usize) -> Batch {
        let pixels = (0..rows).flat_map(|row| [row as f32 + 1.0; 2 * 6 * 8]).collect();
        let mut classes = vec![0f32; rows * rows];
        (0..rows).for_each(|row| classes[row * rows + row] = 1.0);
        vec![
            ("x".into(), Tensor::from_vec(&[rows, 2, 6, 8], pixels)),
            ("target".into(), Tensor::from_vec(&[rows, rows], classes)),
        ]
    }

    fn mix(mixup: Option<f64>, cutmix: Option<f64>) -> Mix {
        Mix { mixup, cutmix, input: "x".into(), layout: Layout::Nchw, targets: vec!["target".into()] }
    }

    const DRAW: Draw = Draw::Random { seed: 4, epoch: 1 };

    /// Returns the share of each row that its target keeps, and the mean of its pixels.
    fn shares(batch: &Batch, rows: usize) -> Vec<(f32, f32)> {
        let (pixels, targets) = (batch[0].1.to_vec::<f32>().unwrap(), batch[1].1.to_vec::<f32>().unwrap());
        let row = |row: usize| {
            let own = &targets[row * rows..(row + 1) * rows];
            assert!((own.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            (own[row], pixels[row * 96..(row + 1) * 96].iter().sum::<f32>() / 96.0)
        };
        (0..rows).map(row).collect()
    }

    #[test]
    fn pictures_and_targets_have_the_same_shares() {
        for (mix, cuts) in
            [(mix(Some(0.4), None), false), (mix(None, Some(1.0)), true), (mix(Some(0.2), Some(1.0)), false)]
        {
            let mut whole = 0;
            for index in 0..50 {
                let mut found = batch(4);
                mix.apply(&mut found, 4, index, DRAW);
                let shares = shares(&found, 4);
                for (row, (share, mean)) in shares.iter().enumerate() {
                    assert_eq!(*share, shares[0].0, "one share for the batch");
                    let before = (row + 3) % 4;
                    let expected = share * (row as f32 + 1.0) + (1.0 - share) * (before as f32 + 1.0);
                    assert!((mean - expected).abs() < 1e-4, "{mean} and {expected}");
                }
                let pixels = found[0].1.to_vec::<f32>().unwrap();
                whole += usize::from(pixels.iter().all(|pixel| pixel.fract() == 0.0));
                if cuts {
                    assert!(pixels.iter().all(|pixel| pixel.fract() == 0.0), "pixels are of one row or the other");
                    assert_eq!(pixels[..48], pixels[48..96], "of all channels");
                }
                let mut again = batch(4);
                mix.apply(&mut again, 4, index, DRAW);
                assert_eq!(again, found);
            }
            assert!(cuts || mix.cutmix.is_none() && whole < 10 || (10..40).contains(&whole), "{whole}");
        }
    }

    #[test]
    fn shares_are_of_the_beta_distribution() {
        for (alpha, variance) in [(0.2, 0.25 / 1.4), (1.0, 1.0 / 12.0), (4.0, 0.25 / 9.0)] {
            let found: Vec<f64> = (0..2000)
                .map(|index| {
                    let mut found = batch(2);
                    mix(Some(alpha), None).apply(&mut found, 2, index, DRAW);
                    f64::from(shares(&found, 2)[0].0)
                })
                .collect();
            let mean = found.iter().sum::<f64>() / 2000.0;
            let found = found.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / 2000.0;
            assert!((mean - 0.5).abs() < 0.03 && (found / variance - 1.0).abs() < 0.1, "{alpha}: {mean}, {found}");
        }
    }

    #[test]
    fn nothing_is_mixed_in_evaluation_and_padding_stays() {
        let mut found = batch(4);
        mix(Some(1.0), None).apply(&mut found, 4, 0, Draw::Fixed);
        assert_eq!(found, batch(4));
        mix(Some(1.0), None).apply(&mut found, 3, 0, DRAW);
        let (pixels, plain) = (found[0].1.to_vec::<f32>().unwrap(), batch(4)[0].1.to_vec::<f32>().unwrap());
        assert_eq!(pixels[3 * 96..], plain[3 * 96..]);
        // The first of three is mixed with the third.
        assert!((1.0..3.0).contains(&pixels[0]) && pixels[0] != 1.0);
        let mut cuts = 0;
        for index in 0..20 {
            let mut last = batch(4);
            let tensor = last[0].1.to_vec::<f32>().unwrap();
            last[0].1 = Tensor::from_vec(&[4, 6, 8, 2], tensor);
            Mix { layout: Layout::Nhwc, ..mix(None, Some(1.0)) }.apply(&mut last, 4, index, DRAW);
            let shares = shares(&last, 4);
            let expected = shares[1].0 * 2.0 + (1.0 - shares[1].0);
            assert!((shares[1].1 - expected).abs() < 1e-4, "{shares:?}");
            cuts += usize::from(shares[1].0 < 1.0);
        }
        assert!(cuts > 5, "{cuts}");
    }
}
