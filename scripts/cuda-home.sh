#!/usr/bin/env bash
# Makes a folder with what a build with `--features cuda` needs of CUDA, on a machine without any of it:
#
#     eval "$(scripts/cuda-home.sh DIR)"
#     cargo build --release --features cuda
#
# The compiler and the headers come from PyPI (about 270 MB); no driver and no device is needed to build. On stdout are
# the variables that the build reads; a DIR that is complete is used again. CUDA_COMPUTE_CAP says for which devices
# kernels are compiled: 90 (H100, H200) and newer ones, unless it is set.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:?usage: cuda-home.sh DIR}"
home=$(cd "$1" && pwd)

if [ ! -e "$home/complete" ]; then
    wheels=$(mktemp -d)
    trap 'rm -rf "$wheels"' EXIT
    python3 -m venv "$wheels/venv"
    "$wheels/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$wheels/packages" \
        'nvidia-cuda-nvcc==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-crt==13.0.*' 'nvidia-cuda-cccl==13.0.*' \
        'nvidia-cuda-runtime==13.0.*' >&2
    cp -r "$wheels"/packages/nvidia/cu13/. "$home"
    ln -sfn lib "$home/lib64"
    # Without a shared library beside it the linker takes the static one: the program then starts without either.
    ln -sfn libcudart_static.a "$home/lib/libcudart.a"
    touch "$home/complete"
fi

printf 'export %s\n' \
    "CUDA_HOME='$home'" \
    "CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}" \
    "NVCC='$home/bin/nvcc'" \
    "PATH='$home/bin':\"\$PATH\"" \
    "LIBRARY_PATH='$home/lib'\"\${LIBRARY_PATH:+:\$LIBRARY_PATH}\"" \
    "RUSTC_WRAPPER='$here/cuda-rustc.sh'"
