# SPDX-License-Identifier: Apache-2.0
"""Writes the pages of the reference, in reStructuredText: one for each public header, one for the Python package."""
import ast
import importlib
import inspect
import re
import textwrap

import headers

ARGUMENT = re.compile(r"[*\w]+(?:, [*\w]+)*: ")

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


def table(lines, head):
    """Columns: the second begins where most lines have it, or behind two spaces."""
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
    made = [".. list-table::", f"   :header-rows: {int(head)}", "   :widths: 30 70", ""]
    for left, right in rows:
        made += [f"   * - {inline(left)}", f"     - {inline(right)}".rstrip()]
    return made + [""]


def prose(comment, head=True):
    """A comment. `head`: the first line of columns is above the others."""
    lines = []
    for kind, text in list(blocks(comment)):
        if kind == "code":
            text = textwrap.dedent("\n".join(text)).split("\n")
            lines += table(text, head) if len(text) > 4 else [".. code-block:: text", "", *indented(text), ""]
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


def docstring(text):
    """As a comment, but that lines "name: text", below which the text goes on indented, are a list of arguments."""
    lines = []
    for paragraph in re.split(r"\n\s*\n", text):
        rows, items = paragraph.split("\n"), []
        if not ARGUMENT.match(rows[0]) or not any(row.startswith("  ") for row in rows):
            lines += prose(paragraph, head=False)
            continue
        for row in rows:
            if ARGUMENT.match(row) or not items:
                items.append(row)
            else:
                items[-1] += " " + row.strip()
        for item in items:
            names, _, rest = item.partition(": ")
            lines += ["- " + ", ".join(f"``{name}``" for name in names.split(", ")) + ": " + inline(rest), ""]
    return lines


def python_entry(node, built, kind):
    """A function, class or field of the package's sources or stubs. Where these say nothing of it, `built` may: the
    object of that name in a package that is built."""
    if isinstance(node, ast.AnnAssign):
        return directive("py:attribute", [node.target.id], [], [f":type: {ast.unparse(node.annotation)}"])
    text = docstring(ast.get_docstring(node) or inspect.getdoc(built) or "")
    if isinstance(node, ast.ClassDef):
        for name, part in public(node):
            text += python_entry(part, getattr(built, name, None), "method")
        return directive("py:class", [node.name], text)
    if any(ast.unparse(decorator) == "property" for decorator in node.decorator_list):
        return directive("py:property", [node.name], text)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return directive(f"py:{kind}", [f"{node.name}({ast.unparse(node.args)}){returns}"], text)


def public(tree):
    """What has a name that does not begin with _; of overloads the first."""
    found = {}
    for node in tree.body:
        name = node.target.id if isinstance(node, ast.AnnAssign) else getattr(node, "name", "_")
        if not name.startswith("_"):
            found.setdefault(name, node)
    return found.items()


def importable(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def write_python(root, source):
    """Declarations are those of the sources and stubs, which need no build. What is said of functions that are written
    in C needs a package that this Python finds."""
    found, core, exported = {}, importable("fastattn._core"), set()
    for path in sorted((root / "python" / "fastattn").glob("*.py*")):
        if path.suffix not in (".py", ".pyi") or path.stem.startswith("_") and path.stem not in ("__init__", "_core"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {name for name, node in public(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        if path.stem == "__init__":
            assigned = {ast.unparse(node.targets): node.value for node in tree.body if isinstance(node, ast.Assign)}
            exported = set(ast.literal_eval(assigned["__all__"])) if "__all__" in assigned else names
        # A file whose names the package exports is no module that a user sees.
        inside = path.stem in ("__init__", "_core") or names <= exported
        entries = found.setdefault("fastattn" if inside else f"fastattn.{path.stem}", {})
        if path.stem == "__init__" or not inside:
            entries[""] = docstring(ast.get_docstring(tree) or "")
        for name, node in public(tree):
            if name in names and (name in exported or not inside):
                entries.setdefault(name, python_entry(node, getattr(core, name, None), "function"))
    page = heading("Python package")
    if not found:
        page += [".. note:: This tree has no Python package.", ""]
    elif not core:
        page += [".. note:: The package was not built beside these pages: what is written in C has no text here.", ""]
    for module, entries in found.items():
        page += [f".. py:module:: {module}", ""] + [line for name in sorted(entries) for line in entries[name]]
    (source / "api" / "python.rst").write_text("\n".join(page) + "\n", encoding="utf-8")


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
