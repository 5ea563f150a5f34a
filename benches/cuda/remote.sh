#!/usr/bin/env bash
# Runs the suite on a machine with a GPU and nothing of ours but this tree and what pack.sh packed.
#
#   remote.sh keep FOLDER          unpacks a folder of pack.sh; once for each
#   remote.sh run OUT [SECONDS]    runs everything within so many seconds (default 540); results go to OUT
#
# PyTorch, numpy, onnx and NVIDIA's libraries are those of its `python3`. STAGES says what is run, by default
# "doctor suite peers speed"; CHECKS and ROWS take patterns of the suite's checks and of the rows beside PyTorch;
# COMPILE=1 times torch.compile too. What is run again replaces what OUT has of it; the tables come last.
set -uo pipefail
cd "$(dirname "$0")/../.."
here=${KEPT:-/tmp/freeze-plan-cuda}
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
mkdir -p "$here"

if [ "$1" = keep ]; then
  for file in "$2"/*.xz; do
    (xz -dc "$file" >"$here/$(basename "${file%.xz}")") &
  done
  wait
  chmod +x "$here"/*
  ls -la "$here"
  exit
fi

out=$2 seconds=${3:-540}
until=$((SECONDS + seconds))
left() { echo $((until - SECONDS)); }
mkdir -p "$out"
libraries=$(python3 - <<'PYTHON'
import glob, os, sys
folders = [folder for path in sys.path for folder in glob.glob(os.path.join(path, "nvidia", "*", "lib"))]
print(":".join(dict.fromkeys(folders)))
PYTHON
)
export LD_LIBRARY_PATH=$here:$libraries:${LD_LIBRARY_PATH:-}
runtime=$(ls "$here"/libonnxruntime.so.* | head -1)
# Tests find fixtures where they were built.
if [ -s "$here/built" ] && [ ! -e "$(cat "$here/built")" ]; then
  mkdir -p "$(dirname "$(cat "$here/built")")"
  ln -sfn "$PWD" "$(cat "$here/built")"
fi
tests=(); [ -x "$here/tests" ] && tests=(--tests "$here/tests")
stages=${STAGES:-doctor suite peers speed}
suite=(python3 benches/cuda/run.py --program "$here/freeze-plan" --runtime "$runtime" --json "$out/suite.json")
peers=(python3 benches/peers/run.py --device "${DEVICE:-cuda}" --python "$(command -v python3)" --driver "$here/steps"
  --runtime "$runtime" --json "$out/peers.json" --threads 8 --rounds 5 --steps 5 --limit 150 ${TINY:+--tiny})
[ -n "${ROWS:-}" ] && peers+=(--rows $ROWS)
has() { [[ " $stages " == *" $1 "* ]]; }
set -f

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
# Models are made on the processor while the suite runs.
has peers && { "${peers[@]}" --make >"$out/make.log" 2>&1 & }
has doctor && timeout 60 "$here/freeze-plan" doctor --runtime "$runtime" 2>&1 | tee "$out/doctor.txt"
if has suite; then
  share=$(left); has peers && share=$((share * 45 / 100))
  "${suite[@]}" ${tests[@]+"${tests[@]}"} --checks ${CHECKS:-operators/* parity/* resume/* cache/*} --jobs "${JOBS:-8}" \
    --limit 90 --budget "$share" --device "${DEVICE:-cuda}" >"$out/suite.log" 2> >(tee "$out/suite.err" >&2)
fi
wait
has peers && "${peers[@]}" --budget "$(($(left) - 60))" ${COMPILE:+--compile} >"$out/peers.log" 2> >(tee "$out/peers.err" >&2)
if has speed && [ "$(left)" -gt 40 ]; then
  "${suite[@]}" --driver "$here/steps" --checks ${SPEEDS:-speed/*} --limit 90 --budget "$(($(left) - 10))" --least 30 \
    --device "${DEVICE:-cuda}" ${TINY:+--tiny} >"$out/speed.log" 2> >(tee "$out/speed.err" >&2)
fi
[ -s "$out/suite.json" ] && "${suite[@]}" --table
[ -s "$out/peers.json" ] && "${peers[@]}" --table
exit 0
