#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compiles the OpenCL C source with clang in every variant, warnings as errors.

    check_source.py CLANG EMBED.PY ROOT FILE.cl

Some drivers count their compiler's warnings on stderr, where a library must not print. Code is generated for
some of the variants, since optimisers warn too; what it computes, conformance tests. The source is what the
library embeds; that functions of it, and parameters, are not used in one variant or the other is meant so.
"""
import concurrent.futures
import importlib.util
import itertools
import os
import pathlib
import subprocess
import sys

FLAGS = ["-x", "cl", "-Xclang", "-finclude-default-header", "-Xclang", "-fdeclare-opencl-builtins", "-Wall", "-Wextra",
         "-Wno-unused-function", "-Wno-unused-parameter", "-Werror"]
PARSE = ["-fsyntax-only"]
GENERATE = ["-target", "spir64", "-O2", "-emit-llvm", "-S", "-o", os.devnull]
STANDARDS = ("CL1.2", "CL3.0")
# q, k, v and o, by number as fa_dtype has them; of what is only parsed, some.
TYPES = ("0000", "1111", "2222", "2110", "1001", "0212", ("0", "5", "11", "0"), ("1", "7", "12", "2"))
PARSED_TYPES = ("0000", "2110")
PAGED_TYPES = ("1111", ("1", "7", "12", "2"))
SCALED_TYPES = (("1", "15", "0", "1"), ("2", "5", "19", "0"))
CHUNKS = ("-DFA_CHUNKS=1", "-DFA_CHUNKS=4 -DFA_CHUNK_SHIFT=12", "-DFA_CHUNKS=12 -DFA_CHUNK_SHIFT=27")
# How loops are compiled, f16 and the width of strides go together: they do not meet in the source.
DEVICES = ("-DFA_STRIDE=int -DFA_COMPACT", "-DFA_STRIDE=long -DFA_FP16")
ATTENTION = [" ".join(parts) for parts in itertools.product(
    ("-DFA_TRANSFORM=0", "-DFA_TRANSFORM=1 -DFA_ALIGNED", "-DFA_TRANSFORM=0 -DFA_PAGES",
     "-DFA_TRANSFORM=0 -DFA_SCALES_K", "-DFA_TRANSFORM=0 -DFA_PAGES -DFA_SCALES_K -DFA_SCALES_V"),
    ("-DFA_KERNEL_ROWS -DFA_GROUP=64 -DFA_SPLIT=4 -DFA_DIM_QK=96 -DFA_DIM_V=72 -DFA_BLOCK_Q=8 -DFA_BLOCK_KV=64",
     "-DFA_KERNEL_ROWS -DFA_GROUP=128 -DFA_SPLIT=4 -DFA_DIM_QK=32 -DFA_DIM_V=8 -DFA_BLOCK_Q=1 -DFA_BLOCK_KV=256",
     "-DFA_KERNEL_TILE -DFA_LANES=8 -DFA_ROWS=8 -DFA_DIM_V=64 -DFA_DEPTH=16 -DFA_BUFFERS=2 -DFA_BLOCK_Q=64 "
     "-DFA_BLOCK_KV=64",
     "-DFA_KERNEL_TILE -DFA_LANES=64 -DFA_ROWS=8 -DFA_DIM_V=256 -DFA_DEPTH=8 -DFA_BUFFERS=1 -DFA_BLOCK_Q=8 "
     "-DFA_BLOCK_KV=256 -DFA_IN_PARTS -DFA_WHOLE_QK -DFA_WHOLE_V"))]
KERNELS = ATTENTION + ["-DFA_KERNEL_MERGE -DFA_GROUP=64"]
# With sub-groups, which OpenCL C 1.2 does not have; a driver's clang knows them without being told.
SUBGROUPS = ["-target", "spir64", "-cl-std=CL2.0", "-Xclang", "-cl-ext=+cl_khr_subgroups", "-DFA_SUBGROUPS"]
# clang 14 has no declaration of it.
SHUFFLE = "float __attribute__((overloadable)) sub_group_shuffle_xor(float, uint);\n"


def meets(types, device, kernel):
    """Code is generated for each type on every kernel, each type on every device, and each device on every kernel."""
    return ((TYPES + SCALED_TYPES).index(types) + DEVICES.index(device) + KERNELS.index(kernel)) % 2 == 0


def variants():
    for standard, types, *rest in itertools.product(STANDARDS, TYPES + SCALED_TYPES, CHUNKS, DEVICES, KERNELS):
        names = [f"-DFA_TYPE_{name}={number}" for name, number in zip("QKVO", types)]
        stage = GENERATE if (standard, rest[0]) == (STANDARDS[0], CHUNKS[0]) else PARSE
        if stage is GENERATE and not meets(types, *rest[1:]):
            stage = PARSE
        paged, scaled = "-DFA_PAGES" in rest[2], rest[2].count("-DFA_SCALES")
        if scaled or types in SCALED_TYPES:  # of the two, the first has scales of k alone
            if not scaled or types != SCALED_TYPES[scaled - 1] or standard != STANDARDS[0]:
                continue
        elif types not in (PAGED_TYPES if paged else PARSED_TYPES if stage is PARSE else TYPES):
            continue
        if rest[0] != CHUNKS[0] and (standard != STANDARDS[0] or not meets(types, *rest[1:])):
            continue  # how memory is cut does not meet the language's version, and meets each kernel, not all else beside
        yield stage + [f"-cl-std={standard}"] + names + " ".join(rest).split()
        if standard != STANDARDS[0] and rest[0] == CHUNKS[0]:
            yield PARSE + SUBGROUPS + names + " ".join(rest).split()


def embedded(script, root, path):
    spec = importlib.util.spec_from_file_location("embed", script)
    embed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(embed)
    lines = []
    embed.inline(path, root, [], lines)
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    clang = sys.argv[1]
    script, root, path = (pathlib.Path(name).resolve() for name in sys.argv[2:])
    source = embedded(script, root, path)

    def compile_one(options):
        text = SHUFFLE + source if "-DFA_SUBGROUPS" in options else source
        done = subprocess.run([clang] + FLAGS + options + ["-"], input=text, capture_output=True, text=True,
                              check=False)
        return options, done.returncode, done.stderr

    failed = 0
    total = list(variants())
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for options, code, log in pool.map(compile_one, total):
            if code != 0 or log:
                failed += 1
                print(" ".join(options), log, sep="\n")
    print(f"{len(total)} variants, {failed} with warnings or errors")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
