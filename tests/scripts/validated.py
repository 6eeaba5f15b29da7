#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a program under Vulkan's validation layer and fails if the layer has anything to say.

    validated.py PROGRAM ARGUMENT...

Mesa's rasteriser is told not to optimise what it compiles, which takes longer than to run it. Where the layer is not installed the program runs without it, and the last line says so. The exit status is the
program's, or 1 where it passed and the layer complained.
"""
import os
import pathlib
import subprocess
import sys

LAYER = "VK_LAYER_KHRONOS_validation"
FOLDERS = ["/usr/share/vulkan/explicit_layer.d", "/etc/vulkan/explicit_layer.d", "/usr/local/share/vulkan/explicit_layer.d"]
COMPLAINTS = ("Validation Error", "VUID-", "UNASSIGNED-", "Validation Performance Warning", "Validation Warning")


def has_layer():
    folders = [pathlib.Path(name) for name in FOLDERS + os.environ.get("VK_LAYER_PATH", "").split(":") if name]
    return any("khronos_validation" in file.name for folder in folders if folder.is_dir() for file in folder.iterdir())


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    environment = {"GALLIVM_PERF": "nopt"} | dict(os.environ)
    layered = has_layer()
    if layered:
        environment["VK_INSTANCE_LAYERS"] = LAYER
    done = subprocess.run(sys.argv[1:], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", check=False)
    complaints = [line for line in done.stdout.splitlines() if any(word in line for word in COMPLAINTS)]
    sys.stdout.write(done.stdout)
    if not layered:
        print("(without the validation layer, which is not installed)")
    if complaints:
        print(f"the validation layer said {len(complaints)} times what it should not have to, first:\n{complaints[0]}")
    sys.exit(done.returncode or (1 if complaints else 0))


if __name__ == "__main__":
    main()
