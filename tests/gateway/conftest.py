from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.runner_double import RunnerDouble, running


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerDouble]:
    with running(str(tmp_path / "runner.sock")) as double:
        yield double
