//! Matrices turned: `[outer, rows, columns]` to `[outer, columns, rows]`, which is how layouts of images and of weights
//! differ.

use super::gpu::{Arguments, Element, Gpu};
use super::kernels::CONV;

/// Bytes of a float32.
pub(super) const FLOAT_SIZE: usize = 4;

/// The side of the square that a block turns, and its threads.
const SIDE: usize = 32;
const BLOCK: usize = 256;

#[repr(C)]
#[derive(Clone, Copy)]
struct TurnArguments {
    from: u64,
    to: u64,
    rows: i64,
    columns: i64,
    across: i64,
    tiles: i64,
}

// SAFETY: the fields of `turn_arguments` in conv.cu, without padding.
unsafe impl Arguments for TurnArguments {}

#[repr(C)]
#[derive(Clone, Copy)]
struct WidenArguments {
    from: u64,
    to: u64,
    count: i64,
}

// SAFETY: the fields of `widen_arguments` in conv.cu, without padding.
unsafe impl Arguments for WidenArguments {}

fn long(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Writes the matrices turned.
///
/// # Errors
/// The device fails.
pub(super) fn turned(gpu: &dyn Gpu, element: Element, from: u64, to: u64, sizes: [usize; 3]) -> Result<(), String> {
    launch(gpu, "turn_plain", element, from, to, sizes)
}

/// Writes the matrices turned, as float32.
///
/// # Errors
/// The device fails.
pub(super) fn turned_wide(
    gpu: &dyn Gpu,
    element: Element,
    from: u64,
    to: u64,
    sizes: [usize; 3],
) -> Result<(), String> {
    let [outer, rows, columns] = sizes;
    if rows > 1 && columns > 1 {
        return launch(gpu, "turn_wide", element, from, to, sizes);
    }
    let count = outer * rows * columns;
    gpu.each(&CONV, "widen", element, count, &WidenArguments { from, to, count: long(count) })
}

fn launch(
    gpu: &dyn Gpu,
    kernel: &'static str,
    element: Element,
    from: u64,
    to: u64,
    [outer, rows, columns]: [usize; 3],
) -> Result<(), String> {
    let across = columns.div_ceil(SIDE);
    let tiles = outer * across * rows.div_ceil(SIDE);
    let arguments =
        TurnArguments { from, to, rows: long(rows), columns: long(columns), across: long(across), tiles: long(tiles) };
    let most = gpu.processors() as usize * 16;
    gpu.blocks(&CONV, kernel, element, [tiles.clamp(1, most), 1], BLOCK, &arguments)
}
