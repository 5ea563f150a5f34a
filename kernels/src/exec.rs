//! Where a kernel runs.

use crate::pool::Pool;
use crate::simd::Level;

/// The threads and the instruction set of a call.
#[derive(Clone, Copy)]
pub struct Exec<'a> {
    /// Who runs the parts.
    pub pool: &'a dyn Pool,
    /// The instruction set.
    pub level: Level,
}

impl<'a> Exec<'a> {
    /// Returns the threads of a pool with the best instruction set.
    pub fn on(pool: &'a dyn Pool) -> Exec<'a> {
        Exec { pool, level: Level::best() }
    }
}
