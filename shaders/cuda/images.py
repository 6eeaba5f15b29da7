#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which fatbins nvcc makes of the lines of kernels.inc, and the C file that embeds them.

    images.py list KERNELS.INC ARCHS        prints "source line type name flags" for each, flags separated by semicolons
    images.py embed OUT.c ARCHS LINE TYPE LINE TYPE ... -- FATBIN FATBIN ...

ARCHS is as the option nvcc_archs has it: "75,80,90", or "none".
"""
import pathlib
import re
import sys

LINE = re.compile(r'^([A-Z_]+)\("([\w-]+)"')
# By kind: the compute capability whose instructions it uses, and its modules' element types as fa_dtype numbers them.
# 3 is any (FA_CUDA_ANY); 5 is any, with scales in tensors of their own (FA_CUDA_SCALED). Of rows, 0 is any but formats
# of caches. What has dims for it also has 6: rows that are blocks (FA_CUDA_WHOLE_ROWS). Modules of tensor cores for formats, one for each two, are compiled when they are first used.
UNITS = {
    "HOPPER_FORMATS": (90, []), "HOPPER_LATENT": (90, [1, 2]),
    "AMPERE": (80, [1, 2]), "AMPERE_WIDE": (80, [1, 2]), "AMPERE_DECODE": (80, [1, 2]),
    "TURING": (75, [1]), "TURING_DECODE": (75, [1]), "VOLTA": (70, [1]), "FMA": (0, [0, 1, 2, 3, 5]), "ROWS": (0, [0, 3, 5]),
}


WHOLE_ROWS = {"fma576": [6], "rows576": [6]}

# Tasks, in the order of their numbers (core/portable/task.h); the type in their place is FA_CUDA_TASK.
TASKS, TASK_TYPE = ["append", "fill", "states", "pages", "append_scaled", "saliency", "shift", "relist", "mix", "pool",
                    "row_scores", "select", "key_list", "gather", "sort", "hash", "cluster"], 4


def entries(path):
    found = [match for match in map(LINE.match, pathlib.Path(path).read_text(encoding="utf-8").splitlines()) if match]
    return [(index, match.group(1), match.group(2)) for index, match in enumerate(found)]


def flags(archs, least):
    if least == 90:  # its own instructions are of 9.0 alone
        return "-gencode=arch=compute_90a,code=sm_90a"
    served = [arch for arch in archs if arch >= least]
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in served]
    return ";".join(codes + [f"-gencode=arch=compute_{arch},code=compute_{arch}" for arch in served[-1:]])


def list_images(path, archs):
    for index, kind, name in entries(path):
        least, types = UNITS.get(kind, (0, [0]))
        if least in archs if least == 90 else any(arch >= least for arch in archs):
            for element in types + WHOLE_ROWS.get(name, []):
                print("attention.cu", index, element, name, flags(archs, least))
    for index, name in enumerate(TASKS if archs else []):
        print("task.cu", index, TASK_TYPE, name, "-fmad=false;" + flags(archs, 0))


def embed(output, archs, arguments):
    split = arguments.index("--")
    numbers, paths = arguments[:split], [pathlib.Path(name).resolve() for name in arguments[split + 1:]]
    lines = ["/* Made by images.py. */", '#include "backends/cuda/cuda.h"', ""]
    for index, path in enumerate(paths):
        lines += [
            f'__asm__(".pushsection .rodata\\n.balign 64\\nfa_cuda_image_{index}:\\n"',
            f'        ".incbin \\"{path}\\"\\n.popsection\\n");',
            f"extern const char fa_cuda_image_{index}[] __attribute__((visibility(\"hidden\")));",
        ]
    lines += ["", "const fa_cuda_image fa_cuda_images[] = {"]
    for index in range(len(paths)):
        lines.append(f"    {{{numbers[2 * index]}, {numbers[2 * index + 1]}, fa_cuda_image_{index}}},")
    lines += ["    {0, 0, NULL},", "};", f"const size_t fa_cuda_image_count = {len(paths)};"]
    lines += [f"const int fa_cuda_archs[] = {{{', '.join(map(str, archs + [0]))}}};"]
    lines += [f"const int fa_cuda_ptx_arch = {archs[-1] if archs else 0};", ""]
    pathlib.Path(output).write_text("\n".join(lines), encoding="utf-8")


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    archs = [] if sys.argv[3] == "none" else sorted(int(arch) for arch in sys.argv[3].split(","))
    if sys.argv[1] == "list":
        list_images(sys.argv[2], archs)
    else:
        embed(sys.argv[2], archs, sys.argv[4:])


if __name__ == "__main__":
    main()
