#!/bin/sh
# Build the llama-cpp-python wheel once and keep it: `scripts/build_llama.sh PYTHON` prints the folder that holds it.
#
#   folder=$(scripts/build_llama.sh .venv/bin/python) && .venv/bin/pip install --find-links "$folder" llama-cpp-python
#
# The recipe takes a third of a plain build's time, and leaves out what makes results depend on how a prompt was cut
# into batches (GGML_LLAMAFILE). One wheel serves every version of Python. pip's own cache does not tell builds with
# different flags apart, so the folder is ours, outside the checkout, and named after all that goes into a build.
set -eu

VERSION=${LLAMA_CPP_PYTHON_VERSION:-0.3.36}
FLAGS="-DLLAVA_BUILD=OFF -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_LLAMAFILE=OFF"

if [ $# -ne 1 ] || ! "$1" -m pip --version >/dev/null 2>&1; then
    echo "usage: $0 PYTHON (one that has pip)" >&2
    exit 2
fi
python=$1

# "common" holds llama.cpp's command-line helpers, most of the time of a build, and nothing that the wheel needs.
recipe="$FLAGS LLAMA_BUILD_COMMON=OFF"
machine=$(uname -s)-$(uname -m)
key=$VERSION-$machine-$(printf '%s' "$recipe" | cksum | cut -d ' ' -f 1)
root=${TEALE_WHEELS:-${XDG_CACHE_HOME:-$HOME/.cache}/teale/wheels}
folder=$root/$key

if [ -d "$folder" ]; then
    echo "$folder"
    exit 0
fi

mkdir -p "$root"
work=$(mktemp -d "$root/.building.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
echo 'set(LLAMA_BUILD_COMMON OFF)' >"$work/nocommon.cmake"

echo "building llama-cpp-python $VERSION once, which takes some minutes of processor time …" >&2
# --no-cache-dir: a wheel that pip has kept from elsewhere was built with who knows which flags.
if ! CMAKE_BUILD_PARALLEL_LEVEL=$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2) \
    CMAKE_ARGS="$FLAGS -DCMAKE_PROJECT_llama.cpp_INCLUDE=$work/nocommon.cmake" \
    "$python" -m pip wheel --no-cache-dir --no-deps --no-binary llama-cpp-python --wheel-dir "$work/wheels" \
    "llama-cpp-python==$VERSION" >"$work/log" 2>&1; then
    cat "$work/log" >&2
    echo "llama-cpp-python could not be built, see above; it needs a C++ compiler (g++ or clang) and, once, the network" >&2
    exit 1
fi

# A rename is all or nothing. Where another build was faster, its wheel is as good.
[ -d "$folder" ] || mv "$work/wheels" "$folder"
echo "$folder"
