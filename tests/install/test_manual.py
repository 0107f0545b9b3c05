"""The page *Start* as a reader follows it: with an environment of its own, into which it installs a clone."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.manual.blocks import ROOT
from tests.manual.test_pages import run

pytestmark = [
    pytest.mark.install,
    pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="there is nothing to clone"),
]


def test_start_works_from_nothing(tmp_path: Path) -> None:
    clone = tmp_path / "path" / "to" / "asgi_bridge"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    assert run(ROOT / "docs" / "start.md", tmp_path, "long") == ""
