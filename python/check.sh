#!/usr/bin/env bash
# Builds the wheel into an environment of its own and runs the tests. Needs Python 3.10 or newer, Rust, and a package index.
#
#   python/check.sh                             without PyTorch: what needs it is skipped, with the reason
#   python/check.sh torch onnx onnxscript       with these packages; also lightning, mosaicml, pandas
set -euo pipefail
cd "$(dirname "$0")"
python="${PYTHON:-python3}"
[ -d .venv ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet ".[test]" mypy "$@"
# Not from here, where the sources would be imported, which have no native part.
(cd tests && ../.venv/bin/pytest -rs .)
.venv/bin/python -m mypy
