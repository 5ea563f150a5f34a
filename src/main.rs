//! The `freeze-plan` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    freeze_plan::cli::main()
}
