#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the Markdown pages point to is there.

    check_links.py SOURCE_ROOT

A link or an image must name a file, from the page's folder on. A path in backquotes, such as `core/plan.c`, must be a
file or a folder of the tree, from the page's folder or from the root on, or the end of a file's path.
"""
import pathlib
import re
import sys

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
PATH = re.compile(r"`([\w.-]+(?:/[\w.-]+)*/(?:[\w.-]+\.[a-z]+)?)`")
PAGES = ["*.md", "docs/**/*.md", "examples/*.md", "tests/**/*.md"]
NOT_OURS = re.compile(r"^(build|lib/)|[A-Z]{3}|\babc\b")  # what builds make, and names that stand for any other


def problems(root, page, files):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in LINK.findall(text):
        if "://" not in target and not (page.parent / target).exists():
            yield f"links to {target}, which is not there"
    for target in PATH.findall(text):
        known = (root / target).exists() or (page.parent / target).exists()
        if not known and not NOT_OURS.search(target) and not any(f"/{name}".endswith(f"/{target}") for name in files):
            yield f"names {target}, which is not there"


def main():
    root = pathlib.Path(sys.argv[1])
    folders = ["backends", "core", "cross", "docs", "examples", "include", "integrations", "shaders", "tests", "tools", ".ci", ".github"]
    files = [path.as_posix() for folder in folders for path in (root / folder).rglob("*")]
    pages = sorted(page for pattern in PAGES for page in root.glob(pattern))
    found = [f"{page.relative_to(root)} {what}" for page in pages for what in problems(root, page, files)]
    print("\n".join(found or [f"{len(pages)} pages, every link and path is there"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
