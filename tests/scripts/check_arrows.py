#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which files may use which: no two use each other, the core knows backends by their list alone, and no backend knows
another.

Usage: check_arrows.py SOURCE_ROOT STATIC_LIBRARY...

An arrow goes from one object of a library to another that defines a function or data that it uses.
"""
import collections
import os
import pathlib
import re
import subprocess
import sys


def find_arrows(library):
    """{user: {used: names}} of the objects in a library, each called FOLDER_FILE.c."""
    command = [os.environ.get("NM", "nm"), "-A", "-g", "-P", library]
    home, uses = {}, []
    for line in subprocess.run(command, text=True, capture_output=True, check=True).stdout.splitlines():
        member, name, kind = re.match(r".*\[(?:.*/)?(.*)\.o\]: (\S+) (\S)", line).groups()
        if kind in "Uw":
            uses.append((member, name))
        else:
            home[name] = member
    arrows = collections.defaultdict(lambda: collections.defaultdict(set))
    for member, name in uses:
        if home.get(name, member) != member:
            arrows[member][home[name]].add(name)
    return arrows


def find_circles(arrows):
    """The largest groups of files in which each reaches each other."""
    reached = {}
    for start in arrows:
        seen, left = set(), [start]
        while left:
            new = arrows.get(left.pop(), {}).keys() - seen
            seen |= new
            left += new
        reached[start] = seen
    return sorted({tuple(sorted(b for b in reached[a] if a in reached.get(b, ()))) for a in reached if a in reached[a]})


def backend_of(member, backends):
    match = re.match(r"backends_([a-z]+)_", member)
    return match.group(1) if match and match.group(1) in backends else None


def check_circles(arrows):
    for circle in find_circles(arrows):
        yield "these use each other: " + ", ".join(circle)


def check_layers(arrows, backends):
    listed = {f"fa_backend_{backend}" for backend in backends}
    for user, used in sorted(arrows.items()):
        for other, names in sorted(used.items()):
            owners = {backend_of(user, backends), backend_of(other, backends)} - {None}
            below = user.startswith("core_") and not other.startswith("core_") and names - listed
            if below or len(owners) > 1:
                yield f"{user} uses {', '.join(sorted(names))} of {other}"


def check_includes(root):
    for path in sorted((root / "core").rglob("*.[ch]")):
        for name in re.findall(r'^#include "(backends/.*)"', path.read_text(), re.M):
            if name != "backends/list.inc":
                yield f"{path.relative_to(root)} includes {name}"


def main():
    root, libraries = pathlib.Path(sys.argv[1]), sys.argv[2:]
    arrows = {user: used for library in libraries for user, used in find_arrows(library).items()}
    backends = re.findall(r"^FA_BACKEND\((\w+)\)", (root / "backends/list.inc").read_text(), re.M)
    if not arrows or not backends:
        sys.exit("no object uses another, or no backend is listed")
    wrong = [*check_circles(arrows), *check_layers(arrows, backends), *check_includes(root)]
    print(f"{sum(map(len, arrows.values()))} arrows between {len(arrows)} files and others")
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
