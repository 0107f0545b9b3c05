"""The Python of the manual has the right types: what a reader copies is no error in an editor."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .blocks import PAGES, ROOT, blocks_of, page_name
from .run_page import BEFORE, SHORT

_BEGIN = re.compile(r"^from asgi_bridge.* import .*\b(Bridge|pass_on)\b", re.MULTILINE)
_OWN = re.compile(r"^from gate import .*\n", re.MULTILINE)
"""A test imports what stands above it on the page."""
CONFIGURATION = f"""\
[mypy]
python_version = 3.11
mypy_path = {ROOT}:{ROOT}/.ci/types
check_untyped_defs = True
# examples are short, and a page may define a name again
allow_redefinition = True
disable_error_code = no-redef, var-annotated
# Django has no types
ignore_missing_imports = True
"""


def programs() -> Iterator[tuple[str, str]]:
    """Give the programs of all pages. Where a page imports `Bridge` or `pass_on` again, another one begins.

    Returns:
        Page and line of the first block, and the code.
    """
    for page in PAGES:
        first, code = "", ""
        short = page.parent == ROOT / "docs" and page.name in SHORT
        for block in blocks_of(page):
            if block.language != "python" or block.reason is not None:
                continue
            if code and _BEGIN.search(code) and _BEGIN.search(block.text):
                yield first, code
                code = ""
            if not code:
                first, code = f"{page_name(page)}:{block.line}", BEFORE if short else ""
            code += f"\n# {page_name(page)}:{block.line}\n{_OWN.sub('', block.text)}"
        if code:
            yield first, code


WRONG = """
from asgi_bridge import Bridge, PassOn
Bridge().mount("x", PassOn(header={}), phase="requests")
"""


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed: make check installs it")
def test_the_types_of_all_blocks_are_right(tmp_path: Path) -> None:
    (tmp_path / "mypy.ini").write_text(CONFIGURATION)
    places = {}
    for number, (place, code) in enumerate([*programs(), ("wrong", WRONG)]):
        (tmp_path / f"program_{number}.py").write_text(code)
        places[f"program_{number}.py"] = place
    cache = str(ROOT / ".mypy_cache" / "manual")
    # a process of its own: mypy sets the recursion limit
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", cache, *places]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if ": error: " in line]
    found = [(places.get(line.partition(":")[0], "asgi_bridge"), line) for line in lines]
    assert [(place, line) for place, line in found if place != "wrong"] == []
    assert [re.sub(r".*\[(.*)\]$", r"\1", line) for _, line in found] == ["call-arg", "arg-type"]
