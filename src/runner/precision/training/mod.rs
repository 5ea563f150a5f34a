//! Runs in mixed precision.

mod tests;
