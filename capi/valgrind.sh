#!/usr/bin/env bash
# Runs the examples in C under valgrind: no bad access, no leak. Needs valgrind, cc and Rust.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v valgrind > /dev/null || { echo "skipped: there is no valgrind"; exit 0; }
cargo test -p freeze-plan-capi --test interface -- --ignored --nocapture valgrind
