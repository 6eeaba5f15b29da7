# SPDX-License-Identifier: Apache-2.0
"""What must be true of the built site."""
import html.parser
import importlib.util
import pathlib
import re
import sys
import urllib.parse


def importable(name):
    return importlib.util.find_spec(name) is not None


class Page(html.parser.HTMLParser):
    """Links, anchors, what is loaded, and the words of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.anchors, self.text = set(), set(), set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs:
            self.anchors.add(attrs["id"])
        if tag == "a" and attrs.get("href"):
            self.links.add(attrs["href"])
        elif tag == "link" and attrs.get("href"):
            self.loads.add(attrs["href"])
        elif attrs.get("src"):
            self.loads.add(attrs["src"])

    def handle_data(self, data):
        self.text.append(data)


def words(text):
    return " ".join(re.findall(r"\w+", text))


def link_problems(folder, pages):
    for path, page in pages.items():
        for link in page.links | page.loads:
            url = urllib.parse.urlsplit(link)
            if url.scheme or url.netloc:
                if link in page.loads and url.scheme != "data":
                    yield f"{path.relative_to(folder)} loads {link}"
                continue
            target = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
            if not target.exists():
                yield f"{path.relative_to(folder)} links to {link}, which is not there"
            elif url.fragment and target in pages and url.fragment not in pages[target].anchors:
                yield f"{path.relative_to(folder)} links to {link}, and there is no such part of that page"


def reference_problems(root, folder, pages):
    """The ABI test reads headers in a way of its own: what it finds is described, and all comments are shown."""
    sys.path.insert(0, str(root / "tests/abi"))
    import abi

    structs, constants, prototypes = abi.read_headers(root / "include")
    names = [f"{struct}.{name}" for struct, fields in structs.items() for name in [*fields]] + list(structs)
    names += [re.search(r"(\w+)\)?\s*\(", re.sub(r"^.*\(\*", "", p) if "(*" in p and p.startswith("typedef") else p)[1]
              for p in prototypes]
    anchors = set().union(*(page.anchors for page in pages.values()))
    last = {anchor.rsplit(".", 1)[-1] for anchor in anchors}
    yield from (f"the reference lacks {name}" for name in names if f"c.{name}" not in anchors)
    yield from (f"the reference lacks {name}" for name in constants if name not in last)
    for path in sorted((root / "include/fastattn").glob("*.h")):
        shown = words(" ".join(pages[folder / "api" / f"{path.stem}.html"].text))
        for comment in re.findall(r"/\*.*?\*/", path.read_text(encoding="utf-8"), re.DOTALL):
            if "SPDX" not in comment and words(comment) not in shown:
                yield f"the page of {path.name} lacks the comment {comment[:70]!r}"


def problems(root, folder):
    pages = {path: Page(path) for path in folder.rglob("*.html")}
    elsewhere = re.compile(r"(url\(|@import)\s*[\"']?(https?:)?//")
    styles = [path for path in folder.rglob("*.css") if elsewhere.search(path.read_text(encoding="utf-8"))]
    return sorted([*link_problems(folder, pages), *reference_problems(root, folder, pages),
                   *(f"{path.relative_to(folder)} loads from elsewhere" for path in styles)])
