//! The gradient of an activation, element by element.

use crate::activation::{Activate, Activation, with_activation};
use crate::exec::Exec;
use crate::pool::{Shared, split};
use crate::simd::{Simd, Task, dispatch_at};

/// Elements of a task.
const TASK: usize = 1 << 15;

/// Writes `dy` where the activation passes its gradient, else 0; `y` is what the activation gave.
///
/// # Panics
/// When the slices differ in length.
pub fn gate(exec: Exec<'_>, activation: Activation, dy: &[f32], y: &[f32], dx: &mut [f32]) {
    let len = dx.len();
    assert!(dy.len() == len && y.len() == len, "dy, y and dx have {len} elements");
    let dx = Shared::of(dx);
    let tasks = len.div_ceil(TASK);
    exec.pool.run(tasks, &|index| {
        let range = split(len, 64, tasks, index);
        // SAFETY: every task has its own range.
        let dx = unsafe { dx.part(range.start, range.len()) };
        let (dy, y) = (&dy[range.clone()], &y[range]);
        with_activation!(activation, activation => dispatch_at(exec.level, Gate { activation, dy, y, dx }));
    });
}

struct Gate<'a, A> {
    activation: A,
    dy: &'a [f32],
    y: &'a [f32],
    dx: &'a mut [f32],
}

impl<A: Activate> Task for Gate<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (len, lanes) = (self.dx.len(), S::LANES);
        let (dy, y, dx) = (self.dy.as_ptr(), self.y.as_ptr(), self.dx.as_mut_ptr());
        // SAFETY: the slices have `len` elements each.
        unsafe {
            let mut at = 0;
            while at + lanes <= len {
                S::store(dx.add(at), self.activation.gate::<S>(S::load(y.add(at)), S::load(dy.add(at))));
                at += lanes;
            }
            let (y, dy) = (S::load_first(y.add(at), len - at), S::load_first(dy.add(at), len - at));
            S::store_first(dx.add(at), len - at, self.activation.gate::<S>(y, dy));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Threads;
    use crate::simd::Level;

    #[test]
    fn the_gradient_passes_where_the_activation_does() {
        let len = 70_003;
        let y: Vec<f32> = (0..len).map(|index| (index % 9) as f32 - 4.0).collect();
        let dy: Vec<f32> = (0..len).map(|index| index as f32 + 1.0).collect();
        let clip = Activation::Clip { min: -2.0, max: 3.0 };
        for (activation, passes) in [
            (Activation::None, (|_| true) as fn(f32) -> bool),
            (Activation::Relu, |y| y > 0.0),
            (clip, |y| y > -2.0 && y < 3.0),
        ] {
            for level in Level::available() {
                let mut dx = vec![f32::NAN; len];
                gate(Exec { pool: &Threads(3), level: *level }, activation, &dy, &y, &mut dx);
                let expected = dy.iter().zip(&y).map(|(dy, y)| if passes(*y) { *dy } else { 0.0 });
                assert!(dx.iter().zip(expected).all(|(found, expected)| *found == expected), "{activation:?}");
            }
        }
    }
}
