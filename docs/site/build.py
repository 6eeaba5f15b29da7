#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds the documentation as one site that needs no network, and checks it. Exit status 77: something is missing.

    build.py SOURCE_ROOT OUTPUT [FOLDER]      writes OUTPUT/html; warnings are errors

A FOLDER that has the built Python package gives the text of what is written in C there.

The pages are copied to OUTPUT/source, with the paths that they have in the tree, so that links between them are those
that a reader of the repository follows. Beside them reference.py writes a page for each public header, for the Python
package and for each example.
"""
import pathlib
import re
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True  # beside the sources
import check  # noqa: E402
import reference  # noqa: E402

# The order in the sidebar. A page that is missing here is an error of Sphinx's; one that the tree lacks is left out.
CONTENTS = {
    "Use": [
        ("Overview", "README"), "docs/gallery", "docs/building", "docs/python", "python/README", "docs/integrations",
        "integrations/*/README", "examples/README", "docs/threads", "docs/sparse", "docs/recipes",
        "docs/ranks", "docs/cooperate",
    ],
    "Reference": ["api/index", "api/python", "docs/glossary", "docs/numerics", "docs/benchmarks", "CHANGELOG"],
    "Inside": [
        "docs/design", "docs/design/openmp", "docs/design/cuda", "docs/design/opencl", "docs/design/vulkan",
        "CONTRIBUTING", "docs/add-a-kernel", "docs/add-a-backend",
    ],
}
PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md", "docs/design/*.md", "docs/figures/*.svg",
         "examples/*.md", "examples/*.[ch]", "integrations/*/README.md", "python/README.md"]
LINK = re.compile(r"(?<!!)\[([^][]*)\]\(([^)#\s]+)\)")


def relink(root, page, pages, link):
    """A link to a header goes to its page. One to what the tree has and the site has not is the name alone."""
    target = (page.parent / link[2]).resolve()
    if target in pages or not target.exists():
        return link[0]
    if target.is_relative_to(root / "include"):
        return f"[{link[1]}](/api/{target.stem if target.suffix else 'index'}.rst)"
    return link[1]


def stage(root, source):
    shutil.rmtree(source, ignore_errors=True)
    pages = {page for pattern in PAGES for page in root.glob(pattern)}
    for page in pages:
        copy = source / page.relative_to(root)
        if page.suffix == ".md":
            text = page.read_text(encoding="utf-8")
            put(copy, LINK.sub(lambda link, page=page: relink(root, page, pages, link), text))
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(page, copy)
    put(source / "index.md", (root / "docs/site/index.md").read_text(encoding="utf-8") + contents(source))


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def contents(source):
    lines = []
    for caption, pages in CONTENTS.items():
        lines += ["", "```{toctree}", f":caption: {caption}", ":hidden:", ""]
        for page in pages:
            title, name = page if isinstance(page, tuple) else (None, page)
            if name.startswith("api/"):
                lines.append(name)
            for path in sorted(source.glob(f"{name}.md")):
                path = path.relative_to(source).with_suffix("")
                lines.append(f"{title} <{path}>" if title else str(path))
        lines.append("```")
    return "\n".join(lines) + "\n"


def main():
    root, output, *package = (pathlib.Path(argument).resolve() for argument in sys.argv[1:4])
    sys.path += map(str, package)
    lacks = [name for name in ("sphinx", "myst_parser", "furo") if not check.importable(name)]
    if lacks:
        print(f"{sys.executable} has no {', '.join(lacks)}: docs/building.md says what the site takes")
        return 77
    source, html = output / "source", output / "html"
    stage(root, source)
    reference.write(root, source)
    shutil.rmtree(html, ignore_errors=True)
    sphinx = [sys.executable, "-B", "-m", "sphinx", "-j", "auto", "-q", "-W", "--keep-going", "-E", "-b", "html",
              "-d", output / "doctrees", "-c", root / "docs/site", source, html]
    if subprocess.run(sphinx, check=False).returncode:
        return 1
    wrong = check.problems(root, html)
    print("\n".join(wrong or [f"{len(list(html.rglob('*.html')))} pages, {html / 'index.html'}"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
