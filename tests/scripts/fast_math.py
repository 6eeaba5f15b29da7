#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Flags that void the numerics: core/assumptions.h refuses them, and what meson.build adds behind them undoes them.

Usage: fast_math.py SOURCE_ROOT UNDO_COMPILING UNDO_LINKING COMPILER...   (the two lists separated by spaces)
"""

import subprocess
import sys
import tempfile
from pathlib import Path

REFUSED = ["-ffast-math", "-ffinite-math-only", "-Ofast", "-fshort-enums"]
# gcc alone has macros for these, and the last one.
REFUSED_BY_GCC = [
    "-funsafe-math-optimizations", "-freciprocal-math", "-fno-signed-zeros", "-fsingle-precision-constant",
]
UNDONE = ["-ffast-math", "-Ofast", "-ffinite-math-only", "-funsafe-math-optimizations", "-fsingle-precision-constant"]
SOURCE = """#include "core/assumptions.h"
#include <fenv.h>
int add(int a, int b);
int add(int a, int b) { return a + b; }
"""


def main():
    root, undo, undo_link, *compiler = sys.argv[1:]
    undo, undo_link = undo.split(), undo_link.split()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "a.c"), Path(folder, "a.so")
        source.write_text(SOURCE, encoding="ascii")

        def compiles(*flags):
            command = [*compiler, "-std=c11", "-I", root, *flags, "-shared", "-fPIC", "-o", target, source]
            return subprocess.run(command, capture_output=True, check=False).returncode == 0

        is_gcc = b"__clang__" not in subprocess.run(
            [*compiler, "-dM", "-E", "-x", "c", "/dev/null"], capture_output=True, check=True
        ).stdout
        assert compiles(), "the flags of every day are refused"
        for flag in REFUSED + (REFUSED_BY_GCC if is_gcc else []):
            assert not compiles(flag), f"{flag} passes"
        for flag in UNDONE:
            if not is_gcc and flag == "-fsingle-precision-constant":
                continue
            last = ["-O3"] if flag == "-Ofast" else []
            assert compiles(flag, *undo, *undo_link, *last), f"{flag} is not undone"
            # What gcc would link switches denormals off in every program that loads the library.
            assert b"set_fast_math" not in target.read_bytes(), f"{flag} reaches the link"


main()
