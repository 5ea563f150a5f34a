#!/usr/bin/env bash
# Packs what a machine with a GPU needs and cannot fetch: the programs and ONNX Runtime for CUDA, thinned for its device.
#
#   pack.sh RUNTIME OUT [ARCHITECTURE]
#
# RUNTIME is the folder of libonnxruntime.so.* and its CUDA provider, as the package onnxruntime-gpu has it. OUT gets the
# folders 1, 2, .. of at most LIMIT MB each (default 40), to be carried one after the other, and is about 70 MB in all.
# The programs are those of the release build; the unit tests those of the build for tests, where it is there.
set -euo pipefail
cd "$(dirname "$0")/../.."
runtime=$1 out=$2 architecture=${3:-90}
target=${CARGO_TARGET_DIR:-target}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 benches/cuda/thin.py "$runtime/libonnxruntime_providers_cuda.so" "$work/libonnxruntime_providers_cuda.so" \
  --architecture "$architecture"
cp "$(ls "$runtime"/libonnxruntime.so.* | head -1)" "$runtime/libonnxruntime_providers_shared.so" "$work/"
cp "$target/release/freeze-plan" "$target/release/examples/steps" "$work/"
tests=$(cargo test --no-default-features --features cli --lib --no-run --message-format json 2>/dev/null |
  sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[ -z "$tests" ] || cp "$tests" "$work/tests"
# Tests find fixtures where they were built.
pwd >"$work/built"
strip "$work/freeze-plan" "$work/steps" ${tests:+"$work/tests"}
ls "$work"/* | xargs -P "$(nproc)" -n 1 xz "-${XZ:-6}"

rm -rf "$out"
number=1 room=$((${LIMIT:-40} * 1000000)) left=0
left=$room
mkdir -p "$out/1"
for file in $(ls -S "$work"); do
  size=$(stat -c %s "$work/$file")
  if [ "$size" -gt "$left" ] && [ "$left" -lt "$room" ]; then
    number=$((number + 1)) left=$room
    mkdir -p "$out/$number"
  fi
  mv "$work/$file" "$out/$number/"
  left=$((left - size))
done
du -sh "$out"/*
