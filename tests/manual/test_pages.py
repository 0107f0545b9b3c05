"""Every command and every code block of the manual works as it stands there."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .blocks import PAGES, ROOT, Block, blocks_of, page_name


def blocks() -> Iterator[tuple[str, Block]]:
    for page in PAGES:
        for block in blocks_of(page):
            yield page_name(page), block


def run(page: Path, folder: Path, *more: str) -> str:
    """Run the blocks of a page, and return what is wrong."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.manual.run_page", str(page), str(folder), *more],
        cwd=ROOT, capture_output=True, text=True, timeout=3000 if more else 300,
    )  # fmt: skip
    print(done.stdout)  # what the blocks of a long run took
    return "" if done.returncode == 0 else done.stderr or "failed"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=page_name)
def test_every_block_works(page: Path, tmp_path: Path) -> None:
    assert run(page, tmp_path) == ""


def test_no_fence_is_overlooked() -> None:
    fences = {page_name(page): page.read_text().count("```") / 2 for page in PAGES}
    found = {page_name(page): sum(block.language != "hidden" for block in blocks_of(page)) for page in PAGES}
    assert found == fences


NOT_RUN = [
    ("docs/apisix.md", "console", "an APISIX with an Admin API has to run"),
    ("docs/coming-from/go.md", "go", "Go, for comparison"),
    ("docs/coming-from/java.md", "java", "Java, for comparison"),
    ("docs/coming-from/kong.md", "python", "a plugin for Kong, for comparison"),
    ("docs/coming-from/lua.md", "lua", "Lua, for comparison"),
    ("docs/coming-from/python.md", "python", "a plugin of another runner, for comparison"),
    ("docs/operate/deploy.md", "console", "Docker has to be installed"),
    ("docs/operation.md", "console", "an APISIX with an Admin API has to run"),
    ("docs/operation.md", "console", "it depends on the compiler"),
    ("docs/operation.md", "console", "it takes over from the runner above; tests/succession does that"),
    (
        "docs/operation.md",
        "console",
        "these findings are of a machine with an APISIX; tests/doctor has each of them",
    ),
    ("docs/operation.md", "console", "an APISIX with an Admin API has to run"),
    ("docs/operation.md", "console", "it takes the calls of a day; tests/recording records and replays"),
    ("docs/operation.md", "console", "a collector has to run; tests/tracing exports spans"),
    ("docs/start.md", "console", "an APISIX has to be installed"),
    ("docs/start.md", "console", "Docker has to be installed"),
]
"""Every block of the manual that is not run: page, language, and why."""


def test_what_is_not_run_is_known() -> None:
    assert [(page, block.language, block.reason) for page, block in blocks() if block.reason is not None] == NOT_RUN


def test_the_way_without_an_apisix_is_run_as_a_whole() -> None:
    start = blocks_of(ROOT / "docs" / "start.md")
    line = (ROOT / "docs" / "start.md").read_text().split("\n").index("## In a real APISIX, standalone")
    assert [block for block in start if block.line < line and block.reason is not None] == []


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("```python\nx = 1 / 0\n```\n", "division by zero"),
        ("```console\n$ echo a\nb\n```\n", "the page shows"),
        ("```console\n$ false\n```\n", "ended with 1"),
        ("```rust\nfn main() {}\n```\n", "say why it is not run"),
        ("```json\n{]\n```\n", "Expecting"),
        ("```yaml\nroutes: [{uri: /x}]\n```\n", "no bridge"),
        ('```python title="test_x.py"\nx = 1\n```\n', "has no tests"),
        ("<!-- also run:\nassert 1 == 2\n-->\n", "AssertionError"),
    ],
    ids=["python", "output", "exit code", "language", "json", "routes", "tests", "hidden"],
)
def test_a_block_that_does_not_work_is_found(tmp_path: Path, page: str, message: str) -> None:
    wrong = tmp_path / "wrong.md"
    wrong.write_text(page)
    folder = tmp_path / "run"
    folder.mkdir()
    assert message in run(wrong, folder)
