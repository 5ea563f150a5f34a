//! Rows of the images that windows meet, with what is applied to them.

use crate::aligned::Aligned;
use crate::input::Input;
use crate::simd::Simd;
use crate::window::Tap;

/// The rows of all images, one after the other; those that were asked for last are kept where something is applied.
pub(super) struct Rows<'a> {
    input: &'a Input<'a>,
    /// Elements of a row and of a pixel.
    len: usize,
    channels: usize,
    room: Aligned,
    /// Which row stands at each place of the room.
    held: Vec<Option<usize>>,
}

impl<'a> Rows<'a> {
    /// Returns rows of `width` pixels, of which `taps` says what each window meets.
    pub(super) fn new(input: &'a Input<'a>, width: usize, channels: usize, taps: &[Vec<Tap>]) -> Rows<'a> {
        let span = |taps: &Vec<Tap>| Some(taps.last()?.1 + 1 - taps.first()?.1);
        let kept = if input.is_plain() { 0 } else { taps.iter().filter_map(span).max().unwrap_or(0) };
        let len = width * channels;
        Rows { input, len, channels, room: Aligned::zeros(kept * len), held: vec![None; kept] }
    }

    /// Returns a row, which stays until one is asked for that no window meets together with it.
    ///
    /// # Safety
    /// The instruction set is there.
    #[inline(always)]
    pub(super) unsafe fn get<S: Simd>(&mut self, row: usize) -> *const f32 {
        if self.held.is_empty() {
            return self.input.values[row * self.len..][..self.len].as_ptr();
        }
        let place = row % self.held.len();
        let to = &mut self.room[place * self.len..][..self.len];
        if self.held[place] != Some(row) {
            self.held[place] = Some(row);
            self.input.apply::<S>(to, 0, self.channels, row * self.len, self.channels);
        }
        to.as_ptr()
    }
}
