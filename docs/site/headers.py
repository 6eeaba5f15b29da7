# SPDX-License-Identifier: Apache-2.0
"""Reads the public headers: declarations, and the comments that document them.

A few patterns do, because the headers are written plainly; what they do not know is an error. Where a comment belongs:

 - Before a declaration, without a blank line between, it is that declaration's, and that of those
   which follow at once without a comment of their own.
 - Behind a declaration it is that one's, as are the comments below it in the same column.
 - Any other comment is a paragraph of its own, as is one before a declaration that has a comment behind it.
"""
import re
from dataclasses import dataclass, field

COMMON = r"(?P<comment>/\*.*?\*/)|(?P<blank>\n[ \t]*(?=\n))|(?P<space>\s+)|"
HEADER = re.compile(
    COMMON + r"(?P<directive>^#(?:\\\n|[^\n/]|/(?!\*))*)"
    r'|(?P<language>extern "C" \{|\})'
    r"|(?P<body>(?:typedef )?(?P<what>struct|enum)(?: (?P<tag>\w+))? \{(?P<inside>.*?)\}(?: \w+)?;)"
    r"|(?P<code>[^;/]+;)",
    re.DOTALL | re.MULTILINE,
)
BODIES = {
    "struct": re.compile(COMMON + r"(?P<code>[^;/]+;)", re.DOTALL),
    "enum": re.compile(COMMON + r"(?P<code>\w+[^,/]*,?)", re.DOTALL),
}


@dataclass
class Item:
    kind: str  # macro, struct, enum, type, function, member, enumerator; prose: a comment of its own
    code: list = field(default_factory=list)  # the declarations that share its comments
    before: list = field(default_factory=list)  # comments, without what marks them
    behind: list = field(default_factory=list)
    members: list = field(default_factory=list)
    apart: bool = False  # a blank line comes before


def plain(comment):
    """A comment's text, each line with the indentation that it has behind the mark."""
    first, *rest = re.sub(r"^/\*\*?|\*/$", "", comment).split("\n")
    return "\n".join([first.strip()] + [re.sub(r"^[ \t]*\* ?", "", line).rstrip() for line in rest]).strip("\n")


def squeeze(code):
    return " ".join(code.split()).rstrip(";,")


def take(tokens, text, make):
    """The items of a text. make(match) is that of a declaration; None: it is none of the interface's."""
    items, pending, column, apart, at = [], [], None, False, 0
    while at < len(text):
        match = tokens.match(text, at)
        if not match:
            raise SystemExit(f"headers.py: cannot read {text[at:at + 60]!r}")
        begin = text.rfind("\n", 0, at) + 1
        if match["comment"]:
            alone = not text[begin:at].strip()
            if items and not pending and (not alone or column == at - begin):
                items[-1].behind.append(plain(match["comment"]))
                column = at - begin
            else:
                pending.append(plain(match["comment"]))
        elif not match["space"]:
            item = None if match["blank"] else make(match)
            if item:
                item.before, item.apart = pending, apart
                items.append(item)
            else:
                items += [Item("prose", before=[comment]) for comment in pending]
            pending, column, apart = [], None, not item
        at = match.end()
    return items + [Item("prose", before=[comment]) for comment in pending]


def declarators(code):
    """"fa_tensor q, *k" as declarations of one name each. A function's pointer is one."""
    first, *others = [part.strip() for part in code.split(",")] if "(" not in code else [code]
    kind = re.match(r"(.*?)[ *]*\b\w+(?:\[[^]]*\])*$", first)
    return [first] + [f"{kind[1]} {other}" for other in others]


def share(items):
    shared = []
    for item in items:
        last = shared[-1] if shared else None
        bare = item.kind in ("member", "function") and not (item.before or item.behind or item.apart)
        if bare and last and last.kind == item.kind and last.before and not last.behind:
            last.code += item.code
            continue
        if item.before and item.behind:
            shared.append(Item("prose", before=item.before))
            item.before = []
        shared.append(item)
    return shared


def declaration(match):
    if match["directive"]:
        macro = re.match(r"#define (FA_\w+) ([^_\s].*)", match["directive"])
        return Item("macro", [macro[1], macro[2].strip()]) if macro else None
    if match["language"]:
        return None
    if match["body"]:
        kind = "member" if match["what"] == "struct" else "enumerator"
        found = take(BODIES[match["what"]], match["inside"], lambda m: Item(kind, declarators(squeeze(m["code"]))))
        return Item(match["what"], [match["tag"]] if match["tag"] else [], members=share(found))
    code = squeeze(match["code"])
    opaque = re.fullmatch(r"typedef struct (\w+) \1", code)
    if opaque:
        return Item("struct", [opaque[1]])
    for prefix, kind in (("typedef ", "type"), ("FA_API ", "function")):
        if code.startswith(prefix):
            return Item(kind, [code.removeprefix(prefix)])
    if re.fullmatch(r"struct \w+", code):  # what a handle of another library points to
        return None
    raise SystemExit(f"headers.py: what is {code!r}?")


def read(text):
    """The items of a header. The first is prose: what the header is about."""
    return [item for item in share(take(HEADER, text, declaration)) if not any("SPDX" in c for c in item.before)]


def name_of(code):
    """The name that a declaration declares."""
    pointer = re.search(r"\(\s*\*+\s*(?:\(\s*\*\s*)?(\w+)", code)
    return pointer[1] if pointer else re.search(r"(\w+)\s*(?:\[[^]]*\]|\(.*\)|= .*)*$", code)[1]
