# SPDX-License-Identifier: Apache-2.0
"""Sphinx's configuration of the site: build.py."""
import pathlib
import posixpath
import re
import sys

from docutils import nodes
from sphinx import addnodes

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import headers  # noqa: E402

project = "fastattn"
copyright = "the authors of fastattn"
extensions = ["myst_parser"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = "fastattn"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_permalinks_icon = "#"
smartquotes = False
c_maximum_signature_line_length = 90
python_maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"
highlight_language = "c"

NAME = re.compile(r"\b(?:fa_\w+|FA_[A-Z0-9_]+)\b(?:\.\w+|\(\))?|[\w./-]+\.(?:md|h|c)\b")
# Headers of other projects have these names too.
NOT_OURS = {"cuda.h", "nccl.h", "vulkan.h"}


def declared(root):
    """Page and anchor of each name that a public header declares."""
    places = {}
    for path in sorted((root / "include/fastattn").glob("*.h")):
        page = f"api/{path.stem}"
        for item in headers.read(path.read_text(encoding="utf-8")):
            outer = item.code[:1] if item.kind == "macro" else [headers.name_of(code) for code in item.code]
            places.update({name: (page, f"c.{name}") for name in outer})
            for member in item.members:
                for name in map(headers.name_of, member.code):
                    whole = f"{outer[0]}.{name}" if outer else name
                    places[name if member.kind == "enumerator" else whole] = (page, f"c.{whole}")
    return places


def place_of(app, docname, name, is_code):
    """What a word of a page refers to: page and anchor, or None."""
    if name.startswith(("fa_", "FA_")):
        return app.places.get(name) or app.places.get(re.match(r"\w+", name)[0])
    known = app.env.found_docs
    base = posixpath.dirname(docname)
    if name.endswith(".h") and "/" not in name:
        header = f"api/{name[:-2]}"
        return (header, "") if docname.startswith("api/") and name not in NOT_OURS and header in known else None
    if not is_code and not name.endswith((".md", ".c")):
        return None
    name = re.sub(r"^include/fastattn/(\w+\.h)$", r"api/\1", name)
    stem = posixpath.splitext(name)[0]
    for candidate in (posixpath.normpath(posixpath.join(base, stem)), stem, f"docs/{stem}"):
        if candidate in known and (name.endswith(".md") or candidate.startswith(("examples/", "api/"))):
            return candidate, ""
    return None


def parts(app, docname, text, is_code):
    """Text, with references where it names something."""
    at = 0
    for match in NAME.finditer(text):
        place = place_of(app, docname, match[0], is_code)
        if not place or place == (docname, ""):
            continue
        uri = app.builder.get_relative_uri(docname, place[0]) + (f"#{place[1]}" if place[1] else "")
        if match.start() > at:
            yield nodes.Text(text[at:match.start()])
        yield nodes.reference("", match[0], internal=True, refuri=uri, classes=["name"])
        at = match.end()
    if at < len(text):
        yield nodes.Text(text[at:])


def link_names(app, doctree, docname):
    """Names of functions, types, headers and pages become links, in text and in code within it."""
    apart = (nodes.reference, addnodes.desc_signature, nodes.literal_block, nodes.title, nodes.comment)
    for text in list(doctree.findall(nodes.Text)):
        parent, above = text.parent, text.parent
        while above is not None and not isinstance(above, apart):
            above = above.parent
        if above is None:
            made = list(parts(app, docname, text.astext(), isinstance(parent, nodes.literal)))
            if len(made) > 1 or not isinstance(made[0] if made else text, nodes.Text):
                parent.replace(text, made)


def setup(app):
    app.places = declared(pathlib.Path(__file__).parent.parent.parent)
    app.connect("doctree-resolved", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
