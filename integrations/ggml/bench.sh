#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What llama-bench measures of prompts and of generation, with the backend and without it in turns: for caches in f16 and q8_0, a
# line each for pp512, tg128 and pp2048 behind each depth. The ratios are medians over turns. Leave the machine alone meanwhile.
#   bench.sh MODEL.gguf FOLDER [THREADS [TURNS [DEPTH...]]]    FOLDER has bench_ggml and libggml-fastattn.so
set -eu
usage="usage: bench.sh MODEL.gguf FOLDER [THREADS [TURNS [DEPTH...]]]"
model=${1:?$usage}
folder=${2:?$usage}
threads=${3:-2}
turns=${4:-3}
shift 2
[ $# -eq 0 ] || shift
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- 0 4096
for cache in f16 q8_0; do
    for depth in "$@"; do
        for size in "512 128" "2048 0"; do
            # The size is two arguments.
            # shellcheck disable=SC2086
            "$folder/bench_ggml" "$model" "$folder/libggml-fastattn.so" $cache "$depth" $size "$threads" "$turns"
        done
    done
done
