#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes one C array of device code: a compiler in a driver has no include path that we could rely on.

    embed.py SYMBOL OUT.c DEPFILE ROOT FILE...

Each #include "..." is replaced by that file's text the first time and by nothing afterwards; it is looked for
beside the file that includes it, then in ROOT. #line directives keep a compiler's messages readable.
"""
import pathlib
import re
import sys

INCLUDE = re.compile(r'\s*#\s*include\s+"([^"]+)"')


def find(name, beside, root):
    for folder in (beside, root):
        path = (folder / name).resolve()
        if path.is_file():
            return path
    return None


def inline(path, root, seen, out):
    """Appends the lines of one file, and of what it includes, to `out`."""
    seen.append(path)
    shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    text = path.read_bytes()
    if not text.isascii():
        sys.exit(f"{path}: not ASCII, which is all that device compilers promise to read")
    out.append(f'#line 1 "{shown}"')
    for number, line in enumerate(text.decode("ascii").splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            out.append(line)
            continue
        included = find(match.group(1), path.parent, root)
        if included is None:
            sys.exit(f'{path}:{number}: no file "{match.group(1)}" beside it or in {root}')
        if included not in seen:
            inline(included, root, seen, out)
            out.append(f'#line {number + 1} "{shown}"')
        else:
            out.append("")


def array(symbol, source):
    """The definition of the array, in bytes: string literals have a length limit in C."""
    lines = ["/* Made by embed.py. */", "#include <stddef.h>", ""]
    lines += [f"extern const char {symbol}[];", f"extern const size_t {symbol}_size;", ""]
    lines += [f"const char {symbol}[] = {{"]
    for start in range(0, len(source), 24):
        lines.append("    " + ", ".join(str(byte) for byte in source[start:start + 24]) + ",")
    lines += ["    0,", "};", f"const size_t {symbol}_size = sizeof({symbol}) - 1;", ""]
    return "\n".join(lines)


def main():
    if len(sys.argv) < 6:
        sys.exit(__doc__)
    symbol = sys.argv[1]
    output, depfile, root = (pathlib.Path(name) for name in sys.argv[2:5])
    root = root.resolve()
    seen, lines = [], []
    for name in sys.argv[5:]:
        path = pathlib.Path(name).resolve()
        if path not in seen:
            inline(path, root, seen, lines)
    source = ("\n".join(lines) + "\n").encode("ascii")
    output.write_text(array(symbol, source), encoding="ascii")
    inputs = " ".join(str(path).replace(" ", "\\ ") for path in seen)
    depfile.write_text(f"{output}: {inputs}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
