"""The code blocks of the manual: what each holds, and what is to be done with it.

A fence says its language and, with ``title="…"``, the file that it is. A comment before a fence says more:

- ``<!-- not run: REASON -->``: the block is not run, and why.
- ``<!-- long -->``: the block is run by ``make test-install`` alone (tests/install/test_manual.py).
- ``<!-- also run:`` and Python code: a block that readers do not see. It tries what the blocks before it define.
"""

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGES", "ROOT", "Block", "blocks_of", "page_name"]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = {DOCS / "compatibility.md", DOCS / "plugins"}
"""Pages that a program makes of what it has run, and folders of such pages."""
PAGES = sorted(page for page in DOCS.rglob("*.md") if not GENERATED & {page, *page.parents})

_BLOCK = re.compile(
    r'^(?:<!-- (?P<comment>(?:not run: |long)[^\n]*?) ?-->\n\n?)?'
    r'(?P<indent> *)```(?P<language>\w*)(?: +title="(?P<title>[^"]+)")?\n(?P<text>.*?)^(?P=indent)```$'
    r'|^<!-- also run:\n(?P<hidden>.*?)^-->$',
    re.DOTALL | re.MULTILINE,
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """One block.

    Attributes:
        line: Line of the page that the block begins on.
        language: What the fence says, or ``"hidden"``.
        title: The file that it is, or None.
        text: What it holds.
        comment: ``"not run: …"``, ``"long"`` or ``""``.
    """

    line: int
    language: str
    title: str | None
    text: str
    comment: str

    @property
    def reason(self) -> str | None:
        """Why the block is not run; None: it is."""
        return self.comment.removeprefix("not run: ") if self.comment.startswith("not run: ") else None


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page, in its order."""
    text = page.read_text("utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        hidden = match["hidden"]
        line = text.count("\n", 0, match.start("hidden" if hidden is not None else "text")) + 1
        if hidden is not None:
            found.append(Block(line, "hidden", None, hidden, ""))
            continue
        indent = match["indent"]
        inner = "\n".join(each.removeprefix(indent) for each in match["text"].split("\n"))
        found.append(Block(line, match["language"], match["title"], inner, match["comment"] or ""))
    return found


def page_name(page: Path) -> str:
    """Return the path of a page from the top of the repository."""
    return str(page.relative_to(ROOT))
