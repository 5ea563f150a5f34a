#!/usr/bin/env bash
# Makes dist/freeze-plan.html, the page in one file. Needs Rust with the target wasm32-unknown-unknown and Python 3;
# wasm-opt (binaryen) makes it smaller where it is installed.
set -euo pipefail
cd "$(dirname "$0")"
cargo build -p freeze-plan-web --profile web --target wasm32-unknown-unknown
target="$(cargo metadata --no-deps --format-version 1 | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')"
wasm="$target/wasm32-unknown-unknown/web/freeze_plan_web.wasm"
mkdir -p dist
if command -v wasm-opt > /dev/null; then
    wasm-opt -Os --all-features "$wasm" -o dist/planner.wasm
    wasm=dist/planner.wasm
fi
python3 assemble.py "$wasm" dist/freeze-plan.html
rm -f dist/planner.wasm
