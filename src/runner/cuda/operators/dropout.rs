//! Dropout whose random numbers are products of one number of the row and one of the column.

use super::super::gpu::Arguments;
use super::super::kernels::DROPOUT as SOURCE;
use super::{Compute, DATA, Definition, INT, Node, long};

pub(super) static DROPOUT: Definition = Definition {
    name: "Dropout",
    inputs: &[DATA, INT, INT],
    outputs: &[DATA],
    make: |node| {
        let least = node.int("least").and_then(|least| u64::try_from(least).ok());
        let least = least.ok_or("attribute \"least\" is missing")?;
        Ok(Box::new(Dropout { least, factor: node.float("factor").unwrap_or(1.0) }))
    },
};

struct Dropout {
    least: u64,
    factor: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct DropoutArguments {
    x: u64,
    r: u64,
    c: u64,
    y: u64,
    rows: i64,
    columns: i64,
    least: u32,
    factor: f32,
}

// SAFETY: the fields of `dropout_arguments` in dropout.cu, without padding.
unsafe impl Arguments for DropoutArguments {}

impl Compute for Dropout {
    fn compute(&mut self, node: &dyn Node) -> Result<(), String> {
        let (x, r, c) = (node.input(0)?, node.input(1)?, node.input(2)?);
        let split = x.shape.len().saturating_sub(c.shape.len());
        let (front, ones) = r.shape.split_at(split.min(r.shape.len()));
        let whole = r.shape.len() <= x.shape.len() && ones.iter().all(|size| *size == 1);
        let rows: usize = front.iter().product();
        if !whole || c.shape != x.shape[split..] || rows != x.shape[..split].iter().product::<usize>() {
            return Err(format!("numbers of {:?} and {:?} do not span {:?}", r.shape, c.shape, x.shape));
        }
        let y = node.output(0, &x.shape)?;
        let (gpu, element, count, columns) = (node.gpu(), node.element(), x.count(), c.count());
        if count == 0 {
            return Ok(());
        }
        let Ok(least) = u32::try_from(self.least) else { return gpu.zero(y.at, count * element.size()) };
        let many = 16 / element.size();
        let (many, name) = if columns.is_multiple_of(many) { (many, "dropout_many") } else { (1, "dropout") };
        let parts = columns / many;
        let wide = parts.min(256);
        let high = 256 / wide;
        let across = parts.div_ceil(wide).min(65535);
        let down = rows.div_ceil(high).min((gpu.processors() as usize * 16).div_ceil(across));
        let arguments = DropoutArguments {
            x: x.at,
            r: r.at,
            c: c.at,
            y: y.at,
            rows: long(rows),
            columns: long(columns),
            least,
            factor: self.factor,
        };
        gpu.blocks(&SOURCE, name, element, [down, across], high * wide, &arguments)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::tests::{Case, check, noise};
    use crate::graph::{Attributes, Tensor};

    fn odd(shape: &[usize], salt: i64) -> Tensor {
        let count: usize = shape.iter().product();
        let number = |at: usize| ((at as i64 + salt) * 1_103_515_245 % 2_147_483_647) | 1;
        Tensor::from_vec(shape, (0..count).map(number).collect::<Vec<i64>>())
    }

    #[test]
    fn the_same_elements_are_dropped() {
        let cases: [(&[usize], &[usize], &[usize]); 8] = [
            (&[1, 1], &[1, 1], &[1]),
            (&[7, 13], &[7, 1], &[13]),
            (&[2, 30, 768], &[2, 30, 1], &[768]),
            (&[400, 8], &[400, 1], &[8]),
            (&[3, 5, 12, 9], &[3, 5, 1, 1], &[12, 9]),
            (&[2, 70, 80], &[2, 1, 1], &[70, 80]),
            (&[2, 3], &[], &[2, 3]),
            (&[6], &[1], &[6]),
        ];
        for (x, r, c) in cases {
            for (least, factor) in [(0, 1.0_f32), (429_496_729, 1.0 / 0.9), (1 << 31, 2.0), (1 << 32, 0.0)] {
                let inputs = vec![Some(noise(x, 1)), Some(odd(r, 5)), Some(odd(c, 77))];
                let attributes = Attributes::none().with("least", least).with("factor", factor);
                check(&Case { op: "Dropout", attributes, inputs, outputs: vec![x.to_vec()] });
            }
        }
    }
}
