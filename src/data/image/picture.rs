//! A picture in memory.

/// A picture, its pixels row by row, the channels of a pixel together.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::data) struct Picture {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub pixels: Pixels,
}

/// What a pixel's channel is.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::data) enum Pixels {
    /// 0 to 255.
    Bytes(Vec<u8>),
    /// Any numbers.
    Floats(Vec<f32>),
}

impl Pixels {
    /// Returns a value for each byte or number.
    fn map(self, bytes: impl FnOnce(Vec<u8>) -> Vec<u8>, floats: impl FnOnce(Vec<f32>) -> Vec<f32>) -> Pixels {
        match self {
            Pixels::Bytes(values) => Pixels::Bytes(bytes(values)),
            Pixels::Floats(values) => Pixels::Floats(floats(values)),
        }
    }
}

/// A rectangle; it may lie partly or wholly outside of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::data) struct Area {
    pub top: isize,
    pub left: isize,
    pub height: usize,
    pub width: usize,
}

impl Picture {
    /// Returns the part within an area; 0 where the picture does not reach.
    pub fn cropped(self, area: Area) -> Picture {
        let (height, width, channels) = (self.height, self.width, self.channels);
        if area == (Area { top: 0, left: 0, height, width }) {
            return self;
        }
        let pixels = self.pixels.map(
            |values| part(&values, (height, width, channels), area),
            |values| part(&values, (height, width, channels), area),
        );
        Picture { height: area.height, width: area.width, channels, pixels }
    }

    /// Returns the picture with left and right exchanged.
    pub fn mirrored(self) -> Picture {
        let (row, channels) = (self.width * self.channels, self.channels);
        let pixels =
            self.pixels.map(|values| mirrored(values, row, channels), |values| mirrored(values, row, channels));
        Picture { pixels, ..self }
    }

    /// Returns the picture with top and bottom exchanged.
    pub fn upside_down(self) -> Picture {
        let row = self.width * self.channels;
        let turned = |values: Vec<u8>| values.chunks_exact(row).rev().flatten().copied().collect();
        let turned_floats = |values: Vec<f32>| values.chunks_exact(row).rev().flatten().copied().collect();
        Picture { pixels: self.pixels.map(turned, turned_floats), ..self }
    }

    /// Returns the picture with 1 or 3 channels: grey is repeated, colours become grey by Pillow's weights, `0.299 R +
    /// 0.587 G + 0.114 B`. Other numbers of channels stay.
    pub fn with_channels(self, channels: usize) -> Picture {
        match (self.channels, channels) {
            (1, 3) => {
                let pixels = self.pixels.map(
                    |values| values.into_iter().flat_map(|value| [value; 3]).collect(),
                    |values| values.into_iter().flat_map(|value| [value; 3]).collect(),
                );
                Picture { pixels, channels, ..self }
            }
            (3, 1) => {
                let pixels = self.pixels.map(
                    |values| values.chunks_exact(3).map(grey).collect(),
                    |values| {
                        values.chunks_exact(3).map(|rgb| 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]).collect()
                    },
                );
                Picture { pixels, channels, ..self }
            }
            _ => self,
        }
    }
}

/// Returns the grey of three bytes as Pillow computes it, in 16 bits of fraction.
fn grey(rgb: &[u8]) -> u8 {
    let sum: u32 = [19595, 38470, 7471].iter().zip(rgb).map(|(weight, value)| weight * u32::from(*value)).sum();
    u8::try_from((sum + 0x8000) >> 16).unwrap_or(u8::MAX)
}

fn part<T: Copy + Default>(values: &[T], size: (usize, usize, usize), area: Area) -> Vec<T> {
    let (height, width, channels) = size;
    let mut out = vec![T::default(); area.height * area.width * channels];
    let (left, right) = (area.left.max(0).unsigned_abs(), covered(area.left, area.width, width));
    if right <= left {
        return out;
    }
    let into = (left.cast_signed() - area.left).unsigned_abs() * channels;
    for (row, line) in out.chunks_exact_mut(area.width * channels).enumerate() {
        let from = area.top + row.cast_signed();
        let Some(from) = usize::try_from(from).ok().filter(|from| *from < height) else { continue };
        let source = &values[(from * width + left) * channels..(from * width + right) * channels];
        line[into..into + source.len()].copy_from_slice(source);
    }
    out
}

/// Returns the end of what a range covers of `0..size`.
fn covered(start: isize, length: usize, size: usize) -> usize {
    usize::try_from(start.saturating_add_unsigned(length)).unwrap_or(0).min(size)
}

fn mirrored<T: Copy>(mut values: Vec<T>, row: usize, channels: usize) -> Vec<T> {
    for line in values.chunks_exact_mut(row) {
        let width = row / channels;
        for place in 0..width / 2 {
            for channel in 0..channels {
                line.swap(place * channels + channel, (width - 1 - place) * channels + channel);
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(channels: usize) -> Picture {
        let pixels = (0..6 * channels).map(|value| value as u8 + 1).collect();
        Picture { height: 2, width: 3, channels, pixels: Pixels::Bytes(pixels) }
    }

    #[test]
    fn parts_reach_over_every_edge() {
        let cases: [(Area, &[u8]); 6] = [
            (Area { top: 0, left: 1, height: 2, width: 2 }, &[2, 3, 5, 6]),
            (Area { top: -1, left: -1, height: 2, width: 2 }, &[0, 0, 0, 1]),
            (Area { top: 1, left: 2, height: 2, width: 2 }, &[6, 0, 0, 0]),
            (
                Area { top: -1, left: -1, height: 4, width: 5 },
                &[0, 0, 0, 0, 0, 0, 1, 2, 3, 0, 0, 4, 5, 6, 0, 0, 0, 0, 0, 0],
            ),
            (Area { top: 0, left: 5, height: 1, width: 2 }, &[0, 0]),
            (Area { top: -9, left: -9, height: 1, width: 2 }, &[0, 0]),
        ];
        for (area, expected) in cases {
            let found = picture(1).cropped(area);
            assert_eq!(found.pixels, Pixels::Bytes(expected.to_vec()), "{area:?}");
            assert_eq!((found.height, found.width), (area.height, area.width));
        }
        let two = picture(2).cropped(Area { top: 1, left: 1, height: 1, width: 3 });
        assert_eq!(two.pixels, Pixels::Bytes(vec![9, 10, 11, 12, 0, 0]));
    }

    #[test]
    fn pictures_are_turned_by_pixels() {
        assert_eq!(picture(2).mirrored().pixels, Pixels::Bytes(vec![5, 6, 3, 4, 1, 2, 11, 12, 9, 10, 7, 8]));
        assert_eq!(picture(1).upside_down().pixels, Pixels::Bytes(vec![4, 5, 6, 1, 2, 3]));
        let floats = Picture { height: 1, width: 2, channels: 1, pixels: Pixels::Floats(vec![0.5, 1.0]) };
        assert_eq!(floats.mirrored().pixels, Pixels::Floats(vec![1.0, 0.5]));
    }

    #[test]
    fn channels_are_added_and_taken_away() {
        let grey = picture(3).with_channels(1);
        assert_eq!(grey.pixels, Pixels::Bytes(vec![2, 5, 8, 11, 14, 17]));
        let all = grey.with_channels(3);
        assert_eq!((all.channels, &all.pixels), (3, &Pixels::Bytes([2, 5, 8, 11, 14, 17].map(|v| [v; 3]).concat())));
    }
}
