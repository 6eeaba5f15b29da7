#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compiles and runs the C programs that README.md shows, so that what a newcomer copies works.

    readme_example.py README INCLUDE_FOLDER LIBRARY COMPILER...

Every ```c block with a main() is a program. It must compile without a warning and exit 0. Where the
next block is ```text, that is what it must print.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def programs(readme):
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    for (language, text), after in zip(blocks, blocks[1:] + [("", "")]):
        if language == "c" and re.search(r"\bmain\s*\(", text):
            yield text, after[1] if after[0] == "text" else None


def run(source, expected, include, library, compiler, folder):
    Path(folder, "example.c").write_text(source, encoding="utf-8")
    command = [*compiler, "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{include}",
               "example.c", "-o", "example", str(library), f"-Wl,-rpath,{library.parent}", "-lm"]
    if subprocess.run(command, cwd=folder, check=False).returncode != 0:
        return f"does not compile with: {' '.join(command)}"
    ran = subprocess.run([os.path.join(folder, "example")], cwd=folder, check=False, text=True,
                         stdout=subprocess.PIPE, timeout=60)
    print(ran.stdout, end="")
    if ran.returncode != 0:
        return f"exits with {ran.returncode}, expected 0"
    if expected is not None and ran.stdout != expected:
        return f"prints the above, where the README says:\n{expected}"
    return None


def main():
    readme, include, library, *compiler = sys.argv[1:]
    count = 0
    for source, expected in programs(Path(readme).read_text(encoding="utf-8")):
        count += 1
        with tempfile.TemporaryDirectory() as folder:
            problem = run(source, expected, Path(include).resolve(), Path(library).resolve(), compiler, folder)
        if problem:
            print(f"{readme}: example {count} {problem}")
            return 1
    if count == 0:
        print(f"{readme}: no ```c block with a main(), expected one")
        return 1
    print(f"{count} of {count} run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
