#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tells whether a GLSL compiler knows cooperative matrices: exit status 0 if it does.

    can_matrix.py GLSLANG FOLDER ROOT
"""
import pathlib
import subprocess
import sys
import tempfile

if len(sys.argv) != 4:
    sys.exit(__doc__)
glslang, folder, root = sys.argv[1:]
with tempfile.TemporaryDirectory() as scratch:
    done = subprocess.run(
        [glslang, "--quiet", "--target-env", "vulkan1.3", f"-I{folder}", f"-I{root}", "-o",
         pathlib.Path(scratch) / "probe.spv", pathlib.Path(folder) / "probe.comp"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
sys.exit(done.returncode)
