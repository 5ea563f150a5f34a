#!/usr/bin/env bash
# Builds the page and drives it in a headless Chromium (apt-get install chromium), against the native planner.
set -euo pipefail
cd "$(dirname "$0")"
./build.sh
cargo build --quiet -p freeze-plan-web --example native
target="$(cargo metadata --no-deps --format-version 1 | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')"
python3 tests/drive.py dist/freeze-plan.html "$target/debug/examples/native"
