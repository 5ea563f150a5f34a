//! The gradient of rows taken from a table.
//!
//! It is the same in every run: the positions of a row are added in their order.

use super::super::gpu::Arguments;
use super::super::kernels::EMBEDDING as SOURCE;
use super::rows::Rows;
use super::{Compute, DATA, Definition, FLOAT, INT, Node, long};

pub(super) static EMBEDDING_GRAD: Definition = Definition {
    name: "EmbeddingGrad",
    inputs: &[INT, DATA],
    outputs: &[FLOAT],
    make: |node| {
        let rows = node.int("rows").and_then(|rows| usize::try_from(rows).ok());
        Ok(Box::new(EmbeddingGrad { rows: rows.ok_or("attribute \"rows\" is missing")? }))
    },
};

/// Positions of which a part is summed: `FEW` in embedding.cu.
const FEW: usize = 64;

struct EmbeddingGrad {
    rows: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct EmbeddingArguments {
    indices: u64,
    dy: u64,
    dw: u64,
    next: u64,
    offsets: u64,
    places: u64,
    sums: u64,
    count: i64,
    rows: i64,
    width: i64,
}

// SAFETY: the fields of `embedding_arguments` in embedding.cu, without padding.
unsafe impl Arguments for EmbeddingArguments {}

impl Compute for EmbeddingGrad {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let (indices, dy) = (node.input(0)?, node.input(1)?);
        let (lines, rows, count) = (Rows::of(&dy)?, self.rows, indices.count());
        if lines.rows != count || u32::try_from(count).is_err() {
            return Err(format!("{count} indices have {} lines", lines.rows));
        }
        let dw = node.output(0, &[rows, lines.width])?;
        let (gpu, element) = (node.gpu(), node.element());
        if count == 0 || dw.count() == 0 {
            return gpu.zero(dw.at, dw.count() * 4);
        }
        let parts = count.div_ceil(FEW);
        let sizes = [rows, rows + 1, count, parts * 2 * lines.width].map(|size| (size * 4).next_multiple_of(256));
        let next = gpu.scratch(sizes.iter().sum())?;
        let place = |before: usize| next + sizes[..before].iter().sum::<usize>() as u64;
        let arguments = EmbeddingArguments {
            indices: indices.at,
            dy: dy.at,
            dw: dw.at,
            next,
            offsets: place(1),
            places: place(2),
            sums: place(3),
            count: long(count),
            rows: long(rows),
            width: long(lines.width),
        };
        let many = lines.at_once(element);
        let of_lines = (lines.width / many).next_multiple_of(32).min(256);
        let by_lines = |alone, many_at_once| if many > 1 { many_at_once } else { alone };
        let start = |name, blocks, threads| gpu.blocks(&SOURCE, name, element, [blocks, 1], threads, &arguments);
        gpu.zero(next, rows * 4)?;
        gpu.each(&SOURCE, "embedding_counted", element, count, &arguments)?;
        start("embedding_offsets", 1, 1024)?;
        gpu.each(&SOURCE, "embedding_placed", element, count, &arguments)?;
        if count > FEW {
            start("embedding_ordered", parts, 256)?;
            start(by_lines("embedding_parts", "embedding_parts_many"), parts, of_lines)?;
        }
        let blocks = rows.min(gpu.processors() as usize * 64);
        start(by_lines("embedding_rows", "embedding_rows_many"), blocks, of_lines)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::tests::{Case, check, noise};
    use crate::graph::{Attributes, Tensor};

    fn checked(rows: usize, width: usize, indices: Vec<i64>) {
        let count = indices.len();
        let inputs = vec![Some(Tensor::from_vec(&[count], indices)), Some(noise(&[count, width], 1))];
        let attributes = Attributes::none().with("rows", rows as i64);
        check(&Case { op: "EmbeddingGrad", attributes, inputs, outputs: vec![vec![rows, width]] });
    }

    #[test]
    fn tables_of_all_sizes() {
        for (rows, width, count) in [(1, 1, 3), (5, 7, 40), (3000, 64, 500), (2, 3000, 9), (30522, 24, 100), (9, 5, 70)]
        {
            let index = |at: i64| at * 7919 % (2 * rows as i64 + 1) - rows as i64;
            checked(rows, width, (0..count).map(index).collect());
        }
    }

    #[test]
    fn rows_that_are_taken_often() {
        checked(2, 12, (0..1000).map(|at| at % 2).collect());
        checked(1, 5, vec![-1; 200]);
        checked(1, 8, vec![0; 64]);
        checked(1, 8, vec![0; 65]);
        checked(700, 16, (0..9000).map(|at: i64| if at % 3 == 0 { 5 } else { at * at % 699 }).collect());
        checked(4, 9, [vec![2; 10], vec![1; 65], vec![0; 130], vec![3; 66], vec![9; 3]].concat());
    }
}
