"""The faults of ``tests/seeded`` are changes of the sources as they are now. Whether each is found takes minutes."""

import re
from pathlib import Path

import pytest

from .builds import ROOT

PATCHES = sorted((ROOT / "tests" / "seeded").glob("*.patch"))


@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.stem)
def test_a_fault_can_be_put_in(patch: Path) -> None:
    """Each part of a patch says at which line it begins, and which lines stand there before the change."""
    head, *parts = re.split(r"^@@ -(\d+),\d+ \+\d+,\d+ @@\n", patch.read_text("utf-8"), flags=re.MULTILINE)
    (name,) = re.findall(r"^--- a/(.+)$", head, re.MULTILINE)
    lines = (ROOT / name).read_text("utf-8").splitlines()
    assert parts
    for first, part in zip(parts[::2], parts[1::2], strict=True):
        before = [line[1:] for line in part.splitlines() if line[:1] in ("", " ", "-")]
        start = int(first) - 1
        assert lines[start : start + len(before)] == before
