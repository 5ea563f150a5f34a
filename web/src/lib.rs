//! The planner as a page for browsers: a model in, its plan out, nothing fetched and nothing sent.
//!
//! Bytes come in through a buffer that the page fills; questions and answers are JSON ([`Session::answer`]). On wasm32 the
//! module `exports` is what the page calls; it needs nothing from the page, so that any engine can run it.

mod failure;
mod outside;
mod policies;
mod question;
mod session;

#[cfg(target_arch = "wasm32")]
mod exports;

pub use failure::Failure;
pub use session::Session;
