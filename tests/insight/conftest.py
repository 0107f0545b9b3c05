import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_bridge.wire import ExtraInfoReq, ExtraInfoResp

from ..doubles.connection import Connection
from ..doubles.runner_process import RunnerProcess, runner_process
from ..server.conftest import folder
from .stage import PLUGINS, Admin, admin_of

__all__ = ["folder"]


@pytest.fixture(scope="module")
def short_folder() -> Iterator[Path]:
    """Make a folder with a short path, because that of a unix socket must be short."""
    path = tempfile.mkdtemp(prefix="ab-", dir="/tmp")
    yield Path(path)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def runner(short_folder: Path) -> Iterator[RunnerProcess]:
    """Run the plugins, with ``--admin``. All tests of a module share the process."""
    with runner_process(short_folder, PLUGINS, "--admin", "127.0.0.1:0") as runner:
        yield runner


@pytest.fixture(scope="module")
def admin(runner: RunnerProcess) -> Admin:
    """The admin application of that runner."""
    return admin_of(runner)


@pytest.fixture
def patient() -> Callable[..., None]:
    """Returns a function that makes a call and answers each ask with ``3f2a``."""

    def call(connection: Connection, token: int, **fields: Any) -> None:
        connection.begin(token, **fields)
        while isinstance(connection.receive(), ExtraInfoReq):
            connection.send(ExtraInfoResp(b"3f2a"))

    return call
