# SPDX-License-Identifier: Apache-2.0
"""Writes the pages of the reference, in reStructuredText: one for each public header, one for the Python package."""
import ast
import importlib.util
import inspect
import re
import textwrap

import headers

PYTHON_LACKS = ".. note:: This tree has no Python package."

def inline(text):
    """Plain text, as reStructuredText that means the same. What is in backquotes is code."""
    parts = re.split(r"`([^`]+)`", " ".join(text.split()))
    parts[0::2] = [re.sub(r"([\\*_|`])", r"\\\1", part) for part in parts[0::2]]
    parts[1::2] = [f"\\ ``{part}``\\ " for part in parts[1::2]]
    return re.sub(r"^([-+:.])", r"\\\1", "".join(parts).removeprefix("\\ "))


def blocks(comment):
    """What a comment consists of: pairs of "text", "item" or "code", and lines. A hyphen begins an item, code is
    indented."""
    kind, hang = None, 0
    for line in comment.split("\n"):
        text, indent = line.strip(), len(line) - len(line.lstrip())
        if not text:
            kind = None
        elif text.startswith("- "):
            kind, hang, found = "item", indent + 2, [text[2:]]
            yield kind, found
        elif kind == "item" and indent >= hang:
            found.append(text)
        elif kind == ("code" if indent >= 2 else "text"):
            found.append(line)
        else:
            kind, found = "code" if indent >= 2 else "text", [line]
            yield kind, found


def table(lines):
    """Columns: the second begins where most lines have it, or behind two spaces. The first line is a head."""
    starts = [match.end() for match in (re.match(r"\S+(?: \S+)* {2,}", line) for line in lines) if match]
    column, rows = max(starts, key=starts.count), []
    for line in lines:
        left, right = line[:column], line[column:]
        if not rows or not left.endswith(" "):
            left, _, right = line.partition("  ")
        if left.strip():
            rows.append([left, right])
        else:
            rows[-1][1] += " " + right
    made = [".. list-table::", "   :header-rows: 1", "   :widths: 30 70", ""]
    for left, right in rows:
        made += [f"   * - {inline(left)}", f"     - {inline(right)}".rstrip()]
    return made + [""]


def prose(comment):
    lines = []
    for kind, text in list(blocks(comment)):
        if kind == "code":
            text = textwrap.dedent("\n".join(text)).split("\n")
            lines += table(text) if len(text) > 4 else [".. code-block:: text", "", *indented(text), ""]
        else:
            lines += [("- " if kind == "item" else "") + inline(" ".join(text)), ""]
    return lines


def indented(lines, by=3):
    return [" " * by + line if line else "" for line in lines]


def directive(kind, signatures, body, options=()):
    """One description of several declarations."""
    head = f".. {kind}:: "
    more = [" " * len(head) + signature for signature in signatures[1:]]
    return [head + signatures[0], *more, *indented(options), "", *indented(body), ""]


def describe(item):
    text = [line for comment in item.before for line in prose(comment)]
    if item.behind:
        text += prose(" ".join(item.behind))
    if item.kind == "prose":
        return text
    if item.kind == "macro":
        name, value = item.code
        return directive("c:macro", [name], [f"``{value}``", ""] + text)
    for member in item.members:
        text += describe(member)
    if not item.code:  # an enum without a name
        return text
    return directive(f"c:{item.kind}", item.code, text)


def heading(text):
    return [text, "=" * len(text), ""]


def write_headers(root, source):
    rows = []
    for path in sorted((root / "include/fastattn").glob("*.h")):
        items = headers.read(path.read_text(encoding="utf-8"))
        lead = items[0].before[0]
        page = heading(path.name) + [f"``#include <fastattn/{path.name}>``", ""]
        for item in items:
            page += describe(item)
        (source / "api" / f"{path.stem}.rst").write_text("\n".join(page), encoding="utf-8")
        sentence = re.match(r".*?[.](?=\s|$)", " ".join(lead.split()))[0]
        rows += [f"   * - :doc:`{path.name} <{path.stem}>`", f"     - {inline(sentence)}"]
    names = [f"   {path.name} <{path.stem}>" for path in sorted((root / "include/fastattn").glob("*.h"))]
    index = heading("C headers") + [
        "What each header declares, with the comments that stand in it. :doc:`common.h <common>` says what holds for",
        "all functions and structs; :doc:`attention.h <attention>` has the description of a problem, and what other",
        "libraries call its parts.", "", ".. list-table::", "   :widths: 18 82", ""] + rows + [
        "", ".. toctree::", "   :hidden:", "", *names, ""]
    (source / "api" / "index.rst").write_text("\n".join(index), encoding="utf-8")


def python_entry(node, built, inside):
    """What a function, class or field of the package's sources or stubs is, and what is said of it there or in `built`,
    the object of that name."""
    text = inspect.getdoc(built) or ""
    if isinstance(node, ast.AnnAssign):
        return directive("py:attribute", [node.target.id], [], [f":type: {ast.unparse(node.annotation)}"])
    text = prose(ast.get_docstring(node) or text)
    if isinstance(node, ast.ClassDef):
        for name, part in public(node):
            text += python_entry(part, getattr(built, name, None), "method")
        return directive("py:class", [node.name], text)
    if any(ast.unparse(decorator) == "property" for decorator in node.decorator_list):
        return directive("py:property", [node.name], text)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return directive(f"py:{inside}", [f"{node.name}({ast.unparse(node.args)}){returns}"], text)


def public(tree):
    for node in tree.body:
        name = node.target.id if isinstance(node, ast.AnnAssign) else getattr(node, "name", "_")
        if not name.startswith("_"):
            yield name, node


def write_python(root, source):
    """From the sources and stubs, which are there without a build. Where the package is built and found by this Python,
    docstrings that the stubs lack are those of the package."""
    found = {}
    for path in sorted((root / "python" / "fastattn").glob("*.py*")):
        module = "fastattn" if path.stem in ("__init__", "_core") else f"fastattn.{path.stem}"
        if "._" not in module and path.suffix in (".py", ".pyi"):
            built = importlib.import_module(module) if importlib.util.find_spec("fastattn") else None
            tree = ast.parse(path.read_text(encoding="utf-8"))
            entries = found.setdefault(module, {})
            for name, node in public(tree):
                # A stub is of the file beside it, which may say more.
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and (path.suffix == ".pyi" or name not in entries):
                    entries[name] = python_entry(node, getattr(built, name, None), "function")
            text = ast.get_docstring(tree)
            if text and path.stem != "_core":
                entries[""] = prose(text)
    page = heading("Python package")
    for module, entries in found.items():
        page += [f".. py:module:: {module}", ""] + [line for name in sorted(entries) for line in entries[name]]
    text = "\n".join(page if found else [*page, PYTHON_LACKS])
    (source / "api" / "python.rst").write_text(text + "\n", encoding="utf-8")


def write_examples(root, source):
    """A page for each program; the page about them lists them."""
    paths = sorted((root / "examples").glob("*.[ch]"))
    for path in paths:
        page = heading(path.name) + [f".. literalinclude:: {path.name}", "   :language: c", ""]
        (source / "examples" / f"{path.stem}.rst").write_text("\n".join(page), encoding="utf-8")
    with open(source / "examples" / "README.md", "a", encoding="utf-8") as page:
        page.write("\n".join(["", "```{toctree}", ":hidden:", "", *(path.stem for path in paths), "```", ""]))


def write(root, source):
    (source / "api").mkdir(parents=True, exist_ok=True)
    write_headers(root, source)
    write_python(root, source)
    write_examples(root, source)
