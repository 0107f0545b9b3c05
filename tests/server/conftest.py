import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..doubles.runner_process import RunnerProcess
from ..doubles.runner_thread import ThreadRunner
from ..loops import LOOPS
from . import HERE, sample

StartRunner = Callable[..., RunnerProcess]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder with a short path, because that of a unix socket must be short."""
    path = tempfile.mkdtemp(prefix="ab-", dir="/tmp")
    yield Path(path)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def path(folder: Path) -> str:
    """Path of a socket."""
    return str(folder / "r.sock")


@pytest.fixture
def start(path: str) -> Iterator[StartRunner]:
    """Starts runner processes of sample.py, on `path` if nothing else is said."""
    runners: list[RunnerProcess] = []

    def start(*arguments: str, **kwargs: Any) -> RunnerProcess:
        runner = RunnerProcess(
            kwargs.pop("path", path), *arguments, **{"target": "sample:bridge", "app_dir": str(HERE), **kwargs}
        )
        runners.append(runner)
        return runner

    yield start
    for runner in runners:
        runner.end()


@pytest.fixture(params=LOOPS, scope="module")
def runner(request: pytest.FixtureRequest) -> Iterator[ThreadRunner]:
    """Run a runner on a thread of this process, with the plugins of sample.py. Each test runs on both event loops."""
    with tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as folder:
        runner = ThreadRunner(f"{folder}/r.sock", request.param, sample.bridge)
        yield runner
        runner.stop()


@pytest.fixture(params=LOOPS)
def serving(request: pytest.FixtureRequest, path: str) -> Iterator[Callable[..., ThreadRunner]]:
    """Start such runners with options."""
    runners: list[ThreadRunner] = []

    def serving(**kwargs: Any) -> ThreadRunner:
        runners.append(ThreadRunner(path, request.param, **{"bridge": sample.bridge, **kwargs}))
        return runners[-1]

    yield serving
    for runner in runners:
        runner.stop()
