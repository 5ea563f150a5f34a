//! Mixed precision: a graph in which what profits computes in bfloat16 or float16.
//!
//! What that is stands in [`table`].

mod table;
