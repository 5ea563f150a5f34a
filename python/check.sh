#!/usr/bin/env bash
# Builds the package into an environment of its own and runs the tests. Needs Python 3.10 or newer with venv, Rust, and a
# package index. Where there is no Python at all it does nothing.
#
#   python/check.sh                             without PyTorch: what needs it is skipped, with the reason
#   python/check.sh torch onnx onnxscript       with these packages; also lightning, mosaicml, transformers, pandas, polars
set -euo pipefail
cd "$(dirname "$0")"
fail() { printf 'python/check.sh: %s\n' "$*" >&2; exit 1; }

python="${PYTHON:-python3}"
if ! command -v "$python" > /dev/null; then
    [ -z "${PYTHON:-}" ] || fail "there is no $python, which PYTHON names"
    echo "python/check.sh: skipped, there is no python3"
    exit 0
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$("$python" -V 2>&1), expected 3.10 or newer (PYTHON names another)"
if ! .venv/bin/python -m pip --version > /dev/null 2>&1; then
    rm -rf .venv
    "$python" -m venv .venv || fail "$python makes no environment (on Debian and Ubuntu: apt install python3-venv)"
fi
export PATH="$PWD/.venv/bin:$PATH"
python -m pip install --quiet --disable-pip-version-check "maturin>=1.9.4,<2" "pytest>=8" mypy "$@" ||
    fail "the packages are not installed: is a package index reachable?"
# In the profile and the target folder of the other checks, which have built most of it.
python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --force-reinstall \
    --config-settings=build-args="--profile dev" . || fail "the package does not build"
# Not from here, where the sources would be imported, which have no native part.
(cd tests && python -m pytest -q -rs .)
python -m mypy
