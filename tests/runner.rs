//! The one integration binary: every file of `tests/` is a module of it.

mod adaptive;
mod artifacts;
mod backend;
mod budget;
mod cli;
mod companions;
mod costs;
mod dropout;
mod engines;
mod fused;
mod graphs;
mod hostile;
mod layering;
mod loader;
mod models;
mod objectives;
mod observe;
mod parity;
mod plans;
mod proto;
mod rates;
mod recompute;
mod sizes;
mod stages;
