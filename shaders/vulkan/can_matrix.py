#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tells whether a GLSL compiler and a spirv-opt know cooperative matrices: exit status 0 if both do, else says which does not.

    can_matrix.py GLSLANG OPTIMISER FOLDER ROOT
"""
import pathlib
import subprocess
import sys
import tempfile

import embed


def runs(*command):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


if len(sys.argv) != 5:
    sys.exit(__doc__)
glslang, optimiser, folder, root = sys.argv[1:]
with tempfile.TemporaryDirectory() as scratch:
    binary, target = pathlib.Path(scratch) / "probe.spv", "vulkan1.3"
    if not runs(glslang, "--quiet", "--target-env", target, f"-I{folder}", f"-I{root}", "-o", binary,
                pathlib.Path(folder) / "probe.comp"):
        sys.exit(f"{glslang} knows no cooperative matrices (13 or later does)")
    if optimiser == "none":
        sys.exit("there is no spirv-opt (package spirv-tools)")
    if not runs(optimiser, f"--target-env={target}", *embed.INLINE, binary, "-o", binary):
        sys.exit(f"{optimiser} knows no cooperative matrices")
