#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compiles the kernels to SPIR-V and makes one C file of them.

    embed.py OUT.c DEPFILE ROOT FOLDER GLSLANG VALIDATOR OPTIMISER MATRIX

Each module is a shader with some macros. GLSLANG compiles it, OPTIMISER, a spirv-opt, inlines some, and VALIDATOR checks it;
either may be "none". MATRIX is "yes" where GLSLANG and OPTIMISER know cooperative matrices; else the modules that need them
are left out.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

ADDRESS, SUBGROUPS = ("a", "-DFA_ADDRESS"), ("s", "-DFA_SUBGROUPS")
# Base name, file, macros, and the variants that there are of it.
SCALAR = [
    ("tile", "tile.comp", [], (ADDRESS, SUBGROUPS)),
    ("rows", "rows.comp", [], (ADDRESS, SUBGROUPS)),
    ("merge", "merge.comp", [], (ADDRESS,)),
    ("append", "append.comp", [], (ADDRESS,)),
    ("append_scaled", "append.comp", ["-DFA_APPEND_SCALES"], (ADDRESS,)),
    ("fill", "fill.comp", [], (ADDRESS,)),
    ("states", "states.comp", [], (ADDRESS,)),
    ("pages", "pages.comp", [], (ADDRESS,)),
    ("saliency", "saliency.comp", [], (ADDRESS,)),
    ("shift", "shift.comp", [], (ADDRESS,)),
    ("relist", "relist.comp", [], (ADDRESS,)),
    ("mix", "mix.comp", [], (ADDRESS,)),
    ("pool", "pool.comp", [], (ADDRESS,)),
    ("row_scores", "row_scores.comp", [], (ADDRESS,)),
    ("select", "select.comp", [], (ADDRESS,)),
    ("key_list", "key_list.comp", [], (ADDRESS,)),
    ("gather", "gather.comp", [], (ADDRESS,)),
    ("sort", "sort.comp", [], (ADDRESS,)),
    ("hash", "hash.comp", [], (ADDRESS,)),
    ("cluster", "cluster.comp", [], (ADDRESS,)),
]
MATRIX = [
    ("matrix4", "matrix.comp", ["-DFA_ELEMENTS=4"], (ADDRESS,)),
    ("matrix8", "matrix.comp", ["-DFA_ELEMENTS=8"], (ADDRESS,)),
    ("matrix16", "matrix.comp", ["-DFA_ELEMENTS=16"], (ADDRESS,)),
    ("probe", "probe.comp", [], (ADDRESS,)),
]
# Calls are inlined here. NVIDIA's driver stops to inline once a module has many functions, and keeps the variables that
# they share in memory: these kernels are then several times slower.
INLINED = ("rows", "matrix4", "matrix8", "matrix16", "probe")
INLINE = ["--inline-entry-points-exhaustive", "--eliminate-dead-functions", "--private-to-local"]
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def variants(options):
    """All subsets of the variants, as a suffix and macros."""
    found = [("", [])]
    for letter, macro in options:
        found += [(suffix + letter, macros + [macro]) for suffix, macros in found]
    return found


UNKNOWN = "Invalid capability operand"  # of a validator that is older than what it validates


def run(command, tolerate=None):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0 and not (tolerate and tolerate in done.stdout):
        sys.exit(f"{' '.join(map(str, command))}:\n{done.stdout}")


def includes(path, root, seen):
    """Every file that `path` includes, itself too."""
    if path in seen:
        return
    seen.add(path)
    for name in INCLUDE.findall(path.read_text(encoding="utf-8")):
        for folder in (path.parent, root):
            if (folder / name).is_file():
                includes((folder / name).resolve(), root, seen)
                break


def array(number, words):
    lines = [f"static const uint32_t module{number}[] = {{"]
    for start in range(0, len(words), 12):
        lines.append("    " + ", ".join(f"0x{word:x}" for word in words[start:start + 12]) + ",")
    return lines + ["};"]


def main():
    if len(sys.argv) != 9:
        sys.exit(__doc__)
    output, depfile, root, folder = (pathlib.Path(name) for name in sys.argv[1:5])
    glslang, validator, optimiser, matrix = sys.argv[5:]
    root = root.resolve()
    seen, lines, table = set(), [], []
    with tempfile.TemporaryDirectory() as scratch:
        binary = pathlib.Path(scratch) / "module.spv"
        for group, target in ((SCALAR, "vulkan1.1"), (MATRIX if matrix == "yes" else [], "vulkan1.3")):
            for base, file, macros, options in group:
                source = (folder / file).resolve()
                includes(source, root, seen)
                for suffix, more in variants(options):
                    run([glslang, "--quiet", "-g0", "--target-env", target, f"-I{folder}", f"-I{root}", *macros, *more, "-o",
                         binary, source])
                    if base in INLINED and optimiser != "none":
                        run([optimiser, f"--target-env={target}", *INLINE, binary, "-o", binary])
                    if validator != "none":
                        run([validator, "--target-env", target, binary], UNKNOWN)
                    data = binary.read_bytes()
                    words = [int.from_bytes(data[at:at + 4], "little") for at in range(0, len(data), 4)]
                    lines += array(len(table), words)
                    table.append(f'    {{"{base}.{suffix}", module{len(table)}, sizeof(module{len(table)})}},')
    text = ["/* Made by embed.py. */", '#include "backends/vulkan/module.h"', "", *lines,
            "const fa_vk_module fa_vk_modules[] = {", *table, "};",
            "const size_t fa_vk_modules_count = sizeof(fa_vk_modules) / sizeof(fa_vk_modules[0]);", ""]
    output.write_text("\n".join(text), encoding="ascii")
    inputs = " ".join(str(path).replace(" ", "\\ ") for path in sorted(seen))
    depfile.write_text(f"{output}: {inputs}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
