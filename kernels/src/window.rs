//! Windows that slide over two axes.

use std::ops::Range;

/// Sizes of windows on `[height, width]`. Elements outside of the input do not count, so any number of
/// outputs is valid, `ceil_mode` included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    input: [usize; 2],
    output: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    begin: [usize; 2],
}

/// An element of a kernel and the element of the other side that it meets.
pub(crate) type Tap = (usize, usize);

impl Window {
    /// Returns the window, or nothing where a kernel, stride or dilation is 0 or a product is too large.
    ///
    /// `begin` is the padding before the first element.
    pub fn new(
        input: [usize; 2],
        output: [usize; 2],
        kernel: [usize; 2],
        stride: [usize; 2],
        dilation: [usize; 2],
        begin: [usize; 2],
    ) -> Option<Window> {
        let positive = [kernel, stride, dilation].concat().into_iter().all(|size| size > 0);
        let fits = |axis: usize| {
            let reach = output[axis].checked_mul(stride[axis])?;
            let reach = reach.checked_add(kernel[axis].checked_mul(dilation[axis])?)?;
            let reach = reach.checked_add(begin[axis])?.checked_add(input[axis])?;
            (reach <= isize::MAX as usize).then_some(())
        };
        let counts = [input, output, kernel].into_iter().all(|[a, b]| a.checked_mul(b).is_some());
        (positive && counts && fits(0).is_some() && fits(1).is_some()).then_some(Window {
            input,
            output,
            kernel,
            stride,
            dilation,
            begin,
        })
    }

    /// The sizes of the input.
    pub fn input(&self) -> [usize; 2] {
        self.input
    }

    /// The sizes of the output.
    pub fn output(&self) -> [usize; 2] {
        self.output
    }

    /// The sizes of the kernel.
    pub fn kernel(&self) -> [usize; 2] {
        self.kernel
    }

    /// The distances of windows.
    pub fn stride(&self) -> [usize; 2] {
        self.stride
    }

    /// The distances of the elements that a window takes.
    pub fn dilation(&self) -> [usize; 2] {
        self.dilation
    }

    /// The padding before the first element.
    pub fn begin(&self) -> [usize; 2] {
        self.begin
    }

    /// Returns, for each output of an axis, the elements of the input in its window.
    pub(crate) fn taps(&self, axis: usize) -> Vec<Vec<Tap>> {
        let tap = |output: usize, k: usize| {
            let at = (output * self.stride[axis] + k * self.dilation[axis]).checked_sub(self.begin[axis])?;
            (at < self.input[axis]).then_some((k, at))
        };
        (0..self.output[axis]).map(|output| (0..self.kernel[axis]).filter_map(|k| tap(output, k)).collect()).collect()
    }

    /// Returns, for each element of the input of an axis, the outputs whose windows have it, ascending.
    pub(crate) fn outputs(&self, axis: usize) -> Vec<Vec<Tap>> {
        let mut all = vec![Vec::new(); self.input[axis]];
        for (output, taps) in self.taps(axis).into_iter().enumerate() {
            for (k, at) in taps {
                all[at].push((k, output));
            }
        }
        all
    }

    /// Returns the element of the input that element `k` of the kernel meets for an output of `outputs_of`.
    pub(crate) fn met(&self, axis: usize, k: usize, output: usize) -> usize {
        output * self.stride[axis] + k * self.dilation[axis] - self.begin[axis]
    }

    /// Returns the outputs whose window has element `k` inside the input; they are contiguous.
    pub(crate) fn outputs_of(&self, axis: usize, k: usize) -> Range<usize> {
        let offset = k * self.dilation[axis];
        let first = self.begin[axis].saturating_sub(offset).div_ceil(self.stride[axis]);
        let beyond = (self.input[axis] + self.begin[axis]).saturating_sub(offset).div_ceil(self.stride[axis]);
        let end = beyond.min(self.output[axis]);
        first.min(end)..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_those_that_have_a_tap() {
        for (input, output, kernel, stride, dilation, begin) in
            [(7, 4, 3, 2, 1, 1), (5, 5, 3, 1, 2, 2), (4, 2, 2, 2, 1, 0), (3, 6, 1, 2, 1, 1), (2, 4, 5, 1, 1, 3)]
        {
            let both = |size: usize| [size; 2];
            let window =
                Window::new(both(input), both(output), both(kernel), both(stride), both(dilation), both(begin))
                    .unwrap();
            let taps = window.taps(0);
            for k in 0..kernel {
                let expected: Vec<usize> =
                    (0..output).filter(|output| taps[*output].iter().any(|tap| tap.0 == k)).collect();
                assert_eq!(window.outputs_of(0, k).collect::<Vec<_>>(), expected);
            }
            let outputs = window.outputs(0);
            for (at, outputs) in outputs.iter().enumerate() {
                let expected: Vec<Tap> = (0..output)
                    .flat_map(|output| taps[output].iter().map(move |tap| (tap.0, output, tap.1)))
                    .filter(|(_, _, met)| *met == at)
                    .map(|(k, output, _)| (k, output))
                    .collect();
                assert_eq!(*outputs, expected);
            }
        }
    }

    #[test]
    fn sizes_that_do_not_work_are_refused() {
        let ones = [1; 2];
        assert!(Window::new(ones, ones, [0, 1], ones, ones, [0; 2]).is_none());
        assert!(Window::new(ones, ones, ones, [1, 0], ones, [0; 2]).is_none());
        assert!(Window::new(ones, [usize::MAX, 1], ones, [2; 2], ones, [0; 2]).is_none());
        assert!(Window::new([usize::MAX; 2], ones, ones, ones, ones, [0; 2]).is_none());
    }
}
