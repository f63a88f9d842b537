"""A preprocessor of mdBook: links are written for the repository, and have to lead somewhere in the book as well.

The book is made of docs/, while README and ARCHITECTURE lie above it. They are included by the pages in docs/book, and the relative
links in them begin at the root; pages of docs/ link to them by `../README.md`. Both kinds are turned to where the page is in the book. A
link to a file that is not in the book, as to a unit or the licence, keeps its text alone.
"""

import json
import posixpath
import re
import sys

# Pages of the book by the files of the repository that they include.
INCLUDED = {
    "README.md": "docs/book/quick-start.md",
    "ARCHITECTURE.md": "docs/book/architecture.md",
    "SECURITY.md": "docs/book/security.md",
    "CHANGELOG.md": "docs/book/changelog.md",
}
SOURCES = {page: file for file, page in INCLUDED.items()}

FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")


def turned(text, page):
    """The text of a page of the book, its links turned; `page` is its path in the repository."""
    folder = posixpath.dirname(SOURCES.get(page, page))

    def link(found):
        image, label, target = found.groups()
        path, hash_, place = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return found.group()
        file = posixpath.normpath(posixpath.join(folder, path))
        file = INCLUDED.get(file, file)
        if not file.startswith("docs/"):
            return label
        return f"{image}[{label}]({posixpath.relpath(file, posixpath.dirname(page))}{hash_}{place})"

    pieces, end = [], 0
    for fence in FENCE.finditer(text):
        pieces += [LINK.sub(link, text[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join(pieces + [LINK.sub(link, text[end:])])


def turn_all(items):
    for item in items:
        chapter = item.get("Chapter") if isinstance(item, dict) else None
        if chapter:
            if chapter["path"]:
                chapter["content"] = turned(chapter["content"], "docs/" + chapter["path"])
            turn_all(chapter["sub_items"])


if len(sys.argv) > 1 and sys.argv[1] == "supports":
    sys.exit(0)
_, book = json.load(sys.stdin)
turn_all(book.get("items", book.get("sections", [])))
json.dump(book, sys.stdout)
