//! Columns of a row that are computed together.

use crate::window::{Tap, Window};
use std::ops::Range;

/// Kernels of more columns are computed pixel by pixel.
const WIDEST: usize = 5;

/// `P` columns, `step` apart, that meet the same elements of the kernel.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Strip {
    /// The first column of the target.
    pub first: usize,
    pub step: usize,
    /// The number of columns.
    pub count: usize,
    /// The columns of the kernel, in the order of the columns of the source that they meet; they are
    /// equally far apart.
    pub ks: Vec<usize>,
    /// The first column of the source; -1 is padding.
    pub start: isize,
    /// How far the source moves from one column to the next.
    pub moves: usize,
    /// Whether the last column of the source that is met is padding.
    pub ends_in_padding: bool,
}

impl Strip {
    /// Returns the distance of one column of the kernel from the next.
    pub fn k_step(&self) -> isize {
        match self.ks[..] {
            [first, second, ..] => second as isize - first as isize,
            _ => 0,
        }
    }

    /// Returns what one of the columns meets.
    pub fn taps(&self, index: usize, source: usize) -> Vec<Tap> {
        let start = self.start + (index * self.moves) as isize;
        let met = |j: usize| usize::try_from(start + j as isize).ok().filter(|at| *at < source);
        self.ks.iter().enumerate().filter_map(|(j, k)| met(j).map(|at| (*k, at))).collect()
    }
}

/// Rows of the source that the row of the target after `row` meets and this one does not, if they are neighbours.
pub(super) fn rows_ahead(rows: &[Vec<Tap>], row: usize, source: usize) -> Range<usize> {
    let bounds = |taps: &[Tap]| Some((taps.first()?.1, taps.last()?.1 + 1));
    let (seen, next) = match rows.get(row + 1) {
        Some(next) => (bounds(&rows[row]).map_or(0, |(_, end)| end), bounds(next)),
        None => (source, rows.first().and_then(|taps| bounds(taps)).map(|(start, end)| (start + source, end + source))),
    };
    next.map_or(0..0, |(start, end)| start.max(seen)..end.max(seen))
}

/// Some columns of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Strip(Strip),
    /// A column and what it meets.
    Single(usize, Vec<Tap>),
}

/// Returns the columns of the output, which meet the input.
pub(super) fn of_output(window: &Window) -> Vec<Piece> {
    let all = Class {
        first: 0,
        step: 1,
        count: window.output()[1],
        ks: (0..window.kernel()[1]).collect(),
        start: -(window.begin()[1] as isize),
        moves: window.stride()[1],
        source: window.input()[1],
    };
    let mut pieces = Vec::new();
    all.cut(window.dilation()[1] == 1, &window.taps(1), &mut pieces);
    pieces
}

/// Returns the columns of the input, which meet the output.
pub(super) fn of_input(window: &Window) -> Vec<Piece> {
    let ([_, stride], [_, begin]) = (window.stride(), window.begin());
    let taps = window.outputs(1);
    let mut pieces = Vec::new();
    for first in 0..stride.min(taps.len()) {
        let at = first + begin;
        let ks: Vec<usize> = (0..window.kernel()[1]).rev().filter(|k| at % stride == k % stride).collect();
        let start = ks.first().map_or(0, |k| (at as isize - *k as isize) / stride as isize);
        let count = (taps.len() - first).div_ceil(stride);
        let class = Class { first, step: stride, count, ks, start, moves: 1, source: window.output()[1] };
        class.cut(window.dilation()[1] == 1, &taps, &mut pieces);
    }
    pieces
}

/// All columns that meet the same elements of the kernel.
struct Class {
    first: usize,
    step: usize,
    count: usize,
    ks: Vec<usize>,
    start: isize,
    moves: usize,
    source: usize,
}

impl Class {
    fn cut(&self, dense: bool, taps: &[Vec<Tap>], pieces: &mut Vec<Piece>) {
        let width = self.ks.len();
        let known = dense && matches!((self.moves, width), (1, 1..=3) | (1..=2, 3) | (1..=2, WIDEST));
        let mut done = 0;
        while done < self.count {
            let first = self.first + done * self.step;
            let strip = [4, 2, 1].into_iter().filter(|count| known && *count <= self.count - done).find_map(|count| {
                let start = self.start + (done * self.moves) as isize;
                let end = start + ((count - 1) * self.moves + width) as isize;
                let source = self.source as isize;
                (start >= -1 && end <= source + 1 && end > 0 && start < source).then(|| Strip {
                    first,
                    step: self.step,
                    count,
                    ks: self.ks.clone(),
                    start,
                    moves: self.moves,
                    ends_in_padding: end > source,
                })
            });
            match strip {
                Some(strip) => {
                    done += strip.count;
                    pieces.push(Piece::Strip(strip));
                }
                None => {
                    done += 1;
                    pieces.push(Piece::Single(first, taps[first].clone()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_meet_what_windows_do() {
        for kernel in 1..7 {
            for (stride, dilation, begin, input, output) in
                [(1, 1, 1, 9, 9), (2, 1, 1, 10, 5), (2, 1, 0, 9, 5), (3, 1, 2, 7, 3), (1, 2, 2, 8, 8), (1, 1, 3, 2, 6)]
            {
                let both = |size: usize| [size; 2];
                let window =
                    Window::new(both(input), both(output), both(kernel), both(stride), both(dilation), both(begin))
                        .unwrap();
                for (pieces, taps) in [(of_output(&window), window.taps(1)), (of_input(&window), window.outputs(1))] {
                    let source = if taps.len() == input && pieces == of_input(&window) { output } else { input };
                    let mut found = vec![None; taps.len()];
                    for piece in pieces {
                        match piece {
                            Piece::Single(column, taps) => assert!(found[column].replace(taps).is_none()),
                            Piece::Strip(strip) => {
                                let last = strip.start + ((strip.count - 1) * strip.moves + strip.ks.len()) as isize;
                                assert_eq!(strip.ends_in_padding, last > source as isize);
                                for index in 0..strip.count {
                                    let column = strip.first + index * strip.step;
                                    assert!(found[column].replace(strip.taps(index, source)).is_none());
                                }
                            }
                        }
                    }
                    for (found, expected) in found.into_iter().zip(&taps) {
                        let mut found: Vec<Tap> = found.unwrap();
                        let mut expected = expected.clone();
                        found.sort_unstable();
                        expected.sort_unstable();
                        assert_eq!(found, expected, "kernel {kernel}, stride {stride}, begin {begin}");
                    }
                }
            }
        }
    }
}
