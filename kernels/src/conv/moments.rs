//! Sums and sums of squares of the outputs per channel, gathered while they are in a cache.

use crate::pool::Shared;
use crate::simd::Simd;

/// Shares of the outputs that are summed for themselves: a constant, so that results do not depend on the
/// number of threads.
pub(super) const SHARES: usize = 16;
/// Pixels that are summed in `f32`.
const PIXELS: usize = 256;

/// Sums over the pixels of all images: of `y - shift`, and of its square, per output channel.
///
/// With a `shift` near the mean, mean and variance follow without cancellation.
#[derive(Debug)]
pub struct Moments<'a> {
    /// What is subtracted from each channel.
    pub shift: &'a [f32],
    /// Receives the sums of `y - shift`.
    pub sums: &'a mut [f64],
    /// Receives the sums of `(y - shift)^2`.
    pub squares: &'a mut [f64],
}

impl Moments<'_> {
    /// Sets the sums over no pixels.
    pub(super) fn clear(self) {
        self.sums.fill(0.0);
        self.squares.fill(0.0);
    }
}

/// The sums of each share.
pub(super) struct Partial<'a> {
    shift: Option<&'a [f32]>,
    /// `[shares, sums and squares, channels]`
    values: Vec<f64>,
    channels: usize,
}

impl<'a> Partial<'a> {
    pub(super) fn new(moments: Option<&Moments<'a>>, shares: usize, channels: usize) -> Partial<'a> {
        let shift = moments.map(|moments| moments.shift);
        let len = if shift.is_some() { shares * 2 * channels } else { 0 };
        Partial { shift, values: vec![0.0; len], channels }
    }

    pub(super) fn shared(&mut self) -> Option<SharedMoments<'a>> {
        let values = Shared::of(&mut self.values);
        self.shift.map(|shift| SharedMoments { shift, values, channels: self.channels })
    }

    /// Adds the shares in their order.
    pub(super) fn finish(self, moments: Option<Moments<'_>>) {
        let Some(moments) = moments else { return };
        let sum = |place: usize| self.values.chunks_exact(2 * self.channels).map(|share| share[place]).sum();
        for (channel, (total, square)) in moments.sums.iter_mut().zip(moments.squares.iter_mut()).enumerate() {
            *total = sum(channel);
            *square = sum(self.channels + channel);
        }
    }
}

/// The sums of each share, for tasks that each add to their own.
#[derive(Clone, Copy)]
pub(super) struct SharedMoments<'a> {
    shift: &'a [f32],
    values: Shared<f64>,
    channels: usize,
}

impl SharedMoments<'_> {
    /// Returns what is subtracted from some channels.
    #[inline(always)]
    pub(super) unsafe fn shift<S: Simd>(&self, channel: usize, count: usize) -> S::V {
        let count = count.min(S::LANES);
        S::load_first(self.shift[channel..channel + count].as_ptr(), count)
    }

    /// Adds the sums of some channels.
    ///
    /// # Safety
    /// No other task adds to this share's sums of these channels.
    #[inline(always)]
    pub(super) unsafe fn flush<S: Simd>(&self, share: usize, channel: usize, count: usize, sums: [S::V; 2]) {
        for (part, sum) in sums.into_iter().enumerate() {
            let mut lanes = [0.0_f32; 64];
            S::store(lanes.as_mut_ptr(), sum);
            let count = count.min(S::LANES);
            let to = self.values.part((share * 2 + part) * self.channels + channel, count);
            for (to, lane) in to.iter_mut().zip(lanes) {
                *to += f64::from(lane);
            }
        }
    }

    /// Adds images of rows of pixels.
    ///
    /// # Safety
    /// As for [`flush`](Self::flush); the pixels lie in memory that this task may read.
    #[inline(always)]
    pub(super) unsafe fn add<S: Simd>(
        &self,
        share: usize,
        channel: usize,
        channels: usize,
        from: *const f32,
        pixels: [usize; 3],
        steps: [usize; 3],
    ) {
        for start in (0..channels).step_by(S::LANES) {
            let count = (channels - start).min(S::LANES);
            let shift = self.shift::<S>(channel + start, count);
            let zero = [S::splat(0.0); 2];
            let (mut even, mut odd, mut done) = (zero, zero, 0);
            let add = |sums: &mut [S::V; 2], at: *const f32| {
                let value = if count == S::LANES { S::load(at) } else { S::load_first(at, count) };
                let value = S::sub(value, shift);
                *sums = [S::add(sums[0], value), S::fma(value, value, sums[1])];
            };
            for row in 0..pixels[0] * pixels[1] {
                let row = from.add(start + row / pixels[1] * steps[0] + row % pixels[1] * steps[1]);
                let mut column = 0;
                while column < pixels[2] {
                    add(&mut even, row.add(column * steps[2]));
                    if column + 1 < pixels[2] {
                        add(&mut odd, row.add((column + 1) * steps[2]));
                    }
                    column += 2;
                }
                done += pixels[2];
                if done >= PIXELS {
                    self.flush::<S>(share, channel + start, count, [0, 1].map(|part| S::add(even[part], odd[part])));
                    (even, odd, done) = (zero, zero, 0);
                }
            }
            self.flush::<S>(share, channel + start, count, [0, 1].map(|part| S::add(even[part], odd[part])));
        }
    }
}
