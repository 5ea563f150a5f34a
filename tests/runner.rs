//! The one integration binary: every file of `tests/` is a module of it.

mod adaptive;
mod adversarial;
mod artifacts;
mod backend;
mod budget;
mod cli;
mod companions;
mod costs;
mod dropout;
mod engines;
mod freezing;
mod fused;
mod graphs;
mod hostile;
mod layering;
mod loader;
mod models;
mod objectives;
mod parity;
mod plans;
mod proto;
mod rates;
mod recompute;
mod runs;
mod sizes;
mod stages;
