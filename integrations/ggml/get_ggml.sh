#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# get_ggml.sh FOLDER: puts ggml into FOLDER, from PyPI's package ggml-python, builds its shared libraries in FOLDER/build/src,
# and prints what to give to -Dggml. They are for tests: nothing of ggml is optimised, so that it compiles in half a minute.
# PYTHON names a Python with pip; without it, python3. Installs nothing. Needs CMake, Ninja and a C++ compiler.
set -eu
folder=${1:?usage: get_ggml.sh FOLDER}
version=0.0.45 # has ggml 0.15.3
mkdir -p "$folder"
cd "$folder"
if [ ! -f build/complete ]; then
    "${PYTHON:-python3}" -m pip download --quiet --no-deps --no-binary ggml-python --dest . "ggml-python==$version" >&2
    tar xzf "ggml_python-$version.tar.gz" --strip-components=3 "ggml_python-$version/vendor/ggml"
    # Three files are compiled as one: C++'s headers take longer than what follows them.
    cmake -G Ninja -S . -B build -DBUILD_SHARED_LIBS=ON -DCMAKE_BUILD_TYPE=None \
        -DCMAKE_C_FLAGS="-O0 -DNDEBUG" -DCMAKE_CXX_FLAGS="-O0 -DNDEBUG" \
        -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=3 \
        -DGGML_NATIVE=OFF -DGGML_LLAMAFILE=OFF -DGGML_CPU_REPACK=OFF \
        -DGGML_BUILD_TESTS=OFF -DGGML_BUILD_EXAMPLES=OFF >build.log
    cmake --build build --target ggml >>build.log
    : >build/complete
fi
pwd
