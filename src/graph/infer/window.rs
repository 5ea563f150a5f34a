//! The sliding window of convolutions and pools.

use super::{Call, Dim, Size};

/// The sizes of a sliding window along every spatial axis.
pub(super) struct Window {
    pub kernel: Vec<i64>,
    pub strides: Vec<i64>,
    pub dilations: Vec<i64>,
    pads: Vec<i64>,
    auto: String,
}

impl Window {
    /// Returns the window of a call; `None` when an attribute has another length than the kernel.
    pub fn new(call: &Call, kernel: Vec<i64>) -> Option<Window> {
        let rank = kernel.len();
        let list = |name: &str, count: usize, default: i64| -> Option<Vec<i64>> {
            let values = call.ints(name)?.unwrap_or_else(|| vec![default; count]);
            (values.len() == count).then_some(values)
        };
        let (strides, dilations) = (list("strides", rank, 1)?, list("dilations", rank, 1)?);
        let auto = call.text("auto_pad", "NOTSET")?;
        let window = Window { pads: list("pads", 2 * rank, 0)?, kernel, strides, dilations, auto };
        let sane =
            |values: &[i64], least: i64| values.iter().all(|value| (least..=i64::from(i32::MAX)).contains(value));
        let fine = sane(&window.strides, 1) && sane(&window.dilations, 1) && sane(&window.kernel, 1);
        (fine && window.pads.iter().all(|pad| pad.unsigned_abs() <= u64::from(u32::MAX))).then_some(window)
    }

    /// Returns how far a window reaches along an axis.
    pub fn span(&self, axis: usize) -> i64 {
        (self.kernel[axis] - 1) * self.dilations[axis] + 1
    }

    /// Returns the padding at both ends of an axis.
    pub fn padding(&self, axis: usize) -> i64 {
        self.pads[axis] + self.pads[self.kernel.len() + axis]
    }

    /// Returns true when the sizes of the output follow from strides alone.
    pub fn same(&self) -> bool {
        matches!(self.auto.as_str(), "SAME_UPPER" | "SAME_LOWER")
    }

    /// Returns the number of windows along every axis of the given sizes.
    pub fn counts(&self, sizes: &[Dim], ceil: bool) -> Vec<Dim> {
        let count = |(axis, size): (usize, &Dim)| Dim::from(size.size().and_then(|size| self.count(axis, &size, ceil)));
        sizes.iter().enumerate().map(count).collect()
    }

    fn count(&self, axis: usize, size: &Size, ceil: bool) -> Option<Size> {
        let stride = self.strides[axis];
        if self.same() {
            return size.plus(&Size::from(stride - 1))?.floor_by(stride);
        }
        let padding = if self.auto == "VALID" { 0 } else { self.padding(axis) };
        let room = size.plus(&Size::from(padding - self.span(axis)))?;
        let one = Size::from(1);
        if !ceil {
            if room.fixed().is_some_and(|room| room < 0) {
                return None;
            }
            return room.floor_by(stride)?.plus(&one);
        }
        let count = room.plus(&Size::from(stride - 1))?.floor_by(stride)?.plus(&one)?;
        // A window that would start in the end padding does not exist.
        let begin = if self.auto == "VALID" { 0 } else { self.pads[axis] };
        let (Some(fixed), Some(size), Some(room)) = (count.fixed(), size.fixed(), room.fixed()) else {
            return (stride == 1).then_some(count);
        };
        if room < 0 {
            return None;
        }
        let beyond = fixed.checked_sub(1)?.checked_mul(stride)? >= size.checked_add(begin)?;
        Some(Size::from(if beyond { fixed - 1 } else { fixed }))
    }
}
