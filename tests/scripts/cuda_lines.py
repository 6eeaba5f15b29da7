# SPDX-License-Identifier: Apache-2.0
"""The lines of kernels.inc and their compilation, for the scripts that look at what a compiler makes of them."""
import argparse
import ctypes
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
import typing

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = ROOT / "shaders/cuda/attention.cu"
PRINTER = r"""
#define FA_CUDA_DEFINE_TABLE
#include <stdio.h>
#include "backends/cuda/traits.h"
int main(void)
{
    for (int i = 0; i < (int)(sizeof(fa_cuda_table) / sizeof(fa_cuda_table[0])); i++) {
        const fa_cuda_traits t = fa_cuda_table[i];
        for (int v = 0; v < FA_CUDA_VARIANTS; v++)
            if (fa_cuda_rows_of(t, v) <= t.most_q || t.most_q == 0)
                printf("%s %d %d %d %d %d %d %d %d\n", t.name, v, fa_cuda_group(t, v), fa_cuda_shared_bytes(t, 1, v),
                       fa_cuda_rows_of(t, v), t.block_kv,
                       t.kind == FA_CUDA_TENSOR ? t.tensor.tile_kv : t.fma.depth, t.dim_qk + t.dim_v, t.tensor.split);
    }
}
"""


class Variant(typing.NamedTuple):
    threads: int
    shared: int  # bytes
    rows: int    # of a block
    block_kv: int
    depth: int
    dims: int    # of q and v together
    split: int


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


IMAGES = load(ROOT / "shaders/cuda/images.py")


def variants():
    """{(name, number): Variant} of those that a kernel has."""
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "lines"
        subprocess.run(["cc", "-xc", "-I", ROOT, "-o", program, "-"], input=PRINTER, text=True, check=True)
        lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    fields = [line.split() for line in lines]
    return {(name, int(number)): Variant(*map(int, rest)) for name, number, *rest in fields}


FORMATS = 1 | 7 << 4 | 7 << 8  # fa_cuda_coded_type() of f16 and q8_0, where a kernel serves formats alone


def lines():
    """Each line's index, kind, name, unit and first element type."""
    for index, kind, name in IMAGES.entries(ROOT / "backends/cuda/kernels.inc"):
        unit, types = IMAGES.UNITS.get(kind, (0, [0]))
        yield index, kind, name, unit, (types or [FORMATS])[0]


def serves(unit, arch):
    """Whether kernels of such a unit run on the architecture: 9.0's own instructions are of 9.0 alone."""
    return arch == 90 if unit == 90 else arch >= unit


def parser(description):
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--nvcc", default="nvcc")
    made.add_argument("--nvrtc")
    made.add_argument("--ptxas", default="ptxas")
    made.add_argument("--kernels", type=lambda names: names.split(","), help="only these, separated by commas")
    made.add_argument("arch", nargs="+", type=int)
    return made


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


def compile_line(options, arch, unit, line, element, folder):
    """Makes the file "cubin" of a line's variants for elements of a type. Returns what the assembler says of them."""
    if unit == 90:
        arch = f"{arch}a"
    defines, cubin = [f"-DFA_ROW={line}", f"-DFA_TYPE={element}"], pathlib.Path(folder) / "cubin"
    if options.nvrtc:
        ptx = pathlib.Path(folder) / "attention.ptx"
        ptx.write_bytes(nvrtc_ptx(options.nvrtc, arch, defines))
        command = [options.ptxas, "-v", f"-arch=sm_{arch}", "-o", cubin, ptx]
    else:
        command = [options.nvcc, "-std=c++17", f"-I{ROOT}", "-Xptxas=-v", f"-gencode=arch=compute_{arch},code=sm_{arch}",
                   *defines, "-cubin", "-o", cubin, SOURCE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return done.stderr
