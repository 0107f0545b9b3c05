"""Processes that serve alone, as with `Bridge.run`: tests/supervisor has those with a supervisor."""

from collections.abc import Iterator
from typing import Any

import pytest

from ..doubles.runner_process import RunnerProcess
from ..server import HERE
from ..server.conftest import StartRunner, folder, path

__all__ = ["folder", "path"]


@pytest.fixture
def start(path: str) -> Iterator[StartRunner]:
    """Start processes that serve the plugins of tests/server/sample.py, on `path` if nothing else is said."""
    runners: list[RunnerProcess] = []

    def start(*arguments: str, **kwargs: Any) -> RunnerProcess:
        told = {"target": "sample:bridge", "app_dir": str(HERE), "alone": True, **kwargs}
        runners.append(RunnerProcess(told.pop("path", path), *arguments, **told))
        return runners[-1]

    yield start
    for runner in runners:
        runner.end()
