//! The `freeze-plan` program.

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// A graph of many nodes is many small allocations.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // SAFETY: no other thread has begun.
    unsafe { freeze_plan::runner::disable_telemetry() };
    freeze_plan::cli::main()
}
