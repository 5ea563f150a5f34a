//! The `freeze-plan` program.

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// A graph of many nodes is many small allocations.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    freeze_plan::cli::main()
}
