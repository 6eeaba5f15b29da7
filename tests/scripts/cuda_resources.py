#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the CUDA kernels take of a GPU: registers, spills and shared memory of each line of kernels.inc.

    cuda_resources.py [--nvcc NVCC | --nvrtc LIBRARY --ptxas PTXAS] [--rows NAME,NAME] ARCH...

Without --nvrtc, nvcc compiles. For GPUs that it knows no more, --nvrtc names a library that does and --ptxas the assembler
that came with it. Nothing runs: no GPU is needed.
"""
import argparse
import ctypes
import importlib.util
import pathlib
import re
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = ROOT / "shaders/cuda/attention.cu"
ENTRY = re.compile(r"entry function '(fa_kernel_\d)'")
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
EMPTY = 8  # registers of a variant that a row has not
PRINTER = r"""
#define FA_CUDA_DEFINE_TABLE
#include <stdio.h>
#include "backends/cuda/rows.h"
int main(void)
{
    for (int i = 0; i < (int)(sizeof(fa_cuda_table) / sizeof(fa_cuda_table[0])); i++) {
        const fa_cuda_row t = fa_cuda_table[i];
        for (int v = 0; v < FA_CUDA_VARIANTS; v++)
            printf("%s %d %d %d %d\n", t.name, v, fa_cuda_rows_of(t, v) <= t.most_q || t.most_q == 0,
                   fa_cuda_group(t, v), fa_cuda_shared_bytes(t, v));
    }
}
"""


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def variants():
    """{(name, variant): (threads, bytes of shared memory)} of those that a row has."""
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "rows"
        subprocess.run(["cc", "-xc", "-I", ROOT, "-o", program, "-"], input=PRINTER, text=True, check=True)
        lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    found = {}
    for name, variant, has, threads, shared in map(str.split, lines):
        if int(has):
            found[name, int(variant)] = int(threads), int(shared)
    return found


def nvrtc_ptx(library, arch, defines):
    """PTX from the library, for an assembler of the same release."""
    lines = []
    load(ROOT / "shaders/embed.py").inline(SOURCE, ROOT, [], lines)
    nvrtc, program, size = ctypes.CDLL(library), ctypes.c_void_p(), ctypes.c_size_t()
    options = [f"--gpu-architecture=compute_{arch}", "--std=c++17", "-default-device", *defines]
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), "\n".join(lines).encode(), b"attention.cu", 0, None, None)
    if nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*map(str.encode, options))):
        sys.exit(f"{library} does not compile for {arch}")
    nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetPTX(program, text)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return text.value


def report(options, arch, row, element):
    defines = [f"-DFA_ROW={row}", f"-DFA_TYPE={element}"]
    with tempfile.TemporaryDirectory() as folder:
        if options.nvrtc:
            ptx = pathlib.Path(folder) / "attention.ptx"
            ptx.write_bytes(nvrtc_ptx(options.nvrtc, arch, defines))
            command = [options.ptxas, "-v", f"-arch=sm_{arch}", "-o", f"{folder}/cubin", ptx]
        else:
            command = [options.nvcc, "-std=c++17", f"-I{ROOT}", "-Xptxas=-v", f"-gencode=arch=compute_{arch},code=sm_{arch}",
                       *defines, "-cubin", "-o", f"{folder}/cubin", SOURCE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return done.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--nvrtc")
    parser.add_argument("--ptxas", default="ptxas")
    parser.add_argument("--rows", help="only these, separated by commas")
    parser.add_argument("arch", nargs="+", type=int)
    options = parser.parse_args()
    images, has = load(ROOT / "shaders/cuda/images.py"), variants()
    only = options.rows.split(",") if options.rows else None
    print(f"{'row':16} {'type':4} {'sm':>3} {'variant':>7} {'threads':>7} {'registers':>9} {'spilled':>7} {'shared':>7}")
    for arch in options.arch:
        for index, kind, name in images.rows(ROOT / "backends/cuda/kernels.inc"):
            unit, types = images.UNITS.get(kind, (0, [0]))
            if unit > arch or (only and name not in only):
                continue
            text = report(options, arch, index, types[0])
            for part in ENTRY.split(text)[1:][0::2]:
                variant = int(part[-1])
                if (name, variant) not in has:
                    continue
                of = text.split(f"'{part}'", 1)[1]
                threads, shared = has[name, variant]
                if int(REGISTERS.search(of).group(1)) <= EMPTY:
                    continue
                print(f"{name:16} {types[0]:4} {arch:3} {variant:7} {threads:7} {REGISTERS.search(of).group(1):>9} "
                      f"{SPILLS.search(of).group(1):>7} {shared:7}")


if __name__ == "__main__":
    main()
