#!/usr/bin/env bash
# The compiler for a build with `--features cuda`, as RUSTC_WRAPPER. candle has cudarc link the program to CUDA's
# libraries, and such a program does not start where they are not. cudarc can as well open them when they are first
# used; a feature says which, and this compiles it with that one.
set -euo pipefail

arguments=("$@")
if [ "${CARGO_PKG_NAME:-}" = cudarc ]; then
    arguments=("${arguments[@]//feature=\"dynamic-linking\"/feature=\"dynamic-loading\"}")
fi
exec "${arguments[@]}"
