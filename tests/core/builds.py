"""Copies of the project with a compiled core of their own, and the programs that try it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["ROOT", "Build"]

ROOT = Path(__file__).parents[2]
_PARTS = ("asgi_bridge", "tests/__init__.py", "tests/core", "tests/wire", "tests/replay", "tests/data")


class Build:
    """A copy of the package and of what tries it, with the compiled core built anew.

    Args:
        folder: Where it is made. The folder must not be there.
        patch: File with a change of the sources.
        flags: Of compiler and linker.
        python: The interpreter that builds and runs it.
        search: Folders where that interpreter finds the packages of others.
    """

    def __init__(
        self, folder: Path, *, patch: Path | None = None, flags: str = "", python: str = sys.executable,
        search: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._folder = folder
        self._python = python
        self._search = search
        for part in _PARTS:
            source, target = ROOT / part, folder / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.so", "seeded"))
            else:
                shutil.copy(source, target)
        shutil.copy(ROOT / "setup.py", folder)
        if patch is not None:
            subprocess.run(["patch", "--strip=1", "--fuzz=0", "--input", str(patch)], cwd=folder, check=True)
        done = self.run("setup.py", "--quiet", "build_ext", "--inplace", variables={"CFLAGS": flags, "LDFLAGS": flags})
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, *arguments: str, variables: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        """Run the interpreter in the copy, where the compiled core must be in use.

        Args:
            arguments: Of the interpreter.
            variables: Of the environment, beside those of this process.
        """
        environment = {
            **os.environ,
            "ASGI_BRIDGE_COMPILED": "1",
            "PYTHONPATH": os.pathsep.join([str(self._folder), *self._search]),
            **(variables or {}),
        }
        return subprocess.run(
            [self._python, *arguments], cwd=self._folder, capture_output=True, text=True, env=environment, check=False
        )
