#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the public headers promise a compiled caller, as text: sizes and offsets of structs, values of enums and macros,
prototypes of functions. Compared with the text in abi.txt, which is what callers were told last.

    abi.py ABI_TXT INCLUDE_FOLDER COMPILER...            compares; exit status 1 where they differ
    abi.py --update ABI_TXT INCLUDE_FOLDER COMPILER...   writes abi.txt, after a change that is meant

Either way, the release before (the last tag with an abi.txt) binds: nothing that it lists may change or go, structs may
only grow, and a field that is new begins behind the whole old struct, padding included.
The headers are read by a few patterns, which hold because they are written plainly. The compiler's target must run here.
"""
import difflib
import pathlib
import re
import subprocess
import sys
import tempfile


def strip_comments(text):
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.S)


def declared_names(declaration):
    """The names in "int32_t a, *b, c[4]" or "void (*f)(int)"."""
    pointer = re.findall(r"\(\s*\*+\s*(?:\(\s*\*\s*)?(\w+)", declaration)
    if pointer:
        return pointer[:1]
    return [re.search(r"(\w+)\s*(?:\[[^]]*\])*\s*$", part).group(1) for part in declaration.split(",")]


def read_headers(folder):
    """Structs with their fields, names of constants, prototypes."""
    structs, constants, prototypes = {}, [], []
    for path in sorted(pathlib.Path(folder, "fastattn").glob("*.h")):
        text = strip_comments(path.read_text())
        constants += re.findall(r"^#define (FA_[A-Z_0-9]+) +[^ \n]", text, flags=re.M)
        text = re.sub(r"^[ ]*#.*(?:\\\n.*)*$", "", text, flags=re.M)
        for body, name in re.findall(r"typedef struct \w+ \{(.*?)\} (\w+);", text, flags=re.S):
            fields = [d.strip() for d in body.split(";") if d.strip()]
            structs[name] = [field for d in fields for field in declared_names(d)]
        for body in re.findall(r"enum(?: \w+)? \{(.*?)\}", text, flags=re.S):
            constants += [part.split("=")[0].strip() for part in body.split(",") if part.strip()]
        for prototype in re.findall(r"FA_API\s+([^;]*);", text):
            prototypes.append(" ".join(prototype.split()))
        for callback in re.findall(r"typedef ([^;{]*\(\*\w+\)[^;{]*);", text):
            prototypes.append("typedef " + " ".join(callback.split()))
    if not structs or not constants or not prototypes:
        raise SystemExit(f"no declarations found under {folder}")
    return structs, [c for c in constants if c != "FA_API" and not c.startswith("FA_VERSION_")], prototypes


def measure(structs, constants, folder, compiler):
    """Has the compiler say what it makes of them."""
    lines = ["#include <stddef.h>", "#include <stdio.h>"]
    lines += [f"#include <fastattn/{p.name}>" for p in sorted(pathlib.Path(folder, "fastattn").glob("*.h"))]
    lines += ["int main(void)", "{"]
    for name in sorted(structs):
        lines.append(f'    printf("struct {name} size %zu\\n", sizeof({name}));')
        for field in structs[name]:
            lines.append(
                f'    printf("  {name}.{field} at %zu size %zu\\n", offsetof({name}, {field}), '
                f"sizeof((({name} *)0)->{field}));"
            )
    for name in sorted(set(constants)):
        lines.append(f'    printf("constant {name} %lld\\n", (long long)({name}));')
    lines += ["    return 0;", "}"]
    with tempfile.TemporaryDirectory() as work:
        source, program = pathlib.Path(work, "abi.c"), pathlib.Path(work, "abi.exe")
        source.write_text("\n".join(lines) + "\n")
        subprocess.run([*compiler, "-std=c11", f"-I{folder}", str(source), "-o", str(program)], check=True)
        return subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.splitlines()


def last_release(abi_txt):
    """abi.txt as in the last tag, or None."""
    def git(*arguments):
        result = subprocess.run(
            ["git", "-C", str(abi_txt.parent), *arguments], capture_output=True, text=True, check=False
        )
        return result.stdout if result.returncode == 0 else None

    try:
        tag = git("describe", "--tags", "--abbrev=0")
        return git("show", f"{tag.strip()}:./{abi_txt.name}") if tag else None
    except OSError:
        return None


def sizes_of(lines):
    return {m[1]: int(m[2]) for m in (re.match(r"struct (\w+) size (\d+)", line) for line in lines) if m}


def broken_promises(old, new):
    """How `new` differs from the release `old` other than by growing."""
    old_sizes, new_sizes = sizes_of(old), sizes_of(new)
    kept = set(new)
    wrong = [f"gone or changed: {line}" for line in old if not line.startswith("struct ") and line not in kept]
    wrong += [f"struct {s} shrank" for s, size in old_sizes.items() if new_sizes.get(s, 0) < size]
    for line in set(new) - set(old):
        field = re.match(r"  (\w+)\.\w+ at (\d+) ", line)
        if field and int(field[2]) < old_sizes.get(field[1], 0):
            wrong.append(f"inside what older callers have: {line.strip()}")
    return wrong


def main(arguments):
    update = arguments[:1] == ["--update"]
    arguments = arguments[update:]
    if len(arguments) < 3:
        raise SystemExit(__doc__)
    abi_txt, folder, compiler = pathlib.Path(arguments[0]), arguments[1], arguments[2:]
    structs, constants, prototypes = read_headers(folder)
    found = measure(structs, constants, folder, compiler) + [f"function {p}" for p in sorted(prototypes)]
    wrong = broken_promises((last_release(abi_txt) or "").splitlines(), found)
    if wrong:
        print("\n".join(["Callers of the last release would break:"] + wrong))
        return 1
    if update:
        abi_txt.write_text("\n".join(found) + "\n")
        return 0
    told = abi_txt.read_text().splitlines()
    if told == found:
        print(f"{len(structs)} structs, {len(prototypes)} functions, as in {abi_txt.name}")
        return 0
    print("\n".join(difflib.unified_diff(told, found, abi_txt.name, "the headers", n=0, lineterm="")))
    print(f"\nWhere that is meant: {' '.join([sys.argv[0], '--update'] + arguments)}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
