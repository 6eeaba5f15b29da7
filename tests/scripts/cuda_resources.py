#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the CUDA kernels take of a GPU: registers, spills and shared memory of each line of kernels.inc.

    cuda_resources.py [--nvcc NVCC | --nvrtc LIBRARY --ptxas PTXAS] [--kernels NAME,NAME] ARCH...

Without --nvrtc, nvcc compiles. For GPUs that it knows no more, --nvrtc names a library that does and --ptxas the assembler
that came with it. Nothing runs: no GPU is needed.
"""
import re
import sys
import tempfile

sys.dont_write_bytecode = True
import cuda_lines  # noqa: E402  pylint: disable=wrong-import-position

ENTRY = re.compile(r"entry function '(fa_kernel_\d)'")
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
EMPTY = 8  # registers of a variant that a kernel has not


def report(has, arch, name, element, text):
    for part in ENTRY.split(text)[1:][0::2]:
        variant = has.get((name, int(part[-1])))
        of = text.split(f"entry function '{part}'", 1)[1]
        registers = int(REGISTERS.search(of).group(1))
        if variant and registers > EMPTY:
            print(f"{name:16} {element:4} {arch:3} {part[-1]:>7} {variant.threads:7} {registers:9} "
                  f"{SPILLS.search(of).group(1):>7} {variant.shared:7}")


def main():
    options = cuda_lines.parser(__doc__).parse_args()
    has = cuda_lines.variants()
    print(f"{'kernel':16} {'type':4} {'sm':>3} {'variant':>7} {'threads':>7} {'registers':>9} {'spilled':>7} {'shared':>7}")
    for arch in options.arch:
        for index, _, name, unit, element in cuda_lines.lines():
            if cuda_lines.serves(unit, arch) and (not options.kernels or name in options.kernels):
                with tempfile.TemporaryDirectory() as folder:
                    text = cuda_lines.compile_line(options, arch, unit, index, element, folder)
                    report(has, arch, name, element, text)


if __name__ == "__main__":
    main()
