//! How the threads of a block lie over the rows and channels of images.

use super::super::gpu::Element;

/// Threads of a block.
pub(super) const BLOCK: usize = 256;

/// Groups of channels side by side in a block: a group of 16 bytes each, half a kilobyte of a row.
const WIDEST: usize = 32;

/// Blocks for each multiprocessor.
const SHARE: usize = 4;

/// Threads of a block over `lanes` rows and `width` groups of channels, blocks over chunks of rows and over groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    /// Whether a group is all the channels of 16 bytes, or one channel.
    pub many: bool,
    pub width: usize,
    pub lanes: usize,
    /// Blocks along rows, then along groups.
    pub grid: [usize; 2],
}

impl Tiles {
    /// Returns the tiles of `rows` rows of channels, on a device of so many multiprocessors.
    pub fn new(rows: usize, channels: usize, element: Element, processors: u32) -> Tiles {
        let most = 16 / element.size();
        match channels % most {
            0 => Tiles { many: true, ..Tiles::of(rows, channels / most, processors) },
            _ => Tiles::of(rows, channels, processors),
        }
    }

    /// Returns tiles with a thread for each channel.
    pub fn single(rows: usize, channels: usize, processors: u32) -> Tiles {
        Tiles::of(rows, channels, processors)
    }

    fn of(rows: usize, groups: usize, processors: u32) -> Tiles {
        let groups = groups.max(1);
        let tiles = groups.div_ceil(WIDEST);
        let width = groups.div_ceil(tiles);
        let lanes = BLOCK / width;
        let blocks = (processors as usize * SHARE).div_ceil(tiles);
        Tiles { many: false, width, lanes, grid: [blocks.clamp(1, rows.div_ceil(lanes).max(1)), tiles] }
    }

    /// Returns the kernel for groups of this size.
    pub fn kernel(&self, [many, one]: [&'static str; 2]) -> &'static str {
        if self.many { many } else { one }
    }
}
